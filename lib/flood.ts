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
/** How soon the level may rise again, and fall. */
const RAISE_MS = 100;
const LOWER_MS = 500;

/** The level of one ring. */
export class FloodLevel {
  #level = 0;
  #changedMs = -Infinity;
  #busyMs = -Infinity;
  #lookedMs = -Infinity;
  #waited = 0;

  /** 0: all are taken in. */
  get level(): number {
    return this.#level;
  }

  /** Called often, with what waits. @param nowMs never goes back */
  update(waiting: number, nowMs: number): void {
    if (waiting >= CALM) this.#busyMs = nowMs;
    if (nowMs - this.#lookedMs >= RAISE_MS) {
      // While it gets less, the level is right.
      const grown = waiting >= this.#waited;
      this.#lookedMs = nowMs;
      this.#waited = waiting;
      if (waiting >= BEHIND && grown) this.#set(this.#level + 1, nowMs);
    }
    if (
      nowMs - this.#changedMs >= LOWER_MS && nowMs - this.#busyMs >= LOWER_MS
    ) this.#set(this.#level - 1, nowMs);
  }

  #set(level: number, nowMs: number): void {
    const bounded = Math.min(FLOOD_LEVEL_MAX, Math.max(0, level));
    if (bounded === this.#level) return;
    this.#level = bounded;
    this.#changedMs = nowMs;
  }
}
