/**
 * The AEAD by the wasm SIMD kernel: one wasm call for a chain, nothing
 * allocated. Each call wipes its scratch area (keys and keystream) before it
 * returns; what V8 keeps in registers and on the machine stack is out of reach.
 *
 * @module
 */

import { AEAD_WORK_BYTES } from "./aead_layout.ts";
import type { Aead } from "./aead_layout.ts";
import { instantiateKernel } from "./wasm/instance.ts";

/**
 * Makes an AEAD by the wasm kernel.
 *
 * @param memory A shared memory; it may be used by other instances too.
 * @param workOffset Byte offset of AEAD_WORK_BYTES of scratch for this instance
 * alone; a multiple of 16 is fastest.
 * @throws {Error} If wasm SIMD is missing, the memory is not shared, or the
 * scratch area lies outside it.
 */
export function createWasmAead(
  memory: WebAssembly.Memory,
  workOffset: number,
): Aead {
  const { seal, open } = instantiateKernel(memory);
  const workEnd = workOffset + AEAD_WORK_BYTES;
  if (
    !Number.isInteger(workOffset) || workOffset < 0 ||
    workEnd > memory.buffer.byteLength
  ) {
    throw new RangeError(
      `Cannot use the AEAD scratch area: ${workOffset} to ${workEnd} is outside of the memory`,
    );
  }
  return {
    name: "wasm",
    seal(desc: number, n: number): void {
      seal(workOffset, desc, n);
    },
    open(desc: number, n: number): void {
      open(workOffset, desc, n);
    },
  };
}
