/** Keepalives and the new handshake after silence, between devices in memory. */
import { assert, assertEquals } from "@std/assert";
import {
  closeAll,
  connectedPair,
  DATA,
  type Datagram,
  exchange,
  INITIATION,
  KEEPALIVE_BYTES,
  makePair,
  type MemoryDevice,
  type Pair,
  sendAtoB,
  sendBtoA,
  sentBy,
  setEndpoint,
} from "./memory/network.ts";

const STEP_MS = 20;
/** A timer's tick and the clock's step. */
const LATE_MS = 16 + STEP_MS;

function keepalives(device: MemoryDevice): Datagram[] {
  return sentBy(device, DATA).filter(({ bytes }) =>
    bytes.length === KEEPALIVE_BYTES
  );
}

/** Notes the times, since now, at which keepalives of `device` pass. */
function watch({ network }: Pair, device: MemoryDevice): number[] {
  const startMs = network.nowMs;
  const times: number[] = [];
  network.wire = (datagram) => {
    const { from, bytes } = datagram;
    if (from === device.address && bytes.length === KEEPALIVE_BYTES) {
      times.push(network.nowMs - startMs);
    }
    return [datagram];
  };
  return times;
}

/** A connected pair with nothing pending on either side. */
function quietPair(): Pair {
  const pair = connectedPair();
  pair.network.advance(12_000);
  pair.network.log.length = 0;
  return pair;
}

function assertNear(times: number[], expected: number[]): void {
  assertEquals(times.length, expected.length, times.join());
  times.forEach((time, i) => {
    const lateMs = time - expected[i];
    assert(lateMs >= 0 && lateMs <= LATE_MS, `${time} for ${expected[i]}`);
  });
}

Deno.test("data without an answer is acknowledged by a keepalive after 10 s", () => {
  const pair = quietPair();
  const times = watch(pair, pair.b);
  sendAtoB(pair);
  pair.network.advance(60_000);
  assertNear(times, [10_000]);
  closeAll(pair.a, pair.b);
});

Deno.test("an answer in time saves the keepalive", () => {
  const pair = quietPair();
  const times = watch(pair, pair.b);
  sendAtoB(pair);
  pair.network.advance(9_900);
  sendBtoA(pair);
  pair.network.advance(60_000);
  assertEquals(times, []);
  closeAll(pair.a, pair.b);
});

Deno.test("nothing answers a keepalive: two idle peers fall silent", () => {
  const pair = quietPair();
  sendAtoB(pair);
  sendBtoA(pair);
  pair.network.advance(30_000);
  pair.network.log.length = 0;
  pair.network.advance(600_000, 100);
  assertEquals(pair.network.log, []);
  closeAll(pair.a, pair.b);
});

Deno.test("one keepalive answers all the data of its 10 s", () => {
  const pair = quietPair();
  const times = watch(pair, pair.b);
  for (let i = 0; i < 5; i++) {
    sendAtoB(pair);
    pair.network.advance(1_000);
  }
  pair.network.advance(60_000);
  assertNear(times, [10_000]);
  closeAll(pair.a, pair.b);
});

Deno.test("a keepalive that comes due after its key expired starts a handshake", () => {
  const pair = quietPair();
  const { network, a, b } = pair;
  network.advance(163_000);
  network.wire = (datagram) =>
    datagram.from === a.address && datagram.bytes[0] === INITIATION
      ? []
      : [datagram];
  sendAtoB(pair);
  network.advance(9_900);
  assertEquals(sentBy(b, INITIATION), []);
  network.advance(200);
  assertEquals(sentBy(b, INITIATION).length, 1);
  exchange(pair);
  closeAll(a, b);
});

