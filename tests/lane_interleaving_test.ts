/**
 * The sleep of lanes and of the workers that wait for them, under all
 * interleavings (see tests/scheduler.ts): no wake-up is lost, so nobody sleeps
 * while there is work for him. Lanes are the real ones, with a cipher that does
 * nothing.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { HEADER } from "../lib/arena.ts";
import {
  CryptRing,
  type Direction,
  doneQueues,
  laneChainWord,
  LaneWaker,
  OPENING,
  SEALING,
} from "../lib/crypt.ts";
import type { Aead } from "../lib/crypto/aead.ts";
import { Lane, type LaneParts, wakeAllLanes } from "../lib/lane.ts";
import { Waker } from "../lib/queueing.ts";
import { CHAIN } from "../lib/records.ts";
import {
  aside,
  explore,
  type Explored,
  scheduledArena,
  scheduledWords,
  type Thread,
  type View,
} from "./scheduler.ts";

const arena = scheduledArena(
  { peers: 1, allowedIpNodes: 1, sessions: 1, txSlots: 1 },
);
const LANES = 2;
const SEALED = [1, 2];
const OPENED = OPENING.firstChain;

/** Stands for an eventfd: 1 while it is readable. */
const EVENT = 4;
/** A word that nobody ever notifies. */
const NEVER = 5;

const idle: Aead = { name: "none", seal: () => {}, open: () => {} };
/** A lane that is given work does not come back. */
const endless: Aead = {
  name: "endless",
  seal: () => Atomics.wait(scheduledWords, NEVER, 0),
  open: () => Atomics.wait(scheduledWords, NEVER, 0),
};

function silent(): Waker {
  return new Waker(arena, HEADER.INBOUND_SLEEPS, () => {});
}

function signalled(): Waker {
  return new Waker(arena, HEADER.OUTBOUND_SLEEPS, () => {
    Atomics.store(scheduledWords, EVENT, 1);
    Atomics.notify(scheduledWords, EVENT);
  });
}

/** Words that do not change where only `directions` have chains. */
function fixedWords(
  directions: readonly Direction[],
  stops = false,
): Map<number, number> {
  const fixed = new Map<number, number>([[HEADER.INBOUND_SLEEPS, 0]]);
  if (!stops) fixed.set(HEADER.RUNNING, 1);
  for (const chain of [...SEALED, OPENED]) {
    fixed.set(arena.chain(chain) + CHAIN.COUNT, 1);
  }
  for (const { ring } of [SEALING, OPENING]) {
    if (directions.some((direction) => direction.ring === ring)) continue;
    fixed.set(ring, 0).set(ring + 16, 0);
  }
  return fixed;
}

/** The lists of chains that are done: proved by queueing_interleaving_test.ts. */
function isDoneList(at: number): boolean {
  const link = at - arena.chain(0) - CHAIN.DONE_LINK;
  return (at >= HEADER.OUTBOUND_DONE && at < HEADER.OUTBOUND_RING) ||
    (link >= 0 && link % CHAIN.WORDS === 0);
}

/** Rings, and the lanes' own sleep: proved by the tests above. */
function isRing(at: number): boolean {
  return (at >= HEADER.OUTBOUND_RING && at < HEADER.LANE_CHAINS) ||
    (at >= arena.layout.rings && at < arena.layout.chains);
}

/** What the code adds without a look at what was there. */
function isUnused(name: string, at: number): boolean {
  return name === "sub" || (name === "add" &&
    (at === HEADER.LANES_ASLEEP || at === HEADER.LANES_WAKE));
}

const unread = new Set(
  Array.from({ length: LANES }, (_, lane) => laneChainWord(lane)),
);

const NEXT_LOOP = new Error("next loop");

/** What a lane knows between two loops: which ring comes first, and the end. */
interface Loops {
  readonly turn: number;
  readonly ended: boolean;
}

type MakeLane = (parts: LaneParts) => Lane;
const realLane: MakeLane = (parts) => new Lane(parts);

/** A lane; each loop of its `run` is an operation. */
function laneThread(
  number: number,
  { make = realLane, aead = idle, outbound = silent(), turns = false }: {
    readonly make?: MakeLane;
    readonly aead?: Aead;
    readonly outbound?: Waker;
    /** Whether both directions have chains. */
    readonly turns?: boolean;
  } = {},
): Thread<Loops> {
  const parts = { arena, aead, lane: number, outbound, inbound: silent() };
  return {
    name: `lane ${number}`,
    start: { turn: 0, ended: false },
    operation({ turn }: Loops): Loops {
      const lane = make(parts);
      if (turn === 1) aside(() => lane.step());
      // Stopped at the second loop; `run` has looked at RUNNING twice then,
      // which is no more than to look once, and then to go on.
      const step = lane.step.bind(lane);
      let loops = 0;
      lane.step = (): boolean => {
        if (loops++ === 1) throw NEXT_LOOP;
        return step();
      };
      try {
        lane.run();
      } catch (error) {
        if (error !== NEXT_LOOP) throw error;
        return { turn: turns ? turn ^ 1 : 0, ended: false };
      }
      return { turn, ended: true };
    },
    done: ({ ended }) => ended,
  };
}

