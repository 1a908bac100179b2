/**
 * How much of a flood of handshake messages is not even read: when more comes
 * than control can check, the sockets drop a part of it at random, so that data
 * messages do not wait behind it. Messages with and without a mac2 have a level
 * each. Control alone; pure. lib/flood_filter makes the sockets do it.
 *
 * @module
 */
import { HANDSHAKES_RING_CAPACITY } from "./arena.ts";

/** At level n one of 2^n messages is taken in. */
export const FLOOD_LEVEL_MAX = 6;

/** Length of a ring from which on more comes than is checked. */
const BEHIND = HANDSHAKES_RING_CAPACITY / 2;
/** Length below which control keeps up. */
const CALM = HANDSHAKES_RING_CAPACITY / 8;
/** How soon a change may follow another, upwards and downwards. */
const RAISE_MS = 100;
const LOWER_MS = 2_000;

/** The level of one ring. */
export class FloodLevel {
  #level = 0;
  #changedMs = -Infinity;
  #busyMs = -Infinity;

  /** 0: all are taken in. */
  get level(): number {
    return this.#level;
  }

  /** Called often, with what waits. @param nowMs never goes back */
  update(waiting: number, nowMs: number): void {
    if (waiting >= CALM) this.#busyMs = nowMs;
    if (waiting >= BEHIND) {
      if (this.#level < FLOOD_LEVEL_MAX && this.#sinceMs(nowMs) >= RAISE_MS) {
        this.#level++;
        this.#changedMs = nowMs;
      }
    } else if (
      this.#level > 0 && this.#sinceMs(nowMs) >= LOWER_MS &&
      nowMs - this.#busyMs >= LOWER_MS
    ) {
      this.#level--;
      this.#changedMs = nowMs;
    }
  }

  #sinceMs(nowMs: number): number {
    return nowMs - this.#changedMs;
  }
}
