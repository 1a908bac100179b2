/** Handshakes under load: cookies, the rate limiter and the full queue. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { PEER } from "../lib/records.ts";
import {
  closeAll,
  COOKIE_REPLY,
  DATA,
  type Datagram,
  endpointOf,
  exchange,
  INITIATION,
  makePair,
  type MemoryDevice,
  type Pair,
  RESPONSE,
  sendAtoB,
  sentBy,
} from "./memory/network.ts";

const STRANGER = "198.51.100.7:4242";

/**
 * Puts `count` messages that are dropped for their mac1 into b's ring.
 *
 * @param mac2 whether they have one, which is wrong, too
 */
function fillRing({ network, b }: Pair, count: number, mac2 = false): void {
  const bytes = new Uint8Array(148);
  bytes[0] = INITIATION;
  if (mac2) bytes[147] = 1;
  const junk = { from: STRANGER, to: b.address, ds: 0, sticky: false, bytes };
  for (let i = 0; i < count; i++) b.incoming.push(junk);
  while (b.incoming.length > 0) b.inbound.pump(network.nowMs);
}

/** Lets a make an initiation that nobody gets, and returns it. */
function captureInitiation(pair: Pair): Datagram {
  const { network, a } = pair;
  network.wire = () => [];
  sendAtoB(pair);
  const [initiation] = sentBy(a, INITIATION);
  network.wire = (datagram) => [datagram];
  network.log.length = 0;
  return initiation;
}

function mac2(bytes: Uint8Array): Uint8Array {
  return bytes.slice(bytes.length - 16);
}

function isZero(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 0);
}

Deno.test("under load an initiation gets a cookie, and the repetition with it a response", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  fillRing(pair, 700);
  sendAtoB(pair);
  assertEquals(network.types(), [INITIATION, COOKIE_REPLY]);
  const [first] = sentBy(a, INITIATION);
  const [reply] = sentBy(b, COOKIE_REPLY);
  assert(isZero(mac2(first.bytes)));
  assertEquals([reply.ds, reply.bytes.length, reply.to], [0, 64, a.address]);
  assertEquals([...reply.bytes.subarray(1, 4)], [0, 0, 0]);
  assertEquals(reply.bytes.slice(4, 8), first.bytes.slice(4, 8), "its index");
  network.advance(4_900);
  assertEquals(network.log.length, 2, "a cookie sends nothing by itself");
  fillRing(pair, 700);
  network.advance(500);
  assertEquals(network.types(2), [INITIATION, RESPONSE, DATA]);
  const second = sentBy(a, INITIATION)[1];
  assert(!isZero(mac2(second.bytes)));
  assertEquals(b.delivered.length, 1);
  assertEquals(b.counters().handshake_under_load, 2);
  assertEquals(b.counters().handshake_invalid_mac, 1_400);
  closeAll(a, b);
});

Deno.test("511 waiting messages are no load, 512 are", () => {
  for (const [waiting, replies] of [[511, 0], [512, 1]]) {
    const pair = makePair();
    const initiation = captureInitiation(pair);
    const { network, b } = pair;
    // The initiation is the oldest: looked at while the others wait behind it.
    b.incoming.push(initiation);
    b.inbound.pump(network.nowMs);
    fillRing(pair, waiting - 1);
    network.settle();
    assertEquals(sentBy(b, COOKIE_REPLY).length, replies, `${waiting}`);
    assertEquals(sentBy(b, RESPONSE).length, 1 - replies);
    closeAll(pair.a, b);
  }
});

Deno.test("load ends one second after the queue was last that long", () => {
  for (const [afterMs, type] of [[980, COOKIE_REPLY], [1_020, RESPONSE]]) {
    const pair = makePair();
    const { network, b } = pair;
    const initiation = captureInitiation(pair);
    fillRing(pair, 512);
    network.settle();
    network.advance(afterMs);
    network.inject(initiation);
    network.settle();
    assertEquals(sentBy(b, type).length, 1, `${afterMs}`);
    assertEquals(network.log[0].bytes[0], type);
    closeAll(pair.a, b);
  }
});

Deno.test("a message with a wrong mac1 gets no cookie", () => {
  const pair = makePair();
  const { network, b } = pair;
  const initiation = captureInitiation(pair);
  initiation.bytes[120] ^= 1;
  fillRing(pair, 600);
  network.inject(initiation);
  network.settle();
  assertEquals(network.log, []);
  closeAll(pair.a, b);
});

