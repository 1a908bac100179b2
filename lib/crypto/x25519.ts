/**
 * X25519 (RFC 7748): by node:crypto, which takes about 110 µs, or by
 * @noble/curves, which takes about 750 µs and is the reference and fallback.
 *
 * Key objects of node:crypto are made afresh for each operation from DER (JWK
 * would put the secret into strings). Keeping them would save 6 of 110 µs, and
 * they could not be wiped.
 *
 * @module
 */

import * as nodeCrypto from "node:crypto";
import { Buffer } from "node:buffer";
import {
  constantTimeEqual,
  KEY_BYTES,
  randomBytes,
  secretOrNull,
  wipe,
} from "./bytes.ts";

/** One implementation of the scalar multiplication. */
export interface X25519 {
  /** Name of the provider: "node" or "noble". */
  readonly name: string;
  /**
   * Multiplies the base point.
   *
   * @param privateKey 32 bytes, clamped or not.
   * @returns A fresh public key of 32 bytes.
   */
  publicKey(privateKey: Uint8Array): Uint8Array;
  /**
   * Multiplies the peer's point.
   *
   * @param privateKey 32 bytes, clamped or not.
   * @param publicKey 32 bytes.
   * @returns The fresh shared secret of 32 bytes, or null if it would be all
   * zero: `publicKey` is a point of low order.
   */
  sharedSecret(
    privateKey: Uint8Array,
    publicKey: Uint8Array,
  ): Uint8Array | null;
}

/** PrivateKeyInfo (RFC 8410 §7) up to the 32 bytes of the key. */
const PKCS8_PREFIX = Buffer.from("302e020100300506032b656e04220420", "hex");
/** SubjectPublicKeyInfo (RFC 8410 §4) up to the 32 bytes of the key. */
const SPKI_PREFIX = Buffer.from("302a300506032b656e032100", "hex");
const ZERO_KEY = new Uint8Array(KEY_BYTES);

/** Imports a private key; the copy that this takes is wiped. */
function importPrivate(key: Uint8Array): nodeCrypto.KeyObject {
  const der = Buffer.concat([PKCS8_PREFIX, key]);
  const object = nodeCrypto.createPrivateKey({
    key: der,
    format: "der",
    type: "pkcs8",
  });
  wipe(der);
  return object;
}

function importPublic(key: Uint8Array): nodeCrypto.KeyObject {
  const der = Buffer.concat([SPKI_PREFIX, key]);
  return nodeCrypto.createPublicKey({ key: der, format: "der", type: "spki" });
}

/** X25519 by node:crypto. */
export const nodeX25519: X25519 = {
  name: "node",
  publicKey(privateKey: Uint8Array): Uint8Array {
    const key = nodeCrypto.createPublicKey(importPrivate(privateKey));
    const der = key.export({ format: "der", type: "spki" });
    return new Uint8Array(der.subarray(SPKI_PREFIX.length));
  },
  sharedSecret(
    privateKey: Uint8Array,
    publicKey: Uint8Array,
  ): Uint8Array | null {
    const keys = {
      privateKey: importPrivate(privateKey),
      publicKey: importPublic(publicKey),
    };
    try {
      return secretOrNull(nodeCrypto.diffieHellman(keys));
    } catch {
      // OpenSSL's answer to a point of low order.
      return null;
    }
  },
};

/** The two key pairs of RFC 7748 §6.1 and what they share. */
const KNOWN = [
  "77076d0a7318a57d3c16c17251b26645df4c2f87ebc0992ab177fba51db92c2a",
  "8520f0098930a754748b7ddcb43ef75a0dbf3a0d26381af4eba4a98eaa9b4e6a",
  "5dab087e624a8a4b79e17f8b83800ee66f3bb1292618b6fd1c2f8b27ff88e0eb",
  "de9edb7d7b7dc1b4d35b61c2ece435373f8343c85b78674dadfc7e146f882b4f",
  "4a5d9d5ba4ce2de1728e3bf480350f25e07e21c947d19e3376f09b3c1e161742",
].map((text) => Buffer.from(text, "hex"));

/**
 * Whether a provider is right about keys that are known. Comparing it with noble
 * would take 20 ms of a start: noble is slow until the engine has optimised it.
 */
export function givesKnownAnswers(x25519: X25519): boolean {
  const [alice, alicePublic, bob, bobPublic, shared] = KNOWN;
  const holds = (got: Uint8Array | null, expected: Uint8Array): boolean =>
    got !== null && constantTimeEqual(got, expected);
  try {
    return holds(x25519.publicKey(alice), alicePublic) &&
      holds(x25519.publicKey(bob), bobPublic) &&
      holds(x25519.sharedSecret(alice, bobPublic), shared) &&
      holds(x25519.sharedSecret(bob, alicePublic), shared) &&
      x25519.sharedSecret(alice, ZERO_KEY) === null;
  } catch {
    return false;
  }
}

/** node:crypto if it gives the known answers, else noble. */
const provider: X25519 = givesKnownAnswers(nodeX25519)
  ? nodeX25519
  : (await import("./x25519_noble.ts")).nobleX25519;

/** Clamps a private key of 32 bytes in place (RFC 7748 §5), and returns it. */
export function clamp<T extends Uint8Array>(privateKey: T): T {
  privateKey[0] &= 248;
  privateKey[KEY_BYTES - 1] = (privateKey[KEY_BYTES - 1] & 127) | 64;
  return privateKey;
}

/**
 * A fresh private key of 32 bytes, clamped.
 *
 * @param random Gives the bytes; for tests.
 */
export function generatePrivateKey(
  random: (length: number) => Uint8Array = randomBytes,
): Uint8Array {
  return clamp(random(KEY_BYTES));
}

/** The public key (32 bytes, fresh) of a private key of 32 bytes. */
export function publicKey(privateKey: Uint8Array): Uint8Array {
  return provider.publicKey(privateKey);
}

/**
 * The shared secret (32 bytes, fresh) of a private and a public key of 32 bytes,
 * or null if it would be all zero.
 */
export function sharedSecret(
  privateKey: Uint8Array,
  publicKey: Uint8Array,
): Uint8Array | null {
  return provider.sharedSecret(privateKey, publicKey);
}
