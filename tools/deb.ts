/**
 * `deno task deb`: a Debian package of an executable that `deno task compile`
 * has made, by dpkg-deb alone. The same byte for byte whenever it is made from
 * the same executable and commit.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { fileURLToPath } from "node:url";
import { VERSION } from "../lib/version.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
/** Debian's names of the architectures, by ELF's numbers. */
const ARCHITECTURES: Readonly<Record<number, string>> = {
  62: "amd64",
  183: "arm64",
};
const ELF_MACHINE_AT = 18;
const MAINTAINER = "The wgd authors <wgd@example.invalid>";
/** What deno's own binaries need, by their versioned symbols. */
const DEPENDS = ["iproute2", "libc6 (>= 2.28)", "libgcc-s1"];
const RECOMMENDS = ["nftables"];
const SUGGESTS = ["openresolv | resolvconf", "wireguard-tools"];
const CONFFILES = ["/etc/default/wgd"];
const SCRIPTS = ["postinst", "prerm", "postrm"];

const CONTROL = `Package: wgd
Version: @VERSION@
Architecture: @ARCHITECTURE@
Maintainer: ${MAINTAINER}
Installed-Size: @SIZE@
Depends: ${DEPENDS.join(", ")}
Recommends: ${RECOMMENDS.join(", ")}
Suggests: ${SUGGESTS.join(", ")}
Section: net
Priority: optional
Description: WireGuard in user space, in one executable
 A daemon for WireGuard interfaces on a TUN device, with the commands of wg(8)
 and wg-quick(8) that set them up, show them and take them down.
 .
 It is for kernels that lack WireGuard; where the kernel has it, it is faster.
`;

const COPYRIGHT =
  `Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: wgd

Files: *
Copyright: the wgd authors, and those of Deno and V8, which /usr/bin/wgd holds
License: Expat

License: Expat
@LICENSE@
`;

const CHANGELOG = `wgd (@VERSION@) unstable; urgency=medium

  * See CHANGELOG.md of wgd.

 -- ${MAINTAINER}  @DATE@
`;

interface Options {
  readonly executable: string;
  readonly output: string;
  /** As dpkg-deb names it. */
  readonly compression: string;
}

function parseOptions(args: readonly string[]): Options {
  const parsed = parseArgs([...args], {
    string: ["executable", "output", "compression"],
    unknown: (arg) => {
      throw new Error(`unknown argument ${arg}`);
    },
  });
  const executable = parsed.executable ??
    `${ROOT}dist/wgd-linux-${Deno.build.arch}`;
  const name = `wgd_${VERSION}_${architectureOf(executable)}.deb`;
  return {
    executable,
    output: parsed.output ?? `${ROOT}dist/${name}`,
    compression: parsed.compression ?? "xz",
  };
}

function architectureOf(executable: string): string {
  using file = Deno.openSync(executable);
  const header = new Uint8Array(20);
  file.readSync(header);
  const machine = new DataView(header.buffer).getUint16(ELF_MACHINE_AT, true);
  const architecture = ARCHITECTURES[machine];
  if (header[0] !== 0x7f || architecture === undefined) {
    throw new Error(`${executable} is no executable for x86-64 or arm64`);
  }
  return architecture;
}

