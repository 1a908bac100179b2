/**
 * Grace periods: when a record that the data workers may still hold a number of
 * can be used again. What RCU is to the kernel's driver.
 *
 * A worker numbers its epochs: one begins when it looks at shared tables, and is
 * done when it holds nothing that it found there, and no chain of that epoch is
 * under way any more. Control frees a retired record once each worker is done
 * with the epoch that it was in, or had been in, then.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { HEADER } from "./arena.ts";

/** A worker's side: `enter` before, `leave` after each batch. */
export class EpochReader {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #word: number;
  #epoch: number;
  /**
   * Chains under way of the present epoch and of the one before, by the lowest
   * bit of its number. A third does not begin before the first has none left.
   */
  readonly #held = new Int32Array(2);

  /** @param word HEADER.OUTBOUND_EPOCH or HEADER.INBOUND_EPOCH */
  constructor(arena: Arena, word: number) {
    this.#i32 = arena.i32;
    this.#word = word;
    this.#epoch = arena.i32[word];
  }

  /** From here on the worker may hold numbers of records. */
  enter(): void {
    if (this.#held[(this.#epoch + 1) & 1] === 0) {
      this.#epoch = (this.#epoch + 1) | 0;
      Atomics.store(this.#i32, this.#word, this.#epoch);
    }
    // On arm64 plain loads may pass the store above, but not this load.
    Atomics.load(this.#i32, this.#word);
  }

  /** From here on it holds none but for the chains that hold an epoch. */
  leave(): void {
    const epoch = this.#epoch;
    const before = this.#held[(epoch + 1) & 1] > 0;
    const present = this.#held[epoch & 1] > 0;
    const done = before ? epoch - 2 : present ? epoch - 1 : epoch;
    Atomics.store(this.#i32, this.#word + HEADER.EPOCH_DONE, done);
  }

  /** Keeps the present epoch from being done. @returns what `release` is given */
  hold(): number {
    this.#held[this.#epoch & 1]++;
    return this.#epoch;
  }

  /** Ends a `hold`. */
  release(epoch: number): void {
    this.#held[epoch & 1]--;
  }
}

/** Called with the number of a record that nobody can hold any more. */
export type Free = (record: number) => void;

/** Control's side: retired records wait here for the workers. */
export class Grace {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  #open: { free: Free; record: number }[] = [];
  #sealed: { free: Free; record: number }[] = [];
  #outbound = 0;
  #inbound = 0;

  constructor(arena: Arena) {
    this.#i32 = arena.i32;
  }

  /** Records that wait to be freed. */
  get waiting(): number {
    return this.#open.length + this.#sealed.length;
  }

  /** Calls `free(record)` once no worker can hold it. The record is unlinked already. */
  retire(free: Free, record: number): void {
    this.#open.push({ free, record });
  }

  /** Frees what can be freed; true while records still wait. Never blocks. */
  collect(): boolean {
    for (let turn = 0; turn < 2; turn++) {
      if (this.#sealed.length > 0) {
        if (!this.#passed(HEADER.OUTBOUND_EPOCH, this.#outbound)) return true;
        if (!this.#passed(HEADER.INBOUND_EPOCH, this.#inbound)) return true;
        const done = this.#sealed;
        this.#sealed = [];
        for (const { free, record } of done) free(record);
      }
      if (this.#open.length === 0) return false;
      this.#sealed = this.#open;
      this.#open = [];
      this.#outbound = Atomics.load(this.#i32, HEADER.OUTBOUND_EPOCH);
      this.#inbound = Atomics.load(this.#i32, HEADER.INBOUND_EPOCH);
    }
    return this.#sealed.length > 0;
  }

  #passed(word: number, seen: number): boolean {
    const done = Atomics.load(this.#i32, word + HEADER.EPOCH_DONE);
    return ((done - seen) | 0) >= 0;
  }
}