Deno.test("a response under load is asked for a cookie as well", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const bytes = new Uint8Array(148);
  bytes[0] = INITIATION;
  let loads = 2;
  network.wire = (datagram) => {
    if (datagram.bytes[0] !== RESPONSE || loads-- <= 0) return [datagram];
    const junk = { ...datagram, bytes };
    for (let i = 0; i < 600; i++) a.incoming.push(junk);
    while (a.incoming.length > 0) a.inbound.pump(network.nowMs);
    return [datagram];
  };
  const packet = sendAtoB(pair);
  assertEquals(network.types(), [INITIATION, RESPONSE, COOKIE_REPLY]);
  network.advance(5_400);
  assertEquals(network.types(3), [INITIATION, RESPONSE, DATA]);
  const responses = sentBy(b, RESPONSE).map(({ bytes }) => isZero(mac2(bytes)));
  assertEquals(responses, [true, false]);
  assertEquals(b.delivered, [packet]);
  closeAll(a, b);
});

Deno.test("a cookie is good for the address and port that it was sent to alone", () => {
  for (const moved of ["192.0.2.1:51821", "192.0.2.77:51820"]) {
    const pair = makePair();
    const { network, a, b } = pair;
    fillRing(pair, 700);
    sendAtoB(pair);
    network.wire = (datagram) =>
      datagram.from === a.address ? [{ ...datagram, from: moved }] : [datagram];
    network.advance(4_900);
    fillRing(pair, 700);
    network.advance(500);
    assertEquals(sentBy(b, RESPONSE), [], moved);
    assertEquals(sentBy(b, COOKIE_REPLY).length, 2);
    closeAll(a, b);
  }
});

Deno.test("a cookie reply changes neither endpoint nor counts, timers nor keys", () => {
  const pair = makePair();
  const { network, a, b, peerOfA, peerOfB } = pair;
  fillRing(pair, 700);
  const held: Datagram[] = [];
  network.wire = (datagram) => {
    if (datagram.bytes[0] !== COOKIE_REPLY) return [datagram];
    held.push(datagram);
    return [];
  };
  sendAtoB(pair);
  const look = (): unknown[] => {
    const at = a.arena.peer(peerOfA);
    const words = [PEER.RX_SEQ_CONTROL, PEER.LAST_RECEIVED_CONTROL_MS];
    return [
      endpointOf(a, peerOfA),
      a.control.rxBytes(peerOfA),
      a.control.objects(),
      a.control.sleepMs(),
      words.map((word) => a.arena.i32[at + word]),
    ];
  };
  const before = look();
  network.inject({ ...held[0], from: STRANGER });
  network.settle();
  assertEquals(look(), before);
  assertEquals(b.control.txBytes(peerOfB), 0, "nor b's counts");
  assertEquals(a.counters(), {});
  // Only one reply to each message is taken.
  network.inject(held[0]);
  network.settle();
  assertEquals(a.counters(), { handshake_refused_cookie_reply: 1 });
  closeAll(a, b);
});

Deno.test("forged cookie replies are refused and leave the true one its chance", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  fillRing(pair, 700);
  network.wire = (datagram) => {
    if (datagram.bytes[0] !== COOKIE_REPLY) return [datagram];
    const forged = [10, 40, 63].map((at) => {
      const bytes = datagram.bytes.slice();
      bytes[at] ^= 4;
      return { ...datagram, bytes };
    });
    return [...forged, datagram];
  };
  sendAtoB(pair);
  assertEquals(a.counters(), { handshake_refused_cookie_reply: 3 });
  network.advance(5_400);
  assert(!isZero(mac2(sentBy(a, INITIATION)[1].bytes)));
  closeAll(a, b);
});

Deno.test("a cookie is used for less than 115 s", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  fillRing(pair, 700);
  sendAtoB(pair);
  assertEquals(sentBy(b, COOKIE_REPLY).length, 1);
  const bornMs = network.nowMs;
  network.wire = () => [];
  const uses: [atMs: number, used: boolean][] = [];
  network.wire = ({ bytes }) => {
    if (bytes[0] === INITIATION) {
      uses.push([network.nowMs - bornMs, !isZero(mac2(bytes))]);
    }
    return [];
  };
  for (let i = 0; i < 14; i++) {
    sendAtoB(pair);
    network.advance(10_000);
  }
  for (const [atMs, used] of uses) assertEquals(used, atMs < 115_000);
  assert(uses.some(([, used]) => used) && uses.some(([, used]) => !used));
  closeAll(a, b);
});

