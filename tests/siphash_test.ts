/**
 * lib/siphash: the published vectors of SipHash-2-4, and an independent version
 * in 64-bit arithmetic.
 */
import { assertEquals, assertThrows } from "@std/assert";
import { BugError } from "../lib/assert.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import { SipHash } from "../lib/siphash.ts";

/** Key 00..0f; input 00, 01, … of the length in front; output as bytes. */
const VECTORS: Readonly<Record<number, string>> = {
  0: "310e0edd47db6f72",
  1: "fd67dc93c539f874",
  2: "5a4fa9d909806c0d",
  3: "2d7efbd796666785",
  4: "b7877127e09427cf",
  5: "8da699cd64557618",
  6: "cee3fe586e46c9cb",
  7: "37d1018bf50002ab",
  8: "6224939a79f5f593",
  9: "b0e4a90bdf82009e",
  10: "f3b9dd94c5bb5d7a",
  11: "a7ad6b22462fb3f4",
  12: "fbe50e86bc8f1e75",
  13: "903d84c02756ea14",
  14: "eef27a8e90ca23f7",
  15: "e545be4961ca29a1",
  63: "724506eb4c328a95",
};

Deno.test("SipHash-2-4 gives the published outputs", () => {
  const hash = new SipHash(counting(16));
  for (const [length, expected] of Object.entries(VECTORS)) {
    assertEquals(hex(hash, counting(64), 0, Number(length)), expected, length);
  }
});

Deno.test("SipHash-2-4 agrees with 64-bit arithmetic on any key, offset and length", () => {
  const random = new SeededRandom(24);
  for (let round = 0; round < 300; round++) {
    const key = random.fill(new Uint8Array(16));
    const bytes = random.fill(new Uint8Array(100));
    const offset = random.below(8);
    const length = random.below(90);
    assertEquals(
      hex(new SipHash(key), bytes, offset, length),
      reference(key, bytes.subarray(offset, offset + length)),
      `offset ${offset} length ${length}`,
    );
  }
});

Deno.test("SipHash wants a key of 16 bytes and keeps a copy", () => {
  assertThrows(() => new SipHash(new Uint8Array(8)), BugError);
  const key = counting(16);
  const hash = new SipHash(key);
  key.fill(0);
  assertEquals(hex(hash, counting(64), 0, 8), VECTORS[8]);
});

function counting(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => i);
}

function hex(
  hash: SipHash,
  bytes: Uint8Array,
  offset: number,
  length: number,
): string {
  const out = new DataView(new ArrayBuffer(8));
  out.setUint32(0, hash.hash(bytes, offset, length), true);
  out.setUint32(4, hash.high, true);
  return new Uint8Array(out.buffer).toHex();
}

function reference(key: Uint8Array, bytes: Uint8Array): string {
  const u64 = (n: bigint): bigint => BigInt.asUintN(64, n);
  const rotate = (n: bigint, bits: bigint): bigint =>
    u64((n << bits) | (n >> (64n - bits)));
  const word = (from: Uint8Array, at: number): bigint =>
    new DataView(from.buffer, from.byteOffset).getBigUint64(at, true);
  let [v0, v1] = [0x736f6d6570736575n, 0x646f72616e646f6dn];
  let [v2, v3] = [0x6c7967656e657261n, 0x7465646279746573n];
  const [k0, k1] = [word(key, 0), word(key, 8)];
  [v0, v1, v2, v3] = [v0 ^ k0, v1 ^ k1, v2 ^ k0, v3 ^ k1];
  const rounds = (count: number): void => {
    for (let i = 0; i < count; i++) {
      v0 = u64(v0 + v1);
      v2 = u64(v2 + v3);
      v1 = rotate(v1, 13n) ^ v0;
      v3 = rotate(v3, 16n) ^ v2;
      v0 = rotate(v0, 32n);
      v2 = u64(v2 + v1);
      v0 = u64(v0 + v3);
      v1 = rotate(v1, 17n) ^ v2;
      v3 = rotate(v3, 21n) ^ v0;
      v2 = rotate(v2, 32n);
    }
  };
  const padded = new Uint8Array(8 * Math.floor(bytes.length / 8) + 8);
  padded.set(bytes);
  padded[padded.length - 1] = bytes.length;
  for (let at = 0; at < padded.length; at += 8) {
    const m = word(padded, at);
    v3 ^= m;
    rounds(2);
    v0 ^= m;
  }
  v2 ^= 0xffn;
  rounds(4);
  const out = new DataView(new ArrayBuffer(8));
  out.setBigUint64(0, v0 ^ v1 ^ v2 ^ v3, true);
  return new Uint8Array(out.buffer).toHex();
}
