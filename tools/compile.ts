/**
 * `deno task compile`: the checkout as one file for another machine, in one of
 * two forms. `executable` is made by `deno compile`; `script`, for where the
 * base binary of that (denort) cannot be had, is a shell script that carries
 * the stock deno binary (tools/sfx.ts). Both are made from the same bundle, are
 * the same byte for byte whenever and wherever they are made from one commit,
 * and get a file with their SHA-256 beside them.
 *
 * `--suite` makes another executable: the namespace tests, the programs that
 * they start, and the demo, which then run without Deno and the checkout.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { fileURLToPath } from "node:url";
import { PERMISSIONS, UNSTABLE, V8_FLAGS } from "./permissions.ts";
import { writeScript } from "./sfx.ts";

const ROOT = fileURLToPath(new URL("../", import.meta.url));
/** What lib/version.ts has in place of the commit. */
const COMMIT_MARK = "@wgd-commit@";
/** Places as lib/ names them, and in the bundle. */
const PLACES = [
  { source: '"./worker.ts"', bundled: '"./lib/worker.js"' },
  { source: '"../../packaging/"', bundled: '"./packaging/"' },
];
/** What `wgd install` reads. */
const PACKAGED = ["default", "hold", "openrc", "openwrt", "systemd"];
const COMMIT_DIGITS = 12;

/** What a file is made from. */
interface Contents {
  /** The file's name begins with it. */
  readonly name: string;
  /** The module that it runs, and those that are loaded by their paths. */
  readonly main: string;
  readonly modules: () => string[];
  readonly bundling: readonly string[];
  readonly permissions: readonly string[];
}

const WGD: Contents = {
  name: "wgd",
  main: "cli.ts",
  modules: () => ["lib/worker.ts"],
  bundling: ["--minify"],
  permissions: [V8_FLAGS, ...PERMISSIONS],
};

const SUITE: Contents = {
  name: "wgd-suite",
  main: "tests/suite/main.ts",
  modules: () => [
    ...[...Deno.readDirSync(`${ROOT}tests/netns`)]
      .map(({ name }) => `tests/netns/${name}`).sort(),
    ...["tools/demo.ts", "tools/demo_peer.ts"],
  ],
  bundling: [],
  // It is a test tool: reads /proc and /sys, sets its environment.
  permissions: ["--allow-all"],
};

/** Deno's names of the targets, and ours, which are uname's. */
const ARCHITECTURES: Readonly<Record<string, string>> = {
  "x86_64-unknown-linux-gnu": "x86_64",
  "aarch64-unknown-linux-gnu": "aarch64",
};

const USAGE = `usage: deno task compile [--target TARGET] [--form FORM]
         [--output FILE] [--deno FILE] [--suite]

  --target  ${Object.keys(ARCHITECTURES).join(" or ")}
  --form    executable (default), by deno compile; or script, which carries a
            stock deno and extracts it on its first run
  --output  default: dist/wgd-linux-ARCHITECTURE, with .run for a script, or
            dist/wgd-suite-linux-ARCHITECTURE
  --deno    the deno that a script carries; default: this one
  --suite   the namespace tests and the demo, in place of wgd

DENORT_BIN names the base of an executable where Deno cannot download it.
WGD_COMMIT names the commit where there is no git.
`;

/** What cannot be done, in words for the one who asked for it. */
class CompileError extends Error {
  override readonly name = "CompileError";
}

interface Options {
  readonly contents: Contents;
  readonly target: string;
  readonly form: "executable" | "script";
  readonly output: string;
  readonly deno: string;
}

/** @throws CompileError */
function parseOptions(args: readonly string[]): Options {
  const wrong = (text: string): never => {
    throw new CompileError(`${text}\n${USAGE}`);
  };
  const parsed = parseArgs([...args], {
    string: ["target", "form", "output", "deno"],
    boolean: ["suite"],
    unknown: (arg) => wrong(`unknown argument ${arg}`),
  });
  const target = parsed.target ?? `${Deno.build.arch}-unknown-linux-gnu`;
  const architecture = ARCHITECTURES[target] ??
    wrong(`--target ${target}: wgd runs on Linux on x86-64 and arm64 alone`);
  const form = parsed.form ?? "executable";
  if (form !== "executable" && form !== "script") {
    return wrong(`--form ${form}: expected executable or script`);
  }
  const contents = parsed.suite ? SUITE : WGD;
  if (parsed.suite && form === "script") wrong("--suite is an executable");
  const suffix = form === "script" ? ".run" : "";
  const deno = parsed.deno ?? Deno.execPath();
  if (
    form === "script" && parsed.deno === undefined &&
    target !== `${Deno.build.arch}-unknown-linux-gnu`
  ) {
    wrong(
      `--form script --target ${target} needs --deno: deno for that target`,
    );
  }
  const name = `${contents.name}-linux-${architecture}${suffix}`;
  return {
    contents,
    target,
    form,
    output: parsed.output ?? `${ROOT}dist/${name}`,
    deno,
  };
}

