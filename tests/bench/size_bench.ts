/**
 * What it costs to have wgd on a machine, beside wireguard-go and boringtun: the
 * size of the file, as it is and packed by xz; from a program's start to the
 * first answer on its UAPI socket, and to the first ping through the tunnel;
 * and the memory of a daemon with one peer that has nothing to do.
 *
 *     deno task bench:size [--json] [--rounds N] [--quick]
 *
 * `--quick` packs nothing: xz takes half a minute and more for an executable.
 * WGD_PROGRAM names the executable, WGD_SCRIPT the form `script` of `deno task
 * compile`; unless told otherwise they are looked for in dist/, and what is not
 * there is left out. WGD_WIREGUARD_GO and WGD_BORINGTUN name other programs than
 * those in the PATH. Contenders take turns; medians of the rounds. Needs root,
 * iproute2, ping, wireguard-tools, xz.
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { parseArgs } from "@std/cli/parse-args";
import { fileURLToPath } from "node:url";
import { getDevice, setDevice } from "../../lib/uapi_client.ts";
import { exists } from "../netns/daemon.ts";
import { Lab, type Namespace } from "../netns/lab.ts";
import { attempt, delay, type Process } from "../netns/process.ts";
import { findProgram, missing, otherCommand } from "../netns/requirements.ts";
import {
  generateKeys,
  INNER,
  type Keys,
  OUTER,
  PORT,
} from "../netns/tunnel.ts";
import { digits, median, table } from "./report.ts";

const DIST = fileURLToPath(new URL("../../dist/", import.meta.url));
const MB = 1e6;
const START_LIMIT_MS = 20_000;
/** Between two looks at whether a daemon answers. */
const LOOK_MS = 1;
const IDLE_MS = 5_000;

/** One round's figures; the names say the units. */
type Figures = Record<string, number>;

/** A program that is measured. */
interface Contender {
  readonly name: string;
  readonly file: string;
  /** Command line that runs an interface in the foreground. */
  daemon(name: string): string[];
  /** Command line of wg-quick, or of what stands for it. */
  quick(verb: "up" | "down", path: string): string[];
  readonly env: Record<string, string>;
}

// ---- what there is ----------------------------------------------------------

function wgdContender(
  name: string,
  file: string,
  env: Record<string, string> = {},
): Contender {
  return {
    name,
    file,
    daemon: (device) => [file, "run", "-f", device],
    quick: (verb, path) => [file, verb, path],
    env,
  };
}

function otherContender(
  name: "wireguard-go" | "boringtun",
  file: string,
): Contender {
  return {
    name,
    file,
    daemon: (device) => [file, "-f", device],
    quick: (verb, path) => ["wg-quick", verb, path],
    env: { WG_QUICK_USERSPACE_IMPLEMENTATION: file, WG_SUDO: "1" },
  };
}

const EXECUTABLE = Deno.env.get("WGD_PROGRAM") ??
  `${DIST}wgd-linux-${Deno.build.arch}`;

/** Those that are here. `cache` is where the script unpacks itself. */
function contenders(cache: string): Contender[] {
  const script = Deno.env.get("WGD_SCRIPT") ??
    `${DIST}wgd-linux-${Deno.build.arch}.run`;
  const all: Contender[] = [wgdContender("wgd", EXECUTABLE)];
  if (exists(script)) {
    all.push(wgdContender("wgd script", script, { WGD_CACHE: cache }));
  }
  for (const name of ["wireguard-go", "boringtun"] as const) {
    const [program] = otherCommand(name);
    const file = program.startsWith("/") ? program : findProgram(program);
    if (file !== undefined) all.push(otherContender(name, file));
  }
  return all;
}

// ---- sizes ------------------------------------------------------------------

/** Size of a file, and of what xz makes of it. */
async function sizes({ file }: Contender, isPacked: boolean): Promise<Figures> {
  const size = { "file_mb": Deno.statSync(file).size / MB };
  if (!isPacked) return size;
  const script = 'xz -6 --threads=0 -c "$1" | wc -c';
  const { stdout } = await attempt(["sh", "-c", script, "sh", file], {
    timeoutS: 300,
  });
  return { ...size, "xz_mb": Number(stdout) / MB };
}

