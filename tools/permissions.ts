/**
 * What an executable may do, fixed when it is made. What it is not given: the
 * environment but for the variables below, names and memory of the machine, and
 * code from elsewhere. Files in /proc, /sys and /dev it reaches by system calls
 * alone (lib/sys/files): Deno's own functions would need all permissions.
 *
 * The rest is not narrowed down, because it would only look like a limit:
 *
 * - FFI: with it a program can do what its user can. Naming the libraries would
 *   be worse than nothing: Deno then opens them by path, libc.so.6 in the
 *   current directory, and not by the loader's search.
 * - Net: peers can be anywhere.
 * - Read and write: configurations and keys are wherever the user has them.
 * - Run: hooks are the user's own commands, and wgd starts itself by its path.
 *
 * @module
 */

/** Variables that wgd reads; `*` stands for any end. A test compares with lib/. */
export const VARIABLES: readonly string[] = [
  "JOURNAL_STREAM",
  "LOG_LEVEL",
  "NO_COLOR",
  "NOTIFY_SOCKET",
  "PATH",
  "STATE_DIRECTORY",
  "WATCHDOG_PID",
  "WATCHDOG_USEC",
  "WG_*",
  "WGD_*",
];

/** Options of `deno compile` and `deno run`. */
export const PERMISSIONS: readonly string[] = [
  "--allow-ffi",
  "--allow-net",
  "--allow-read",
  "--allow-write",
  "--allow-run",
  `--allow-env=${VARIABLES.join(",")}`,
];

/** `Deno.listenDatagram` is not stable yet. */
export const UNSTABLE: readonly string[] = ["--unstable-net"];

/**
 * V8's: an executable has those that it was made with. A small young generation
 * keeps a daemon that is asked much from growing by 60 MB; `gc` is for
 * lib/memory.
 */
export const V8_FLAGS = "--v8-flags=--max-semi-space-size=2,--expose-gc";
