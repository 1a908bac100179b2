/**
 * lib/allowedips: random updates against a plain list, the pool's end, and
 * workers that read while the main thread updates: 1.2 million lookups. WGD_SLOW=1
 * makes more of each.
 */
import { assert, assertEquals } from "@std/assert";
import { AllowedIps, AllowedIpsReader } from "../lib/allowedips.ts";
import { Arena, HEADER, THREAD_OUTBOUND } from "../lib/arena.ts";
import { EpochReader, Grace } from "../lib/epoch.ts";
import { LinearList } from "../lib/selftest/linear_list.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import {
  PROGRESS,
  type ReaderReport,
  type ReaderTask,
} from "./allowedips_reader_worker.ts";
import { Player, UPDATES } from "./allowedips_script.ts";
import { RandomInterruptions, StoreLog, withProxies } from "./interleaving.ts";

const SLOW = Deno.env.get("WGD_SLOW") === "1";
const PEERS = 40;

function tableOf(allowedIpNodes: number, peers = 512): {
  arena: Arena;
  grace: Grace;
  table: AllowedIps;
  lookup: (address: Uint8Array) => number;
} {
  const arena = new Arena({ peers, allowedIpNodes, sessions: 1, txSlots: 1 });
  const grace = new Grace(arena);
  const table = new AllowedIps(arena, grace);
  const at = arena.work(THREAD_OUTBOUND) + 1;
  const lookup = (address: Uint8Array): number => {
    arena.u8.set(address, at);
    return address.length === 4 ? table.lookup4(at) : table.lookup6(at);
  };
  return { arena, grace, table, lookup };
}

/** Addresses that share long prefixes, of either family. */
function randomAddress(random: SeededRandom): Uint8Array {
  const address = new Uint8Array(random.below(2) === 0 ? 4 : 16);
  address.fill(random.below(2) === 0 ? 0 : 0xa5);
  for (let flips = random.below(4); flips > 0; flips--) {
    const bit = random.below(8 * address.length);
    address[bit >> 3] ^= 128 >> (bit & 7);
  }
  return address;
}

function listOf(table: AllowedIps, peer: number): string[] {
  const out = new Uint8Array(16);
  const list: string[] = [];
  for (let node = table.first(peer); node !== 0; node = table.next(node)) {
    const length = table.prefixOf(node, out);
    list.push(`${out.subarray(0, length).toHex()}/${table.cidrOf(node)}`);
  }
  return list;
}

Deno.test("the tries answer as a plain list does, through inserts, moves and removals", () => {
  const lookups = SLOW ? 1_200_000 : 60_000;
  const { grace, table, lookup } = tableOf(2_000);
  const list = new LinearList();
  const random = new SeededRandom(5);
  let hits = 0;
  for (let step = 0; step < lookups; step++) {
    const address = randomAddress(random);
    const cidr = random.below(8 * address.length + 1);
    const peer = 1 + random.below(PEERS);
    const any = list.prefixes[random.below(list.prefixes.length)];
    const kind = random.below(40);
    if (kind < 14 && list.prefixes.length < 400) {
      assert(table.insert(address, cidr, peer));
      list.insert(address, cidr, peer);
    } else if (kind < 16 && any) {
      assert(table.insert(any.address, any.cidr, peer));
      list.insert(any.address, any.cidr, peer);
    } else if (kind < 28 && any) {
      assert(table.remove(any.address, any.cidr, any.peer));
      list.remove(any.address, any.cidr, any.peer);
    } else if (kind < 30) {
      assertEquals(
        table.remove(address, cidr, peer),
        list.remove(address, cidr, peer),
      );
    } else if (kind === 30 && random.below(20) === 0) {
      assertEquals(table.removeByPeer(peer), list.removeByPeer(peer));
    }
    const wanted = any && random.below(2) === 0 ? any.address : address;
    const expected = list.lookup(wanted);
    if (expected !== 0) hits++;
    assertEquals(lookup(wanted), expected, `step ${step}: ${wanted}`);
    assertEquals(table.size, list.prefixes.length);
    if (step % 500 === 0) {
      grace.collect();
      expectLists(table, list);
      assert(table.nodes < 2 * table.size || table.size === 0, "no spare node");
    }
  }
  assert(hits > lookups / 4, "many lookups hit");
  for (let peer = 1; peer <= PEERS; peer++) table.removeByPeer(peer);
  assertEquals(table.size, 0);
  grace.collect();
  assertEquals(table.nodes, 0, "all nodes are back in the pool");
  assertEquals(lookup(new Uint8Array(4)), 0);
});

