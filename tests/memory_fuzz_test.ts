/**
 * Seeded fuzzing: mutated datagrams against a device in each state of its
 * handshake, and mutated frames at its interface.
 */
import { assert, assertEquals } from "@std/assert";
import { COUNTER_NAMES, readCounters } from "../lib/counters.ts";
import { hash, mac16 } from "../lib/crypto/blake2s.ts";
import {
  HANDSHAKE_CREATED_INITIATION,
  HANDSHAKE_ZEROED,
  PEER,
} from "../lib/records.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import {
  addDeadPeer,
  closeAll,
  connectedPair,
  COOKIE_REPLY,
  DATA,
  type Datagram,
  endpointOf,
  exchange,
  handshakeState,
  INITIATION,
  INNER_A,
  INNER_B,
  ipv4Packet,
  ipv6Packet,
  makePair,
  type MemoryDevice,
  type Pair,
  RESPONSE,
  sendAtoB,
  sentBy,
  slotEmpty,
} from "./memory/network.ts";

const DATAGRAMS = 20_000;
const FRAMES = 20_000;
/** Costs a Diffie-Hellman product or two each. */
const SEALED_HANDSHAKES = 1_000;

interface State {
  readonly pair: Pair;
  readonly target: MemoryDevice;
  /** The target's peer. */
  readonly peer: number;
  /** True messages, some never delivered. */
  readonly messages: Uint8Array[];
}

/** True messages of another pair, a cookie reply among them. */
function foreignMessages(): Uint8Array[] {
  const pair = makePair();
  exchange(pair);
  const reply = new Uint8Array(64).fill(0x33);
  reply.set([COOKIE_REPLY, 0, 0, 0]);
  const messages = [...pair.network.log.map(({ bytes }) => bytes), reply];
  closeAll(pair.a, pair.b);
  return messages;
}

const STATES: Record<string, () => State> = {
  "no handshake yet": () => {
    const pair = makePair();
    return { pair, target: pair.b, peer: pair.peerOfB, messages: [] };
  },
  "an initiation sent and its response on the way": () => {
    const pair = makePair();
    const { network, a, peerOfA } = pair;
    network.wire = (datagram) =>
      datagram.bytes[0] === RESPONSE ? [] : [datagram];
    sendAtoB(pair);
    assertEquals(handshakeState(a, peerOfA), HANDSHAKE_CREATED_INITIATION);
    const messages = network.log.map(({ bytes }) => bytes);
    return { pair, target: a, peer: peerOfA, messages };
  },
  "a response sent and not confirmed": () => {
    const pair = makePair({ bothEndpoints: true });
    const { network, b, peerOfB } = pair;
    network.wire = (datagram) => datagram.bytes[0] === DATA ? [] : [datagram];
    sendAtoB(pair);
    assert(!slotEmpty(b, peerOfB, PEER.NEXT));
    const messages = network.log.map(({ bytes }) => bytes);
    return { pair, target: b, peer: peerOfB, messages };
  },
  "a session in use": () => {
    const pair = makePair();
    const { network, b, peerOfB } = pair;
    for (let i = 0; i < 5; i++) exchange(pair);
    assertEquals(handshakeState(b, peerOfB), HANDSHAKE_ZEROED);
    network.wire = () => [];
    for (let i = 0; i < 3; i++) sendAtoB(pair);
    const messages = network.log.map(({ bytes }) => bytes);
    return { pair, target: b, peer: peerOfB, messages };
  },
  "a session that is too old": () => {
    const pair = connectedPair();
    const { network, b, peerOfB } = pair;
    network.wire = () => [];
    sendAtoB(pair);
    network.advance(181_000, 500);
    const messages = network.log.map(({ bytes }) => bytes);
    return { pair, target: b, peer: peerOfB, messages };
  },
};

