/**
 * The AEADs of handshakes and cookies: published vectors and refusals.
 *
 * @module
 */

import { assertEquals } from "@std/assert";
import {
  aeadDecrypt,
  aeadEncrypt,
  xaeadDecrypt,
  xaeadEncrypt,
} from "../lib/crypto/mod.ts";
import { hex, Random } from "./crypto_helpers.ts";

// RFC 8439 §A.5.
const RFC_8439_A5 = {
  key: hex("1c9240a5eb55d38af333888604f6b5f0473917c1402b80099dca5cbc207075c0"),
  counter: 0x0807060504030201n,
  aad: hex("f33388860000000000004e91"),
  plaintext: new TextEncoder().encode(
    "Internet-Drafts are draft documents valid for a maximum of six months " +
      "and may be updated, replaced, or obsoleted by other documents at any " +
      "time. It is inappropriate to use Internet-Drafts as reference " +
      "material or to cite them other than as /“work in progress./”",
  ),
  ciphertext: hex(
    `64a0861575861af460f062c79be643bd5e805cfd345cf389f108670ac76c8cb2
    4c6cfc18755d43eea09ee94e382d26b0bdb7b73c321b0100d4f03b7f355894cf
    332f830e710b97ce98c8a84abd0b948114ad176e008d33bd60f982b1ff37c855
    9797a06ef4f0ef61c186324e2b3506383606907b6a7c02b0f9f6157b53c867e4
    b9166c767b804d46a59b5216cde7a4e99040c5a40433225ee282a1b0a06c523e
    af4534d7f83fa1155b0047718cbc546a0d072b04b3564eea1b422273f548271a
    0bb2316053fa76991955ebd63159434ecebb4e466dae5a1073a6727627097a10
    49e617d91d361094fa68f0ff77987130305beaba2eda04df997b714d6c6f2c29
    a6ad5cb4022b02709b eead9d67890cbb22392336fea1851f38`,
  ),
};

// draft-irtf-cfrg-xchacha-03 §A.3.1.
const XCHACHA_A3 = {
  key: hex("808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9f"),
  nonce: hex("404142434445464748494a4b4c4d4e4f5051525354555657"),
  aad: hex("50515253c0c1c2c3c4c5c6c7"),
  plaintext: new TextEncoder().encode(
    "Ladies and Gentlemen of the class of '99: If I could offer you only " +
      "one tip for the future, sunscreen would be it.",
  ),
  ciphertext: hex(
    `bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb
    731c7f1b0b4aa6440bf3a82f4eda7e39ae64c6708c54c216cb96b72e1213b452
    2f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9
    21f9664c97637da9768812f615c68b13b52e c0875924c1c7987947deafd8780acf49`,
  ),
};

Deno.test("aeadEncrypt and aeadDecrypt make the vector of RFC 8439 A.5", () => {
  const { key, counter, aad, plaintext, ciphertext } = RFC_8439_A5;
  assertEquals(aeadEncrypt(key, counter, plaintext, aad), ciphertext);
  assertEquals(aeadDecrypt(key, counter, ciphertext, aad), plaintext);
});

Deno.test("xaeadEncrypt and xaeadDecrypt make the vector of the XChaCha draft A.3", () => {
  const { key, nonce, aad, plaintext, ciphertext } = XCHACHA_A3;
  assertEquals(xaeadEncrypt(key, nonce, plaintext, aad), ciphertext);
  assertEquals(xaeadDecrypt(key, nonce, ciphertext, aad), plaintext);
});

Deno.test("decryption gives null for any change of key, nonce, data or length", () => {
  const { key, counter, aad, ciphertext } = RFC_8439_A5;
  const flip = (bytes: Uint8Array, at: number): Uint8Array => {
    const copy = bytes.slice();
    copy[at] ^= 1;
    return copy;
  };
  const aead = (
    k = key,
    c = counter,
    data: Uint8Array = ciphertext,
    a: Uint8Array = aad,
  ): Uint8Array | null => aeadDecrypt(k, c, data, a);
  assertEquals(aead(hex("ff".repeat(32))), null);
  assertEquals(aead(key, counter + 1n), null);
  assertEquals(aead(key, counter, flip(ciphertext, 0)), null);
  assertEquals(aead(key, counter, ciphertext, flip(aad, 11)), null);
  for (let bit = 0; bit < 128; bit++) {
    const forged = ciphertext.slice();
    forged[ciphertext.length - 16 + (bit >> 3)] ^= 1 << (bit & 7);
    assertEquals(aead(key, counter, forged), null, `bit ${bit}`);
  }
  for (const length of [0, 1, 15, 16, 17, ciphertext.length - 1]) {
    assertEquals(aead(key, counter, ciphertext.subarray(0, length)), null);
  }
  const { nonce } = XCHACHA_A3;
  for (const at of [0, 15, 16, 23]) {
    assertEquals(
      xaeadDecrypt(
        XCHACHA_A3.key,
        flip(nonce, at),
        XCHACHA_A3.ciphertext,
        XCHACHA_A3.aad,
      ),
      null,
    );
  }
  assertEquals(
    xaeadDecrypt(XCHACHA_A3.key, nonce, new Uint8Array(15), XCHACHA_A3.aad),
    null,
  );
});

Deno.test("AEADs take views on a SharedArrayBuffer and return fresh arrays", () => {
  const random = new Random(61);
  const shared = new Uint8Array(new SharedArrayBuffer(200));
  shared.set(random.bytes(200));
  const key = shared.subarray(0, 32);
  const nonce = shared.subarray(32, 56);
  const aad = shared.subarray(56, 88);
  const plaintext = shared.subarray(88);
  const before = shared.slice();
  const sealed = aeadEncrypt(key, 5n, plaintext, aad);
  assertEquals(
    sealed,
    aeadEncrypt(key.slice(), 5n, plaintext.slice(), aad.slice()),
  );
  assertEquals(
    aeadDecrypt(key, 5n, sealed, aad),
    new Uint8Array(plaintext),
  );
  const xsealed = xaeadEncrypt(key, nonce, plaintext, aad);
  assertEquals(
    xaeadDecrypt(key, nonce, xsealed, aad),
    new Uint8Array(plaintext),
  );
  assertEquals(shared.slice(), before);
});
