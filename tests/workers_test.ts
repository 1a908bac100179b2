/** lib/workers: threads that die are seen, and lanes come back. */
import { assert, assertEquals, assertMatch, assertRejects } from "@std/assert";
import { Arena, HEADER, THREAD_CONTROL } from "../lib/arena.ts";
import { chooseAead } from "../lib/aead_choice.ts";
import { COUNT, Counters } from "../lib/counters.ts";
import type { Log } from "../lib/log.ts";
import { closeDescriptor, opened } from "../lib/sys/descriptors.ts";
import { libc } from "../lib/sys/libc.ts";
import { Lanes, startWorker } from "../lib/workers.ts";

// Opened for good, and so by none of the tests.
libc();

const LIMITS = {
  peers: 16,
  allowedIpNodes: 64,
  sessions: 16,
  txSlots: 130,
};
const NOTICED_MS = 1_000;

/** A log that is kept. */
function keptLog(): Log & { readonly lines: string[] } {
  const lines: string[] = [];
  return {
    lines,
    error: (text): void => void lines.push(text),
    verbose: (): void => {},
  };
}

async function until(holds: () => boolean, limitMs: number): Promise<number> {
  const startMs = performance.now();
  while (!holds()) {
    const passedMs = performance.now() - startMs;
    assert(passedMs < limitMs, `not within ${limitMs} ms`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  return performance.now() - startMs;
}

Deno.test("a worker that throws at its start is told of once, with the reason", async () => {
  const arena = new Arena(LIMITS);
  const reasons: string[] = [];
  const life = startWorker(
    "broken",
    () => ({
      role: "lane",
      // They do not agree with the memory.
      limits: { ...LIMITS, peers: 32_000 },
      memory: arena.memory,
      lane: 0,
      crypto: chooseAead("wasm"),
      outboundFd: -1,
      inboundFd: -1,
    }),
    (reason) => reasons.push(reason),
  );
  await assertRejects(() => life.started, Error, "broken worker failed");
  await life.ended;
  assertEquals(reasons.length, 1);
  assertMatch(reasons[0], /limits agree with the memory/);
});

Deno.test("a lane that dies is noticed within a second, counted, and started again", async () => {
  const arena = new Arena(LIMITS);
  arena.i32[HEADER.RUNNING] = 1;
  const log = keptLog();
  const fds = [0, 1].map(() => opened(libc().eventfd(0, 0), "eventfd"));
  const good = chooseAead("wasm");
  let started = 0;
  const lanes = new Lanes(arena, () => {
    // The first of them cannot make its AEAD.
    const bad = ++started === 1;
    const crypto = bad ? undefined as never : good;
    return { crypto, outboundFd: fds[0], inboundFd: fds[1] };
  }, log);
  lanes.start(1);
  assertEquals(lanes.count, 1);
  const counters = new Counters(arena, THREAD_CONTROL);
  const restarted = (): number => counters.get(COUNT.lanes_restarted);
  await until(() => restarted() === 1, NOTICED_MS + 1_000);
  await until(() => lanes.count === 0, 100);
  assertMatch(log.lines[0], /^lane 0 failed and is started again: /);
  await until(() => lanes.count === 1, NOTICED_MS + 1_000);
  // It runs: it sleeps, waiting for work.
  await until(() => Atomics.load(arena.i32, HEADER.LANES_ASLEEP) === 1, 2_000);
  assertEquals([restarted(), log.lines.length], [1, 1]);
  Atomics.store(arena.i32, HEADER.RUNNING, 0);
  await lanes.stop();
  assertEquals(lanes.count, 0);
  fds.forEach(closeDescriptor);
});