Deno.test("a one-way stream is acknowledged all the time and never rekeyed for silence", () => {
  const pair = quietPair();
  const times = watch(pair, pair.b);
  for (let i = 0; i < 100; i++) {
    sendAtoB(pair);
    pair.network.advance(1_000);
  }
  assert(times.length >= 9 && times.length <= 10, times.join());
  assertEquals(sentBy(pair.a, INITIATION), []);
  closeAll(pair.a, pair.b);
});

Deno.test("15 s and jitter of silence after data start a new handshake", () => {
  const delays = new Set<number>();
  for (let round = 0; round < 12; round++) {
    const pair = quietPair();
    pair.network.wire = () => [];
    sendAtoB(pair);
    const startMs = pair.network.nowMs;
    pair.network.advance(14_900);
    assertEquals(sentBy(pair.a, INITIATION), []);
    while (sentBy(pair.a, INITIATION).length === 0) pair.network.advance(20);
    const delayMs = pair.network.nowMs - startMs;
    assert(delayMs >= 15_000 && delayMs <= 15_333 + LATE_MS, `${delayMs}`);
    delays.add(delayMs);
    closeAll(pair.a, pair.b);
  }
  assert(delays.size >= 3, "jittered");
});

Deno.test("data sent during the silence does not put the handshake off", () => {
  const pair = quietPair();
  pair.network.wire = () => [];
  for (let second = 0; second < 15; second++) {
    sendAtoB(pair);
    pair.network.advance(1_000);
  }
  pair.network.advance(400);
  assertEquals(sentBy(pair.a, INITIATION).length, 1);
  closeAll(pair.a, pair.b);
});

Deno.test("keepalives sent do not wait for an answer", () => {
  const pair = quietPair();
  pair.a.control.setPersistentKeepalive(pair.peerOfA, 5);
  pair.network.advance(60_000);
  assertEquals(sentBy(pair.a, INITIATION), []);
  assertEquals(sentBy(pair.b, DATA), []);
  closeAll(pair.a, pair.b);
});

Deno.test("data that could not be sent waits for no answer", () => {
  const pair = quietPair();
  pair.a.sendError = 113;
  sendAtoB(pair);
  assertEquals(pair.a.counters(), { tx_send_failed: 1 });
  pair.a.sendError = 0;
  pair.network.advance(60_000);
  assertEquals(sentBy(pair.a, INITIATION), []);
  closeAll(pair.a, pair.b);
});

Deno.test("a new handshake after silence finds a peer that lost its keys", () => {
  const pair = quietPair();
  const { network, a, b } = pair;
  b.control.down();
  network.settle();
  b.control.up();
  sendAtoB(pair);
  assertEquals(b.counters(), { rx_unknown_index: 1 });
  network.advance(15_400);
  exchange(pair);
  closeAll(a, b);
});

Deno.test("a persistent keepalive goes out an interval after the last traffic", () => {
  const pair = quietPair();
  const { network, a } = pair;
  a.control.setPersistentKeepalive(pair.peerOfA, 25);
  network.advance(1_000);
  network.log.length = 0;
  const times = watch(pair, a);
  const startMs = network.nowMs;
  network.advance(7_000);
  sendAtoB(pair);
  // b acknowledges after 10 s; that is traffic, too.
  while (sentBy(pair.b, DATA).length === 0) network.advance(STEP_MS);
  times.length = 0;
  const acknowledgedMs = network.nowMs - startMs;
  network.advance(40_000);
  assertNear(times, [acknowledgedMs + 25_000]);
  closeAll(pair.a, pair.b);
});

Deno.test("no persistent keepalive while traffic flows, in either direction", () => {
  for (const send of [sendAtoB, sendBtoA]) {
    const pair = quietPair();
    const { network, a } = pair;
    a.control.setPersistentKeepalive(pair.peerOfA, 2);
    network.advance(100);
    const times = watch(pair, a);
    for (let i = 0; i < 50; i++) {
      send(pair);
      network.advance(1_000);
    }
    // Data received is acknowledged every 10 s, as without the setting.
    const passive = send === sendBtoA ? 5 : 0;
    assert(times.length <= passive, times.join());
    closeAll(pair.a, pair.b);
  }
});

