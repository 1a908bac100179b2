/**
 * BLAKE2s by the wasm kernel, on a small memory of its own: the parts of a
 * message are joined there, hashed in one call and wiped.
 *
 * @module
 */

import type { Blake2s } from "./blake2s.ts";
import { instantiateKernel } from "./wasm/instance.ts";

const BLOCK_BYTES = 64;
const DIGEST_BYTES_MAX = 32;
const KEY_BYTES_MAX = 32;
const MAC_BYTES = 16;

// Layout of the memory.
const OUT_OFFSET = 0;
const SIGMA_OFFSET = OUT_OFFSET + DIGEST_BYTES_MAX;
const MESSAGE_OFFSET = 256;
/** Longest message, key block included, that goes to the kernel. */
const MESSAGE_BYTES_MAX = 4096;

/** The message schedule, RFC 7693 §2.7, one hexadecimal digit a word. */
const SIGMA = "0123456789abcdef" +
  "ea489fd61c02b753" +
  "b8c052fdae367194" +
  "7931dcbe265a40f8" +
  "905724afe1bc683d" +
  "2c6a0b834d75fe19" +
  "c51fed4a0763928b" +
  "db7ec13950f4862a" +
  "6fe9b308c2d714a5" +
  "a2847615fb9e3cd0";

/**
 * Makes a BLAKE2s by the wasm kernel.
 *
 * @param other Takes messages too long for the kernel's memory, and keys too
 * long for BLAKE2s.
 * @throws {Error} If the kernel cannot run.
 */
export function createWasmBlake2s(other: Blake2s): Blake2s {
  const memory = new WebAssembly.Memory({
    initial: 1,
    maximum: 1,
    shared: true,
  });
  const { blake2s } = instantiateKernel(memory);
  const bytes = new Uint8Array(memory.buffer);
  for (let i = 0; i < SIGMA.length; i++) {
    bytes[SIGMA_OFFSET + i] = 4 * Number.parseInt(SIGMA[i], 16);
  }

  /** Hashes `total` bytes, key block included, and wipes them. */
  const finish = (length: number, keyBytes: number, total: number): void => {
    const parameters = length + 256 * keyBytes;
    blake2s(OUT_OFFSET, SIGMA_OFFSET, MESSAGE_OFFSET, total, parameters);
    bytes.fill(0, MESSAGE_OFFSET, MESSAGE_OFFSET + total);
  };

  const digest: Blake2s["digest"] = (key, length, parts) => {
    const keyBlock = key.length > 0 ? BLOCK_BYTES : 0;
    let total = keyBlock;
    for (const part of parts) total += part.length;
    if (total > MESSAGE_BYTES_MAX || key.length > KEY_BYTES_MAX) {
      return other.digest(key, length, parts);
    }

    bytes.set(key, MESSAGE_OFFSET);
    let at = MESSAGE_OFFSET + keyBlock;
    for (const part of parts) {
      bytes.set(part, at);
      at += part.length;
    }
    finish(length, key.length, total);
    const out = new Uint8Array(length);
    for (let i = 0; i < length; i++) out[i] = bytes[OUT_OFFSET + i];
    bytes.fill(0, OUT_OFFSET, OUT_OFFSET + DIGEST_BYTES_MAX);
    return out;
  };

  const isMac16: Blake2s["isMac16"] = (key, message, length) => {
    const total = BLOCK_BYTES + length;
    if (total > MESSAGE_BYTES_MAX || key.length > KEY_BYTES_MAX) {
      return other.isMac16(key, message, length);
    }
    for (let i = 0; i < key.length; i++) bytes[MESSAGE_OFFSET + i] = key[i];
    const to = MESSAGE_OFFSET + BLOCK_BYTES;
    for (let i = 0; i < length; i++) bytes[to + i] = message[i];
    finish(MAC_BYTES, key.length, total);
    let difference = 0;
    for (let i = 0; i < MAC_BYTES; i++) {
      difference |= bytes[OUT_OFFSET + i] ^ message[length + i];
    }
    bytes.fill(0, OUT_OFFSET, OUT_OFFSET + DIGEST_BYTES_MAX);
    return difference === 0;
  };

  return { digest, isMac16 };
}
