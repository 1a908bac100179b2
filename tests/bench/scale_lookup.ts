/**
 * Times lookups of allowed IPs in tables of many sizes, for scale_bench.ts: the
 * addresses of all prefixes in no order, so that no cache holds what is needed.
 *
 * @module
 */
import { AllowedIps } from "../../lib/allowedips.ts";
import { Arena, THREAD_OUTBOUND } from "../../lib/arena.ts";
import { Grace } from "../../lib/epoch.ts";
import { SeededRandom } from "../../lib/selftest/random.ts";

/** Lookups that are timed together; their addresses lie in the worker's area. */
const LOOKUPS = 4096;
const ROUNDS = 40;
const ADDRESS_BYTES = 16;

/** What prefixes the peers have. */
export const PREFIXES = {
  "v4 /32 in order": { bytes: 4, cidr: 32, random: false },
  "v4 /32 random": { bytes: 4, cidr: 32, random: true },
  "v4 /24 random": { bytes: 4, cidr: 24, random: true },
  "v6 /128 in order": { bytes: 16, cidr: 128, random: false },
  "v6 /128 random": { bytes: 16, cidr: 128, random: true },
  "v6 /64 random": { bytes: 16, cidr: 64, random: true },
} as const;

/** Name of an entry of {@link PREFIXES}. */
export type PrefixKind = keyof typeof PREFIXES;

/** Nanoseconds of a lookup among `count` prefixes; the best of the rounds. */
export function lookupNs(kind: PrefixKind, count: number): number {
  const { bytes, cidr, random } = PREFIXES[kind];
  const arena = new Arena({
    peers: count,
    allowedIpNodes: 2 * count,
    sessions: 1,
    txSlots: 1,
  });
  const table = new AllowedIps(arena, new Grace(arena));
  const numbers = new SeededRandom(1);
  const addresses = new Uint8Array(bytes * count);
  const view = new DataView(addresses.buffer);
  for (let i = 0; i < count; i++) {
    const address = addresses.subarray(bytes * i, bytes * (i + 1));
    if (random) numbers.fill(address);
    else view.setUint32(bytes * (i + 1) - 4, 0x0a80_0000 + i);
    if (bytes === 16) address[0] = 0xfd;
    if (!table.insert(address, cidr, 1 + i)) throw new Error("table full");
  }
  const at = arena.work(THREAD_OUTBOUND);
  let bestNs = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    for (let n = 0; n < LOOKUPS; n++) {
      const i = bytes * numbers.below(count);
      arena.u8.set(
        addresses.subarray(i, i + bytes),
        at + ADDRESS_BYTES * n,
      );
    }
    const startMs = performance.now();
    let missed = 0;
    for (let n = 0; n < LOOKUPS; n++) {
      const address = at + ADDRESS_BYTES * n;
      const peer = bytes === 4
        ? table.lookup4(address)
        : table.lookup6(address);
      if (peer === 0) missed++;
    }
    const ns = (performance.now() - startMs) * 1e6 / LOOKUPS;
    if (missed > 0) throw new Error(`${missed} lookups found nobody`);
    bestNs = Math.min(bestNs, ns);
  }
  return bestNs;
}
