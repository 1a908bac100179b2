/**
 * The last step out: chains that are sealed become as few messages as can be.
 * Packets of one chain go to one peer, so those of equal length, and a shorter
 * last one, are one message with UDP_SEGMENT, wherever they lie. Outbound alone;
 * nothing here allocates.
 *
 * @module
 */
import { noteDataSent, noteSent } from "./activity.ts";
import { type Arena, BATCH, CHAINS } from "./arena.ts";
import { COUNT, type Counters } from "./counters.ts";
import {
  AEAD_DATA,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_DONE,
  AEAD_LENGTH,
  AEAD_OK,
  AEAD_USER,
} from "./crypto/aead.ts";
import { clearSource, readEndpoint } from "./endpoint.ts";
import type { DatagramSender } from "./io.ts";
import { DATA, DATA_OVERHEAD } from "./messages.ts";
import { CHAIN, PEER } from "./records.ts";

/** Most datagrams and bytes of one message with UDP_SEGMENT (Linux: 64, 65,507). */
const GROUP_MAX = 64;
const GROUP_BYTES_MAX = 65_507;
/**
 * AEAD_USER of a packet's descriptor: bytes before padding, and the ECN of its
 * datagram from this bit on.
 */
export const USER_ECN_SHIFT = 24;

/** What is told of chains on their way out. */
export interface TransmitHooks {
  /** The chain is sent, or given up. */
  sent(chain: number): void;
  /** A timer of the peer was armed that control does not watch. */
  armed(peer: number): void;
}

/** Sends chains. */
export class Transmit {
  readonly #arena: Arena;
  readonly #u32: Uint32Array<SharedArrayBuffer>;
  readonly #sender: DatagramSender;
  readonly #counters: Counters;
  readonly #hooks: TransmitHooks;
  /** Chains whose packets the sender was given. */
  readonly #chains = new Int32Array(CHAINS);
  #chainCount = 0;
  /** Peer and bytes of each message given to the sender; whether it has data. */
  readonly #peers = new Int32Array(BATCH);
  readonly #bytes = new Int32Array(BATCH);
  readonly #data = new Uint8Array(BATCH);
  #nowMs = 0;

  constructor(
    arena: Arena,
    sender: DatagramSender,
    counters: Counters,
    hooks: TransmitHooks,
  ) {
    this.#arena = arena;
    this.#u32 = arena.u32;
    this.#sender = sender;
    this.#counters = counters;
    this.#hooks = hooks;
  }

  /** Called first in each batch. */
  start(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  /** Gives the sender the packets of a sealed chain. `flush` sends them. */
  add(chain: number): void {
    const at = this.#arena.chain(chain);
    const n = this.#u32[at + CHAIN.COUNT];
    for (let i = 0; i < n;) i += this.#addGroup(at, i, n);
    this.#chains[this.#chainCount++] = chain;
  }

  /** Sends what was added. */
  flush(): void {
    this.#send();
    const n = this.#chainCount;
    this.#chainCount = 0;
    for (let i = 0; i < n; i++) this.#hooks.sent(this.#chains[i]);
  }

  #descriptor(at: number, i: number): number {
    return at + CHAIN.DESCRIPTORS + i * AEAD_DESCRIPTOR_WORDS;
  }

  /** Gives the sender packet `i` and those that can go with it. @returns how many */
  #addGroup(at: number, i: number, n: number): number {
    const sender = this.#sender;
    const u32 = this.#u32;
    const first = this.#descriptor(at, i);
    if (u32[first + AEAD_OK] !== AEAD_DONE) {
      this.#counters.add(COUNT.tx_lane_failed);
      return 1;
    }
    const peer = u32[at + CHAIN.PEER];
    const peerWord = this.#arena.peer(peer);
    if (sender.full) this.#send();
    if (!readEndpoint(this.#arena, peerWord, sender.endpointWord)) {
      this.#counters.add(COUNT.tx_no_endpoint, n - i);
      return n - i;
    }
    const size = u32[first + AEAD_LENGTH] + DATA_OVERHEAD;
    const m = sender.count;
    // An empty packet has no ECN: whether there is data shows in the whole word.
    let data = u32[first + AEAD_USER];
    const ecn = data >>> USER_ECN_SHIFT;
    sender.add(u32[first + AEAD_DATA] - DATA.end, size, ecn);
    let bytes = size;
    let count = 1;
    if (sender.segments) {
      for (let last = size; last === size && i + count < n; count++) {
        const d = this.#descriptor(at, i + count);
        last = u32[d + AEAD_LENGTH] + DATA_OVERHEAD;
        if (
          count === GROUP_MAX || last > size ||
          bytes + last > GROUP_BYTES_MAX ||
          u32[d + AEAD_OK] !== AEAD_DONE ||
          u32[d + AEAD_USER] >>> USER_ECN_SHIFT !== ecn
        ) break;
        sender.append(u32[d + AEAD_DATA] - DATA.end, last);
        bytes += last;
        data |= u32[d + AEAD_USER];
      }
      if (count > 1) sender.setSize(size);
    }
    noteSent(this.#arena, peerWord, this.#nowMs);
    this.#peers[m] = peer;
    this.#bytes[m] = bytes;
    this.#data[m] = data === 0 ? 0 : 1;
    return count;
  }

  /** Sends what the sender was given. */
  #send(): void {
    const sender = this.#sender;
    const n = sender.count;
    if (n === 0) return;
    sender.flush();
    for (let m = 0; m < n; m++) {
      const peer = this.#peers[m];
      const ok = this.account(m, peer, this.#bytes[m]);
      if (!ok || this.#data[m] === 0) continue;
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
    const sender = this.#sender;
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
