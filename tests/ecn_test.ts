/** ECN of tunnelled packets: the tables of RFC 6040 as the kernel applies them. */
import { assertEquals } from "@std/assert";
import {
  ECN_CE,
  ECN_ECT_0,
  ECN_ECT_1,
  ECN_NOT_ECT,
  ecnDecapsulate,
  ecnEncapsulate,
  ecnOf,
} from "../lib/ecn.ts";
import {
  be16,
  checksum,
  internetChecksum,
  merge,
  OUT,
  Random,
  split,
  superPacket,
} from "./packet_helpers.ts";
import { arena } from "./packet_helpers.ts";
import {
  closeAll,
  connectedPair,
  INNER_A,
  INNER_B,
  ipv4Packet,
  ipv6Packet,
} from "./memory/network.ts";

const ALL = [ECN_NOT_ECT, ECN_ECT_0, ECN_ECT_1, ECN_CE] as const;
const AT = 5;
const DSCPS = [0, 0x2e, 0x3f];

/** A packet of random bytes with this DS field, at AT of the array. */
function packet(random: Random, v4: boolean, ds: number): Uint8Array {
  const bytes = random.bytes(AT + 80);
  const ip = bytes.subarray(AT);
  if (v4) {
    ip[0] = 0x45;
    ip[1] = ds;
    be16(ip, 10, 0);
    be16(ip, 10, internetChecksum(ip.subarray(0, 20)));
  } else {
    ip[0] = 0x60 | (ds >> 4);
    ip[1] = ((ds & 15) << 4) | (ip[1] & 15);
  }
  return bytes;
}

function dsOf(ip: Uint8Array): number {
  return ip[0] >> 4 === 4 ? ip[1] : ((ip[0] & 15) << 4) | (ip[1] >> 4);
}

Deno.test("the outside shows the inner ECN, a mark as ECT(0), and never the DSCP", () => {
  const random = new Random(1);
  const shown = new Map([[ECN_CE, ECN_ECT_0]]);
  for (const v4 of [true, false]) {
    for (const dscp of DSCPS) {
      for (const ecn of ALL) {
        const bytes = packet(random, v4, (dscp << 2) | ecn);
        assertEquals(ecnOf(bytes, AT), ecn);
        assertEquals(ecnEncapsulate(bytes, AT), shown.get(ecn) ?? ecn);
      }
    }
  }
});

/** What comes out, by inner and outer field; undefined: unchanged and counted. */
const TABLE: Readonly<Record<number, readonly (number | undefined)[]>> = {
  // Outer:         Not-ECT      ECT(1)       ECT(0)       CE
  [ECN_NOT_ECT]: [ECN_NOT_ECT, ECN_NOT_ECT, ECN_NOT_ECT, undefined],
  [ECN_ECT_1]: [ECN_ECT_1, ECN_ECT_1, ECN_ECT_1, ECN_CE],
  [ECN_ECT_0]: [ECN_ECT_0, ECN_ECT_1, ECN_ECT_0, ECN_CE],
  [ECN_CE]: [ECN_CE, ECN_CE, ECN_CE, ECN_CE],
};

Deno.test("marks of the outside come in by RFC 6040's table, and change nothing else", () => {
  const random = new Random(2);
  for (let round = 0; round < 200; round++) {
    for (const v4 of [true, false]) {
      for (const inner of ALL) {
        for (const outer of ALL) {
          const dscp = DSCPS[round % DSCPS.length];
          const bytes = packet(random, v4, (dscp << 2) | inner);
          const expected = bytes.slice();
          const ok = ecnDecapsulate(bytes, AT, (random.below(64) << 2) | outer);
          const out = TABLE[inner][outer];
          assertEquals(ok, out !== undefined, `${inner} in ${outer}`);
          const ip = bytes.subarray(AT);
          assertEquals(dsOf(ip), (dscp << 2) | (out ?? inner));
          if (v4) {
            assertEquals(internetChecksum(ip.subarray(0, 20)), 0);
            expected[AT + 1] = ip[1];
            expected.set(ip.subarray(10, 12), AT + 10);
          } else expected.set(ip.subarray(0, 2), AT);
          assertEquals(bytes, expected);
        }
      }
    }
  }
});

Deno.test("a checksum that is mended is right for all sums of the header", () => {
  // The rest of the header, chosen so that the sum takes all values.
  for (let rest = 0; rest <= 0xffff; rest++) {
    const ip = new Uint8Array(20);
    ip[0] = 0x45;
    ip[1] = ECN_ECT_0;
    be16(ip, 4, rest);
    be16(ip, 10, internetChecksum(ip));
    ecnDecapsulate(ip, 0, ECN_CE);
    assertEquals(ip[1], ECN_CE);
    if (internetChecksum(ip) !== 0) throw new Error(`number ${rest}`);
  }
});

