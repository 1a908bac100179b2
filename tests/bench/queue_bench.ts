/**
 * Times what lies between the threads: the queue, the bound on its packets, the
 * ring of chains, and wake-ups.
 *
 *     deno run -A tests/bench/queue_bench.ts
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { Arena, CHAINS, HEADER } from "../../lib/arena.ts";
import { CryptRing, LaneWaker, SEALING } from "../../lib/crypt.ts";
import { MpscQueues, QUEUE_SPREAD } from "../../lib/queueing.ts";
import { CHAIN } from "../../lib/records.ts";
import { libc, signalEvent } from "../../lib/sys/libc.ts";
import {
  queueWords,
  type StressReport,
  type StressTask,
} from "../queueing_stress_worker.ts";
import { addUnless, type QueueTask, SHARED } from "./queue_worker.ts";
import { digits, nsEach, percentile, table } from "./report.ts";

/** One line: what was done, and how long it took. */
export interface QueueFigure {
  readonly name: string;
  readonly unit: "ns" | "µs";
  readonly value: number;
  /** Where single times were taken. */
  readonly p99?: number;
}

const BATCH = 64;
/** Packets of a chain in the bench of the bound: a full super-packet. */
const PACKETS = 45;
const BOUND = 1024;
const ROUND_TRIPS = 3_000;
const STREAM_ITEMS = 2_000_000;
const EFD_NONBLOCK = 0x800;

/** Starts a worker, and resolves when it runs. */
async function startWorker(
  task: QueueTask,
): Promise<{ ended: Promise<void> }> {
  const url = new URL("./queue_worker.ts", import.meta.url);
  const worker = new Worker(url, { type: "module" });
  const runs = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  worker.onmessage = ({ data }): void =>
    (data === "runs" ? runs : ended).resolve();
  worker.onerror = (event): void => runs.reject(new Error(event.message));
  worker.postMessage(task);
  await runs.promise;
  return { ended: ended.promise };
}

function benchQueue(): QueueFigure[] {
  const words = 64 + (BATCH + 1) * 3;
  const i32 = new Int32Array(new SharedArrayBuffer(words * 4));
  const queues = new MpscQueues(i32, 64, 3, QUEUE_SPREAD);
  const one = nsEach(1, () => {
    queues.push(0, 1);
    if (queues.pop(0) !== 1) throw new Error("lost");
  });
  const many = nsEach(BATCH, () => {
    for (let node = 1; node <= BATCH; node++) queues.push(0, node);
    for (let node = 1; node <= BATCH; node++) {
      if (queues.pop(0) !== node) throw new Error("lost");
    }
  });
  return [
    { name: "queue: push and pop, one thread", unit: "ns", value: one },
    { name: `queue: the same, ${BATCH} deep`, unit: "ns", value: many },
  ];
}

