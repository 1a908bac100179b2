/**
 * Transport keys of the peers: a pool of KEYPAIR records on the arena and the
 * three key slots of each peer. Mirrors `noise_keypairs` in the kernel's
 * `noise.c`; reference §3, "Key slots".
 *
 * Control alone calls this. The data workers read slots and records without a
 * lock: a keypair is written whole before a slot or the index table names it,
 * and after it has left both, its record lives on for a grace period and is
 * then zeroed and used again.
 *
 * @module
 */
import type { Arena, Pool } from "./arena.ts";
import type { Grace } from "./epoch.ts";
import {
  REJECT_AFTER_TIME_MS,
  REKEY_AFTER_MESSAGES_HI,
  REKEY_AFTER_TIME_MS,
} from "./messages.ts";
import type { IndexTable } from "./peerlookup.ts";
import { KEYPAIR, PEER } from "./records.ts";

/** What {@link Keypairs} works on. */
export interface KeypairsOptions {
  readonly arena: Arena;
  /** Of KEYPAIR records. */
  readonly pool: Pool;
  readonly grace: Grace;
  readonly indices: Pick<IndexTable, "removeKeypair">;
}

/** What a session begins with. */
export interface NewKeypair {
  readonly peer: number;
  /** The far side's index of this session. */
  readonly remoteIndex: number;
  /** Whether the first message of the handshake was ours. */
  readonly initiator: boolean;
  readonly sendKey: Uint8Array;
  readonly receiveKey: Uint8Array;
  /** Boot time. */
  readonly birthMs: number;
}

/** The keypairs of a device. */
export class Keypairs {
  readonly #arena: Arena;
  readonly #pool: Pool;
  readonly #grace: Grace;
  readonly #indices: Pick<IndexTable, "removeKeypair">;
  #live = 0;

  constructor({ arena, pool, grace, indices }: KeypairsOptions) {
    this.#arena = arena;
    this.#pool = pool;
    this.#grace = grace;
    this.#indices = indices;
  }

  /** Keypairs in a slot, or made and not yet inserted or discarded. */
  get live(): number {
    return this.#live;
  }

  /** Records in use: live keypairs and those that wait for the workers. */
  get used(): number {
    return this.#pool.used;
  }

  /**
   * A new keypair, finished but for its local index, which the index table
   * sets; 0 when there is no record left. `insert` or `discard` comes next. The
   * caller wipes its copies of the keys.
   */
  create(values: NewKeypair): number {
    const arena = this.#arena;
    let keypair = this.#pool.alloc();
    if (keypair === 0) {
      this.#grace.collect(Infinity);
      keypair = this.#pool.alloc();
    }
    if (keypair === 0) return 0;
    this.#live++;
    const at = arena.keypair(keypair);
    arena.u32[at + KEYPAIR.REMOTE_INDEX] = values.remoteIndex;
    arena.u32[at + KEYPAIR.PEER] = values.peer;
    arena.u32[at + KEYPAIR.INITIATOR] = values.initiator ? 1 : 0;
    arena.u32[at + KEYPAIR.SENDING_VALID] = 1;
    arena.u32[at + KEYPAIR.RECEIVING_VALID] = 1;
    arena.setF64(at + KEYPAIR.BIRTH_F64, values.birthMs);
    arena.u8.set(values.sendKey, (at + KEYPAIR.SEND_KEY) * 4);
    arena.u8.set(values.receiveKey, (at + KEYPAIR.RECEIVE_KEY) * 4);
    return keypair;
  }

  /** Takes back a keypair that no slot and no index ever named. */
  discard(keypair: number): void {
    this.#live--;
    this.#free(keypair);
  }