/** Puts chains into a ring, as lib/crypt does: some, then one wake-up. */
function producer(
  direction: Direction,
  batches: readonly (readonly number[])[],
  wake: (push: () => void) => void = (push) => {
    push();
    new LaneWaker(arena, LANES).wake();
  },
): Thread<number> {
  return {
    name: "producer",
    start: 0,
    operation(done: number): number {
      const ring = new CryptRing(arena, direction);
      wake(() => batches[done].forEach((chain) => ring.push(chain)));
      return done + 1;
    },
    done: (done) => done === batches.length,
  };
}

/** Chains that lanes have finished. */
function finished(view: View): number[] {
  return view.alone(() => {
    const chains: number[] = [];
    for (let chain; (chain = popDone()) !== 0;) chains.push(chain);
    return chains.sort();
  });
}

function popDone(): number {
  return doneQueues(arena).pop(HEADER.OUTBOUND_DONE);
}

function lanesWork(
  thread: Thread<number>,
  make: MakeLane = realLane,
): Explored {
  return explore({
    threads: [
      thread,
      ...Array.from({ length: LANES }, (_, n) => laneThread(n, { make })),
    ],
    fixed: fixedWords([SEALING]),
    unread,
    joined: isDoneList,
    unused: isUnused,
    end(view): void {
      for (let n = 1; n <= LANES; n++) {
        assert(view.sleeps(n), "idle lanes sleep");
      }
      assertEquals(finished(view), SEALED, "chains are left");
      assertEquals(view.word(HEADER.LANES_ASLEEP), LANES, "all are counted");
    },
  });
}

for (
  const { name, batches } of [
    { name: "one by one", batches: [[1], [2]] },
    { name: "in one batch", batches: [[1, 2]] },
  ]
) {
  Deno.test(`lanes do all chains, and sleep then: two chains ${name}`, () => {
    const explored = lanesWork(producer(SEALING, batches));
    assert(explored.interleavings > 1e9, JSON.stringify(explored));
  });
}

Deno.test("a lane that is long at its work keeps no other asleep", () => {
  const explored = explore({
    threads: [
      producer(SEALING, [[1]]),
      producer(OPENING, [[OPENED]]),
      laneThread(0, { aead: endless, turns: true }),
      laneThread(1, { aead: endless, turns: true }),
    ],
    fixed: fixedWords([SEALING, OPENING]),
    unread,
    joined: isDoneList,
    unused: isUnused,
    end(view): void {
      for (const { ring } of [SEALING, OPENING]) {
        assertEquals(view.word(ring), view.word(ring + 16), "a chain waits");
      }
    },
  });
  assert(explored.interleavings > 1e9, JSON.stringify(explored));
});

/** Ends the lanes as lib/workers does. */
const stopper: Thread<boolean> = {
  name: "control",
  start: false,
  operation(): boolean {
    Atomics.store(scheduledWords, HEADER.RUNNING, 0);
    wakeAllLanes(arena);
    return true;
  },
  done: (stopped) => stopped,
};

function lanesEnd(make: MakeLane): Explored {
  return explore({
    threads: [
      stopper,
      producer(SEALING, [[1]]),
      laneThread(0, { make }),
      laneThread(1, { make }),
    ],
    initial: new Map<number, number>([[HEADER.RUNNING, 1]]),
    fixed: fixedWords([SEALING], true),
    unread,
    joined: isDoneList,
    unused: isUnused,
    end: (view) => assert(view.ended(2) && view.ended(3), "a lane sleeps on"),
  });
}

Deno.test("lanes end when they are told, asleep or not", () => {
  const explored = lanesEnd(realLane);
  assert(explored.interleavings > 1e9, JSON.stringify(explored));
});

/** A lane whose loop differs. */
abstract class WrongLane extends Lane {
  readonly words = scheduledWords;

  constructor(parts: LaneParts) {
    super(parts);
  }

  override run(): void {
    while (Atomics.load(this.words, HEADER.RUNNING) === 1) {
      if (!this.step()) this.sleep();
    }
  }

  abstract sleep(): void;

  get idle(): boolean {
    return new CryptRing(arena, SEALING).empty &&
      new CryptRing(arena, OPENING).empty;
  }

