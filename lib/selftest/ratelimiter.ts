/**
 * Self-test of the handshake rate limiter: burst and refill of one source, what
 * counts as one source, and the cap on sources; the kernel's
 * `selftest/ratelimiter.c`.
 *
 * @module
 */
import { Arena, LIMITER_ENTRIES, THREAD_CONTROL } from "../arena.ts";
import { bug } from "../assert.ts";
import { parseIp } from "../ip.ts";
import { RateLimiter } from "../ratelimiter.ts";

/** Ms to wait before a message of one source, and whether it shall pass. */
const TIMELINE: readonly (readonly [number, boolean])[] = [
  [0, true],
  [0, true],
  [0, true],
  [0, true],
  [0, true],
  [0, false],
  [50, true],
  [0, false],
  [100, true],
  [0, true],
  [0, false],
];
const COLLECT_MS = 1_001;

/** Runs the self-test; throws if it fails. */
export function rateLimiterSelftest(): void {
  const arena = new Arena({
    peers: 1,
    allowedIpNodes: 1,
    sessions: 1,
    txSlots: 1,
  });
  const limiter = new RateLimiter(arena, new Uint8Array(16).fill(7));
  const word = arena.work(THREAD_CONTROL) / 4;
  let nowMs = 5_000;
  const allow = (address: Uint8Array): boolean => {
    arena.bytes(word, 16).set(address);
    return limiter.allow(word, nowMs);
  };
  const entriesLeft = (): number => {
    while (limiter.collect(nowMs));
    return limiter.entries;
  };

  const v4 = address("::ffff:192.0.2.77");
  const neighbour = address("::ffff:192.0.2.78");
  const v6 = address("2001:db8:1:2::1");
  const sameNetwork = address("2001:db8:1:2:3:4:5:6");
  const otherNetwork = address("2001:db9:1:2::1");
  for (const [step, [waitMs, passes]] of TIMELINE.entries()) {
    nowMs += waitMs;
    bug(allow(v4) === passes, `IPv4 message ${step}: ${passes}`);
    // Both halves of the timeline draw on the one bucket of their /64.
    const source = step % 2 === 0 ? v6 : sameNetwork;
    bug(allow(source) === passes, `IPv6 message ${step}: ${passes}`);
  }
  bug(allow(neighbour), "another IPv4 address has a bucket of its own");
  bug(allow(otherNetwork), "another /64 has a bucket of its own");
  bug(limiter.refusedByRate === 6, "refusals by rate are counted");
  bug(entriesLeft() === 4, "four sources, none idle for long");
  nowMs += COLLECT_MS;
  bug(entriesLeft() === 0, "idle sources are forgotten");

  const source = new Uint8Array(address("2001:db8::"));
  const number = new DataView(source.buffer);
  for (let i = 0; i < LIMITER_ENTRIES; i++) {
    number.setUint32(4, i);
    bug(allow(source), `source ${i} has room`);
  }
  number.setUint32(4, LIMITER_ENTRIES);
  bug(!allow(source), "one source more has none");
  bug(limiter.refusedByCap === 1, "refusals by the cap are counted");
  number.setUint32(4, 0);
  bug(allow(source), "a source that has a bucket keeps it");
  nowMs += COLLECT_MS;
  bug(entriesLeft() === 0, "all are forgotten");
  number.setUint32(4, LIMITER_ENTRIES);
  bug(allow(source), "room comes back");
}

function address(text: string): Uint8Array {
  const bytes = parseIp(text);
  bug(bytes !== null, `${text} is an address`);
  return bytes;
}
