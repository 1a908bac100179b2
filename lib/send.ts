/**
 * The outbound worker's loop body (kernel: `send.c`): packets from the interface
 * to their peers' staged queues or straight to sealing, nonces, padding, and the
 * batch to the sockets; keepalives and handshake messages that control asks for.
 * Everything that leaves by UDP leaves here, so nonces and send counters have one
 * writer. Nothing here allocates.
 *
 * @module
 */
import { noteDataSent, noteSent } from "./activity.ts";
import type { AllowedIpsReader } from "./allowedips.ts";
import {
  type Arena,
  BATCH,
  HEADER,
  MESSAGE_ENTRY,
  MESSAGES_RING_CAPACITY,
  SLOT_PAYLOAD_MAX,
  THREAD_OUTBOUND,
} from "./arena.ts";
import { COUNT, Counters } from "./counters.ts";
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
import { EpochReader } from "./epoch.ts";
import type { DatagramSender, TunPort } from "./io.ts";
import {
  DATA,
  DATA_OVERHEAD,
  MAX_STAGED_PACKETS,
  paddedLength,
  REJECT_AFTER_MESSAGES_HI,
  REJECT_AFTER_MESSAGES_LO,
  REJECT_AFTER_TIME_MS,
  REKEY_AFTER_MESSAGES_HI,
  REKEY_AFTER_TIME_MS,
} from "./messages.ts";
import {
  COMMAND_DROP_STAGED,
  COMMAND_FLUSH,
  COMMAND_KEEPALIVE,
  COMMAND_REMOVE,
  commandsMailbox,
  EVENT_ARMED,
  EVENT_HANDSHAKE_WANTED,
  EVENT_REMOVED,
  type Mailbox,
  MessageRing,
  outboundEvents,
  type Waker,
} from "./queueing.ts";
import { ENDPOINT, KEYPAIR, PEER } from "./records.ts";

const IPV4_HEADER_MIN = 20;
const IPV4_DESTINATION = 16;
const IPV6_HEADER = 40;
const IPV6_DESTINATION = 24;

/** What the outbound loop works with. */
export interface OutboundParts {
  readonly arena: Arena;
  readonly allowedIps: AllowedIpsReader;
  readonly tun: TunPort;
  readonly sender: DatagramSender;
  readonly aead: Aead;
  /** Byte offset of BATCH descriptors for `aead`. */
  readonly descriptors: number;
  readonly control: Waker;
}

/** The outbound side of one device. */
export class Outbound {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #parts: OutboundParts;
  readonly #counters: Counters;
  readonly #commands: Mailbox;
  readonly #events: Mailbox;
  readonly #messages: MessageRing;
  readonly #epoch: EpochReader;
  /** Free slots, as a stack. */
  readonly #free: Int32Array;
  #freeCount: number;
  /** The batch: slot, peer and keypair of each packet to seal. */
  readonly #slots = new Int32Array(BATCH);
  readonly #peers = new Int32Array(BATCH);
  readonly #keypairs = new Int32Array(BATCH);
  #count = 0;
  /** Index in the batch of each message given to the sender. */
  readonly #sent = new Int32Array(BATCH);
  #nowMs = 0;
  #mtu = 0;
  #tell = false;
  #gone = false;