// ---- a round ----------------------------------------------------------------

/** Runs a program that must succeed, and whose output nobody reads. */
async function quietly(
  namespace: Namespace,
  argv: readonly string[],
  env: Record<string, string> = {},
): Promise<void> {
  const log = `${namespace.lab.directory}/log`;
  // A daemon that it leaves behind must not hold a pipe of ours.
  const script = `exec "$@" > ${log} 2>&1`;
  const [program, ...args] = namespace.argv([
    "sh",
    "-c",
    script,
    "sh",
    ...argv,
  ]);
  const { success } = await new Deno.Command(program, {
    args,
    env,
    stdin: "null",
    stdout: "null",
    stderr: "null",
  }).output();
  if (success) return;
  throw new Error(`${argv.join(" ")}: ${Deno.readTextFileSync(log)}`);
}

/** Waits for the first answer on the UAPI socket. */
async function answers(name: string, daemon: Process): Promise<void> {
  const giveUpMs = performance.now() + START_LIMIT_MS;
  for (;;) {
    try {
      await getDevice(name);
      return;
    } catch (error) {
      if (performance.now() > giveUpMs || daemon.status !== undefined) {
        throw new Error(`${name} does not answer: ${daemon.said}`, {
          cause: error,
        });
      }
      await delay(LOOK_MS);
    }
  }
}

function hex(key: string): string {
  return Uint8Array.fromBase64(key).toHex();
}

/** Sets up one side by UAPI and ip(8). */
async function configure(
  namespace: Namespace,
  name: string,
  side: "a" | "b",
  keys: { a: Keys; b: Keys },
): Promise<void> {
  const other = side === "a" ? "b" : "a";
  const endpoint = side === "a" ? `endpoint=${OUTER.v4.b}:${PORT.b}\n` : "";
  await setDevice(
    name,
    `set=1\nprivate_key=${hex(keys[side].private)}\n` +
      `listen_port=${PORT[side]}\npublic_key=${hex(keys[other].public)}\n` +
      `${endpoint}allowed_ip=${INNER[other].v4}/32\n\n`,
  );
  await namespace.ip("addr", "add", `${INNER[side].v4}/24`, "dev", name);
  await namespace.ip("link", "set", name, "up");
}

/** Returns when the far side has answered a ping. */
async function firstPing({ a }: Lab): Promise<void> {
  await quietly(a, ["ping", "-n", "-c", "1", "-W", "10", INNER.b.v4]);
}

/** A file for wg-quick. */
function fileFor(lab: Lab, name: string, keys: { a: Keys; b: Keys }): string {
  return lab.file(
    `[Interface]
PrivateKey = ${keys.a.private}
ListenPort = ${PORT.a}
Address = ${INNER.a.v4}/24
[Peer]
PublicKey = ${keys.b.public}
AllowedIPs = ${INNER.b.v4}/32
Endpoint = ${OUTER.v4.b}:${PORT.b}
`,
    `${name}.conf`,
  );
}

/** Where the kernel has WireGuard, wg-quick takes that. */
async function wgQuickTakesDaemons({ a }: Lab): Promise<boolean> {
  if (findProgram("wg-quick") === undefined) return false;
  const link = ["ip", "-n", a.name, "link", "add", "wg", "type", "wireguard"];
  const { code } = await attempt(link);
  if (code === 0) await a.ip("link", "delete", "wg");
  return code !== 0;
}