  /**
   * Puts a finished keypair into its peer's slots, the kernel's
   * `add_new_keypair`. The initiator may send with it at once; the responder
   * only once the initiator has shown by using it that it has it, so there it
   * waits in `next` and the current one goes on sending.
   */
  insert(keypair: number): void {
    const arena = this.#arena;
    const at = arena.keypair(keypair);
    const peer = arena.u32[at + KEYPAIR.PEER];
    const slots = arena.peer(peer);
    // Inbound may have confirmed it, and its word be on the way.
    const waiting = this.#slot(slots, PEER.NEXT);
    const word = arena.keypair(waiting) + KEYPAIR.CONFIRMED;
    if (waiting !== 0 && Atomics.load(arena.i32, word) !== 0) {
      this.promoteNext(peer, waiting);
    }
    const previous = this.#slot(slots, PEER.PREVIOUS);
    const next = this.#slot(slots, PEER.NEXT);
    const current = this.#slot(slots, PEER.CURRENT);
    if (arena.u32[at + KEYPAIR.INITIATOR] !== 0) {
      if (next !== 0) {
        // Both sides made a session at once: `next`, which the far side may be
        // sending with already, is worth more than the current one.
        this.#setSlot(slots, PEER.NEXT, 0);
        this.#setSlot(slots, PEER.PREVIOUS, next);
        this.#setSlot(slots, PEER.CURRENT, keypair);
        this.#drop(current);
      } else {
        this.#setSlot(slots, PEER.PREVIOUS, current);
        this.#setSlot(slots, PEER.CURRENT, keypair);
      }
      this.#drop(previous);
    } else {
      this.#setSlot(slots, PEER.NEXT, keypair);
      this.#drop(next);
      this.#setSlot(slots, PEER.PREVIOUS, 0);
      this.#drop(previous);
    }
  }

  /**
   * Key confirmation, the kernel's `wg_noise_received_with_keypair`: called after
   * an authentic data message came in on `keypair`, whose number the caller holds
   * within a grace period.
   *
   * @returns whether it was the peer's next keypair and now is the current one
   */
  promoteNext(peer: number, keypair: number): boolean {
    const slots = this.#arena.peer(peer);
    if (keypair === 0 || this.#slot(slots, PEER.NEXT) !== keypair) return false;
    const previous = this.#slot(slots, PEER.PREVIOUS);
    this.#setSlot(slots, PEER.PREVIOUS, this.#slot(slots, PEER.CURRENT));
    this.#drop(previous);
    this.#setSlot(slots, PEER.CURRENT, keypair);
    this.#setSlot(slots, PEER.NEXT, 0);
    return true;
  }

  /** Whether the current keypair may seal and need not be renewed yet. */
  hasFresh(peer: number, nowMs: number): boolean {
    const { i32, u32 } = this.#arena;
    const current = i32[this.#arena.peer(peer) + PEER.CURRENT];
    if (current === 0) return false;
    const at = this.#arena.keypair(current);
    const ageMs = nowMs - this.#arena.getF64(at + KEYPAIR.BIRTH_F64);
    const limitMs = i32[at + KEYPAIR.INITIATOR] !== 0
      ? REKEY_AFTER_TIME_MS
      : REJECT_AFTER_TIME_MS;
    return i32[at + KEYPAIR.SENDING_VALID] !== 0 && ageMs < limitMs &&
      u32[at + KEYPAIR.SEND_COUNTER_HI] < REKEY_AFTER_MESSAGES_HI;
  }

  /**
   * Stops sending with what the peer has; called when the private key changed.
   * What the far side still sends can be received until the keys are too old.
   */
  expireCurrent(peer: number): void {
    const arena = this.#arena;
    const slots = arena.peer(peer);
    for (const slot of [PEER.NEXT, PEER.CURRENT]) {
      const keypair = this.#slot(slots, slot);
      if (keypair === 0) continue;
      const word = arena.keypair(keypair) + KEYPAIR.SENDING_VALID;
      Atomics.store(arena.i32, word, 0);
    }
  }

  /** Empties the peer's slots: interface down, peer removed, keys too old. */
  removeAll(peer: number): void {
    const slots = this.#arena.peer(peer);
    // `next` first, so that nothing can be promoted out of it any more.
    for (const slot of [PEER.NEXT, PEER.PREVIOUS, PEER.CURRENT]) {
      const keypair = this.#slot(slots, slot);
      this.#setSlot(slots, slot, 0);
      this.#drop(keypair);
    }
  }

  /** Unlinks a keypair that is in no slot any more, and retires its record. */
  #drop(keypair: number): void {
    if (keypair === 0) return;
    this.#live--;
    this.#indices.removeKeypair(keypair);
    this.#grace.retire(this.#free, keypair);
  }

  readonly #free = (keypair: number): void => {
    this.#arena.zero(this.#arena.keypair(keypair), KEYPAIR.WORDS);
    this.#pool.free(keypair);
  };

  #slot(slots: number, slot: number): number {
    return this.#arena.u32[slots + slot];
  }

  #setSlot(slots: number, slot: number, keypair: number): void {
    Atomics.store(this.#arena.i32, slots + slot, keypair);
  }
}
