/**
 * The merge of segments: what was split is merged to what it was, flow by flow;
 * what must not be merged is not; order within a flow never changes; and an
 * interface that refuses super-packets gets every packet by itself.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { THREAD_INBOUND } from "../lib/arena.ts";
import { FLOWS_MAX, MERGE_MAX } from "../lib/coalesce.ts";
import { COUNT, Counters } from "../lib/counters.ts";
import { GSO_NONE, VNET, VNET_HEADER } from "../lib/segments.ts";
import { probeOffloads } from "../lib/tun.ts";
import {
  arena,
  be16,
  FakeInterface,
  forEachShape,
  internetChecksum,
  merge,
  Random,
  split,
  superPacket,
  transportChecksum,
} from "./packet_helpers.ts";

Deno.test("what was split is merged to the same super-packet again", () => {
  forEachShape((shape, random) => {
    const packet = superPacket(random, shape);
    const segments = split(packet);
    const { written } = merge(segments);
    assertEquals(written.length, 1);
    if (segments.length > 1) {
      assertEquals(written[0], packet);
      return;
    }
    assertEquals(written[0].subarray(VNET_HEADER), segments[0]);
    assertEquals(written[0][VNET.GSO_TYPE], GSO_NONE);
  });
});

Deno.test("packets that differ in what matters are not merged", () => {
  const shape = { v4: true, tcp: true, size: 100, payload: 300, df: true };
  const fix = (packet: Uint8Array): void => {
    be16(packet, 10, 0);
    be16(packet, 10, internetChecksum(packet.subarray(0, 20)));
    be16(packet, 36, 0);
    be16(packet, 36, transportChecksum(packet));
  };
  const changes: Record<string, (packet: Uint8Array) => void> = {
    "class or ECN": (p) => p[1] ^= 1,
    "TTL": (p) => p[8] ^= 1,
    "source": (p) => p[15] ^= 1,
    "destination": (p) => p[19] ^= 1,
    "source port": (p) => p[21] ^= 1,
    "destination port": (p) => p[23] ^= 1,
    "sequence": (p) => p[27] ^= 1,
    "acknowledgement": (p) => p[31] ^= 1,
    "window": (p) => p[35] ^= 1,
    "options": (p) => p[42] ^= 1,
    "FIN": (p) => p[33] |= 0x01,
    "SYN": (p) => p[33] |= 0x02,
    "RST": (p) => p[33] |= 0x04,
    "URG": (p) => p[33] |= 0x20,
    "ECE": (p) => p[33] |= 0x40,
    "CWR": (p) => p[33] |= 0x80,
    "fragment": (p) => p[6] |= 0x20,
    "DF": (p) => p[6] ^= 0x40,
  };
  for (const [what, change] of Object.entries(changes)) {
    const packets = split(superPacket(new Random(3), shape));
    change(packets[1]);
    fix(packets[1]);
    const { written } = merge(packets);
    assert(written.length > 1, `${what} was merged`);
    assertEquals(
      written.flatMap((packet) => [...packet.subarray(VNET_HEADER)]).length,
      packets.reduce((sum, packet) => sum + packet.length, 0),
    );
  }
});

Deno.test("packets that differ in their IPv6 header are not merged", () => {
  const changes: Record<string, (packet: Uint8Array) => void> = {
    "class or ECN": (p) => p[1] ^= 0x10,
    "flow label": (p) => p[3] ^= 1,
    "hop limit": (p) => p[7] ^= 1,
    "source": (p) => p[23] ^= 1,
    "destination": (p) => p[39] ^= 1,
  };
  for (const tcp of [true, false]) {
    for (const [what, change] of Object.entries(changes)) {
      const packets = flowOf(1, 2, { v4: false, tcp });
      change(packets[1]);
      const field = tcp ? 56 : 46;
      be16(packets[1], field, 0);
      be16(packets[1], field, transportChecksum(packets[1]));
      const { written } = merge(packets);
      assertEquals(delivered(written), packets);
      assertEquals(written.length, 2, `${what} was merged`);
    }
  }
});

Deno.test("a packet with a wrong checksum goes on alone, as it is", () => {
  for (const at of [10, 36, 60]) {
    const packets = split(superPacket(new Random(5), {
      v4: true,
      tcp: true,
      size: 100,
      payload: 300,
    }));
    packets[1][at] ^= 1;
    const bad = packets[1].slice();
    const { written } = merge(packets);
    assertEquals(written.length, 3);
    assertEquals(written[1].subarray(VNET_HEADER), bad);
    assertEquals(written[1][VNET.FLAGS], 0);
  }
});

Deno.test("IP numbers must be consecutive where packets may be fragmented", () => {
  const shape = { v4: true, tcp: true, size: 100, payload: 200, df: false };
  const packets = split(superPacket(new Random(5), shape));
  be16(packets[1], 4, be16(packets[1], 4) + 1);
  be16(packets[1], 10, 0);
  be16(packets[1], 10, internetChecksum(packets[1].subarray(0, 20)));
  assertEquals(merge(packets).written.length, 2);
});

Deno.test("a gap, a push and a shorter packet end what is merged", () => {
  const shape = { v4: false, tcp: true, size: 100, payload: 500 };
  const packets = split(superPacket(new Random(9), shape));
  assertEquals(merge([packets[0], packets[2], packets[3]]).written.length, 2);
  assertEquals(merge([packets[1], packets[0]]).written.length, 2);
  const pushed = split(superPacket(new Random(9), { ...shape, flags: 0x18 }));
  assertEquals(merge([...pushed, ...pushed]).written.length, 2);
});

Deno.test("UDP is merged only where the interface takes it", () => {
  const shape = { v4: true, tcp: false, size: 100, payload: 300 };
  const packets = split(superPacket(new Random(5), shape));
  assertEquals(merge(packets, false).written.length, 3);
  assertEquals(merge(packets, true).written.length, 1);
});

/** The segments of one flow, `count` packets of `size` bytes. */
function flowOf(
  flow: number,
  count: number,
  { v4 = true, tcp = true, size = 100, flags = 0x10 } = {},
): Uint8Array[] {
  return split(superPacket(new Random(flow + 1), {
    v4,
    tcp,
    size,
    payload: count * size,
    df: true,
    flow,
    flags,
  }));
}

