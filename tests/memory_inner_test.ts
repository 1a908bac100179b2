/** What a data message carries: checks of the inner packet, trimming, padding. */
import { assert, assertEquals } from "@std/assert";
import { HEADER } from "../lib/arena.ts";
import {
  addDeadPeer,
  closeAll,
  connectedPair,
  INNER_A,
  INNER_B,
  ipv4Packet,
  ipv6Packet,
  type Pair,
  sealedBy,
} from "./memory/network.ts";

const A6 = address6(0xa);
const B6 = address6(0xb);
let nextCounter = 100n;

function address6(last: number): Uint8Array {
  const address = new Uint8Array(16);
  address.set([0xfd, 1]);
  address[15] = last;
  return address;
}

/** Delivers `plaintext` from a to b, whatever it is. */
function deliver(pair: Pair, plaintext: Uint8Array): void {
  const { network, a, b, peerOfA } = pair;
  b.delivered.length = 0;
  network.inject({
    from: a.address,
    to: b.address,
    ds: 0,
    sticky: false,
    bytes: sealedBy(a, peerOfA, plaintext, nextCounter++),
  });
  network.settle();
}

/** A connected pair that may send IPv6 in the tunnel as well. */
function dualStackPair(): Pair {
  const pair = connectedPair();
  pair.a.control.allowedIps.insert(B6, 128, pair.peerOfA);
  pair.b.control.allowedIps.insert(A6, 128, pair.peerOfB);
  return pair;
}

function withLength4(packet: Uint8Array, length: number): Uint8Array {
  packet[2] = length >> 8;
  packet[3] = length & 0xff;
  return packet;
}

function withLength6(packet: Uint8Array, length: number): Uint8Array {
  packet[4] = length >> 8;
  packet[5] = length & 0xff;
  return packet;
}

Deno.test("padding is zeros on the way and trimmed at the end, IPv4", () => {
  const pair = connectedPair();
  for (const length of [20, 21, 31, 32, 33, 84, 1_419, 1_420]) {
    const packet = ipv4Packet(INNER_A, INNER_B, Math.max(20, length));
    pair.b.delivered.length = 0;
    pair.a.toSend.push(packet);
    pair.network.settle();
    assertEquals(pair.b.delivered, [packet]);
  }
  const trailing = new Uint8Array(96);
  trailing.set(ipv4Packet(INNER_A, INNER_B, 50));
  trailing.fill(0xee, 50);
  deliver(pair, trailing);
  assertEquals(pair.b.delivered, [trailing.slice(0, 50)]);
  closeAll(pair.a, pair.b);
});

Deno.test("IPv6 passes through the tunnel and is trimmed by its own length", () => {
  const pair = dualStackPair();
  for (const length of [40, 41, 96, 1_000, 1_420]) {
    const packet = ipv6Packet(A6, B6, length);
    pair.b.delivered.length = 0;
    pair.a.toSend.push(packet);
    pair.network.settle();
    assertEquals(pair.b.delivered, [packet]);
  }
  assertEquals(pair.b.counters(), {});
  closeAll(pair.a, pair.b);
});

Deno.test("lengths that lie are dropped and counted", () => {
  const pair = dualStackPair();
  const bad = [
    withLength4(ipv4Packet(INNER_A, INNER_B, 64), 65),
    withLength4(ipv4Packet(INNER_A, INNER_B, 64), 65_535),
    withLength4(ipv4Packet(INNER_A, INNER_B, 64), 19),
    withLength4(ipv4Packet(INNER_A, INNER_B, 64), 0),
    withLength6(ipv6Packet(A6, B6, 64), 25),
    withLength6(ipv6Packet(A6, B6, 64), 65_535),
  ];
  for (const [i, packet] of bad.entries()) {
    deliver(pair, packet);
    assertEquals(pair.b.delivered, [], `packet ${i}`);
    assertEquals(pair.b.counters(), { rx_bad_length: i + 1 });
  }
  closeAll(pair.a, pair.b);
});

Deno.test("plaintext that is no whole IP header is no packet", () => {
  const pair = dualStackPair();
  let count = 0;
  for (let version = 0; version < 16; version++) {
    for (const length of [1, 16, 19, 20, 39, 40, 64]) {
      if (version === 4 && length >= 20) continue;
      if (version === 6 && length >= 40) continue;
      const plaintext = new Uint8Array(length).fill(0x11);
      plaintext[0] = version << 4 | 5;
      deliver(pair, plaintext);
      assertEquals(pair.b.counters(), { rx_not_ip: ++count });
    }
  }
  assertEquals(pair.b.delivered, []);
  closeAll(pair.a, pair.b);
});

Deno.test("a source that the peer is not allowed is dropped and counted", () => {
  const pair = dualStackPair();
  deliver(pair, ipv4Packet("10.0.0.3", INNER_B));
  deliver(pair, ipv4Packet(INNER_B, INNER_B));
  deliver(pair, ipv6Packet(address6(0xc), B6));
  assertEquals(pair.b.counters(), { rx_wrong_source: 3 });
  closeAll(pair.a, pair.b);
});

