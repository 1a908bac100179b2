/**
 * The threads of queueing_stress_test.ts: producers and consumers of one queue
 * or ring on a memory that all share.
 */
import { Arena, type ArenaLimits } from "../lib/arena.ts";
import { CryptRing, SEALING } from "../lib/crypt.ts";
import { MAX_QUEUED_PACKETS } from "../lib/messages.ts";
import { MpscQueues, QUEUE_SPREAD } from "../lib/queueing.ts";
import { CHAIN } from "../lib/records.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

/** Nodes of each producer of the queue. */
export const NODES = 4096;
/** Chains of the ring that are in use. */
export const RING_CHAINS = 64;
const PACKETS_MAX = 64;

/** Words of the queue's memory. */
export const SHARED = {
  QUEUE: 0,
  /** Packets in the queue, as lib/crypt counts them. */
  PACKETS: 64,
  /** Packets that were let in: for the consumer's check. */
  ACCEPTED: 80,
  /** Items of producer p that were taken, at p * 16; producers sleep on it. */
  TAKEN: 96,
  /** Word of node 0's link; then its owner's number, and its packets. */
  NODES: 256,
  NODE_WORDS: 3,
  NUMBER: 1,
  COUNT: 2,
} as const;

/** Words of the ring's notes, behind those of the chains: see `ringConsumer`. */
export const RING_NOTES = { STOP: 0, TAKEN: 16, STATES: 32 } as const;

/** What a thread is to do. */
export type StressTask =
  & { readonly items: number }
  & (
    | {
      readonly role: "producer" | "consumer";
      readonly shared: SharedArrayBuffer;
      readonly producers: number;
      /** Which producer. */
      readonly number: number;
      /** Whether items are chains of packets that MAX_QUEUED_PACKETS bounds. */
      readonly bounded: boolean;
    }
    | {
      readonly role: "ring producer" | "ring consumer";
      readonly limits: ArenaLimits;
      readonly memory: WebAssembly.Memory;
      readonly notes: SharedArrayBuffer;
    }
  );

/** What it found; all that is wrong is in `errors`. */
export interface StressReport {
  readonly items: number;
  /** Packets sent or received. */
  readonly packets: number;
  /** Packets and chains that were refused. */
  readonly refused: number;
  readonly errors: readonly string[];
  /** From the first item to the last. */
  readonly ms: number;
}

type QueueTask = Extract<StressTask, { readonly shared: SharedArrayBuffer }>;
type RingTask = Extract<StressTask, { readonly notes: SharedArrayBuffer }>;

const ERRORS_MAX = 10;
const NAP_MS = 1;
/** Looks at an empty queue before a nap. */
const SPINS = 200;
/** Who waits longer than that gives up: something was lost. */
const STALL_MS = 10_000;

class Errors {
  readonly list: string[] = [];

  check(right: boolean, what: () => string): void {
    if (!right && this.list.length < ERRORS_MAX) this.list.push(what());
  }
}

/** Words of a queue with the nodes of `producers`. */
export function queueWords(producers: number): number {
  return SHARED.NODES + (producers * NODES + 1) * SHARED.NODE_WORDS;
}

function queues(i32: Int32Array<SharedArrayBuffer>): MpscQueues {
  return new MpscQueues(i32, SHARED.NODES, SHARED.NODE_WORDS, QUEUE_SPREAD);
}

/** Pushes its nodes in turn, each again when the consumer has taken it. */
function produce(task: QueueTask): StressReport {
  const i32 = new Int32Array(task.shared);
  const queue = queues(i32);
  const random = new SeededRandom(task.number);
  const takenAt = SHARED.TAKEN + task.number * 16;
  const firstNode = 1 + task.number * NODES;
  let [packets, refused] = [0, 0];
  for (let item = 0; item < task.items; item++) {
    for (let taken; item - (taken = Atomics.load(i32, takenAt)) >= NODES;) {
      if (Atomics.wait(i32, takenAt, taken, STALL_MS) === "timed-out") {
        throw new Error(`producer ${task.number}: node ${item} is not back`);
      }
    }
    const node = firstNode + item % NODES;
    const at = SHARED.NODES + node * SHARED.NODE_WORDS;
    i32[at + SHARED.NUMBER] = item;
    if (task.bounded) {
      const count = 1 + random.below(PACKETS_MAX);
      i32[at + SHARED.COUNT] = count;
      refused += enter(i32, count);
      packets += count;
    }
    queue.push(SHARED.QUEUE, node);
  }
  return { items: task.items, packets, refused, errors: [], ms: 0 };
}

/** Counts packets in, by one addition a try. @returns packets that were refused */
function enter(i32: Int32Array<SharedArrayBuffer>, count: number): number {
  let refused = 0;
  for (;;) {
    const before = Atomics.add(i32, SHARED.PACKETS, count);
    if (before + count <= MAX_QUEUED_PACKETS) break;
    Atomics.sub(i32, SHARED.PACKETS, count);
    refused += count;
    nap();
  }
  awake();
  Atomics.add(i32, SHARED.ACCEPTED, count);
  return refused;
}