Deno.test("all segments of a super-packet have its ECN", () => {
  const random = new Random(3);
  for (const v4 of [true, false]) {
    const whole = superPacket(random, {
      v4,
      tcp: true,
      size: 100,
      payload: 950,
    });
    const ip = whole.subarray(10);
    if (v4) ip[1] = ECN_ECT_1;
    else ip[1] = ECN_ECT_1 << 4;
    const segments = split(whole);
    assertEquals(segments.length, 10);
    for (const segment of segments) {
      assertEquals(ecnEncapsulate(segment, 0), ECN_ECT_1);
    }
  }
});

Deno.test("packets of one flow with different ECN are not merged", () => {
  for (const v4 of [true, false]) {
    const whole = superPacket(new Random(4), {
      v4,
      tcp: true,
      size: 100,
      payload: 400,
      df: true,
    });
    whole[10 + 1] = v4 ? ECN_ECT_0 : ECN_ECT_0 << 4;
    const segments = split(whole);
    assertEquals(merge(segments).written.length, 1);
    ecnDecapsulate(segments[2], 0, ECN_CE);
    arena.u8.set(segments[2], OUT);
    if (v4) assertEquals(checksum.checksum(OUT, 20, 0), 0xffff);
    const { written } = merge(segments);
    const classes = written.map((super_) => ecnOf(super_, 10));
    assertEquals(classes, [ECN_ECT_0, ECN_CE, ECN_ECT_0]);
  }
});

function withDs(packet: Uint8Array, ds: number): Uint8Array {
  if (packet[0] >> 4 === 4) {
    packet[1] = ds;
    be16(packet, 10, 0);
    be16(packet, 10, internetChecksum(packet.subarray(0, 20)));
  } else {
    packet[0] = 0x60 | (ds >> 4);
    packet[1] = (ds & 15) << 4;
  }
  return packet;
}

const A6 = new Uint8Array(16).fill(0xfd, 0, 1).fill(1, 15);
const B6 = new Uint8Array(16).fill(0xfd, 0, 1).fill(2, 15);

Deno.test("a tunnel carries ECN both ways, and keepalives have none", () => {
  const pair = connectedPair();
  const { network, a, b, peerOfA, peerOfB } = pair;
  a.control.allowedIps.insert(B6, 128, peerOfA);
  b.control.allowedIps.insert(A6, 128, peerOfB);
  let mark = 0;
  network.wire = (datagram) => [{ ...datagram, ds: datagram.ds | mark }];
  const make = (v4: boolean): Uint8Array =>
    v4 ? ipv4Packet(INNER_A, INNER_B) : ipv6Packet(A6, B6, 84);
  for (const v4 of [true, false]) {
    for (const ecn of ALL) {
      for (const onWay of [0, ECN_CE]) {
        mark = onWay;
        network.log.length = b.delivered.length = 0;
        // All that is sealed in one batch keeps its own.
        for (const e of [ecn, ECN_NOT_ECT, ecn]) {
          a.toSend.push(withDs(make(v4), 0xb8 | e));
        }
        network.settle();
        const outer = ecn === ECN_CE ? ECN_ECT_0 : ecn;
        const sent = network.log.map(({ ds }) => ds);
        assertEquals(sent, [outer, 0, outer]);
        const inner = ecn === ECN_NOT_ECT || onWay === 0 ? ecn : ECN_CE;
        assertEquals(b.delivered.map(dsOf), [0xb8 | inner, 0xb8, 0xb8 | inner]);
        const [first] = b.delivered;
        if (v4) assertEquals(internetChecksum(first.subarray(0, 20)), 0);
      }
    }
  }
  // Not-ECT packets marked on the way: two for ECT, three for Not-ECT itself.
  assertEquals(b.counters(), { rx_ecn_mismatch: 2 * (1 + 1 + 1 + 3) });
  mark = 0;
  network.log.length = 0;
  network.advance(11_000);
  assertEquals(network.log.map(({ ds, bytes }) => [ds, bytes.length]), [
    [0, 32],
  ]);
  closeAll(a, b);
});

Deno.test("packets staged for a key keep their ECN", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  network.advance(200_000, 1_000);
  network.log.length = b.delivered.length = 0;
  for (const ecn of ALL) {
    a.toSend.push(withDs(ipv4Packet(INNER_A, INNER_B), ecn));
  }
  network.settle();
  const sent = network.log.map(({ ds, bytes }) => [bytes[0], ds]);
  assertEquals(sent, [[1, 0x88], [2, 0x88], [4, 0], [4, 2], [4, 1], [4, 2]]);
  assertEquals(b.delivered.map(dsOf), [...ALL]);
  closeAll(a, b);
});
