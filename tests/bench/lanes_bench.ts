/**
 * Times sealing on lanes, real workers. Twice: chains that are sealed again and
 * again, the ring kept full by a thread that sleeps in between, which is what
 * lanes can do; and through lib/crypt, where this thread fills and delivers
 * chains as outbound does, which on two cores takes part of one.
 *
 *     deno run -A tests/bench/lanes_bench.ts
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { CRYPT_RING_PACKETS, HEADER } from "../../lib/arena.ts";
import { CryptRing, doneQueues, LaneWaker, SEALING } from "../../lib/crypt.ts";
import { AEAD_DONE } from "../../lib/crypto/aead.ts";
import { CHAIN, CHAIN_PACKETS } from "../../lib/records.ts";
import { LanesRig } from "../lanes_rig.ts";
import { digits, median, table } from "./report.ts";

/** How much was sealed. */
export interface LanesFigure {
  readonly name: string;
  readonly lanes: number;
  /** Medians of the rounds. */
  readonly mbytesPerSecond: number;
  /** To one lane. */
  readonly ratio: number;
}

const PACKET_BYTES = 1420;
const PEERS = 8;
const ROUNDS = 5;
const ROUND_MS = 300;
const WARM_MS = 100;
/** How long the feeder sleeps: a fraction of what fills the ring. */
const NAP_MS = 0.3;
/** A ring full of packets, and some more that are sealed meanwhile. */
const SLOTS = CRYPT_RING_PACKETS + 8 * CHAIN_PACKETS;

const bed = new Int32Array(new SharedArrayBuffer(4));

function nap(): void {
  Atomics.wait(bed, 0, 0, NAP_MS);
}

/** Runs `feed`, which gives packets done, for some time. @returns MB/s */
function rate(ms: number, feed: () => number): number {
  const start = performance.now();
  let packets = 0;
  let elapsedMs = 0;
  do {
    packets += feed();
    elapsedMs = performance.now() - start;
  } while (elapsedMs < ms);
  return packets * PACKET_BYTES / 1e3 / elapsedMs;
}

/** Something that seals on lanes. */
interface Bench {
  readonly name: string;
  readonly lanes: number;
  readonly rig: LanesRig;
  /** Keeps the lanes busy. @returns packets done since the last time */
  feed(): number;
  /** Waits until nothing is under way. */
  finish(): void;
}

/** The same chains again and again. */
function ringBench(lanes: number): Bench {
  const rig = new LanesRig({ lanes, peers: PEERS, slots: SLOTS });
  const { arena } = rig;
  const ring = new CryptRing(arena, SEALING);
  const waker = new LaneWaker(arena, lanes);
  const done = doneQueues(arena);
  // Chains that the rig fills and this bench alone submits.
  const chains = new Set<number>();
  for (let n = 0; n < SLOTS; n++) {
    const at = rig.add(1 + n % PEERS, n, PACKET_BYTES) - arena.chain(0);
    chains.add(Math.floor(at / CHAIN.WORDS));
  }
  const free = [...chains];
  const collect = (): number => {
    let packets = 0;
    for (let chain; (chain = done.pop(HEADER.OUTBOUND_DONE)) !== 0;) {
      packets += arena.i32[arena.chain(chain) + CHAIN.COUNT];
      free.push(chain);
    }
    return packets;
  };
  return {
    name: "ring kept full",
    lanes,
    rig,
    feed(): number {
      const packets = collect();
      for (let chain; (chain = free.pop()) !== undefined;) {
        if (ring.push(chain)) continue;
        free.push(chain);
        break;
      }
      waker.wake();
      nap();
      return packets;
    },
    finish(): void {
      while (free.length < chains.size) {
        collect();
        nap();
      }
    },
  };
}

/** As outbound does it. */
function cryptBench(lanes: number, helps: boolean): Bench {
  const rig = new LanesRig({ lanes, peers: PEERS });
  let number = 0;
  let peer = 0;
  const told = ({ ok }: { ok: number }): void => {
    if (ok !== AEAD_DONE) throw new Error("not sealed");
  };
  return {
    name: helps ? "lib/crypt, feeder helps" : "lib/crypt",
    lanes,
    rig,
    feed(): number {
      while (rig.room >= CHAIN_PACKETS) {
        peer = peer % PEERS + 1;
        for (let n = 0; n < CHAIN_PACKETS; n++) {
          rig.add(peer, number++ & 0xffff, PACKET_BYTES);
        }
        rig.submit();
      }
      const packets = rig.deliver(told);
      if (packets === 0 && !(helps && rig.crypt.help())) nap();
      return packets;
    },
    finish(): void {
      while (rig.crypt.used > 0) {
        if (rig.deliver(told) === 0) nap();
      }
    },
  };
}

/** Runs all, in turn. */
export async function benchLanes(): Promise<LanesFigure[]> {
  const benches = [
    ringBench(1),
    ringBench(2),
    cryptBench(0, false),
    cryptBench(1, false),
    cryptBench(2, false),
    cryptBench(1, true),
  ];
  const rates = benches.map((): number[] => []);
  for (const { rig } of benches) await rig.start();
  for (let round = -1; round < ROUNDS; round++) {
    for (const [i, bench] of benches.entries()) {
      rate(WARM_MS, () => bench.feed());
      const mbytes = rate(ROUND_MS, () => bench.feed());
      bench.finish();
      await bench.rig.asleep();
      if (round >= 0) rates[i].push(mbytes);
    }
  }
  for (const { rig } of benches) await rig[Symbol.asyncDispose]();
  return benches.map(({ name, lanes }, i) => {
    // Each round's ratio, so that changes of the machine's speed do not count.
    const one = benches.findIndex((other) =>
      other.name.startsWith(name.split(",")[0]) && other.lanes === 1
    );
    const ratios = rates[i].map((mbytes, round) => mbytes / rates[one][round]);
    const mbytesPerSecond = median(rates[i]);
    return { name, lanes, mbytesPerSecond, ratio: median(ratios) };
  });
}

/** The figures as a table. */
export function lanesTable(figures: readonly LanesFigure[]): string {
  return table([
    [`sealing ${PACKET_BYTES} bytes`, "lanes", "MB/s", "to one lane"],
    ...figures.map(({ name, lanes, mbytesPerSecond, ratio }) => [
      name,
      String(lanes),
      digits(mbytesPerSecond),
      digits(ratio),
    ]),
  ]);
}

if (import.meta.main) console.log(lanesTable(await benchLanes()));
