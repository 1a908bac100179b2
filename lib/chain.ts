/**
 * A chain of packets to seal in one call and to send in as few messages as can
 * be: those that lie next to each other and go to one peer become one message
 * with UDP_SEGMENT. Outbound alone; nothing here allocates.
 *
 * @module
 */
import { noteDataSent, noteSent } from "./activity.ts";
import { type Arena, BATCH, CHAIN_MAX } from "./arena.ts";
import { COUNT, type Counters } from "./counters.ts";
import {
  type Aead,
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_KEY,
  AEAD_LENGTH,
  AEAD_RECEIVER,
  AEAD_USER,
} from "./crypto/aead.ts";
import { clearSource, readEndpoint } from "./endpoint.ts";
import type { DatagramSender } from "./io.ts";
import { DATA, DATA_OVERHEAD, paddedLength } from "./messages.ts";
import { KEYPAIR, PEER } from "./records.ts";

/** Most datagrams and bytes of one message with UDP_SEGMENT (Linux: 64, 65,507). */
const GROUP_MAX = 64;
const GROUP_BYTES_MAX = 65_507;

/** What a chain works with. */
export interface ChainParts {
  readonly arena: Arena;
  readonly sender: DatagramSender;
  readonly aead: Aead;
  /** Byte offset of CHAIN_MAX descriptors for `aead`. */
  readonly descriptors: number;
}

/** What a chain tells of. */
export interface ChainHooks {
  /** The packet of this slot is sent, or given up. */
  sent(slot: number): void;
  /** A timer of the peer was armed that control does not watch. */
  armed(peer: number): void;
  /** The keypair sealed packets of the peer. */
  used(peer: number, keypair: number): void;
}

/** Packets on their last steps out. */
export class Chain {
  readonly #arena: Arena;
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #parts: ChainParts;
  readonly #counters: Counters;
  readonly #hooks: ChainHooks;
  /** Slot (0: none), peer and keypair of each packet. */
  readonly #slots = new Int32Array(CHAIN_MAX);
  readonly #peers = new Int32Array(CHAIN_MAX);
  readonly #keypairs = new Int32Array(CHAIN_MAX);
  #count = 0;
  /** Peer and bytes of each message given to the sender; whether it has data. */
  readonly #messagePeers = new Int32Array(BATCH);
  readonly #messageBytes = new Int32Array(BATCH);
  readonly #messageData = new Uint8Array(BATCH);
  #nowMs = 0;

  constructor(parts: ChainParts, counters: Counters, hooks: ChainHooks) {
    this.#arena = parts.arena;
    this.#u32 = parts.arena.u32;
    this.#u8 = parts.arena.u8;
    this.#parts = parts;
    this.#counters = counters;
    this.#hooks = hooks;
  }