function expectLists(table: AllowedIps, list: LinearList): void {
  for (let peer = 1; peer <= PEERS; peer++) {
    const expected = list.prefixes
      .filter((prefix) => prefix.peer === peer)
      .map(({ address, cidr }) => `${address.toHex()}/${cidr}`);
    assertEquals(listOf(table, peer), expected);
  }
}

Deno.test("an insert for which there is no node is refused and changes nothing", () => {
  const { grace, table, lookup } = tableOf(4);
  const a = Uint8Array.of(10, 0, 0, 0);
  const b = Uint8Array.of(10, 0, 0, 1);
  const c = Uint8Array.of(10, 0, 0, 2);
  assert(table.insert(a, 32, 1));
  assert(table.insert(b, 32, 1), "with glue: three nodes");
  assertEquals(table.nodes, 3);
  assert(!table.insert(c, 32, 2), "would need two nodes, one is left");
  assertEquals([table.nodes, table.size], [3, 2]);
  assertEquals([a, b, c].map(lookup), [1, 1, 0]);
  assertEquals(listOf(table, 2), []);
  assert(table.insert(c, 30, 2), "one node is enough above the others");
  assertEquals([a, b, c].map(lookup), [1, 1, 2]);
  assert(!table.insert(c, 32, 2), "none is left");
  assert(
    table.insert(a, 31, 3),
    "glue that is there takes an owner for nothing",
  );
  assert(table.insert(a, 32, 3), "as does a prefix that moves");
  assertEquals(table.size, 4);
  assertEquals([a, b, c].map(lookup), [3, 1, 2]);
  for (const peer of [1, 2, 3]) table.removeByPeer(peer);
  grace.collect();
  assert(table.insert(a, 32, 1));
  assert(table.insert(c, 32, 1));
});

Deno.test("nodes that a worker may hold are not used again", () => {
  const { arena, grace, table } = tableOf(3);
  const reader = new EpochReader(arena, HEADER.INBOUND_EPOCH);
  const a = Uint8Array.of(10, 0, 0, 0);
  const b = Uint8Array.of(10, 0, 0, 1);
  assert(table.insert(a, 32, 1) && table.insert(b, 32, 1));
  reader.enter();
  table.removeByPeer(1);
  assert(grace.collect());
  assertEquals([table.size, table.nodes], [0, 3]);
  assert(!table.insert(a, 32, 1), "the worker still holds all three");
  reader.leave();
  assert(!grace.collect());
  assertEquals(table.nodes, 0);
  assert(table.insert(a, 32, 1) && table.insert(b, 32, 1));
});

