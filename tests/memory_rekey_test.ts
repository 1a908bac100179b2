/** Age and use limits of keys, between two devices in memory. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import {
  REJECT_AFTER_MESSAGES,
  REKEY_AFTER_MESSAGES,
} from "../lib/messages.ts";
import { KEYPAIR, PEER } from "../lib/records.ts";
import {
  closeAll,
  connectedPair,
  DATA,
  exchange,
  getCounter,
  INITIATION,
  isInitiator,
  keypairWord,
  type MemoryDevice,
  type Pair,
  RESPONSE,
  sealedBy,
  sendAtoB,
  sendBtoA,
  sentBy,
  setCounter,
  slotEmpty,
} from "./memory/network.ts";

/** Drops handshake messages from now on; data goes through. */
function dropHandshakes({ network }: Pair): void {
  network.wire = (datagram) => datagram.bytes[0] === DATA ? [datagram] : [];
}

function sendCounter(device: MemoryDevice, peer: number): bigint {
  const at = keypairWord(device, peer) + KEYPAIR.SEND_COUNTER_LO;
  return getCounter(device, at);
}

Deno.test("the initiator rekeys when it sends at 120 s, and not before", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  network.advance(119_900);
  network.log.length = 0;
  sendAtoB(pair);
  assertEquals(network.types(), [DATA]);
  network.advance(100);
  network.log.length = 0;
  sendAtoB(pair);
  assertEquals(network.types(), [DATA, INITIATION, RESPONSE, DATA]);
  assert(isInitiator(a, pair.peerOfA));
  assertEquals(sendCounter(a, pair.peerOfA), 1n, "a new key, confirmed");
  assertEquals(b.counters(), {});
  closeAll(a, b);
});

Deno.test("without anything to send the initiator does not rekey at 120 s", () => {
  const pair = connectedPair();
  pair.network.advance(150_000);
  assertEquals(sentBy(pair.a, INITIATION), []);
  closeAll(pair.a, pair.b);
});

Deno.test("the responder does not rekey when it sends at 120 s", () => {
  const pair = connectedPair();
  pair.network.advance(125_000);
  pair.network.log.length = 0;
  sendBtoA(pair);
  pair.network.advance(5_000);
  assertEquals(sentBy(pair.b, INITIATION), []);
  assertEquals(sentBy(pair.a, INITIATION), []);
  closeAll(pair.a, pair.b);
});

Deno.test("the initiator rekeys when it receives at 165 s, once a session", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  network.advance(164_900);
  network.log.length = 0;
  sendBtoA(pair);
  assertEquals(network.types(), [DATA]);
  dropHandshakes(pair);
  network.advance(100);
  network.log.length = 0;
  sendBtoA(pair);
  assertEquals(network.types(), [DATA, INITIATION]);
  sendBtoA(pair);
  network.advance(2_000);
  sendBtoA(pair);
  assertEquals(sentBy(a, INITIATION).length, 1);
  network.wire = (datagram) => [datagram];
  network.advance(6_000);
  // The new session is asked for by receiving again at its own 165 s.
  network.advance(166_000);
  network.log.length = 0;
  sendBtoA(pair);
  assertEquals(sentBy(a, INITIATION).length, 1);
  closeAll(a, b);
});

Deno.test("the responder does not rekey when it receives at 165 s", () => {
  const pair = connectedPair();
  dropHandshakes(pair);
  pair.network.advance(170_000);
  pair.network.log.length = 0;
  sendAtoB(pair);
  pair.network.advance(1_000);
  assertEquals(sentBy(pair.b, INITIATION), []);
  closeAll(pair.a, pair.b);
});

Deno.test("at 180 s a key seals nothing any more: the packet waits for a new one", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  network.advance(179_980);
  dropHandshakes(pair);
  network.log.length = 0;
  sendAtoB(pair);
  assertEquals(sentBy(a, DATA).length, 1, "the last one");
  network.advance(20);
  network.log.length = 0;
  const packet = sendAtoB(pair);
  assertEquals(sentBy(a, DATA), []);
  assertEquals(a.outbound.slotsUsed, 1);
  b.delivered.length = 0;
  network.wire = (datagram) => [datagram];
  network.advance(11_000);
  assertEquals(b.delivered, [packet]);
  closeAll(a, b);
});

