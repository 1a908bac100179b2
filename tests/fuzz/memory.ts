/**
 * Memory for the targets that work on packets: two arenas with different bytes
 * in all places that are not the packet's. What is done to a packet is done in
 * both, at other offsets; if the results are equal, nothing outside of the
 * packet was read, and if the bytes around are as before, nothing was written.
 *
 * @module
 */
import { Arena } from "../../lib/arena.ts";
import { type Checksum, createChecksum } from "../../lib/crypto/checksum.ts";

/** Bytes of the area in which the targets work. */
export const AREA_BYTES = 1 << 20;
/** Bytes on both sides of what is used that are looked at each time. */
const MARGIN = 96;

/** An arena, a MiB of which belongs to the target. */
export class Place {
  readonly arena: Arena;
  readonly u8: Uint8Array<SharedArrayBuffer>;
  readonly checksum: Checksum;
  /** Byte offset of the area. */
  readonly start: number;
  readonly #background: number;
  #low = Infinity;
  #high = 0;

  /** @param background what bytes are that are no packet's */
  constructor(background: number, shift: number) {
    this.arena = new Arena({
      peers: 1,
      allowedIpNodes: 1 << 17,
      sessions: 1,
      txSlots: 1,
    });
    this.u8 = this.arena.u8;
    this.checksum = createChecksum(this.arena.memory);
    // Behind the area, what it is restored from: copying is quicker than `fill`.
    this.start = this.u8.length - 2 * AREA_BYTES + shift;
    this.#background = background;
    this.u8.fill(background, this.start - shift);
  }

  /** Puts bytes at an offset. */
  put(at: number, bytes: Uint8Array): void {
    this.u8.set(bytes, at);
    this.used(at, at + bytes.length);
  }

  /** Says that these bytes may be written to. */
  used(from: number, to: number): void {
    if (from < this.#low) this.#low = from;
    if (to > this.#high) this.#high = to;
  }

  /** Throws unless these bytes are as they were before. */
  untouched(from: number, to: number): void {
    const { u8 } = this;
    for (let i = from; i < to; i++) {
      if (u8[i] !== this.#background) {
        throw new Error(`byte ${i - this.start} of the area was written to`);
      }
    }
  }

  /** Looks at both sides of what was used, and makes all as it was before. */
  restore(): void {
    if (this.#high === 0) return;
    this.untouched(this.#low - MARGIN, this.#low);
    this.untouched(this.#high, this.#high + MARGIN);
    this.u8.copyWithin(
      this.#low,
      this.#low + AREA_BYTES,
      this.#high + AREA_BYTES,
    );
    this.#low = Infinity;
    this.#high = 0;
  }

  /** Throws unless the whole area is as it was at first. */
  clean(): void {
    this.untouched(this.start, this.start + AREA_BYTES);
  }
}

/** Two places that differ in all that a target must not read. */
export function twoPlaces(): [Place, Place] {
  return [new Place(0xa5, 4096), new Place(0x3c, 4096 + 129)];
}

/** Whether bytes at two places are equal. */
export function equalBytes(
  a: Uint8Array,
  aFrom: number,
  b: Uint8Array,
  bFrom: number,
  length: number,
): boolean {
  for (let i = 0; i < length; i++) {
    if (a[aFrom + i] !== b[bFrom + i]) return false;
  }
  return true;
}

/** Throws a finding. */
export function check(condition: boolean, what: string): asserts condition {
  if (!condition) throw new Error(what);
}
