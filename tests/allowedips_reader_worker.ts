/**
 * A reader of the tries for allowedips_test.ts: looks addresses up while the
 * main thread updates, and checks each answer against the states that the table
 * can have had between the start and the end of the lookup.
 */
import { AllowedIpsReader } from "../lib/allowedips.ts";
import { Arena, type ArenaLimits } from "../lib/arena.ts";
import { EpochReader } from "../lib/epoch.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

/** Words of `progress`: updates finished and begun, orders and replies. */
export const PROGRESS = {
  COMPLETED: 0,
  STARTED: 1,
  STOP: 2,
  LOOKUPS: 3,
  /** Lookups during which the table changed: the others prove less. */
  CONTENDED: 4,
  WORDS: 8,
} as const;

/** What the reader is given. */
export interface ReaderTask {
  readonly limits: ArenaLimits;
  readonly memory: WebAssembly.Memory;
  readonly progress: SharedArrayBuffer;
  /** Owner of address `i` after `k` updates: word `(k % states) * addresses + i`. */
  readonly answers: SharedArrayBuffer;
  readonly states: number;
  readonly addresses: number;
  /** Byte offset of the addresses in the arena, 16 bytes apart. */
  readonly at: number;
  readonly addressBytes: number;
  readonly epochWord: number;
}

/** What it found. */
export interface ReaderReport {
  readonly lookups: number;
  readonly wrong: number;
  readonly first: string;
}

const LOOKUPS_AN_EPOCH = 16;

function read(task: ReaderTask): ReaderReport {
  const arena = new Arena(task.limits, task.memory);
  const reader = new AllowedIpsReader(arena);
  const epoch = new EpochReader(arena, task.epochWord);
  const progress = new Int32Array(task.progress);
  const answers = new Int32Array(task.answers);
  const random = new SeededRandom(task.epochWord);
  const { states, addresses, at, addressBytes } = task;
  let [lookups, wrong] = [0, 0];
  let first = "";
  while (Atomics.load(progress, PROGRESS.STOP) === 0) {
    epoch.enter();
    for (let n = 0; n < LOOKUPS_AN_EPOCH; n++) {
      // The first address is the one with all prefixes nested around it.
      const i = Math.max(0, random.below(2 * addresses) - addresses);
      const from = Atomics.load(progress, PROGRESS.COMPLETED);
      const owner = addressBytes === 4
        ? reader.lookup4(at + 16 * i)
        : reader.lookup6(at + 16 * i);
      const to = Atomics.load(progress, PROGRESS.STARTED);
      lookups++;
      if (to !== from) Atomics.add(progress, PROGRESS.CONTENDED, 1);
      let right = false;
      for (let k = from; k <= to && !right; k++) {
        right = answers[(k % states) * addresses + i] === owner;
      }
      if (right) continue;
      wrong++;
      first ||= `address ${i}: ${owner} between updates ${from} and ${to}`;
    }
    epoch.leave();
    Atomics.add(progress, PROGRESS.LOOKUPS, LOOKUPS_AN_EPOCH);
  }
  return { lookups, wrong, first };
}

// Imported by the test for its types and constants, too: then there is no scope.
if (typeof WorkerGlobalScope !== "undefined") {
  const scope = self as unknown as DedicatedWorkerGlobalScope;
  scope.onmessage = ({ data }: MessageEvent<ReaderTask>): void => {
    scope.postMessage(read(data));
    scope.close();
  };
  scope.postMessage("ready");
}
