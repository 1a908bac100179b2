/**
 * Chains between their making and their delivery (kernel: `queueing.c`, the
 * per-device crypt queues and per-peer queues of `send.c` and `receive.c`).
 *
 * A worker fills chains, one a peer at a time, and submits them: each goes on its
 * peer's queue and, if it is worth it, on the direction's ring, from which any
 * lane takes it. Whoever seals or opens a chain puts it on the direction's list
 * of those that are done; the worker takes them from there, and delivers a peer's
 * chains in the order of its queue, as far as they are done. What is left in the
 * ring the worker does itself when it has nothing better to do, so lanes only
 * ever help.
 *
 * @module
 */
import { type Arena, CHAINS, CRYPT_RING_PACKETS, HEADER } from "./arena.ts";
import { COUNT, type Counters } from "./counters.ts";
import {
  type Aead,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_OK,
  AEAD_PENDING,
} from "./crypto/aead.ts";
import type { EpochReader } from "./epoch.ts";
import { LANES_MAX, MAX_QUEUED_PACKETS } from "./messages.ts";
import { MpscQueues, QUEUE_SPREAD } from "./queueing.ts";
import { CHAIN, CHAIN_PACKETS, PEER, PEER_CRYPT } from "./records.ts";

/** Work that is not worth the waking of a lane: about 10 µs of it. */
const LANE_BYTES_MIN = 8_192;

const RING_HEAD = 0;
const RING_TAIL = 16;
const RING_PACKETS = 32;

/** Where a direction's chains, queues and counters are. */
export interface Direction {
  /** The chains are this one and those behind it. */
  readonly firstChain: number;
  /** Field of PEER: its queue. */
  readonly queue: number;
  /** HEADER.…_RING, and which of the rings. */
  readonly ring: number;
  readonly ringNumber: number;
  /** HEADER.…_DONE. */
  readonly done: number;
  /** Counter of packets that the peer's full queue refused. */
  readonly refused: number;
}

/** Outbound's. */
export const SEALING: Direction = {
  firstChain: 1,
  queue: PEER.TX_CRYPT,
  ring: HEADER.OUTBOUND_RING,
  ringNumber: 0,
  done: HEADER.OUTBOUND_DONE,
  refused: COUNT.tx_queue_full,
};
/** Inbound's. */
export const OPENING: Direction = {
  firstChain: 1 + CHAINS,
  queue: PEER.RX_CRYPT,
  ring: HEADER.INBOUND_RING,
  ringNumber: 1,
  done: HEADER.INBOUND_DONE,
  refused: COUNT.rx_queue_full,
};

/** The direction that a chain belongs to. */
export function directionOf(chain: number): Direction {
  return chain <= CHAINS ? SEALING : OPENING;
}

/** Lists of chains that are done. */
export function doneQueues(arena: Arena): MpscQueues {
  return new MpscQueues(
    arena.i32,
    arena.chain(0) + CHAIN.DONE_LINK,
    CHAIN.WORDS,
    QUEUE_SPREAD,
  );
}

/** Seals or opens what a chain holds, according to its direction. */
export function workOn(arena: Arena, aead: Aead, chain: number): void {
  const at = arena.chain(chain);
  const descriptors = (at + CHAIN.DESCRIPTORS) * 4;
  const count = arena.i32[at + CHAIN.COUNT];
  if (directionOf(chain) === SEALING) aead.seal(descriptors, count);
  else aead.open(descriptors, count);
}

/**
 * Ring of chains: one worker puts in, the lanes and that worker take out. It has
 * room for all chains; what bounds it is the number of packets.
 */
export class CryptRing {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #at: number;
  readonly #entries: number;
  readonly #chains: number;

  constructor(arena: Arena, { ring, ringNumber }: Direction) {
    this.#i32 = arena.i32;
    this.#at = ring;
    this.#entries = arena.layout.rings + ringNumber * CHAINS;
    this.#chains = arena.chain(0);
  }