/** Items through a queue to another thread. */
async function benchStream(producers: number): Promise<QueueFigure> {
  const shared = new SharedArrayBuffer(queueWords(producers) * 4);
  const url = new URL("../queueing_stress_worker.ts", import.meta.url);
  const items = STREAM_ITEMS / producers;
  const common = { items, shared, producers, bounded: false };
  const tasks: StressTask[] = [{ ...common, role: "consumer", number: 0 }];
  for (let number = 0; number < producers; number++) {
    tasks.push({ ...common, role: "producer", number });
  }
  const reports = await Promise.all(tasks.map((task) => {
    const { promise, resolve } = Promise.withResolvers<StressReport>();
    const worker = new Worker(url, { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<StressReport>) => resolve(data);
    worker.postMessage(task);
    return promise;
  }));
  const [consumer] = reports;
  if (consumer.errors.length > 0) throw new Error(consumer.errors.join());
  return {
    name: `queue: an item of ${producers} producer${producers > 1 ? "s" : ""}` +
      " on workers",
    unit: "ns",
    value: consumer.ms * 1e6 / STREAM_ITEMS,
  };
}

/** What bounds a queue: ns a packet of a chain of PACKETS, in and out. */
async function benchBound(): Promise<QueueFigure[]> {
  const shared = new SharedArrayBuffer(SHARED.WORDS * 4);
  const words = new Int32Array(shared);
  const queueI32 = new Int32Array(new SharedArrayBuffer((64 + 2 * 3) * 4));
  const queues = new MpscQueues(queueI32, 64, 3, QUEUE_SPREAD);
  const chain = (before: () => void, after: () => void) => (): void => {
    before();
    queues.push(0, 1);
    if (queues.pop(0) !== 1) throw new Error("lost");
    after();
  };
  const none = chain(() => {}, () => {});
  const addition = chain(() => {
    const before = Atomics.add(words, SHARED.BOUND, PACKETS);
    if (before + PACKETS > 1 << 30) throw new Error("refused");
  }, () => {
    Atomics.sub(words, SHARED.BOUND, PACKETS);
  });
  const exchange = chain(() => {
    for (let i = 0; i < PACKETS; i++) {
      if (!addUnless(words, SHARED.BOUND, 1 << 30)) throw new Error("refused");
    }
  }, () => {
    for (let i = 0; i < PACKETS; i++) Atomics.sub(words, SHARED.BOUND, 1);
  });
  const figures: QueueFigure[] = [];
  const measure = (name: string, run: () => void): void => {
    const value = nsEach(PACKETS, run);
    figures.push({ name: `bound: ${name}, a packet`, unit: "ns", value });
  };
  measure("none", none);
  measure("one addition a chain", addition);
  measure("compare-and-swap a packet", exchange);
  for (
    const [role, name, run] of [
      ["bound by addition", "one addition a chain, two threads", addition],
      ["bound by exchange", "compare-and-swap a packet, two threads", exchange],
    ] as const
  ) {
    words.fill(0);
    const { ended } = await startWorker({ role, shared });
    measure(name, run);
    Atomics.store(words, SHARED.STOP, 1);
    await ended;
  }
  return figures;
}

function benchRing(): QueueFigure[] {
  const arena = new Arena(
    { peers: 1, allowedIpNodes: 1, sessions: 1, txSlots: 1 },
  );
  const ring = new CryptRing(arena, SEALING);
  const chains = BOUND / BATCH;
  for (let chain = 1; chain <= CHAINS; chain++) {
    arena.i32[arena.chain(chain) + CHAIN.COUNT] = BATCH;
  }
  const value = nsEach(chains, () => {
    for (let chain = 1; chain <= chains; chain++) {
      if (!ring.push(chain)) throw new Error("refused");
    }
    for (let chain = 1; chain <= chains; chain++) {
      if (ring.take() !== chain) throw new Error("lost");
    }
  });
  const waker = new LaneWaker(arena, 1);
  const awake = nsEach(1, () => waker.wake());
  arena.i32[HEADER.LANES_ASLEEP] = 1;
  const woken = nsEach(1, () => waker.wake());
  return [
    { name: "ring: push and take a chain", unit: "ns", value },
    { name: "wake lanes: none sleeps", unit: "ns", value: awake },
    { name: "wake lanes: one is just waking up", unit: "ns", value: woken },
  ];
}

/** Times of single round trips, in µs. */
function roundTrips(trip: () => void): { value: number; p99: number } {
  const times: number[] = [];
  for (let i = -ROUND_TRIPS / 10; i < ROUND_TRIPS; i++) {
    const start = performance.now();
    trip();
    if (i >= 0) times.push((performance.now() - start) * 1e3);
  }
  return { value: percentile(times, 0.5), p99: percentile(times, 0.99) };
}

async function benchWords(): Promise<QueueFigure> {
  const shared = new SharedArrayBuffer(SHARED.WORDS * 4);
  const words = new Int32Array(shared);
  const { ended } = await startWorker({ role: "answer words", shared });
  const call = (): void => {
    Atomics.add(words, SHARED.CALL, 1);
    Atomics.notify(words, SHARED.CALL, 1);
  };
  let seen = 0;
  const times = roundTrips(() => {
    call();
    Atomics.wait(words, SHARED.ANSWER, seen++);
  });
  Atomics.store(words, SHARED.STOP, 1);
  call();
  await ended;
  return {
    name: "wake-up: Atomics.wait and notify, there and back",
    unit: "µs",
    ...times,
  };
}

async function benchEvents(): Promise<QueueFigure[]> {
  const shared = new SharedArrayBuffer(SHARED.WORDS * 4);
  const words = new Int32Array(shared);
  const c = libc();
  const [callFd, answerFd, idleFd] = [0, 1, 2].map(() =>
    c.eventfd(0, EFD_NONBLOCK)
  );
  const role = "answer events";
  const { ended } = await startWorker({ role, shared, callFd, answerFd });
  const pollfds = new Int32Array([answerFd, 1]);
  const bytes = new Uint8Array(8);
  const times = roundTrips(() => {
    signalEvent(callFd);
    c.poll(pollfds, 1, -1);
    c.read(answerFd, bytes, 8);
  });
  Atomics.store(words, SHARED.STOP, 1);
  signalEvent(callFd);
  await ended;
  const write = nsEach(1, () => signalEvent(idleFd));
  for (const fd of [callFd, answerFd, idleFd]) c.close(fd);
  return [
    { name: "wake-up: eventfd and poll, there and back", unit: "µs", ...times },
    {
      name: "wake-up: the write to an eventfd alone",
      unit: "ns",
      value: write,
    },
  ];
}

/** Runs all. */
export async function benchQueues(): Promise<QueueFigure[]> {
  const figures = benchQueue();
  for (const producers of [1, 2, 4]) figures.push(await benchStream(producers));
  figures.push(...await benchBound(), ...benchRing());
  figures.push(await benchWords(), ...await benchEvents());
  return figures;
}

/** The figures as a table. */
export function queueTable(figures: readonly QueueFigure[]): string {
  return table([
    ["queues and wake-ups", "median", "p99"],
    ...figures.map(({ name, unit, value, p99 }) => [
      name,
      `${digits(value)} ${unit}`,
      p99 === undefined ? "" : `${digits(p99)} ${unit}`,
    ]),
  ]);
}

if (import.meta.main) console.log(queueTable(await benchQueues()));