Deno.test("at 180 s the responder starts a handshake for what it has to send", () => {
  const pair = connectedPair();
  pair.network.advance(180_000);
  pair.network.log.length = 0;
  const packet = sendBtoA(pair);
  assertEquals(pair.network.types(), [INITIATION, RESPONSE, DATA]);
  assertEquals(pair.a.delivered.at(-1), packet);
  assert(isInitiator(pair.b, pair.peerOfB), "the roles have changed");
  closeAll(pair.a, pair.b);
});

Deno.test("at 180 s nothing is received with a key any more, and it is counted", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA, peerOfB } = pair;
  const late = [10n, 11n].map((counter) => ({
    from: a.address,
    to: b.address,
    ds: 0,
    sticky: false,
    bytes: sealedBy(a, peerOfA, new Uint8Array(0), counter),
  }));
  network.advance(179_980);
  const before = b.control.rxBytes(peerOfB);
  network.inject(late[0]);
  network.settle();
  assertEquals(b.control.rxBytes(peerOfB), before + 32);
  network.advance(20);
  network.inject(late[1]);
  network.settle();
  assertEquals(b.control.rxBytes(peerOfB), before + 32);
  assertEquals(b.counters(), { rx_key_expired: 1 });
  closeAll(a, b);
});

Deno.test("540 s after the last handshake all keys and the session are gone", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA, peerOfB } = pair;
  network.advance(539_900, 100);
  assert(!slotEmpty(a, peerOfA, PEER.CURRENT));
  assert(!slotEmpty(b, peerOfB, PEER.CURRENT));
  network.advance(200);
  for (const [device, peer] of [[a, peerOfA], [b, peerOfB]] as const) {
    for (const slot of [PEER.CURRENT, PEER.PREVIOUS, PEER.NEXT]) {
      assert(slotEmpty(device, peer, slot));
    }
    const { keypairs, sessions, indices, timers } = device.control.objects();
    assertEquals([keypairs, sessions, indices, timers], [0, 0, 0, 0]);
  }
  exchange(pair);
  closeAll(a, b);
});

Deno.test("either side rekeys once its counter is past 2^60", () => {
  for (const side of ["a", "b"] as const) {
    const pair = connectedPair();
    const { network } = pair;
    const peer = side === "a" ? pair.peerOfA : pair.peerOfB;
    const send = side === "a" ? sendAtoB : sendBtoA;
    network.advance(10_000);
    const at = keypairWord(pair[side], peer) + KEYPAIR.SEND_COUNTER_LO;
    setCounter(pair[side], at, REKEY_AFTER_MESSAGES - 1n);
    network.log.length = 0;
    send(pair);
    assertEquals(sendCounter(pair[side], peer), REKEY_AFTER_MESSAGES);
    assertEquals(network.types(), [DATA], "2^60 itself is not past it");
    send(pair);
    assertEquals(network.types(), [DATA, DATA, INITIATION, RESPONSE, DATA]);
    assertEquals(sendCounter(pair[side], peer), 1n);
    closeAll(pair.a, pair.b);
  }
});

Deno.test("no counter from REJECT_AFTER_MESSAGES on is ever sent", () => {
  for (const side of ["a", "b"] as const) {
    const pair = connectedPair();
    const { network } = pair;
    const peer = side === "a" ? pair.peerOfA : pair.peerOfB;
    const send = side === "a" ? sendAtoB : sendBtoA;
    network.advance(10_000);
    dropHandshakes(pair);
    const at = keypairWord(pair[side], peer) + KEYPAIR.SEND_COUNTER_LO;
    setCounter(pair[side], at, REJECT_AFTER_MESSAGES - 2n);
    network.log.length = 0;
    for (let i = 0; i < 5; i++) send(pair);
    const counters = sentBy(pair[side], DATA).map(({ bytes }) =>
      new DataView(bytes.buffer).getBigUint64(8, true)
    );
    assertEquals(counters, [
      REJECT_AFTER_MESSAGES - 2n,
      REJECT_AFTER_MESSAGES - 1n,
    ]);
    assertEquals(pair[side].outbound.slotsUsed, 3, "the rest is staged");
    network.wire = (datagram) => [datagram];
    network.advance(11_000);
    assertEquals(pair[side].outbound.slotsUsed, 0);
    exchange(pair);
    assertEquals(pair.a.counters(), {});
    assertEquals(pair.b.counters(), {});
    closeAll(pair.a, pair.b);
  }
});

