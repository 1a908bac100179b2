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
import { x25519 } from "@noble/curves/ed25519.js";
import { constantTimeEqual, KEY_BYTES, randomBytes, wipe } from "./bytes.ts";

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

/** The secret as an array of its own, or null if it is all zero. */
function secretOrNull(secret: Uint8Array): Uint8Array | null {
  return constantTimeEqual(secret, ZERO_KEY) ? null : new Uint8Array(secret);
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

/** X25519 by noble. */
export const nobleX25519: X25519 = {
  name: "noble",
  publicKey(privateKey: Uint8Array): Uint8Array {
    return x25519.getPublicKey(privateKey);
  },
  sharedSecret(
    privateKey: Uint8Array,
    publicKey: Uint8Array,
  ): Uint8Array | null {
    try {
      return secretOrNull(x25519.getSharedSecret(privateKey, publicKey));
    } catch (error) {
      // Noble also throws for an all-zero result, and for wrong lengths.
      if (publicKey.length !== KEY_BYTES || privateKey.length !== KEY_BYTES) {
        throw error;
      }
      return null;
    }
  },
};

let chosen: X25519 | undefined;

/** node:crypto if it agrees with noble on two fresh keys, else noble. */
function provider(): X25519 {
  if (chosen === undefined) chosen = nodeAgrees() ? nodeX25519 : nobleX25519;
  return chosen;
}

function nodeAgrees(): boolean {
  try {
    const key = generatePrivateKey();
    const other = nobleX25519.publicKey(generatePrivateKey());
    const ours = nodeX25519.sharedSecret(key, other);
    const reference = nobleX25519.sharedSecret(key, other);
    return ours !== null && reference !== null &&
      constantTimeEqual(ours, reference) &&
      constantTimeEqual(
        nodeX25519.publicKey(key),
        nobleX25519.publicKey(key),
      ) &&
      nodeX25519.sharedSecret(key, ZERO_KEY) === null;
  } catch {
    return false;
  }
}

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
  return provider().publicKey(privateKey);
}

/**
 * The shared secret (32 bytes, fresh) of a private and a public key of 32 bytes,
 * or null if it would be all zero.
 */
export function sharedSecret(
  privateKey: Uint8Array,
  publicKey: Uint8Array,
): Uint8Array | null {
  return provider().sharedSecret(privateKey, publicKey);
}
