/** Changes of configuration while a device works: keys, peers, up and down. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { HEADER } from "../lib/arena.ts";
import { generatePrivateKey } from "../lib/crypto/x25519.ts";
import { EpochReader } from "../lib/epoch.ts";
import { EVENT_ARMED, inboundEvents } from "../lib/queueing.ts";
import { KEYPAIR, PEER } from "../lib/records.ts";
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
  isInitiator,
  keypairWord,
  LIMITS,
  makePair,
  type MemoryDevice,
  type Pair,
  RESPONSE,
  sealedBy,
  sendAtoB,
  sendBtoA,
  sentBy,
  setEndpoint,
  slotEmpty,
} from "./memory/network.ts";

const PSK = new Uint8Array(32).fill(9);
const EMPTY = new Uint8Array(0);

/** Makes b accept a's present public key in place of the one before. */
function replacePeerOfB(pair: Pair): void {
  pair.b.control.removePeer(pair.peerOfB);
  pair.peerOfB = addPeer(pair.b, pair.a, INNER_A, true);
}

Deno.test("a new private key ends sending at once and needs a new handshake", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA } = pair;
  a.control.setPrivateKey(generatePrivateKey());
  network.settle();
  assertEquals(network.log, [], "nothing to send, so no handshake");
  const packet = sendAtoB(pair);
  assertEquals(network.types(), [INITIATION]);
  assertEquals(sentBy(a, DATA), []);
  replacePeerOfB(pair);
  network.advance(5_400);
  assertEquals(b.delivered.at(-1), packet);
  exchange(pair);
  assert(isInitiator(a, peerOfA));
  closeAll(a, b);
});

Deno.test("a new private key may shake hands at once, also right after a handshake", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  exchange(pair);
  a.control.setPrivateKey(generatePrivateKey());
  replacePeerOfB(pair);
  network.settle();
  network.log.length = 0;
  const packet = sendAtoB(pair);
  assertEquals(network.types(), [INITIATION, RESPONSE, DATA]);
  assertEquals(b.delivered.at(-1), packet);
  closeAll(a, b);
});

Deno.test("what comes in under the old private key's session is read until it is too old", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfB } = pair;
  a.control.setPrivateKey(generatePrivateKey());
  a.delivered.length = 0;
  sendBtoA(pair);
  assertEquals(a.delivered.length, 1);
  network.advance(100_000, 100);
  sendBtoA(pair);
  assertEquals(a.delivered.length, 2);
  const late = sealedBy(b, peerOfB, EMPTY, 1_000n);
  network.advance(80_000, 100);
  network.inject({
    from: b.address,
    to: a.address,
    ds: 0,
    sticky: false,
    bytes: late,
  });
  network.settle();
  assertEquals(a.counters().rx_key_expired, 1);
  closeAll(a, b);
});

Deno.test("the same private key again, clamped or not, changes nothing", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  const key = a.control.privateKey?.slice() ?? EMPTY;
  a.control.setPrivateKey(key);
  key[0] |= 7;
  key[31] = (key[31] | 128) & ~64;
  a.control.setPrivateKey(key);
  exchange(pair);
  assertEquals(network.types(), [DATA, DATA]);
  closeAll(a, b);
});

Deno.test("without a private key handshakes are neither made nor answered", () => {
  const pair = makePair({ bothEndpoints: true });
  const { network, a, b } = pair;
  b.control.setPrivateKey(null);
  sendAtoB(pair);
  sendBtoA(pair);
  network.advance(20_000);
  assertEquals(network.log.filter(({ from }) => from === b.address), []);
  assertEquals(b.control.publicKey, null);
  closeAll(a, b);
});

Deno.test("a preshared key that changes keeps the session, the next handshake uses it", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA, peerOfB } = pair;
  a.control.setPresharedKey(peerOfA, PSK);
  exchange(pair);
  assertEquals(network.types(), [DATA, DATA]);
  // b does not have it yet: the rekey fails, the session lives on.
  network.advance(121_000, 100);
  exchange(pair);
  network.advance(1_000);
  assert((a.counters().handshake_refused_response ?? 0) > 0);
  exchange(pair);
  b.control.setPresharedKey(peerOfB, PSK);
  network.advance(6_000);
  const at = keypairWord(a, peerOfA) + KEYPAIR.BIRTH_F64;
  assert(network.nowMs - a.arena.getF64(at) < 6_000, "a new session");
  exchange(pair);
  assertEquals(a.control.presharedKeyOf(peerOfA), PSK);
  a.control.setPresharedKey(peerOfA, new Uint8Array(32));
  assertEquals(a.control.presharedKeyOf(peerOfA), new Uint8Array(32));
  closeAll(a, b);
});

