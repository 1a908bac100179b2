/** A network that loses, doubles, delays and reorders, over minutes of time. */
import { assert, assertEquals } from "@std/assert";
import { generatePrivateKey } from "../lib/crypto/x25519.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import {
  addPeer,
  closeAll,
  connectedPair,
  type Datagram,
  exchange,
  INITIATION,
  INNER_A,
  INNER_B,
  ipv4Packet,
  MemoryDevice,
  Network,
  numbered,
  numberOf,
  type Pair,
  sentBy,
} from "./memory/network.ts";

interface Quality {
  /** Per cent of the datagrams. */
  readonly lost: number;
  readonly doubled: number;
  /** Greatest delay of one. */
  readonly delayMs: number;
}

/** Makes the network as bad as told, from a seed. */
function spoil(network: Network, seed: number, quality: Quality): void {
  const random = new SeededRandom(seed);
  const chance = (percent: number): boolean =>
    random.below(1000) < percent * 10;
  network.wire = (datagram: Datagram): Datagram[] => {
    if (chance(quality.lost)) return [];
    const copies = chance(quality.doubled) ? 2 : 1;
    for (let i = 0; i < copies; i++) {
      network.later(datagram, random.below(quality.delayMs + 1));
    }
    return [];
  };
}

/** Sends numbered packets both ways each `everyMs`; returns how many each way. */
function traffic(pair: Pair, forMs: number, everyMs: number): number {
  const { network, a, b } = pair;
  let number = 0;
  for (let ms = 0; ms < forMs; ms += everyMs) {
    a.toSend.push(numbered(ipv4Packet(INNER_A, INNER_B), number));
    b.toSend.push(numbered(ipv4Packet(INNER_B, INNER_A), number));
    number++;
    network.advance(everyMs, 50);
    network.log.length = 0;
  }
  return number;
}

/** Asserts that no packet came twice or came to be, and returns their numbers. */
function onceEach(device: MemoryDevice, sent: number): number[] {
  const numbers = device.delivered.map(numberOf);
  assertEquals(new Set(numbers).size, numbers.length, "at most once");
  assert(numbers.every((number) => number < sent));
  return numbers;
}

/** Most numbers in a row that are missing. */
function longestGap(numbers: number[], sent: number): number {
  const there = new Set(numbers);
  let [gap, longest] = [0, 0];
  for (let i = 0; i < sent; i++) {
    gap = there.has(i) ? 0 : gap + 1;
    longest = Math.max(longest, gap);
  }
  return longest;
}

const NETWORKS: Record<string, Quality> = {
  "loses 2 %": { lost: 2, doubled: 0, delayMs: 30 },
  "loses 30 % and delays up to 400 ms": { lost: 30, doubled: 0, delayMs: 400 },
  "doubles half of all": { lost: 0, doubled: 50, delayMs: 200 },
  "reorders over 3 s": { lost: 1, doubled: 5, delayMs: 3_000 },
};

for (const [name, quality] of Object.entries(NETWORKS)) {
  for (const seed of [1, 2]) {
    Deno.test(`a network that ${name} carries ten minutes of traffic, seed ${seed}`, () => {
      // Connected, as two first handshakes at once may cross several times.
      const pair = connectedPair();
      const { network, a, b } = pair;
      a.delivered.length = b.delivered.length = 0;
      spoil(network, seed, quality);
      const everyMs = 250;
      const sent = traffic(pair, 600_000, everyMs);
      network.advance(10_000, 50);
      for (const device of [a, b]) {
        const numbers = onceEach(device, sent);
        // What a rekey of two or three tries costs is staged and comes later.
        const expected = sent * (1 - quality.lost / 100);
        const share = numbers.length / expected;
        assert(share > 0.95 && share < 1.05, `${name}: ${share}`);
        const gapMs = longestGap(numbers, sent) * everyMs;
        assert(gapMs < 6_000, `${gapMs} ms without a packet`);
        const { rx_auth_failed = 0, rx_invalid_message = 0 } = device
          .counters();
        assertEquals([rx_auth_failed, rx_invalid_message], [0, 0]);
        if (quality.doubled > 0) {
          assert((device.counters().rx_replayed ?? 0) > 0);
        }
      }
      network.wire = (datagram) => [datagram];
      network.advance(20_000, 50);
      exchange(pair);
      closeAll(a, b);
    });
  }
}

