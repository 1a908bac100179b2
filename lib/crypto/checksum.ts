/**
 * Internet checksums (RFC 1071) in the arena, by the wasm kernel or, where that
 * cannot run, in JavaScript.
 *
 * @module
 */

import { instantiateKernel } from "./wasm/instance.ts";

/** What `createChecksum` may be asked for. */
export type ChecksumChoice = "auto" | "wasm" | "js";

/**
 * Sums of little-endian 16-bit words, folded to 16 bits and not complemented.
 * Stored little-endian, the complement is the checksum of the big-endian field.
 */
export interface Checksum {
  /** Name of the provider: "wasm" or "js". */
  readonly name: string;
  /**
   * Sums the bytes.
   *
   * @param ptr Byte offset of the first byte.
   * @param length Bytes; an odd last byte counts as a low byte.
   * @param initial A sum so far: any unsigned 32-bit number.
   */
  checksum(ptr: number, length: number, initial: number): number;
  /**
   * The same while copying from `src` to `dst`, which may overlap only if `dst`
   * is below `src`.
   */
  checksumCopy(
    dst: number,
    src: number,
    length: number,
    initial: number,
  ): number;
}

/** Folds a sum below 2^53 to 16 bits. */
function fold(sum: number): number {
  while (sum > 0xffff) sum = sum % 0x10000 + Math.floor(sum / 0x10000);
  return sum;
}

function createJsChecksum(memory: WebAssembly.Memory): Checksum {
  let bytes = new Uint8Array(memory.buffer);
  const checksum = (ptr: number, length: number, initial: number): number => {
    if (bytes.buffer !== memory.buffer) bytes = new Uint8Array(memory.buffer);
    const end = ptr + length;
    let sum = initial;
    for (let at = ptr; at + 1 < end; at += 2) {
      sum += bytes[at] | bytes[at + 1] << 8;
    }
    if (length % 2 !== 0) sum += bytes[end - 1];
    return fold(sum);
  };
  return {
    name: "js",
    checksum,
    checksumCopy(
      dst: number,
      src: number,
      length: number,
      initial: number,
    ): number {
      const sum = checksum(src, length, initial);
      bytes.copyWithin(dst, src, src + length);
      return sum;
    },
  };
}

/**
 * Makes the checksum functions on a memory.
 *
 * @throws {Error} If "wasm" was asked for and cannot work.
 */
export function createChecksum(
  memory: WebAssembly.Memory,
  choice: ChecksumChoice = "auto",
): Checksum {
  if (choice === "js") return createJsChecksum(memory);
  try {
    const { checksum, checksumCopy } = instantiateKernel(memory);
    return { name: "wasm", checksum, checksumCopy };
  } catch (error) {
    if (choice === "wasm") throw error;
    return createJsChecksum(memory);
  }
}
