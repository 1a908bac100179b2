/**
 * The other thread of queue_bench.ts: answers wake-ups, or makes a word
 * contended.
 */
import { libc, signalEvent } from "../../lib/sys/libc.ts";

/** Words that both threads share, a cache line each. */
export const SHARED = {
  STOP: 0,
  /** Raised by the bench, answered in the other. */
  CALL: 16,
  ANSWER: 32,
  /** Counts packets; both threads use it. */
  BOUND: 48,
  WORDS: 64,
} as const;

/** Adds one to a word unless that makes it more than `most`: a loop a packet. */
export function addUnless(
  words: Int32Array<SharedArrayBuffer>,
  at: number,
  most: number,
): boolean {
  for (;;) {
    const before = Atomics.load(words, at);
    if (before >= most) return false;
    if (Atomics.compareExchange(words, at, before, before + 1) === before) {
      return true;
    }
  }
}

/** What the thread is to do until STOP is set. */
export type QueueTask =
  & { readonly shared: SharedArrayBuffer }
  & (
    | { readonly role: "answer words" }
    | {
      readonly role: "answer events";
      readonly callFd: number;
      readonly answerFd: number;
    }
    | { readonly role: "bound by addition" | "bound by exchange" }
  );

const PACKETS = 45;
const MOST = 1 << 30;

function run(task: QueueTask): void {
  const words = new Int32Array(task.shared);
  const stopped = (): boolean => Atomics.load(words, SHARED.STOP) === 1;
  if (task.role === "answer words") {
    for (let seen = 0;; seen++) {
      Atomics.wait(words, SHARED.CALL, seen);
      if (stopped()) return;
      Atomics.add(words, SHARED.ANSWER, 1);
      Atomics.notify(words, SHARED.ANSWER, 1);
    }
  }
  if (task.role === "answer events") {
    const pollfds = new Int32Array([task.callFd, 1]);
    const bytes = new Uint8Array(8);
    const c = libc();
    for (;;) {
      c.poll(pollfds, 1, -1);
      c.read(task.callFd, bytes, 8);
      if (stopped()) return;
      signalEvent(task.answerFd);
    }
  }
  while (!stopped()) {
    if (task.role === "bound by addition") {
      Atomics.add(words, SHARED.BOUND, PACKETS);
      Atomics.sub(words, SHARED.BOUND, PACKETS);
    } else {
      for (let i = 0; i < PACKETS; i++) addUnless(words, SHARED.BOUND, MOST);
      for (let i = 0; i < PACKETS; i++) Atomics.sub(words, SHARED.BOUND, 1);
    }
  }
}

// Imported by the bench for its constants, too: then there is no scope.
if (typeof WorkerGlobalScope !== "undefined") {
  const scope = self as unknown as DedicatedWorkerGlobalScope;
  scope.onmessage = ({ data }: MessageEvent<QueueTask>): void => {
    scope.postMessage("runs");
    run(data);
    scope.postMessage("ended");
    scope.close();
  };
}
