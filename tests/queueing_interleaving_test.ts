/**
 * lib/queueing under all interleavings of its threads, step by step (see tests/scheduler.ts): nothing lost, nothing twice,
 * order kept, and empty only when it is. Each check is shown to fail for queues
 * that are subtly wrong.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { type Arena, HEADER } from "../lib/arena.ts";
import { Mailbox, MpscQueues } from "../lib/queueing.ts";
import { PEER } from "../lib/records.ts";
import {
  explore,
  type Explored,
  poke,
  scheduledArena,
  scheduledWords,
  type Thread,
  type View,
} from "./scheduler.ts";

const PRODUCERS = 2;
const ITEMS = 3;

// A peer's queue: head, tail and stub next to each other; then the links.
const QUEUE = 0;
const TAIL = QUEUE + 1;
const STUB = QUEUE + 2;
const LINKS = 10;

function linkOf(node: number): number {
  return node === 0 ? STUB : LINKS + node;
}

/** Steps of a push after which it is half done: it has exchanged the head. */
const HALF = 2;

/** A queue, and how its consumer looks. */
interface Variant {
  queues(): MpscQueues;
  readonly look: Look;
  readonly looks: number;
  /** HALF for it. */
  readonly half?: number;
}

/** Nodes 1 to 3 are the first producer's, 4 to 6 the second's. */
function producer(
  queues: () => MpscQueues,
  number: number,
): Thread<number> {
  return {
    name: `producer ${number}`,
    start: 0,
    operation(pushed: number): number {
      queues().push(QUEUE, number * ITEMS + pushed + 1);
      return pushed + 1;
    },
    done: (pushed) => pushed === ITEMS,
  };
}

/** What the consumer knows: how many nodes of each producer it took. */
interface Got {
  readonly looks: number;
  readonly taken: readonly number[];
}

/** How the consumer looks: a node that it took, or 0. */
type Look = (queues: MpscQueues) => number;

const CONSUMER = PRODUCERS;
/** What a link has when its node is not queued: anything will do. */
const LINK_OF_OWNER = -77;

function consumer(
  queues: () => MpscQueues,
  look: Look,
  most: number,
): Thread<Got> {
  return {
    name: "consumer",
    start: { looks: 0, taken: [0, 0] },
    operation({ looks, taken }: Got): Got {
      const node = look(queues());
      if (node === 0) return { looks: looks + 1, taken };
      poke(LINKS + node, () => LINK_OF_OWNER);
      return { looks: looks + 1, taken: withNode(taken, node) };
    },
    done: ({ looks }) => looks === most,
  };
}

