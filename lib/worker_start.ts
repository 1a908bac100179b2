/**
 * Starts threads. One can be started ahead, while the one that starts it still
 * loads its own code: making a thread takes 25 ms, in which that one waits.
 *
 * @module
 */

let prepared: Worker | undefined;

/** Starts the thread that {@link newWorker} gives next. */
export function prepareWorker(): void {
  prepared ??= start();
}

/** A thread that runs lib/worker and waits for its options. */
export function newWorker(): Worker {
  const worker = prepared ?? start();
  prepared = undefined;
  return worker;
}

function start(): Worker {
  return new Worker(new URL("./worker.ts", import.meta.url), {
    type: "module",
    name: "wgd",
  });
}