  /** Called first in each batch. */
  start(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  /** Packets that wait to be sealed. */
  get count(): number {
    return this.#count;
  }

  /**
   * Gives the packet at `data` its nonce and a place in the chain. A full chain
   * is sent at once.
   *
   * @param slot given to `sent` once the packet is, 0: none
   * @returns its length with padding
   */
  add(
    data: number,
    length: number,
    slot: number,
    peer: number,
    keypair: number,
    mtu: number,
  ): number {
    const u32 = this.#u32;
    const padded = paddedLength(length, mtu);
    if (padded > length) this.#u8.fill(0, data + length, data + padded);
    const at = this.#arena.keypair(keypair);
    const d = this.#descriptor(this.#count);
    const lo = u32[at + KEYPAIR.SEND_COUNTER_LO];
    const hi = u32[at + KEYPAIR.SEND_COUNTER_HI];
    u32[at + KEYPAIR.SEND_COUNTER_LO] = lo + 1;
    if (lo === 0xffff_ffff) u32[at + KEYPAIR.SEND_COUNTER_HI] = hi + 1;
    u32[d + AEAD_DATA] = data;
    u32[d + AEAD_LENGTH] = padded;
    u32[d + AEAD_KEY] = (at + KEYPAIR.SEND_KEY) * 4;
    u32[d + AEAD_RECEIVER] = u32[at + KEYPAIR.REMOTE_INDEX];
    u32[d + AEAD_COUNTER_LO] = lo;
    u32[d + AEAD_COUNTER_HI] = hi;
    u32[d + AEAD_USER] = length;
    this.#slots[this.#count] = slot;
    this.#peers[this.#count] = peer;
    this.#keypairs[this.#count] = keypair;
    if (++this.#count === CHAIN_MAX) this.flush();
    return padded;
  }

  #descriptor(i: number): number {
    return this.#parts.descriptors / 4 + i * AEAD_DESCRIPTOR_WORDS;
  }

  /** Seals the chain and sends it. */
  flush(): void {
    const n = this.#count;
    if (n === 0) return;
    this.#count = 0;
    const { aead, descriptors } = this.#parts;
    aead.seal(descriptors, n);
    for (let i = 0; i < n;) i += this.#queueGroup(i, n);
    this.#sendQueued();
    for (let i = 0; i < n; i++) {
      if (this.#slots[i] !== 0) this.#hooks.sent(this.#slots[i]);
      if (i === 0 || this.#keypairs[i] !== this.#keypairs[i - 1]) {
        this.#hooks.used(this.#peers[i], this.#keypairs[i]);
      }
    }
  }

  /**
   * Gives the sender packet `i` and those behind it that can go in the same
   * message: to the same peer, next to each other, of equal length but the last.
   *
   * @returns how many
   */
  #queueGroup(i: number, n: number): number {
    const { sender } = this.#parts;
    const u32 = this.#u32;
    const peer = this.#peers[i];
    const peerWord = this.#arena.peer(peer);
    const d = this.#descriptor(i);
    const start = u32[d + AEAD_DATA] - DATA.end;
    const size = u32[d + AEAD_LENGTH] + DATA_OVERHEAD;
    let bytes = size;
    let data = u32[d + AEAD_USER];
    let count = 1;
    if (sender.segments) {
      for (let last = size; last === size && count < GROUP_MAX; count++) {
        if (i + count === n || this.#peers[i + count] !== peer) break;
        const next = this.#descriptor(i + count);
        last = u32[next + AEAD_LENGTH] + DATA_OVERHEAD;
        if (u32[next + AEAD_DATA] - DATA.end !== start + bytes) break;
        if (last > size || bytes + last > GROUP_BYTES_MAX) break;
        bytes += last;
        data |= u32[next + AEAD_USER];
      }
    }
    if (!readEndpoint(this.#arena, peerWord, sender.endpointWord)) {
      this.#counters.add(COUNT.tx_no_endpoint, count);
      return count;
    }
    noteSent(this.#arena, peerWord, this.#nowMs);
    const m = sender.count;
    this.#messagePeers[m] = peer;
    this.#messageBytes[m] = bytes;
    this.#messageData[m] = data === 0 ? 0 : 1;
    sender.add(start, bytes, 0, count > 1 ? size : 0);
    if (sender.count === BATCH) this.#sendQueued();
    return count;
  }

  /** Sends what the sender was given. */
  #sendQueued(): void {
    const { sender } = this.#parts;
    const n = sender.count;
    if (n === 0) return;
    sender.flush();
    for (let m = 0; m < n; m++) {
      const peer = this.#messagePeers[m];
      const ok = this.account(m, peer, this.#messageBytes[m]);
      if (!ok || this.#messageData[m] === 0) continue;
      const armed = noteDataSent(
        this.#arena,
        this.#arena.peer(peer),
        this.#nowMs,
      );
      if (armed) this.#hooks.armed(peer);
    }
  }

  /** Counts message `i` of the sender's batch, `length` bytes to `peer`. */
  account(i: number, peer: number, length: number): boolean {
    const { sender } = this.#parts;
    const peerWord = this.#arena.peer(peer);
    if (sender.sourceForgotten[i] !== 0) {
      clearSource(this.#arena, peerWord);
      this.#counters.add(COUNT.tx_source_forgotten);
    }
    if (sender.errors[i] !== 0) {
      this.#counters.add(COUNT.tx_send_failed);
      return false;
    }
    const bytes = peerWord + PEER.TX_BYTES_F64;
    this.#arena.setF64(bytes, this.#arena.getF64(bytes) + length);
    return true;
  }
}
