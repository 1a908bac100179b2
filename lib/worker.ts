/**
 * Entry of the data workers: a blocking loop, started by one message. It never
 * sees another: control talks through the arena and the eventfd.
 *
 * @module
 */
import { Loop, type LoopOptions } from "./loop.ts";

/** What a worker tells the thread that started it. */
export type WorkerReport = { state: "ready" } | { state: "done" } | {
  state: "failed";
  reason: string;
};

const scope = self as unknown as {
  onmessage: ((event: MessageEvent<LoopOptions>) => void) | null;
  postMessage(report: WorkerReport): void;
  close(): void;
};

scope.onmessage = ({ data }): void => {
  try {
    const loop = new Loop(data);
    scope.postMessage({ state: "ready" });
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
