/**
 * The inbound worker's loop body (kernel: `receive.c`): datagrams from the
 * sockets; handshake messages to control's ring; data messages opened, checked
 * against replay in order, roamed, and their packets written to the interface.
 * Nothing here allocates.
 *
 * @module
 */
import { noteDataReceived, noteReceived } from "./activity.ts";
import type { AllowedIpsReader } from "./allowedips.ts";
import {
  type Arena,
  CHAINS,
  HEADER,
  MESSAGE_ENTRY,
  RX_SLOTS,
  THREAD_INBOUND,
} from "./arena.ts";
import { Coalescer } from "./coalesce.ts";
import { COUNT, Counters } from "./counters.ts";
import { Crypt, type CryptParts, OPENING } from "./crypt.ts";
import {
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_DONE,
  AEAD_KEY,
  AEAD_LENGTH,
  AEAD_OK,
  AEAD_PENDING,
  AEAD_USER,
} from "./crypto/aead.ts";
import type { Checksum } from "./crypto/checksum.ts";
import { ecnDecapsulate } from "./ecn.ts";
import { sameEndpoint, writeEndpoint } from "./endpoint.ts";
import { EpochReader } from "./epoch.ts";
import type { DatagramReceiver, TunPort } from "./io.ts";
import {
  COOKIE_REPLY,
  DATA,
  DATA_OVERHEAD,
  MAC_LEN,
  MESSAGE_DATA,
  messageType,
  REJECT_AFTER_MESSAGES_HI,
  REJECT_AFTER_MESSAGES_LO,
  REJECT_AFTER_TIME_MS,
  REKEY_ON_RECEIVE_MS,
} from "./messages.ts";
import type { IndexReader } from "./peerlookup.ts";
import {
  EVENT_ARMED,
  EVENT_HANDSHAKE_WANTED,
  EVENT_KEY_CONFIRMED,
  handshakeRings,
  inboundEvents,
  type Mailbox,
  type MessageRing,
  type Waker,
} from "./queueing.ts";
import { CHAIN, CHAIN_PACKETS, ENDPOINT, KEYPAIR, PEER } from "./records.ts";
import { counterValidate } from "./replay.ts";
import { SegmentWalk } from "./segments.ts";

const IPV4_HEADER_MIN = 20;
const IPV4_LENGTH = 2;
const IPV4_SOURCE = 12;
const IPV6_HEADER = 40;
const IPV6_LENGTH = 4;
const IPV6_SOURCE = 8;

/** Messages received at once: each may be many datagrams. */
const RECEIVE_MAX = 16;
/** Chains that must be free for a batch of messages to be received. */
const CHAINS_RESERVE = 2 * RECEIVE_MAX;
/** Bytes after which what was received is opened, while it is in the cache. */
const SUBMIT_BYTES = 128 * 1024;

/** What the inbound loop works with. */
export interface InboundParts extends CryptParts {
  readonly allowedIps: AllowedIpsReader;
  readonly indexTable: IndexReader;
  readonly tun: TunPort;
  readonly receiver: DatagramReceiver;
  readonly checksum: Checksum;
  readonly control: Waker;
}

/** The inbound side of one device. */
export class Inbound {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #parts: InboundParts;
  readonly #counters: Counters;
  readonly #events: Mailbox;
  readonly #handshakes: MessageRing;
  readonly #cookieHolders: MessageRing;
  readonly #epoch: EpochReader;
  readonly #crypt: Crypt;
  /** Slots that the next messages go to. */
  readonly #places = new Int32Array(RECEIVE_MAX);
  /** Free slots, as a stack. */
  readonly #free = new Int32Array(RX_SLOTS);
  #freeCount = 0;
  /** Packets of each slot that are in chains. */
  readonly #uses = new Int32Array(RX_SLOTS + 1);
  /** Chains delivered, and to be given back once the interface has it all. */
  readonly #delivered = new Int32Array(CHAINS);
  #deliveredCount = 0;
  #blocked = false;
  readonly #walk = new SegmentWalk();
  /** Merges what the interface takes whole; undefined where it does not. */
  readonly #coalescer: Coalescer | undefined;
  #nowMs = 0;
  #tell = false;

