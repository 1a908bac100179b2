/**
 * The outbound worker's loop body (kernel: `send.c`): packets from the interface
 * to their peers' staged queues or straight to sealing, nonces, padding, and the
 * batch to the sockets; keepalives and handshake messages that control asks for.
 * Everything that leaves by UDP leaves here, so nonces and send counters have one
 * writer. Nothing here allocates.
 *
 * @module
 */
import { noteSent } from "./activity.ts";
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
import { EpochReader } from "./epoch.ts";
import {
  IcmpLimiter,
  isRedirect,
  quotedLength,
  unreachableHeaders,
} from "./icmp.ts";
import type { TunPort } from "./io.ts";
import {
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
import { RouteQuestions } from "./routes.ts";
import {
  finishChecksum,
  GSO_NONE,
  VNET,
  VNET_HEADER,
  VNET_NEEDS_CHECKSUM,
} from "./segments.ts";
import { Sealer, type SealerParts } from "./seal.ts";
import { StagedQueues } from "./staged.ts";

const IPV4_HEADER_MIN = 20;
const IPV4_DESTINATION = 16;
const IPV6_HEADER = 40;
const IPV6_DESTINATION = 24;

/** Commands that are run before packets have their turn: below 1 ms. */
const COMMANDS_AT_ONCE = 256;

/** What the outbound loop works with. */
export interface OutboundParts extends SealerParts {
  readonly allowedIps: AllowedIpsReader;
  readonly tun: TunPort;
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
  readonly #staged: StagedQueues;
  readonly #sealer: Sealer;
  readonly #icmp = new IcmpLimiter();
  readonly #routes: RouteQuestions;
  #nowMs = 0;
  #tell = false;
  #gone = false;
  #blocked = false;

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
    this.#staged = new StagedQueues(arena, this.#counters);
    this.#routes = new RouteQuestions(arena, () => this.#tell = true);
    this.#sealer = new Sealer(parts, {
      routes: this.#routes,
      epoch: this.#epoch,
      counters: this.#counters,
      slots: this.#staged,
      armed: (peer) => this.#post(peer, EVENT_ARMED),
      used: (peer, keypair) => this.#keepKeyFresh(peer, keypair),
    });
  }

  /** Whether the interface went away under us. */
  get gone(): boolean {
    return this.#gone;
  }

  /** Whether control and the lanes left nothing to do. */
  get idle(): boolean {
    return this.#commands.empty && this.#messages.length === 0 &&
      this.#sealer.idle;
  }

  /** Whether the interface is not read before a lane has finished a chain. */
  get blocked(): boolean {
    return this.#blocked;
  }

  /** Slots that hold packets: staged, or on their way. */
  get slotsUsed(): number {
    return this.#staged.used;
  }

  /**
   * Does what there is to do, one batch at most.
   *
   * @returns whether there may be more at once
   */
  pump(nowMs: number): boolean {
    this.#nowMs = nowMs;
    this.#epoch.enter();
    this.#routes.start(nowMs);
    this.#sealer.start(nowMs);
    this.#sendMessages();
    const more = this.#runCommands();
    const packets = this.#readPackets();
    // With more to read, what is in the ring is the lanes'.
    if (packets === BATCH) this.#sealer.submit();
    else this.#sealer.finish();
    this.#epoch.leave();
    this.#i32[HEADER.OUTBOUND_SLOTS] = this.#staged.used;
    this.#i32[HEADER.OUTBOUND_CHAINS] = this.#sealer.chainsUsed;
    if (this.#tell) {
      this.#tell = false;
      this.#parts.control.wake();
    }
    return packets === BATCH || more;
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
      if (peer !== 0) this.#sealer.account(i, peer, length);
      else if (sender.errors[i] !== 0) this.#counters.add(COUNT.tx_send_failed);
      this.#messages.release();
    }
    return n;
  }

  /** @returns whether there may be more at once */
  #runCommands(): boolean {
    for (let n = 0; n < COMMANDS_AT_ONCE; n++) {
      if (!this.#sealer.makesRoom()) return false;
      const peer = this.#commands.next();
      if (peer === 0) return false;
      const bits = this.#commands.take(peer);
      if ((bits & (COMMAND_DROP_STAGED | COMMAND_REMOVE)) !== 0) {
        this.#staged.dropAll(this.#arena.peer(peer));
      }
      if ((bits & COMMAND_REMOVE) !== 0) {
        // Nothing of the peer may be left here: control frees its record. Its
        // chains hold their epoch.
        this.#sendMessages();
        this.#post(peer, EVENT_REMOVED);
        continue;
      }
      if ((bits & COMMAND_KEEPALIVE) !== 0) this.#keepalive(peer);
      if ((bits & (COMMAND_KEEPALIVE | COMMAND_FLUSH)) !== 0) {
        this.#flushStaged(peer);
      }
    }
    return true;
  }

  #readPackets(): number {
    const { tun } = this.#parts;
    this.#blocked = false;
    for (let n = 0; n < BATCH; n++) {
      if (!this.#sealer.makesRoom()) {
        this.#blocked = true;
        return n;
      }
      const slot = this.#staged.take();
      const length = tun.read(this.#arena.txPayload(slot), SLOT_PAYLOAD_MAX);
      if (length <= 0) {
        this.#staged.free(slot);
        if (length < 0) {
          this.#gone = true;
          this.#counters.add(COUNT.tx_tun_read_failed);
        }
        return n;
      }
      this.#counters.add(COUNT.tx_packets);
      this.#route(slot, length);
      this.#sealer.submitIfMuch();
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
    } else return this.#staged.drop(slot, COUNT.tx_not_ip);
    if (this.#i32[HEADER.UP] === 0) {
      return this.#staged.drop(slot, COUNT.tx_interface_down);
    }
    if (isRedirect(this.#u8, at, length)) {
      return this.#staged.drop(slot, COUNT.tx_redirect);
    }
    if (peer === 0) return this.#refuse(slot, length, COUNT.tx_no_peer);
    const peerWord = this.#arena.peer(peer);
    if (!this.#hasEndpoint(peerWord)) {
      return this.#refuse(slot, length, COUNT.tx_no_endpoint);
    }
    if (
      this.#routes.isLoop(at, length, peerWord) ||
      this.#routes.cameBack(at, length, peerWord)
    ) {
      return this.#staged.drop(slot, COUNT.tx_routing_loop);
    }
    if (!this.#finishOffload(at, length)) {
      return this.#staged.drop(slot, COUNT.tx_bad_offload);
    }
    if (this.#staged.count(peerWord) === 0) {
      const keypair = this.#usableKeypair(peerWord);
      if (keypair !== 0) {
        return this.#sealer.add(slot, length, peer, keypair);
      }
    }
    this.#stage(slot, length, peer, peerWord);
    this.#flushStaged(peer);
  }

  /** Drops a packet that has nowhere to go, and tells its sender. */
  #refuse(slot: number, length: number, reason: number): void {
    const at = this.#arena.txPayload(slot);
    this.#staged.drop(slot, reason);
    const { tun, checksum } = this.#parts;
    const headers = unreachableHeaders(this.#u8, checksum, at, length);
    if (headers === 0) return;
    if (!this.#icmp.allow(this.#nowMs)) {
      return this.#counters.add(COUNT.tx_icmp_limited);
    }
    const bytes = headers + quotedLength(headers, length);
    const ok = tun.write(at - headers, bytes) === 0;
    this.#counters.add(ok ? COUNT.tx_icmp_sent : COUNT.tx_icmp_failed);
  }

  /** Does what the interface left to its device, but for splitting. */
  #finishOffload(at: number, length: number): boolean {
    if (this.#parts.tun.offloads === undefined) return true;
    const u8 = this.#u8;
    const header = at - VNET_HEADER;
    const whole = u8[header + VNET.GSO_TYPE] !== GSO_NONE;
    const needed = (u8[header + VNET.FLAGS] & VNET_NEEDS_CHECKSUM) !== 0;
    if (whole || !needed) return true;
    return finishChecksum(this.#arena, this.#parts.checksum, at, length);
  }

  #hasEndpoint(peerWord: number): boolean {
    return (this.#i32[peerWord + PEER.ENDPOINT] & 0xffff) !== 0;
  }

  /** Lets the packet wait for a key. */
  #stage(slot: number, length: number, peer: number, peerWord: number): void {
    if (this.#staged.append(slot, length, peerWord)) return;
    // With a key the next packet needs no place among the staged ones.
    this.#askHandshake(peer, peerWord);
  }

  /** Sends or stages an empty packet, unless something is staged already. */
  #keepalive(peer: number): void {
    const peerWord = this.#arena.peer(peer);
    if (this.#staged.count(peerWord) > 0) return;
    if (this.#i32[HEADER.UP] === 0 || !this.#hasEndpoint(peerWord)) return;
    const slot = this.#staged.take();
    // Not by way of the staged queue, where slots may be scarce.
    const keypair = this.#usableKeypair(peerWord);
    if (keypair !== 0) this.#sealer.add(slot, 0, peer, keypair);
    else this.#stage(slot, 0, peer, peerWord);
  }

  /** Seals and sends what is staged, or asks for a handshake. */
  #flushStaged(peer: number): void {
    const peerWord = this.#arena.peer(peer);
    if (this.#staged.count(peerWord) === 0) return;
    if (this.#i32[HEADER.UP] === 0 || !this.#hasEndpoint(peerWord)) return;
    while (this.#staged.count(peerWord) > 0) {
      if (!this.#sealer.makesRoom()) {
        return this.#commands.post(peer, COMMAND_FLUSH);
      }
      const keypair = this.#usableKeypair(peerWord);
      if (keypair === 0) return this.#askHandshake(peer, peerWord);
      const slot = this.#staged.shift(peerWord);
      this.#sealer.add(slot, this.#staged.lengthOf(slot), peer, keypair);
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
}
