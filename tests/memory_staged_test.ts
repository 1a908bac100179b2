/** Staged packets, key confirmation and the slot pool, between devices in memory. */
import { assert, assertEquals } from "@std/assert";
import { PEER } from "../lib/records.ts";
import {
  addDeadPeer,
  addPeer,
  closeAll,
  connectedPair,
  DATA,
  exchange,
  INITIATION,
  INNER_A,
  INNER_B,
  ipv4Packet,
  keypairWord,
  LIMITS,
  makePair,
  MemoryDevice,
  Network,
  numbered,
  numberOf,
  type Pair,
  RESPONSE,
  sendAtoB,
  sendBtoA,
  sentBy,
  setEndpoint,
  slotEmpty,
} from "./memory/network.ts";

/** Queues packets with the numbers from `first` on at a's interface. */
function queue({ a }: Pair, first: number, count: number): void {
  for (let i = first; i < first + count; i++) {
    a.toSend.push(numbered(ipv4Packet(INNER_A, INNER_B), i));
  }
}

function numbers(device: MemoryDevice): number[] {
  return device.delivered.map(numberOf);
}

function range(first: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => first + i);
}

Deno.test("packets wait for the handshake and then go in order", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  network.wire = () => [];
  queue(pair, 0, 100);
  network.settle();
  assertEquals(sentBy(a, INITIATION).length, 1, "one handshake for all");
  assertEquals(a.outbound.slotsUsed, 100);
  network.wire = (datagram) => [datagram];
  network.advance(5_400);
  assertEquals(numbers(b), range(0, 100));
  assertEquals(a.outbound.slotsUsed, 0);
  closeAll(a, b);
});

Deno.test("of more than 128 staged packets the oldest are dropped and counted", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  network.wire = () => [];
  queue(pair, 0, 128);
  network.settle();
  assertEquals(a.counters(), {});
  queue(pair, 128, 72);
  network.settle();
  assertEquals(a.counters(), { tx_staged_dropped: 72 });
  assertEquals(a.outbound.slotsUsed, 128);
  network.wire = (datagram) => [datagram];
  network.advance(5_400);
  assertEquals(numbers(b), range(72, 128));
  closeAll(a, b);
});

Deno.test("packets that come while staged ones are sent stay behind them", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  let sent = 0;
  network.wire = (datagram) => {
    // More packets come with the response, and once the first batch is out.
    const { bytes: [type] } = datagram;
    if (type === RESPONSE) queue(pair, 70, 50);
    if (type === DATA && ++sent === 1) queue(pair, 120, 100);
    return [datagram];
  };
  queue(pair, 0, 70);
  network.settle();
  assertEquals(numbers(b), range(0, 220));
  closeAll(a, b);
});

Deno.test("a packet read as the key comes does not overtake the staged ones", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const held: (() => void)[] = [];
  network.wire = (datagram) => {
    if (datagram.bytes[0] !== RESPONSE) return [datagram];
    held.push(() => network.inject(datagram));
    return [];
  };
  queue(pair, 0, 5);
  network.settle();
  // Control has the key ready between outbound's look at its words and the read.
  a.onRead = (): void => {
    a.onRead = () => {};
    for (const arrive of held) arrive();
    a.inbound.pump(network.nowMs);
    a.control.pump();
  };
  queue(pair, 5, 1);
  network.settle();
  assertEquals(numbers(b), range(0, 6));
  closeAll(a, b);
});

Deno.test("packets for nobody, without an endpoint or while down are dropped and counted", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  a.toSend.push(ipv4Packet(INNER_A, "10.9.9.9"));
  a.toSend.push(new Uint8Array(84));
  a.toSend.push(new Uint8Array(19).fill(0x45));
  a.toSend.push(new Uint8Array(39).fill(0x60));
  b.toSend.push(ipv4Packet(INNER_B, INNER_A));
  network.settle();
  assertEquals(a.counters(), { tx_no_peer: 1, tx_not_ip: 3, tx_icmp_sent: 1 });
  assertEquals(b.counters(), { tx_no_endpoint: 1, tx_icmp_sent: 1 });
  a.control.down();
  sendAtoB(pair);
  assertEquals(a.counters(), {
    tx_no_peer: 1,
    tx_not_ip: 3,
    tx_icmp_sent: 1,
    tx_interface_down: 1,
  });
  assertEquals(network.log, []);
  closeAll(a, b);
});

