/**
 * BLAKE2s (RFC 7693), its keyed form, HMAC-BLAKE2s (RFC 2104, 64-byte block)
 * and the key derivation of WireGuard (whitepaper §5.4: HKDF, RFC 5869, with
 * HMAC-BLAKE2s). Hashing is by the wasm kernel, which takes a quarter of the
 * time of @noble/hashes or less; that is the reference and fallback.
 *
 * Everything takes its input in parts, which it joins, and returns fresh arrays.
 *
 * @module
 */

import { blake2s } from "@noble/hashes/blake2.js";
import { createWasmBlake2s } from "./blake2s_wasm.ts";
import { constantTimeEqual, wipe } from "./bytes.ts";

/** Bytes of a hash, an HMAC and a derived key. */
export const HASH_BYTES = 32;
/** Bytes of a keyed MAC as used in mac1, mac2 and cookies. */
export const MAC_BYTES = 16;

const HMAC_BLOCK_BYTES = 64;
const INNER_PAD = 0x36;
const OUTER_PAD = 0x5c;

/** An implementation of BLAKE2s. */
export interface Blake2s {
  /**
   * Keyed BLAKE2s of the joined parts.
   *
   * @param key Up to 32 bytes; empty for the plain hash.
   * @param length Bytes of the digest, at most 32.
   * @returns A fresh array.
   */
  digest(
    key: Uint8Array,
    length: number,
    parts: readonly Uint8Array[],
  ): Uint8Array;
  /**
   * Whether the 16 bytes behind the first `length` bytes of the message are the
   * MAC of these. In constant time; tens of thousands a second in a flood.
   *
   * @param key 1 to 32 bytes.
   */
  isMac16(key: Uint8Array, message: Uint8Array, length: number): boolean;
}

/** BLAKE2s by noble. */
export const nobleBlake2s: Blake2s = {
  digest(key, length, parts): Uint8Array {
    const options = { dkLen: length, key: key.length > 0 ? key : undefined };
    const state = blake2s.create(options);
    for (const part of parts) state.update(part);
    return state.digest();
  },
  isMac16(key, message, length): boolean {
    const mac = this.digest(key, MAC_BYTES, [message.subarray(0, length)]);
    return constantTimeEqual(
      mac,
      message.subarray(length, length + MAC_BYTES),
    );
  },
};

const EMPTY = new Uint8Array(0);
const SELF_TEST_LENGTHS = [0, 64, 200];

let chosen: Blake2s | undefined;

/** The wasm kernel if it runs and agrees with noble, else noble. */
function provider(): Blake2s {
  if (chosen === undefined) {
    try {
      const wasm = createWasmBlake2s(nobleBlake2s);
      const agrees = SELF_TEST_LENGTHS.every((length) => {
        const parts = [new Uint8Array(length).fill(length)];
        return constantTimeEqual(
          wasm.digest(EMPTY, HASH_BYTES, parts),
          nobleBlake2s.digest(EMPTY, HASH_BYTES, parts),
        );
      });
      chosen = agrees ? wasm : nobleBlake2s;
    } catch {
      chosen = nobleBlake2s;
    }
  }
  return chosen;
}

/** BLAKE2s of the joined parts: 32 bytes. */
export function hash(...parts: Uint8Array[]): Uint8Array {
  return provider().digest(EMPTY, HASH_BYTES, parts);
}

/**
 * Keyed BLAKE2s of the joined parts: 16 bytes.
 *
 * @param key 1 to 32 bytes.
 */
export function mac16(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
  return provider().digest(key, MAC_BYTES, parts);
}

/** Whether a message's code is {@link mac16} of what is before it. See {@link Blake2s}. */
export function isMac16(
  key: Uint8Array,
  message: Uint8Array,
  length: number,
): boolean {
  return provider().isMac16(key, message, length);
}

/**
 * HMAC-BLAKE2s of the joined parts: 32 bytes.
 *
 * @param key Any length; hashed if longer than 64 bytes.
 */
export function hmac(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
  const pad = new Uint8Array(HMAC_BLOCK_BYTES);
  pad.set(key.length > HMAC_BLOCK_BYTES ? hash(key) : key);
  for (let i = 0; i < pad.length; i++) pad[i] ^= INNER_PAD;
  const inner = hash(pad, ...parts);
  for (let i = 0; i < pad.length; i++) pad[i] ^= INNER_PAD ^ OUTER_PAD;
  const outer = hash(pad, inner);
  wipe(pad, inner);
  return outer;
}

/** The first `count` outputs of HKDF; wipes the pseudorandom key. */
function expand(
  chainingKey: Uint8Array,
  input: Uint8Array,
  count: number,
): Uint8Array[] {
  const pseudorandomKey = hmac(chainingKey, input);
  const outputs: Uint8Array[] = [];
  let previous: Uint8Array = EMPTY;
  for (let i = 1; i <= count; i++) {
    previous = hmac(pseudorandomKey, previous, new Uint8Array([i]));
    outputs.push(previous);
  }
  wipe(pseudorandomKey);
  return outputs;
}

/** KDF1: one fresh array of 32 bytes. */
export function kdf1(chainingKey: Uint8Array, input: Uint8Array): Uint8Array {
  const [first] = expand(chainingKey, input, 1);
  return first;
}

/** KDF2: two fresh arrays of 32 bytes. */
export function kdf2(
  chainingKey: Uint8Array,
  input: Uint8Array,
): [Uint8Array, Uint8Array] {
  const [first, second] = expand(chainingKey, input, 2);
  return [first, second];
}

/** KDF3: three fresh arrays of 32 bytes. */
export function kdf3(
  chainingKey: Uint8Array,
  input: Uint8Array,
): [Uint8Array, Uint8Array, Uint8Array] {
  const [first, second, third] = expand(chainingKey, input, 3);
  return [first, second, third];
}
