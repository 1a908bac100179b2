/**
 * Lanes in workers of their own, and the side of lib/crypt that feeds them, with
 * packets that a number names; no interface, no sockets.
 */
import { Arena, HEADER, THREAD_OUTBOUND } from "../lib/arena.ts";
import type { ChosenAead } from "../lib/aead_choice.ts";
import { Counters } from "../lib/counters.ts";
import { Crypt, LaneWaker, SEALING } from "../lib/crypt.ts";
import {
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_HEADER_BYTES,
  AEAD_KEY,
  AEAD_LENGTH,
  AEAD_OK,
  AEAD_RECEIVER,
  AEAD_TAG_BYTES,
  AEAD_USER,
  createAead,
} from "../lib/crypto/aead.ts";
import { EpochReader } from "../lib/epoch.ts";
import { CHAIN, KEYPAIR } from "../lib/records.ts";
import { libc } from "../lib/sys/libc.ts";
import { Lanes } from "../lib/workers.ts";

const EFD_NONBLOCK = 0x800;
const WASM: ChosenAead = { name: "wasm", reason: "the rig's" };

/** A packet that was delivered. */
export interface Delivered {
  readonly peer: number;
  /** What `add` was told of it. */
  readonly number: number;
  /** AEAD_OK of its descriptor. */
  readonly ok: number;
  readonly slot: number;
  readonly lengthBytes: number;
}

/** How many of each there are. */
export interface RigOptions {
  readonly lanes: number;
  readonly peers?: number;
  /** Packets that can be under way. */
  readonly slots?: number;
}

/** A worker's side of lanes that seal. */
export class LanesRig implements AsyncDisposable {
  readonly arena: Arena;
  readonly crypt: Crypt;
  readonly counters: Counters;
  /** What was logged. */
  readonly log: string[] = [];
  readonly #epoch: EpochReader;
  readonly #lanes: Lanes;
  readonly #fds: readonly number[];
  readonly #count: number;
  readonly #free: number[];

  constructor({ lanes, peers = 8, slots = 1024 }: RigOptions) {
    this.#count = lanes;
    const limits = {
      peers,
      allowedIpNodes: 1,
      sessions: peers,
      txSlots: slots,
    };
    const arena = new Arena(limits);
    this.arena = arena;
    this.#free = Array.from({ length: slots }, (_, i) => i + 1);
    this.#epoch = new EpochReader(arena, HEADER.OUTBOUND_EPOCH);
    this.counters = new Counters(arena, THREAD_OUTBOUND);
    this.crypt = new Crypt(
      {
        arena,
        aead: createAead(arena.memory, arena.work(THREAD_OUTBOUND), "wasm"),
        lanes: new LaneWaker(arena, lanes),
      },
      SEALING,
      this.#epoch,
      this.counters,
    );
    for (let peer = 1; peer <= peers; peer++) {
      this.key(peer).set(crypto.getRandomValues(new Uint8Array(32)));
    }
    this.#fds = [0, 1].map(() => libc().eventfd(0, EFD_NONBLOCK));
    const [outboundFd, inboundFd] = this.#fds;
    this.#lanes = new Lanes(
      arena,
      () => ({ crypto: WASM, outboundFd, inboundFd }),
      {
        error: (text) => this.log.push(text),
        verbose: (text) => this.log.push(text),
      },
    );
    Atomics.store(arena.i32, HEADER.RUNNING, 1);
  }

  /** Starts the lanes; resolves when all of them sleep. */
  async start(): Promise<void> {
    this.#lanes.start(this.#count);
    await this.asleep();
  }

  /** Resolves when all lanes sleep. */
  async asleep(): Promise<void> {
    const { i32 } = this.arena;
    while (Atomics.load(i32, HEADER.LANES_ASLEEP) !== this.#count) {
      await delay(1);
    }
  }

  /** A copy of a peer's key: noble does not take shared memory. */
  keyOf(peer: number): Uint8Array {
    return this.key(peer).slice();
  }

  /** A peer's key in the arena; each peer has the keypair of its number. */
  key(peer: number): Uint8Array<SharedArrayBuffer> {
    return this.arena.bytes(this.arena.keypair(peer) + KEYPAIR.SEND_KEY, 32);
  }

  /** Packets that can be added. */
  get room(): number {
    return Math.min(this.#free.length, this.crypt.room);
  }

  /**
   * Adds a packet to the peer's chain. `fill` writes its payload.
   *
   * @returns word of its descriptor, 0: no chain is free
   */
  add(
    peer: number,
    number: number,
    lengthBytes: number,
    fill?: (payload: Uint8Array) => void,
  ): number {
    const { arena, crypt } = this;
    const chain = crypt.chainFor(peer, peer);
    if (chain === 0) return 0;
    const slot = this.#free.pop();
    if (slot === undefined) throw new Error("no slot is free");
    const at = crypt.append(chain, slot, lengthBytes);
    const data = arena.txPayload(slot);
    const { i32 } = arena;
    i32[at + AEAD_DATA] = data;
    i32[at + AEAD_LENGTH] = lengthBytes;
    i32[at + AEAD_KEY] = (arena.keypair(peer) + KEYPAIR.SEND_KEY) * 4;
    i32[at + AEAD_RECEIVER] = peer;
    i32[at + AEAD_COUNTER_LO] = number;
    i32[at + AEAD_COUNTER_HI] = 0;
    i32[at + AEAD_USER] = number;
    fill?.(arena.u8.subarray(data, data + lengthBytes));
    return at;
  }

  /** Hands the chains on, and lets a worker begin its next visit. */
  submit(): void {
    this.#epoch.enter();
    this.crypt.submit();
    this.#epoch.leave();
  }

  /** Delivers what is done; the slot of a packet is free again behind `told`. */
  deliver(told?: (packet: Delivered) => void): number {
    const { arena, crypt } = this;
    const { i32 } = arena;
    let packets = 0;
    for (let chain; (chain = crypt.next()) !== 0;) {
      const at = arena.chain(chain);
      for (let n = 0; n < i32[at + CHAIN.COUNT]; n++) {
        const descriptor = at + CHAIN.DESCRIPTORS + n * AEAD_DESCRIPTOR_WORDS;
        const slot = i32[at + CHAIN.SLOTS + n];
        told?.(this.#delivered(i32[at + CHAIN.PEER], descriptor, slot));
        this.#free.push(slot);
        packets++;
      }
      crypt.release(chain);
    }
    return packets;
  }

  #delivered(peer: number, at: number, slot: number): Delivered {
    const { i32 } = this.arena;
    return {
      peer,
      slot,
      number: i32[at + AEAD_USER],
      ok: i32[at + AEAD_OK],
      lengthBytes: i32[at + AEAD_LENGTH],
    };
  }

  /** A delivered packet as it would be sent, header and tag with it. */
  sealed({ slot, lengthBytes }: Delivered): Uint8Array {
    const data = this.arena.txPayload(slot);
    const end = data + lengthBytes + AEAD_TAG_BYTES;
    return this.arena.u8.slice(data - AEAD_HEADER_BYTES, end);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    Atomics.store(this.arena.i32, HEADER.RUNNING, 0);
    await this.#lanes.stop();
    for (const fd of this.#fds) libc().close(fd);
  }
}

/** Resolves after some time. */
export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