Deno.test("many dead peers cannot keep a live one's packets out", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  for (let i = 0; i < 20; i++) addDeadPeer(a, `10.1.0.${i}`);
  for (let i = 0; i < 20 * 100; i++) {
    a.toSend.push(ipv4Packet(INNER_A, `10.1.0.${i % 20}`));
  }
  network.settle();
  const { tx_slots_exhausted = 0, tx_staged_dropped = 0 } = a.counters();
  assert(tx_slots_exhausted + tx_staged_dropped > 1_000);
  assert(a.outbound.slotsUsed <= LIMITS.txSlots - 64);
  b.delivered.length = 0;
  for (let burst = 0; burst < 5; burst++) {
    queue(pair, burst * 200, 200);
    for (let i = 0; i < 100; i++) {
      a.toSend.push(ipv4Packet(INNER_A, `10.1.0.${i % 20}`));
    }
    network.settle();
  }
  assertEquals(numbers(b), range(0, 1000));
  // Once they are given up every slot comes back.
  network.advance(120_000, 100);
  assertEquals(a.outbound.slotsUsed, 0);
  closeAll(a, b);
});

Deno.test("a peer without a session can begin one while dead peers hold all slots", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  for (let i = 0; i < 10; i++) addDeadPeer(a, `10.1.0.${i}`);
  for (let i = 0; i < 1_000; i++) {
    a.toSend.push(ipv4Packet(INNER_A, `10.1.0.${i % 10}`));
  }
  network.settle();
  sendAtoB(pair);
  assertEquals(b.delivered.length, 0, "there was no slot for it to wait in");
  const packet = sendAtoB(pair);
  assertEquals(b.delivered, [packet]);
  closeAll(a, b);
});

Deno.test("keepalives of a live peer go out while dead peers hold all slots", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  for (let i = 0; i < 10; i++) addDeadPeer(a, `10.1.0.${i}`);
  for (let i = 0; i < 1_000; i++) {
    a.toSend.push(ipv4Packet(INNER_A, `10.1.0.${i % 10}`));
  }
  network.advance(12_000);
  const before = a.control.txBytes(pair.peerOfA);
  sendBtoA(pair);
  network.advance(10_100);
  assertEquals(a.control.txBytes(pair.peerOfA) - before, 32);
  closeAll(a, b);
});

Deno.test("a peer that found no free session record is tried again", () => {
  const network = new Network();
  const limits = { ...LIMITS, sessions: 1 };
  const a = new MemoryDevice(network, "192.0.2.1:1", limits);
  const b = new MemoryDevice(network, "192.0.2.2:1");
  for (const device of [a, b]) {
    device.control.setPrivateKey(
      crypto.getRandomValues(new Uint8Array(32)),
    );
  }
  addPeer(a, b, INNER_B, true);
  addPeer(b, a, INNER_A, false);
  const dead = addDeadPeer(a, "10.1.0.1");
  a.control.up();
  b.control.up();
  a.toSend.push(ipv4Packet(INNER_A, "10.1.0.1"));
  network.settle();
  a.toSend.push(ipv4Packet(INNER_A, INNER_B));
  network.advance(1_000);
  assertEquals(a.counters(), { handshake_no_memory: 1 });
  a.control.removePeer(dead);
  network.advance(1_000);
  a.toSend.push(ipv4Packet(INNER_A, INNER_B));
  network.advance(1_000);
  assertEquals(b.delivered.length, 2);
  closeAll(a, b);
});

Deno.test("the responder sends nothing under a new key before it is confirmed", () => {
  const pair = makePair({ bothEndpoints: true });
  const { network, a, b, peerOfB } = pair;
  // Whatever a sends after its initiation is lost.
  network.wire = (datagram) =>
    datagram.from === a.address && datagram.bytes[0] !== INITIATION
      ? []
      : [datagram];
  sendAtoB(pair);
  assert(!slotEmpty(b, peerOfB, PEER.NEXT));
  assert(slotEmpty(b, peerOfB, PEER.CURRENT));
  const packets = [sendBtoA(pair), sendBtoA(pair)];
  network.advance(2_000);
  assertEquals(sentBy(b, DATA), []);
  assertEquals(b.outbound.slotsUsed, 2);
  // The first message that gets through confirms the key: the staged ones go.
  network.wire = (datagram) => [datagram];
  network.log.length = 0;
  sendAtoB(pair);
  assertEquals(a.delivered, packets);
  assertEquals(network.types(), [DATA, DATA, DATA]);
  assert(slotEmpty(b, peerOfB, PEER.NEXT));
  closeAll(a, b);
});

