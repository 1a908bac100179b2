/**
 * Workers as control sees them: their start, their end, and lanes, which are
 * started again when they fail. A data worker that fails ends the device, and so
 * does any thread that hangs: it cannot be ended.
 *
 * @module
 */
import { type Arena, HEADER, THREAD_CONTROL } from "./arena.ts";
import { COUNT, Counters } from "./counters.ts";
import { createDataAead } from "./aead_choice.ts";
import { finishDeadLane, laneTurn, wakeAllLanes } from "./lane.ts";
import type { Log } from "./log.ts";
import { LANES_MAX } from "./messages.ts";
import type { PulseThread, ThreadState } from "./pulse.ts";
import { Waker } from "./queueing.ts";
import { signalEvent } from "./sys/libc.ts";
import { threadState } from "./sys/thread.ts";
import type { LaneOptions, WorkerOptions, WorkerReport } from "./worker.ts";
import { newWorker } from "./worker_start.ts";

/** A lane that failed is not started again sooner than this after its start. */
const LANE_RESTART_MS = 1_000;

/** A worker's life. */
export interface WorkerLife {
  /** Resolves when it runs, rejects when it cannot. */
  readonly started: Promise<void>;
  /** Resolves when it has ended, well or not. */
  readonly ended: Promise<void>;
  /** What the system says of its thread, once it runs. */
  state(): ThreadState | undefined;
}

/**
 * Starts a worker.
 *
 * @param options called while it starts
 * @param failed called once if it fails, also at its start
 */
export function startWorker(
  name: string,
  options: () => WorkerOptions,
  failed: (reason: string) => void,
): WorkerLife {
  const started = Promise.withResolvers<void>();
  const ended = Promise.withResolvers<void>();
  // Who does not wait for it was told by `failed`.
  started.promise.catch(() => {});
  const fail = (reason: string): void => {
    started.reject(new Error(`the ${name} worker failed: ${reason}`));
    failed(reason);
    ended.resolve();
  };
  let thread: string | undefined;
  const worker = newWorker();
  worker.onmessage = ({ data }: MessageEvent<WorkerReport>): void => {
    if (data.state === "failed") fail(data.reason);
    else if (data.state === "ready") {
      thread = data.thread;
      started.resolve();
    } else ended.resolve();
  };
  worker.onerror = (event): void => {
    event.preventDefault();
    fail(event.message);
  };
  worker.postMessage(options());
  return {
    started: started.promise,
    ended: ended.promise,
    state: () => threadState(thread),
  };
}

/** What all lanes of a device are started with. */
export type LanesOptions = Omit<
  LaneOptions,
  "role" | "lane" | "limits" | "memory"
>;

/** The lanes of a device. */
export class Lanes {
  readonly #arena: Arena;
  readonly #options: () => LanesOptions;
  readonly #log: Log;
  readonly #counters: Counters;
  readonly #lives: WorkerLife[] = [];
  #running = 0;
  readonly #timers = new Set<ReturnType<typeof setTimeout>>();

  constructor(arena: Arena, options: () => LanesOptions, log: Log) {
    this.#arena = arena;
    this.#options = options;
    this.#log = log;
    this.#counters = new Counters(arena, THREAD_CONTROL);
  }

  /** Starts `count` lanes. Nobody need wait for them: they only help. */
  start(count: number): void {
    for (let lane = 0; lane < Math.min(count, LANES_MAX); lane++) {
      this.#startLane(lane);
    }
  }

  /** Lanes that run. */
  get count(): number {
    return this.#running;
  }

  /** What to look at, so that one that hangs is seen. */
  pulse(): PulseThread[] {
    return this.#lives.map((_, lane) => ({
      name: `lane ${lane}`,
      turn: () => laneTurn(this.#arena, lane),
      state: () => this.#lives[lane].state(),
    }));
  }

  /** Resolves when all have ended, after HEADER.RUNNING was cleared. */
  async stop(): Promise<void> {
    for (const timer of this.#timers) clearTimeout(timer);
    wakeAllLanes(this.#arena);
    await Promise.all(this.#lives.map(({ ended }) => ended));
  }

  #startLane(lane: number): void {
    const { limits, memory } = this.#arena;
    const startedMs = performance.now();
    this.#lives[lane] = startWorker(
      `lane ${lane}`,
      () => ({ role: "lane", limits, memory, lane, ...this.#options() }),
      (reason) => this.#failed(lane, reason, performance.now() - startedMs),
    );
    this.#running++;
    this.#lives[lane].ended.then(() => void this.#running--);
  }

  /** Finishes what the lane was at, and starts another in its place. */
  #failed(lane: number, reason: string, ageMs: number): void {
    this.#log.error(`lane ${lane} failed and is started again: ${reason}`);
    this.#counters.add(COUNT.lanes_restarted);
    const arena = this.#arena;
    const { crypto, outboundFd, inboundFd } = this.#options();
    const aead = createDataAead(
      arena.memory,
      arena.work(THREAD_CONTROL),
      crypto,
    );
    finishDeadLane({
      arena,
      lane,
      aead,
      outbound: new Waker(
        arena,
        HEADER.OUTBOUND_SLEEPS,
        () => signalEvent(outboundFd),
      ),
      inbound: new Waker(
        arena,
        HEADER.INBOUND_SLEEPS,
        () => signalEvent(inboundFd),
      ),
    });
    aead.close?.();
    const timer = setTimeout(() => {
      this.#timers.delete(timer);
      if (Atomics.load(arena.i32, HEADER.RUNNING) === 1) this.#startLane(lane);
    }, Math.max(0, LANE_RESTART_MS - ageMs));
    this.#timers.add(timer);
  }
}

/** Waits for `promise`, but not for ever. */
export async function within(
  promise: Promise<unknown>,
  ms: number,
): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise, timeout]);
  clearTimeout(timer);
}