  constructor(parts: InboundParts) {
    const { arena } = parts;
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#u32 = arena.u32;
    this.#u8 = arena.u8;
    this.#parts = parts;
    this.#counters = new Counters(arena, THREAD_INBOUND);
    this.#events = inboundEvents(arena);
    [this.#handshakes, this.#cookieHolders] = handshakeRings(arena);
    this.#epoch = new EpochReader(arena, HEADER.INBOUND_EPOCH);
    this.#crypt = new Crypt(parts, OPENING, this.#epoch, this.#counters);
    for (let slot = RX_SLOTS; slot > 0; slot--) {
      this.#free[this.#freeCount++] = slot;
    }
    for (let i = 0; i < RECEIVE_MAX; i++) {
      this.#places[i] = this.#free[--this.#freeCount];
    }
    const { offloads, vector } = parts.tun;
    this.#coalescer = offloads?.tcp
      ? new Coalescer(arena, parts.checksum, vector, offloads.udp)
      : undefined;
  }

  /** Whether the lanes left nothing to do. */
  get idle(): boolean {
    return this.#crypt.idle;
  }

  /** Whether the sockets are not read before a lane has finished a chain. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Slots whose packets are not delivered. */
  get slotsUsed(): number {
    return RX_SLOTS - RECEIVE_MAX - this.#freeCount;
  }

  /**
   * Receives and handles one batch.
   *
   * @returns whether there may be more at once
   */
  pump(nowMs: number): boolean {
    this.#nowMs = nowMs;
    this.#epoch.enter();
    this.#deliver();
    this.#blocked = !this.#makesRoom();
    const received = this.#blocked ? 0 : this.#receive();
    // With more to receive, what is in the ring is the lanes'.
    if (received === RECEIVE_MAX) {
      this.#crypt.submit();
      this.#deliver();
    } else this.#finish();
    this.#epoch.leave();
    this.#i32[HEADER.INBOUND_SLOTS] = this.slotsUsed;
    this.#i32[HEADER.INBOUND_CHAINS] = this.#crypt.used;
    this.#wakeControl();
    return received > 0;
  }

  /** Receives messages, and puts what they hold into chains. @returns how many */
  #receive(): number {
    const { receiver } = this.#parts;
    const room = Math.floor(this.#crypt.room / CHAIN_PACKETS);
    const count = Math.min(RECEIVE_MAX, room);
    const received = receiver.receive(this.#places, count);
    if (received < 0) this.#counters.add(COUNT.rx_receive_failed);
    const walk = this.#walk;
    for (let i = 0; i < received; i++) {
      const slot = this.#places[i];
      const at = this.#arena.rxPayload(slot);
      const length = receiver.length(i);
      // Empty or cut short: a walk would see nothing to count.
      const ds = receiver.ds(i);
      if (length === 0) this.#sort(slot, at, 0, ds);
      // Until the walk is over, the slot is not given back.
      this.#uses[slot] = 1;
      walk.start(at, length, receiver.size(i));
      while (walk.next()) this.#sort(slot, walk.offset, walk.length, ds);
      this.#uses[slot]--;
      if (this.#uses[slot] > 0) this.#places[i] = this.#free[--this.#freeCount];
      if (this.#crypt.openBytes >= SUBMIT_BYTES) {
        this.#crypt.submit();
        this.#deliver();
      }
    }
    return received;
  }

  /** Whether there is room for a batch; makes it, if lanes do not hold it. */
  #makesRoom(): boolean {
    if (this.#hasRoom()) return true;
    this.#finish();
    return this.#hasRoom();
  }

  #hasRoom(): boolean {
    return this.#crypt.room >= CHAIN_PACKETS &&
      this.#crypt.free >= CHAINS_RESERVE &&
      this.#freeCount >= RECEIVE_MAX;
  }

  /** Opens and delivers all that no lane is at. */
  #finish(): void {
    this.#crypt.submit();
    while (this.#crypt.help());
    this.#deliver();
  }

  /** Takes in what is opened, in order, and gives back what it lay in. */
  #deliver(): void {
    const i32 = this.#i32;
    for (let chain; (chain = this.#crypt.next()) !== 0;) {
      const at = this.#arena.chain(chain);
      const count = i32[at + CHAIN.COUNT];
      for (let n = 0; n < count; n++) this.#consume(at, n);
      this.#delivered[this.#deliveredCount++] = chain;
    }
    if (this.#deliveredCount > 0) this.#flush();
    for (let chain; (chain = this.#crypt.nextRefused()) !== 0;) {
      this.#release(chain);
    }
  }

  /** Lets the interface have all, and gives the delivered chains back. */
  #flush(): void {
    const lost = this.#coalescer?.flush() ?? 0;
    if (lost > 0) this.#counters.add(COUNT.rx_tun_write_failed, lost);
    for (let i = 0; i < this.#deliveredCount; i++) {
      this.#release(this.#delivered[i]);
    }
    this.#deliveredCount = 0;
  }

  #release(chain: number): void {
    const i32 = this.#i32;
    const at = this.#arena.chain(chain);
    const count = i32[at + CHAIN.COUNT];
    for (let n = 0; n < count; n++) {
      const slot = i32[at + CHAIN.SLOTS + n];
      if (--this.#uses[slot] === 0) this.#free[this.#freeCount++] = slot;
    }
    this.#crypt.release(chain);
  }

  /**
   * Looks at a datagram in a slot: data goes into the peer's chain, a handshake
   * to control, and the rest is dropped.
   */
  #sort(slot: number, at: number, length: number, ds: number): void {
    this.#counters.add(COUNT.rx_packets);
    const type = length < DATA.receiver
      ? 0
      : messageType(this.#readWord(at), length);
    if (type !== MESSAGE_DATA) {
      if (type === 0) this.#counters.add(COUNT.rx_invalid_message);
      else this.#queueHandshake(slot, at, length);
      return;
    }
    const index = this.#readWord(at + DATA.receiver);
    const keypair = this.#parts.indexTable.findKeypair(index);
    if (keypair === 0) return this.#counters.add(COUNT.rx_unknown_index);
    const k = this.#arena.keypair(keypair);
    if (!this.#mayReceive(k)) return this.#counters.add(COUNT.rx_key_expired);
    const u32 = this.#u32;
    const chain = this.#crypt.chainFor(u32[k + KEYPAIR.PEER], keypair);
    if (chain === 0) return this.#counters.add(COUNT.rx_queue_full);
    const d = this.#crypt.append(chain, slot, length);
    this.#uses[slot]++;
    u32[d + AEAD_DATA] = at + DATA.end;
    u32[d + AEAD_LENGTH] = length - DATA_OVERHEAD;
    u32[d + AEAD_KEY] = (k + KEYPAIR.RECEIVE_KEY) * 4;
    u32[d + AEAD_USER] = ds;
  }

  /** Little-endian word at any byte offset. */
  #readWord(at: number): number {
    const u8 = this.#u8;
    return (u8[at] | (u8[at + 1] << 8) | (u8[at + 2] << 16) |
      (u8[at + 3] << 24)) >>> 0;
  }

  #mayReceive(k: number): boolean {
    if (this.#i32[k + KEYPAIR.RECEIVING_VALID] === 0) return false;
    const ageMs = this.#nowMs - this.#arena.getF64(k + KEYPAIR.BIRTH_F64);
    if (ageMs >= REJECT_AFTER_TIME_MS) return false;
    return this.#u32[k + KEYPAIR.RECEIVE_COUNTER_HI] <
        REJECT_AFTER_MESSAGES_HI ||
      this.#u32[k + KEYPAIR.RECEIVE_COUNTER_LO] < REJECT_AFTER_MESSAGES_LO;
  }

  /** Copies a handshake message, at most 148 bytes, to a ring of control's. */
  #queueHandshake(slot: number, at: number, length: number): void {
    const ring = length === COOKIE_REPLY.end || this.#hasMac2(at, length)
      ? this.#cookieHolders
      : this.#handshakes;
    const entry = ring.reserve();
    if (entry === 0) return this.#counters.add(COUNT.rx_handshake_queue_full);
    const from = this.#arena.rxEndpoint(slot);
    for (let w = 0; w < ENDPOINT.WORDS; w++) {
      this.#i32[entry + MESSAGE_ENTRY.ENDPOINT + w] = this.#i32[from + w];
    }
    this.#i32[entry + MESSAGE_ENTRY.LENGTH] = length;
    this.#u8.copyWithin((entry + MESSAGE_ENTRY.MESSAGE) * 4, at, at + length);
    ring.publish();
    this.#tell = true;
  }

  /** Whether an initiation or response has anything where its mac2 goes. */
  #hasMac2(at: number, length: number): boolean {
    const u8 = this.#u8;
    const end = at + length;
    for (let i = end - MAC_LEN; i < end; i++) if (u8[i] !== 0) return true;
    return false;
  }

  /** Takes in packet `n` of a chain (kernel: `wg_packet_rx_poll`). */
  #consume(chainWord: number, n: number): void {
    const u32 = this.#u32;
    const i32 = this.#i32;
    const d = chainWord + CHAIN.DESCRIPTORS + n * AEAD_DESCRIPTOR_WORDS;
    if (u32[d + AEAD_OK] !== AEAD_DONE) {
      const lost = u32[d + AEAD_OK] === AEAD_PENDING;
      const reason = lost ? COUNT.rx_lane_failed : COUNT.rx_auth_failed;
      return this.#counters.add(reason);
    }
    const keypair = i32[chainWord + CHAIN.KEYPAIR];
    const k = this.#arena.keypair(keypair);
    if (
      !counterValidate(
        this.#arena,
        k,
        u32[d + AEAD_COUNTER_LO],
        u32[d + AEAD_COUNTER_HI],
      )
    ) {
      return this.#counters.add(COUNT.rx_replayed);
    }
    const peer = i32[k + KEYPAIR.PEER];
    const peerWord = this.#arena.peer(peer);
    const from = this.#arena.rxEndpoint(i32[chainWord + CHAIN.SLOTS + n]);
    if (!sameEndpoint(this.#arena, peerWord, from)) {
      writeEndpoint(this.#arena, peerWord, from);
    }
    if (
      Atomics.load(i32, peerWord + PEER.NEXT) === keypair &&
      i32[k + KEYPAIR.CONFIRMED] === 0
    ) {
      // Told before the packet is delivered: the answer to it must find the key.
      Atomics.store(i32, k + KEYPAIR.CONFIRMED, 1);
      this.#post(peer, EVENT_KEY_CONFIRMED);
      this.#wakeControl();
    }
    this.#keepKeyFresh(peer, peerWord, k);
    noteReceived(this.#arena, peerWord, this.#nowMs);
    const length = u32[d + AEAD_LENGTH];
    if (length === 0) return this.#accountReceived(peerWord, DATA_OVERHEAD);
    if (noteDataReceived(this.#arena, peerWord, this.#nowMs)) {
      this.#post(peer, EVENT_ARMED);
    }
    this.#toInterface(peer, peerWord, d, length);
  }

  /** Rekeys late in a session's life if we started it (kernel: receive.c). */
  #keepKeyFresh(peer: number, peerWord: number, k: number): void {
    const i32 = this.#i32;
    if (
      i32[k + KEYPAIR.INITIATOR] === 0 ||
      i32[k + KEYPAIR.REKEY_ASKED_BY_RECEIVE] !== 0
    ) return;
    const ageMs = this.#nowMs - this.#arena.getF64(k + KEYPAIR.BIRTH_F64);
    if (ageMs < REKEY_ON_RECEIVE_MS) return;
    i32[k + KEYPAIR.REKEY_ASKED_BY_RECEIVE] = 1;
    if (Atomics.exchange(i32, peerWord + PEER.HANDSHAKE_ASKED, 1) === 0) {
      this.#post(peer, EVENT_HANDSHAKE_WANTED);
    }
  }

  /** Checks the inner packet of descriptor `d` and writes it to the interface. */
  #toInterface(
    peer: number,
    peerWord: number,
    d: number,
    length: number,
  ): void {
    const { allowedIps, tun } = this.#parts;
    const u8 = this.#u8;
    const at = this.#u32[d + AEAD_DATA];
    const version = u8[at] >> 4;
    let inner: number;
    let owner: number;
    if (version === 4 && length >= IPV4_HEADER_MIN) {
      inner = (u8[at + IPV4_LENGTH] << 8) | u8[at + IPV4_LENGTH + 1];
      if (inner < IPV4_HEADER_MIN) {
        return this.#counters.add(COUNT.rx_bad_length);
      }
      owner = allowedIps.lookup4(at + IPV4_SOURCE);
    } else if (version === 6 && length >= IPV6_HEADER) {
      inner = ((u8[at + IPV6_LENGTH] << 8) | u8[at + IPV6_LENGTH + 1]) +
        IPV6_HEADER;
      owner = allowedIps.lookup6(at + IPV6_SOURCE);
    } else return this.#counters.add(COUNT.rx_not_ip);
    if (inner > length) return this.#counters.add(COUNT.rx_bad_length);
    if (owner !== peer) return this.#counters.add(COUNT.rx_wrong_source);
    const ds = this.#u32[d + AEAD_USER];
    if (ds !== 0 && !ecnDecapsulate(u8, at, ds)) {
      this.#counters.add(COUNT.rx_ecn_mismatch);
    }
    if (this.#coalescer !== undefined) {
      // What is lost may be packets that came before this one.
      const lost = this.#coalescer.add(at, inner);
      if (lost > 0) this.#counters.add(COUNT.rx_tun_write_failed, lost);
    } else if (tun.write(at, inner) !== 0) {
      return this.#counters.add(COUNT.rx_tun_write_failed);
    }
    this.#accountReceived(peerWord, length + DATA_OVERHEAD);
  }

  #accountReceived(peerWord: number, bytes: number): void {
    const word = peerWord + PEER.RX_BYTES_F64;
    this.#arena.setF64(word, this.#arena.getF64(word) + bytes);
  }

  #post(peer: number, bits: number): void {
    this.#events.post(peer, bits);
    this.#tell = true;
  }

  #wakeControl(): void {
    if (!this.#tell) return;
    this.#tell = false;
    this.#parts.control.wake();
  }
}