Deno.test("while a new key waits for its confirmation the old one goes on", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfB } = pair;
  network.advance(120_000);
  network.wire = (datagram) =>
    datagram.from === a.address && datagram.bytes[0] === DATA ? [] : [datagram];
  const old = keypairWord(b, peerOfB);
  sendAtoB(pair);
  assert(!slotEmpty(b, peerOfB, PEER.NEXT));
  a.delivered.length = 0;
  const packet = sendBtoA(pair);
  assertEquals(a.delivered, [packet], "a still has the old key as previous");
  assertEquals(keypairWord(b, peerOfB), old);
  closeAll(a, b);
});

Deno.test("an answer written while the first packet is delivered needs no other handshake", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const answer = ipv4Packet(INNER_B, INNER_A);
  b.onDelivery = (): void => void b.toSend.push(answer);
  sendAtoB(pair);
  assertEquals(network.types(), [INITIATION, RESPONSE, DATA, DATA]);
  assertEquals(a.delivered, [answer]);
  network.advance(9_000);
  assertEquals(sentBy(b, INITIATION), []);
  closeAll(a, b);
});

Deno.test("the same holds when the confirmed key follows an expired one", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  network.advance(185_000);
  network.log.length = 0;
  a.delivered.length = 0;
  const answer = ipv4Packet(INNER_B, INNER_A);
  b.onDelivery = (): void => void b.toSend.push(answer);
  sendAtoB(pair);
  assertEquals(network.types(), [INITIATION, RESPONSE, DATA, DATA]);
  assertEquals(a.delivered, [answer]);
  closeAll(a, b);
});

Deno.test("a key that is confirmed while control works on another peer is seen in time", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const dead = "10.1.0.1";
  addDeadPeer(b, dead);
  const held: (() => void)[] = [];
  network.wire = (datagram) => {
    if (datagram.bytes[0] !== DATA) return [datagram];
    held.push(() => network.inject(datagram));
    return [];
  };
  sendAtoB(pair);
  network.advance(6_000);
  network.wire = (datagram) => [datagram];
  const answer = ipv4Packet(INNER_B, INNER_A);
  b.onDelivery = (): void => void b.toSend.push(answer);
  // While control makes the dead peer's initiation, both workers go on.
  b.onWallClock = (): void => {
    b.onWallClock = () => {};
    for (const arrive of held) arrive();
    b.inbound.pump(network.nowMs);
    b.outbound.pump(network.nowMs);
    assertEquals(sentBy(b, DATA).length, 1, "it does not wait for control");
  };
  b.toSend.push(ipv4Packet(INNER_B, dead));
  network.settle();
  const to = sentBy(b, INITIATION).map((datagram) => datagram.to);
  assertEquals(to, ["192.0.2.99:1"], "none to a");
  assertEquals(a.delivered, [answer]);
  closeAll(a, b);
});

Deno.test("packets for a peer that gets its endpoint later go once it has one", () => {
  const pair = makePair();
  const { network, a, b, peerOfB } = pair;
  sendBtoA(pair);
  setEndpoint(b, peerOfB, a.address);
  b.control.peerDone(peerOfB);
  const packet = sendBtoA(pair);
  assertEquals(a.delivered, [packet], "the first was refused, not kept");
  assertEquals(b.counters(), { tx_no_endpoint: 1, tx_icmp_sent: 1 });
  network.settle();
  closeAll(a, b);
});

Deno.test("without a private key packets wait, and go once there is one", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const key = a.control.privateKey?.slice() ?? null;
  a.control.setPrivateKey(null);
  const packet = sendAtoB(pair);
  network.advance(30_000);
  assertEquals(network.log, []);
  assertEquals(a.outbound.slotsUsed, 1);
  a.control.setPrivateKey(key);
  network.settle();
  assertEquals(b.delivered, [packet]);
  closeAll(a, b);
});

Deno.test("a failed send is counted and keeps no slot", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA } = pair;
  const before = a.control.txBytes(peerOfA);
  a.sendError = 105;
  queue(pair, 0, 100);
  network.settle();
  assertEquals(a.counters(), { tx_send_failed: 100 });
  assertEquals(a.control.txBytes(peerOfA), before);
  assertEquals(a.outbound.slotsUsed, 0);
  a.sendError = 0;
  exchange(pair);
  closeAll(a, b);
});

Deno.test("a session record is given back after long idleness, and made anew", () => {
  const pair = connectedPair();
  pair.network.advance(700_000, 100);
  const { sessions, timers } = pair.a.control.objects();
  assertEquals([sessions, timers], [0, 0]);
  exchange(pair);
  closeAll(pair.a, pair.b);
});