/** Memory in MB, resident and with shared pages in parts, of one process. */
function memory(pid: number): Figures {
  const text = Deno.readTextFileSync(`/proc/${pid}/smaps_rollup`);
  const field = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+)`, "m").exec(text)?.[1]) * 1024 / MB;
  return {
    "idle_rss_mb": field("Rss"),
    "idle_pss_mb": field("Pss"),
    "idle_anonymous_mb": field("Anonymous"),
  };
}

async function measure(contender: Contender): Promise<Figures> {
  await using lab = await Lab.make();
  const { env } = contender;
  const keys = { a: await generateKeys(), b: await generateKeys() };
  const [name, farName] = [
    await lab.interfaceName(),
    await lab.interfaceName(),
  ];
  const start = (side: Namespace, device: string): Process =>
    side.spawn(contender.daemon(device), { LOG_LEVEL: "error", ...env });
  const far = start(lab.b, farName);
  await answers(farName, far);
  await configure(lab.b, farName, "b", keys);

  const figures: Figures = {};
  const path = fileFor(lab, name, keys);
  const up = contender.quick("up", path);
  if (up[0] !== "wg-quick" || await wgQuickTakesDaemons(lab)) {
    const upMs = performance.now();
    await quietly(lab.a, up, env);
    figures["up_ms"] = performance.now() - upMs;
    await firstPing(lab);
    figures["up_to_first_ping_ms"] = performance.now() - upMs;
    await quietly(lab.a, contender.quick("down", path), env);
  }

  const startMs = performance.now();
  const daemon = start(lab.a, name);
  await answers(name, daemon);
  figures["start_to_uapi_ms"] = performance.now() - startMs;
  await configure(lab.a, name, "a", keys);
  await firstPing(lab);
  figures["start_to_first_ping_ms"] = performance.now() - startMs;

  // The far daemon has the same file in memory.
  await far[Symbol.asyncDispose]();
  await delay(IDLE_MS);
  return { ...figures, ...memory(daemon.pid) };
}

// ---- all --------------------------------------------------------------------

function progress(text: string): void {
  console.error(`wgd bench: ${text}`);
}

function fail(problem: string, status: number): never {
  progress(problem);
  Deno.exit(status);
}

const options = parseArgs(Deno.args, {
  boolean: ["json", "quick"],
  string: ["rounds"],
  default: { rounds: "5" },
  unknown: (option) => fail(`unknown argument ${option}`, 2),
});
const rounds = Number(options.rounds);
if (!(rounds >= 1)) fail(`--rounds ${options.rounds} is no number`, 2);
const problem = missing(["xz"]);
if (problem !== undefined) fail(problem, 1);
if (!exists(EXECUTABLE)) {
  fail(`no ${EXECUTABLE}: run deno task compile, or set WGD_PROGRAM`, 1);
}

const cache = Deno.makeTempDirSync({ prefix: "wgd-bench-" });
try {
  const all = contenders(cache);
  const medians: Record<string, Figures> = {};
  for (const contender of all) {
    progress(`size of ${contender.name}`);
    medians[contender.name] = await sizes(contender, !options.quick);
    if (contender.name !== "wgd script") continue;
    const startMs = performance.now();
    await attempt([contender.file, "--version"], { env: contender.env });
    medians[contender.name]["first_run_ms"] = performance.now() - startMs;
  }
  const measured: Record<string, Figures[]> = {};
  for (let round = 1; round <= rounds; round++) {
    for (const contender of all) {
      progress(`round ${round} of ${rounds}: ${contender.name}`);
      (measured[contender.name] ??= []).push(await measure(contender));
    }
  }
  for (const [name, list] of Object.entries(measured)) {
    for (const figure of Object.keys(list[0])) {
      medians[name][figure] = median(list.map((each) => each[figure]));
    }
  }
  if (options.json) {
    console.log(JSON.stringify({
      time: new Date().toISOString(),
      cores: navigator.hardwareConcurrency,
      rounds,
      medians,
      all: measured,
    }));
  } else {
    const names = all.map(({ name }) => name);
    const figures = new Set(
      names.flatMap((name) => Object.keys(medians[name])),
    );
    console.log(table([
      [`medians of ${rounds} rounds`, ...names],
      ...[...figures].map((figure) => [
        figure,
        ...names.map((name) => digits(medians[name][figure] ?? NaN)),
      ]),
    ]));
  }
} finally {
  Deno.removeSync(cache, { recursive: true });
}