/** What a pair has been through when its peer is removed on `side`. */
const MOMENTS: Record<string, (pair: Pair) => void> = {
  "a fresh peer": () => {},
  "a peer with staged packets and an initiation out": (pair) => {
    pair.network.wire = () => [];
    for (let i = 0; i < 10; i++) sendAtoB(pair);
  },
  "a peer whose packets were read and not looked at": ({ a }) => {
    for (let i = 0; i < 10; i++) a.toSend.push(ipv4Packet(INNER_A, INNER_B));
  },
  "a peer with a message in the ring to outbound": (pair) => {
    pair.a.toSend.push(ipv4Packet(INNER_A, INNER_B));
    pair.a.outbound.pump(pair.network.nowMs);
    pair.a.control.pump();
  },
  "a peer whose response waits at the handshake ring": (pair) => {
    const { network, a } = pair;
    sendHeld(pair, (type) => type === RESPONSE);
    a.inbound.pump(network.nowMs);
  },
  "a peer with a key that is not confirmed": (pair) => {
    sendHeld(pair, (type) => type === DATA);
  },
  "a peer whose key confirmation was not read yet": (pair) => {
    const { network, b } = pair;
    sendHeld(pair, (type) => type === DATA);
    b.inbound.pump(network.nowMs);
  },
  "a peer with a session": (pair) => exchange(pair),
  "a peer whose traffic armed timers that control has not seen": (pair) => {
    const { network, a, b } = pair;
    exchange(pair);
    network.advance(20_000);
    a.toSend.push(ipv4Packet(INNER_A, INNER_B));
    a.outbound.pump(network.nowMs);
    b.inbound.pump(network.nowMs);
  },
  "a peer with three keys": (pair) => {
    const { network } = pair;
    exchange(pair);
    network.advance(121_000, 100);
    exchange(pair);
    network.advance(121_000, 100);
    sendHeld(pair, (type) => type === RESPONSE);
  },
  "a peer with all timers": (pair) => {
    const { network, a, b, peerOfA, peerOfB } = pair;
    a.control.setPersistentKeepalive(peerOfA, 25);
    exchange(pair);
    b.control.setPersistentKeepalive(peerOfB, 25);
    network.wire = () => [];
    sendAtoB(pair);
    network.advance(16_000);
  },
};

/** Sends a packet from a; datagrams of the types held arrive and are not read. */
function sendHeld(pair: Pair, hold: (type: number) => boolean): void {
  const { network } = pair;
  const held: (() => void)[] = [];
  network.wire = (datagram) => {
    if (!hold(datagram.bytes[0])) return [datagram];
    held.push(() => network.inject(datagram));
    return [];
  };
  sendAtoB(pair);
  network.wire = (datagram) => [datagram];
  for (const arrive of held) arrive();
}

function counts(device: MemoryDevice): unknown {
  return { ...device.control.objects(), slots: device.outbound.slotsUsed };
}

const NOTHING = {
  peers: 0,
  keypairs: 0,
  sessions: 0,
  timers: 0,
  allowedIpNodes: 0,
  indices: 0,
  retired: 0,
  slots: 0,
};

for (const [name, prepare] of Object.entries(MOMENTS)) {
  Deno.test(`${name} can be removed, and nothing of it stays`, () => {
    const pair = makePair({ bothEndpoints: true });
    prepare(pair);
    const { network, a, b, peerOfA, peerOfB } = pair;
    a.control.removePeer(peerOfA);
    b.control.removePeer(peerOfB);
    network.log.length = 0;
    network.advance(100);
    assertEquals(counts(a), NOTHING);
    assertEquals(counts(b), NOTHING);
    network.advance(200_000, 500);
    assertEquals(sentBy(a, DATA).concat(sentBy(b, DATA)), []);
    // The numbers are used again, by peers that know nothing of the old ones.
    pair.peerOfA = addPeer(a, b, INNER_B, true);
    pair.peerOfB = addPeer(b, a, INNER_A, false);
    assertEquals(a.control.rxBytes(pair.peerOfA), 0);
    assertEquals(a.control.lastHandshakeMs(pair.peerOfA), 0);
    assertEquals(a.control.persistentKeepaliveOf(pair.peerOfA), 0);
    assertEquals(b.control.endpointOf(pair.peerOfB), undefined);
    network.wire = (datagram) => [datagram];
    network.advance(1_000);
    exchange(pair);
    closeAll(a, b);
  });

  Deno.test(`an interface with ${name} goes down and comes up`, () => {
    const pair = makePair({ bothEndpoints: true });
    prepare(pair);
    const { network, a, b, peerOfA, peerOfB } = pair;
    a.control.setPersistentKeepalive(peerOfA, 0);
    b.control.setPersistentKeepalive(peerOfB, 0);
    a.control.down();
    b.control.down();
    network.settle();
    network.log.length = 0;
    network.wire = (datagram) => [datagram];
    network.advance(200_000, 500);
    assertEquals(network.log, [], "silence while down");
    for (const device of [a, b]) {
      assertEquals(counts(device), {
        ...NOTHING,
        peers: 1,
        allowedIpNodes: 1,
      });
    }
    a.toSend.length = b.toSend.length = 0;
    a.control.up();
    b.control.up();
    network.settle();
    assertEquals(network.log, []);
    exchange(pair);
    assertEquals(network.types(), [INITIATION, RESPONSE, DATA, DATA]);
    closeAll(a, b);
  });
}

