/**
 * Segments of super-packets: the one walk over them, and the split of what the
 * interface hands over whole (TSO, USO) into packets that fit the tunnel.
 * Kernel: `skb_list_walk_safe` and `skb_gso_segment`. Pure.
 *
 * What a super-packet's header says is checked before it is believed: nothing
 * outside of [at, at + length) is read, and nothing outside of the output given.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import type { Checksum } from "./crypto/checksum.ts";

/** Bytes of `struct virtio_net_hdr`, which goes before each packet of the TUN. */
export const VNET_HEADER = 10;
/** Fields of it: byte offsets. */
export const VNET = {
  FLAGS: 0,
  GSO_TYPE: 1,
  HEADER_LENGTH: 2,
  GSO_SIZE: 4,
  CHECKSUM_START: 6,
  CHECKSUM_OFFSET: 8,
} as const;
/** FLAGS: the checksum holds the pseudo-header's sum alone. */
export const VNET_NEEDS_CHECKSUM = 1;
/** GSO_TYPE. */
export const GSO_NONE = 0;
export const GSO_TCPV4 = 1;
export const GSO_TCPV6 = 4;
export const GSO_UDP = 5;
const GSO_ECN = 0x80;

export const PROTOCOL_TCP = 6;
export const PROTOCOL_UDP = 17;
/** Extension headers of IPv6 that may stand before the transport's. */
const HOP_BY_HOP = 0;
const ROUTING = 43;
const DESTINATION = 60;
const EXTENSION_UNIT = 8;
export const TCP_CHECKSUM = 16;
export const TCP_FLAGS = 13;
export const TCP_SEQUENCE = 4;
export const TCP_HEADER_MIN = 20;
export const UDP_CHECKSUM = 6;
export const UDP_LENGTH = 4;
export const UDP_HEADER = 8;
export const TCP_FIN = 0x01;
export const TCP_PSH = 0x08;
export const TCP_ACK = 0x10;
export const TCP_CWR = 0x80;
export const IPV4_ID = 4;
export const IPV4_LENGTH = 2;
export const IPV4_PROTOCOL = 9;
export const IPV4_CHECKSUM = 10;
export const IPV4_ADDRESSES = 12;
export const IPV4_ADDRESSES_BYTES = 8;
export const IPV4_HEADER_MIN = 20;
export const IPV6_LENGTH = 4;
export const IPV6_NEXT_HEADER = 6;
export const IPV6_ADDRESSES = 8;
export const IPV6_ADDRESSES_BYTES = 32;
export const IPV6_HEADER = 40;
const WORD_MASK = 0xffff;

/**
 * Walks `length` bytes in pieces of `size`, the last of which may be shorter.
 * The next piece is known before the present one is handed out, so that the
 * present one may be changed or consumed.
 */
export class SegmentWalk {
  #next = 0;
  #end = 0;
  #size = 0;
  /** Byte offset of the present segment. */
  offset = 0;
  /** Bytes of the present segment. */
  length = 0;
  /** Number of the present segment, from 0. */
  index = -1;

  /** Starts anew. A size of 0 means one segment. */
  start(offset: number, length: number, size: number): this {
    this.#next = offset;
    this.#end = offset + length;
    this.#size = size > 0 ? size : length;
    this.index = -1;
    return this;
  }

  /** Whether the present segment is the last. */
  get last(): boolean {
    return this.#next >= this.#end;
  }

