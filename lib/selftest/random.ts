/**
 * A seeded generator for tests: the same numbers each time. Not for secrets.
 *
 * @module
 */

/** Random numbers from a seed (a Weyl sequence, mixed). */
export class SeededRandom {
  #state: number;

  /** @param seed any 32-bit number */
  constructor(seed: number) {
    this.#state = seed | 0;
  }

  /** A number from 0 to 2^32 - 1. */
  word(): number {
    this.#state = (this.#state + 0x9e3779b9) | 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 16), 0x21f0aaad);
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97);
    return (mixed ^ (mixed >>> 15)) >>> 0;
  }

  /** A number from 0 to `limit` - 1. */
  below(limit: number): number {
    return Math.floor(this.word() / 2 ** 32 * limit);
  }

  /** Fills `bytes`; returns them. */
  fill(bytes: Uint8Array): Uint8Array {
    for (let i = 0; i < bytes.length; i++) bytes[i] = this.word();
    return bytes;
  }
}