Deno.test("without loss every packet of ten minutes arrives, in whatever order", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  a.delivered.length = b.delivered.length = 0;
  spoil(network, 3, { lost: 0, doubled: 10, delayMs: 800 });
  const sent = traffic(pair, 600_000, 500);
  network.advance(20_000, 50);
  for (const device of [a, b]) {
    assertEquals(onceEach(device, sent).length, sent);
  }
  closeAll(a, b);
});

Deno.test("after outages of any length traffic recovers within a retransmission and a silence", () => {
  const random = new SeededRandom(9);
  const pair = connectedPair();
  const { network, a, b } = pair;
  traffic(pair, 2_000, 500);
  for (let outage = 0; outage < 12; outage++) {
    network.wire = () => [];
    traffic(pair, 1_000 + random.below(400_000), 1_000);
    network.wire = (datagram) => [datagram];
    a.delivered.length = b.delivered.length = 0;
    const backMs = network.nowMs;
    while (a.delivered.length === 0 || b.delivered.length === 0) {
      traffic(pair, 200, 200);
      assert(network.nowMs - backMs < 16_000, `outage ${outage}`);
    }
    traffic(pair, random.below(30_000), 500);
  }
  closeAll(a, b);
});

Deno.test("one direction that is cut ends in handshakes, and heals", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  traffic(pair, 2_000, 500);
  network.wire = (datagram) => datagram.from === b.address ? [] : [datagram];
  traffic(pair, 60_000, 1_000);
  a.toSend.push(ipv4Packet(INNER_A, INNER_B));
  network.advance(6_000);
  assert(sentBy(a, INITIATION).length >= 1);
  network.wire = (datagram) => [datagram];
  network.advance(6_000);
  exchange(pair);
  closeAll(a, b);
});

Deno.test("a restarted far side is found again by new data within 16 s", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  traffic(pair, 5_000, 500);
  b.control.down();
  network.settle();
  b.control.up();
  a.delivered.length = b.delivered.length = 0;
  const startMs = network.nowMs;
  // b sends nothing by itself.
  while (b.delivered.length === 0) {
    a.toSend.push(ipv4Packet(INNER_A, INNER_B));
    network.advance(500);
    assert(network.nowMs - startMs < 16_500);
  }
  exchange(pair);
  closeAll(a, b);
});

Deno.test("a hub keeps eight spokes apart on a bad network", () => {
  const network = new Network();
  const hub = new MemoryDevice(network, "192.0.2.1:51820");
  hub.control.setPrivateKey(generatePrivateKey());
  const spokes = Array.from({ length: 8 }, (_, i) => {
    const spoke = new MemoryDevice(network, `192.0.2.${10 + i}:51820`);
    spoke.control.setPrivateKey(generatePrivateKey());
    addPeer(spoke, hub, INNER_A, true);
    addPeer(hub, spoke, `10.0.0.${10 + i}`, false);
    spoke.control.up();
    return spoke;
  });
  hub.control.up();
  spoil(network, 11, { lost: 10, doubled: 10, delayMs: 500 });
  const sent = 240;
  for (let number = 0; number < sent; number++) {
    spokes.forEach((spoke, i) => {
      const inner = `10.0.0.${10 + i}`;
      spoke.toSend.push(numbered(ipv4Packet(inner, INNER_A), number * 8 + i));
      hub.toSend.push(numbered(ipv4Packet(INNER_A, inner), number * 8 + i));
    });
    network.advance(1_000, 100);
    network.log.length = 0;
  }
  network.advance(10_000, 100);
  const atHub = hub.delivered.map(numberOf);
  assertEquals(new Set(atHub).size, atHub.length);
  assert(atHub.length > sent * 8 * 0.85);
  spokes.forEach((spoke, i) => {
    const numbers = spoke.delivered.map(numberOf);
    assertEquals(new Set(numbers).size, numbers.length);
    assert(numbers.every((number) => number % 8 === i), "its own alone");
    assert(numbers.length > sent * 0.8);
  });
  closeAll(hub, ...spokes);
});