/** Runs a program in the checkout. @returns its stdout, undefined if it fails */
function run(
  argv: readonly string[],
  env?: Record<string, string>,
): string | undefined {
  const [program, ...args] = argv;
  const { success, stdout } = new Deno.Command(program, {
    args,
    env,
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).outputSync();
  return success ? new TextDecoder().decode(stdout) : undefined;
}

/** @throws Error */
function must(argv: readonly string[], env?: Record<string, string>): string {
  const out = run(argv, env);
  if (out === undefined) throw new Error(`failed: ${argv.join(" ")}`);
  return out;
}

/** Seconds since the epoch that all files' times are set to. */
function epoch(): string {
  return Deno.env.get("SOURCE_DATE_EPOCH") ??
    run(["git", "log", "-1", "--format=%ct"])?.trim() ?? "0";
}

/** Output of a command of wgd, or undefined where it has no such command. */
function wgd(...args: string[]): string | undefined {
  const own = [Deno.execPath(), "run", "--quiet", "-A", "cli.ts"];
  const known = must([...own, "--help"]);
  return new RegExp(`^  ${args[0]} `, "m").test(known)
    ? must([...own, ...args])
    : undefined;
}

/** Writes the package's tree. */
function stage(tree: string, { executable }: Options): void {
  const put = (path: string, text: string, mode = 0o644): void => {
    Deno.mkdirSync(`${tree}${path}`.replace(/[^/]*$/, ""), { recursive: true });
    Deno.writeTextFileSync(tree + path, text);
    Deno.chmodSync(tree + path, mode);
  };
  const packed = (path: string, text: string): void => {
    put(path, text);
    must(["gzip", "-9n", tree + path]);
  };
  const read = (name: string): string =>
    Deno.readTextFileSync(`${ROOT}packaging/${name}`);
  const date = new Date(+epoch() * 1000).toUTCString()
    .replace("GMT", "+0000");
  const fill = (text: string): string =>
    text.replaceAll("@VERSION@", VERSION).replace("@DATE@", date);

  put("/usr/bin/wgd", "", 0o755);
  Deno.copyFileSync(executable, `${tree}/usr/bin/wgd`);
  Deno.chmodSync(`${tree}/usr/bin/wgd`, 0o755);
  put("/lib/systemd/system/wgd@.service", read("systemd/wgd@.service"));
  put("/etc/default/wgd", read("default"));
  const license = Deno.readTextFileSync(`${ROOT}LICENSE`).trimEnd().split("\n")
    .map((line) => line === "" ? " ." : ` ${line}`).join("\n");
  put("/usr/share/doc/wgd/copyright", COPYRIGHT.replace("@LICENSE@", license));
  packed("/usr/share/doc/wgd/changelog", fill(CHANGELOG));
  put("/usr/share/lintian/overrides/wgd", read("debian/lintian-overrides"));
  const man = wgd("man");
  if (man !== undefined) packed("/usr/share/man/man8/wgd.8", man);
  const completions = {
    bash: "/usr/share/bash-completion/completions/wgd",
    zsh: "/usr/share/zsh/vendor-completions/_wgd",
    fish: "/usr/share/fish/vendor_completions.d/wgd.fish",
  };
  for (const [shell, path] of Object.entries(completions)) {
    const text = wgd("completions", shell);
    if (text !== undefined) put(path, text);
  }

  const kilobytes = must(["du", "-sk", "--apparent-size", tree]).split("\t")[0];
  put(
    "/DEBIAN/control",
    fill(CONTROL)
      .replace("@ARCHITECTURE@", architectureOf(executable))
      .replace("@SIZE@", kilobytes),
  );
  put("/DEBIAN/conffiles", CONFFILES.map((path) => `${path}\n`).join(""));
  for (const name of SCRIPTS) {
    put(`/DEBIAN/${name}`, read(`debian/${name}`), 0o755);
  }
  put(
    "/DEBIAN/md5sums",
    must([
      "sh",
      "-ceu",
      `cd "$1"
find . -type f ! -path './DEBIAN/*' ! -path './etc/*' -printf '%P\\n' |
  LC_ALL=C sort | xargs -d '\\n' md5sum`,
      "sh",
      tree,
    ]),
  );
}

/** Makes the package. */
function main(args: readonly string[]): void {
  const options = parseOptions(args);
  const tree = Deno.makeTempDirSync({ prefix: "wgd-deb-" });
  try {
    Deno.chmodSync(tree, 0o755);
    stage(tree, options);
    must(["chmod", "-R", "u=rwX,go=rX", tree]);
    must(
      [
        ...["dpkg-deb", "--root-owner-group", `-Z${options.compression}`],
        ...["--build", tree, options.output],
      ],
      { SOURCE_DATE_EPOCH: epoch() },
    );
  } finally {
    Deno.removeSync(tree, { recursive: true });
  }
  const size = (Deno.statSync(options.output).size / 1e6).toFixed(1);
  const text = `${options.output}: ${size} MB\n`;
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}

if (import.meta.main) main(Deno.args);