/** A node more. None comes twice, and each producer's come in order. */
function withNode(taken: readonly number[], node: number): readonly number[] {
  const number = Math.floor((node - 1) / ITEMS);
  assertEquals((node - 1) % ITEMS, taken[number], `node ${node} in order`);
  return taken.with(number, taken[number] + 1);
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

/** Whether no push is finished that the consumer did not take, or one is half done. */
function mayBeEmpty(view: View, half: number): boolean {
  const pushed = Number(view.local(0)) + Number(view.local(1));
  const { taken } = view.local(CONSUMER) as Got;
  return sum(taken) >= pushed ||
    [0, 1].some((thread) => view.steps(thread) === half);
}

/** Explores two producers and a consumer of one queue. */
function exploreQueue({ queues, look, looks, half = HALF }: Variant): Explored {
  return explore({
    threads: [
      ...[0, 1].map((number) => producer(queues, number)),
      consumer(queues, look, looks),
    ],
    // Nodes taken before this look, twice, and whether the queue could be taken
    // for empty at some time since it began.
    check(view, thread, past): number {
      const now = mayBeEmpty(view, half) ? 1 : 0;
      if (thread !== CONSUMER || !view.between(CONSUMER)) return past | now;
      const taken = sum((view.local(CONSUMER) as Got).taken);
      const found = taken > past >> 1;
      assert(found || (past | now) % 2 === 1, "found empty, and is not");
      return taken * 2 + now;
    },
    end(view): void {
      const { taken } = view.local(CONSUMER) as Got;
      view.alone(() => {
        assertEquals(drain(queues(), taken), [ITEMS, ITEMS], "lost");
        assert(queues().empty(QUEUE), "empty in the end");
        const left = [0, 1, 2].map((i) => scheduledWords[QUEUE + i]);
        assertEquals(left, [0, 0, 0], "an emptied queue is zero again");
      });
    },
  });
}

function drain(
  queues: MpscQueues,
  taken: readonly number[],
): readonly number[] {
  for (let empty = 0; empty < 2;) {
    const node = queues.pop(QUEUE);
    if (node === 0) empty++;
    else taken = withNode(taken, node);
  }
  return taken;
}

function realQueues(): MpscQueues {
  return new MpscQueues(scheduledWords, LINKS, 1, 1);
}

const pops: Look = (queues) => queues.pop(QUEUE);
const peeksAndPops: Look = (queues) => {
  const node = queues.peek(QUEUE);
  if (node === 0) {
    // Then there is nothing, or it is half done, and that is not empty.
    return 0;
  }
  assertEquals(queues.peek(QUEUE), node, "a peeked node stays");
  const popped = queues.pop(QUEUE);
  assert(popped === 0 || popped === node, "pop gives what peek gave");
  return popped;
};
const looksAndPops: Look = (queues) =>
  queues.empty(QUEUE) ? 0 : queues.pop(QUEUE);

for (
  const { name, look, looks } of [
    { name: "pop", look: pops, looks: 8 },
    { name: "peek and pop", look: peeksAndPops, looks: 8 },
    { name: "empty and pop", look: looksAndPops, looks: 6 },
  ]
) {
  Deno.test(`two producers of three nodes and a consumer, all interleavings: ${name}`, () => {
    const explored = exploreQueue({ queues: realQueues, look, looks });
    // The producers alone have 48,620 interleavings.
    assert(explored.interleavings > 1e12, JSON.stringify(explored));
    assert(explored.ends > 100, JSON.stringify(explored));
  });
}

/** Publishes the node's predecessor's link before its own link is cleared. */
class SwappedStores extends MpscQueues {
  override push(queue: number, node: number): void {
    const previous = Atomics.exchange(scheduledWords, queue, node);
    Atomics.store(scheduledWords, linkOf(previous), node + 1);
    Atomics.store(scheduledWords, linkOf(node), 0);
  }
}

/** Exchanges the head in two steps. */
class TornExchange extends MpscQueues {
  override push(queue: number, node: number): void {
    Atomics.store(scheduledWords, linkOf(node), 0);
    const previous = Atomics.load(scheduledWords, queue);
    Atomics.store(scheduledWords, queue, node);
    Atomics.store(scheduledWords, linkOf(previous), node + 1);
  }
}

/** Takes the last node without putting the stub behind it. */
class NoStub extends MpscQueues {
  override pop(queue: number): number {
    const node = this.peek(queue);
    if (node === 0) return 0;
    const next = Atomics.load(scheduledWords, linkOf(node));
    if (next === 0) Atomics.store(scheduledWords, queue, 0);
    Atomics.store(scheduledWords, TAIL, next === 0 ? 0 : next - 1);
    return node;
  }
}

/** Goes past the stub in one look, and takes the node behind it in the next. */
class LooksTwice extends MpscQueues {
  override pop(queue: number): number {
    if (Atomics.load(scheduledWords, TAIL) !== 0) return super.pop(queue);
    this.peek(queue);
    return 0;
  }
}

for (
  const { wrong, half, message } of [
    { wrong: SwappedStores, half: 1, message: /lost/ },
    { wrong: TornExchange, half: 3, message: /lost/ },
    { wrong: NoStub, half: HALF, message: /node \d in order/ },
    { wrong: LooksTwice, half: HALF, message: /found empty, and is not/ },
  ]
) {
  Deno.test(`a wrong queue is found: ${wrong.name}`, () => {
    const queues = (): MpscQueues => new wrong(scheduledWords, LINKS, 1, 1);
    const error = assertThrows(
      () => exploreQueue({ queues, look: pops, looks: 3, half }),
      Error,
    );
    assertMatch(error.message, message);
    // With the steps that lead to it, of which some are the producers'.
    assertMatch(error.message, /^producer 1: /m);
  });
}

const LIMITS = { peers: 2, allowedIpNodes: 1, sessions: 1, txSlots: 1 };
const PEERS = 2;
const POSTS = 2;

type MakeMailbox = (arena: Arena) => Mailbox;

const realMailbox: MakeMailbox = (arena) =>
  new Mailbox(
    arena,
    HEADER.COMMANDS_QUEUE,
    PEER.COMMANDS,
    PEER.COMMANDS_LINK,
  );

/** Two threads post bits about the same peers, a third takes them. */
function exploreMailbox(make: MakeMailbox): Explored {
  const arena = scheduledArena(LIMITS);
  const poster = (number: number): Thread<number> => ({
    name: `poster ${number}`,
    start: 0,
    operation(posted: number): number {
      make(arena).post(1 + posted % PEERS, 1 << (number * POSTS + posted));
      return posted + 1;
    },
    done: (posted) => posted === POSTS,
  });
  /** Takes, and bits that it got. */
  type Bits = readonly [number, number];
  const reader: Thread<Bits> = {
    name: "reader",
    start: [0, 0],
    operation([takes, bits]: Bits): Bits {
      return [takes + 1, bits | takeBits(make(arena), bits)];
    },
    done: ([takes]) => takes === POSTS * 2 + 1,
  };
  return explore({
    threads: [poster(0), poster(1), reader],
    end(view): void {
      let [, bits] = view.local(2) as Bits;
      view.alone(() => {
        for (let more = true; more;) {
          const got = takeBits(make(arena), bits);
          more = got !== 0;
          bits |= got;
        }
        assert(make(arena).empty, "empty in the end");
      });
      assertEquals(bits, (1 << (2 * POSTS)) - 1, "a bit is lost");
    },
  });
}

/** @returns bits that the next peer has */
function takeBits(mailbox: Mailbox, before: number): number {
  const peer = mailbox.next();
  if (peer === 0) return 0;
  const bits = mailbox.take(peer);
  assert(bits !== 0, "told without a word");
  assertEquals(bits & before, 0, "told twice");
  return bits;
}

Deno.test("no bit of a mailbox is lost, though peers are queued again at once", () => {
  const { interleavings } = exploreMailbox(realMailbox);
  assert(interleavings > 1e9, `${interleavings}`);
});

Deno.test("a wrong mailbox is found: it sets bits behind the push", () => {
  class Hasty extends Mailbox {
    override post(peer: number, bits: number): void {
      const at = scheduledPeer(peer) + PEER.COMMANDS;
      if (Atomics.load(scheduledWords, at) === 0) super.post(peer, bits);
      else Atomics.or(scheduledWords, at, bits);
    }
  }
  const scheduledPeer = (peer: number): number =>
    scheduledArena(LIMITS).peer(peer);
  assertThrows(
    () =>
      exploreMailbox((arena) =>
        new Hasty(
          arena,
          HEADER.COMMANDS_QUEUE,
          PEER.COMMANDS,
          PEER.COMMANDS_LINK,
        )
      ),
    Error,
    "a bit is lost",
  );
});