/** Packets of many lists in turns. */
function interleave(...lists: Uint8Array[][]): Uint8Array[] {
  const longest = Math.max(...lists.map((list) => list.length));
  return Array.from({ length: longest }, (_, i) => i)
    .flatMap((i) => lists.filter((list) => i < list.length).map((l) => l[i]));
}

/** What reaches the host: super-packets cut again. */
function delivered(written: readonly Uint8Array[]): Uint8Array[] {
  return written.flatMap((packet) =>
    packet[VNET.GSO_TYPE] === GSO_NONE
      ? [packet.slice(VNET_HEADER)]
      : split(packet)
  );
}

/** The packets of one flow, told by its second port. */
function ofFlow(packets: readonly Uint8Array[], flow: number): Uint8Array[] {
  return packets.filter((packet) =>
    be16(packet, packet[0] >> 4 === 4 ? 22 : 42) === flow
  );
}

/** An acknowledgement without payload of that flow. */
function ackOf(packet: Uint8Array): Uint8Array {
  const v4 = packet[0] >> 4 === 4;
  const l4 = v4 ? 20 : 40;
  return resized(packet.slice(0, l4 + (packet[l4 + 12] >> 4) * 4));
}

/** Sets lengths and checksums right again. */
function resized(packet: Uint8Array): Uint8Array {
  const v4 = packet[0] >> 4 === 4;
  if (v4) {
    be16(packet, 2, packet.length);
    be16(packet, 10, 0);
    be16(packet, 10, internetChecksum(packet.subarray(0, 20)));
  } else be16(packet, 4, packet.length - 40);
  const field = (v4 ? 20 : 40) + 16;
  be16(packet, field, 0);
  be16(packet, field, transportChecksum(packet));
  return packet;
}

Deno.test("interleaved flows are merged, each by itself", () => {
  const flows = [
    flowOf(0, 10),
    flowOf(1, 10, { v4: false }),
    flowOf(2, 10, { tcp: false }),
    flowOf(3, 10, { v4: false, tcp: false }),
    flowOf(4, 10),
  ];
  const { written } = merge(interleave(...flows));
  assertEquals(written.length, flows.length);
  flows.forEach((flow, i) =>
    assertEquals(delivered(written.slice(i, i + 1)), flow)
  );
});