function sameBytes(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

/** Bytes before mac2, which is not looked at without load. */
function authenticated({ length }: Uint8Array): number {
  return length === 148 || length === 92 ? length - 16 : length;
}

/** A message that differs from the true one where it matters. */
function mutate(random: SeededRandom, original: Uint8Array): Uint8Array {
  for (;;) {
    let bytes = original.slice();
    switch (random.below(6)) {
      case 0:
        bytes = bytes.slice(0, random.below(bytes.length));
        break;
      case 1: {
        const longer = new Uint8Array(bytes.length + 1 + random.below(100));
        random.fill(longer);
        longer.set(bytes);
        bytes = longer;
        break;
      }
      case 2:
        // Only the header is left.
        random.fill(bytes.subarray(random.below(3) * 4));
        break;
      case 3: {
        const from = random.below(authenticated(bytes));
        random.fill(bytes.subarray(from, from + 1 + random.below(32)));
        break;
      }
      default:
        for (let flips = 1 + random.below(4); flips > 0; flips--) {
          const at = random.below(authenticated(bytes));
          bytes[at] ^= 1 << random.below(8);
        }
    }
    const end = authenticated(original);
    if (!sameBytes(bytes.subarray(0, end), original.subarray(0, end))) {
      return bytes;
    }
    if (bytes.length !== original.length) return bytes;
  }
}

/** A changed initiation or response with the mac1 that anyone can make. */
function mutateBehindMac(
  random: SeededRandom,
  original: Uint8Array,
  publicKey: Uint8Array,
): Uint8Array {
  const bytes = original.slice();
  const mac1At = bytes.length - 32;
  while (sameBytes(bytes, original)) {
    // Indices before byte 8 are nothing that the Noise handshake covers.
    const from = 8 + random.below(mac1At - 8);
    if (random.below(4) === 0) bytes.fill(0, from, mac1At);
    else bytes[from] ^= 1 << random.below(8);
  }
  const key = hash(new TextEncoder().encode("mac1----"), publicKey);
  bytes.set(mac16(key, bytes.subarray(0, mac1At)), mac1At);
  return bytes;
}

/** Datagrams that the device counted as dropped or refused. */
function refused(device: MemoryDevice): number {
  const counters = readCounters(device.arena);
  return COUNTER_NAMES.filter((name) =>
    name !== "rx_packets" && /^(rx|handshake)_/.test(name)
  ).reduce((sum, name) => sum + counters[name], 0);
}

for (const [name, prepare] of Object.entries(STATES)) {
  Deno.test(`${DATAGRAMS} mutated datagrams are all refused with ${name}`, () => {
    const state = prepare();
    const { pair, target, peer, messages } = state;
    const { network, a, b } = pair;
    const random = new SeededRandom(messages.length + 100);
    const pool = [...messages, ...foreignMessages()];
    network.wire = (datagram) => [datagram];
    network.log.length = 0;
    const look = (): unknown => [
      endpointOf(target, peer),
      target.control.rxBytes(peer),
      target.control.txBytes(peer),
      target.control.objects(),
      target.delivered.length,
      target.outbound.slotsUsed,
      handshakeState(target, peer),
    ];
    const before = look();
    const refusedBefore = refused(target);
    const from = "198.51.100.7:4242";
    for (let i = 0; i < DATAGRAMS; i++) {
      const bytes = mutate(random, pool[random.below(pool.length)]);
      network.inject({ from, to: target.address, ds: 0, sticky: false, bytes });
      if (i % 97 === 0) network.settle();
    }
    const key = target.control.publicKey ?? new Uint8Array(0);
    const handshakes = pool.filter(({ length }) =>
      length === 148 || length === 92
    );
    for (let i = 0; i < SEALED_HANDSHAKES; i++) {
      const original = handshakes[random.below(handshakes.length)];
      const bytes = mutateBehindMac(random, original, key);
      network.inject({ from, to: target.address, ds: 0, sticky: false, bytes });
      if (i % 97 === 0) network.settle();
    }
    network.settle();
    assertEquals(look(), before);
    const sent = DATAGRAMS + SEALED_HANDSHAKES;
    assertEquals(refused(target) - refusedBefore, sent);
    const { handshake_refused_initiation = 0, handshake_refused_response = 0 } =
      target.counters();
    const behindMac = handshake_refused_initiation + handshake_refused_response;
    assert(behindMac >= SEALED_HANDSHAKES);
    assertEquals(network.log, []);
    // What was on the way all the time is still good, and so is the device.
    for (const bytes of messages) {
      const datagram: Datagram = {
        from: target === a ? b.address : a.address,
        to: target.address,
        ds: 0,
        sticky: false,
        bytes,
      };
      network.inject(datagram);
    }
    network.settle();
    network.advance(6_000);
    exchange(pair);
    closeAll(a, b);
  });
}

Deno.test(`${DATAGRAMS} datagrams of random bytes are refused, and cost no record`, () => {
  const pair = makePair();
  const { network, b } = pair;
  const random = new SeededRandom(77);
  const lengths = [148, 92, 64, 32, 48];
  for (let i = 0; i < DATAGRAMS; i++) {
    const length = random.below(3) === 0
      ? random.below(1_500)
      : lengths[random.below(lengths.length)];
    const bytes = random.fill(new Uint8Array(length));
    if (random.below(4) > 0) {
      bytes.set([1 + random.below(4), 0, 0, 0].slice(0, length));
    }
    const from = `198.51.100.${random.below(250)}:${1 + random.below(60_000)}`;
    network.inject({ from, to: b.address, ds: 0, sticky: false, bytes });
    if (i % 50 === 0) network.settle();
  }
  network.settle();
  assertEquals(refused(b), DATAGRAMS);
  assertEquals(network.log, []);
  const { sessions, keypairs, indices, timers } = b.control.objects();
  assertEquals([sessions, keypairs, indices, timers], [0, 0, 0, 0]);
  closeAll(pair.a, b);
});

Deno.test(`${FRAMES} mutated frames at the interface are sent or counted, each once`, () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  addDeadPeer(a, "10.1.0.1");
  addDeadPeer(a, "10.1.0.2", null);
  const random = new SeededRandom(78);
  const six = new Uint8Array(16).fill(0xfd);
  const frames = [
    ipv4Packet(INNER_A, INNER_B, 60),
    ipv4Packet(INNER_A, INNER_B, 1_400),
    ipv4Packet(INNER_A, "10.1.0.1"),
    ipv4Packet(INNER_A, "10.1.0.2"),
    ipv6Packet(six, six),
  ];
  b.delivered.length = 0;
  for (let i = 0; i < FRAMES; i++) {
    let frame = frames[random.below(frames.length)].slice();
    const what = random.below(4);
    if (what === 0) frame = frame.slice(0, 1 + random.below(frame.length));
    if (what === 1) random.fill(frame);
    if (what === 2) frame[random.below(24)] = random.below(256);
    a.toSend.push(frame);
    if (i % 100 === 0) network.advance(20);
  }
  network.advance(200_000, 100);
  const counters = readCounters(a.arena);
  assertEquals(counters.tx_packets, FRAMES + 1);
  const data = sentBy(a, DATA).filter(({ bytes }) => bytes.length > 32).length;
  const dropped = counters.tx_not_ip + counters.tx_no_peer +
    counters.tx_no_endpoint + counters.tx_staged_dropped +
    counters.tx_redirect;
  assertEquals(data + dropped, FRAMES);
  assert(counters.tx_not_ip > 100 && counters.tx_no_peer > 100);
  assert(counters.tx_no_endpoint > 100 && counters.tx_staged_dropped > 100);
  assert(b.delivered.length > 1_000);
  assertEquals(sentBy(a, INITIATION).length >= 20, true);
  assertEquals(a.outbound.slotsUsed, 0);
  exchange(pair);
  closeAll(a, b);
});