/** Initiations of a with mac2, each made anew, that reach b all at once. */
function withCookies(pair: Pair, count: number): Datagram[] {
  const { network, a } = pair;
  const held: Datagram[] = [];
  for (let i = 0; i < count; i++) {
    network.wire = (datagram) => {
      held.push(datagram);
      return [];
    };
    // Repetitions of one attempt: each has a timestamp and index of its own.
    while (held.length <= i) network.advance(100);
  }
  network.wire = (datagram) => [datagram];
  assert(held.every(({ from }) => from === a.address));
  return held;
}

Deno.test("under load the sixth message of a source with a cookie is refused", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  fillRing(pair, 700);
  sendAtoB(pair);
  assertEquals(sentBy(b, COOKIE_REPLY).length, 1);
  const initiations = withCookies(pair, 7);
  for (const { bytes } of initiations) assert(!isZero(mac2(bytes)));
  network.log.length = 0;
  fillRing(pair, 700);
  // Within 3 ms: no time for a new token, which takes 50 ms.
  for (const [i, initiation] of initiations.entries()) {
    b.incoming.push(initiation);
    b.inbound.pump(network.nowMs);
    network.settle();
    if (i % 2 === 1) network.advance(1);
  }
  const { handshake_ratelimited = 0 } = b.counters();
  assertEquals(handshake_ratelimited, 2);
  closeAll(a, b);
});

Deno.test("without load neither cookies nor the rate limiter matter", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  network.wire = () => [];
  sendAtoB(pair);
  network.advance(60_000);
  const initiations = sentBy(a, INITIATION);
  assert(initiations.length >= 10);
  network.log.length = 0;
  for (const initiation of initiations) {
    b.incoming.push(initiation);
    network.advance(20);
  }
  assertEquals(sentBy(b, RESPONSE).length, initiations.length);
  assertEquals(b.counters(), {});
  closeAll(a, b);
});

Deno.test("initiations of a peer less than 20 ms apart are refused", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  network.wire = () => [];
  sendAtoB(pair);
  network.advance(30_000);
  const initiations = sentBy(a, INITIATION);
  network.log.length = 0;
  for (const initiation of initiations.slice(0, 5)) {
    network.inject(initiation);
    network.advance(10, 10);
  }
  assertEquals(sentBy(b, RESPONSE).length, 3);
  assertEquals(b.counters(), { handshake_refused_initiation: 2 });
  closeAll(a, b);
});

Deno.test("a full ring drops and counts what comes, and data is not held up", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  exchange(pair);
  fillRing(pair, 2_048 + 50);
  fillRing(pair, 2_048 + 50, true);
  assertEquals(b.counters(), { rx_handshake_queue_full: 100 });
  const packet = sendAtoB(pair);
  assertEquals(b.delivered.at(-1), packet);
  assertEquals(b.counters().handshake_invalid_mac, 4_096);
  network.advance(2_000);
  exchange(pair);
  closeAll(a, b);
});

for (const mac2 of [false, true]) {
  const who = mac2 ? "a made-up cookie" : "no cookie";
  Deno.test(`who floods with ${who} keeps out neither newcomers nor cookie holders`, () => {
    const pair = makePair();
    const { network, a, b } = pair;
    fillRing(pair, 600);
    fillRing(pair, 3_000, mac2);
    // The ring of the others has room.
    if (mac2) {
      sendAtoB(pair);
      assertEquals(network.types(), [INITIATION, COOKIE_REPLY]);
    } else {
      network.settle();
      fillRing(pair, 600);
      sendAtoB(pair);
    }
    network.advance(4_900);
    fillRing(pair, 600);
    if (!mac2) {
      // One that has a cookie passes all those that have none.
      while (b.incoming.length > 0) b.inbound.pump(network.nowMs);
      fillRing(pair, 3_000);
    }
    network.advance(500);
    assertEquals(network.types(2), [INITIATION, RESPONSE, DATA]);
    closeAll(a, b);
  });
}

