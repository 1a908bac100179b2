/**
 * Turns of the event loop of a thread with several things to do.
 *
 * @module
 */
import { setImmediate } from "node:timers";

/**
 * Resolves once everybody else had a turn: timers, sockets, who waits for
 * memory. Costs about 15 µs, where `setTimeout` takes a millisecond or two.
 */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => setImmediate(() => resolve()));
}

/** Resolves after so long. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
