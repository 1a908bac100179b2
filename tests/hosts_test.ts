/**
 * lib/hosts: against a map, and each load of a reader between any two stores of
 * the writer.
 */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "../lib/arena.ts";
import { Hosts, HostsReader, keyOfWords } from "../lib/hosts.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import { RandomInterruptions, StoreLog, withProxies } from "./interleaving.ts";

const HEADER = 580;

function newArena(allowedIpNodes = 1): Arena {
  return new Arena({ peers: 1, allowedIpNodes, sessions: 1, txSlots: 1 });
}

function tableOf(arena: Arena): Hosts {
  const { hosts4, hostBucketCount } = arena.layout;
  return new Hosts(arena, HEADER, hosts4, hostBucketCount);
}

for (const order of ["random", "in order", "256 apart", "65,536 apart"]) {
  Deno.test(`nearly all of 20,000 keys ${order} are found, with their values`, () => {
    const table = tableOf(newArena(1 << 20));
    const random = new SeededRandom(3);
    const step = order === "in order"
      ? 1
      : order === "256 apart"
      ? 256
      : 65_536;
    const keys = new Map<number, number>();
    assert(table.empty);
    for (let i = 1; keys.size < 20_000; i++) {
      const key = order === "random" ? random.word() | 0 : Math.imul(i, step);
      if (keys.has(key)) continue;
      keys.set(key, i);
      table.insert(key, i);
    }
    let missed = 0;
    for (const [key, value] of keys) {
      const found = table.find(key);
      if (found === 0) missed++;
      else assertEquals(found, value);
    }
    assert(missed < keys.size / 100, `${missed} are left to the trie`);
    for (const [key, value] of keys) table.remove(key, value);
    for (const key of keys.keys()) assertEquals(table.find(key), 0);
  });
}

Deno.test("the table agrees with a map, through growth and full buckets", () => {
  const table = tableOf(newArena());
  const random = new SeededRandom(4);
  const keys = new Map<number, number>();
  let found = 0;
  for (let step = 1; step < 100_000; step++) {
    // More keys than there is room for, which is 256 buckets of eight.
    const key = random.below(4_000) - 2_000;
    const value = keys.get(key);
    if (value !== undefined && random.below(3) > 0) {
      table.remove(key, value);
      keys.delete(key);
    } else if (value === undefined) {
      table.insert(key, step);
      keys.set(key, step);
    }
    const wanted = random.below(4_000) - 2_000;
    const answer = table.find(wanted);
    if (answer === 0) continue;
    found++;
    assertEquals(answer, keys.get(wanted), "a value that is not the key's");
  }
  assert(found > 30_000);
});

Deno.test("a key of four words depends on each of them", () => {
  const words = [0xfd00_0000, 1, 2, 3] as const;
  const keys = new Set<number>();
  for (let word = 0; word < 4; word++) {
    for (let bit = 0; bit < 32; bit++) {
      const changed = words.map((w, i) => i === word ? w ^ (1 << bit) : w);
      keys.add(keyOfWords(changed[0], changed[1], changed[2], changed[3]));
    }
  }
  assertEquals(keys.size, 4 * 32);
});

Deno.test("a reader never gets another key's value, whatever stores pass between its loads", () => {
  const KEYS = 24;
  const UPDATES = 600;
  const random = new SeededRandom(9);
  const log = new StoreLog();
  /** Value of each key after each update, 0: none. */
  const states: number[][] = [new Array<number>(KEYS).fill(0)];
  withProxies(() => {
    const arena = newArena();
    const recording = log.recording(arena);
    const table = tableOf(recording);
    for (let update = 1; update <= UPDATES; update++) {
      const state = states[update - 1].slice();
      // Few at a time, so that slots change hands; more towards the end: growth.
      const live = state.filter((value) => value !== 0).length;
      const key = random.below(KEYS);
      const full = live >= 3 + (KEYS - 3) * update / UPDATES;
      log.update(() => {
        if (state[key] !== 0) {
          table.remove(key, state[key]);
          state[key] = 0;
        } else if (!full) {
          table.insert(key, update);
          state[key] = update;
        }
      });
      states.push(state);
    }
  });

  let [found, overlapping] = [0, 0];
  for (let pass = 0; pass < 200; pass++) {
    const interruptions = new RandomInterruptions(random, 12);
    const replay = log.replay(newArena(), () => interruptions.next());
    const { hosts4 } = replay.arena.layout;
    const reader = new HostsReader(replay.arena, HEADER, hosts4);
    withProxies(() => {
      while (!replay.done) {
        const key = random.below(KEYS);
        const from = replay.completed;
        interruptions.allow(4);
        const value = reader.find(key);
        interruptions.allow(0);
        if (value !== 0) {
          found++;
          const right = states.slice(from, replay.started + 1)
            .some((state) => state[key] === value);
          assert(right, `key ${key}: ${value} from ${from} on`);
        }
        if (replay.started > from) overlapping++;
        replay.advance(random.below(4));
      }
    });
  }
  assert(found > 2_000, `${found} found`);
  assert(overlapping > 2_000, `${overlapping} met an update`);
});
