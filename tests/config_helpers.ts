/** Helpers of the configuration and UAPI tests: a seeded random source. */

/** A seeded generator (xorshift32): `random(n)` is an integer below n. */
export function randomSource(seed: number): (below: number) => number {
  let state = seed || 1;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}
