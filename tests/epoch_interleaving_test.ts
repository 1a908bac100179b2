/**
 * lib/epoch under all interleavings of a data worker, whose chains outlive its
 * visits, and control, which retires records (see tests/scheduler.ts): no record
 * is freed while the worker or a chain of it may use it, and each is freed in
 * the end.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type Arena, HEADER } from "../lib/arena.ts";
import { EpochReader, type Free, Grace } from "../lib/epoch.ts";
import {
  explore,
  type Explored,
  scheduledArena,
  scheduledWords,
  type Thread,
} from "./scheduler.ts";

const RECORDS = [1, 2];
const VISITS = 4;
/** Visits that a chain may live: its own, the next too, or longer than all. */
const LIVES = [0, 1, 3];
/** Times that control looks whether it can free while the worker works. */
const COLLECTS = 2;

/** The number of the record that is linked, 0: none. */
const LINK = 0;
/** Whether a record was freed: a word for each. */
const FREED = 1;
/** 1 when the worker has ended. */
const ENDED = 8;

const EPOCH = HEADER.OUTBOUND_EPOCH;
const DONE = HEADER.OUTBOUND_EPOCH + HEADER.EPOCH_DONE;

const arena = scheduledArena(
  { peers: 1, allowedIpNodes: 1, sessions: 1, txSlots: 1 },
);

type MakeReader = (arena: Arena) => EpochReader;
type MakeGrace = (arena: Arena) => Grace;

const realReader: MakeReader = (arena) =>
  new EpochReader(arena, HEADER.OUTBOUND_EPOCH);
const realGrace: MakeGrace = (arena) => new Grace(arena);

function use(record: number): void {
  const freed = Atomics.load(scheduledWords, FREED + record);
  assertEquals(freed, 0, `record ${record} is used after it was freed`);
}

/** A chain of a record, to be released in visit `until`. */
interface Held {
  readonly record: number;
  readonly stamp: number;
  readonly until: number;
}

/**
 * A worker that makes a chain of what it finds in each visit. `lives` says how
 * many visits each chain lives: 0 is released at the end of its own.
 */
function worker(make: MakeReader, lives: readonly number[]): Thread<boolean> {
  return {
    name: `worker ${lives.join("")}`,
    start: false,
    operation(): boolean {
      const epoch = make(arena);
      let chains: Held[] = [];
      for (let visit = 0; visit < VISITS; visit++) {
        epoch.enter();
        const record = Atomics.load(scheduledWords, LINK);
        if (record !== 0) {
          const stamp = epoch.hold();
          chains.push({ record, stamp, until: visit + lives[visit] });
        }
        for (const chain of chains) {
          if (chain.until > visit) continue;
          use(chain.record);
          epoch.release(chain.stamp);
        }
        chains = chains.filter(({ until }) => until > visit);
        epoch.leave();
      }
      for (const { record, stamp } of chains) {
        use(record);
        epoch.release(stamp);
      }
      epoch.enter();
      epoch.leave();
      Atomics.store(scheduledWords, ENDED, 1);
      Atomics.notify(scheduledWords, ENDED);
      return true;
    },
    done: (ended) => ended,
  };
}

/** Links one record after the other, and retires the one before. */
function control(make: MakeGrace): Thread<boolean> {
  return {
    name: "control",
    start: false,
    operation(): boolean {
      const grace = make(arena);
      const free = (record: number): void => {
        Atomics.store(scheduledWords, FREED + record, 1);
      };
      for (const record of RECORDS) {
        const next = record === RECORDS.length ? 0 : record + 1;
        Atomics.store(scheduledWords, LINK, next);
        grace.retire(free, record);
        grace.collect();
      }
      for (let i = 0; i < COLLECTS && grace.collect(); i++);
      Atomics.wait(scheduledWords, ENDED, 0);
      grace.collect();
      return true;
    },
    done: (ended) => ended,
  };
}