for (const bytes of [4, 16]) {
  const family = bytes === 4 ? "IPv4" : "IPv6";
  const place = (arena: Arena, player: Player): number => {
    const at = arena.work(THREAD_OUTBOUND);
    for (const [i, address] of player.addresses.entries()) {
      arena.u8.set(address, at + 16 * i);
    }
    return at;
  };
  const lookup = (reader: AllowedIpsReader, at: number): number =>
    bytes === 4 ? reader.lookup4(at) : reader.lookup6(at);

  Deno.test(`an ${family} lookup is right whatever stores pass between its loads`, () => {
    const log = new StoreLog();
    const plain = tableOf(4_000);
    const recording = log.recording(plain.arena);
    withProxies(() => {
      // Nothing is freed: that no reader meets a freed node is tested above.
      const table = new AllowedIps(recording, plain.grace);
      const writer = new Player(bytes, table, new Grace(recording));
      for (const _ of writer.updates) log.update(() => writer.step());
    });

    const player = new Player(bytes, plain.table, plain.grace);
    let overlapping = 0;
    for (let pass = 0; pass < (SLOW ? 1_000 : 400 / bytes); pass++) {
      const { arena } = tableOf(4_000);
      const random = new SeededRandom(pass);
      const interruptions = new RandomInterruptions(random, 10 * bytes);
      const replay = log.replay(arena, () => interruptions.next());
      const at = place(arena, player);
      const reader = new AllowedIpsReader(replay.arena);
      withProxies(() => {
        while (!replay.done) {
          const i = random.below(2) * random.below(player.addresses.length);
          const from = replay.completed;
          interruptions.allow(4);
          const owner = lookup(reader, at + 16 * i);
          player.expect(i, owner, from, replay.started);
          interruptions.allow(0);
          replay.advance(random.below(5));
          if (replay.started > from) overlapping++;
        }
      });
    }
    assert(overlapping > UPDATES, `${overlapping} lookups met an update`);
  });

  Deno.test(`workers see each ${family} update before or after, never in between`, async () => {
    const target = SLOW ? 5_000_000 : 600_000;
    const { arena, grace, table } = tableOf(16 * bytes + 60);
    const player = new Player(bytes, table, grace);
    const at = place(arena, player);
    const progress = new Int32Array(new SharedArrayBuffer(4 * PROGRESS.WORDS));
    const reports: Promise<ReaderReport>[] = [];
    for (const epochWord of [HEADER.OUTBOUND_EPOCH, HEADER.INBOUND_EPOCH]) {
      const { report } = await startReader({
        limits: arena.limits,
        memory: arena.memory,
        progress: progress.buffer,
        answers: player.answers.buffer,
        states: player.updates.length,
        addresses: player.addresses.length,
        at,
        addressBytes: bytes,
        epochWord,
      });
      reports.push(report);
    }

    const onStart = (count: number): void => {
      Atomics.store(progress, PROGRESS.STARTED, count);
    };
    const onEnd = (count: number): void => {
      Atomics.store(progress, PROGRESS.COMPLETED, count);
    };
    do {
      for (let n = player.updates.length; n > 0; n--) {
        player.step(onStart, onEnd);
      }
      assertEquals(table.size, 0, "the script ends where it began");
    } while (
      Atomics.load(progress, PROGRESS.LOOKUPS) < target ||
      Atomics.load(progress, PROGRESS.CONTENDED) < target / 50
    );
    Atomics.store(progress, PROGRESS.STOP, 1);

    for (const report of reports) {
      const { lookups, wrong, first } = await report;
      assertEquals(wrong, 0, `${wrong} of ${lookups} wrong, first ${first}`);
    }
    while (grace.collect());
    assertEquals(table.nodes, 0, "all nodes are back in the pool");
  });
}

/** A worker that reads from now on; its report comes when it is told to stop. */
function startReader(
  task: ReaderTask,
): Promise<{ report: Promise<ReaderReport> }> {
  const worker = new Worker(
    new URL("./allowedips_reader_worker.ts", import.meta.url),
    { type: "module" },
  );
  const ready = Promise.withResolvers<{ report: Promise<ReaderReport> }>();
  const report = Promise.withResolvers<ReaderReport>();
  worker.onerror = (event): void => {
    event.preventDefault();
    ready.reject(new Error(event.message));
    report.reject(new Error(event.message));
  };
  worker.onmessage = ({ data }: MessageEvent<"ready" | ReaderReport>): void => {
    if (data !== "ready") return report.resolve(data);
    worker.postMessage(task);
    ready.resolve({ report: report.promise });
  };
  return ready.promise;
}