Deno.test("persistent keepalives keep their interval for many turns", () => {
  const pair = quietPair();
  const { network, a } = pair;
  a.control.setPersistentKeepalive(pair.peerOfA, 3);
  network.settle();
  const times = watch(pair, a);
  network.advance(90_000);
  assert(times.length >= 29 && times.length <= 30, `${times.length}`);
  const gaps = times.slice(1).map((time, i) => time - times[i]);
  for (const gap of gaps) assert(gap >= 3_000 && gap <= 3_000 + LATE_MS);
  closeAll(pair.a, pair.b);
});

Deno.test("turned on while up it sends one at once, changed or set again it does not", () => {
  const pair = quietPair();
  const { network, a, peerOfA } = pair;
  const count = (seconds: number): number => {
    network.log.length = 0;
    a.control.setPersistentKeepalive(peerOfA, seconds);
    network.settle();
    return keepalives(a).length;
  };
  assertEquals(count(25), 1);
  assertEquals(count(25), 0);
  assertEquals(count(20), 0);
  assertEquals(count(0), 0);
  network.advance(60_000);
  assertEquals(keepalives(a), []);
  assertEquals(count(25), 1);
  closeAll(pair.a, pair.b);
});

Deno.test("a persistent keepalive starts a handshake when there is no key", () => {
  const pair = makePair();
  pair.a.control.setPersistentKeepalive(pair.peerOfA, 25);
  pair.network.settle();
  assertEquals(sentBy(pair.a, INITIATION).length, 1);
  // Keys older than 180 s are renewed by it as well, for ever.
  pair.network.advance(1_000_000, 100);
  const n = sentBy(pair.a, INITIATION).length;
  assert(n >= 6 && n <= 9, `${n}`);
  assertEquals(pair.b.counters(), {});
  closeAll(pair.a, pair.b);
});

Deno.test("a persistent keepalive to a dead peer tries again after each silence", () => {
  const pair = makePair();
  pair.network.wire = () => [];
  pair.a.control.setPersistentKeepalive(pair.peerOfA, 25);
  pair.network.advance(600_000, 100);
  const n = sentBy(pair.a, INITIATION).length;
  assert(n > 60 && n <= 120, `${n}`);
  assertEquals(pair.a.outbound.slotsUsed <= 1, true);
  closeAll(pair.a, pair.b);
});

Deno.test("initiations are traffic: the next persistent keepalive counts from the last", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const times: number[] = [];
  network.wire = ({ bytes }) => {
    if (bytes[0] === INITIATION) times.push(network.nowMs);
    return [];
  };
  a.control.setPersistentKeepalive(pair.peerOfA, 60);
  network.advance(200_000);
  assert(times.length > 20);
  const silenceMs = times[20] - times[19];
  assert(silenceMs >= 60_000 && silenceMs <= 60_000 + LATE_MS, `${silenceMs}`);
  closeAll(a, b);
});

Deno.test("without an endpoint nothing is kept alive until it has one", () => {
  const pair = makePair();
  const { network, b, a, peerOfB } = pair;
  b.control.setPersistentKeepalive(peerOfB, 5);
  network.advance(20_000);
  assertEquals(network.log, []);
  setEndpoint(b, peerOfB, a.address);
  b.control.peerDone(peerOfB);
  network.advance(5_100);
  assert(sentBy(b, INITIATION).length === 1);
  closeAll(a, b);
});

Deno.test("up sends a keepalive to those peers that have the setting", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  a.control.down();
  a.control.setPersistentKeepalive(pair.peerOfA, 25);
  network.advance(60_000);
  assertEquals(network.log, []);
  a.control.up();
  network.settle();
  assertEquals(sentBy(a, INITIATION).length, 1);
  assertEquals(keepalives(a).length, 1);
  closeAll(a, b);
});
