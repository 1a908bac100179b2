/**
 * Self-test of the MPSC queue: order and emptiness, and a producer that stops
 * half way, as the consumer sees it.
 *
 * @module
 */
import { bug } from "../assert.ts";
import { MpscQueues } from "../queueing.ts";

const QUEUE_WORDS = 3;
const NODES = 16;
const QUEUE = 0;

/** @throws BugError if the queue loses, doubles or reorders nodes */
export function queueingSelftest(): void {
  const words = new SharedArrayBuffer((QUEUE_WORDS + NODES + 1) * 4);
  const queues = new MpscQueues(new Int32Array(words), QUEUE_WORDS, 1, 1);
  bug(queues.empty(QUEUE) && queues.pop(QUEUE) === 0, "a new queue is empty");
  for (let round = 1; round <= NODES; round++) {
    for (let node = 1; node <= round; node++) queues.push(QUEUE, node);
    bug(!queues.empty(QUEUE), "what was pushed is there");
    for (let node = 1; node <= round; node++) {
      bug(
        queues.pop(QUEUE) === node,
        "nodes come in the order of their pushes",
      );
      if (node % 3 === 0) queues.push(QUEUE, node);
    }
    for (let node = 3; node <= round; node += 3) {
      bug(queues.pop(QUEUE) === node, "nodes pushed again come last");
    }
    bug(
      queues.empty(QUEUE) && queues.pop(QUEUE) === 0,
      "the queue is empty again",
    );
  }
}
