/**
 * The Debian package: the same byte for byte, without fault for lintian, and
 * installed, upgraded, removed and purged in a copy of this system.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { findCommand } from "../../lib/commands/table.ts";
import { VERSION } from "../../lib/version.ts";
import {
  findProgram,
  must,
  type Outcome,
  ROOT,
  runProgram,
  testUnless,
} from "../compile_helpers.ts";

const noBuilder = findProgram("dpkg-deb")
  ? undefined
  : "needs dpkg-deb: apt-get install dpkg";
const noLintian = noBuilder ??
  (findProgram("lintian")
    ? undefined
    : "needs lintian: apt-get install lintian");

/** The executable, if .ci/run has made one, or another program in its place. */
function executable(): string {
  return Deno.env.get("WGD_PROGRAM") ?? "/bin/true";
}

/** Makes a package. @returns its path */
async function makePackage(
  directory: string,
  program: string,
  name = "wgd.deb",
): Promise<string> {
  const output = `${directory}/${name}`;
  await must([
    ...[Deno.execPath(), "task", "--quiet", "deb"],
    ...["--executable", program, "--output", output],
    ...["--compression", "gzip"],
  ], { cwd: ROOT });
  return output;
}

testUnless(
  noBuilder,
  "a package is the same byte for byte whenever it is made",
  async (directory) => {
    const files: Uint8Array[] = [];
    for (const name of ["one.deb", "another.deb"]) {
      files.push(
        Deno.readFileSync(await makePackage(directory, "/bin/true", name)),
      );
      await new Promise((resolve) => setTimeout(resolve, 1_100));
    }
    assertEquals(files[0], files[1]);
  },
);

testUnless(
  noBuilder,
  "a package needs an executable of Linux",
  async (directory) => {
    const script = `${directory}/script`;
    Deno.writeTextFileSync(script, "#!/bin/sh\necho no executable of ELF\n");
    const { code, err } = await runProgram([
      ...[Deno.execPath(), "task", "--quiet", "deb", "--executable", script],
      ...["--output", `${directory}/wgd.deb`],
    ], { cwd: ROOT });
    assertEquals(code, 1);
    assertStringIncludes(err, "is no executable for x86-64 or arm64");
  },
);

testUnless(
  noLintian,
  "lintian finds no fault with the package",
  async (directory) => {
    const path = await makePackage(directory, executable());
    const { out } = await runProgram(["lintian", "--no-cfg", path]);
    const expected = findCommand("man") ? [] : ["no-manual-page"];
    const tags = out.split("\n").filter((line) => /^[EW]: /.test(line))
      .map((line) => line.split(" ")[2]);
    assertEquals(tags, expected, out);
  },
);

/** Runs in a copy of this system, which is thrown away. */
const IN_COPY = `set -eu
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cp "$2" "$1/root/tmp/wgd.deb"
mount -t proc proc "$1/root/proc"
mount --bind /dev "$1/root/dev"
chroot "$1/root" sh -euc "$3"
`;

const noCopy = noBuilder ??
  (Deno.uid() !== 0 ? "needs root, to make a copy of the system" : undefined) ??
  await (async (): Promise<string | undefined> => {
    const directory = Deno.makeTempDirSync();
    try {
      const { code, err } = await inCopy(directory, "/dev/null", "true");
      return code === 0 ? undefined : `needs overlay mounts: ${err.trim()}`;
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  })();

function inCopy(
  directory: string,
  path: string,
  script: string,
): Promise<Outcome> {
  const copy = `${directory}/copy`;
  Deno.mkdirSync(copy);
  return runProgram([
    ...["unshare", "--mount", "sh", "-c", IN_COPY, "sh"],
    ...[copy, path, script],
  ]);
}

const LIFE = `say() { echo "== $*"; }
state() { find /usr/bin/wgd* /etc/default/wgd* /lib/systemd/system/wgd* \
  /usr/lib/systemd/system/wgd* /usr/share/doc/wgd* /usr/share/man/man8/wgd* \
  /usr/share/*/completions/wgd* 2> /dev/null | sort -u; }
before=$(state)
say install; dpkg --force-depends -i /tmp/wgd.deb > /dev/null
say version; wgd --version
say modes; stat -c '%a %U %n' /usr/bin/wgd /etc/default/wgd
say conffiles; dpkg-query -W -f '\${Conffiles}\\n' wgd | awk 'NF { print $1 }'
echo LOG_LEVEL=verbose >> /etc/default/wgd
say upgrade; dpkg --force-depends -i /tmp/wgd.deb > /dev/null
grep LOG_LEVEL=verbose /etc/default/wgd
say verify; dpkg --verify wgd
say remove; dpkg -r wgd > /dev/null; state
say purge; dpkg --purge wgd > /dev/null
[ "$(state)" = "$before" ] && echo nothing left
dpkg-query -W wgd 2>&1 || :
`;

testUnless(
  noCopy,
  "a package is installed, upgraded, removed and purged",
  async (directory) => {
    const path = await makePackage(directory, executable());
    const { code, out, err } = await inCopy(directory, path, LIFE);
    assertEquals(code, 0, out + err);
    const said = new Map(
      out.split(/^== /m).slice(1).map((part) => {
        const [title, ...lines] = part.trimEnd().split("\n");
        return [title, lines] as const;
      }),
    );
    if (Deno.env.has("WGD_PROGRAM")) {
      assert(said.get("version")?.[0].startsWith(`wgd ${VERSION}`), out);
    }
    assertEquals(said.get("modes"), [
      "755 root /usr/bin/wgd",
      "644 root /etc/default/wgd",
    ]);
    assertEquals(said.get("conffiles"), ["/etc/default/wgd"]);
    assertEquals(said.get("upgrade"), ["LOG_LEVEL=verbose"]);
    assertEquals(said.get("verify"), ["??5?????? c /etc/default/wgd"]);
    assertEquals(said.get("remove"), ["/etc/default/wgd"]);
    assertEquals(said.get("purge")?.[0], "nothing left", out);
  },
);
