/**
 * Compiles the wasm kernels once in a thread and instantiates them on a given
 * memory.
 *
 * @module
 */

import { KERNEL_BASE64 } from "./kernel.ts";

/**
 * What the kernel module exports (see assembly/kernel.ts, checksum.ts and
 * blake2s.ts). Numbers are unsigned 32-bit byte offsets and counts; results are
 * below 2^31.
 */
export interface KernelExports {
  /** Seals `n` packets with the scratch area at `work`. */
  seal(work: number, desc: number, n: number): void;
  /** Opens `n` packets with the scratch area at `work`. */
  open(work: number, desc: number, n: number): void;
  /** Folded one's-complement sum. */
  checksum(ptr: number, length: number, initial: number): number;
  /** The same while copying. */
  checksumCopy(
    dst: number,
    src: number,
    length: number,
    initial: number,
  ): number;
  /** Hashes the padded message at `ptr` into the 32 bytes at `out`. */
  blake2s(
    out: number,
    sigma: number,
    ptr: number,
    length: number,
    parameters: number,
  ): void;
}

let compiled: WebAssembly.Module | undefined;

/**
 * Instantiates the kernels on `memory`.
 *
 * @throws {Error} If this engine has no wasm SIMD or threads, or the memory is
 * not shared.
 */
export function instantiateKernel(memory: WebAssembly.Memory): KernelExports {
  try {
    compiled ??= new WebAssembly.Module(Uint8Array.fromBase64(KERNEL_BASE64));
    const instance = new WebAssembly.Instance(compiled, { env: { memory } });
    return instance.exports as unknown as KernelExports;
  } catch (error) {
    if (!(memory.buffer instanceof SharedArrayBuffer)) {
      throw new Error("Cannot use the wasm kernel: the memory is not shared");
    }
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`Cannot use the wasm kernel: ${reason}`);
  }
}
