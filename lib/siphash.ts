/**
 * SipHash-2-4 (Aumasson and Bernstein, 2012): the keyed hash of the tables whose
 * keys strangers choose, so that nobody can make their chains long. 64-bit words
 * are pairs of 32-bit halves: no BigInt, no allocation. Mirrors the kernel's
 * `siphash.h`. Pure.
 *
 * @module
 */
import { bug } from "./assert.ts";

/** Length of a key in bytes. */
export const SIPHASH_KEY_LEN = 16;

const C_ROUNDS = 2;
const D_ROUNDS = 4;

/** SipHash-2-4 under one key. */
export class SipHash {
  readonly #k0l: number;
  readonly #k0h: number;
  readonly #k1l: number;
  readonly #k1h: number;
  #high = 0;

  /** @param key 16 random bytes; copied */
  constructor(key: Uint8Array) {
    bug(key.length === SIPHASH_KEY_LEN, "a SipHash key has 16 bytes");
    this.#k0l = wordLe(key, 0);
    this.#k0h = wordLe(key, 4);
    this.#k1l = wordLe(key, 8);
    this.#k1h = wordLe(key, 12);
  }

  /** High half of the last {@link hash}, unsigned. */
  get high(): number {
    return this.#high;
  }

  /** Low half of the hash of `length` bytes from `offset`, unsigned. */
  hash(bytes: Uint8Array, offset: number, length: number): number {
    let v0l = this.#k0l ^ 0x70736575, v0h = this.#k0h ^ 0x736f6d65;
    let v1l = this.#k1l ^ 0x6e646f6d, v1h = this.#k1h ^ 0x646f7261;
    let v2l = this.#k0l ^ 0x6e657261, v2h = this.#k0h ^ 0x6c796765;
    let v3l = this.#k1l ^ 0x79746573, v3h = this.#k1h ^ 0x74656462;
    const full = length >>> 3;
    // Pass `full` takes the rest and the length; the pass after it finalizes.
    for (let block = 0; block <= full + 1; block++) {
      let ml = 0, mh = 0, rounds = C_ROUNDS;
      if (block < full) {
        ml = wordLe(bytes, offset + 8 * block);
        mh = wordLe(bytes, offset + 8 * block + 4);
      } else if (block === full) {
        for (let i = (length & 7) - 1; i >= 0; i--) {
          const byte = bytes[offset + 8 * full + i];
          if (i >= 4) mh |= byte << (8 * (i - 4));
          else ml |= byte << (8 * i);
        }
        mh |= length << 24;
      } else {
        v2l ^= 0xff;
        rounds = D_ROUNDS;
      }
      v3l ^= ml;
      v3h ^= mh;
      for (let round = 0; round < rounds; round++) {
        let lo = (v0l + v1l) | 0;
        v0h = (v0h + v1h + ((lo >>> 0) < (v0l >>> 0) ? 1 : 0)) | 0;
        v0l = lo;
        lo = (v1l << 13) | (v1h >>> 19);
        v1h = ((v1h << 13) | (v1l >>> 19)) ^ v0h;
        v1l = lo ^ v0l;
        lo = v0l;
        v0l = v0h;
        v0h = lo;

        lo = (v2l + v3l) | 0;
        v2h = (v2h + v3h + ((lo >>> 0) < (v2l >>> 0) ? 1 : 0)) | 0;
        v2l = lo;
        lo = (v3l << 16) | (v3h >>> 16);
        v3h = ((v3h << 16) | (v3l >>> 16)) ^ v2h;
        v3l = lo ^ v2l;

        lo = (v0l + v3l) | 0;
        v0h = (v0h + v3h + ((lo >>> 0) < (v0l >>> 0) ? 1 : 0)) | 0;
        v0l = lo;
        lo = (v3l << 21) | (v3h >>> 11);
        v3h = ((v3h << 21) | (v3l >>> 11)) ^ v0h;
        v3l = lo ^ v0l;

        lo = (v2l + v1l) | 0;
        v2h = (v2h + v1h + ((lo >>> 0) < (v2l >>> 0) ? 1 : 0)) | 0;
        v2l = lo;
        lo = (v1l << 17) | (v1h >>> 15);
        v1h = ((v1h << 17) | (v1l >>> 15)) ^ v2h;
        v1l = lo ^ v2l;
        lo = v2l;
        v2l = v2h;
        v2h = lo;
      }
      v0l ^= ml;
      v0h ^= mh;
    }
    this.#high = (v0h ^ v1h ^ v2h ^ v3h) >>> 0;
    return (v0l ^ v1l ^ v2l ^ v3l) >>> 0;
  }
}

function wordLe(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8) | (bytes[at + 2] << 16) |
    (bytes[at + 3] << 24);
}
