/**
 * A reader of the index table for peerlookup_test.ts: looks indices up while the
 * main thread updates. Those of keypairs that stay must be found each time, and
 * none may yield a keypair that had another index.
 */
import { Arena, type ArenaLimits } from "../lib/arena.ts";
import { EpochReader } from "../lib/epoch.ts";
import { IndexReader } from "../lib/peerlookup.ts";
import { KEYPAIR } from "../lib/records.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

/** Words that both threads share: orders, replies, and the indices to look up. */
export const SHARED = {
  STOP: 0,
  LOOKUPS: 1,
  /** Index of stable keypair 1, 2, … */
  STABLE: 16,
  STABLE_COUNT: 128,
  /** Indices given out lately. */
  RECENT: 256,
  RECENT_COUNT: 64,
  WORDS: 512,
} as const;

/** What the reader is given. */
export interface IndexReaderTask {
  readonly limits: ArenaLimits;
  readonly memory: WebAssembly.Memory;
  readonly shared: SharedArrayBuffer;
  readonly epochWord: number;
}

/** What it found. */
export interface IndexReaderReport {
  readonly lookups: number;
  readonly found: number;
  readonly missed: number;
  readonly mixedUp: number;
}

const LOOKUPS_AN_EPOCH = 16;

function read(task: IndexReaderTask): IndexReaderReport {
  const arena = new Arena(task.limits, task.memory);
  const reader = new IndexReader(arena);
  const epoch = new EpochReader(arena, task.epochWord);
  const shared = new Int32Array(task.shared);
  const random = new SeededRandom(task.epochWord);
  let [lookups, found, missed, mixedUp] = [0, 0, 0, 0];
  while (Atomics.load(shared, SHARED.STOP) === 0) {
    epoch.enter();
    for (let n = 0; n < LOOKUPS_AN_EPOCH; n++) {
      const stable = random.below(SHARED.STABLE_COUNT);
      const wanted = shared[SHARED.STABLE + stable];
      if (reader.findKeypair(wanted) !== stable + 1) missed++;
      const recent = Atomics.load(
        shared,
        SHARED.RECENT + random.below(SHARED.RECENT_COUNT),
      );
      const keypair = reader.findKeypair(recent);
      if (keypair === 0) continue;
      found++;
      // The test writes the index here, too, before the keypair gets it.
      const own = arena.i32[arena.keypair(keypair) + KEYPAIR.REMOTE_INDEX];
      if (own !== recent) mixedUp++;
    }
    epoch.leave();
    lookups += 2 * LOOKUPS_AN_EPOCH;
    Atomics.store(shared, SHARED.LOOKUPS, lookups);
  }
  return { lookups, found, missed, mixedUp };
}

// Imported by the test for its types and constants, too: then there is no scope.
if (typeof WorkerGlobalScope !== "undefined") {
  const scope = self as unknown as DedicatedWorkerGlobalScope;
  scope.onmessage = ({ data }: MessageEvent<IndexReaderTask>): void => {
    scope.postMessage(read(data));
    scope.close();
  };
  scope.postMessage("ready");
}
