/** Bad datagrams: each is dropped and counted for its reason, and changes nothing. */
import { assert, assertEquals } from "@std/assert";
import { KEYPAIR, PEER, SESSION } from "../lib/records.ts";
import {
  addPeer,
  closeAll,
  connectedPair,
  COOKIE_REPLY,
  DATA,
  type Datagram,
  endpointOf,
  exchange,
  INITIATION,
  INNER_A,
  keypairWord,
  makePair,
  type MemoryDevice,
  type Pair,
  RESPONSE,
  sealedBy,
  sendAtoB,
  sentBy,
} from "./memory/network.ts";

const EMPTY = new Uint8Array(0);

function to(device: MemoryDevice, bytes: Uint8Array): Datagram {
  const from = "198.51.100.7:4242";
  return { from, to: device.address, ds: 0, sticky: false, bytes };
}

function inject({ network, b }: Pair, bytes: Uint8Array): void {
  network.inject(to(b, bytes));
  network.settle();
}

/** Everything of a peer that a bad message might change, timers included. */
function snapshot(device: MemoryDevice, peer: number): unknown {
  const { arena, control } = device;
  const at = arena.peer(peer);
  const session = arena.i32[at + PEER.SESSION];
  const record = arena.session(session);
  const keypairs = [PEER.CURRENT, PEER.PREVIOUS, PEER.NEXT].map((slot) => {
    const k = arena.keypair(arena.i32[at + slot]);
    return arena.i32.slice(k, k + KEYPAIR.WORDS).join();
  });
  return {
    peer: arena.i32.slice(at, at + PEER.WORDS).join(),
    session: arena.i32.slice(record, record + SESSION.WORDS).join(),
    keypairs,
    objects: control.objects(),
    delivered: device.delivered.length,
    sent: device.network.log.length,
  };
}

Deno.test("messages of a wrong length or type are invalid, and change nothing", () => {
  const pair = connectedPair();
  const { b, peerOfB } = pair;
  const before = snapshot(b, peerOfB);
  let count = 0;
  for (let type = 0; type < 8; type++) {
    for (
      const length of [0, 1, 3, 4, 31, 32, 63, 64, 65, 91, 92, 147, 148, 149]
    ) {
      const right = [-1, 148, 92, 64][type];
      if (length === right || (type === DATA && length >= 32)) continue;
      const bytes = new Uint8Array(length);
      if (length > 0) bytes[0] = type;
      inject(pair, bytes);
      count++;
    }
  }
  assertEquals(b.counters(), { rx_invalid_message: count });
  assertEquals(snapshot(b, peerOfB), before);
  closeAll(pair.a, b);
});

Deno.test("true messages with a reserved bit set are invalid", () => {
  const pair = makePair();
  const { network, b } = pair;
  let flipped = 0;
  network.wire = (datagram) => {
    const copies: Datagram[] = [];
    for (let bit = 8; bit < 32; bit++) {
      const bytes = datagram.bytes.slice();
      bytes[bit >> 3] ^= 1 << (bit & 7);
      copies.push({ ...datagram, bytes });
      if (datagram.to === b.address) flipped++;
    }
    return [...copies, datagram];
  };
  sendAtoB(pair);
  assertEquals(b.counters(), { rx_invalid_message: flipped });
  assertEquals(pair.a.counters(), { rx_invalid_message: 24 });
  assertEquals(b.delivered.length, 1);
  closeAll(pair.a, b);
});

Deno.test("every bit of a data message is authenticated", () => {
  const pair = connectedPair();
  const { a, b, peerOfA, peerOfB } = pair;
  const message = sealedBy(a, peerOfA, new Uint8Array(16).fill(0x45), 77n);
  const before = snapshot(b, peerOfB);
  for (let bit = 32; bit < message.length * 8; bit++) {
    const bytes = message.slice();
    bytes[bit >> 3] ^= 1 << (bit & 7);
    inject(pair, bytes);
  }
  assertEquals(b.counters(), {
    rx_unknown_index: 32,
    rx_auth_failed: message.length * 8 - 64,
  });
  assertEquals(snapshot(b, peerOfB), before);
  closeAll(a, b);
});

