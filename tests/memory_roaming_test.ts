/** Endpoints that follow authentic messages, and sticky sources. */
import { assert, assertEquals } from "@std/assert";
import {
  closeAll,
  connectedPair,
  COOKIE_REPLY,
  DATA,
  type Datagram,
  endpointOf,
  exchange,
  INITIATION,
  makePair,
  type MemoryDevice,
  RESPONSE,
  sealedBy,
  sendAtoB,
  sendBtoA,
  sentBy,
  setEndpoint,
} from "./memory/network.ts";

const ELSEWHERE = "198.51.100.7:4242";
const THIRD = "203.0.113.9:9";

function datagram(to: MemoryDevice, bytes: Uint8Array): Datagram {
  return { from: ELSEWHERE, to: to.address, ds: 0, sticky: false, bytes };
}

Deno.test("the endpoint follows data, and answers go to the new address", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfB } = pair;
  a.move(ELSEWHERE);
  sendAtoB(pair);
  assertEquals(endpointOf(b, peerOfB), ELSEWHERE);
  exchange(pair);
  a.move("198.51.100.7:4243");
  sendAtoB(pair);
  assertEquals(endpointOf(b, peerOfB), "198.51.100.7:4243", "the port alone");
  exchange(pair);
  assertEquals(network.types(), [DATA, DATA, DATA, DATA, DATA, DATA]);
  closeAll(a, b);
});

Deno.test("the endpoint follows a keepalive", () => {
  const { network, a, b, peerOfA, peerOfB } = connectedPair();
  network.inject(datagram(b, sealedBy(a, peerOfA, new Uint8Array(0), 50n)));
  network.settle();
  assertEquals(endpointOf(b, peerOfB), ELSEWHERE);
  closeAll(a, b);
});

Deno.test("the endpoint follows an initiation, and the response goes there", () => {
  const pair = makePair({ bothEndpoints: true });
  const { network, a, b, peerOfB } = pair;
  a.move(ELSEWHERE);
  network.wire = (sent) => sent.bytes[0] === INITIATION ? [sent] : [];
  sendAtoB(pair);
  assertEquals(endpointOf(b, peerOfB), ELSEWHERE);
  assertEquals(sentBy(b, RESPONSE).map(({ to }) => to), [ELSEWHERE]);
  closeAll(a, b);
});

Deno.test("the endpoint follows a response", () => {
  const pair = makePair();
  const { network, a, b, peerOfA } = pair;
  network.wire = (sent) =>
    sent.bytes[0] === RESPONSE ? [{ ...sent, from: ELSEWHERE }] : [sent];
  sendAtoB(pair);
  assertEquals(endpointOf(a, peerOfA), ELSEWHERE);
  assertEquals(sentBy(a, DATA).map(({ to }) => to), [ELSEWHERE]);
  closeAll(a, b);
});

Deno.test("replayed messages of any kind change no endpoint", () => {
  const pair = makePair();
  const { network, a, b, peerOfA, peerOfB } = pair;
  exchange(pair);
  const [endpointA, endpointB] = [
    endpointOf(a, peerOfA),
    endpointOf(b, peerOfB),
  ];
  for (const sent of [...network.log]) {
    network.inject({ ...sent, from: ELSEWHERE });
    network.settle();
  }
  assertEquals(endpointOf(a, peerOfA), endpointA);
  assertEquals(endpointOf(b, peerOfB), endpointB);
  assertEquals(b.counters(), {
    rx_replayed: 1,
    handshake_refused_initiation: 1,
  });
  assertEquals(a.counters(), { rx_replayed: 1, handshake_refused_response: 1 });
  closeAll(a, b);
});

Deno.test("messages that fail authentication change no endpoint", () => {
  const pair = makePair();
  const { network, a, b, peerOfB, peerOfA } = pair;
  // Each message is preceded by a forged copy from elsewhere.
  network.wire = (sent) => {
    const bytes = sent.bytes.slice();
    bytes[bytes.length - 1 - (sent.bytes[0] === DATA ? 0 : 40)] ^= 1;
    return [{ ...sent, bytes, from: ELSEWHERE }, sent];
  };
  exchange(pair);
  assertEquals(endpointOf(a, peerOfA), b.address);
  assertEquals(endpointOf(b, peerOfB), a.address);
  assertEquals(b.counters(), { rx_auth_failed: 1, handshake_invalid_mac: 1 });
  closeAll(a, b);
});