  /** Whether nothing waits. */
  get empty(): boolean {
    const i32 = this.#i32;
    return Atomics.load(i32, this.#at + RING_HEAD) ===
      Atomics.load(i32, this.#at + RING_TAIL);
  }

  /** Puts a chain in, unless too many packets wait. The producer alone. */
  push(chain: number): boolean {
    const i32 = this.#i32;
    const packets = i32[this.#chains + chain * CHAIN.WORDS + CHAIN.COUNT];
    const before = Atomics.add(i32, this.#at + RING_PACKETS, packets);
    if (before + packets > CRYPT_RING_PACKETS) {
      Atomics.sub(i32, this.#at + RING_PACKETS, packets);
      return false;
    }
    const head = i32[this.#at + RING_HEAD];
    i32[this.#entries + (head & (CHAINS - 1))] = chain;
    Atomics.store(i32, this.#at + RING_HEAD, (head + 1) | 0);
    return true;
  }

  /** Takes a chain out, or 0. Any thread. */
  take(): number {
    const i32 = this.#i32;
    for (;;) {
      const tail = Atomics.load(i32, this.#at + RING_TAIL);
      if (tail === Atomics.load(i32, this.#at + RING_HEAD)) return 0;
      // Another may take it meanwhile, and the entry be used again: then the
      // tail has moved on, and what was read is not used.
      const chain = Atomics.load(i32, this.#entries + (tail & (CHAINS - 1)));
      const found = Atomics.compareExchange(
        i32,
        this.#at + RING_TAIL,
        tail,
        (tail + 1) | 0,
      );
      if (found !== tail) continue;
      const count = this.#chains + chain * CHAIN.WORDS + CHAIN.COUNT;
      Atomics.sub(i32, this.#at + RING_PACKETS, i32[count]);
      return chain;
    }
  }
}

/** Wakes lanes: one a batch; a lane that finds more to do wakes the next. */
export class LaneWaker {
  readonly #i32: Int32Array<SharedArrayBuffer>;

  /** @param lanes how many there are */
  constructor(arena: Arena, readonly lanes: number) {
    this.#i32 = arena.i32;
  }

  /** Called after a chain was put into a ring. */
  wake(): void {
    if (Atomics.load(this.#i32, HEADER.LANES_ASLEEP) === 0) return;
    Atomics.add(this.#i32, HEADER.LANES_WAKE, 1);
    Atomics.notify(this.#i32, HEADER.LANES_WAKE, 1);
  }
}

/** What a worker's chains are handled with. */
export interface CryptParts {
  readonly arena: Arena;
  readonly aead: Aead;
  readonly lanes: LaneWaker;
}

/** One direction's chains, the worker's side. */
export class Crypt {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #direction: Direction;
  readonly #aead: Aead;
  readonly #lanes: LaneWaker;
  readonly #epoch: EpochReader;
  readonly #counters: Counters;
  readonly #ring: CryptRing;
  readonly #queues: MpscQueues;
  readonly #doneQueues: MpscQueues;
  /** Free chains, as a stack. */
  readonly #free = new Int32Array(CHAINS);
  #freeCount = CHAINS;
  /** Chains that are being filled or were not submitted yet, in order. */
  readonly #open = new Int32Array(CHAINS);
  #openCount = 0;
  #openBytes = 0;
  /** Packets of all chains that are not free. */
  #packets = 0;
  /** Chains that the peer's queue refused. */
  readonly #refused = new Int32Array(CHAINS);
  #refusedCount = 0;
  /** Peer (its word) whose queue is being delivered, 0: none. */
  #delivering = 0;

  constructor(
    { arena, aead, lanes }: CryptParts,
    direction: Direction,
    epoch: EpochReader,
    counters: Counters,
  ) {
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#direction = direction;
    this.#aead = aead;
    this.#lanes = lanes;
    this.#epoch = epoch;
    this.#counters = counters;
    this.#ring = new CryptRing(arena, direction);
    this.#doneQueues = doneQueues(arena);
    this.#queues = new MpscQueues(
      arena.i32,
      arena.chain(0) + CHAIN.QUEUE_LINK,
      CHAIN.WORDS,
      1,
    );
    for (let i = 0; i < CHAINS; i++) {
      this.#free[i] = direction.firstChain + CHAINS - 1 - i;
    }
  }

  /** Chains that are free. */
  get free(): number {
    return this.#freeCount;
  }

  /** Chains that are not. */
  get used(): number {
    return CHAINS - this.#freeCount;
  }

  /**
   * Packets that may be added before lanes must finish some: no peer's queue
   * then refuses any, though a lane may be slow.
   */
  get room(): number {
    return MAX_QUEUED_PACKETS - this.#packets;
  }

  /** Bytes that wait to be submitted. */
  get openBytes(): number {
    return this.#openBytes;
  }

  /** Whether no lane has finished a chain that is not delivered. */
  get idle(): boolean {
    return this.#doneQueues.empty(this.#direction.done);
  }

  /** The peer's chain with room for a packet of `keypair`, or 0. */
  chainFor(peer: number, keypair: number): number {
    const i32 = this.#i32;
    const open = this.#arena.peer(peer) + this.#direction.queue +
      PEER_CRYPT.OPEN;
    const present = i32[open];
    if (present !== 0) {
      const at = this.#arena.chain(present);
      if (
        i32[at + CHAIN.KEYPAIR] === keypair &&
        i32[at + CHAIN.COUNT] < CHAIN_PACKETS
      ) return present;
    }
    if (this.#freeCount === 0) return 0;
    const chain = this.#free[--this.#freeCount];
    const at = this.#arena.chain(chain);
    i32[at + CHAIN.PEER] = peer;
    i32[at + CHAIN.KEYPAIR] = keypair;
    i32[at + CHAIN.COUNT] = 0;
    i32[at + CHAIN.DONE] = 0;
    i32[at + CHAIN.STAMP] = this.#epoch.hold();
    i32[open] = chain;
    this.#open[this.#openCount++] = chain;
    return chain;
  }

  /**
   * Adds a packet of `bytes` to a chain that has room.
   *
   * @param slot that belongs to the packet, 0: none
   * @returns the word of its descriptor, for the caller to fill
   */
  append(chain: number, slot: number, bytes: number): number {
    const i32 = this.#i32;
    const at = this.#arena.chain(chain);
    const n = i32[at + CHAIN.COUNT]++;
    i32[at + CHAIN.SLOTS + n] = slot;
    this.#openBytes += bytes;
    this.#packets++;
    const descriptor = at + CHAIN.DESCRIPTORS + n * AEAD_DESCRIPTOR_WORDS;
    i32[descriptor + AEAD_OK] = AEAD_PENDING;
    return descriptor;
  }

  /** Hands all open chains on: to the lanes, or does them at once. */
  submit(): void {
    const n = this.#openCount;
    if (n === 0) return;
    const share = this.#lanes.lanes > 0 &&
      (this.#openBytes >= LANE_BYTES_MIN || !this.#ring.empty);
    this.#openCount = 0;
    this.#openBytes = 0;
    let shared = false;
    for (let i = 0; i < n; i++) {
      const chain = this.#open[i];
      if (!this.#enqueue(chain)) continue;
      if (!share) this.#work(chain);
      else {
        shared = true;
        while (!this.#ring.push(chain)) this.help();
      }
    }
    if (shared) this.#lanes.wake();
  }

  /** Puts a chain on its peer's queue, if there is room for its packets. */
  #enqueue(chain: number): boolean {
    const i32 = this.#i32;
    const at = this.#arena.chain(chain);
    const peerWord = this.#arena.peer(i32[at + CHAIN.PEER]);
    const queue = peerWord + this.#direction.queue;
    const count = i32[at + CHAIN.COUNT];
    i32[queue + PEER_CRYPT.OPEN] = 0;
    // One addition a chain bounds the queue: who went too far takes it back.
    const before = Atomics.add(i32, queue + PEER_CRYPT.PACKETS, count);
    if (before + count > MAX_QUEUED_PACKETS) {
      Atomics.sub(i32, queue + PEER_CRYPT.PACKETS, count);
      this.#counters.add(this.#direction.refused, count);
      this.#refused[this.#refusedCount++] = chain;
      return false;
    }
    this.#queues.push(queue + PEER_CRYPT.QUEUE, chain);
    return true;
  }

  #work(chain: number): void {
    workOn(this.#arena, this.#aead, chain);
    this.#doneQueues.push(this.#direction.done, chain);
  }

  /** Does one chain of the ring. @returns whether there was one */
  help(): boolean {
    if (this.#lanes.lanes === 0) return false;
    const chain = this.#ring.take();
    if (chain !== 0) this.#work(chain);
    return chain !== 0;
  }

  /** The next chain to deliver, or 0. `release` it when it is delivered. */
  next(): number {
    const i32 = this.#i32;
    for (;;) {
      if (this.#delivering === 0) {
        const done = this.#doneQueues.pop(this.#direction.done);
        if (done === 0) return 0;
        const at = this.#arena.chain(done);
        i32[at + CHAIN.DONE] = 1;
        this.#delivering = this.#arena.peer(i32[at + CHAIN.PEER]) +
          this.#direction.queue;
      }
      const queue = this.#delivering;
      const head = this.#queues.peek(queue + PEER_CRYPT.QUEUE);
      if (head !== 0) {
        const at = this.#arena.chain(head);
        if (
          i32[at + CHAIN.DONE] === 1 &&
          this.#queues.pop(queue + PEER_CRYPT.QUEUE) === head
        ) {
          const count = i32[at + CHAIN.COUNT];
          Atomics.sub(i32, queue + PEER_CRYPT.PACKETS, count);
          return head;
        }
      }
      this.#delivering = 0;
    }
  }

  /** A chain that was refused, to be dropped and released, or 0. */
  nextRefused(): number {
    return this.#refusedCount === 0 ? 0 : this.#refused[--this.#refusedCount];
  }

  /** Takes a chain back. */
  release(chain: number): void {
    const at = this.#arena.chain(chain);
    this.#epoch.release(this.#i32[at + CHAIN.STAMP]);
    this.#packets -= this.#i32[at + CHAIN.COUNT];
    this.#free[this.#freeCount++] = chain;
  }
}

/** Word of the chain that lane `lane` works on. */
export function laneChainWord(lane: number): number {
  return HEADER.LANE_CHAINS + lane % LANES_MAX;
}
