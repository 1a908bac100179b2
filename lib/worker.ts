/**
 * Entry of the workers: data workers, and lanes. A blocking loop, started by one
 * message. It never sees another: control talks through the arena, eventfds and
 * the lanes' wake word.
 *
 * @module
 */
import { Arena, type ArenaLimits, HEADER } from "./arena.ts";
import { type ChosenAead, createDataAead } from "./aead_choice.ts";
import { dropWorkerRights } from "./harden.ts";
import { Lane } from "./lane.ts";
import { Loop, type LoopOptions } from "./loop.ts";
import { Waker } from "./queueing.ts";
import { signalEvent } from "./sys/libc.ts";
import { ownThread } from "./sys/thread.ts";

/** What a lane is started with. */
export interface LaneOptions {
  readonly role: "lane";
  readonly limits: ArenaLimits;
  readonly memory: WebAssembly.Memory;
  /** Its number, from 0. */
  readonly lane: number;
  readonly crypto: ChosenAead;
  readonly harden?: boolean;
  /** Wake the workers that deliver chains. */
  readonly outboundFd: number;
  readonly inboundFd: number;
}

/** What a worker tells the thread that started it. */
export type WorkerReport =
  | {
    state: "ready";
    /** The thread, as /proc names it. */
    thread?: string;
  }
  | { state: "done" }
  | {
    state: "failed";
    reason: string;
  };

/** What a worker is started with. */
export type WorkerOptions = LoopOptions | LaneOptions;

const scope = self as unknown as {
  onmessage: ((event: MessageEvent<WorkerOptions>) => void) | null;
  postMessage(report: WorkerReport): void;
  close(): void;
};

function makeLane(options: LaneOptions): Lane {
  const arena = new Arena(options.limits, options.memory);
  const { lane, outboundFd, inboundFd } = options;
  return new Lane({
    arena,
    lane,
    aead: createDataAead(arena.memory, arena.laneWork(lane), options.crypto),
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
}

scope.onmessage = ({ data }): void => {
  try {
    const loop = data.role === "lane" ? makeLane(data) : new Loop(data);
    const thread = ownThread();
    // Its code is loaded, and what it works on is open.
    if (data.harden) dropWorkerRights();
    scope.postMessage({ state: "ready", thread });
    loop.run();
    scope.postMessage({ state: "done" });
  } catch (error) {
    const reason = error instanceof Error
      ? error.stack ?? error.message
      : String(error);
    scope.postMessage({ state: "failed", reason });
  }
  scope.close();
};
