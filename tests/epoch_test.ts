/** lib/epoch: a record is freed when no worker can hold it, and then it is. */
import { assert, assertEquals } from "@std/assert";
import { Arena, HEADER } from "../lib/arena.ts";
import { EpochReader, Grace } from "../lib/epoch.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

function setUp(): {
  grace: Grace;
  outbound: EpochReader;
  inbound: EpochReader;
  freed: number[];
  retire: (record: number) => void;
} {
  const arena = new Arena({
    peers: 1,
    allowedIpNodes: 1,
    sessions: 1,
    txSlots: 1,
  });
  const grace = new Grace(arena);
  const freed: number[] = [];
  const free = (record: number): void => {
    freed.push(record);
  };
  return {
    grace,
    outbound: new EpochReader(arena, HEADER.OUTBOUND_EPOCH),
    inbound: new EpochReader(arena, HEADER.INBOUND_EPOCH),
    freed,
    retire: (record) => grace.retire(free, record),
  };
}

Deno.test("with no worker at its tables, records are freed at once and in order", () => {
  const { grace, freed, retire } = setUp();
  assert(!grace.collect(), "nothing waits");
  for (const record of [3, 1, 2]) retire(record);
  assertEquals(grace.waiting, 3);
  assertEquals(freed, [], "retiring alone frees nothing");
  assert(!grace.collect());
  assertEquals(freed, [3, 1, 2]);
  assertEquals(grace.waiting, 0);
});

for (const name of ["outbound", "inbound"] as const) {
  Deno.test(`what ${name} may hold waits until it leaves`, () => {
    const all = setUp();
    const { grace, freed, retire } = all;
    all[name].enter();
    retire(1);
    for (let i = 0; i < 3; i++) assert(grace.collect(), "still held");
    assertEquals(freed, []);
    all[name].leave();
    assert(!grace.collect());
    assertEquals(freed, [1]);
  });

  Deno.test(`${name} need not be seen outside: leaving and entering again will do`, () => {
    const all = setUp();
    const { grace, freed, retire } = all;
    all[name].enter();
    retire(1);
    assert(grace.collect());
    all[name].leave();
    all[name].enter();
    retire(2);
    assert(grace.collect(), "the second may be held by the second visit");
    assertEquals(freed, [1]);
    all[name].leave();
    assert(!grace.collect());
    assertEquals(freed, [1, 2]);
  });
}

Deno.test("both workers must have left", () => {
  const { grace, outbound, inbound, freed, retire } = setUp();
  outbound.enter();
  inbound.enter();
  retire(1);
  assert(grace.collect());
  outbound.leave();
  assert(grace.collect());
  inbound.leave();
  outbound.enter();
  assert(!grace.collect());
  assertEquals(freed, [1]);
});

Deno.test("a record retired while others wait waits for its own grace period", () => {
  const { grace, outbound, freed, retire } = setUp();
  outbound.enter();
  retire(1);
  assert(grace.collect());
  retire(2);
  assert(grace.collect());
  outbound.leave();
  outbound.enter();
  // The second was unlinked before this visit, but control cannot know that.
  grace.collect();
  assertEquals(freed[0], 1);
  outbound.leave();
  assert(!grace.collect());
  assertEquals(freed, [1, 2]);
});

Deno.test("freeing a record may retire another", () => {
  const { grace, freed, retire } = setUp();
  grace.retire(() => retire(2), 1);
  while (grace.collect());
  assertEquals(freed, [2]);
});

Deno.test("many records are freed in order, a limited number at a time, each by its own function", () => {
  const { grace, outbound, freed } = setUp();
  const COUNT = 50_000;
  const others: number[] = [];
  const free = (record: number): void => void freed.push(record);
  const freeOther = (record: number): void => void others.push(record);
  outbound.enter();
  for (let i = 1; i <= COUNT; i++) {
    grace.retire(free, i);
    // Numbers as large as the words of an arena.
    grace.retire(freeOther, 2 ** 30 - i);
  }
  assert(grace.collect());
  assert(!grace.ready);
  outbound.leave();
  assert(grace.ready);
  assert(grace.collect(100));
  assertEquals([freed.length, others.length], [50, 50]);
  assertEquals(grace.waiting, 2 * COUNT - 100);
  let calls = 0;
  while (grace.collect()) calls++;
  assert(calls > 10, "not all at once");
  assertEquals(freed, Array.from({ length: COUNT }, (_, i) => i + 1));
  assertEquals(others, freed.map((record) => 2 ** 30 - record));
  assert(!grace.ready);
});

Deno.test("no record is freed under a worker that saw it, in any order of events", () => {
  const { grace, outbound, inbound, freed, retire } = setUp();
  const random = new SeededRandom(8);
  const workers = [outbound, inbound].map((reader) => ({
    reader,
    inside: false,
    /** Records that were linked at some time during this visit. */
    holds: new Set<number>(),
  }));
  const linked = new Set<number>();
  let next = 1;
  for (let step = 0; step < 20_000; step++) {
    const worker = workers[random.below(2)];
    const kind = random.below(5);
    if (kind === 0) {
      linked.add(next);
      for (const { inside, holds } of workers) if (inside) holds.add(next);
      next++;
    } else if (kind === 1 && linked.size > 0) {
      const [record] = linked;
      linked.delete(record);
      retire(record);
    } else if (kind === 2) {
      if (worker.inside) worker.reader.leave();
      else worker.reader.enter();
      worker.inside = !worker.inside;
      worker.holds = new Set(worker.inside ? linked : []);
    } else {
      const before = freed.length;
      grace.collect();
      for (const record of freed.slice(before)) {
        for (const { holds } of workers) assert(!holds.has(record), `${step}`);
      }
    }
  }
  for (const { reader, inside } of workers) if (inside) reader.leave();
  assert(!grace.collect());
  assertEquals(freed.length + linked.size, next - 1, "each is freed once");
  assertEquals(new Set(freed).size, freed.length);
});
