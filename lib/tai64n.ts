/**
 * TAI64N timestamps of handshake initiations: the kernel's `tai64n_now` in
 * `noise.c`, reference §3. They need only grow, so the base is the kernel's
 * fixed 2^62 + 10 and leap seconds are left out; what lies below 16.8 ms is cut
 * off, so that a message does not tell how precise the clock is.
 *
 * @module
 */
import { INITIATIONS_PER_SECOND, TIMESTAMP_LEN } from "./messages.ts";

/** Timestamps over the end of a daemon; see lib/timestamp_store. */
export interface TimestampFloor {
  /** Ms since the epoch: no timestamp before it. */
  readonly floorMs: number;
  /** Called with the time of each timestamp. */
  used(ms: number): void;
}

const BASE = 0x4000_0000_0000_000an;
const NANOS_PER_SECOND = 1_000_000_000;
const NANOS_PER_MS = 1_000_000;
const SECONDS_LEN = 8;

/**
 * Granularity in nanoseconds: the largest power of two that still lets
 * {@link INITIATIONS_PER_SECOND} timestamps a second differ. 2^24.
 */
export const TIMESTAMP_GRANULARITY_NS = 2 **
  Math.floor(Math.log2(NANOS_PER_SECOND / INITIATIONS_PER_SECOND));

/** A time since the epoch of Unix; `nanos` is below 10^9. */
export interface Timespec {
  readonly seconds: number;
  readonly nanos: number;
}

/**
 * The timestamp of a wall clock time, whitepaper 5.4.2.
 *
 * @param wall milliseconds since the epoch, fractions allowed, or a Timespec
 */
export function stamp(wall: number | Timespec): Uint8Array<ArrayBuffer> {
  const { seconds, nanos } = typeof wall === "number" ? timespec(wall) : wall;
  const timestamp = new Uint8Array(TIMESTAMP_LEN);
  const view = new DataView(timestamp.buffer);
  view.setBigUint64(0, BASE + BigInt(seconds));
  view.setUint32(SECONDS_LEN, nanos - nanos % TIMESTAMP_GRANULARITY_NS);
  return timestamp;
}

/**
 * The time to stamp: the wall clock, but never slower than boot time. A peer
 * refuses a timestamp that is not greater than the last, so a clock that is set
 * back, or that a machine without a battery lost, must not show in them.
 */
export class Timestamps {
  #lastMs: number;
  #lastBootMs = Infinity;

  /** @param floorMs no timestamp before it */
  constructor(floorMs = -Infinity) {
    this.#lastMs = floorMs;
  }

  /** Time for a timestamp, in ms since the epoch, at a wall clock and boot time. */
  at(wallMs: number, bootMs: number): number {
    const passedMs = Math.max(0, bootMs - this.#lastBootMs);
    this.#lastMs = Math.max(wallMs, this.#lastMs + passedMs);
    this.#lastBootMs = bootMs;
    return this.#lastMs;
  }
}

/** Negative, zero or positive as `a` is before, at or after `b`: bytewise, as the kernel. */
export function compare(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < TIMESTAMP_LEN; i++) {
    if (a[i] !== b[i]) return a[i] - b[i];
  }
  return 0;
}

function timespec(wallMs: number): Timespec {
  const seconds = Math.floor(wallMs / 1000);
  return {
    seconds,
    nanos: Math.floor((wallMs - seconds * 1000) * NANOS_PER_MS),
  };
}