Deno.test("what waits is handled in turn, with a cookie and without", () => {
  const pair = makePair();
  const { network, b } = pair;
  const initiation = captureInitiation(pair);
  fillRing(pair, 2_000, true);
  b.incoming.push(initiation);
  while (b.incoming.length > 0) b.inbound.pump(network.nowMs);
  let waiting = -1;
  network.wire = (datagram) => {
    if (datagram.bytes[0] === COOKIE_REPLY) {
      waiting = b.counters().handshake_invalid_mac ?? 0;
    }
    return [];
  };
  network.settle();
  assert(waiting >= 0 && waiting < 500, `after ${waiting} others`);
  closeAll(pair.a, b);
});

Deno.test("a flood has a share of the time, and what is left waits", () => {
  const pair = makePair();
  const { network, b } = pair;
  fillRing(pair, 2_000);
  b.control.pump();
  const checked = (): number => b.counters().handshake_invalid_mac ?? 0;
  assert(b.control.flooded, "what is left waits");
  const first = checked();
  assert(first > 0 && first < 2_000, `${first} in the first turn`);
  fillRing(pair, 2_000);
  network.nowMs += 10;
  b.control.pump();
  const second = checked() - first;
  network.nowMs += 5;
  b.control.pump();
  const third = checked() - first - second;
  assert(second > third && third > 0, `${second} in 10 ms, ${third} in 5`);
  network.settle();
  assert(!b.control.flooded, "nothing waits");
  network.advance(2_000);
  exchange(pair);
  closeAll(pair.a, b);
});

Deno.test("when more ask than can be answered, who asks again is answered first", () => {
  const pair = makePair();
  const { network, b } = pair;
  const initiation = captureInitiation(pair);
  let forged = 0;
  const flood = (): void => {
    for (let i = 0; i < 1_500; i++) {
      forged++;
      const from = `11.0.${forged >> 8}.${forged & 255}:1000`;
      b.incoming.push({ ...initiation, from });
    }
    b.incoming.push(initiation);
    while (b.incoming.length > 0) b.inbound.pump(network.nowMs);
    network.settle();
  };
  const answered = (): number =>
    sentBy(b, COOKIE_REPLY).filter(({ to }) => to === initiation.from).length;
  flood();
  const {
    handshake_unanswered: unanswered = 0,
    cookie_replies_sent: sent = 0,
  } = b.counters();
  assertEquals(unanswered + sent, 1_501);
  assert(sent > 50 && sent < 500, `${sent} answered`);
  assertEquals(answered(), 0);
  network.advance(1_000);
  flood();
  assertEquals(answered(), 0, "too soon");
  network.advance(4_000);
  flood();
  assertEquals(answered(), 1);
  flood();
  assertEquals(answered(), 1, "once");
  closeAll(pair.a, b);
});

Deno.test("while sockets drop a part of a flood the device is under load", () => {
  const pair = makePair();
  const { network, b } = pair;
  const initiation = captureInitiation(pair);
  assertEquals(b.control.floodLevels, [0, 0]);
  for (let ms = 0; ms < 300; ms += 5) {
    fillRing(pair, 2_048);
    network.nowMs += 5;
    b.control.pump();
  }
  assertEquals(b.control.floodLevels, [3, 0]);
  network.settle();
  network.advance(480);
  network.inject(initiation);
  network.settle();
  assertEquals(network.log.map(({ bytes }) => bytes[0]), [COOKIE_REPLY]);
  for (const level of [2, 1, 0]) {
    network.advance(500);
    assertEquals(b.control.floodLevels, [level, 0]);
  }
  network.advance(2_000);
  network.inject(initiation);
  network.settle();
  assertEquals(sentBy(b, RESPONSE).length, 1);
  assertEquals(sentBy(b, COOKIE_REPLY).length, 1);
  closeAll(pair.a, b);
});

Deno.test("data passes in between the handshakes of a flood", () => {
  const pair = makePair();
  const { network, b } = pair;
  exchange(pair);
  fillRing(pair, 2_000);
  fillRing(pair, 2_000, true);
  b.delivered.length = 0;
  const order: number[] = [];
  const waiting = (device: MemoryDevice): number =>
    device.counters().handshake_invalid_mac ?? 0;
  b.onDelivery = (): void => void order.push(waiting(b));
  sendAtoB(pair);
  assert(order[0] < 4_000, "before the queue is worked off");
  assertNotEquals(network.log.length, 0);
  closeAll(pair.a, b);
});