Deno.test("every bit of the handshake messages is authenticated, mac2 aside", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const held: Datagram[] = [];
  network.wire = (datagram) => {
    held.push(datagram);
    return [];
  };
  sendAtoB(pair);
  const [initiation] = held;
  for (let bit = 32; bit < 132 * 8; bit++) {
    const bytes = initiation.bytes.slice();
    bytes[bit >> 3] ^= 1 << (bit & 7);
    network.inject({ ...initiation, bytes });
    network.settle();
  }
  assertEquals(b.counters(), { handshake_invalid_mac: 128 * 8 });
  assertEquals(b.control.objects().sessions, 0);
  network.inject(initiation);
  network.settle();
  const response = held[1];
  assertEquals(response.bytes[0], RESPONSE);
  for (let bit = 32; bit < 76 * 8; bit++) {
    const bytes = response.bytes.slice();
    bytes[bit >> 3] ^= 1 << (bit & 7);
    network.inject({ ...response, bytes });
    network.settle();
  }
  assertEquals(a.counters(), { handshake_invalid_mac: 72 * 8 });
  network.wire = (datagram) => [datagram];
  network.inject(response);
  network.settle();
  assertEquals(b.delivered.length, 1);
  closeAll(a, b);
});

Deno.test("data for an unknown index is counted as such", () => {
  const pair = connectedPair();
  const bytes = new Uint8Array(48);
  bytes[0] = DATA;
  for (let i = 0; i < 50; i++) {
    crypto.getRandomValues(bytes.subarray(4));
    inject(pair, bytes);
  }
  assertEquals(pair.b.counters(), { rx_unknown_index: 50 });
  closeAll(pair.a, pair.b);
});

Deno.test("data that names the index of a handshake finds no key", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  network.wire = () => [];
  sendAtoB(pair);
  const [initiation] = sentBy(a, INITIATION);
  const bytes = new Uint8Array(32);
  bytes[0] = DATA;
  bytes.set(initiation.bytes.subarray(4, 8), 4);
  network.inject(to(a, bytes));
  network.settle();
  assertEquals(a.counters(), { rx_unknown_index: 1 });
  closeAll(a, b);
});

Deno.test("a session's messages arrive once each however often they are replayed", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  for (let i = 0; i < 10; i++) exchange(pair);
  const log = [...network.log];
  const delivered = [a, b].map((device) => device.delivered.length);
  network.wire = () => [];
  for (let round = 0; round < 3; round++) {
    for (const datagram of log) network.inject(datagram);
    network.settle();
  }
  assertEquals([a, b].map((device) => device.delivered.length), delivered);
  assertEquals(b.counters(), {
    rx_replayed: 30,
    handshake_refused_initiation: 3,
  });
  assertEquals(a.counters(), {
    rx_replayed: 30,
    handshake_refused_response: 3,
  });
  closeAll(a, b);
});

Deno.test("messages in any order are taken within the window and refused behind it", () => {
  const pair = connectedPair();
  const { a, b, peerOfA, peerOfB } = pair;
  const received = (): number => b.control.rxBytes(peerOfB) / 32;
  const send = (counter: number): boolean => {
    const before = received();
    inject(pair, sealedBy(a, peerOfA, EMPTY, BigInt(counter)));
    return received() > before;
  };
  assert(send(20_000));
  for (const counter of [19_999, 19_000, 11_873]) {
    assert(send(counter), `${counter}`);
    assert(!send(counter), `${counter} again`);
  }
  assert(send(20_000 - 8_128), "the last of the window");
  assert(!send(20_000 - 8_129), "behind it");
  assert(!send(20_000));
  assert(!send(1));
  assert(send(20_001));
  assertEquals(b.counters(), { rx_replayed: 6 });
  closeAll(a, b);
});

