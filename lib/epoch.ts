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

/** Words of one block of {@link Retired}: 4,096 records. */
const BLOCK_WORDS = 8192;

/** First in, first out, of pairs of numbers, in blocks: no object a record. */
class Retired {
  readonly #blocks: Int32Array[] = [];
  /** A block that was emptied, for the next that is needed. */
  #spare: Int32Array | undefined;
  /** Places in the first block and in the last one. */
  #head = 0;
  #tail = BLOCK_WORDS;
  length = 0;

  push(kind: number, record: number): void {
    if (this.#tail === BLOCK_WORDS) {
      this.#blocks.push(this.#spare ?? new Int32Array(BLOCK_WORDS));
      this.#spare = undefined;
      this.#tail = 0;
    }
    const block = this.#blocks[this.#blocks.length - 1];
    block[this.#tail++] = kind;
    block[this.#tail++] = record;
    this.length++;
  }

  /** Kind and record of the oldest pair; then `shift`. */
  get kind(): number {
    return this.#blocks[0][this.#head];
  }

  get record(): number {
    return this.#blocks[0][this.#head + 1];
  }

  shift(): void {
    this.length--;
    this.#head += 2;
    if (this.#head < BLOCK_WORDS && this.length > 0) return;
    this.#spare = this.#blocks.shift();
    this.#head = 0;
    if (this.length === 0) this.#tail = BLOCK_WORDS;
  }
}

/** Records that {@link Grace.collect} frees at once unless told otherwise: about 1 ms. */
const FREED_AT_ONCE = 2048;

/** Control's side: retired records wait here for the workers. */
export class Grace {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  /** What frees each kind of record; one function a kind. */
  readonly #frees: Free[] = [];
  readonly #retired = new Retired();
  readonly #more: () => void;
  /** How many of the oldest records wait for the epochs below. */
  #sealed = 0;
  #outbound = 0;
  #inbound = 0;

  /** @param more called when a record waits and none did before: collect soon */
  constructor(arena: Arena, more: () => void = () => {}) {
    this.#i32 = arena.i32;
    this.#more = more;
  }

  /** Records that wait to be freed. */
  get waiting(): number {
    return this.#retired.length;
  }

  /** Whether `collect` would free something at once. */
  get ready(): boolean {
    return this.#sealed > 0 && this.#passed();
  }

  /**
   * Calls `free(record)` once no worker can hold it. The record is unlinked
   * already. Functions are remembered: one for all records of a kind.
   */
  retire(free: Free, record: number): void {
    let kind = this.#frees.indexOf(free);
    if (kind < 0) kind = this.#frees.push(free) - 1;
    this.#retired.push(kind, record);
    if (this.#retired.length === 1) this.#more();
  }

  /**
   * Frees what can be freed, `limit` records at most; true while records still
   * wait. Never blocks.
   */
  collect(limit: number = FREED_AT_ONCE): boolean {
    const retired = this.#retired;
    for (let turn = 0; turn < 2; turn++) {
      if (this.#sealed > 0) {
        if (!this.#passed()) return true;
        for (; this.#sealed > 0 && limit > 0; this.#sealed--, limit--) {
          const { kind, record } = retired;
          retired.shift();
          this.#frees[kind](record);
        }
        if (this.#sealed > 0) return true;
      }
      if (retired.length === 0) return false;
      this.#sealed = retired.length;
      this.#outbound = Atomics.load(this.#i32, HEADER.OUTBOUND_EPOCH);
      this.#inbound = Atomics.load(this.#i32, HEADER.INBOUND_EPOCH);
    }
    return true;
  }

  /** Whether both workers are done with the epochs in which it was sealed. */
  #passed(): boolean {
    return this.#done(HEADER.OUTBOUND_EPOCH, this.#outbound) &&
      this.#done(HEADER.INBOUND_EPOCH, this.#inbound);
  }

  #done(word: number, seen: number): boolean {
    const done = Atomics.load(this.#i32, word + HEADER.EPOCH_DONE);
    return ((done - seen) | 0) >= 0;
  }
}
