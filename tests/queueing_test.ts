/** lib/queueing: the queue, mailboxes, message rings and wake-ups. */
import { assert, assertEquals } from "@std/assert";
import { Arena, HEADER, MESSAGE_ENTRY } from "../lib/arena.ts";
import {
  commandsMailbox,
  controlWaker,
  inboundEvents,
  MessageRing,
  MpscQueues,
  outboundEvents,
  QUEUE_SPREAD,
  Waker,
} from "../lib/queueing.ts";
import { PEER } from "../lib/records.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

const LIMITS = { peers: 64, allowedIpNodes: 1, sessions: 1, txSlots: 1 };
const QUEUE = 0;
const LINKS = 64;
const STRIDE = 3;
const NODES = 40;
/** Words of the queue that steps done by hand touch. */
const HEAD = 0;

/** One queue. */
class Queue {
  readonly #queues: MpscQueues;

  constructor(i32: Int32Array<SharedArrayBuffer>) {
    this.#queues = new MpscQueues(i32, LINKS, STRIDE, QUEUE_SPREAD);
  }

  push(node: number): void {
    this.#queues.push(QUEUE, node);
  }

  pop(): number {
    return this.#queues.pop(QUEUE);
  }
}

function newQueue(): { i32: Int32Array<SharedArrayBuffer>; queue: Queue } {
  const words = LINKS + (NODES + 1) * STRIDE;
  const i32 = new Int32Array(new SharedArrayBuffer(words * 4));
  return { i32, queue: new Queue(i32) };
}

function drain(queue: Queue): number[] {
  const nodes: number[] = [];
  for (let node; (node = queue.pop()) !== 0;) nodes.push(node);
  return nodes;
}

Deno.test("a queue of zeroed memory is empty", () => {
  const { queue } = newQueue();
  assertEquals(queue.pop(), 0);
  assertEquals(queue.pop(), 0);
});

Deno.test("nodes leave the queue in the order that they entered it", () => {
  const { queue } = newQueue();
  for (const node of [5, 1, 40, 2]) queue.push(node);
  assertEquals(drain(queue), [5, 1, 40, 2]);
  assertEquals(queue.pop(), 0);
});

Deno.test("a queue behaves like an array under random pushes and pops", () => {
  const { queue } = newQueue();
  const random = new SeededRandom(3);
  const model: number[] = [];
  for (let step = 0; step < 50_000; step++) {
    if (random.below(2) === 0) {
      const node = 1 + random.below(NODES);
      if (model.includes(node)) continue;
      queue.push(node);
      model.push(node);
    } else {
      assertEquals(queue.pop(), model.shift() ?? 0);
    }
  }
});

Deno.test("a producer half way hides what is behind it, and nothing is lost", () => {
  for (const before of [[], [7], [7, 8]]) {
    const { i32, queue } = newQueue();
    for (const node of before) queue.push(node);
    // push(9), interrupted between its exchange and its store.
    const link = LINKS + 9 * STRIDE;
    Atomics.store(i32, link, 0);
    const previous = Atomics.exchange(i32, QUEUE + HEAD, 9);
    // Another producer comes between; it succeeds.
    queue.push(10);
    assertEquals(drain(queue), before.slice(0, -1), "up to the gap");
    assertEquals(queue.pop(), 0, "the consumer does not block");
    const previousLink = previous === 0
      ? QUEUE + 32
      : LINKS + previous * STRIDE;
    Atomics.store(i32, previousLink, 9 + 1);
    assertEquals(drain(queue), [...before.slice(-1), 9, 10]);
    queue.push(11);
    assertEquals(drain(queue), [11]);
  }
});

Deno.test("a producer half way right after the consumer emptied the queue is waited for", () => {
  const { i32, queue } = newQueue();
  queue.push(1);
  assertEquals(drain(queue), [1]);
  const previous = Atomics.exchange(i32, QUEUE + HEAD, 2);
  assertEquals(queue.pop(), 0);
  assertEquals(queue.pop(), 0);
  assertEquals(previous, 0, "the stub is back");
  Atomics.store(i32, QUEUE + 32, 2 + 1);
  assertEquals(drain(queue), [2]);
});

Deno.test("a mailbox tells a peer once, with all bits that were set", () => {
  const mailbox = commandsMailbox(new Arena(LIMITS));
  mailbox.post(3, 1);
  mailbox.post(5, 2);
  mailbox.post(3, 4);
  mailbox.post(3, 1);
  assertEquals(mailbox.next(), 3);
  assertEquals(mailbox.take(3), 5);
  assertEquals(mailbox.next(), 5);
  assertEquals(mailbox.take(5), 2);
  assertEquals(mailbox.next(), 0);
});

