/**
 * Going into the background: the same program is started again in a session of
 * its own, and says on its stdout when the interface is there; so whoever
 * started it learns of errors by exit status and stderr.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { notify } from "./notify.ts";
import { statDescriptor, systemNames } from "./sys/files.ts";
import { check, cString, libc } from "./sys/libc.ts";

/** Environment of a daemon that shall report; see {@link reportReady}. */
const DAEMON_ENV = "WGD_DAEMON";
/** Path of the script that carries this program; see tools/sfx.sh. */
const LAUNCHER_ENV = "WGD_LAUNCHER";
const READY = "ready\n";
const STDERR = 2;
const O_WRONLY_CLOEXEC = 0x80001;

/** Command line that starts this program again with other arguments. */
export function ownCommand(args: readonly string[]): [string, string[]] {
  const program = Deno.execPath();
  if (Deno.build.standalone) return [program, [...args]];
  const launcher = Deno.env.get(LAUNCHER_ENV);
  if (launcher) return [launcher, [...args]];
  const root = new URL("../", import.meta.url);
  const config = fileURLToPath(new URL("deno.json", root));
  const entry = fileURLToPath(new URL("cli.ts", root));
  const options = ["run", "--quiet", "--allow-all", "--config", config];
  return [program, [...options, entry, ...args]];
}

/** How a daemon is started. */
export interface DaemonStart {
  readonly env?: Record<string, string>;
  /** Directories of control groups to enter, as far as that is allowed. */
  readonly groups?: readonly string[];
}

/** A shell's, which becomes the daemon in its place. */
const ENTER = `for group in $1; do
  { echo $$ > "$group/cgroup.procs"; } 2> /dev/null || :
done
shift
exec "$@"`;

function entering(words: string[], groups: readonly string[]): string[] {
  if (groups.length === 0) return words;
  const names = groups.filter((path) => !/\s/.test(path)).join(" ");
  return ["/bin/sh", "-c", ENTER, "sh", names, ...words];
}

/** What a daemon that waits is told. */
const GO_ON = "go on\n";
/** Values of {@link DAEMON_ENV}. */
const [FREE, HELD] = ["1", "held"];

function spawn(
  args: readonly string[],
  kind: string,
  { env, groups = [] }: DaemonStart = {},
): Deno.ChildProcess {
  const [own, rest] = ownCommand(args);
  const [program, ...words] = entering([own, ...rest], groups);
  return new Deno.Command(program, {
    args: words,
    env: { ...env, [DAEMON_ENV]: kind },
    stdin: kind === HELD ? "piped" : "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
}

/**
 * Starts `wgd ARGS` in the background.
 *
 * @returns 0 once it is ready, else its exit status; it has told why on stderr
 */
export function startDaemon(
  args: readonly string[],
  start?: DaemonStart,
): Promise<number> {
  return ready(spawn(args, FREE, start));
}

async function ready(child: Deno.ChildProcess): Promise<number> {
  let said = "";
  const decoder = new TextDecoder();
  for await (const bytes of child.stdout) {
    said += decoder.decode(bytes, { stream: true });
    if (said === READY) {
      // The service manager watches the daemon from now on, not this process.
      notify(`MAINPID=${child.pid}`);
      child.unref();
      return 0;
    }
  }
  const { code } = await child.status;
  return code === 0 ? 1 : code;
}

/**
 * A daemon that is started ahead, and loads its code while it is not yet known
 * whether it shall run. It touches nothing before it is told to go on.
 */
export class HeldDaemon {
  readonly #child: Deno.ChildProcess;
  #held = true;

  /** Starts `wgd ARGS`. */
  constructor(args: readonly string[]) {
    this.#child = spawn(args, HELD);
  }

  /** Lets it go on. @returns as {@link startDaemon} */
  async goOn(): Promise<number> {
    this.#held = false;
    const writer = this.#child.stdin.getWriter();
    try {
      await writer.write(new TextEncoder().encode(GO_ON));
      await writer.close();
    } catch (error) {
      // It has ended, and its exit status says how.
      if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
    }
    return await ready(this.#child);
  }

  /** Ends it if it has not gone on. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#held) return;
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#child.status;
    await this.#child.stdin.close();
    await this.#child.stdout.cancel();
  }
}

let held = false;

/** Whether this process is a daemon that was started here. */
export function isDaemon(): boolean {
  const kind = Deno.env.get(DAEMON_ENV);
  return kind === FREE || kind === HELD;
}

/** Leaves the session of the terminal. Called first in a daemon. */
export function leaveSession(): void {
  held = Deno.env.get(DAEMON_ENV) === HELD;
  Deno.env.delete(DAEMON_ENV);
  // EPERM: we lead a session already, as under setsid(1).
  libc().setsid();
  Deno.chdir("/");
}

/**
 * Waits until this daemon is told to go on, if it is held. Called before it
 * touches anything.
 *
 * @returns whether to go on; else who started it has thought better of it
 */
export async function mayGoOn(): Promise<boolean> {
  if (!held) return true;
  const bytes = new Uint8Array(GO_ON.length);
  const length = await Deno.stdin.read(bytes);
  return new TextDecoder().decode(bytes.subarray(0, length ?? 0)) === GO_ON;
}

/** Tells who started the daemon that it serves, and lets go of its pipes. */
export function reportReady(env: (name: string) => string | undefined): void {
  if (isWaitedFor(env)) leaveStderr();
  Deno.stdout.writeSync(new TextEncoder().encode(READY));
  Deno.stdout.close();
}

/**
 * Whether somebody may wait for the end of stderr, as `$(wgd up wg0 2>&1)` and
 * ssh do. Who sets LOG_LEVEL wants to read on, as with wireguard-go; and the
 * journal reads from a socket.
 */
function isWaitedFor(env: (name: string) => string | undefined): boolean {
  if (env("LOG_LEVEL")) return false;
  const stat = statDescriptor(STDERR);
  return stat?.isPipe === true ||
    (stat?.isSocket === true && !env("JOURNAL_STREAM"));
}

/** Puts /dev/null in its place, and in that of the copies that Deno has of it. */
function leaveStderr(): void {
  const c = libc();
  const path = "/dev/null";
  const empty = check(c.open(cString(path), O_WRONLY_CLOEXEC, 0), path);
  const stderr = statDescriptor(STDERR);
  for (const name of systemNames("/proc/self/fd")) {
    const stat = statDescriptor(Number(name));
    if (stat === undefined || stat.inode !== stderr?.inode) continue;
    if (stat.mode === stderr.mode) check(c.dup2(empty, Number(name)), "dup2");
  }
  c.close(empty);
}
