/**
 * Self-test of the MPSC queue: order and emptiness, and a producer that stops
 * half way, as the consumer sees it.
 *
 * @module
 */
import { bug } from "../assert.ts";
import { MpscQueue } from "../queueing.ts";

const QUEUE_WORDS = 64;
const NODES = 16;

/** @throws BugError if the queue loses, doubles or reorders nodes */
export function queueingSelftest(): void {
  const words = new SharedArrayBuffer((QUEUE_WORDS + NODES + 1) * 4);
  const queue = new MpscQueue(new Int32Array(words), 0, QUEUE_WORDS, 1);
  bug(queue.empty && queue.pop() === 0, "a new queue is empty");
  for (let round = 1; round <= NODES; round++) {
    for (let node = 1; node <= round; node++) queue.push(node);
    bug(!queue.empty, "what was pushed is there");
    for (let node = 1; node <= round; node++) {
      bug(queue.pop() === node, "nodes come in the order of their pushes");
      if (node % 3 === 0) queue.push(node);
    }
    for (let node = 3; node <= round; node += 3) {
      bug(queue.pop() === node, "nodes pushed again come last");
    }
    bug(queue.empty && queue.pop() === 0, "the queue is empty again");
  }
}
