/**
 * What the system says of a thread: whether it runs, and how long it did.
 *
 * @module
 */
import type { ThreadState } from "../pulse.ts";
import { readSystemFile, readSystemLink } from "./files.ts";
import { SysError } from "./libc.ts";

/** Of the fields behind a thread's name in its `stat`: state and CPU times. */
const STATE = 0;
const USER_TIME = 11;
const SYSTEM_TIME = 12;
/** A tick of these times: USER_HZ is 100 wherever Deno runs. */
const TICK_MS = 10;

/** The calling thread as /proc names it; undefined where there is no /proc. */
export function ownThread(): string | undefined {
  try {
    return readSystemLink("/proc/thread-self");
  } catch (error) {
    if (error instanceof SysError) return undefined;
    throw error;
  }
}

/** What a thread does; undefined where the system does not tell. */
export function threadState(
  thread: string | undefined,
): ThreadState | undefined {
  if (thread === undefined) return undefined;
  let text: string;
  try {
    const { bytes } = readSystemFile(`/proc/${thread}/stat`);
    text = new TextDecoder().decode(bytes);
  } catch (error) {
    if (error instanceof SysError) return undefined;
    throw error;
  }
  // The name may hold anything, parentheses too.
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  const ticks = Number(fields[USER_TIME]) + Number(fields[SYSTEM_TIME]);
  return { letter: fields[STATE], cpuMs: ticks * TICK_MS };
}
