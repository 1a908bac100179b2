/**
 * Who asks again: sources of handshake messages without a cookie that come back
 * when an initiator would, after REKEY_TIMEOUT. In a flood from more sources
 * than can be answered they are answered first, since forged sources do not come
 * back, unless the attacker repeats each in time. Control only; pure.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { REKEY_TIMEOUT_MS } from "./messages.ts";
import { ENDPOINT } from "./records.ts";
import { SipHash } from "./siphash.ts";

/**
 * Sources that are remembered: in a flood of 50,000 a second, four in five are
 * still there after REKEY_TIMEOUT. Two bytes each.
 */
const SOURCES = 2 ** 20;
/** Address and port: they begin the block, as in `sockaddr_in6`. */
const SOURCE_BYTES = 24;

/** An entry: six bits of time, ten bits of the source's hash. */
const TICK_MS = 500;
const TICKS = 64;
const TAG_BITS = 10;
const TAG_MASK = 2 ** TAG_BITS - 1;

/** A little early, for what the network and the ticks do to it. */
const AGAIN_MIN_TICKS = REKEY_TIMEOUT_MS / TICK_MS - 1;
/** Twice, and its jitter: one repetition may be lost. */
const AGAIN_MAX_TICKS = 2 * REKEY_TIMEOUT_MS / TICK_MS + 2;

/** Sources that were not answered. */
export class Askers {
  readonly #arena: Arena;
  readonly #hash: SipHash;
  #entries: Uint16Array | undefined;

  /** @param key 16 random bytes, this device's own */
  constructor(arena: Arena, key: Uint8Array) {
    this.#arena = arena;
    this.#hash = new SipHash(key);
  }

  /**
   * Notes that a source asks.
   *
   * @param endpointWord ENDPOINT block of the message
   * @param nowMs boot time; never goes back
   * @returns whether it does so again: once each REKEY_TIMEOUT at most
   */
  asksAgain(endpointWord: number, nowMs: number): boolean {
    const entries = this.#entries ??= new Uint16Array(SOURCES);
    const from = (endpointWord + ENDPOINT.SOCKADDR) * 4;
    const at = this.#hash.hash(this.#arena.u8, from, SOURCE_BYTES) &
      (SOURCES - 1);
    // Zero is no entry: the tag says so.
    const tag = (this.#hash.high & TAG_MASK) || 1;
    const tick = Math.floor(nowMs / TICK_MS) % TICKS;
    const entry = entries[at];
    if ((entry & TAG_MASK) === tag) {
      const age = (tick - (entry >>> TAG_BITS) + TICKS) % TICKS;
      if (age < AGAIN_MIN_TICKS) return false;
      entries[at] = tick << TAG_BITS | tag;
      return age <= AGAIN_MAX_TICKS;
    }
    entries[at] = tick << TAG_BITS | tag;
    return false;
  }

  /** Gives the memory back: nobody was left without an answer lately. */
  forget(): void {
    this.#entries = undefined;
  }
}
