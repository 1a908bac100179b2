/** lib/ratelimiter: against a plain model of token buckets, and its bounds. */
import { assert, assertEquals } from "@std/assert";
import { Arena, LIMITER_ENTRIES, THREAD_CONTROL } from "../lib/arena.ts";
import { RateLimiter } from "../lib/ratelimiter.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

const LIMITS = { peers: 1, allowedIpNodes: 1, sessions: 1, txSlots: 1 };

function limiterFor(): {
  limiter: RateLimiter;
  allow: (address: Uint8Array, nowMs: number) => boolean;
} {
  const arena = new Arena(LIMITS);
  const limiter = new RateLimiter(arena, new Uint8Array(16).fill(9));
  const word = arena.work(THREAD_CONTROL) / 4;
  const allow = (address: Uint8Array, nowMs: number): boolean => {
    arena.bytes(word, 16).set(address);
    return limiter.allow(word, nowMs);
  };
  return { limiter, allow };
}

function v4(number: number): Uint8Array {
  const address = new Uint8Array(16);
  address[10] = address[11] = 255;
  new DataView(address.buffer).setUint32(12, number);
  return address;
}

Deno.test("each source is limited as a token bucket of its own says", () => {
  const { limiter, allow } = limiterFor();
  const random = new SeededRandom(50);
  const buckets = new Map<string, { us: number; tokens: number }>();
  let us = 3_000_000;
  let [allowed, refused] = [0, 0];
  for (let step = 0; step < 60_000; step++) {
    us += random.below(4) === 0 ? random.below(20_000) : random.below(300);
    const address = random.below(2) === 0
      ? v4(random.below(20))
      : random.fill(new Uint8Array(16));
    if (address[10] !== 255 || address[11] !== 255) {
      // Two IPv6 networks that differ in one bit, and any host in them.
      address.set([0x20, 1, 0xd, 0xb8, 0, 0, 0, random.below(2)]);
    }
    const key = address[0] === 0
      ? address.toHex()
      : address.subarray(0, 8).toHex();
    const bucket = buckets.get(key) ?? { us, tokens: 250_000 };
    const tokens = Math.min(250_000, bucket.tokens + us - bucket.us);
    const expected = tokens >= 50_000;
    buckets.set(key, { us, tokens: expected ? tokens - 50_000 : tokens });
    if (expected) allowed++;
    else refused++;
    assertEquals(allow(address, us / 1000), expected, `step ${step} ${key}`);
    // Forgetting an idle source must not show: it had all its tokens back.
    if (random.below(50) === 0) limiter.collect(us / 1000);
  }
  assert(allowed > 1_000 && refused > 1_000, "both answers are tried");
  assertEquals(limiter.refusedByRate, refused);
  assertEquals(limiter.refusedByCap, 0);
});

Deno.test("tokens come back to the microsecond at any uptime", () => {
  const { allow } = limiterFor();
  const random = new SeededRandom(4);
  const starts = [0.1, 1000.3, 86_400_000.7, 1e11 + 0.9];
  for (let i = 0; i < 500; i++) starts.push(random.word() * 1e-3);
  for (const [i, start] of starts.entries()) {
    const source = v4(i);
    for (let i = 0; i < 5; i++) assert(allow(source, start));
    assert(!allow(source, start));
    // Counted in whole microseconds: the last one is missing, then it is there.
    const startUs = Math.round(start * 1000);
    assert(!allow(source, (startUs + 49_999) / 1000), `just before, ${start}`);
    assert(allow(source, (startUs + 50_000) / 1000), `on time, ${start}`);
    assert(!allow(source, (startUs + 50_000) / 1000));
  }
});

Deno.test("a mapped IPv4 address shares no bucket with an IPv6 network", () => {
  const { limiter, allow } = limiterFor();
  const zeros = new Uint8Array(16);
  const compatible = new Uint8Array(16);
  compatible[15] = 1;
  for (let i = 0; i < 5; i++) assert(allow(zeros, 100));
  assert(!allow(compatible, 100), "::1 and :: are of one /64");
  assert(allow(v4(0), 100), "::ffff:0.0.0.0 is IPv4");
  assertEquals(limiter.entries, 2);
  // The same 32 bits in both families, often enough to meet in a hash bucket.
  for (let i = 1; i < 30_000; i++) {
    const network = new Uint8Array(16);
    network.set(v4(i).subarray(12), 4);
    allow(v4(i), 100);
    allow(network, 100);
  }
  assertEquals(limiter.entries, 60_000);
});

Deno.test("one call of collect looks at a part of the table, and all calls at all of it", () => {
  const { limiter, allow } = limiterFor();
  for (let i = 0; i < LIMITER_ENTRIES; i++) assert(allow(v4(i), 0));
  assert(!allow(v4(LIMITER_ENTRIES), 0));
  assertEquals(limiter.refusedByCap, 1);
  assert(limiter.collect(1_000), "idle for one second: not too long yet");
  while (limiter.collect(1_000));
  assertEquals(limiter.entries, LIMITER_ENTRIES);

  let calls = 0;
  let before = limiter.entries;
  for (let more = true; more; calls++) {
    more = limiter.collect(1_000.001);
    assert(before - limiter.entries <= 8_192, "a slice is bounded");
    before = limiter.entries;
  }
  assertEquals(limiter.entries, 0);
  assert(calls >= 8, `${calls} slices`);
  assert(!limiter.collect(2_000), "nothing to do on an empty table");
});

Deno.test("collect keeps the sources that are active", () => {
  const { limiter, allow } = limiterFor();
  for (let i = 0; i < 2_000; i++) allow(v4(i), i < 1_000 ? 0 : 900);
  while (limiter.collect(1_500));
  assertEquals(limiter.entries, 1_000);
  // Those kept are charged on, those forgotten start with a full bucket.
  for (let i = 1_000; i < 2_000; i++) {
    for (let n = 0; n < 4; n++) assert(allow(v4(i), 900));
    assert(!allow(v4(i), 900), `source ${i} has used its burst`);
  }
  assertEquals(limiter.entries, 1_000);
});