Deno.test("bits set between next and take come with it, those after it anew", () => {
  const mailbox = commandsMailbox(new Arena(LIMITS));
  mailbox.post(1, 1);
  assertEquals(mailbox.next(), 1);
  mailbox.post(1, 2);
  assertEquals(mailbox.take(1), 3);
  assertEquals(mailbox.next(), 0, "not told a second time");
  mailbox.post(1, 8);
  assertEquals(mailbox.next(), 1);
  assertEquals(mailbox.take(1), 8);
});

Deno.test("no bit of any peer is lost under random posts and takes", () => {
  const mailbox = inboundEvents(new Arena(LIMITS));
  const random = new SeededRandom(4);
  const model = new Map<number, number>();
  for (let step = 0; step < 50_000; step++) {
    if (random.below(3) > 0) {
      const peer = 1 + random.below(LIMITS.peers);
      const bits = 1 << random.below(5);
      mailbox.post(peer, bits);
      model.set(peer, (model.get(peer) ?? 0) | bits);
    } else {
      const peer = mailbox.next();
      assertEquals(peer === 0, model.size === 0);
      if (peer === 0) continue;
      assertEquals(mailbox.take(peer), model.get(peer));
      model.delete(peer);
    }
  }
});

Deno.test("the three mailboxes do not mix", () => {
  const arena = new Arena(LIMITS);
  const boxes = [
    commandsMailbox(arena),
    outboundEvents(arena),
    inboundEvents(arena),
  ];
  boxes.forEach((box, i) => box.post(i + 1, 1 << i));
  boxes.forEach((box, i) => {
    assertEquals(box.next(), i + 1);
    assertEquals(box.take(i + 1), 1 << i);
    assertEquals(box.next(), 0);
  });
  const records = arena.bytes(arena.peer(1) + PEER.COMMANDS, 4);
  assertEquals([...records], [0, 0, 0, 0]);
});

function newRing(start = 0): { arena: Arena; ring: MessageRing } {
  const arena = new Arena(LIMITS);
  const at = HEADER.MESSAGES_RING;
  arena.i32[at] = arena.i32[at + 16] = start;
  const ring = new MessageRing(arena, at, arena.layout.messagesRing, 8);
  return { arena, ring };
}

for (const start of [0, 2 ** 31 - 4, -4]) {
  Deno.test(`a ring keeps order and refuses when full, with indices from ${start} on`, () => {
    const { arena, ring } = newRing(start);
    const random = new SeededRandom(5);
    const model: number[] = [];
    for (let step = 0; step < 5_000; step++) {
      assertEquals(ring.length, model.length);
      if (random.below(2) === 0) {
        const entry = ring.reserve();
        assertEquals(entry === 0, model.length === 8);
        if (entry === 0) continue;
        arena.i32[entry + MESSAGE_ENTRY.LENGTH] = step;
        ring.publish();
        model.push(step);
      } else {
        for (let skip = 0; skip <= model.length; skip++) {
          const entry = ring.peek(skip);
          const expected = model[skip];
          assertEquals(entry === 0, expected === undefined);
          if (entry !== 0) {
            assertEquals(arena.i32[entry + MESSAGE_ENTRY.LENGTH], expected);
          }
        }
        if (model.length > 0) {
          ring.release();
          model.shift();
        }
      }
    }
  });
}

Deno.test("a reserved entry is not seen before it is published", () => {
  const { ring } = newRing();
  assert(ring.reserve() !== 0);
  assertEquals(ring.peek(), 0);
  assertEquals(ring.length, 0);
  ring.publish();
  assert(ring.peek() !== 0);
});

Deno.test("entries of a ring do not overlap", () => {
  const { arena, ring } = newRing();
  const entries: number[] = [];
  for (let i = 0; i < 8; i++) {
    entries.push(ring.reserve());
    ring.publish();
  }
  assertEquals(new Set(entries).size, 8);
  assertEquals(entries[7] - entries[0], 7 * MESSAGE_ENTRY.WORDS);
  assertEquals(entries[0], arena.layout.messagesRing);
});

Deno.test("a thread is signalled once, and only when it said that it sleeps", () => {
  const arena = new Arena(LIMITS);
  let signals = 0;
  const waker = new Waker(arena, HEADER.INBOUND_SLEEPS, () => signals++);
  waker.wake();
  assertEquals(signals, 0);
  arena.i32[HEADER.INBOUND_SLEEPS] = 1;
  waker.wake();
  waker.wake();
  assertEquals(signals, 1);
  assertEquals(arena.i32[HEADER.INBOUND_SLEEPS], 0);
});

Deno.test("control's wake word moves on with each wake-up", async () => {
  const arena = new Arena(LIMITS);
  arena.i32[HEADER.CONTROL_SLEEPS] = 1;
  const wait = Atomics.waitAsync(arena.i32, HEADER.CONTROL_WAKE, 0, 5_000);
  controlWaker(arena).wake();
  assertEquals(arena.i32[HEADER.CONTROL_WAKE], 1);
  assertEquals(await wait.value, "ok");
});
