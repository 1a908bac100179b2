/**
 * A short cut through the tries of lib/allowedips for single addresses (/32 and
 * /128), which peers in great numbers mostly have: a hash table in which such an
 * address is found by one cache line, however many there are. What is not found
 * here may still be in the trie. Control alone writes, workers look up without
 * locks. Pure.
 *
 * A bucket is one cache line of eight keys and eight values; an address that
 * finds its bucket full is left to the trie. The table grows by linear hashing, a
 * bucket at a time, so it touches memory for what there is and is never rebuilt
 * in one go.
 *
 * A reader takes a value only if no key was written since before it read the
 * key: HOSTS.SEQ is odd while one is being written, and then it counts on.
 * Values come and go by one store each.
 *
 * @module
 */
import { type Arena, HOST_BUCKET_WORDS } from "./arena.ts";
import { bug } from "./assert.ts";

/** Header words of one table, from its first. */
const HOSTS = {
  SEQ: 0,
  /** Buckets in use, 0: the table is empty. */
  BUCKETS: 1,
} as const;

const SLOTS = 8;
/** Words of a bucket: keys, then values, 0: the slot is free. */
const BUCKET_WORDS = 2 * SLOTS;
bug(BUCKET_WORDS === HOST_BUCKET_WORDS, "a bucket has its size");
const BUCKETS_MIN = 4;
/** Addresses a bucket on average: of those, below 1 % find a full one. */
const LOAD = 2;

/** Spreads the bits of a 32-bit number, both ways unique (murmur3's end). */
function mix(key: number): number {
  let h = key ^ (key >>> 16);
  h = Math.imul(h, 0x85eb_ca6b);
  h ^= h >>> 13;
  h = Math.imul(h, 0xc2b2_ae35);
  return h ^ (h >>> 16);
}

/** A key for an address of four words. */
export function keyOfWords(
  a: number,
  b: number,
  c: number,
  d: number,
): number {
  let h = mix(a);
  h = mix(h ^ b);
  h = mix((h + c) | 0);
  return (mix(h ^ c) + d) | 0;
}

/** A worker's side. */
export class HostsReader {
  protected readonly i32: Int32Array<SharedArrayBuffer>;
  protected readonly header: number;
  protected readonly buckets: number;

  /** @param header the table's header words @param buckets word of its first bucket */
  constructor(arena: Arena, header: number, buckets: number) {
    this.i32 = arena.i32;
    this.header = header;
    this.buckets = buckets;
  }

  /** Whether nothing can be found. */
  get empty(): boolean {
    return this.i32[this.header + HOSTS.BUCKETS] === 0;
  }

  /** The value of `key`, or 0: ask the trie. */
  find(key: number): number {
    const i32 = this.i32;
    const seqWord = this.header + HOSTS.SEQ;
    const seq = Atomics.load(i32, seqWord);
    const count = i32[this.header + HOSTS.BUCKETS];
    if (count === 0 || (seq & 1) !== 0) return 0;
    const slot = this.slotOf(key, count);
    if (slot === 0) return 0;
    const value = i32[slot + SLOTS];
    // Values are below 2^31: the address depends on the value, so that no machine
    // reads the count before it (arm64 could).
    const unchanged = Atomics.load(i32, seqWord + (value >>> 31)) === seq;
    return unchanged ? value : 0;
  }

  /** Word of the key's slot in its bucket, or 0. */
  protected slotOf(key: number, count: number): number {
    const i32 = this.i32;
    const bucket = this.bucketOf(key, count);
    for (let slot = bucket; slot < bucket + SLOTS; slot++) {
      if (i32[slot] === key && i32[slot + SLOTS] !== 0) return slot;
    }
    return 0;
  }

  /** First word of a key's bucket of `count`. */
  protected bucketOf(key: number, count: number): number {
    const mask = (1 << (32 - Math.clz32(count))) - 1;
    const hash = mix(key) & mask;
    // Not there yet: its keys are in the bucket that will be split.
    return this.buckets +
      (hash < count ? hash : hash & (mask >>> 1)) * BUCKET_WORDS;
  }
}

/** Control's side. */
export class Hosts extends HostsReader {
  readonly #bucketsMax: number;
  #count = 0;

  /** @param bucketsMax buckets that there is room for: a power of two */
  constructor(
    arena: Arena,
    header: number,
    buckets: number,
    bucketsMax: number,
  ) {
    super(arena, header, buckets);
    this.#bucketsMax = bucketsMax;
  }

  /** Adds a key that is not there, with a value that is not 0. */
  insert(key: number, value: number): void {
    this.#count++;
    const { i32, header } = this;
    const count = i32[header + HOSTS.BUCKETS];
    if (count === 0) Atomics.store(i32, header + HOSTS.BUCKETS, BUCKETS_MIN);
    else if (this.#count > LOAD * count) this.#grow(count);
    this.#add(key, value);
  }

  /** Takes a key with this value out. */
  remove(key: number, value: number): void {
    this.#count--;
    const { i32 } = this;
    const bucket = this.bucketOf(key, i32[this.header + HOSTS.BUCKETS]);
    for (let slot = bucket; slot < bucket + SLOTS; slot++) {
      if (i32[slot] === key && i32[slot + SLOTS] === value) {
        Atomics.store(i32, slot + SLOTS, 0);
        return;
      }
    }
  }

  /** Puts a key into a free slot of its bucket, if there is one. */
  #add(key: number, value: number): void {
    const { i32 } = this;
    const bucket = this.bucketOf(key, i32[this.header + HOSTS.BUCKETS]);
    for (let slot = bucket; slot < bucket + SLOTS; slot++) {
      if (i32[slot + SLOTS] !== 0) continue;
      const seq = this.header + HOSTS.SEQ;
      Atomics.add(i32, seq, 1);
      Atomics.store(i32, slot, key);
      Atomics.store(i32, slot + SLOTS, value);
      Atomics.add(i32, seq, 1);
      return;
    }
  }

  /** Splits the oldest bucket that has not been split in this round. */
  #grow(count: number): void {
    if (count === this.#bucketsMax) return;
    const { i32 } = this;
    const half = 1 << (31 - Math.clz32(count));
    const split = this.buckets + (count - half) * BUCKET_WORDS;
    bug(
      i32[this.buckets + count * BUCKET_WORDS] === 0,
      "a new bucket is empty",
    );
    Atomics.store(i32, this.header + HOSTS.BUCKETS, count + 1);
    for (let slot = split; slot < split + SLOTS; slot++) {
      const value = i32[slot + SLOTS];
      const key = i32[slot];
      if (value === 0 || this.bucketOf(key, count + 1) === split) continue;
      Atomics.store(i32, slot + SLOTS, 0);
      this.#add(key, value);
    }
  }
}