const bed = new Int32Array(new SharedArrayBuffer(4));
let naps = 0;

/** Sleeps a little. `awake` is called between two waits. */
function nap(): void {
  if (++naps * NAP_MS > STALL_MS) throw new Error("waited too long");
  Atomics.wait(bed, 0, 0, NAP_MS);
}

function awake(): void {
  naps = 0;
}

/** Takes all items of all producers, and checks their order. */
function consume(task: QueueTask): StressReport {
  const i32 = new Int32Array(task.shared);
  const queue = queues(i32);
  const next = new Int32Array(task.producers);
  const errors = new Errors();
  const all = task.items * task.producers;
  let packets = 0;
  let startMs = 0;
  for (let items = 0, spins = 0; items < all;) {
    const node = queue.pop(SHARED.QUEUE);
    if (node === 0) {
      if (++spins === SPINS) nap();
      spins %= SPINS;
      continue;
    }
    spins = 0;
    awake();
    if (items++ === 0) startMs = performance.now();
    const number = Math.floor((node - 1) / NODES);
    const at = SHARED.NODES + node * SHARED.NODE_WORDS;
    const item = i32[at + SHARED.NUMBER];
    errors.check(
      item === next[number],
      () => `producer ${number}: ${item} instead of ${next[number]}`,
    );
    next[number]++;
    if (task.bounded) {
      const waiting = Atomics.load(i32, SHARED.ACCEPTED) - packets;
      errors.check(
        waiting <= MAX_QUEUED_PACKETS,
        () => `${waiting} packets wait`,
      );
      packets += i32[at + SHARED.COUNT];
      Atomics.sub(i32, SHARED.PACKETS, i32[at + SHARED.COUNT]);
    }
    const taken = Atomics.add(i32, SHARED.TAKEN + number * 16, 1) + 1;
    // One system call for half of the producer's nodes.
    if (taken % (NODES / 2) === 0) {
      Atomics.notify(i32, SHARED.TAKEN + number * 16);
    }
  }
  errors.check(queue.pop(SHARED.QUEUE) === 0, () => "one too many");
  const ms = performance.now() - startMs;
  return { items: all, packets, refused: 0, errors: errors.list, ms };
}

/**
 * Puts free chains into the ring. A chain's note is 0 while it is free, 1 in the
 * ring, 2 while a consumer has it.
 */
function ringProduce(task: RingTask): StressReport {
  const arena = new Arena(task.limits, task.memory);
  const ring = new CryptRing(arena, SEALING);
  const notes = new Int32Array(task.notes);
  const random = new SeededRandom(1);
  let [packets, refused] = [0, 0];
  for (let item = 0; item < task.items; item++) {
    const chain = 1 + item % RING_CHAINS;
    const note = RING_NOTES.STATES + chain;
    while (Atomics.load(notes, note) !== 0) nap();
    awake();
    const count = 1 + random.below(PACKETS_MAX);
    arena.i32[arena.chain(chain) + CHAIN.COUNT] = count;
    Atomics.store(notes, note, 1);
    while (!ring.push(chain)) {
      refused += count;
      nap();
    }
    awake();
    packets += count;
  }
  return { items: task.items, packets, refused, errors: [], ms: 0 };
}

/** Takes chains until all are taken. */
function ringConsume(task: RingTask): StressReport {
  const arena = new Arena(task.limits, task.memory);
  const ring = new CryptRing(arena, SEALING);
  const notes = new Int32Array(task.notes);
  const errors = new Errors();
  let [items, packets] = [0, 0];
  for (let spins = 0; Atomics.load(notes, RING_NOTES.TAKEN) < task.items;) {
    const chain = ring.take();
    if (chain === 0) {
      if (++spins === SPINS) nap();
      spins %= SPINS;
      continue;
    }
    spins = 0;
    awake();
    items++;
    const note = RING_NOTES.STATES + chain;
    const state = Atomics.compareExchange(notes, note, 1, 2);
    errors.check(state === 1, () => `chain ${chain} taken in state ${state}`);
    packets += arena.i32[arena.chain(chain) + CHAIN.COUNT];
    Atomics.add(notes, RING_NOTES.TAKEN, 1);
    Atomics.store(notes, note, 0);
  }
  return { items, packets, refused: 0, errors: errors.list, ms: 0 };
}

/** @throws Error when something is waited for in vain */
function run(task: StressTask): StressReport {
  switch (task.role) {
    case "producer":
      return produce(task);
    case "consumer":
      return consume(task);
    case "ring producer":
      return ringProduce(task);
    case "ring consumer":
      return ringConsume(task);
  }
}

function attempt(task: StressTask): StressReport {
  try {
    return run(task);
  } catch (error) {
    const errors = [`${task.role}: ${error}`];
    return { items: 0, packets: 0, refused: 0, errors, ms: 0 };
  }
}

// Imported by the test for its types and constants, too: then there is no scope.
if (typeof WorkerGlobalScope !== "undefined") {
  const scope = self as unknown as DedicatedWorkerGlobalScope;
  scope.onmessage = ({ data }: MessageEvent<StressTask>): void => {
    scope.postMessage(attempt(data));
    scope.close();
  };
}