/** Runs a program in the checkout. @returns its stdout @throws CompileError */
function run(program: string, ...args: string[]): string {
  const { success, code, stdout } = new Deno.Command(program, {
    args,
    cwd: ROOT,
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).outputSync();
  if (!success) {
    throw new CompileError(`${program} ${args[0]}: exit ${code}`);
  }
  return new TextDecoder().decode(stdout);
}

/** The commit of the checkout; a tree with changes says so. */
function commitOf(): string {
  const given = Deno.env.get("WGD_COMMIT");
  if (given) return given;
  const head = run("git", "rev-parse", `--short=${COMMIT_DIGITS}`, "HEAD");
  const changes = run("git", "status", "--porcelain");
  return head.trim() + (changes === "" ? "" : "-dirty");
}

/** Replaces what occurs in the bundle, which must be just once. */
function replaceOnce(directory: string, from: string, to: string): void {
  let found = 0;
  for (const { name, isFile } of Deno.readDirSync(directory)) {
    if (!isFile) continue;
    const path = `${directory}/${name}`;
    const parts = Deno.readTextFileSync(path).split(from);
    if (parts.length === 1) continue;
    found += parts.length - 1;
    Deno.writeTextFileSync(path, parts.join(to));
  }
  if (found !== 1) {
    throw new CompileError(`the bundle has ${from} ${found} times, not once`);
  }
}

/**
 * Bundles the program into `directory`: each module at its place, and what they
 * share or load when a command needs it at the directory's top. For wgd that is
 * cli.js and lib/worker.js; and packaging/ beside them.
 */
function bundle(directory: string, contents: Contents): void {
  const { main, modules, bundling } = contents;
  run(
    Deno.execPath(),
    ...["bundle", "--quiet", "--frozen", "--code-splitting", ...bundling],
    ...["--outdir", directory, main, ...modules()],
  );
  replaceOnce(directory, COMMIT_MARK, commitOf());
  if (contents !== WGD) return;
  for (const { source, bundled } of PLACES) {
    replaceOnce(directory, source, bundled);
  }
  Deno.mkdirSync(`${directory}/packaging`);
  const packaged = PACKAGED.map((name) => `packaging/${name}`);
  run("cp", "-R", ...packaged, `${directory}/packaging`);
}

/** Files of a bundle, in order. */
function filesOf(directory: string, under = ""): string[] {
  const entries = [...Deno.readDirSync(`${directory}/${under}`)]
    .sort((a, b) => a.name < b.name ? -1 : 1);
  return entries.flatMap(({ name, isDirectory }) =>
    isDirectory ? filesOf(directory, `${under}${name}/`) : [under + name]
  );
}

function compile(
  directory: string,
  { contents, target, output }: Options,
): void {
  const base = Deno.env.get("DENORT_BIN");
  if (base) assertTarget(base, target);
  const files = filesOf(directory);
  // Deno writes the files' times into the executable.
  for (const name of files) Deno.utimeSync(`${directory}/${name}`, 0, 0);
  const main = contents.main.replace(/\.ts$/, ".js");
  const includes = files.filter((name) => name !== main)
    .flatMap((name) => ["--include", `${directory}/${name}`]);
  run(
    Deno.execPath(),
    // No cache of compiled code: Deno would keep it in a file under /tmp, by a
    // name that any user can foresee.
    ...["compile", "--quiet", "--no-code-cache", "--no-check"],
    ...["--no-config", "--no-lock", "--no-remote", "--no-npm", "--no-prompt"],
    ...UNSTABLE,
    ...contents.permissions,
    ...includes,
    ...["--target", target, "--output", output, `${directory}/${main}`],
  );
}

/** ELF's numbers of the architectures. */
const ELF_MACHINES: Readonly<Record<string, number>> = {
  "x86_64": 62,
  "aarch64": 183,
};

/** @throws CompileError when the base binary is for another machine */
function assertTarget(base: string, target: string): void {
  using file = Deno.openSync(base);
  const header = new Uint8Array(20);
  file.readSync(header);
  const machine = new DataView(header.buffer).getUint16(18, true);
  if (machine !== ELF_MACHINES[ARCHITECTURES[target]]) {
    throw new CompileError(`DENORT_BIN=${base} is not for ${target}`);
  }
}

/** Writes `FILE.sha256` as sha256sum(1) does. */
async function writeChecksum(path: string): Promise<string> {
  const digest = new Uint8Array(
    await crypto.subtle.digest("SHA-256", Deno.readFileSync(path)),
  ).toHex();
  const name = path.replace(/^.*\//, "");
  Deno.writeTextFileSync(`${path}.sha256`, `${digest}  ${name}\n`);
  return digest;
}

function say(
  stream: typeof Deno.stdout | typeof Deno.stderr,
  line: string,
): void {
  stream.writeSync(new TextEncoder().encode(`${line}\n`));
}

async function main(args: readonly string[]): Promise<void> {
  const options = parseOptions(args);
  const { output, form } = options;
  Deno.mkdirSync(output.replace(/[^/]*$/, "") || ".", { recursive: true });
  // In the checkout, so that paths in messages mean something to their reader.
  const stage = `${ROOT}dist/bundle`;
  await Deno.remove(stage, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
  bundle(stage, options.contents);
  if (form === "script") {
    await writeScript({ bundle: stage, deno: options.deno, output });
  } else compile(stage, options);
  const digest = await writeChecksum(output);
  const { size } = Deno.statSync(output);
  const megabytes = (size / 1e6).toFixed(1);
  say(Deno.stdout, `${output}: ${megabytes} MB, SHA-256 ${digest}`);
}

if (import.meta.main) {
  try {
    await main(Deno.args);
  } catch (error) {
    if (!(error instanceof CompileError)) throw error;
    say(Deno.stderr, error.message);
    Deno.exit(1);
  }
}
