/**
 * Whether the machine was suspended, by the clock that counts such time. A
 * process is not told before, so what it does about it, it does after.
 *
 * @module
 */

/** Clocks that are read one after the other differ by less. */
const SLEPT_MIN_MS = 1_000;

/** Sees that the machine was suspended since it last looked. */
export class Suspends {
  readonly #read: () => number;
  #seenMs: number;

  /** @param suspendedMs all time of suspension since the machine booted */
  constructor(suspendedMs: () => number) {
    this.#read = suspendedMs;
    this.#seenMs = suspendedMs();
  }

  /** Whether it was since the last call. */
  happened(): boolean {
    const nowMs = this.#read();
    if (nowMs - this.#seenMs < SLEPT_MIN_MS) return false;
    this.#seenMs = nowMs;
    return true;
  }
}
