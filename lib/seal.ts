/**
 * From packets to datagrams (kernel: `wg_packet_create_data` and
 * `wg_packet_tx_worker`): packets get their nonces and their places in chains,
 * super-packets are split on the way, and what is sealed is sent in order.
 * Outbound alone; nothing here allocates.
 *
 * @module
 */
import { type Arena, HEADER, SLOT_BYTES, SLOT_HEADROOM } from "./arena.ts";
import { COUNT, type Counters } from "./counters.ts";
import { Crypt, type CryptParts, SEALING } from "./crypt.ts";
import {
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_KEY,
  AEAD_LENGTH,
  AEAD_RECEIVER,
  AEAD_USER,
} from "./crypto/aead.ts";
import type { Checksum } from "./crypto/checksum.ts";
import { ecnEncapsulate } from "./ecn.ts";
import type { EpochReader } from "./epoch.ts";
import type { DatagramSender, TunPort } from "./io.ts";
import {
  AUTHTAG_LEN,
  DATA,
  MESSAGE_PADDING_MULTIPLE,
  paddedLength,
} from "./messages.ts";
import { CHAIN, CHAIN_PACKETS, KEYPAIR } from "./records.ts";
import type { RouteQuestions } from "./routes.ts";
import { GSO_NONE, Splitter, VNET, VNET_HEADER } from "./segments.ts";
import type { StagedQueues } from "./staged.ts";
import { Transmit, USER_ECN_SHIFT } from "./transmit.ts";

/** Chains and slots that must be free for any packet to be taken in. */
const CHAINS_RESERVE = 16;
const SLOTS_RESERVE = 16;
/** Bytes after which what was read is sealed and sent, while it is in the cache. */
const SUBMIT_BYTES = 128 * 1024;

/**
 * Shortest packet whose route's MTU is looked at: Linux believes no path to have
 * less, and with a smaller one padding takes fragments, no more.
 */
const ROUTE_MTU_MIN = 552;

/** What a sealer works with. */
export interface SealerParts extends CryptParts {
  readonly tun: TunPort;
  readonly sender: DatagramSender;
  readonly checksum: Checksum;
}

/** What outbound shares with it, and is told. */
export interface SealerHooks {
  readonly epoch: EpochReader;
  readonly counters: Counters;
  readonly slots: StagedQueues;
  readonly routes: RouteQuestions;
  /** A timer of the peer was armed that control does not watch. */
  armed(peer: number): void;
  /** The keypair sealed packets of the peer. */
  used(peer: number, keypair: number): void;
}

/** Packets on their way out. */
export class Sealer {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #tun: TunPort;
  readonly #hooks: SealerHooks;
  readonly #counters: Counters;
  readonly #staged: StagedQueues;
  readonly #crypt: Crypt;
  readonly #transmit: Transmit;
  readonly #splitter: Splitter;
  #mtu = 0;

