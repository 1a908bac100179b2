/**
 * Internet checksums: both providers against a plain sum.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import { type ChecksumChoice, createChecksum } from "../lib/crypto/mod.ts";
import { Arena, hex, Random } from "./crypto_helpers.ts";

/** The one's-complement sum of little-endian words, one word at a time. */
function plainSum(bytes: Uint8Array, initial: number): number {
  let sum = initial % 0x10000 + Math.floor(initial / 0x10000);
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i] + 256 * (bytes[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum > 0xffff ? sum - 0xffff : sum;
}

for (const choice of ["wasm", "js"] as ChecksumChoice[]) {
  Deno.test(`${choice} checksum of an IPv4 header is the one it carries`, () => {
    const arena = new Arena(1);
    const header = hex("45000073000040004011 0000 c0a80001c0a800c7");
    arena.bytes.set(header, 100);
    const { name, checksum } = createChecksum(arena.memory, choice);
    assertEquals(name, choice);
    // 0xb861 in network byte order.
    assertEquals(~checksum(100, header.length, 0) & 0xffff, 0x61b8);
  });

  Deno.test(`${choice} checksum agrees with a plain sum at any length, alignment and start`, () => {
    const random = new Random(31);
    const arena = new Arena(2);
    const { checksum, checksumCopy } = createChecksum(arena.memory, choice);
    const dst = 65536;
    for (let length = 0; length < 1600; length += 1 + random.below(6)) {
      const ptr = 64 + random.below(16);
      const fill = random.below(4);
      const bytes = fill === 0
        ? new Uint8Array(length).fill(0xff)
        : random.bytes(length);
      const initial = random.below(2 ** 32);
      arena.bytes.fill(0xee);
      arena.bytes.set(bytes, ptr);
      const expected = plainSum(bytes, initial);
      assertEquals(checksum(ptr, length, initial), expected, `${length}`);
      const copied = checksumCopy(dst + ptr % 7, ptr, length, initial);
      assertEquals(copied, expected, `${length}`);
      assertEquals(arena.slice(dst + ptr % 7, length), bytes);
      assertEquals(arena.bytes[dst + ptr % 7 + length], 0xee);
      assertEquals(arena.bytes[dst + ptr % 7 - 1], 0xee);
    }
  });

  Deno.test(`${choice} checksum does not overflow on megabytes of ones`, () => {
    const arena = new Arena(64);
    const length = 3 * 2 ** 20 + 33;
    arena.bytes.fill(0xff, 0, length);
    const { checksum } = createChecksum(arena.memory, choice);
    const sum = checksum(0, length, 0xffffffff);
    assertEquals(sum, plainSum(arena.slice(0, length), 0xffffffff));
  });

  Deno.test(`${choice} checksum copies downwards over itself`, () => {
    const random = new Random(32);
    const arena = new Arena(1);
    const { checksumCopy } = createChecksum(arena.memory, choice);
    for (const shift of [1, 2, 10, 31, 32, 100]) {
      const bytes = random.bytes(777);
      arena.bytes.set(bytes, 200);
      assertEquals(
        checksumCopy(200 - shift, 200, 777, 5),
        plainSum(bytes, 5),
      );
      assertEquals(arena.slice(200 - shift, 777), bytes);
    }
  });
}

Deno.test("checksum works above 2^31", () => {
  const random = new Random(33);
  const arena = new Arena(65536);
  const { name, checksum, checksumCopy } = createChecksum(arena.memory);
  assertEquals(name, "wasm");
  const bytes = random.bytes(1000);
  const end = 2 ** 32;
  arena.bytes.set(bytes, end - 1000);
  assertEquals(checksum(end - 1000, 1000, 0), plainSum(bytes, 0));
  assertEquals(
    checksumCopy(2 ** 31 - 500, end - 1000, 1000, 0),
    plainSum(bytes, 0),
  );
  assertEquals(arena.slice(2 ** 31 - 500, 1000), bytes);
});

Deno.test("checksum falls back to JavaScript on a memory that is not shared", () => {
  const memory = new WebAssembly.Memory({ initial: 1 });
  assertEquals(createChecksum(memory).name, "js");
  assertThrows(() => createChecksum(memory, "wasm"), Error, "not shared");
});
