/**
 * Poly1305 at its edges, inside the AEAD: ciphertexts that are solved for so
 * that the accumulator ends at chosen values around 0, p = 2^130 - 5 and 2^128,
 * for short packets and for those long enough for the vector code. The expected
 * tag comes from big integers, not from another implementation.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import { type Aead, AEAD_OK, aeadEncrypt } from "../lib/crypto/mod.ts";
import {
  Arena,
  hex,
  PROVIDERS,
  Random,
  testProvider,
} from "./crypto_helpers.ts";

const P = 2n ** 130n - 5n;
const BLOCK_BIT = 2n ** 128n;
const KEY = 1024;
const DESC = 2048;
const DATA = 4096 + 16;
const NO_AAD = new Uint8Array(0);

function fromLittleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => sum << 8n | BigInt(byte), 0n);
}

function toLittleEndian(value: bigint, length: number): Uint8Array {
  return Uint8Array.from(
    { length },
    (_, i) => Number(value >> BigInt(8 * i) & 255n),
  );
}

/** base^exponent modulo p. */
function power(base: bigint, exponent: bigint): bigint {
  let result = 1n;
  for (; exponent > 0n; exponent >>= 1n) {
    if (exponent & 1n) result = result * base % P;
    base = base * base % P;
  }
  return result;
}

/** A Poly1305 key. */
interface OneTimeKey {
  r: bigint;
  s: bigint;
}

/**
 * r (clamped) and s of a packet: ChaCha20 block 0, which providers never show,
 * by a plain ChaCha20 (RFC 8439 §2.3).
 */
function oneTimeKey(key: Uint8Array, counter: bigint): OneTimeKey {
  const input = new Uint32Array(16);
  input.set([0x61707865, 0x3320646e, 0x79622d32, 0x6b206574]);
  input.set(new Uint32Array(key.slice().buffer), 4);
  input[14] = Number(counter & 0xffffffffn);
  input[15] = Number(counter >> 32n);
  const x = input.slice();
  const rotate = (v: number, n: number): number => v << n | v >>> (32 - n);
  const quarter = (a: number, b: number, c: number, d: number): void => {
    x[a] += x[b], x[d] = rotate(x[d] ^ x[a], 16);
    x[c] += x[d], x[b] = rotate(x[b] ^ x[c], 12);
    x[a] += x[b], x[d] = rotate(x[d] ^ x[a], 8);
    x[c] += x[d], x[b] = rotate(x[b] ^ x[c], 7);
  };
  for (let round = 0; round < 10; round++) {
    for (let i = 0; i < 4; i++) quarter(i, i + 4, i + 8, i + 12);
    for (let i = 0; i < 4; i++) {
      quarter(i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4);
    }
  }
  const block = new Uint8Array(x.map((word, i) => word + input[i]).buffer);
  return {
    r: fromLittleEndian(block.subarray(0, 16)) &
      0x0ffffffc0ffffffc0ffffffc0fffffffn,
    s: fromLittleEndian(block.subarray(16, 32)),
  };
}

/** The accumulator before the final addition of s. */
function accumulate(r: bigint, ciphertext: Uint8Array): bigint {
  const padded = new Uint8Array(Math.ceil(ciphertext.length / 16) * 16 + 16);
  padded.set(ciphertext);
  padded.set(
    toLittleEndian(BigInt(ciphertext.length), 8),
    padded.length - 8,
  );
  let sum = 0n;
  for (let at = 0; at < padded.length; at += 16) {
    const block = fromLittleEndian(padded.subarray(at, at + 16)) + BLOCK_BIT;
    sum = (sum + block) * r % P;
  }
  return sum;
}

function tagOf({ r, s }: OneTimeKey, ciphertext: Uint8Array): Uint8Array {
  return toLittleEndian((accumulate(r, ciphertext) + s) % BLOCK_BIT, 16);
}

/**
 * A ciphertext of `blocks` blocks, and the counter to use with it, for which
 * the accumulator ends at `target`: its last block is solved for.
 */
function solve(
  random: Random,
  key: Uint8Array,
  blocks: number,
  target: bigint,
): { counter: bigint; ciphertext: Uint8Array } {
  for (let counter = 0n;; counter++) {
    const { r } = oneTimeKey(key, counter);
    const inverse = power(r, P - 2n);
    const ciphertext = random.bytes(16 * blocks);
    const before = ciphertext.subarray(0, -16);
    let sum = 0n;
    for (let at = 0; at < before.length; at += 16) {
      const block = fromLittleEndian(before.subarray(at, at + 16));
      sum = (sum + block + BLOCK_BIT) * r % P;
    }
    const lengths = (BigInt(16 * blocks) << 64n) + BLOCK_BIT;
    const afterLast = (target * inverse - lengths) % P;
    const last = ((afterLast * inverse - sum) % P + P) % P;
    if (last < BLOCK_BIT || last >= 2n * BLOCK_BIT) continue;
    ciphertext.set(toLittleEndian(last - BLOCK_BIT, 16), 16 * (blocks - 1));
    return { counter, ciphertext };
  }
}