  /** Goes on to the next segment; false when there is none. */
  next(): boolean {
    if (this.#next >= this.#end) return false;
    this.offset = this.#next;
    this.length = Math.min(this.#size, this.#end - this.#next);
    this.#next += this.length;
    this.index++;
    return true;
  }
}

/** Sum of the pseudo-header but for the length, as little-endian words. */
export function pseudoHeaderSum(
  arena: Arena,
  checksum: Checksum,
  at: number,
  protocol: number,
): number {
  const v4 = arena.u8[at] >> 4 === 4;
  return checksum.checksum(
    at + (v4 ? IPV4_ADDRESSES : IPV6_ADDRESSES),
    v4 ? IPV4_ADDRESSES_BYTES : IPV6_ADDRESSES_BYTES,
    protocol << 8,
  );
}

/** A 16-bit number as a word of the checksum's byte order. */
export function swap16(value: number): number {
  return ((value & 0xff) << 8) | ((value >> 8) & 0xff);
}

/**
 * Finishes the checksum of a packet that the interface left to its device.
 *
 * @param at the packet; its vnet header is right before it
 * @returns false when the header lies
 */
export function finishChecksum(
  arena: Arena,
  checksum: Checksum,
  at: number,
  length: number,
): boolean {
  const { u8 } = arena;
  const header = at - VNET_HEADER;
  const start = readLe16(u8, header + VNET.CHECKSUM_START);
  const field = start + readLe16(u8, header + VNET.CHECKSUM_OFFSET);
  // The IP header says where the packet goes, and was looked at: not to change.
  const v4 = u8[at] >> 4 === 4;
  const network = v4 ? (u8[at] & 15) * 4 : IPV6_HEADER;
  if (network < IPV4_HEADER_MIN || start < network) return false;
  if (field + 2 > length) return false;
  const sum = checksum.checksum(at + start, length - start, 0);
  const folded = ~sum & WORD_MASK;
  // A UDP checksum of zero would mean that there is none.
  const udp = field - start === UDP_CHECKSUM;
  writeLe16(u8, at + field, folded === 0 && udp ? WORD_MASK : folded);
  return true;
}

/** Splits one super-packet after another. */
export class Splitter {
  readonly #arena: Arena;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #checksum: Checksum;
  readonly #walk = new SegmentWalk();
  #at = 0;
  #v4 = false;
  #tcp = false;
  #transport = 0;
  #headers = 0;
  #size = 0;
  #pseudo = 0;
  #sequence = 0;
  #id = 0;

  constructor(arena: Arena, checksum: Checksum) {
    this.#arena = arena;
    this.#u8 = arena.u8;
    this.#checksum = checksum;
  }

  /**
   * Takes the super-packet at `at`, whose vnet header is right before it.
   *
   * @returns the number of segments, or 0 when its header lies
   */
  start(at: number, length: number): number {
    const u8 = this.#u8;
    const header = at - VNET_HEADER;
    const type = u8[header + VNET.GSO_TYPE] & ~GSO_ECN;
    const size = readLe16(u8, header + VNET.GSO_SIZE);
    const transport = readLe16(u8, header + VNET.CHECKSUM_START);
    const v4 = u8[at] >> 4 === 4;
    if (!v4 && u8[at] >> 4 !== 6) return 0;
    if (size === 0 || transport + UDP_HEADER > length) return 0;
    if (type === GSO_UDP) {
      this.#headers = transport + UDP_HEADER;
    } else if (type === (v4 ? GSO_TCPV4 : GSO_TCPV6)) {
      if (transport + TCP_HEADER_MIN > length) return 0;
      const offset = (u8[at + transport + 12] >> 4) * 4;
      if (offset < TCP_HEADER_MIN) return 0;
      this.#headers = transport + offset;
    } else return 0;
    const protocol = type === GSO_UDP ? PROTOCOL_UDP : PROTOCOL_TCP;
    const place = transportOffset(u8, at, length, protocol);
    if (place === 0 || transport !== place) return 0;
    const payload = length - this.#headers;
    if (payload <= 0) return 0;
    this.#at = at;
    this.#v4 = v4;
    this.#tcp = type !== GSO_UDP;
    this.#transport = transport;
    this.#pseudo = pseudoHeaderSum(
      this.#arena,
      this.#checksum,
      at,
      protocol,
    );
    if (v4) this.#id = readBe16(u8, at + IPV4_ID);
    if (this.#tcp) this.#sequence = readBe32(u8, at + transport + TCP_SEQUENCE);
    this.#size = Math.min(size, payload);
    this.#walk.start(at + this.#headers, payload, size);
    return Math.ceil(payload / size);
  }

  /** Bytes of the longest segment. */
  get longest(): number {
    return this.#headers + this.#size;
  }

  /**
   * Writes the next segment, a whole packet, to `to`.
   *
   * @returns its length, or 0 after the last
   */
  next(to: number): number {
    const walk = this.#walk;
    if (!walk.next()) return 0;
    const headers = this.#headers;
    const length = headers + walk.length;
    const { checksum, checksumCopy } = this.#checksum;
    checksumCopy(to, this.#at, headers, 0);
    const sum = checksumCopy(to + headers, walk.offset, walk.length, 0);
    this.#network(to, length);
    const transport = to + this.#transport;
    const field = transport + (this.#tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
    if (this.#tcp) this.#tcpHeader(transport);
    else writeBe16(this.#u8, transport + UDP_LENGTH, length - this.#transport);
    writeLe16(this.#u8, field, 0);
    const partial = sum + this.#pseudo + swap16(length - this.#transport);
    const folded = ~checksum(transport, headers - this.#transport, partial) &
      WORD_MASK;
    writeLe16(this.#u8, field, folded === 0 && !this.#tcp ? 0xffff : folded);
    return length;
  }

  #network(to: number, length: number): void {
    const u8 = this.#u8;
    if (!this.#v4) {
      writeBe16(u8, to + IPV6_LENGTH, length - IPV6_HEADER);
      return;
    }
    writeBe16(u8, to + IPV4_LENGTH, length);
    writeBe16(u8, to + IPV4_ID, this.#id + this.#walk.index);
    writeLe16(u8, to + IPV4_CHECKSUM, 0);
    const sum = this.#checksum.checksum(to, this.#transport, 0);
    writeLe16(u8, to + IPV4_CHECKSUM, ~sum & WORD_MASK);
  }

  #tcpHeader(transport: number): void {
    const u8 = this.#u8;
    const { index, offset, last } = this.#walk;
    const sent = offset - (this.#at + this.#headers);
    writeBe32(u8, transport + TCP_SEQUENCE, this.#sequence + sent);
    // FIN and PSH end what was sent, CWR opens it.
    if (!last) u8[transport + TCP_FLAGS] &= ~(TCP_FIN | TCP_PSH);
    if (index > 0) u8[transport + TCP_FLAGS] &= ~TCP_CWR;
  }
}

/**
 * Where the header of `protocol` begins: behind the options of IPv4, behind the
 * extension headers of IPv6.
 *
 * @returns the bytes before it, or 0 when there is none in the packet
 */
function transportOffset(
  u8: Uint8Array,
  at: number,
  length: number,
  protocol: number,
): number {
  if (u8[at] >> 4 === 4) {
    const network = (u8[at] & 15) * 4;
    if (network < IPV4_HEADER_MIN || network > length) return 0;
    return u8[at + IPV4_PROTOCOL] === protocol ? network : 0;
  }
  if (length < IPV6_HEADER) return 0;
  let next = u8[at + IPV6_NEXT_HEADER];
  let offset = IPV6_HEADER;
  while (next !== protocol) {
    if (next !== HOP_BY_HOP && next !== ROUTING && next !== DESTINATION) {
      return 0;
    }
    if (offset + EXTENSION_UNIT > length) return 0;
    next = u8[at + offset];
    offset += (u8[at + offset + 1] + 1) * EXTENSION_UNIT;
  }
  return offset;
}

/** Little-endian 16 bits at any offset. */
export function readLe16(u8: Uint8Array, at: number): number {
  return u8[at] | (u8[at + 1] << 8);
}

/** Writes them. */
export function writeLe16(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value;
  u8[at + 1] = value >> 8;
}

/** Big-endian 16 bits at any offset. */
export function readBe16(u8: Uint8Array, at: number): number {
  return (u8[at] << 8) | u8[at + 1];
}

/** Writes them. */
export function writeBe16(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value >> 8;
  u8[at + 1] = value;
}

/** Big-endian 32 bits at any offset. */
export function readBe32(u8: Uint8Array, at: number): number {
  return ((u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) |
    u8[at + 3]) >>> 0;
}

/** Writes them. */
export function writeBe32(u8: Uint8Array, at: number, value: number): void {
  u8[at] = value >>> 24;
  u8[at + 1] = value >>> 16;
  u8[at + 2] = value >>> 8;
  u8[at + 3] = value;
}
