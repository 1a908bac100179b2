/**
 * X25519: the vectors of RFC 7748 and points of low order on both providers,
 * and one provider against the other.
 *
 * @module
 */

import { Buffer } from "node:buffer";
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  clamp,
  generatePrivateKey,
  nobleX25519,
  nodeX25519,
  publicKey,
  sharedSecret,
} from "../lib/crypto/mod.ts";
import { hex, Random } from "./crypto_helpers.ts";

// RFC 7748 §5.2.
const MULTIPLICATIONS = [
  {
    scalar: "a546e36bf0527c9d3b16154b82465edd62144c0ac1fc5a18506a2244ba449ac4",
    point: "e6db6867583030db3594c1a424b15f7c726624ec26b3353b10a903a6d0ab1c4c",
    result: "c3da55379de9c6908e94ea4df28d084f32eccf03491c71f754b4075577a28552",
  },
  {
    scalar: "4b66e9d4d1b4673c5ad22691957d6af5c11b6421e0ea01d42ca4169e7918ba0d",
    point: "e5210f12786811d3f4b7959d0538ae2c31dbe7106fc03c3efc4cd549c715a493",
    result: "95cbde9476e8907d7aade45cb4b873f88b595a68799fa152e6f8f7647aac7957",
  },
];
// RFC 7748 §6.1.
const ALICE = {
  private: "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
  public: "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
};
const BOB = {
  private: "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
  public: "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
};
const SHARED =
  "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742";

// All u-coordinates of low order, and their non-canonical forms.
const LOW_ORDER = [
  "00".repeat(32),
  "01" + "00".repeat(31),
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  "ec" + "ff".repeat(30) + "7f",
  "ed" + "ff".repeat(30) + "7f",
  "ee" + "ff".repeat(30) + "7f",
  "00".repeat(31) + "80",
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b880",
];

for (const x25519 of [nodeX25519, nobleX25519]) {
  const { name } = x25519;

  Deno.test(`${name} X25519 makes the results of RFC 7748 5.2`, () => {
    for (const { scalar, point, result } of MULTIPLICATIONS) {
      assertEquals(x25519.sharedSecret(hex(scalar), hex(point)), hex(result));
    }
  });

  Deno.test(`${name} X25519 makes the 1,000 iterations of RFC 7748 5.2`, () => {
    let k = hex("09" + "00".repeat(31));
    let u = k;
    const iterations = name === "noble" ? 1 : 1000;
    for (let i = 0; i < iterations; i++) {
      const result = x25519.sharedSecret(k, u);
      assert(result !== null);
      u = k;
      k = new Uint8Array(result);
    }
    assertEquals(
      k,
      iterations === 1
        ? hex(
          "422c8e7a6227d7bca1350b3e2bb7279f7897b87bb6854b783c60e80311ae3079",
        )
        : hex(
          "684cf59ba83309552800ef566f2f4d3c1c3887c49360e3875f2eb94d99532c51",
        ),
    );
  });

  Deno.test(`${name} X25519 makes the exchange of RFC 7748 6.1`, () => {
    assertEquals(x25519.publicKey(hex(ALICE.private)), hex(ALICE.public));
    assertEquals(x25519.publicKey(hex(BOB.private)), hex(BOB.public));
    assertEquals(
      x25519.sharedSecret(hex(ALICE.private), hex(BOB.public)),
      hex(SHARED),
    );
    assertEquals(
      x25519.sharedSecret(hex(BOB.private), hex(ALICE.public)),
      hex(SHARED),
    );
  });

  Deno.test(`${name} X25519 gives null for points of low order`, () => {
    const key = generatePrivateKey();
    for (const point of LOW_ORDER) {
      assertEquals(x25519.sharedSecret(key, hex(point)), null, point);
    }
  });

  Deno.test(`${name} X25519 refuses keys of a wrong length`, () => {
    const key = generatePrivateKey();
    for (const length of [0, 31, 33]) {
      const wrong = new Uint8Array(length).fill(9);
      assertThrows(() => x25519.sharedSecret(key, wrong));
      assertThrows(() => x25519.sharedSecret(wrong, key));
      assertThrows(() => x25519.publicKey(wrong));
    }
  });

  Deno.test(`${name} X25519 takes views on a SharedArrayBuffer`, () => {
    const shared = new Uint8Array(new SharedArrayBuffer(64));
    shared.set(hex(ALICE.private));
    shared.set(hex(BOB.public), 32);
    const [key, peer] = [shared.subarray(0, 32), shared.subarray(32)];
    assertEquals(x25519.sharedSecret(key, peer), hex(SHARED));
    assertEquals(x25519.publicKey(key), hex(ALICE.public));
  });
}

Deno.test("node and noble X25519 agree on random keys and points", () => {
  const random = new Random(51);
  for (let i = 0; i < 200; i++) {
    const key = random.bytes(32);
    // Half of all random strings are on the twist; the top bit is ignored.
    const point = random.bytes(32);
    assertEquals(
      nodeX25519.sharedSecret(key, point),
      nobleX25519.sharedSecret(key, point),
    );
    if (i % 5 === 0) {
      assertEquals(nodeX25519.publicKey(key), nobleX25519.publicKey(key));
    }
  }
});

Deno.test("publicKey and sharedSecret use a provider that works", () => {
  assertEquals(publicKey(hex(ALICE.private)), hex(ALICE.public));
  assertEquals(sharedSecret(hex(ALICE.private), hex(BOB.public)), hex(SHARED));
  assertEquals(sharedSecret(hex(ALICE.private), new Uint8Array(32)), null);
});

Deno.test("generatePrivateKey clamps what the generator gives", () => {
  const ones = generatePrivateKey((length) => new Uint8Array(length).fill(255));
  assertEquals(ones, hex("f8" + "ff".repeat(30) + "7f"));
  const zeros = generatePrivateKey((length) => new Uint8Array(length));
  assertEquals(zeros, hex("00".repeat(31) + "40"));
  assertEquals(clamp(zeros), zeros);
  const fresh = generatePrivateKey();
  assertEquals(fresh.length, 32);
  assert(fresh.some((byte, i) => byte !== generatePrivateKey()[i]));
});

Deno.test("where node:crypto fails, noble does X25519", async () => {
  const { concat } = Buffer;
  Buffer.concat = (): never => {
    throw new Error("broken");
  };
  try {
    const again = new URL("../lib/crypto/x25519.ts?again", import.meta.url);
    const { publicKey } = await import(again.href);
    assertEquals(
      publicKey(Uint8Array.fromHex(ALICE.private)).toHex(),
      ALICE.public,
    );
  } finally {
    Buffer.concat = concat;
  }
});