Deno.test("a batch that crosses REJECT_AFTER_MESSAGES is cut there", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA } = pair;
  network.advance(10_000);
  dropHandshakes(pair);
  const at = keypairWord(a, peerOfA) + KEYPAIR.SEND_COUNTER_LO;
  setCounter(a, at, REJECT_AFTER_MESSAGES - 20n);
  b.delivered.length = 0;
  const packet = sendAtoB(pair);
  for (let i = 0; i < 49; i++) a.toSend.push(packet);
  network.settle();
  assertEquals(b.delivered.length, 20);
  assertEquals(a.outbound.slotsUsed, 30);
  network.wire = (datagram) => [datagram];
  network.advance(11_000);
  assertEquals(b.delivered.length, 50);
  closeAll(a, b);
});

Deno.test("the send counter carries from the low to the high word", () => {
  const pair = connectedPair();
  const { a, b, peerOfA } = pair;
  for (const edge of [1n << 32n, 1n << 33n, 1n << 53n, 1n << 59n]) {
    const at = keypairWord(a, peerOfA) + KEYPAIR.SEND_COUNTER_LO;
    setCounter(a, at, edge - 2n);
    pair.network.log.length = 0;
    b.delivered.length = 0;
    for (let i = 0; i < 4; i++) sendAtoB(pair);
    const counters = pair.network.log.map(({ bytes }) =>
      new DataView(bytes.buffer).getBigUint64(8, true)
    );
    assertEquals(counters, [edge - 2n, edge - 1n, edge, edge + 1n]);
    assertEquals(b.delivered.length, 4, "and the other side takes them");
  }
  assertEquals(b.counters(), {});
  closeAll(a, b);
});

Deno.test("nothing is received once the highest counter seen is REJECT_AFTER_MESSAGES", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA, peerOfB } = pair;
  const deliver = (counter: bigint): void => {
    network.inject({
      from: a.address,
      to: b.address,
      ds: 0,
      sticky: false,
      bytes: sealedBy(a, peerOfA, new Uint8Array(0), counter),
    });
    network.settle();
  };
  const before = b.control.rxBytes(peerOfB);
  deliver(REJECT_AFTER_MESSAGES);
  assertEquals(b.counters(), { rx_replayed: 1 }, "past the limit");
  deliver(REJECT_AFTER_MESSAGES - 2n);
  assertEquals(b.control.rxBytes(peerOfB), before + 32);
  deliver(REJECT_AFTER_MESSAGES - 1n);
  assertEquals(b.control.rxBytes(peerOfB), before + 64);
  deliver(REJECT_AFTER_MESSAGES - 3n);
  assertEquals(b.control.rxBytes(peerOfB), before + 64);
  assertEquals(b.counters(), { rx_replayed: 1, rx_key_expired: 1 });
  closeAll(a, b);
});

Deno.test("sessions follow each other for an hour of traffic both ways without a loss", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  a.delivered.length = b.delivered.length = 0;
  const indices = new Set<number>();
  for (let second = 0; second < 3_600; second++) {
    sendAtoB(pair);
    sendBtoA(pair);
    network.advance(1_000, 250);
    const at = keypairWord(a, pair.peerOfA);
    indices.add(a.arena.u32[at + KEYPAIR.REMOTE_INDEX]);
    network.log.length = 0;
  }
  assertEquals([a.delivered.length, b.delivered.length], [3_600, 3_600]);
  assertEquals([a.counters(), b.counters()], [{}, {}]);
  assert(indices.size >= 29 && indices.size <= 31, `${indices.size}`);
  assert(a.control.objects().keypairs <= 3);
  closeAll(a, b);
});

Deno.test("the far side's slots stay in step over many rekeys", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  let last = 0;
  for (let round = 0; round < 5; round++) {
    network.advance(121_000, 200);
    exchange(pair);
    network.advance(100);
    exchange(pair);
    const here = keypairWord(a, pair.peerOfA);
    const there = keypairWord(b, pair.peerOfB);
    const index = a.arena.u32[here + KEYPAIR.LOCAL_INDEX];
    assertNotEquals(index, last);
    last = index;
    assertEquals(b.arena.u32[there + KEYPAIR.REMOTE_INDEX], index);
    assert(slotEmpty(b, pair.peerOfB, PEER.NEXT));
  }
  closeAll(a, b);
});