  constructor(parts: OutboundParts) {
    const { arena } = parts;
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#u32 = arena.u32;
    this.#u8 = arena.u8;
    this.#parts = parts;
    this.#counters = new Counters(arena, THREAD_OUTBOUND);
    this.#commands = commandsMailbox(arena);
    this.#events = outboundEvents(arena);
    this.#messages = new MessageRing(
      arena,
      HEADER.MESSAGES_RING,
      arena.layout.messagesRing,
      MESSAGES_RING_CAPACITY,
    );
    this.#epoch = new EpochReader(arena, HEADER.OUTBOUND_EPOCH);
    this.#freeCount = arena.limits.txSlots;
    this.#free = Int32Array.from(
      { length: this.#freeCount },
      (_, i) => this.#freeCount - i,
    );
  }

  /** Whether the interface went away under us. */
  get gone(): boolean {
    return this.#gone;
  }

  /** Whether control left nothing to do. */
  get idle(): boolean {
    return this.#commands.empty && this.#messages.length === 0;
  }

  /** Slots that hold staged packets or the present batch. */
  get slotsUsed(): number {
    return this.#arena.limits.txSlots - this.#freeCount;
  }

  /**
   * Does what there is to do, one batch at most.
   *
   * @returns whether there may be more at once
   */
  pump(nowMs: number): boolean {
    this.#nowMs = nowMs;
    this.#mtu = this.#i32[HEADER.MTU];
    this.#epoch.enter();
    this.#sendMessages();
    this.#runCommands();
    const packets = this.#readPackets();
    this.#flush();
    this.#epoch.leave();
    if (this.#tell) {
      this.#tell = false;
      this.#parts.control.wake();
    }
    return packets === BATCH;
  }

  /** Sends all handshake messages that control made. */
  #sendMessages(): void {
    while (this.#sendMessageBatch() === BATCH);
  }

  #sendMessageBatch(): number {
    const { sender } = this.#parts;
    let n = 0;
    // Entries stay in the ring, and are looked at again, until they are sent.
    for (
      let entry;
      n < BATCH && (entry = this.#messages.peek(n)) !== 0;
      n++
    ) {
      const peer = this.#i32[entry + MESSAGE_ENTRY.PEER];
      if (peer !== 0) {
        noteSent(this.#arena, this.#arena.peer(peer), this.#nowMs);
      }
      const to = sender.endpointWord;
      for (let w = 0; w < ENDPOINT.WORDS; w++) {
        this.#i32[to + w] = this.#i32[entry + MESSAGE_ENTRY.ENDPOINT + w];
      }
      sender.add(
        (entry + MESSAGE_ENTRY.MESSAGE) * 4,
        this.#i32[entry + MESSAGE_ENTRY.LENGTH],
        this.#i32[entry + MESSAGE_ENTRY.DS],
      );
    }
    if (n === 0) return 0;
    sender.flush();
    for (let i = 0; i < n; i++) {
      const entry = this.#messages.peek();
      const peer = this.#i32[entry + MESSAGE_ENTRY.PEER];
      const length = this.#i32[entry + MESSAGE_ENTRY.LENGTH];
      if (peer !== 0) this.#accountSent(i, peer, length);
      else if (sender.errors[i] !== 0) this.#counters.add(COUNT.tx_send_failed);
      this.#messages.release();
    }
    return n;
  }

  #runCommands(): void {
    for (let peer; (peer = this.#commands.next()) !== 0;) {
      const bits = this.#commands.take(peer);
      if ((bits & (COMMAND_DROP_STAGED | COMMAND_REMOVE)) !== 0) {
        this.#dropStaged(peer);
      }
      if ((bits & COMMAND_REMOVE) !== 0) {
        // Nothing of the peer may be left here: control frees its record.
        this.#flush();
        this.#sendMessages();
        this.#post(peer, EVENT_REMOVED);
        continue;
      }
      if ((bits & COMMAND_KEEPALIVE) !== 0) this.#keepalive(peer);
      if ((bits & (COMMAND_KEEPALIVE | COMMAND_FLUSH)) !== 0) {
        this.#flushStaged(peer);
      }
    }
  }

  #readPackets(): number {
    const { tun } = this.#parts;
    for (let n = 0; n < BATCH; n++) {
      const slot = this.#takeSlot();
      const length = tun.read(this.#arena.txPayload(slot), SLOT_PAYLOAD_MAX);
      if (length <= 0) {
        this.#freeSlot(slot);
        if (length < 0) {
          this.#gone = true;
          this.#counters.add(COUNT.tx_tun_read_failed);
        }
        return n;
      }
      this.#counters.add(COUNT.tx_packets);
      this.#route(slot, length);
    }
    return BATCH;
  }

  /** Finds the packet's peer and hands it on (kernel: `wg_xmit`). */
  #route(slot: number, length: number): void {
    const at = this.#arena.txPayload(slot);
    const version = this.#u8[at] >> 4;
    const { allowedIps } = this.#parts;
    let peer: number;
    if (version === 4 && length >= IPV4_HEADER_MIN) {
      peer = allowedIps.lookup4(at + IPV4_DESTINATION);
    } else if (version === 6 && length >= IPV6_HEADER) {
      peer = allowedIps.lookup6(at + IPV6_DESTINATION);
    } else return this.#drop(slot, COUNT.tx_not_ip);
    if (peer === 0) return this.#drop(slot, COUNT.tx_no_peer);
    if (this.#i32[HEADER.UP] === 0) {
      return this.#drop(slot, COUNT.tx_interface_down);
    }
    const peerWord = this.#arena.peer(peer);
    if (!this.#hasEndpoint(peerWord)) {
      return this.#drop(slot, COUNT.tx_no_endpoint);
    }
    this.#i32[this.#arena.layout.txSlotLengths + slot] = length;
    if (this.#i32[peerWord + PEER.STAGED_COUNT] === 0) {
      const keypair = this.#usableKeypair(peerWord);
      if (keypair !== 0) return this.#add(slot, length, peer, keypair);
    }
    this.#stage(slot, peer, peerWord);
    this.#flushStaged(peer);
  }

  #drop(slot: number, reason: number): void {
    this.#counters.add(reason);
    this.#freeSlot(slot);
  }

  #hasEndpoint(peerWord: number): boolean {
    return (this.#i32[peerWord + PEER.ENDPOINT] & 0xffff) !== 0;
  }

  /** Appends the slot to the peer's staged queue; over its limit the oldest goes. */
  #stage(slot: number, peer: number, peerWord: number): void {
    const i32 = this.#i32;
    const full = i32[peerWord + PEER.STAGED_COUNT] >= MAX_STAGED_PACKETS;
    // What other peers stage may never starve those with a session.
    const scarce = this.#freeCount < BATCH;
    if (full || scarce) {
      if (i32[peerWord + PEER.STAGED_COUNT] === 0) {
        // With a key the next packet needs no place here.
        this.#askHandshake(peer, peerWord);
        return this.#drop(slot, COUNT.tx_slots_exhausted);
      }
      this.#drop(this.#unstage(peerWord), COUNT.tx_staged_dropped);
    }
    const links = this.#arena.layout.txSlotLinks;
    i32[links + slot] = 0;
    const last = i32[peerWord + PEER.STAGED_LAST];
    if (last === 0) i32[peerWord + PEER.STAGED_FIRST] = slot;
    else i32[links + last] = slot;
    i32[peerWord + PEER.STAGED_LAST] = slot;
    i32[peerWord + PEER.STAGED_COUNT]++;
    i32[peerWord + PEER.STAGED_SEQ]++;
  }

  /** Takes the oldest staged packet; there is one. */
  #unstage(peerWord: number): number {
    const i32 = this.#i32;
    const slot = i32[peerWord + PEER.STAGED_FIRST];
    const next = i32[this.#arena.layout.txSlotLinks + slot];
    i32[peerWord + PEER.STAGED_FIRST] = next;
    if (next === 0) i32[peerWord + PEER.STAGED_LAST] = 0;
    i32[peerWord + PEER.STAGED_COUNT]--;
    return slot;
  }

  #dropStaged(peer: number): void {
    const peerWord = this.#arena.peer(peer);
    while (this.#i32[peerWord + PEER.STAGED_COUNT] > 0) {
      this.#drop(this.#unstage(peerWord), COUNT.tx_staged_dropped);
    }
  }

  /** Sends or stages an empty packet, unless something is staged already. */
  #keepalive(peer: number): void {
    const peerWord = this.#arena.peer(peer);
    if (this.#i32[peerWord + PEER.STAGED_COUNT] > 0) return;
    if (this.#i32[HEADER.UP] === 0 || !this.#hasEndpoint(peerWord)) return;
    const slot = this.#takeSlot();
    this.#i32[this.#arena.layout.txSlotLengths + slot] = 0;
    // Not by way of the staged queue, where slots may be scarce.
    const keypair = this.#usableKeypair(peerWord);
    if (keypair !== 0) this.#add(slot, 0, peer, keypair);
    else this.#stage(slot, peer, peerWord);
  }

  /** Seals and sends what is staged, or asks for a handshake. */
  #flushStaged(peer: number): void {
    const peerWord = this.#arena.peer(peer);
    if (this.#i32[peerWord + PEER.STAGED_COUNT] === 0) return;
    if (this.#i32[HEADER.UP] === 0 || !this.#hasEndpoint(peerWord)) return;
    while (this.#i32[peerWord + PEER.STAGED_COUNT] > 0) {
      const keypair = this.#usableKeypair(peerWord);
      if (keypair === 0) return this.#askHandshake(peer, peerWord);
      const slot = this.#unstage(peerWord);
      this.#add(
        slot,
        this.#i32[this.#arena.layout.txSlotLengths + slot],
        peer,
        keypair,
      );
    }
  }

  /**
   * The keypair to seal with, or 0: the current one, or the next one once it is
   * confirmed. Control will promote that; but what answers the packet that
   * confirmed it may be here first, and the far side may have no older key.
   */
  #sendingKeypair(peerWord: number): number {
    const next = Atomics.load(this.#i32, peerWord + PEER.NEXT);
    if (next !== 0) {
      const word = this.#arena.keypair(next) + KEYPAIR.CONFIRMED;
      if (Atomics.load(this.#i32, word) !== 0) return next;
    }
    return Atomics.load(this.#i32, peerWord + PEER.CURRENT);
  }

  /** The keypair to seal with if it may still do so, or 0. */
  #usableKeypair(peerWord: number): number {
    const keypair = this.#sendingKeypair(peerWord);
    if (keypair === 0) return 0;
    const at = this.#arena.keypair(keypair);
    if (this.#i32[at + KEYPAIR.SENDING_VALID] === 0) return 0;
    if (
      this.#nowMs - this.#arena.getF64(at + KEYPAIR.BIRTH_F64) >=
        REJECT_AFTER_TIME_MS
    ) return 0;
    if (
      this.#u32[at + KEYPAIR.SEND_COUNTER_HI] === REJECT_AFTER_MESSAGES_HI &&
      this.#u32[at + KEYPAIR.SEND_COUNTER_LO] >= REJECT_AFTER_MESSAGES_LO
    ) return 0;
    return keypair;
  }

  #askHandshake(peer: number, peerWord: number): void {
    if (Atomics.exchange(this.#i32, peerWord + PEER.HANDSHAKE_ASKED, 1) === 0) {
      this.#post(peer, EVENT_HANDSHAKE_WANTED);
    }
  }

  /** Gives the packet its nonce and a place in the batch. */
  #add(slot: number, length: number, peer: number, keypair: number): void {
    const { descriptors } = this.#parts;
    const u32 = this.#u32;
    const data = this.#arena.txPayload(slot);
    const padded = paddedLength(length, this.#mtu);
    if (padded > length) this.#u8.fill(0, data + length, data + padded);
    const at = this.#arena.keypair(keypair);
    const d = descriptors / 4 + this.#count * AEAD_DESCRIPTOR_WORDS;
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
    if (++this.#count === BATCH) this.#flush();
  }

  /** Seals the batch and sends it. */
  #flush(): void {
    const n = this.#count;
    if (n === 0) return;
    this.#count = 0;
    const { aead, descriptors, sender } = this.#parts;
    const u32 = this.#u32;
    aead.seal(descriptors, n);
    let sent = 0;
    for (let i = 0; i < n; i++) {
      const d = descriptors / 4 + i * AEAD_DESCRIPTOR_WORDS;
      const peerWord = this.#arena.peer(this.#peers[i]);
      if (!readEndpoint(this.#arena, peerWord, sender.endpointWord)) {
        this.#counters.add(COUNT.tx_no_endpoint);
        continue;
      }
      noteSent(this.#arena, peerWord, this.#nowMs);
      sender.add(
        u32[d + AEAD_DATA] - DATA.end,
        u32[d + AEAD_LENGTH] + DATA_OVERHEAD,
        0,
      );
      this.#sent[sent++] = i;
    }
    sender.flush();
    for (let j = 0; j < sent; j++) {
      const i = this.#sent[j];
      const d = descriptors / 4 + i * AEAD_DESCRIPTOR_WORDS;
      const peer = this.#peers[i];
      const ok = this.#accountSent(
        j,
        peer,
        u32[d + AEAD_LENGTH] + DATA_OVERHEAD,
      );
      if (ok && u32[d + AEAD_USER] > 0) {
        const armed = noteDataSent(
          this.#arena,
          this.#arena.peer(peer),
          this.#nowMs,
        );
        if (armed) this.#post(peer, EVENT_ARMED);
      }
    }
    for (let i = 0; i < n; i++) {
      this.#freeSlot(this.#slots[i]);
      if (i === 0 || this.#keypairs[i] !== this.#keypairs[i - 1]) {
        this.#keepKeyFresh(this.#peers[i], this.#keypairs[i]);
      }
    }
  }

  /** Counts message `i` of the sender's batch, `length` bytes to `peer`. */
  #accountSent(i: number, peer: number, length: number): boolean {
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

  /** Rekeys before the key grows too old (kernel: `keep_key_fresh` of send.c). */
  #keepKeyFresh(peer: number, keypair: number): void {
    const at = this.#arena.keypair(keypair);
    const old = this.#i32[at + KEYPAIR.INITIATOR] !== 0 &&
      this.#nowMs - this.#arena.getF64(at + KEYPAIR.BIRTH_F64) >=
        REKEY_AFTER_TIME_MS;
    const used =
      this.#u32[at + KEYPAIR.SEND_COUNTER_HI] > REKEY_AFTER_MESSAGES_HI ||
      (this.#u32[at + KEYPAIR.SEND_COUNTER_HI] === REKEY_AFTER_MESSAGES_HI &&
        this.#u32[at + KEYPAIR.SEND_COUNTER_LO] > 0);
    if (old || used) this.#askHandshake(peer, this.#arena.peer(peer));
  }

  #post(peer: number, bits: number): void {
    this.#events.post(peer, bits);
    this.#tell = true;
  }

  /** A free slot. Staging leaves a batch's worth of them, so there always is one. */
  #takeSlot(): number {
    return this.#free[--this.#freeCount];
  }

  #freeSlot(slot: number): void {
    this.#free[this.#freeCount++] = slot;
  }
}
