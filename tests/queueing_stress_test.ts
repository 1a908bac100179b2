/**
 * The queues between real threads: many items, from many producers, on nodes
 * that are used again.
 */
import { assert, assertEquals } from "@std/assert";
import { Arena, HEADER } from "../lib/arena.ts";
import { CryptRing, SEALING } from "../lib/crypt.ts";
import {
  queueWords,
  RING_CHAINS,
  RING_NOTES,
  SHARED,
  type StressReport,
  type StressTask,
} from "./queueing_stress_worker.ts";

const ITEMS = 10_000_000;
/** Where threads nap in between. */
const BOUNDED_ITEMS = 200_000;
const PRODUCERS = 4;

/** Runs tasks, each in a worker of its own. */
async function runAll(tasks: readonly StressTask[]): Promise<StressReport[]> {
  const url = new URL("./queueing_stress_worker.ts", import.meta.url);
  return await Promise.all(tasks.map((task) => {
    const { promise, resolve, reject } = Promise.withResolvers<StressReport>();
    const worker = new Worker(url, { type: "module" });
    worker.onmessage = ({ data }: MessageEvent<StressReport>) => resolve(data);
    worker.onerror = (event): void => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    worker.postMessage(task);
    return promise;
  }));
}

/** Runs producers and a consumer of one queue; what the consumer found is last. */
async function runQueue(
  items: number,
  bounded: boolean,
): Promise<{ reports: StressReport[]; i32: Int32Array<SharedArrayBuffer> }> {
  const shared = new SharedArrayBuffer(queueWords(PRODUCERS) * 4);
  const common = { items, shared, producers: PRODUCERS, bounded };
  const reports = await runAll([
    ...Array.from({ length: PRODUCERS }, (_, number) => ({
      ...common,
      role: "producer" as const,
      number,
    })),
    { ...common, role: "consumer", number: 0 },
  ]);
  return { reports, i32: new Int32Array(shared) };
}

function total(
  reports: readonly StressReport[],
  field: "packets" | "refused",
): number {
  return reports.reduce((sum, report) => sum + report[field], 0);
}

Deno.test(`${ITEMS} items from ${PRODUCERS} producers: none lost, none twice, each producer's in order`, async () => {
  const { reports, i32 } = await runQueue(ITEMS / PRODUCERS, false);
  assertEquals(reports.flatMap(({ errors }) => errors), []);
  assertEquals(reports[PRODUCERS].items, ITEMS);
  for (let number = 0; number < PRODUCERS; number++) {
    assertEquals(i32[SHARED.TAKEN + number * 16], ITEMS / PRODUCERS);
  }
});

Deno.test("the bound by one addition a chain holds, and what is refused is counted", async () => {
  const { reports, i32 } = await runQueue(BOUNDED_ITEMS / PRODUCERS, true);
  const consumer = reports[PRODUCERS];
  const producers = reports.slice(0, PRODUCERS);
  assertEquals(reports.flatMap(({ errors }) => errors), []);
  const sent = total(producers, "packets");
  assertEquals(consumer.packets, sent);
  assertEquals(i32[SHARED.ACCEPTED], sent);
  assertEquals(i32[SHARED.PACKETS], 0, "each refusal took back what it added");
  assert(total(producers, "refused") > 0, "the bound was never reached");
});

Deno.test("chains of a ring go to one of three lanes each", async () => {
  const items = BOUNDED_ITEMS;
  const limits = { peers: 1, allowedIpNodes: 1, sessions: 1, txSlots: 1 };
  const arena = new Arena(limits);
  // So that the indices become negative on the way.
  const index = 0x7fff_ffff - items / 2;
  arena.i32[HEADER.OUTBOUND_RING] =
    arena.i32[HEADER.OUTBOUND_RING + 16] =
      index;
  const words = RING_NOTES.STATES + RING_CHAINS + 1;
  const notes = new SharedArrayBuffer(words * 4);
  const common = { items, limits, memory: arena.memory, notes };
  const [producer, ...consumers] = await runAll([
    { ...common, role: "ring producer" },
    ...[1, 2, 3].map(() => ({ ...common, role: "ring consumer" as const })),
  ]);
  const errors = [producer, ...consumers].flatMap(({ errors }) => errors);
  assertEquals(errors, []);
  assertEquals(consumers.reduce((sum, { items }) => sum + items, 0), items);
  assertEquals(total(consumers, "packets"), producer.packets);
  assert(producer.refused > 0, "the bound was never reached");
  const ring = new CryptRing(arena, SEALING);
  assert(ring.empty);
  assertEquals(ring.take(), 0);
  assertEquals(arena.i32[HEADER.OUTBOUND_RING + 32], 0, "packets left");
});