Deno.test("a more specific prefix of another peer takes the source away", () => {
  const pair = connectedPair();
  const { b, peerOfB } = pair;
  b.control.allowedIps.insert(Uint8Array.of(10, 7, 0, 0), 16, peerOfB);
  deliver(pair, ipv4Packet("10.7.1.1", INNER_B));
  assertEquals(b.delivered.length, 1);
  const other = addDeadPeer(b, "10.8.0.1");
  b.control.allowedIps.insert(Uint8Array.of(10, 7, 1, 0), 24, other);
  deliver(pair, ipv4Packet("10.7.1.1", INNER_B));
  assertEquals(b.delivered, []);
  deliver(pair, ipv4Packet("10.7.2.1", INNER_B));
  assertEquals(b.delivered.length, 1);
  assertEquals(b.counters(), { rx_wrong_source: 1 });
  // And back, once that peer is gone.
  b.control.removePeer(other);
  deliver(pair, ipv4Packet("10.7.1.1", INNER_B));
  assertEquals(b.delivered.length, 1);
  closeAll(pair.a, b);
});

Deno.test("an allowed IP that moves to another peer moves both directions", () => {
  const pair = connectedPair();
  const { network, b, peerOfB } = pair;
  const other = addDeadPeer(b, "10.8.0.1", "192.0.2.50:1");
  b.control.allowedIps.insert(Uint8Array.of(10, 0, 0, 1), 32, other);
  deliver(pair, ipv4Packet(INNER_A, INNER_B));
  assertEquals(b.counters(), { rx_wrong_source: 1 });
  network.log.length = 0;
  b.toSend.push(ipv4Packet(INNER_B, INNER_A));
  network.settle();
  assertEquals(network.log.map(({ to }) => to), ["192.0.2.50:1"]);
  b.control.allowedIps.insert(Uint8Array.of(10, 0, 0, 1), 32, peerOfB);
  deliver(pair, ipv4Packet(INNER_A, INNER_B));
  assertEquals(b.delivered.length, 1);
  closeAll(pair.a, b);
});

Deno.test("bytes count the whole message when the packet is delivered, and not otherwise", () => {
  const pair = connectedPair();
  const { b, peerOfB } = pair;
  const before = b.control.rxBytes(peerOfB);
  const padded = new Uint8Array(112);
  padded.set(ipv4Packet(INNER_A, INNER_B, 100));
  deliver(pair, padded);
  assertEquals(b.control.rxBytes(peerOfB) - before, 112 + 32);
  deliver(pair, ipv4Packet("10.0.0.3", INNER_B, 112));
  deliver(pair, new Uint8Array(112));
  b.writeError = 5;
  deliver(pair, padded);
  assertEquals(b.control.rxBytes(peerOfB) - before, 112 + 32);
  assertEquals(b.counters(), {
    rx_wrong_source: 1,
    rx_not_ip: 1,
    rx_tun_write_failed: 1,
  });
  closeAll(pair.a, b);
});

Deno.test("messages are padded to 16 bytes but never past the interface's MTU", () => {
  for (const mtu of [1_420, 1_299, 1_300, 1_280, 0]) {
    const pair = connectedPair();
    const { network, a } = pair;
    a.arena.i32[HEADER.MTU] = mtu;
    for (const length of [20, 33, 1_277, 1_280]) {
      network.log.length = 0;
      a.toSend.push(ipv4Packet(INNER_A, INNER_B, length));
      network.settle();
      const rounded = Math.ceil(length / 16) * 16;
      const padded = mtu === 0 ? rounded : Math.min(mtu, rounded);
      assertEquals(
        network.log[0].bytes.length,
        padded + 32,
        `${length} ${mtu}`,
      );
    }
    closeAll(a, pair.b);
  }
});

Deno.test("a packet longer than the MTU is sent and arrives whole", () => {
  const pair = connectedPair();
  for (const length of [1_421, 2_841, 9_000, 65_000]) {
    const packet = new Uint8Array(length).fill(0x5a);
    packet.set(ipv4Packet(INNER_A, INNER_B, 20));
    withLength4(packet, length);
    pair.b.delivered.length = 0;
    pair.a.toSend.push(packet);
    pair.network.settle();
    assertEquals(pair.b.delivered, [packet]);
  }
  closeAll(pair.a, pair.b);
});

Deno.test("bytes of an earlier packet in the same slot never go out as padding", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  for (let i = 0; i < 200; i++) {
    a.toSend.push(ipv4Packet(INNER_A, INNER_B, 1_400));
  }
  network.settle();
  network.log.length = 0;
  const packet = ipv4Packet(INNER_A, INNER_B, 81);
  // Claims its padding as its own, so that the far side delivers it.
  withLength4(packet, 96);
  b.delivered.length = 0;
  a.toSend.push(packet);
  network.settle();
  assertEquals(b.delivered[0].length, 96);
  assert(b.delivered[0].subarray(81).every((byte) => byte === 0));
  closeAll(a, b);
});
