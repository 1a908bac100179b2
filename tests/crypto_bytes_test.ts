/**
 * Text forms of keys, comparison and wiping.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  constantTimeEqual,
  decodeKey,
  encodeKey,
  fromBase64,
  fromHex,
  randomBytes,
  toBase64,
  toHex,
  wipe,
} from "../lib/crypto/mod.ts";
import { Random } from "./crypto_helpers.ts";

Deno.test("toBase64 and fromBase64 agree with the engine's at every length", () => {
  const random = new Random(71);
  for (let length = 0; length < 200; length++) {
    const bytes = random.bytes(length);
    const text = bytes.toBase64();
    assertEquals(toBase64(bytes), text);
    assertEquals(fromBase64(text), bytes);
  }
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  assertEquals(toBase64(all), all.toBase64());
});

Deno.test("toHex and fromHex agree with the engine's on every byte", () => {
  const all = Uint8Array.from({ length: 256 }, (_, i) => i);
  assertEquals(toHex(all), all.toHex());
  assertEquals(fromHex(all.toHex()), all);
  assertEquals(fromHex(all.toHex().toUpperCase()), all);
  assertEquals(fromHex(""), new Uint8Array(0));
});

Deno.test("fromHex refuses every character that is not a digit, and odd lengths", () => {
  for (let code = 0; code < 0x300; code++) {
    const character = String.fromCharCode(code);
    const valid = /^[0-9a-fA-F]$/.test(character);
    assertEquals(fromHex("0" + character) !== null, valid, `code ${code}`);
    assertEquals(fromHex(character + "0") !== null, valid, `code ${code}`);
  }
  assertEquals(fromHex("abc"), null);
});

Deno.test("fromBase64 refuses every character that is not a digit", () => {
  for (let code = 0; code < 0x300; code++) {
    const character = String.fromCharCode(code);
    const valid = /^[A-Za-z0-9+/]$/.test(character);
    for (let at = 0; at < 4; at++) {
      // "=" last is padding, which needs the bits before it to be zero.
      if (character === "=" && at === 3) continue;
      const text = "AAAA".slice(0, at) + character + "AAAA".slice(at + 1);
      assertEquals(fromBase64(text) !== null, valid, `code ${code} at ${at}`);
    }
  }
});

Deno.test("fromBase64 is strict about padding and unused bits", () => {
  for (const text of ["A", "AA", "AAA", "A===", "====", "AA=A", "AA==AAAA"]) {
    assertEquals(fromBase64(text), null, text);
  }
  for (const text of ["AB==", "AAB=", "/x==", "AA= ", " AA="]) {
    assertEquals(fromBase64(text), null, text);
  }
  assertEquals(fromBase64("AA=="), new Uint8Array(1));
  assertEquals(fromBase64("AAA="), new Uint8Array(2));
  assertEquals(fromBase64("/w=="), new Uint8Array([255]));
});

Deno.test("decodeKey takes the 44 characters of a key and nothing else", () => {
  const random = new Random(72);
  for (let i = 0; i < 100; i++) {
    const key = random.bytes(32);
    const text = encodeKey(key);
    assertEquals(text, key.toBase64());
    assertEquals(text.length, 44);
    assertEquals(decodeKey(text), key);
    assertEquals(decodeKey(text.slice(0, -1)), null);
    assertEquals(decodeKey(text + "="), null);
    assertEquals(decodeKey(" " + text.slice(1)), null);
    // The last digit carries only four bits; any other is not canonical.
    const last =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        .indexOf(text[42]);
    assertEquals(last % 4, 0);
  }
  assertEquals(decodeKey(toBase64(random.bytes(31))), null);
  assertEquals(decodeKey(toBase64(random.bytes(33))), null);
  assertEquals(decodeKey("A".repeat(42) + "B="), null);
  assertEquals(decodeKey("A".repeat(42) + "==") === null, true);
  assertThrows(() => encodeKey(random.bytes(31)), RangeError);
});

Deno.test("constantTimeEqual sees any single bit and the length", () => {
  const random = new Random(73);
  const bytes = random.bytes(33);
  assert(constantTimeEqual(bytes, bytes.slice()));
  assert(constantTimeEqual(new Uint8Array(0), new Uint8Array(0)));
  for (let bit = 0; bit < 8 * bytes.length; bit++) {
    const other = bytes.slice();
    other[bit >> 3] ^= 1 << (bit & 7);
    assert(!constantTimeEqual(bytes, other), `bit ${bit}`);
  }
  assert(!constantTimeEqual(bytes, bytes.subarray(1)));
});

Deno.test("wipe zeroes views only as far as they go", () => {
  const bytes = new Uint8Array(8).fill(7);
  const other = new Uint8Array(2).fill(7);
  wipe(bytes.subarray(2, 5), other);
  assertEquals(bytes, new Uint8Array([7, 7, 0, 0, 0, 7, 7, 7]));
  assertEquals(other, new Uint8Array(2));
});

Deno.test("randomBytes fills more than one chunk of the generator", () => {
  const bytes = randomBytes(70_000);
  assertEquals(bytes.length, 70_000);
  assert(bytes.subarray(65_536).some((byte) => byte !== 0));
  assert(!constantTimeEqual(randomBytes(32), randomBytes(32)));
});
