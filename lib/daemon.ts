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

/**
 * Starts `wgd ARGS` in the background.
 *
 * @returns 0 once it is ready, else its exit status; it has told why on stderr
 */
export async function startDaemon(
  args: readonly string[],
  { env, groups = [] }: DaemonStart = {},
): Promise<number> {
  const [own, rest] = ownCommand(args);
  const [program, ...words] = entering([own, ...rest], groups);
  const child = new Deno.Command(program, {
    args: words,
    env: { ...env, [DAEMON_ENV]: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
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

/** Whether this process is a daemon that {@link startDaemon} started. */
export function isDaemon(): boolean {
  return Deno.env.get(DAEMON_ENV) === "1";
}

/** Leaves the session of the terminal. Called first in a daemon. */
export function leaveSession(): void {
  Deno.env.delete(DAEMON_ENV);
  // EPERM: we lead a session already, as under setsid(1).
  libc().setsid();
  Deno.chdir("/");
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
