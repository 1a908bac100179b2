/**
 * lib/replay: the window against a model that remembers every counter, near 0,
 * near each word's edge and near the end of all counters.
 */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "../lib/arena.ts";
import { COUNTER_WINDOW_SIZE, REJECT_AFTER_MESSAGES } from "../lib/messages.ts";
import { KEYPAIR } from "../lib/records.ts";
import { atLeast, counterExhausted, counterValidate } from "../lib/replay.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

const WINDOW = BigInt(COUNTER_WINDOW_SIZE);
const LIMITS = { peers: 1, allowedIpNodes: 1, sessions: 1, txSlots: 1 };

/** What the window must do, from its definition: a set and the highest. */
class Model {
  readonly #seen = new Set<bigint>();
  #highest = -1n;

  accept(counter: bigint): boolean {
    if (counter >= REJECT_AFTER_MESSAGES) return false;
    if (this.#highest - counter > WINDOW) return false;
    if (this.#seen.has(counter)) return false;
    this.#seen.add(counter);
    if (counter > this.#highest) this.#highest = counter;
    return true;
  }

  get highest(): bigint {
    return this.#highest;
  }
}

const STARTS: readonly bigint[] = [
  0n,
  5_000n,
  (1n << 31n) - 900n,
  (1n << 32n) - 900n,
  (1n << 32n) - 1n,
  (3n << 32n) - 10n,
  (1n << 53n) - 1n,
  (1n << 60n) - 17n,
  (7n << 32n) - 9_000n,
  REJECT_AFTER_MESSAGES - 20_000n,
];

for (const start of STARTS) {
  Deno.test(`the window accepts each counter once, from ${start} on`, () => {
    const arena = new Arena(LIMITS);
    const word = arena.keypair(1);
    const model = new Model();
    const random = new SeededRandom(Number(start & 0xffffn) + 1);
    let accepted = 0;
    for (let step = 0; step < 30_000; step++) {
      const base = model.highest < 0n ? start : model.highest;
      const counter = clamp(base + stride(random, step > 10_000));
      const expected = model.accept(counter);
      if (expected) accepted++;
      assertEquals(
        validate(arena, word, counter),
        expected,
        `step ${step}: counter ${counter} after ${base}`,
      );
    }
    assert(accepted > 1_000, "the steps try what is accepted, too");
    assertEquals(storedNext(arena, word), model.highest + 1n);
  });
}

Deno.test("a counter refused leaves the window as it was", () => {
  const arena = new Arena(LIMITS);
  const word = arena.keypair(1);
  for (const counter of [20_000n, 19_999n, 20_000n - WINDOW]) {
    assert(validate(arena, word, counter));
  }
  const before = arena.bytes(word, 4 * KEYPAIR.WORDS).slice();
  for (
    const counter of [
      20_000n,
      20_000n - WINDOW - 1n,
      0n,
      REJECT_AFTER_MESSAGES,
      (1n << 64n) - 1n,
    ]
  ) {
    assert(!validate(arena, word, counter), `${counter}`);
  }
  assertEquals(arena.bytes(word, 4 * KEYPAIR.WORDS).slice(), before);
});

Deno.test("the window writes its own fields and no others", () => {
  const arena = new Arena(LIMITS);
  const word = arena.keypair(1);
  const neighbour = arena.keypair(2);
  const random = new SeededRandom(3);
  for (let step = 0; step < 5_000; step++) {
    validate(arena, word, BigInt(random.below(40_000)));
  }
  const own = new Set([KEYPAIR.RECEIVE_COUNTER_LO, KEYPAIR.RECEIVE_COUNTER_HI]);
  for (let i = 0; i < KEYPAIR.REPLAY_BITMAP; i++) {
    if (!own.has(i as 14 | 15)) assertEquals(arena.u32[word + i], 0);
  }
  for (let i = 0; i < KEYPAIR.WORDS; i++) {
    assertEquals(arena.u32[neighbour + i], 0);
  }
});

Deno.test("counters compare as 64-bit numbers", () => {
  const words = [0, 1, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff];
  for (const [loA, hiA, loB, hiB] of product(words)) {
    const a = (BigInt(hiA) << 32n) + BigInt(loA);
    const b = (BigInt(hiB) << 32n) + BigInt(loB);
    assertEquals(atLeast(loA, hiA, loB, hiB), a >= b);
  }
  for (const delta of [-2n, -1n, 0n, 1n, 2n]) {
    const [lo, hi] = halves(REJECT_AFTER_MESSAGES + delta);
    assertEquals(counterExhausted(lo, hi), delta >= 0n);
  }
});

/**
 * A step to the next counter: ahead a little, or back; later on also far, when
 * the edge of a word near the start has been crossed in small steps.
 */
function stride(random: SeededRandom, far: boolean): bigint {
  const kind = random.below(far ? 100 : 90);
  if (kind < 40) return BigInt(random.below(3));
  if (kind < 55) return -BigInt(random.below(200));
  if (kind < 80) return -BigInt(random.below(9_000));
  if (kind < 90) return -WINDOW - 2n + BigInt(random.below(5));
  if (kind < 94) return BigInt(random.below(300));
  if (kind < 96) return BigInt(8_000 + random.below(400));
  if (kind < 98) return BigInt(random.word()) >> BigInt(random.below(32));
  // The same low words again, or nearly: only the high words tell them apart.
  const turns = BigInt(random.below(2) === 0 ? 1 : -1 - random.below(3));
  return (turns << 32n) + BigInt(random.below(100) - 50);
}

function clamp(counter: bigint): bigint {
  return counter < 0n ? 0n : BigInt.asUintN(64, counter);
}

function halves(counter: bigint): [number, number] {
  return [Number(counter & 0xffff_ffffn), Number(counter >> 32n)];
}

function validate(arena: Arena, word: number, counter: bigint): boolean {
  const [lo, hi] = halves(counter);
  return counterValidate(arena, word, lo, hi);
}

function storedNext(arena: Arena, word: number): bigint {
  const lo = arena.u32[word + KEYPAIR.RECEIVE_COUNTER_LO];
  const hi = arena.u32[word + KEYPAIR.RECEIVE_COUNTER_HI];
  return (BigInt(hi) << 32n) + BigInt(lo);
}

function* product(
  words: readonly number[],
): Generator<[number, number, number, number]> {
  for (const a of words) {
    for (const b of words) {
      for (const c of words) {
        for (const d of words) yield [a, b, c, d];
      }
    }
  }
}
