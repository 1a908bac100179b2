/**
 * A lane: takes chains from the rings of both directions, seals or opens them,
 * and tells the worker that delivers them. It knows neither peers nor sockets.
 * Without work it sleeps, and costs nothing.
 *
 * @module
 */
import { type Arena, HEADER } from "./arena.ts";
import type { Aead } from "./crypto/aead.ts";
import {
  AEAD_COUNTER_LO,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_OK,
  AEAD_PENDING,
} from "./crypto/aead.ts";
import {
  CryptRing,
  directionOf,
  doneQueues,
  laneChainWord,
  LaneWaker,
  OPENING,
  SEALING,
  workOn,
} from "./crypt.ts";
import type { MpscQueues, Waker } from "./queueing.ts";
import { CHAIN } from "./records.ts";

/** What a lane works with. */
export interface LaneParts {
  readonly arena: Arena;
  readonly aead: Aead;
  /** Its number, from 0. */
  readonly lane: number;
  readonly outbound: Waker;
  readonly inbound: Waker;
}

/** Ends the sleep of all lanes, so that they look whether they shall end. */
export function wakeAllLanes(arena: Arena): void {
  Atomics.add(arena.i32, HEADER.LANES_WAKE, 1);
  Atomics.notify(arena.i32, HEADER.LANES_WAKE);
}

/**
 * What a lane is at, as a number that is another for the next chain; undefined
 * while it has none.
 */
export function laneTurn(arena: Arena, lane: number): number | undefined {
  const chain = Atomics.load(arena.i32, laneChainWord(lane));
  if (chain === 0) return undefined;
  const counter = arena.chain(chain) + CHAIN.DESCRIPTORS + AEAD_COUNTER_LO;
  return chain * 2 ** 32 + arena.u32[counter];
}

/** One lane. */
export class Lane {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #parts: LaneParts;
  readonly #rings: readonly CryptRing[];
  readonly #done: MpscQueues;
  readonly #others: LaneWaker;
  readonly #mine: number;
  #turn = 0;

  constructor(parts: LaneParts) {
    const { arena } = parts;
    this.#i32 = arena.i32;
    this.#parts = parts;
    this.#rings = [
      new CryptRing(arena, SEALING),
      new CryptRing(arena, OPENING),
    ];
    this.#done = doneQueues(arena);
    this.#others = new LaneWaker(arena, 1);
    this.#mine = laneChainWord(parts.lane);
  }

  /** Runs until control clears HEADER.RUNNING. Blocks the thread. */
  run(): void {
    while (Atomics.load(this.#i32, HEADER.RUNNING) === 1) {
      if (!this.step()) this.#sleep();
    }
    this.#parts.aead.close?.();
  }

  /** Does one chain. @returns whether there was one */
  step(): boolean {
    // The directions take turns, so that neither waits for the other.
    this.#turn ^= 1;
    let ring = this.#rings[this.#turn];
    let chain = ring.take();
    if (chain === 0) {
      ring = this.#rings[this.#turn ^ 1];
      chain = ring.take();
    }
    if (chain === 0) return false;
    Atomics.store(this.#i32, this.#mine, chain);
    if (!ring.empty) this.#others.wake();
    workOn(this.#parts.arena, this.#parts.aead, chain);
    Atomics.store(this.#i32, this.#mine, 0);
    finishChain(this.#parts, this.#done, chain);
    return true;
  }

  #sleep(): void {
    const i32 = this.#i32;
    Atomics.add(i32, HEADER.LANES_ASLEEP, 1);
    const seen = Atomics.load(i32, HEADER.LANES_WAKE);
    const awaited = this.#rings.every((ring) => ring.empty) &&
      Atomics.load(i32, HEADER.RUNNING) === 1;
    if (awaited) Atomics.wait(i32, HEADER.LANES_WAKE, seen);
    Atomics.sub(i32, HEADER.LANES_ASLEEP, 1);
  }
}

function finishChain(
  { outbound, inbound }: Pick<LaneParts, "outbound" | "inbound">,
  done: MpscQueues,
  chain: number,
): void {
  const direction = directionOf(chain);
  done.push(direction.done, chain);
  if (direction === SEALING) outbound.wake();
  else inbound.wake();
}

/**
 * Finishes the chain of a lane that died in the middle of it: all its packets but
 * the one that the lane was at, which is lost, and counted where it is delivered.
 *
 * @returns whether it had one
 */
export function finishDeadLane(parts: LaneParts): boolean {
  const { arena, aead, lane } = parts;
  const { i32 } = arena;
  const chain = Atomics.exchange(i32, laneChainWord(lane), 0);
  if (chain === 0) return false;
  const at = arena.chain(chain);
  const count = i32[at + CHAIN.COUNT];
  const descriptor = (n: number): number =>
    at + CHAIN.DESCRIPTORS + n * AEAD_DESCRIPTOR_WORDS;
  let n = 0;
  while (n < count && i32[descriptor(n) + AEAD_OK] !== AEAD_PENDING) n++;
  // That packet may be half sealed or opened: it stays pending.
  const rest = count - (n + 1);
  if (rest > 0) {
    const from = descriptor(n + 1) * 4;
    if (directionOf(chain) === SEALING) aead.seal(from, rest);
    else aead.open(from, rest);
  }
  finishChain(parts, doneQueues(arena), chain);
  return true;
}