Deno.test("flows that differ in one address or port only are told apart", () => {
  for (const v4 of [true, false]) {
    const l4 = v4 ? 20 : 40;
    const places = v4 ? [15, 19, l4 + 1, l4 + 3] : [23, 39, l4 + 1, l4 + 3];
    for (const at of places) {
      const one = flowOf(7, 8, { v4 });
      const other = one.map((packet) => {
        const copy = packet.slice();
        copy[at] ^= 1;
        return resized(copy);
      });
      const { written } = merge(interleave(one, other));
      assertEquals(written.length, 2);
      assertEquals(delivered(written), [...one, ...other]);
    }
  }
});

Deno.test("acknowledgements of other flows do not end what is merged", () => {
  const data = flowOf(1, 20);
  const acks = flowOf(2, 20).map(ackOf);
  const { written } = merge(interleave(data, acks));
  assertEquals(written.length, acks.length + 1);
  assertEquals(ofFlow(delivered(written), 1), data);
  assertEquals(ofFlow(delivered(written), 2), acks);
});

Deno.test("what is not merged does not overtake packets of its flow", () => {
  const kinds: Record<string, (packet: Uint8Array) => Uint8Array> = {
    "an acknowledgement": ackOf,
    "FIN": (p) => (p[33] |= 1, resized(p)),
    "RST": (p) => (p[33] |= 4, resized(p)),
    "SYN": (p) => (p[33] |= 2, resized(p)),
    "a wrong checksum": (p) => (p[50] ^= 1, p),
    "a wrong IP checksum": (p) => (p[10] ^= 1, p),
    "a retransmission": (p) => (p[24] ^= 1, resized(p)),
    "another window": (p) => (p[35] ^= 1, resized(p)),
    "a first fragment": (p) => (p[6] = 0x20, p),
    "a later fragment": (p) => (p[6] = 0, p[7] = 9, p),
    "options of IP": (p) => (p[0] = 0x46, p),
    "a tunnel": (p) => (p[9] = 4, p),
    "no whole header": (p) => p.slice(0, 22),
  };
  for (const [what, change] of Object.entries(kinds)) {
    const flow = flowOf(1, 9);
    const other = flowOf(2, 9);
    // One host, another pair of addresses.
    const far = flowOf(3, 9).map((p) => (p[15] ^= 1, resized(p)));
    flow[4] = change(flow[4].slice());
    const { written } = merge(interleave(flow, other, far));
    const got = delivered(written);
    assertEquals(got.length, 27, what);
    const sameHosts = got.filter((p) => p[15] === flow[0][15]);
    const mine = sameHosts.filter((p) => !other.some((q) => equal(p, q)));
    assertEquals(mine, flow, what);
    assertEquals(
      sameHosts.filter((p) => other.some((q) => equal(p, q))),
      other,
    );
    const farOnes = written.filter((p) => p[VNET_HEADER + 15] === far[0][15]);
    assertEquals(farOnes.length, 1, `${what} ended another's group`);
  }
});

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

Deno.test("one flow more than there are groups ends the oldest group alone", () => {
  const flows = Array.from({ length: FLOWS_MAX + 1 }, (_, i) => flowOf(i, 4));
  const first = flows.map((flow) => flow.slice(0, 2)).flat();
  const rest = flows.slice(1).map((flow) => flow.slice(2)).flat();
  const { written } = merge([...first, ...rest]);
  assertEquals(written.length, FLOWS_MAX + 1);
  assertEquals(delivered(written.slice(0, 1)), flows[0].slice(0, 2));
  flows.slice(1).forEach((flow, i) => {
    assertEquals(ofFlow(delivered(written), i + 1), flow);
  });
});

Deno.test("many more flows than groups lose and reorder nothing", () => {
  const flows = Array.from(
    { length: 3 * FLOWS_MAX },
    (_, i) => flowOf(i, 1 + i % 7, { v4: i % 2 === 0, tcp: i % 3 > 0 }),
  );
  const got = delivered(merge(interleave(...flows)).written);
  flows.forEach((flow, i) => assertEquals(ofFlow(got, i), flow));
});

Deno.test("a super-packet has no more pieces than a vector, and 65,535 bytes", () => {
  const small = merge(flowOf(1, MERGE_MAX + 10, { size: 20 })).written;
  assertEquals(small.length, 2);
  const large = flowOf(1, 44, { size: 1400 });
  const more = flowOf(1, 88, { size: 700 });
  for (const packets of [large, more]) {
    const { written } = merge(packets);
    assertEquals(delivered(written), packets);
    for (const packet of written) {
      assert(packet.length - VNET_HEADER <= 65_535);
    }
  }
});

