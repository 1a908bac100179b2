/**
 * Super-packets: what is split is right packet by packet; headers that lie are
 * refused and nothing is touched outside of what was given.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import {
  finishChecksum,
  GSO_UDP,
  SegmentWalk,
  Splitter,
  VNET,
  VNET_HEADER,
} from "../lib/segments.ts";
import {
  arena,
  be16,
  CANARY,
  checksum,
  forEachShape,
  IN,
  internetChecksum,
  OUT,
  Random,
  split,
  superPacket,
  transportChecksum,
} from "./packet_helpers.ts";

const { u8 } = arena;

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

Deno.test("super-packets are refused for each thing that their headers get wrong", () => {
  // Bytes of the packet count from the vnet header's start.
  const ip = VNET_HEADER;
  const lies: Record<string, (packet: Uint8Array) => void> = {
    "no kind of super-packet": (p) => p[VNET.GSO_TYPE] = 3,
    "the kind of the other family": (p) => p[VNET.GSO_TYPE] ^= 5,
    "UDP that is TCP": (p) => p[VNET.GSO_TYPE] = GSO_UDP,
    "segments of no size": (p) => p.fill(0, VNET.GSO_SIZE, VNET.GSO_SIZE + 2),
    "a transport within the IP header": (p) => p[VNET.CHECKSUM_START] -= 4,
    "a transport behind its place": (p) => p[VNET.CHECKSUM_START] += 4,
    "a transport behind the end": (p) => p[VNET.CHECKSUM_START + 1] = 0xff,
    "another version of IP": (p) => p[ip] = 0x55,
    "a protocol that is not TCP": (p) => {
      p[ip + (p[ip] >> 4 === 4 ? 9 : 6)] = 132;
    },
    "a TCP header of 16 bytes": (p) => {
      p[ip + (p[ip] >> 4 === 4 ? 20 : 40) + 12] = 0x40;
    },
    "a TCP header without payload": (p) => {
      p[ip + (p[ip] >> 4 === 4 ? 20 : 40) + 12] = 0xf0;
    },
  };
  const start = (packet: Uint8Array): number => {
    u8.set(packet, IN - VNET_HEADER);
    const splitter = new Splitter(arena, checksum);
    return splitter.start(IN, packet.length - VNET_HEADER);
  };
  for (const v4 of [true, false]) {
    const shape = { v4, tcp: true, size: 10, payload: 25, options: 12 };
    const packet = superPacket(new Random(1), shape);
    assertEquals(start(packet), 3);
    for (const [what, lie] of Object.entries(lies)) {
      const copy = packet.slice();
      lie(copy);
      assertEquals(start(copy), 0, `${what} was taken`);
    }
  }
});

Deno.test("extension headers of IPv6 are walked, and not out of the packet", () => {
  const plain = superPacket(new Random(1), {
    v4: false,
    tcp: true,
    size: 100,
    payload: 250,
  });
  const at = VNET_HEADER + 40;
  // Hop-by-hop options of 16 bytes, then destination options of 8.
  const extensions = new Uint8Array(24);
  extensions[0] = 60;
  extensions[1] = 1;
  extensions[16] = 6;
  const packet = Uint8Array.from([
    ...plain.subarray(0, at),
    ...extensions,
    ...plain.subarray(at),
  ]);
  packet[VNET_HEADER + 6] = 0;
  packet[VNET.CHECKSUM_START] += 24;
  packet[VNET.HEADER_LENGTH] += 24;
  const segments = split(packet);
  assertEquals(segments.length, 3);
  for (const segment of segments) {
    const bare = Uint8Array.from([
      ...segment.subarray(0, 40),
      ...segment.subarray(64),
    ]);
    bare[6] = 6;
    assertEquals(transportChecksum(bare), 0);
    assertEquals(be16(segment, 4), segment.length - 40);
  }
  for (const [place, value] of [[1, 2], [1, 255], [0, 44], [16, 17]]) {
    const copy = packet.slice();
    copy[at + place] = value;
    u8.set(copy, IN - VNET_HEADER);
    const splitter = new Splitter(arena, checksum);
    assertEquals(splitter.start(IN, copy.length - VNET_HEADER), 0);
  }
});

Deno.test("a checksum is finished where it is, and not in the IP header", () => {
  for (const v4 of [true, false]) {
    const l4 = v4 ? 20 : 40;
    const packet = superPacket(new Random(2), {
      v4,
      tcp: false,
      size: 99,
      payload: 99,
    });
    const length = packet.length - VNET_HEADER;
    u8.set(packet, IN - VNET_HEADER);
    assert(finishChecksum(arena, checksum, IN, length));
    assertEquals(transportChecksum(u8.slice(IN, IN + length)), 0);
    for (
      const [start, offset] of [
        [0, l4 - 4],
        [l4 - 1, 1],
        [l4, length - l4 - 1],
        [length, 0],
        [65_535, 65_535],
      ]
    ) {
      u8.set(packet, IN - VNET_HEADER);
      const header = new DataView(u8.buffer, IN - VNET_HEADER, VNET_HEADER);
      header.setUint16(VNET.CHECKSUM_START, start, true);
      header.setUint16(VNET.CHECKSUM_OFFSET, offset, true);
      assert(!finishChecksum(arena, checksum, IN, length));
      assertEquals(u8.slice(IN, IN + length), packet.subarray(VNET_HEADER));
    }
  }
});