Deno.test("packets that wrong inner sources carry still move the endpoint, as in the kernel", () => {
  const { network, a, b, peerOfA, peerOfB } = connectedPair();
  const inner = new Uint8Array(32);
  inner[0] = 0x45;
  inner[3] = 32;
  network.inject(datagram(b, sealedBy(a, peerOfA, inner, 50n)));
  network.settle();
  assertEquals(b.counters(), { rx_wrong_source: 1 });
  assertEquals(endpointOf(b, peerOfB), ELSEWHERE);
  closeAll(a, b);
});

Deno.test("a cookie reply changes no endpoint", () => {
  const pair = makePair();
  const { network, a, b, peerOfA } = pair;
  // b is under load: its queue is long when a's initiation comes.
  const junk = new Uint8Array(148);
  junk[0] = INITIATION;
  network.wire = (sent) => {
    if (sent.bytes[0] === COOKIE_REPLY) return [{ ...sent, from: THIRD }];
    return [sent];
  };
  for (let i = 0; i < 1_000; i++) b.incoming.push(datagram(b, junk));
  while (b.incoming.length > 0) b.inbound.pump(network.nowMs);
  const before = a.control.rxBytes(peerOfA);
  sendAtoB(pair);
  assertEquals(b.counters().cookie_replies_sent, 1);
  assertEquals(a.counters(), {});
  assertEquals(endpointOf(a, peerOfA), b.address);
  assertEquals(a.control.rxBytes(peerOfA), before);
  closeAll(a, b);
});

Deno.test("answers leave from the address that the last message came in on", () => {
  const pair = connectedPair();
  const { network, b } = pair;
  sendBtoA(pair);
  assertEquals(sentBy(b, DATA).map(({ sticky }) => sticky), [true]);
  // A first initiation has no source to stick to.
  const fresh = makePair();
  sendAtoB(fresh);
  assertEquals(fresh.network.log.map(({ sticky }) => sticky), [
    false,
    true,
    true,
  ]);
  assert(network !== fresh.network);
  closeAll(pair.a, b, fresh.a, fresh.b);
});

Deno.test("an endpoint set by configuration clears the source", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA } = pair;
  sendAtoB(pair);
  setEndpoint(a, peerOfA, b.address);
  sendAtoB(pair);
  assertEquals(network.log.map(({ sticky }) => sticky), [true, false]);
  closeAll(a, b);
});

Deno.test("a new port or mark clears all sources", () => {
  const pair = connectedPair();
  sendAtoB(pair);
  pair.a.control.clearSources();
  sendAtoB(pair);
  assertEquals(pair.network.log.map(({ sticky }) => sticky), [true, false]);
  closeAll(pair.a, pair.b);
});

Deno.test("a source that the system refuses is forgotten and counted", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  a.refusesSource = true;
  sendAtoB(pair);
  sendAtoB(pair);
  assertEquals(network.log.map(({ sticky }) => sticky), [true, false]);
  assertEquals(a.counters(), { tx_source_forgotten: 1 });
  closeAll(a, b);
});

Deno.test("retransmissions and handshakes after silence go without a source", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  network.wire = () => [];
  sendAtoB(pair);
  network.advance(30_000);
  const initiations = sentBy(a, INITIATION);
  assert(initiations.length >= 2);
  assert(initiations.every(({ sticky }) => !sticky));
  closeAll(a, b);
});

Deno.test("a responder that never had an endpoint learns it and can rekey to it", () => {
  const pair = makePair();
  const { network, a, b, peerOfB } = pair;
  assertEquals(endpointOf(b, peerOfB), "none");
  exchange(pair);
  network.advance(200_000, 100);
  network.log.length = 0;
  sendBtoA(pair);
  assertEquals(network.types(), [INITIATION, RESPONSE, DATA]);
  assertEquals(network.log[0].to, a.address);
  closeAll(a, b);
});
