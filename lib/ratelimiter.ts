/**
 * Token buckets for handshake messages under load, one for each IPv4 address or
 * IPv6 /64: 20 a second, 5 at once. Mirrors the kernel's `ratelimiter.c`.
 * Entries live in the arena (`limiterBuckets`, `limiterEntries`), chained by
 * SipHash under a random key. Times are whole microseconds, so that refilling is
 * exact. Control only; pure; reference §4.
 *
 * @module
 */
import {
  type Arena,
  LIMITER_BUCKETS,
  LIMITER_ENTRIES,
  LIMITER_ENTRY_WORDS,
  Pool,
} from "./arena.ts";
import { bug } from "./assert.ts";
import { SipHash } from "./siphash.ts";

/** Handshake messages a second that one source may have processed. */
export const PACKETS_PER_SECOND = 20;
/** Handshake messages that it may have processed at once. */
export const PACKETS_BURSTABLE = 5;

const PACKET_COST_US = 1_000_000 / PACKETS_PER_SECOND;
const TOKEN_MAX_US = PACKET_COST_US * PACKETS_BURSTABLE;
/** An entry idle for longer has all its tokens back and can go. */
const IDLE_MAX_US = 1_000_000;
/** Buckets that one call of collect looks at: 4,096 entries when all are in use. */
const COLLECT_BUCKETS = 512;

/** One source's bucket, in words. NEXT is also the link of the pool's free list. */
const ENTRY = {
  NEXT: 0,
  KEY: 1,
  FAMILY: 3,
  LAST_US_F64: 4,
  TOKENS_US_F64: 6,
  WORDS: 8,
} as const;
bug(ENTRY.WORDS === LIMITER_ENTRY_WORDS, "an entry has its size");
bug((LIMITER_BUCKETS & (LIMITER_BUCKETS - 1)) === 0, "buckets for a mask");

const FAMILY_V4 = 4;
const FAMILY_V6 = 6;
/** Bytes 8 to 11 of `::ffff:a.b.c.d`, as a little-endian word. */
const MAPPED = 0xffff0000;

/** The rate limiter of a device. */
export class RateLimiter {
  readonly #arena: Arena;
  readonly #u32: Uint32Array;
  readonly #hash: SipHash;
  readonly #pool: Pool;
  #cursor = 0;
  #sweeping = false;
  #refusedByRate = 0;
  #refusedByCap = 0;

  /** @param key 16 random bytes, this device's own */
  constructor(arena: Arena, key: Uint8Array) {
    this.#arena = arena;
    this.#u32 = arena.u32;
    this.#hash = new SipHash(key);
    this.#pool = new Pool(
      arena,
      arena.layout.limiterEntries,
      ENTRY.WORDS,
      LIMITER_ENTRIES,
    );
  }

  /** Sources remembered at present. */
  get entries(): number {
    return this.#pool.used;
  }

  /** Messages refused because their source had no tokens. */
  get refusedByRate(): number {
    return this.#refusedByRate;
  }

  /** Messages of new sources refused because all entries were in use. */
  get refusedByCap(): number {
    return this.#refusedByCap;
  }

  /**
   * Whether one more handshake message of this source may be processed.
   *
   * @param addressWord word of a 16-byte address, IPv4 as `::ffff:a.b.c.d`
   * @param nowMs boot time; never goes back
   */
  allow(addressWord: number, nowMs: number): boolean {
    const u32 = this.#u32;
    const mapped = u32[addressWord] === 0 && u32[addressWord + 1] === 0 &&
      u32[addressWord + 2] === MAPPED;
    const family = mapped ? FAMILY_V4 : FAMILY_V6;
    const key0 = mapped ? 0 : u32[addressWord];
    const key1 = mapped ? u32[addressWord + 3] : u32[addressWord + 1];
    const from = mapped ? addressWord + 3 : addressWord;
    const hash = this.#hash.hash(this.#arena.u8, from * 4, mapped ? 4 : 8);
    const bucket = this.#arena.layout.limiterBuckets +
      (hash & (LIMITER_BUCKETS - 1));
    const nowUs = Math.round(nowMs * 1000);

    for (let entry = u32[bucket]; entry !== 0;) {
      const word = this.#word(entry);
      if (
        u32[word + ENTRY.KEY + 1] === key1 && u32[word + ENTRY.KEY] === key0 &&
        u32[word + ENTRY.FAMILY] === family
      ) return this.#take(word, nowUs);
      entry = u32[word + ENTRY.NEXT];
    }

    const entry = this.#pool.alloc();
    if (entry === 0) {
      this.#refusedByCap++;
      return false;
    }
    const word = this.#word(entry);
    u32[word + ENTRY.KEY] = key0;
    u32[word + ENTRY.KEY + 1] = key1;
    u32[word + ENTRY.FAMILY] = family;
    this.#arena.setF64(word + ENTRY.LAST_US_F64, nowUs);
    this.#arena.setF64(
      word + ENTRY.TOKENS_US_F64,
      TOKEN_MAX_US - PACKET_COST_US,
    );
    u32[word + ENTRY.NEXT] = u32[bucket];
    u32[bucket] = entry;
    return true;
  }

  /**
   * Forgets sources idle for more than a second: one slice of the table a call.
   * True while the sweep has buckets left; start one each second.
   */
  collect(nowMs: number): boolean {
    if (!this.#sweeping) {
      this.#cursor = 0;
      this.#sweeping = true;
    }
    const nowUs = Math.round(nowMs * 1000);
    const end = Math.min(this.#cursor + COLLECT_BUCKETS, LIMITER_BUCKETS);
    for (; this.#cursor < end && this.#pool.used > 0; this.#cursor++) {
      this.#collectBucket(this.#cursor, nowUs);
    }
    this.#sweeping = this.#cursor < LIMITER_BUCKETS && this.#pool.used > 0;
    return this.#sweeping;
  }

  /** Refills the bucket of an entry for the time passed, and takes a message's cost. */
  #take(word: number, nowUs: number): boolean {
    const arena = this.#arena;
    const elapsed = nowUs - arena.getF64(word + ENTRY.LAST_US_F64);
    const tokens = Math.min(
      TOKEN_MAX_US,
      arena.getF64(word + ENTRY.TOKENS_US_F64) + elapsed,
    );
    const allowed = tokens >= PACKET_COST_US;
    arena.setF64(word + ENTRY.LAST_US_F64, nowUs);
    arena.setF64(
      word + ENTRY.TOKENS_US_F64,
      allowed ? tokens - PACKET_COST_US : tokens,
    );
    if (!allowed) this.#refusedByRate++;
    return allowed;
  }

  #collectBucket(index: number, nowUs: number): void {
    const u32 = this.#u32;
    let link = this.#arena.layout.limiterBuckets + index;
    for (let entry = u32[link]; entry !== 0; entry = u32[link]) {
      const word = this.#word(entry);
      const idle = nowUs - this.#arena.getF64(word + ENTRY.LAST_US_F64);
      if (idle > IDLE_MAX_US) {
        u32[link] = u32[word + ENTRY.NEXT];
        this.#arena.zero(word, ENTRY.WORDS);
        this.#pool.free(entry);
      } else {
        link = word + ENTRY.NEXT;
      }
    }
  }

  #word(entry: number): number {
    return this.#arena.layout.limiterEntries + entry * ENTRY.WORDS;
  }
}
