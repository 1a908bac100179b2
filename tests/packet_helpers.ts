/**
 * Packets for the tests of segments: numbers that are the same in each run,
 * checksums in the plainest way, super-packets as the kernel hands them over,
 * and an arena with room for them.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "../lib/arena.ts";
import { Coalescer } from "../lib/coalesce.ts";
import { createChecksum } from "../lib/crypto/checksum.ts";
import {
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  Splitter,
  VNET,
  VNET_HEADER,
} from "../lib/segments.ts";

/** The memory of these tests; packets lie in its last MiB, which nothing uses. */
export const arena = new Arena({
  peers: 1,
  allowedIpNodes: 1 << 16,
  sessions: 1,
  txSlots: 32,
});
export const checksum = createChecksum(arena.memory);
const { u8 } = arena;
/** Where packets come in, and where they go. */
export const IN = u8.length - (1 << 20) + 64;
export const OUT = IN + (1 << 17);
export const CANARY = 0xa5;
/** Bytes that are looked at where segments go: more than two of them need. */
const SPAN = 4096;

/** Numbers that are the same in each run. */
export class Random {
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

export interface Shape {
  /** Bytes that tell flows apart: the low bytes of both ports. */
  flow?: number;
  v4: boolean;
  tcp: boolean;
  size: number;
  payload: number;
  options?: number;
  flags?: number;
  df?: boolean;
}

export function be16(packet: Uint8Array, at: number, value?: number): number {
  if (value !== undefined) {
    packet[at] = value >> 8;
    packet[at + 1] = value;
  }
  return (packet[at] << 8) | packet[at + 1];
}

/** Straight-line Internet checksum, big-endian, complemented. */
export function internetChecksum(bytes: number[] | Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += (bytes[i] << 8) | (bytes[i + 1] ?? 0);
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 0x10000);
  return ~sum & 0xffff;
}

/** What the checksum of the transport should be complemented to: 0 if right. */
export function transportChecksum(packet: Uint8Array): number {
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
export function superPacket(random: Random, shape: Shape): Uint8Array {
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
  if (shape.flow !== undefined) {
    // One host to another, and ports that tell the flow.
    ip.fill(10, v4 ? 12 : 8, l4);
    be16(ip, l4, 1000);
    be16(ip, l4 + 2, shape.flow);
    if (v4) {
      be16(ip, 10, 0);
      be16(ip, 10, internetChecksum(ip.subarray(0, 20)));
    }
  }
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
export function split(packet: Uint8Array): Uint8Array[] {
  u8.set(packet, IN - VNET_HEADER);
  const splitter = new Splitter(arena, checksum);
  const count = splitter.start(IN, packet.length - VNET_HEADER);
  const segments: Uint8Array[] = [];
  for (;;) {
    u8.fill(CANARY, OUT - 16, OUT + SPAN);
    const length = splitter.next(OUT);
    assert(u8.subarray(OUT - 16, OUT).every((byte) => byte === CANARY));
    assert(
      u8.subarray(OUT + length, OUT + SPAN).every((byte) => byte === CANARY),
    );
    if (length === 0) break;
    segments.push(u8.slice(OUT, OUT + length));
  }
  assertEquals(segments.length, count);
  return segments;
}

/** What a fake interface says to each packet: 0, or an error number. */
export type Answer = (packet: Uint8Array, super_: boolean) => number;

/**
 * Gives packets to a coalescer; returns what it wrote, with vnet headers.
 *
 * @param answer what the interface says; what it refuses is not returned
 */
export function merge(
  packets: readonly Uint8Array[],
  udp = true,
  answer: Answer = () => 0,
): { written: Uint8Array[]; lost: number } {
  const interface_ = new FakeInterface(udp, answer);
  return { lost: interface_.batch(packets), written: interface_.written };
}

/** An interface, and the coalescer that writes to it. */
export class FakeInterface {
  written: Uint8Array[] = [];
  readonly #coalescer: Coalescer;
  #pieces: [number, number][] = [];

  constructor(udp = true, answer: Answer = () => 0) {
    this.#coalescer = new Coalescer(arena, checksum, {
      append: (offset, length) => void this.#pieces.push([offset, length]),
      write: () => {
        const parts = this.#pieces.map(([at, n]) => u8.slice(at, at + n));
        const bytes = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
        let at = 0;
        for (const part of parts) {
          bytes.set(part, at);
          at += part.length;
        }
        this.#pieces = [];
        const error = answer(bytes, bytes[VNET.GSO_TYPE] !== 0);
        if (error === 0) this.written.push(bytes);
        return error;
      },
    }, udp);
  }

  /** One batch. @returns how many packets were lost */
  batch(packets: readonly Uint8Array[]): number {
    let at = OUT;
    let lost = 0;
    for (const packet of packets) {
      u8.set(packet, at);
      lost += this.#coalescer.add(at, packet.length);
      at += packet.length + 16;
    }
    return lost + this.#coalescer.flush();
  }
}

/** Shapes of all kinds, the same in each run. */
export function forEachShape(
  visit: (shape: Shape, random: Random) => void,
): void {
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
