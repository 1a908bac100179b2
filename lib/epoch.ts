/**
 * Grace periods: when a record that the data workers may still hold a number of
 * can be used again. A worker makes its epoch odd before it looks at shared
 * tables and even when it holds nothing more; control frees a retired record
 * once each worker has been even, or changed, since. What RCU is to the kernel's
 * driver.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { HEADER } from "./arena.ts";

/** A worker's side: `enter` before, `leave` after each batch. */
export class EpochReader {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #word: number;

  /** @param word HEADER.OUTBOUND_EPOCH or HEADER.INBOUND_EPOCH */
  constructor(arena: Arena, word: number) {
    this.#i32 = arena.i32;
    this.#word = word;
  }

  /** From here on the worker may hold numbers of records. */
  enter(): void {
    Atomics.add(this.#i32, this.#word, 1);
    // On arm64 plain loads may pass the store above, but not this load.
    Atomics.load(this.#i32, this.#word);
  }

  /** From here on it holds none. */
  leave(): void {
    Atomics.add(this.#i32, this.#word, 1);
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
    return (seen & 1) === 0 || Atomics.load(this.#i32, word) !== seen;
  }
}
