/**
 * How a daemon takes the place of another one, in a new version: it gets a copy
 * of the TUN's descriptor (WG_TUN_FD), so that the interface lives on with all
 * its addresses and routes, loads its code, and only then ends the other one.
 *
 * @module
 */
import { notify } from "./notify.ts";
import { becomeStderr, OtherProcess } from "./sys/process.ts";

/** Environment of the new daemon: the process id of the old one. */
const TAKE_OVER_ENV = "WGD_TAKE_OVER";
/** The descriptor of its stderr. */
const STDERR_ENV = "WGD_TAKE_STDERR";
/** The old one gives its keys and packets up first. */
const END_MS = 5_000;

/** Environment for a daemon that shall take over. */
export function takeoverEnvironment(
  pid: number,
  descriptors: { tun: number; stderr: number },
): Record<string, string> {
  return {
    [TAKE_OVER_ENV]: String(pid),
    [STDERR_ENV]: String(descriptors.stderr),
    WG_TUN_FD: String(descriptors.tun),
  };
}

/**
 * Ends the daemon that this one takes over from, if it does. Called when all is
 * ready to open sockets.
 *
 * @throws Error when it does not end
 */
export async function endPredecessor(
  env: (name: string) => string | undefined,
): Promise<void> {
  const pid = Number(env(TAKE_OVER_ENV));
  const stderr = Number(env(STDERR_ENV));
  Deno.env.delete(TAKE_OVER_ENV);
  Deno.env.delete(STDERR_ENV);
  if (!Number.isSafeInteger(pid) || pid <= 1) return;
  // Before the other one ends: else its unit is taken to have ended.
  notify(`MAINPID=${Deno.pid}`);
  using process = new OtherProcess(pid);
  Deno.kill(pid, "SIGTERM");
  if (!(await process.ended(END_MS))) {
    throw new Error(`the daemon before this one, process ${pid}, does not end`);
  }
  // Until here it was the one's who started this.
  becomeStderr(stderr);
}