/** OK after opening `ciphertext` with `tag`. */
function open(
  arena: Arena,
  aead: Aead,
  counter: bigint,
  ciphertext: Uint8Array,
  tag: Uint8Array,
): number {
  const length = ciphertext.length;
  arena.bytes.set(toLittleEndian(counter, 8), DATA - 8);
  arena.bytes.set(ciphertext, DATA);
  arena.bytes.set(tag, DATA + length);
  arena.describe(DESC, { data: DATA, length, key: KEY });
  aead.open(DESC, 1);
  return arena.word(DESC, AEAD_OK);
}

// The accumulator is reduced only at the end: these are where a wrong
// comparison with p or a lost carry shows.
const TARGETS = [
  0n,
  1n,
  4n,
  5n,
  6n,
  P - 1n,
  P - 2n,
  P - 5n,
  P - 6n,
  2n ** 26n - 1n,
  2n ** 104n - 1n,
  2n ** 128n - 1n,
  2n ** 128n,
  2n ** 128n + 1n,
  2n ** 129n,
  2n ** 130n - 2n ** 104n,
];

for (const provider of PROVIDERS) {
  testProvider(
    provider,
    "has Poly1305 right near the sums 0, p and 2^128",
    () => {
      const random = new Random(21);
      const arena = new Arena(1);
      const aead = provider.create(arena.memory, 0);
      for (const blocks of [1, 2, 5, 16, 19, 32]) {
        for (const target of TARGETS) {
          const key = random.bytes(32);
          arena.bytes.set(key, KEY);
          const { counter, ciphertext } = solve(random, key, blocks, target);
          const oneTime = oneTimeKey(key, counter);
          assertEquals(accumulate(oneTime.r, ciphertext), target, "solved");
          const tag = tagOf(oneTime, ciphertext);
          const what = `${blocks} blocks, sum ${target.toString(16)}`;
          assertEquals(open(arena, aead, counter, ciphertext, tag), 1, what);
          // The tag of the neighbouring sum must not pass.
          const wrong = (fromLittleEndian(tag) + 5n) % BLOCK_BIT;
          const forged = toLittleEndian(wrong, 16);
          assertEquals(open(arena, aead, counter, ciphertext, forged), 0, what);
        }
      }
      aead.close?.();
    },
  );

  testProvider(
    provider,
    "has Poly1305 right for all ones and all zeros",
    () => {
      const random = new Random(22);
      const arena = new Arena(1);
      const aead = provider.create(arena.memory, 0);
      for (let length = 1; length < 1500; length += 1 + random.below(30)) {
        const key = random.bytes(32);
        arena.bytes.set(key, KEY);
        for (const byte of [0xff, 0]) {
          const ciphertext = new Uint8Array(length).fill(byte);
          const counter = BigInt(length);
          const tag = tagOf(oneTimeKey(key, counter), ciphertext);
          const ok = open(arena, aead, counter, ciphertext, tag);
          assertEquals(ok, 1, `${length} bytes of ${byte}`);
        }
      }
      aead.close?.();
    },
  );
}

Deno.test("the big-integer Poly1305 of these tests agrees with RFC 8439 2.5.2", () => {
  const r = fromLittleEndian(hex("85d6be7857556d337f4452fe42d506a8")) &
    0x0ffffffc0ffffffc0ffffffc0fffffffn;
  const s = fromLittleEndian(hex("0103808afb0db2fd4abff6af4149f51b"));
  const message = new TextEncoder().encode(
    "Cryptographic Forum Research Group",
  );
  let sum = 0n;
  for (let at = 0; at < message.length; at += 16) {
    const block = message.subarray(at, at + 16);
    sum = (sum + fromLittleEndian(block) + 2n ** BigInt(8 * block.length)) *
        r % P;
  }
  assertEquals(
    toLittleEndian((sum + s) % BLOCK_BIT, 16),
    hex("a8061dc1305136c6c22b8baf0c0127a9"),
  );
  // And its one-time key with the library.
  const key = new Random(23).bytes(32);
  const empty = aeadEncrypt(key, 99n, NO_AAD, NO_AAD);
  assertEquals(tagOf(oneTimeKey(key, 99n), NO_AAD), empty);
});