Deno.test("an old initiation cannot reset a session", () => {
  const pair = makePair();
  const { network, a, b, peerOfB } = pair;
  network.wire = () => [];
  sendAtoB(pair);
  network.advance(6_000);
  const [old, young] = sentBy(a, INITIATION);
  assert(young !== undefined);
  network.wire = (datagram) => [datagram];
  network.inject(young);
  network.settle();
  const before = snapshot(b, peerOfB);
  network.advance(100);
  network.inject(old);
  network.inject(young);
  network.settle();
  assertEquals(b.counters(), { handshake_refused_initiation: 2 });
  assertEquals(snapshot(b, peerOfB), before);
  exchange(pair);
  closeAll(a, b);
});

Deno.test("timestamps are remembered over down and up, and forgotten with the peer", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  exchange(pair);
  const [initiation] = sentBy(a, INITIATION);
  b.control.down();
  network.settle();
  b.control.up();
  network.inject(initiation);
  network.settle();
  assertEquals(b.counters(), { handshake_refused_initiation: 1 });
  const responses = sentBy(b, RESPONSE).length;
  b.control.removePeer(pair.peerOfB);
  addPeer(b, a, INNER_A, false);
  network.inject(initiation);
  network.settle();
  assertEquals(sentBy(b, RESPONSE).length, responses + 1);
  closeAll(a, b);
});

Deno.test("an initiation of a stranger is refused and costs no record", () => {
  const pair = makePair();
  const { network, a, b, peerOfB } = pair;
  b.control.removePeer(peerOfB);
  sendAtoB(pair);
  network.advance(60_000);
  const { handshake_refused_initiation: refused = 0 } = b.counters();
  assert(refused >= 10);
  const { peers, sessions, indices } = b.control.objects();
  assertEquals([peers, sessions, indices], [0, 0, 0]);
  assertEquals(sentBy(b, RESPONSE), []);
  closeAll(a, b);
});

Deno.test("cookie replies that nobody asked for are refused and counted", () => {
  const pair = connectedPair();
  const { a, b, peerOfA, peerOfB } = pair;
  const before = snapshot(b, peerOfB);
  const bytes = new Uint8Array(64);
  for (const index of ["unknown", "known"]) {
    crypto.getRandomValues(bytes);
    bytes.set([COOKIE_REPLY, 0, 0, 0]);
    if (index === "known") {
      const word = keypairWord(a, peerOfA) + KEYPAIR.REMOTE_INDEX;
      bytes.set(a.arena.bytes(word, 4), 4);
    }
    inject(pair, bytes);
  }
  assertEquals(b.counters(), { handshake_refused_cookie_reply: 2 });
  assertEquals(snapshot(b, peerOfB), before);
  closeAll(a, b);
});

Deno.test("a response that fits no pending initiation is refused", () => {
  const pair = makePair();
  const { network, a, b, peerOfA } = pair;
  const held: Datagram[] = [];
  network.wire = (datagram) => {
    if (datagram.bytes[0] !== RESPONSE) return [datagram];
    held.push(datagram);
    return [];
  };
  sendAtoB(pair);
  network.advance(5_400);
  assertEquals(held.length, 2);
  // The first response answers an initiation that was replaced meanwhile.
  network.inject(held[0]);
  network.settle();
  assertEquals(a.counters(), { handshake_refused_response: 1 });
  assertEquals(a.control.lastHandshakeMs(peerOfA), 0);
  network.inject(held[1]);
  network.settle();
  assertEquals(b.delivered.length, 1);
  closeAll(a, b);
});

Deno.test("the greatest datagram that fits is handled like any other", () => {
  const pair = connectedPair();
  const { a, b, peerOfA, peerOfB } = pair;
  const huge = new Uint8Array(65_507 - 32);
  huge[0] = 0x45;
  inject(pair, sealedBy(a, peerOfA, huge, 90n));
  assertEquals(b.counters(), { rx_bad_length: 1 });
  assertEquals(endpointOf(b, peerOfB), "198.51.100.7:4242");
  const noise = new Uint8Array(65_507).fill(0xa5);
  noise.set([DATA, 0, 0, 0]);
  inject(pair, noise);
  assertEquals(b.counters(), { rx_bad_length: 1, rx_unknown_index: 1 });
  closeAll(a, b);
});
