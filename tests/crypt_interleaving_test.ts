/**
 * The ring of lib/crypt under all interleavings of its producer, which takes
 * chains itself when the ring is full, and two lanes (see tests/scheduler.ts):
 * each chain goes to one of them, and no more packets wait than may.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { type Arena, CRYPT_RING_PACKETS, HEADER } from "../lib/arena.ts";
import { CryptRing, SEALING } from "../lib/crypt.ts";
import { CHAIN } from "../lib/records.ts";
import {
  explore,
  type Explored,
  poke,
  scheduledArena,
  scheduledWords,
  type Thread,
  type View,
} from "./scheduler.ts";

const CHAINS = 4;
/** Two chains fill the ring. */
const PACKETS = CRYPT_RING_PACKETS / 2;
const PRODUCER = 0;
const LANES = [1, 2];
/** Times that each lane looks. */
const LOOKS = 3;

const HEAD = HEADER.OUTBOUND_RING;
const TAIL = HEADER.OUTBOUND_RING + 16;
const RING_PACKETS = HEADER.OUTBOUND_RING + 32;
/** So that both indices become negative on the way. */
const INDEX = 0x7fff_fffd;

const arena = scheduledArena(
  { peers: 1, allowedIpNodes: 1, sessions: 1, txSlots: 1 },
);

/** The test's note of the chains that were taken, as bits. */
const TAKEN = 8;
const ALL = (1 << (CHAINS + 1)) - 2;

function note(chain: number): void {
  assert(chain > 0 && chain <= CHAINS, `chain ${chain} was put in`);
  poke(TAKEN, (taken) => {
    assertEquals(taken & 1 << chain, 0, "taken twice");
    return taken | 1 << chain;
  });
}

/** What the producer knows. */
interface Producer {
  readonly pushed: number;
  readonly refused: boolean;
}

function producer(ring: CryptRing): Thread<Producer> {
  return {
    name: "producer",
    start: { pushed: 0, refused: false },
    operation({ pushed, refused }: Producer): Producer {
      if (!refused) {
        const done = ring.push(pushed + 1);
        return { pushed: pushed + (done ? 1 : 0), refused: !done };
      }
      const chain = ring.take();
      if (chain !== 0) note(chain);
      return { pushed, refused: false };
    },
    done: ({ pushed }) => pushed === CHAINS,
  };
}

/** What a lane knows: how often it looked, and whether it found a chain. */
interface Taker {
  readonly looks: number;
  readonly found: boolean;
}

function taker(
  ring: CryptRing,
  number: number,
  retries: boolean,
): Thread<Taker> {
  return {
    name: `lane ${number}`,
    start: { looks: 0, found: false },
    operation({ looks }: Taker): Taker {
      const chain = ring.take();
      if (chain !== 0) note(chain);
      return { looks: looks + 1, found: chain !== 0 };
    },
    done: ({ looks }) => looks === LOOKS,
    forgets: retries ? failedTakes : undefined,
  };
}

/** Results of tries to take a chain that another took: tail, head, chain, tail. */
function failedTakes(results: readonly number[]): number {
  const [tail, , , found] = results;
  return results.length === 4 && found !== tail ? 4 : 0;
}

/** Chains in the ring. */
function waiting(view: View): number {
  return (view.word(HEAD) - view.word(TAIL)) | 0;
}

function exploreRing(
  make: (arena: Arena) => CryptRing,
  retries: boolean,
): Explored {
  const ring = make(arena);
  const fixed = new Map<number, number>();
  for (let chain = 1; chain <= CHAINS; chain++) {
    fixed.set(arena.chain(chain) + CHAIN.COUNT, PACKETS);
  }
  return explore({
    threads: [
      producer(ring),
      ...LANES.map((number) => taker(ring, number, retries)),
    ],
    initial: new Map([[HEAD, INDEX], [TAIL, INDEX]]),
    fixed,
    // Bits: whether the ring was empty at some time of each lane's look.
    check(view, thread, past): number {
      assert(
        waiting(view) * PACKETS <= CRYPT_RING_PACKETS,
        "more packets wait than may",
      );
      const all = LANES.reduce((bits, lane) => bits | 1 << lane, 0);
      const now = waiting(view) === 0 ? all : 0;
      if (thread === PRODUCER || !view.between(thread)) return past | now;
      const { found } = view.local(thread) as Taker;
      const mine = 1 << thread;
      assert(found || ((past | now) & mine) !== 0, "found empty, and is not");
      return past & ~mine | now;
    },
    end(view): void {
      view.alone(() => {
        for (let chain; (chain = ring.take()) !== 0;) note(chain);
        assertEquals(scheduledWords[TAKEN], ALL, "lost");
        assertEquals(scheduledWords[RING_PACKETS], 0, "packets left");
      });
    },
  });
}

Deno.test("a producer of four chains and two lanes, all interleavings: each chain once", () => {
  const explored = exploreRing((arena) => new CryptRing(arena, SEALING), true);

  assert(explored.interleavings > 1e12, JSON.stringify(explored));
});

const words = scheduledWords;
const entryOf = (index: number): number => arena.layout.rings + (index & 255);

/** Publishes an entry before it is written. */
class EntryLast extends CryptRing {
  override push(chain: number): boolean {
    if (Atomics.add(words, RING_PACKETS, PACKETS) >= CRYPT_RING_PACKETS) {
      Atomics.sub(words, RING_PACKETS, PACKETS);
      return false;
    }
    const head = words[HEAD];
    Atomics.store(words, HEAD, (head + 1) | 0);
    words[entryOf(head)] = chain;
    return true;
  }
}

/** Counts the packets when they are in. */
class CountsLate extends CryptRing {
  override push(chain: number): boolean {
    const head = words[HEAD];
    words[entryOf(head)] = chain;
    Atomics.store(words, HEAD, (head + 1) | 0);
    Atomics.add(words, RING_PACKETS, PACKETS);
    return true;
  }
}

/** Moves the tail without looking whether another did. */
class TornTake extends CryptRing {
  override take(): number {
    const tail = Atomics.load(words, TAIL);
    if (tail === Atomics.load(words, HEAD)) return 0;
    const chain = Atomics.load(words, entryOf(tail));
    Atomics.store(words, TAIL, (tail + 1) | 0);
    Atomics.sub(words, RING_PACKETS, PACKETS);
    return chain;
  }
}

/** Gives up where another was faster. */
class GivesUp extends CryptRing {
  override take(): number {
    const tail = Atomics.load(words, TAIL);
    if (tail === Atomics.load(words, HEAD)) return 0;
    const chain = Atomics.load(words, entryOf(tail));
    const next = (tail + 1) | 0;
    if (Atomics.compareExchange(words, TAIL, tail, next) !== tail) return 0;
    Atomics.sub(words, RING_PACKETS, PACKETS);
    return chain;
  }
}

for (
  const { wrong, message } of [
    { wrong: EntryLast, message: /lost/ },
    { wrong: CountsLate, message: /more packets wait than may/ },
    { wrong: TornTake, message: /taken twice/ },
    { wrong: GivesUp, message: /found empty, and is not/ },
  ]
) {
  Deno.test(`a wrong ring is found: ${wrong.name}`, () => {
    const error = assertThrows(
      () => exploreRing((arena) => new wrong(arena, SEALING), false),
      Error,
    );
    assertMatch(error.message, message);
  });
}