  constructor(parts: SealerParts, hooks: SealerHooks) {
    const { arena } = parts;
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#u32 = arena.u32;
    this.#u8 = arena.u8;
    this.#tun = parts.tun;
    this.#hooks = hooks;
    this.#counters = hooks.counters;
    this.#staged = hooks.slots;
    this.#splitter = new Splitter(arena, parts.checksum);
    this.#crypt = new Crypt(parts, SEALING, hooks.epoch, hooks.counters);
    this.#transmit = new Transmit(arena, parts.sender, hooks.counters, {
      sent: (chain) => this.#sent(chain),
      armed: (peer) => hooks.armed(peer),
    });
  }

  /** Chains that are filled, sealed or sent. */
  get chainsUsed(): number {
    return this.#crypt.used;
  }

  /** Whether there is nothing to send that a lane has sealed. */
  get idle(): boolean {
    return this.#crypt.idle;
  }

  /** Called first in each batch: sends what lanes have sealed. */
  start(nowMs: number): void {
    this.#mtu = this.#i32[HEADER.MTU];
    this.#transmit.start(nowMs);
    this.#deliver();
  }

  /** Hands what was added to the lanes, and sends what is sealed. */
  submit(): void {
    this.#crypt.submit();
    this.#deliver();
  }

  /** The same once there is much of it. */
  submitIfMuch(): void {
    if (this.#crypt.openBytes >= SUBMIT_BYTES) this.submit();
  }

  /** Seals and sends all that no lane is at. */
  finish(): void {
    this.#crypt.submit();
    while (this.#crypt.help());
    this.#deliver();
  }

  /** Counts message `i` that was sent past the chains. See lib/transmit. */
  account(i: number, peer: number, length: number): boolean {
    return this.#transmit.account(i, peer, length);
  }

  /** Whether there is room for any packet; makes it, if lanes do not hold it. */
  makesRoom(): boolean {
    if (this.#hasRoom()) return true;
    this.finish();
    return this.#hasRoom();
  }

  #hasRoom(): boolean {
    return this.#crypt.room >= CHAIN_PACKETS &&
      this.#crypt.free >= CHAINS_RESERVE &&
      this.#staged.available >= SLOTS_RESERVE;
  }

  /** Sends what is sealed, in order. */
  #deliver(): void {
    for (let chain; (chain = this.#crypt.next()) !== 0;) {
      this.#transmit.add(chain);
    }
    this.#transmit.flush();
    for (let chain; (chain = this.#crypt.nextRefused()) !== 0;) {
      this.#sent(chain);
    }
  }

  /** Gives back a chain that was sent or dropped, and its slots. */
  #sent(chain: number): void {
    const i32 = this.#i32;
    const at = this.#arena.chain(chain);
    const count = i32[at + CHAIN.COUNT];
    for (let n = 0; n < count; n++) {
      const slot = i32[at + CHAIN.SLOTS + n];
      if (slot !== 0) this.#staged.free(slot);
    }
    this.#hooks.used(i32[at + CHAIN.PEER], i32[at + CHAIN.KEYPAIR]);
    this.#crypt.release(chain);
  }

  /** Puts the slot's packet, or its segments, into the peer's chain. */
  add(slot: number, length: number, peer: number, keypair: number): void {
    const at = this.#arena.txPayload(slot);
    if (length !== 0 && this.#isSuperPacket(at)) {
      return this.#addSegments(slot, length, peer, keypair);
    }
    const chain = this.#chainFor(peer, keypair);
    if (chain === 0) return this.#staged.drop(slot, COUNT.tx_queue_full);
    this.#append(chain, slot, at, length);
  }

  /** Splits a super-packet into slots of the chains that its segments go into. */
  #addSegments(
    slot: number,
    length: number,
    peer: number,
    keypair: number,
  ): void {
    const splitter = this.#splitter;
    const segments = splitter.start(this.#arena.txPayload(slot), length);
    if (segments === 0) return this.#staged.drop(slot, COUNT.tx_bad_offload);
    const longest = splitter.longest + MESSAGE_PADDING_MULTIPLE + AUTHTAG_LEN;
    let to = 0;
    let end = 0;
    for (let n = 0; n < segments; n++) {
      const chain = this.#chainFor(peer, keypair);
      if (chain === 0) {
        this.#counters.add(COUNT.tx_queue_full, segments - n);
        break;
      }
      // A slot is given back with a chain: each chain needs its own. That it is
      // a new one shows in its count; its number may be used again.
      const fresh = this.#i32[this.#arena.chain(chain) + CHAIN.COUNT] === 0;
      let out = 0;
      if (n === 0 || fresh || to + longest > end) {
        out = this.#staged.take();
        to = this.#arena.txPayload(out);
        end = to - SLOT_HEADROOM + SLOT_BYTES;
      }
      const padded = this.#append(chain, out, to, splitter.next(to));
      to += padded + AUTHTAG_LEN + DATA.end;
    }
    this.#staged.free(slot);
  }

  /** The chain that the peer's next packet goes into, or 0. */
  #chainFor(peer: number, keypair: number): number {
    if (this.#crypt.free > 0 && this.#staged.available > 0) {
      return this.#crypt.chainFor(peer, keypair);
    }
    this.finish();
    return this.#staged.available > 0 ? this.#crypt.chainFor(peer, keypair) : 0;
  }

  /** Gives the packet at `data` its nonce and a place in the chain. @returns its padded length */
  #append(chain: number, slot: number, data: number, length: number): number {
    const u32 = this.#u32;
    let padded = paddedLength(length, this.#mtu);
    if (padded > length && length >= ROUTE_MTU_MIN) {
      const mtu = this.#hooks.routes.mtu(data);
      if (padded > mtu) padded = paddedLength(length, mtu);
    }
    if (padded > length) this.#u8.fill(0, data + length, data + padded);
    const keypair = u32[this.#arena.chain(chain) + CHAIN.KEYPAIR];
    const at = this.#arena.keypair(keypair);
    const d = this.#crypt.append(chain, slot, padded);
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
    // Read now: the packet is sealed where it lies.
    const ecn = length === 0 ? 0 : ecnEncapsulate(this.#u8, data);
    u32[d + AEAD_USER] = length | (ecn << USER_ECN_SHIFT);
    return padded;
  }

  #isSuperPacket(at: number): boolean {
    return this.#tun.offloads !== undefined &&
      this.#u8[at - VNET_HEADER + VNET.GSO_TYPE] !== GSO_NONE;
  }
}
