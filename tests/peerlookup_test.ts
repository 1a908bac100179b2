/**
 * lib/peerlookup: both tables against a map, indices drawn anew, and a reader
 * without locks beside a writer, on one thread and on two.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { Arena, HEADER } from "../lib/arena.ts";
import { Grace } from "../lib/epoch.ts";
import { IndexReader, IndexTable, PublicKeyTable } from "../lib/peerlookup.ts";
import { KEYPAIR, PEER, SESSION } from "../lib/records.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import {
  RandomInterruptions,
  StoreLog,
  watchedArena,
  withProxies,
} from "./interleaving.ts";
import {
  type IndexReaderReport,
  type IndexReaderTask,
  SHARED,
} from "./peerlookup_reader_worker.ts";

const SLOW = Deno.env.get("WGD_SLOW") === "1";
const INDEX_BUCKETS = 65_536;

function arenaOf(peers: number, sessions: number): Arena {
  return new Arena({ peers, allowedIpNodes: 1, sessions, txSlots: 1 });
}

/** Indices that all fall into two buckets, so that the chains are long. */
function crowded(seed: number): (bytes: Uint8Array<ArrayBuffer>) => void {
  const random = new SeededRandom(seed);
  return (bytes): void => {
    const words = new Uint32Array(bytes.buffer, bytes.byteOffset, 64);
    for (let i = 0; i < words.length; i++) {
      words[i] = Math.imul(random.word(), INDEX_BUCKETS) + random.below(2);
    }
  };
}

function systemRandom(bytes: Uint8Array<ArrayBuffer>): void {
  crypto.getRandomValues(bytes);
}

Deno.test("peers are found by their public key and by no other", () => {
  const arena = arenaOf(64, 1);
  const random = new SeededRandom(1);
  const table = new PublicKeyTable(arena, random.fill(new Uint8Array(16)));
  const keys = new Map<number, Uint8Array>();
  const absent: Uint8Array[] = [];
  for (let step = 0; step < 5_000; step++) {
    const peer = 1 + random.below(64);
    const key = keys.get(peer);
    if (key) {
      assertEquals(table.find(key), peer);
      assert(table.remove(peer));
      assertEquals(table.find(key), 0);
      assert(!table.remove(peer), "it is gone");
      keys.delete(peer);
      absent.push(key);
    } else {
      const fresh = random.fill(new Uint8Array(32));
      arena.bytes(arena.peer(peer) + PEER.PUBLIC_KEY, 32).set(fresh);
      table.insert(peer);
      keys.set(peer, fresh);
    }
    for (const [other, bytes] of keys) assertEquals(table.find(bytes), other);
    const none = absent[random.below(absent.length)];
    if (none) assertEquals(table.find(none), 0);
    // All 64 peers share 64 buckets: keys one bit apart must not be mixed up.
    const near = keys.get(1 + random.below(64))?.slice();
    if (near) {
      near[random.below(32)] ^= 1 << random.below(8);
      assertEquals(table.find(near), 0);
    }
  }
});

Deno.test("two devices put the same keys into different buckets", () => {
  const order = (seed: number): number[] => {
    const arena = arenaOf(64, 1);
    const key = new SeededRandom(seed).fill(new Uint8Array(16));
    const table = new PublicKeyTable(arena, key);
    const random = new SeededRandom(9);
    const { publicKeyBuckets, publicKeyBucketCount } = arena.layout;
    for (let peer = 1; peer <= 64; peer++) {
      random.fill(arena.bytes(arena.peer(peer), 32));
      table.insert(peer);
    }
    return [...arena.u32.subarray(
      publicKeyBuckets,
      publicKeyBuckets + publicKeyBucketCount,
    )];
  };
  assertEquals(order(1), order(1));
  assertNotEquals(order(1), order(2));
});

