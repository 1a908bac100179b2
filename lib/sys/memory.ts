/**
 * The arena as system calls see it: its address, pointers into it, and iovec,
 * msghdr and cmsg structures that live in it (Linux, 64-bit, little-endian).
 * Addresses are stored as two 32-bit words, so that no BigInt is made for a
 * packet.
 *
 * @module
 */
import type { Arena } from "../arena.ts";

/** Sizes in bytes: `struct iovec`, `struct mmsghdr`, `struct cmsghdr`. */
export const IOVEC_BYTES = 16;
export const MMSGHDR_BYTES = 64;
export const CMSGHDR_BYTES = 16;

/** Words of `struct mmsghdr`. */
export const MMSGHDR = {
  NAME: 0,
  NAME_LENGTH: 2,
  IOV: 4,
  IOV_LENGTH: 6,
  CONTROL: 8,
  CONTROL_LENGTH: 10,
  FLAGS: 12,
  MESSAGE_LENGTH: 14,
} as const;

/** Bytes that a control message with `dataBytes` of data takes. */
export function cmsgSpace(dataBytes: number): number {
  return CMSGHDR_BYTES + Math.ceil(dataBytes / 8) * 8;
}

/** The arena's place in this process. */
export class ArenaMemory {
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #base: bigint;
  readonly #low: number;
  readonly #high: number;

  constructor(arena: Arena) {
    this.#u32 = arena.u32;
    const start = Deno.UnsafePointer.of(
      arena.u8 as unknown as Uint8Array<ArrayBuffer>,
    );
    this.#base = BigInt(Deno.UnsafePointer.value(start));
    this.#low = Number(this.#base & 0xffff_ffffn);
    this.#high = Number(this.#base >> 32n);
  }

  /** Pointer to byte `offset`. Allocates: keep it. */
  pointer(offset: number): Deno.PointerValue {
    return Deno.UnsafePointer.create(this.#base + BigInt(offset));
  }

  /** Address of `bytes` bytes from byte `offset` on. */
  range(offset: number, bytes: number): { address: bigint; bytes: number } {
    return { address: this.#base + BigInt(offset), bytes };
  }

  /** Stores the address of byte `offset` in the two words at `word`. */
  setAddress(word: number, offset: number): void {
    const low = this.#low + offset;
    this.#u32[word] = low;
    this.#u32[word + 1] = this.#high + (low > 0xffff_ffff ? 1 : 0);
  }

  /** Writes an iovec at word `word`: `length` bytes at byte `offset`. */
  setIovec(word: number, offset: number, length: number): void {
    this.setAddress(word, offset);
    this.#u32[word + 2] = length;
    this.#u32[word + 3] = 0;
  }

  /** Byte offset that the address at word `word` is of. */
  offsetOf(word: number): number {
    return (this.#u32[word] - this.#low) >>> 0;
  }

  /** Writes the header of a control message at word `word`. */
  setCmsg(word: number, level: number, type: number, dataBytes: number): void {
    const u32 = this.#u32;
    u32[word] = CMSGHDR_BYTES + dataBytes;
    u32[word + 1] = 0;
    u32[word + 2] = level;
    u32[word + 3] = type;
  }
}