  wait(seen: number): void {
    Atomics.wait(this.words, HEADER.LANES_WAKE, seen);
    Atomics.sub(this.words, HEADER.LANES_ASLEEP, 1);
  }
}

/** Goes to sleep without another look. */
class LooksOnce extends WrongLane {
  override sleep(): void {
    Atomics.add(this.words, HEADER.LANES_ASLEEP, 1);
    this.wait(Atomics.load(this.words, HEADER.LANES_WAKE));
  }
}

/** Takes a wake-up since its look for one before it. */
class LooksEarly extends WrongLane {
  override sleep(): void {
    Atomics.add(this.words, HEADER.LANES_ASLEEP, 1);
    if (!this.idle || Atomics.load(this.words, HEADER.RUNNING) === 0) {
      Atomics.sub(this.words, HEADER.LANES_ASLEEP, 1);
      return;
    }
    this.wait(Atomics.load(this.words, HEADER.LANES_WAKE));
  }
}

/** Says that it sleeps only after it has looked. */
class SaysLate extends WrongLane {
  override sleep(): void {
    const seen = Atomics.load(this.words, HEADER.LANES_WAKE);
    if (!this.idle || Atomics.load(this.words, HEADER.RUNNING) === 0) return;
    Atomics.add(this.words, HEADER.LANES_ASLEEP, 1);
    this.wait(seen);
  }
}

/** Does not look whether it shall end. */
class SleepsOn extends WrongLane {
  override sleep(): void {
    Atomics.add(this.words, HEADER.LANES_ASLEEP, 1);
    const seen = Atomics.load(this.words, HEADER.LANES_WAKE);
    if (this.idle) this.wait(seen);
    else Atomics.sub(this.words, HEADER.LANES_ASLEEP, 1);
  }
}

for (const wrong of [LooksOnce, LooksEarly, SaysLate]) {
  Deno.test(`a wrong lane is found: ${wrong.name}`, () => {
    const make: MakeLane = (parts) => new wrong(parts);
    const error = assertThrows(
      () => lanesWork(producer(SEALING, [[1], [2]]), make),
      Error,
    );
    assertMatch(error.message, /chains are left/);
  });
}

Deno.test("a wrong lane is found: SleepsOn", () => {
  assertThrows(
    () => lanesEnd((parts) => new SleepsOn(parts)),
    Error,
    "a lane sleeps on",
  );
});

Deno.test("a wrong producer is found: it wakes before it pushes", () => {
  const early = producer(SEALING, [[1], [2]], (push) => {
    new LaneWaker(arena, LANES).wake();
    push();
  });
  assertThrows(() => lanesWork(early), Error, "chains are left");
});

/** What the worker knows: chains that it has from the lanes. */
type Delivered = readonly number[];

/**
 * A worker that waits for chains, as lib/loop does: it says that it sleeps,
 * looks again, and waits for its eventfd.
 */
function worker(looksAgain: boolean): Thread<Delivered> {
  return {
    name: "worker",
    start: [],
    operation(delivered: Delivered): Delivered {
      const chain = popDone();
      if (chain !== 0) return [...delivered, chain].sort();
      Atomics.store(scheduledWords, HEADER.OUTBOUND_SLEEPS, 1);
      const list = doneQueues(arena);
      if (!looksAgain || list.empty(HEADER.OUTBOUND_DONE)) {
        Atomics.wait(scheduledWords, EVENT, 0);
      }
      Atomics.store(scheduledWords, HEADER.OUTBOUND_SLEEPS, 0);
      Atomics.store(scheduledWords, EVENT, 0);
      return delivered;
    },
    done: (delivered) => delivered.length === SEALED.length,
  };
}

function workerWaits(looksAgain: boolean): Explored {
  return explore({
    threads: [
      worker(looksAgain),
      ...[0, 1].map((n) => laneThread(n, { outbound: signalled() })),
    ],
    initial: new Map<number, number>([
      [HEADER.OUTBOUND_RING, 2],
      [HEADER.OUTBOUND_RING + 32, 2],
      ...SEALED.map((chain, i) => [arena.layout.rings + i, chain] as const),
    ]),
    fixed: fixedWords([SEALING]),
    unread,
    joined: isRing,
    unused: isUnused,
    end: (view) => assertEquals(view.local(0), SEALED, "chains wait"),
  });
}

Deno.test("a worker that waits for two lanes gets what both have done", () => {
  const explored = workerWaits(true);
  assert(explored.interleavings > 1e9, JSON.stringify(explored));
});

Deno.test("a wrong worker is found: it does not look again", () => {
  assertThrows(() => workerWaits(false), Error, "chains wait");
});