Deno.test("the index table agrees with a map through all that happens to it", () => {
  const arena = arenaOf(1, 100);
  const table = new IndexTable(arena, crowded(2));
  const random = new SeededRandom(3);
  const indices = new Map<number, { kind: "s" | "k"; number: number }>();
  const of = (kind: "s" | "k", number: number): number => {
    for (const [index, entry] of indices) {
      if (entry.kind === kind && entry.number === number) return index;
    }
    return 0;
  };
  for (let n = 1; n <= 100; n++) {
    arena.u32[arena.session(n) + SESSION.PEER] = 1_000 + n;
    arena.u32[arena.keypair(n) + KEYPAIR.PEER] = 2_000 + n;
  }
  let stale = 12_345;
  for (let step = 0; step < 20_000; step++) {
    const session = 1 + random.below(100);
    const keypair = 1 + random.below(100);
    const [sessionIndex, keypairIndex] = [of("s", session), of("k", keypair)];
    const kind = random.below(4);
    if (kind === 0) {
      const index = table.insertSession(session);
      assert(index > 0 && !indices.has(index), "an index of its own");
      assertEquals(arena.u32[arena.session(session) + 2], index);
      indices.delete(sessionIndex);
      indices.set(index, { kind: "s", number: session });
    } else if (kind === 1) {
      assertEquals(table.removeSession(session), sessionIndex !== 0);
      assertEquals(arena.u32[arena.session(session) + 2], 0);
      indices.delete(sessionIndex);
      if (sessionIndex !== 0) stale = sessionIndex;
    } else if (kind === 2) {
      assertEquals(table.removeKeypair(keypair), keypairIndex !== 0);
      indices.delete(keypairIndex);
      if (keypairIndex !== 0) stale = keypairIndex;
    } else if (keypairIndex === 0) {
      const replaced = table.replaceWithKeypair(session, keypair);
      assertEquals(replaced, sessionIndex !== 0);
      if (replaced) indices.set(sessionIndex, { kind: "k", number: keypair });
      assertEquals(arena.u32[arena.keypair(keypair)], sessionIndex);
      assertEquals(arena.u32[arena.session(session) + 2], 0);
    }
    assertEquals(table.entries, indices.size);
    for (
      const index of [of("s", session), of("k", keypair), stale, 0, 7 << 16]
    ) {
      const entry = indices.get(index);
      const keypairOf = entry?.kind === "k" ? entry.number : 0;
      const sessionOf = entry?.kind === "s" ? entry.number : 0;
      assertEquals(table.findKeypair(index), keypairOf);
      assertEquals(table.findSession(index), sessionOf);
      assertEquals(
        table.findByIndexForCookie(index),
        keypairOf ? 2_000 + keypairOf : sessionOf ? 1_000 + sessionOf : 0,
      );
    }
  }
});

Deno.test("an index is never 0 and never one in use, however often it is drawn", () => {
  const arena = arenaOf(1, 3);
  // A generator that draws each number many times over, and zeros.
  let drawn = 0;
  const table = new IndexTable(arena, (bytes) => {
    const words = new Uint32Array(bytes.buffer);
    for (let i = 0; i < words.length; i++) words[i] = (drawn++ >> 3) % 4;
  });
  const indices = [1, 2, 3].map((session) => table.insertSession(session));
  assertEquals(indices.toSorted(), [1, 2, 3]);
  assert(table.replaceWithKeypair(2, 1));
  assertEquals(table.findKeypair(indices[1]), 1);
  table.removeSession(1);
  assertEquals(
    table.insertSession(2),
    indices[0],
    "the one that is free: those of session 3 and the keypair are not",
  );
});

Deno.test("indices come from the generator and spread over 32 bits", () => {
  const arena = arenaOf(1, 1_000);
  const table = new IndexTable(arena, systemRandom);
  let [or, and] = [0, -1];
  for (let session = 1; session <= 1_000; session++) {
    const index = table.insertSession(session);
    or |= index;
    and &= index;
  }
  assertEquals([or, and], [-1, 0], "each bit is 1 at times and 0 at times");
});

/** A keypair's index in each state, as the index table's updates make it. */
class History {
  readonly #owners = new Map<number, { from: number; keypair: number }[]>();

  set(index: number, keypair: number, state: number): void {
    const list = this.#owners.get(index) ?? [];
    list.push({ from: state, keypair });
    this.#owners.set(index, list);
  }

