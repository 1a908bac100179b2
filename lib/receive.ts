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
  CHAIN_MAX,
  HANDSHAKES_RING_CAPACITY,
  HEADER,
  MESSAGE_ENTRY,
  THREAD_INBOUND,
} from "./arena.ts";
import { Coalescer } from "./coalesce.ts";
import { COUNT, Counters } from "./counters.ts";
import {
  type Aead,
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_KEY,
  AEAD_LENGTH,
  AEAD_OK,
} from "./crypto/aead.ts";
import type { Checksum } from "./crypto/checksum.ts";
import { sameEndpoint, writeEndpoint } from "./endpoint.ts";
import { EpochReader } from "./epoch.ts";
import type { DatagramReceiver, TunPort } from "./io.ts";
import {
  DATA,
  DATA_OVERHEAD,
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
  inboundEvents,
  type Mailbox,
  MessageRing,
  type Waker,
} from "./queueing.ts";
import { ENDPOINT, KEYPAIR, PEER } from "./records.ts";
import { counterValidate } from "./replay.ts";
import { SegmentWalk } from "./segments.ts";

const IPV4_HEADER_MIN = 20;
const IPV4_LENGTH = 2;
const IPV4_SOURCE = 12;
const IPV6_HEADER = 40;
const IPV6_LENGTH = 4;
const IPV6_SOURCE = 8;

/** What the inbound loop works with. */
export interface InboundParts {
  readonly arena: Arena;
  readonly allowedIps: AllowedIpsReader;
  readonly indexTable: IndexReader;
  readonly tun: TunPort;
  readonly receiver: DatagramReceiver;
  readonly aead: Aead;
  readonly checksum: Checksum;
  /** Byte offset of CHAIN_MAX descriptors for `aead`. */
  readonly descriptors: number;
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
  readonly #epoch: EpochReader;
  /** Message and keypair of each data message of the batch. */
  readonly #messages = new Int32Array(CHAIN_MAX);
  readonly #keypairs = new Int32Array(CHAIN_MAX);
  #count = 0;
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
    this.#handshakes = new MessageRing(
      arena,
      HEADER.HANDSHAKES_RING,
      arena.layout.handshakesRing,
      HANDSHAKES_RING_CAPACITY,
    );
    this.#epoch = new EpochReader(arena, HEADER.INBOUND_EPOCH);
    const { offloads, vector } = parts.tun;
    this.#coalescer = offloads?.tcp
      ? new Coalescer(arena, parts.checksum, vector, offloads.udp)
      : undefined;
  }

  /**
   * Receives and handles one batch.
   *
   * @returns whether there may be more at once
   */
  pump(nowMs: number): boolean {
    const { receiver } = this.#parts;
    this.#nowMs = nowMs;
    const received = receiver.receive();
    if (received <= 0) {
      if (received < 0) this.#counters.add(COUNT.rx_receive_failed);
      return false;
    }
    this.#epoch.enter();
    const walk = this.#walk;
    for (let i = 0; i < received; i++) {
      const length = receiver.length(i);
      // Empty or cut short: a walk would see nothing to count.
      if (length === 0) this.#sort(i, receiver.offset(i), 0);
      walk.start(receiver.offset(i), length, receiver.size(i));
      while (walk.next()) this.#sort(i, walk.offset, walk.length);
    }
    this.#open();
    if (this.#coalescer !== undefined && this.#coalescer.flush() !== 0) {
      this.#counters.add(COUNT.rx_tun_write_failed);
    }
    this.#epoch.leave();
    this.#wakeControl();
    return received > 0;
  }

  /**
   * Looks at a datagram of message `i`: data goes into the chain, a handshake to
   * control, and the rest is dropped.
   */
  #sort(i: number, at: number, length: number): void {
    this.#counters.add(COUNT.rx_packets);
    const type = length < DATA.receiver
      ? 0
      : messageType(this.#readWord(at), length);
    if (type !== MESSAGE_DATA) {
      if (type === 0) this.#counters.add(COUNT.rx_invalid_message);
      else this.#queueHandshake(i, at, length);
      return;
    }
    const index = this.#readWord(at + DATA.receiver);
    const keypair = this.#parts.indexTable.findKeypair(index);
    if (keypair === 0) return this.#counters.add(COUNT.rx_unknown_index);
    const k = this.#arena.keypair(keypair);
    if (!this.#mayReceive(k)) return this.#counters.add(COUNT.rx_key_expired);
    const u32 = this.#u32;
    const d = this.#descriptor(this.#count);
    u32[d + AEAD_DATA] = at + DATA.end;
    u32[d + AEAD_LENGTH] = length - DATA_OVERHEAD;
    u32[d + AEAD_KEY] = (k + KEYPAIR.RECEIVE_KEY) * 4;
    this.#messages[this.#count] = i;
    this.#keypairs[this.#count] = keypair;
    if (++this.#count === CHAIN_MAX) this.#open();
  }

  #descriptor(i: number): number {
    return this.#parts.descriptors / 4 + i * AEAD_DESCRIPTOR_WORDS;
  }

  /** Opens the chain and takes it in, in order. */
  #open(): void {
    const n = this.#count;
    if (n === 0) return;
    this.#count = 0;
    this.#parts.aead.open(this.#parts.descriptors, n);
    for (let j = 0; j < n; j++) this.#consume(j);
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

  /** Copies a handshake message, at most 148 bytes, to control's ring. */
  #queueHandshake(i: number, at: number, length: number): void {
    const entry = this.#handshakes.reserve();
    if (entry === 0) return this.#counters.add(COUNT.rx_handshake_queue_full);
    const from = this.#parts.receiver.endpointWordOf(i);
    for (let w = 0; w < ENDPOINT.WORDS; w++) {
      this.#i32[entry + MESSAGE_ENTRY.ENDPOINT + w] = this.#i32[from + w];
    }
    this.#i32[entry + MESSAGE_ENTRY.LENGTH] = length;
    this.#u8.copyWithin((entry + MESSAGE_ENTRY.MESSAGE) * 4, at, at + length);
    this.#handshakes.publish();
    this.#tell = true;
  }

  /** Takes in data message `j` of the batch (kernel: `wg_packet_rx_poll`). */
  #consume(j: number): void {
    const { receiver } = this.#parts;
    const u32 = this.#u32;
    const i32 = this.#i32;
    const d = this.#descriptor(j);
    if (u32[d + AEAD_OK] === 0) return this.#counters.add(COUNT.rx_auth_failed);
    const keypair = this.#keypairs[j];
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
    const from = receiver.endpointWordOf(this.#messages[j]);
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
    this.#deliver(peer, peerWord, u32[d + AEAD_DATA], length);
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

  /** Checks the inner packet and writes it to the interface. */
  #deliver(peer: number, peerWord: number, at: number, length: number): void {
    const { allowedIps, tun } = this.#parts;
    const u8 = this.#u8;
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
    const error = this.#coalescer?.add(at, inner) ?? tun.write(at, inner);
    if (error !== 0) return this.#counters.add(COUNT.rx_tun_write_failed);
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
