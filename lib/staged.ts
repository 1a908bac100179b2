/**
 * Outbound's slots and the staged queues of peers: packets that wait for a key
 * (kernel: `staged_packet_queue`). A queue is a list of slots, linked on the
 * arena; its first, last and count are in the peer's record. Outbound alone.
 *
 * @module
 */
import { type Arena, BATCH } from "./arena.ts";
import { COUNT, type Counters } from "./counters.ts";
import { MAX_STAGED_PACKETS } from "./messages.ts";
import { PEER } from "./records.ts";

/** Slots of packets on their way out. */
export class StagedQueues {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #links: number;
  readonly #lengths: number;
  readonly #counters: Counters;
  /** Free slots, as a stack. */
  readonly #free: Int32Array;
  #freeCount: number;

  constructor(arena: Arena, counters: Counters) {
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#links = arena.layout.txSlotLinks;
    this.#lengths = arena.layout.txSlotLengths;
    this.#counters = counters;
    const slots = arena.limits.txSlots;
    this.#free = Int32Array.from({ length: slots }, (_, i) => slots - i);
    this.#freeCount = slots;
  }

  /** Slots that are not free. */
  get used(): number {
    return this.#arena.limits.txSlots - this.#freeCount;
  }

  /** Slots that are free. */
  get available(): number {
    return this.#freeCount;
  }

  /** A free slot. The caller knows that there is one. */
  take(): number {
    return this.#free[--this.#freeCount];
  }

  /** Gives a slot back. */
  free(slot: number): void {
    this.#free[this.#freeCount++] = slot;
  }

  /** Gives a slot back and counts why its packet did not go out. */
  drop(slot: number, reason: number): void {
    this.#counters.add(reason);
    this.free(slot);
  }

  /** Length of the packet in a slot, as `append` was told; 0 is a keepalive. */
  lengthOf(slot: number): number {
    return this.#i32[this.#lengths + slot];
  }

  /** Packets staged for the peer. */
  count(peerWord: number): number {
    return this.#i32[peerWord + PEER.STAGED_COUNT];
  }

  /**
   * Appends a packet to the peer's queue; over the limit the oldest goes.
   *
   * @returns false when there is no slot to spare and the packet was dropped
   */
  append(slot: number, length: number, peerWord: number): boolean {
    const i32 = this.#i32;
    const count = this.count(peerWord);
    // What peers without a session stage may never starve the others.
    const scarce = this.#freeCount < BATCH;
    if (scarce && count === 0) {
      this.drop(slot, COUNT.tx_slots_exhausted);
      return false;
    }
    if (scarce || count >= MAX_STAGED_PACKETS) {
      this.drop(this.shift(peerWord), COUNT.tx_staged_dropped);
    }
    i32[this.#lengths + slot] = length;
    i32[this.#links + slot] = 0;
    const last = i32[peerWord + PEER.STAGED_LAST];
    if (last === 0) i32[peerWord + PEER.STAGED_FIRST] = slot;
    else i32[this.#links + last] = slot;
    i32[peerWord + PEER.STAGED_LAST] = slot;
    i32[peerWord + PEER.STAGED_COUNT]++;
    i32[peerWord + PEER.STAGED_SEQ]++;
    return true;
  }

  /** Takes the oldest packet of the peer's queue, which is not empty. */
  shift(peerWord: number): number {
    const i32 = this.#i32;
    const slot = i32[peerWord + PEER.STAGED_FIRST];
    const next = i32[this.#links + slot];
    i32[peerWord + PEER.STAGED_FIRST] = next;
    if (next === 0) i32[peerWord + PEER.STAGED_LAST] = 0;
    i32[peerWord + PEER.STAGED_COUNT]--;
    return slot;
  }

  /** Drops all packets of the peer's queue. */
  dropAll(peerWord: number): void {
    while (this.count(peerWord) > 0) {
      this.drop(this.shift(peerWord), COUNT.tx_staged_dropped);
    }
  }
}