  get indices(): number[] {
    return [...this.#owners.keys()];
  }

  /** Whether `keypair` had the index in a state from `from` to `to`. */
  allows(index: number, keypair: number, from: number, to: number): boolean {
    for (let state = from; state <= to; state++) {
      const list = this.#owners.get(index) ?? [];
      const owner = list.findLast((entry) => entry.from <= state);
      if ((owner?.keypair ?? 0) === keypair) return true;
    }
    return false;
  }
}

/** Sessions and keypairs in two buckets: long chains, and chains that crowd on a few. */
const CROWDS = [{ sessions: 24, keypairs: 12 }, { sessions: 4, keypairs: 2 }];

for (const { sessions, keypairs } of CROWDS) {
  Deno.test(`a lookup without locks among ${sessions} sessions is right whatever stores pass between its loads`, () => {
    const updates = 600;
    const log = new StoreLog();
    const history = new History();
    const first = arenaOf(1, 256);
    withProxies(() => {
      const table = new IndexTable(log.recording(first), crowded(4));
      const random = new SeededRandom(5);
      const live: number[] = [];
      let [state, next] = [0, 1];
      while (state < updates) {
        const session = 1 + random.below(sessions);
        const word = first.session(session) + SESSION.LOCAL_INDEX;
        const index = first.u32[word];
        if (index !== 0 && random.below(3) === 0) {
          log.update(() => table.replaceWithKeypair(session, next));
          history.set(index, next, ++state);
          live.push(next++);
        } else if (live.length > keypairs && random.below(2) === 0) {
          const [gone] = live.splice(random.below(live.length), 1);
          const old = first.u32[first.keypair(gone) + KEYPAIR.LOCAL_INDEX];
          log.update(() => assert(table.removeKeypair(gone)));
          history.set(old, 0, ++state);
        } else {
          log.update(() => table.insertSession(session));
          state++;
        }
      }
    });

    const indices = history.indices;
    let [found, overlapping] = [0, 0];
    for (let pass = 0; pass < (SLOW ? 2_000 : 150); pass++) {
      const arena = arenaOf(1, 256);
      const random = new SeededRandom(pass);
      const interruptions = new RandomInterruptions(random, sessions / 4);
      const replay = log.replay(arena, () => interruptions.next());
      const reader = new IndexReader(replay.arena);
      withProxies(() => {
        while (!replay.done) {
          // What was given out about now: some gone, most there, some to come.
          const near = replay.completed / updates * indices.length;
          const recent = Math.floor(near) - random.below(keypairs + 2);
          // Nobody has 0, though it is what a record holds that has none.
          const wanted = random.below(4) === 0 ? 0 : indices[recent] ?? 9;
          const from = replay.completed;
          interruptions.allow(8);
          const keypair = reader.findKeypair(wanted);
          assert(
            history.allows(wanted, keypair, from, replay.started),
            `pass ${pass}: ${wanted} gave ${keypair}, ${from}–${replay.started}`,
          );
          if (keypair !== 0) found++;
          if (replay.started > from) overlapping++;
          interruptions.allow(0);
          replay.advance(random.below(3));
        }
      });
    }
    assert(found > updates && overlapping > updates, `${found} ${overlapping}`);
  });
}

Deno.test("a session that moves while a reader stands on it does not lead it astray", () => {
  const sessions = 6;
  for (let moves = 0; moves <= 20; moves++) {
    const arena = arenaOf(1, sessions);
    let drawn = 0;
    const table = new IndexTable(arena, (bytes) => {
      const words = new Uint32Array(bytes.buffer);
      for (let i = 0; i < words.length; i++) {
        words[i] = ++drawn * INDEX_BUCKETS + (drawn > sessions ? 1 : 0);
      }
      // The table uses the last one first.
      words.reverse();
    });
    const index = table.insertSession(1);
    assert(table.replaceWithKeypair(1, 1));
    for (let session = 2; session <= sessions; session++) {
      table.insertSession(session);
    }
    let left = moves;
    const reader = new IndexReader(watchedArena(arena, (word) => {
      const session = (word - arena.session(0)) / SESSION.WORDS -
        SESSION.INDEX_NEXT / SESSION.WORDS;
      if (left === 0 || session < 1 || session > sessions) return;
      left--;
      table.insertSession(session);
    }));
    withProxies(() => assertEquals(reader.findKeypair(index), 1));
    assertEquals(left, 0, "it met all moves");
  }
});

/** Draws `indices` in turn. */
function inTurn(indices: number[]): (bytes: Uint8Array<ArrayBuffer>) => void {
  return (bytes): void => {
    // The table uses the last one first.
    new Uint32Array(bytes.buffer).set(
      indices.toReversed(),
      64 - indices.length,
    );
  };
}

/** Chain of bucket 0: sessions 3 and 2, then keypair 1. Then both move away. */
const MOVES: Record<string, (table: IndexTable) => void> = {
  "as they draw new indices": (table) => {
    table.insertSession(3);
    table.insertSession(2);
  },
  "as they become keypairs and draw new indices": (table) => {
    table.replaceWithKeypair(3, 3);
    table.insertSession(3);
    table.replaceWithKeypair(2, 2);
    table.insertSession(2);
  },
};

for (const [name, moves] of Object.entries(MOVES)) {
  Deno.test(`sessions that leave a chain ${name} never hide what stays in it`, () => {
    const first = arenaOf(1, 4);
    const log = new StoreLog();
    let setUp = 0;
    const stays = 5 * INDEX_BUCKETS;
    withProxies(() => {
      const inBucket0 = [stays, stays * 2, stays * 3];
      const inBucket1 = [1 + stays, 1 + stays * 2];
      const fill = inTurn([...inBucket0, ...inBucket1]);
      const table = new IndexTable(log.recording(first), fill);
      table.insertSession(1);
      assert(table.replaceWithKeypair(1, 1));
      table.insertSession(2);
      table.insertSession(3);
      setUp = log.length;
      moves(table);
    });

    // Two interruptions of any length at any two loads: every one there is.
    const arena = arenaOf(1, 4);
    let loads = 0;
    let plan = { at: 0, stores: 0, then: 0, more: 0 };
    const replay = log.replay(arena, () => {
      loads++;
      if (loads === plan.at) return plan.stores;
      return loads === plan.then ? plan.more : 0;
    });
    const reader = new IndexReader(replay.arena);
    const stores = log.length - setUp;
    withProxies(() => {
      for (let at = 1; at <= 12; at++) {
        for (let then = at + 1; then <= 20; then++) {
          for (let n = 1; n < stores; n++) {
            for (let more = 1; more <= stores - n; more++) {
              replay.reset();
              replay.advance(setUp);
              loads = 0;
              plan = { at, stores: n, then, more };
              const found = reader.findKeypair(stays);
              assertEquals(found, 1, JSON.stringify(plan));
            }
          }
        }
      }
    });
  });
}

Deno.test("a worker never misses a keypair that stays and never gets another's", async () => {
  const target = SLOW ? 1_200_000 : 200_000;
  const stable = SHARED.STABLE_COUNT;
  const arena = arenaOf(1, 256);
  const grace = new Grace(arena);
  const table = new IndexTable(arena, crowded(6));
  const random = new SeededRandom(7);
  const shared = new Int32Array(new SharedArrayBuffer(4 * SHARED.WORDS));
  const establish = (session: number, keypair: number): number => {
    const index = arena.i32[arena.session(session) + SESSION.LOCAL_INDEX];
    arena.i32[arena.keypair(keypair) + KEYPAIR.REMOTE_INDEX] = index;
    assert(table.replaceWithKeypair(session, keypair));
    return index;
  };
  for (let keypair = 1; keypair <= stable; keypair++) {
    // Sessions between them, which will move to other places.
    for (let session = 1; session <= 8; session++) table.insertSession(session);
    shared[SHARED.STABLE + keypair - 1] = establish(1, keypair);
  }
  const { report } = await startReader({
    limits: arena.limits,
    memory: arena.memory,
    shared: shared.buffer,
    epochWord: HEADER.INBOUND_EPOCH,
  });

  const spare = Array.from({ length: 40 }, (_, i) => stable + 1 + i);
  const live: number[] = [];
  const free = (keypair: number): void => {
    arena.zero(arena.keypair(keypair), KEYPAIR.WORDS);
    spare.push(keypair);
  };
  let updates = 0;
  while (updates < 1_000 || Atomics.load(shared, SHARED.LOOKUPS) < target) {
    updates++;
    const session = 1 + random.below(8);
    const keypair = random.below(3) === 0 ? spare.pop() : undefined;
    table.insertSession(session);
    if (keypair !== undefined) {
      const index = establish(session, keypair);
      const slot = SHARED.RECENT + random.below(SHARED.RECENT_COUNT);
      Atomics.store(shared, slot, index);
      live.push(keypair);
    }
    if (live.length > 16) {
      const [gone] = live.splice(random.below(live.length), 1);
      assert(table.removeKeypair(gone));
      grace.retire(free, gone);
    }
    grace.collect();
  }
  Atomics.store(shared, SHARED.STOP, 1);
  const { lookups, found, missed, mixedUp } = await report;
  assertEquals({ missed, mixedUp }, { missed: 0, mixedUp: 0 });
  assert(found > 0, `none of ${lookups} found`);
});

/** A worker that reads from now on; its report comes when it is told to stop. */
function startReader(
  task: IndexReaderTask,
): Promise<{ report: Promise<IndexReaderReport> }> {
  const worker = new Worker(
    new URL("./peerlookup_reader_worker.ts", import.meta.url),
    { type: "module" },
  );
  const ready = Promise.withResolvers<
    { report: Promise<IndexReaderReport> }
  >();
  const report = Promise.withResolvers<IndexReaderReport>();
  worker.onerror = (event): void => {
    event.preventDefault();
    ready.reject(new Error(event.message));
    report.reject(new Error(event.message));
  };
  worker.onmessage = (
    { data }: MessageEvent<"ready" | IndexReaderReport>,
  ): void => {
    if (data !== "ready") return report.resolve(data);
    worker.postMessage(task);
    ready.resolve({ report: report.promise });
  };
  return ready.promise;
}