Deno.test("super-packets that are refused go out singly, and none is tried again", () => {
  const counters = new Counters(arena, THREAD_INBOUND);
  for (const error of [5, 22, 95]) {
    const before = counters.get(COUNT.rx_offload_refused);
    let tries = 0;
    const tun = new FakeInterface(true, (packet, super_) => {
      const tcp = packet[VNET.GSO_TYPE] !== 5;
      if (super_ && tcp) tries++;
      return super_ && tcp ? error : 0;
    });
    // PSH at the end: the first packet must not keep it.
    const flows = [
      flowOf(1, 8, { flags: 0x18 }),
      flowOf(2, 8, { v4: false }),
      flowOf(3, 8, { tcp: false }),
    ];
    assertEquals(tun.batch(interleave(...flows)), 0);
    assertEquals(tries, 1);
    assertEquals(tun.written.length, 17);
    flows.forEach((flow, i) =>
      assertEquals(ofFlow(delivered(tun.written), i + 1), flow)
    );
    tun.written = [];
    assertEquals(tun.batch(interleave(...flows)), 0);
    assertEquals(tries, 1, "TCP is off for good");
    assertEquals(tun.written.length, 17, "UDP is still merged");
    assertEquals(counters.get(COUNT.rx_offload_refused) - before, 1);
  }
});

Deno.test("UDP super-packets that are refused leave TCP's on", () => {
  const tun = new FakeInterface(
    true,
    (packet) => packet[VNET.GSO_TYPE] === 5 ? 22 : 0,
  );
  for (const v4 of [true, false]) {
    const flows = [flowOf(1, 8, { v4, tcp: false }), flowOf(2, 8, { v4 })];
    tun.written = [];
    assertEquals(tun.batch(interleave(...flows)), 0);
    assertEquals(tun.written.length, 9);
    flows.forEach((flow, i) =>
      assertEquals(ofFlow(delivered(tun.written), i + 1), flow)
    );
  }
});

Deno.test("an interface that is down loses packets and no offload", () => {
  const counters = new Counters(arena, THREAD_INBOUND);
  const before = counters.get(COUNT.rx_offload_refused);
  let down = true;
  const tun = new FakeInterface(true, () => down ? 5 : 0);
  assertEquals(tun.batch(flowOf(1, 8)), 8);
  down = false;
  assertEquals(tun.batch(flowOf(1, 8)), 0);
  assertEquals(tun.written.length, 1);
  assertEquals(counters.get(COUNT.rx_offload_refused), before);
});

Deno.test("other errors of a write are not taken for a refusal", () => {
  const full = new FakeInterface(true, (_, super_) => super_ ? 105 : 0);
  assertEquals(full.batch(flowOf(1, 8)), 8);
  assertEquals(full.batch([...flowOf(1, 8), ...flowOf(2, 3)]), 11);
});

Deno.test("of the offloads, what the kernel refuses is not used", () => {
  // TUN_F_CSUM and TSO for both families; USO for both.
  const tso = 1 | 2 | 4;
  const uso = 32 | 64;
  const kernels: [number, { tcp: boolean; udp: boolean }][] = [
    [tso | uso, { tcp: true, udp: true }],
    [tso, { tcp: true, udp: false }],
    [0, { tcp: false, udp: false }],
  ];
  for (const [has, offloads] of kernels) {
    let on = -1;
    const set = (flags: number): boolean => {
      if ((flags & ~has) !== 0) return false;
      on = flags;
      return true;
    };
    assertEquals(probeOffloads(set), offloads);
    assertEquals(on, has);
  }
});

Deno.test("TCP headers that are too short are not merged", () => {
  const packets = flowOf(1, 4).map((packet) => {
    packet[32] = 0x40;
    return resized(packet);
  });
  assertEquals(merge(packets).written.length, 4);
});

Deno.test("UDP without a checksum is not merged, even if zero would be right", () => {
  const packets = flowOf(1, 4, { tcp: false }).map((packet) => {
    be16(packet, 26, 0);
    be16(packet, 28, 0);
    be16(packet, 28, transportChecksum(packet));
    assertEquals(transportChecksum(packet), 0);
    return packet;
  });
  assertEquals(merge(packets).written.length, 4);
});
