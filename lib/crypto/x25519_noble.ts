/**
 * X25519 by @noble/curves: the reference, and what is used where node:crypto is
 * wrong or has none. A module of its own, because it is much code to load.
 *
 * @module
 */

import { x25519 } from "@noble/curves/ed25519.js";
import { KEY_BYTES, secretOrNull } from "./bytes.ts";
import type { X25519 } from "./x25519.ts";

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
