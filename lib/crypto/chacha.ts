/**
 * ChaCha20-Poly1305 (RFC 8439) and XChaCha20-Poly1305
 * (draft-irtf-cfrg-xchacha) for handshakes and cookies, by @noble/ciphers.
 * Packets of the data path go through aead.ts instead.
 *
 * @module
 */

import { chacha20poly1305, xchacha20poly1305 } from "@noble/ciphers/chacha.js";

/** Bytes that encryption adds. */
export const TAG_BYTES = 16;
/** Bytes of an XChaCha20-Poly1305 nonce. */
export const XNONCE_BYTES = 24;

/** 32 zero bits, then the counter, little-endian. */
function nonceOf(counter: bigint): Uint8Array {
  const nonce = new Uint8Array(12);
  new DataView(nonce.buffer).setBigUint64(4, counter, true);
  return nonce;
}

/** The plaintext, or null instead of noble's exception for a wrong tag. */
function decryptOrNull(
  cipher: { decrypt(ciphertext: Uint8Array): Uint8Array },
  ciphertext: Uint8Array,
): Uint8Array | null {
  if (ciphertext.length < TAG_BYTES) return null;
  try {
    return cipher.decrypt(ciphertext);
  } catch {
    return null;
  }
}

/**
 * Encrypts with ChaCha20-Poly1305.
 *
 * @param key 32 bytes.
 * @param counter The nonce as a 64-bit counter; 0n in handshakes.
 * @returns A fresh array: ciphertext, then the 16-byte tag.
 */
export function aeadEncrypt(
  key: Uint8Array,
  counter: bigint,
  plaintext: Uint8Array,
  aad: Uint8Array,
): Uint8Array {
  return chacha20poly1305(key, nonceOf(counter), aad).encrypt(plaintext);
}

/**
 * Decrypts with ChaCha20-Poly1305.
 *
 * @param key 32 bytes.
 * @param counter The nonce as a 64-bit counter; 0n in handshakes.
 * @param ciphertext Ciphertext, then the 16-byte tag.
 * @returns A fresh array, or null if it is not authentic.
 */
export function aeadDecrypt(
  key: Uint8Array,
  counter: bigint,
  ciphertext: Uint8Array,
  aad: Uint8Array,
): Uint8Array | null {
  const cipher = chacha20poly1305(key, nonceOf(counter), aad);
  return decryptOrNull(cipher, ciphertext);
}

/**
 * Encrypts with XChaCha20-Poly1305.
 *
 * @param key 32 bytes.
 * @param nonce 24 bytes, random.
 * @returns A fresh array: ciphertext, then the 16-byte tag.
 */
export function xaeadEncrypt(
  key: Uint8Array,
  nonce: Uint8Array,
  plaintext: Uint8Array,
  aad: Uint8Array,
): Uint8Array {
  return xchacha20poly1305(key, nonce, aad).encrypt(plaintext);
}

/**
 * Decrypts with XChaCha20-Poly1305.
 *
 * @param key 32 bytes.
 * @param nonce 24 bytes.
 * @param ciphertext Ciphertext, then the 16-byte tag.
 * @returns A fresh array, or null if it is not authentic.
 */
export function xaeadDecrypt(
  key: Uint8Array,
  nonce: Uint8Array,
  ciphertext: Uint8Array,
  aad: Uint8Array,
): Uint8Array | null {
  return decryptOrNull(xchacha20poly1305(key, nonce, aad), ciphertext);
}
