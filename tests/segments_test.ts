/**
 * Super-packets: what is split is right packet by packet, and what was split is
 * merged again to what it was; what must not be merged is not; headers that lie
 * are refused and nothing is touched outside of what was given.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "../lib/arena.ts";
import { Coalescer } from "../lib/coalesce.ts";
import { createChecksum } from "../lib/crypto/checksum.ts";
import {
  finishChecksum,
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  SegmentWalk,
  Splitter,
  VNET,
  VNET_HEADER,
} from "../lib/segments.ts";

const arena = new Arena({
  peers: 1,
  allowedIpNodes: 1,
  sessions: 1,
  txSlots: 32,
});
const checksum = createChecksum(arena.memory);
const { u8 } = arena;
const IN = arena.txPayload(1);
const OUT = arena.layout.segments * 4 + 64;
const CANARY = 0xa5;

/** Numbers that are the same in each run. */
class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed;
  }

  /** A whole number below `limit`. */
  below(limit: number): number {
    this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0;
    return Math.floor(this.#state / 2 ** 32 * limit);
  }

  /** That many bytes. */
  bytes(length: number): Uint8Array {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}

interface Shape {
  v4: boolean;
  tcp: boolean;
  size: number;
  payload: number;
  options?: number;
  flags?: number;
  df?: boolean;
}

function be16(packet: Uint8Array, at: number, value?: number): number {
  if (value !== undefined) {
    packet[at] = value >> 8;
    packet[at + 1] = value;
  }
  return (packet[at] << 8) | packet[at + 1];
}

/** Straight-line Internet checksum, big-endian, complemented. */
function internetChecksum(bytes: number[] | Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i] << 8) | (bytes[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** What the checksum of the transport should be complemented to: 0 if right. */
function transportChecksum(packet: Uint8Array): number {
  const v4 = packet[0] >> 4 === 4;
  const l4 = v4 ? 20 : 40;
  const addresses = packet.subarray(v4 ? 12 : 8, v4 ? 20 : 40);
  const length = packet.length - l4;
  const protocol = packet[v4 ? 9 : 6];
  return internetChecksum([
    ...addresses,
    0,
    protocol,
    length >> 8,
    length & 0xff,
    ...packet.subarray(l4),
  ]);
}

/** A super-packet with its vnet header. */
function superPacket(random: Random, shape: Shape): Uint8Array {
  const { v4, tcp, size, payload, options = 12, flags = 0x10 } = shape;
  const l4 = v4 ? 20 : 40;
  const header = l4 + (tcp ? 20 + options : 8);
  const packet = random.bytes(VNET_HEADER + header + payload);
  const ip = packet.subarray(VNET_HEADER);
  const view = new DataView(packet.buffer);
  packet[VNET.FLAGS] = 1;
  packet[VNET.GSO_TYPE] = !tcp ? GSO_UDP : v4 ? GSO_TCPV4 : GSO_TCPV6;
  view.setUint16(VNET.HEADER_LENGTH, header, true);
  view.setUint16(VNET.GSO_SIZE, size, true);
  view.setUint16(VNET.CHECKSUM_START, l4, true);
  view.setUint16(VNET.CHECKSUM_OFFSET, tcp ? 16 : 6, true);
  if (v4) {
    ip[0] = 0x45;
    be16(ip, 2, ip.length);
    be16(ip, 6, shape.df ? 0x4000 : 0);
    ip[9] = tcp ? 6 : 17;
    be16(ip, 10, 0);
    be16(ip, 10, internetChecksum(ip.subarray(0, 20)));
  } else {
    ip[0] = 0x60;
    be16(ip, 4, ip.length - 40);
    ip[6] = tcp ? 6 : 17;
  }
  if (tcp) {
    ip[l4 + 12] = ((20 + options) / 4) << 4;
    ip[l4 + 13] = flags;
  } else be16(ip, l4 + 4, ip.length - l4);
  // The pseudo-header's sum, as the kernel leaves it.
  const addresses = ip.subarray(v4 ? 12 : 8, v4 ? 20 : 40);
  const bytes = ip.length - l4;
  const field = l4 + (tcp ? 16 : 6);
  const sum = internetChecksum([
    ...addresses,
    0,
    tcp ? 6 : 17,
    bytes >> 8,
    bytes & 0xff,
  ]);
  be16(ip, field, ~sum & 0xffff);
  return packet;
}

/** Splits and gives the packets, checking that nothing else was written. */
function split(packet: Uint8Array): Uint8Array[] {
  u8.set(packet, IN - VNET_HEADER);
  const splitter = new Splitter(arena, checksum);
  const count = splitter.start(IN, packet.length - VNET_HEADER);
  const segments: Uint8Array[] = [];
  for (;;) {
    u8.fill(CANARY, OUT - 16, OUT + 70_000);
    const length = splitter.next(OUT);
    assert(u8.subarray(OUT - 16, OUT).every((byte) => byte === CANARY));
    assert(
      u8.subarray(OUT + length, OUT + 70_000).every((byte) => byte === CANARY),
    );
    if (length === 0) break;
    segments.push(u8.slice(OUT, OUT + length));
  }
  assertEquals(segments.length, count);
  return segments;
}

/** Gives packets to a coalescer; returns what it wrote, with vnet headers. */
function merge(packets: Uint8Array[], udp = true): Uint8Array[] {
  const written: Uint8Array[] = [];
  let pieces: [number, number][] = [];
  const coalescer = new Coalescer(arena, checksum, {
    append: (offset, length) => void pieces.push([offset, length]),
    write: () => {
      const parts = pieces.map(([at, n]) => u8.slice(at, at + n));
      written.push(Uint8Array.from(parts.flatMap((part) => [...part])));
      pieces = [];
      return 0;
    },
  }, udp);
  let at = OUT;
  for (const packet of packets) {
    u8.set(packet, at);
    assertEquals(coalescer.add(at, packet.length), 0);
    at += packet.length + 16;
  }
  assertEquals(coalescer.flush(), 0);
  return written;
}

function forEachShape(visit: (shape: Shape, random: Random) => void): void {
  const random = new Random(7);
  for (let round = 0; round < 200; round++) {
    const size = 1 + random.below(1400);
    const count = 1 + random.below(12);
    visit({
      v4: random.below(2) === 0,
      tcp: random.below(3) > 0,
      size,
      payload: (count - 1) * size + 1 + random.below(size),
      options: random.below(11) * 4,
      flags: 0x10 | (random.below(2) * 0x08),
      df: random.below(2) === 0,
    }, random);
  }
}

Deno.test("a walk gives every byte once, and the last piece may be shorter", () => {
  const walk = new SegmentWalk();
  for (const [length, size] of [[0, 10], [1, 10], [10, 10], [11, 10], [5, 0]]) {
    const seen: number[] = [];
    for (walk.start(100, length, size); walk.next();) {
      seen.push(walk.length);
      assertEquals(walk.offset, 100 + walk.index * size);
      assertEquals(walk.last, walk.offset + walk.length === 100 + length);
    }
    assertEquals(seen.reduce((a, b) => a + b, 0), length);
    assertEquals(seen.length, size === 0 ? 1 : Math.ceil(length / size));
  }
});

Deno.test("split packets have right lengths, numbers, flags and checksums", () => {
  forEachShape((shape, random) => {
    const packet = superPacket(random, shape);
    const whole = packet.subarray(VNET_HEADER);
    const { v4, tcp, size, payload, options = 0 } = shape;
    const l4 = v4 ? 20 : 40;
    const header = l4 + (tcp ? 20 + options : 8);
    const segments = split(packet);
    assertEquals(segments.length, Math.ceil(payload / size));
    segments.forEach((segment, i) => {
      const last = i === segments.length - 1;
      assertEquals(transportChecksum(segment), 0);
      assertEquals(
        segment.subarray(header),
        whole.subarray(header + i * size, header + i * size + size),
      );
      if (v4) {
        assertEquals(be16(segment, 2), segment.length);
        assertEquals(be16(segment, 4), (be16(whole, 4) + i) & 0xffff);
        assertEquals(internetChecksum(segment.subarray(0, 20)), 0);
      } else assertEquals(be16(segment, 4), segment.length - 40);
      if (!tcp) return assertEquals(be16(segment, l4 + 4), segment.length - l4);
      const sequence = new DataView(whole.buffer, whole.byteOffset)
        .getUint32(l4 + 4);
      assertEquals(
        new DataView(segment.buffer).getUint32(l4 + 4),
        (sequence + i * size) >>> 0,
      );
      const flags = whole[l4 + 13] & (last ? 0xff : ~0x09);
      assertEquals(segment[l4 + 13], i > 0 ? flags & ~0x80 : flags);
    });
  });
});

Deno.test("what was split is merged to the same super-packet again", () => {
  forEachShape((shape, random) => {
    const packet = superPacket(random, shape);
    const segments = split(packet);
    const written = merge(segments);
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
  };
  for (const [what, change] of Object.entries(changes)) {
    const packets = split(superPacket(new Random(3), shape));
    change(packets[1]);
    fix(packets[1]);
    const written = merge(packets);
    assert(written.length > 1, `${what} was merged`);
    assertEquals(
      written.flatMap((packet) => [...packet.subarray(VNET_HEADER)]).length,
      packets.reduce((sum, packet) => sum + packet.length, 0),
    );
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
    const written = merge(packets);
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
  assertEquals(merge(packets).length, 2);
});

Deno.test("a gap, a push and a shorter packet end what is merged", () => {
  const shape = { v4: false, tcp: true, size: 100, payload: 500 };
  const packets = split(superPacket(new Random(9), shape));
  assertEquals(merge([packets[0], packets[2], packets[3]]).length, 2);
  assertEquals(merge([packets[1], packets[0]]).length, 2);
  const pushed = split(superPacket(new Random(9), { ...shape, flags: 0x18 }));
  assertEquals(merge([...pushed, ...pushed]).length, 2);
});

Deno.test("UDP is merged only where the interface takes it", () => {
  const shape = { v4: true, tcp: false, size: 100, payload: 300 };
  const packets = split(superPacket(new Random(5), shape));
  assertEquals(merge(packets, false).length, 3);
  assertEquals(merge(packets, true).length, 1);
});

Deno.test("lying vnet headers are refused, and nothing outside is touched", () => {
  const random = new Random(11);
  let refused = 0;
  for (let round = 0; round < 20_000; round++) {
    const packet = superPacket(random, {
      v4: random.below(2) === 0,
      tcp: random.below(2) === 0,
      size: 1 + random.below(300),
      payload: 1 + random.below(900),
    });
    for (let n = random.below(4); n >= 0; n--) {
      packet[random.below(VNET_HEADER + 60)] = random.below(256);
    }
    const length = packet.length - random.below(Math.min(80, packet.length));
    u8.set(packet, IN - VNET_HEADER);
    u8.fill(CANARY, OUT - 16, OUT + 70_000);
    const splitter = new Splitter(arena, checksum);
    const body = length - VNET_HEADER;
    if (body <= 0) continue;
    const count = splitter.start(IN, body);
    if (count === 0) refused++;
    for (let i = 0; i < count; i++) {
      const bytes = splitter.next(OUT);
      assert(bytes > 0 && bytes <= body);
    }
    assertEquals(splitter.next(OUT) > 0 && count === 0, false);
    finishChecksum(arena, checksum, IN, body);
    assert(u8.subarray(OUT - 16, OUT).every((byte) => byte === CANARY));
    assert(u8.subarray(OUT + 65_536, OUT + 70_000).every((b) => b === CANARY));
  }
  assert(refused > 1000);
});