Deno.test("down drops staged packets and counts them; up shakes hands at once", () => {
  const pair = makePair();
  const { network, a, b, peerOfA } = pair;
  network.wire = () => [];
  for (let i = 0; i < 5; i++) sendAtoB(pair);
  a.control.down();
  network.settle();
  assertEquals(a.counters(), { tx_staged_dropped: 5 });
  a.control.up();
  network.wire = (datagram) => [datagram];
  network.log.length = 0;
  sendAtoB(pair);
  assertEquals(network.types(), [INITIATION, RESPONSE, DATA]);
  for (const slot of [PEER.PREVIOUS, PEER.NEXT]) {
    assert(slotEmpty(a, peerOfA, slot));
  }
  closeAll(a, b);
});

Deno.test("endpoint and counts outlive down and up", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA } = pair;
  const before = [a.control.rxBytes(peerOfA), a.control.txBytes(peerOfA)];
  a.control.down();
  network.advance(100);
  a.control.up();
  network.settle();
  assertEquals(
    [a.control.rxBytes(peerOfA), a.control.txBytes(peerOfA)],
    before,
  );
  exchange(pair);
  closeAll(a, b);
});

Deno.test("a walk over the peers goes on when the peer that it is at is removed", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const others = [1, 2, 3, 4].map((i) => addDeadPeer(a, `10.2.0.${i}`));
  using walk = a.control.peers.walk();
  using atTheEnd = a.control.peers.walk();
  for (let n = 0; n < 4; n++) atTheEnd.advance();
  assertEquals(atTheEnd.peer, others[3]);
  a.control.removePeer(walk.peer);
  a.control.removePeer(others[0]);
  a.control.removePeer(others[3]);
  network.advance(1_000);
  assertEquals(a.control.objects().peers, 2, "the records are free again");
  addDeadPeer(a, "10.2.0.9");
  const seen = [];
  for (; walk.peer !== 0; walk.advance()) seen.push(walk.peer);
  assertEquals(seen, [others[1], others[2]], "what was there at the beginning");
  assertEquals(atTheEnd.peer, 0, "new peers do not prolong it");
  closeAll(a, b);
});

Deno.test("peers beyond the limit are refused, and fit once others are gone", () => {
  const pair = makePair({ limits: { ...LIMITS, peers: 3 } });
  const { network, a, b } = pair;
  const others = [1, 2].map((i) => addDeadPeer(a, `10.2.0.${i}`));
  assertEquals(a.control.createPeer(generatePrivateKey()), -1);
  a.control.removePeer(others[0]);
  network.advance(100);
  const peer = a.control.createPeer(generatePrivateKey());
  assert(peer > 0);
  assertNotEquals(peer, others[1]);
  setEndpoint(a, peer, b.address);
  exchange(pair);
  closeAll(a, b);
});

Deno.test("a removed peer's record is not used again before its last event is read", () => {
  const pair = makePair({ limits: { ...LIMITS, peers: 1 } });
  const { network, a, b, peerOfA } = pair;
  a.control.setPresharedKey(peerOfA, PSK);
  a.control.removePeer(peerOfA);
  assertEquals(a.control.presharedKeyOf(peerOfA), new Uint8Array(32), "wiped");
  // Inbound is in a batch, and has a last word about the peer.
  const worker = new EpochReader(a.arena, HEADER.INBOUND_EPOCH);
  worker.enter();
  network.advance(100);
  inboundEvents(a.arena).post(peerOfA, EVENT_ARMED);
  worker.leave();
  assertEquals(a.control.createPeer(generatePrivateKey()), -1);
  network.advance(100);
  pair.peerOfA = addPeer(a, b, INNER_B, true);
  assertEquals(pair.peerOfA, peerOfA);
  exchange(pair);
  closeAll(a, b);
});

Deno.test("a device closes in the middle of anything", () => {
  for (const prepare of Object.values(MOMENTS)) {
    const pair = makePair({ bothEndpoints: true });
    prepare(pair);
    closeAll(pair.a, pair.b);
  }
});

Deno.test("a closed device takes neither peers nor a key of a request that is under way", () => {
  const pair = connectedPair();
  const { control } = pair.a;
  control.close();
  assertEquals(control.createPeer(new Uint8Array(32).fill(3)), -1);
  assertEquals(control.setPrivateKey(generatePrivateKey()), undefined);
  assertEquals(control.privateKey, null);
  assertEquals(control.findPeer(pair.b.control.publicKey ?? EMPTY), 0);
  closeAll(pair.a, pair.b);
});