function exploreEpochs(
  { lives, start = 0, reader = realReader, grace = realGrace }: {
    readonly lives: readonly number[];
    /** The first epoch. */
    readonly start?: number;
    readonly reader?: MakeReader;
    readonly grace?: MakeGrace;
  },
): Explored {
  return explore({
    threads: [worker(reader, lives), control(grace)],
    initial: new Map<number, number>([
      [LINK, RECORDS[0]],
      [EPOCH, start],
      [DONE, start],
    ]),
    fixed: new Map<number, number>([
      [HEADER.INBOUND_EPOCH, 0],
      [HEADER.INBOUND_EPOCH + HEADER.EPOCH_DONE, 0],
    ]),
    end(view): void {
      const freed = RECORDS.map((record) => view.word(FREED + record));
      assertEquals(freed, RECORDS.map(() => 1), "a record is never freed");
    },
  });
}

/** All ways in which the chains of some visits may live. */
function* allLives(visits: number): Generator<number[]> {
  if (visits === 0) {
    yield [];
    return;
  }
  for (const rest of allLives(visits - 1)) {
    for (const life of LIVES) yield [life, ...rest];
  }
}

Deno.test("no record is freed under a chain, however long each lives", () => {
  for (const lives of allLives(VISITS - 1)) {
    const explored = exploreEpochs({ lives: [...lives, 1] });
    assert(explored.interleavings > 1e6, JSON.stringify(explored));
  }
});

for (const start of [0x7fff_fffd, -3]) {
  Deno.test(`the same where epochs wrap: from ${start} on`, () => {
    for (const lives of [[0, 0, 0, 0], [1, 3, 0, 1], [2, 1, 1, 0]]) {
      const explored = exploreEpochs({ lives, start });
      assert(explored.interleavings > 1e6, JSON.stringify(explored));
    }
  });
}

/** Its chains do not keep their epoch. */
class HoldsNothing extends EpochReader {
  override hold(): number {
    return 0;
  }

  override release(): void {}
}

/** Begins its epoch when it has looked. */
class EntersLate extends EpochReader {
  override enter(): void {}

  override leave(): void {
    super.enter();
    super.leave();
  }
}

/** Begins a third epoch while the first has chains, and mixes them up. */
class ThirdEpoch extends EpochReader {
  #epoch = 0;
  readonly #held = [0, 0];

  override enter(): void {
    Atomics.store(scheduledWords, EPOCH, ++this.#epoch);
  }

  override leave(): void {
    const [even, odd] = this.#held.map((held) => held > 0);
    const present = this.#epoch % 2 === 0 ? even : odd;
    const before = this.#epoch % 2 === 0 ? odd : even;
    const left = before ? 2 : present ? 1 : 0;
    Atomics.store(scheduledWords, DONE, this.#epoch - left);
  }

  override hold(): number {
    this.#held[this.#epoch & 1]++;
    return this.#epoch;
  }

  override release(epoch: number): void {
    this.#held[epoch & 1]--;
  }
}

/** Never says that it is done. */
class NeverDone extends EpochReader {
  override leave(): void {}
}

const reader = (wrong: typeof EpochReader): MakeReader => (arena) =>
  new wrong(arena, EPOCH);

/** Waits for the epoch before the present one. */
class HastyGrace extends Grace {
  readonly #waiting: { free: Free; record: number; epoch: number }[] = [];

  override retire(free: Free, record: number): void {
    const epoch = Atomics.load(scheduledWords, EPOCH) - 1;
    this.#waiting.push({ free, record, epoch });
  }

  override collect(): boolean {
    for (let first; (first = this.#waiting[0]) !== undefined;) {
      if (Atomics.load(scheduledWords, DONE) < first.epoch) return true;
      first.free(first.record);
      this.#waiting.shift();
    }
    return false;
  }
}

for (
  const { name, wrong, message } of [
    { name: "HoldsNothing", wrong: { reader: reader(HoldsNothing) } },
    { name: "EntersLate", wrong: { reader: reader(EntersLate) } },
    { name: "ThirdEpoch", wrong: { reader: reader(ThirdEpoch) } },
    { name: "HastyGrace", wrong: { grace: () => new HastyGrace(arena) } },
    {
      name: "NeverDone",
      wrong: { reader: reader(NeverDone) },
      message: "never freed",
    },
  ]
) {
  Deno.test(`a wrong grace period is found: ${name}`, () => {
    assertThrows(
      () => exploreEpochs({ lives: [3, 1, 1, 1], ...wrong }),
      Error,
      message ?? "is used after it was freed",
    );
  });
}
