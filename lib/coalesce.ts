/**
 * The other way round: segments of one flow that come in one after another
 * become one super-packet for the interface (kernel: GRO, `tcp_offload.c`,
 * `udp_offload.c`). Nothing is copied: the interface gets the first packet and
 * the payloads of those behind it as one vector. Pure.
 *
 * Several flows are merged at a time, each in a group of its own. The order of
 * packets within a flow never changes: a packet that is not merged is written
 * after its flow's group, and one without ports (a fragment, another protocol)
 * after all groups between the same two addresses.
 *
 * Only what can be split again into the same packets is merged: same addresses,
 * ports, options, window and acknowledgement, consecutive sequence numbers, equal
 * sizes but for the last, and a checksum that is right.
 *
 * @module
 */
import { type Arena, THREAD_INBOUND } from "./arena.ts";
import { COUNT, Counters } from "./counters.ts";
import type { Checksum } from "./crypto/checksum.ts";
import type { VectorWriter } from "./io.ts";
import {
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  IPV4_ADDRESSES,
  IPV4_CHECKSUM,
  IPV4_HEADER_MIN,
  IPV4_ID,
  IPV4_LENGTH,
  IPV4_PROTOCOL,
  IPV6_ADDRESSES,
  IPV6_HEADER,
  IPV6_LENGTH,
  IPV6_NEXT_HEADER,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  pseudoHeaderSum,
  readBe16,
  readBe32,
  readLe16,
  swap16,
  TCP_ACK,
  TCP_CHECKSUM,
  TCP_FLAGS,
  TCP_HEADER_MIN,
  TCP_PSH,
  TCP_SEQUENCE,
  UDP_CHECKSUM,
  UDP_HEADER,
  UDP_LENGTH,
  VNET,
  VNET_HEADER,
  VNET_NEEDS_CHECKSUM,
  writeBe16,
  writeLe16,
} from "./segments.ts";

/** Most segments of one super-packet: the pieces of one vector. */
export const MERGE_MAX = 64;
/** Flows that are merged at a time: one more, and the oldest is written. */
export const FLOWS_MAX = 16;
const PACKET_MAX = 65_535;
const IPV4_FRAGMENT = 6;
const IPV4_DONT_FRAGMENT = 0x4000;
const PORTS_BYTES = 4;
const TCP_OFFSET = 12;
const WORD_MASK = 0xffff;
/** Odd, and its bits look random: 2^32 divided by the golden ratio. */
const HASH_FACTOR = 0x9e3779b1 | 0;

// Masks of little-endian words: what must be equal of the words of headers.
const IPV4_WORD_0 = 0x0000ffff; // Version and class, not the length.
const IPV4_WORD_4 = 0xffff0000 | 0; // Fragment bits, not the number.
const IPV4_WORD_8 = 0x0000ffff; // TTL and protocol, not the checksum.
const IPV6_WORD_4 = 0xffff0000 | 0; // Next header and hop limit.
const TCP_WORD_12 = ~(TCP_PSH << 8); // Offset, flags but PSH, window.
const TCP_WORD_16 = 0xffff0000 | 0; // Urgent pointer, not the checksum.

// By these error numbers a kernel refuses super-packets.
const EIO = 5;
const EINVAL = 22;
const EOPNOTSUPP = 95;

/** Packets of one flow that will be one super-packet. */
class Group {
  /** Byte offset of the first packet. */
  at = 0;
  v4 = false;
  tcp = false;
  /** Bytes before the transport's header. */
  transport = 0;
  /** Bytes of all headers. */
  headers = 0;
  /** Bytes of payload of each packet but the last. */
  size = 0;
  /** Bytes of the super-packet. */
  length = 0;
  count = 0;
  /** Sequence number that goes on, as a signed word. */
  sequence = 0;
  /** Whether the last packet has PSH. */
  push = false;
  /** Byte offset of each packet, and bytes of its payload. */
  readonly packets = new Uint32Array(MERGE_MAX);
  readonly payloads = new Uint32Array(MERGE_MAX);
}

/** Merges the packets of one batch. */
export class Coalescer {
  readonly #arena: Arena;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #view: DataView;
  readonly #checksum: Checksum;
  readonly #writer: VectorWriter;
  readonly #counters: Counters;
  /** Whether TCP and UDP are merged: until the interface refuses it. */
  #tcp = true;
  #udp: boolean;
  /** The first `#open` are open, in the order in which they were begun. */
  readonly #groups: Group[] = [];
  readonly #flowKeys = new Int32Array(FLOWS_MAX);
  readonly #addressKeys = new Int32Array(FLOWS_MAX);
  #open = 0;
  /** Where the last group was found: most packets follow one of their flow. */
  #last = 0;
  // What `#readFlow` and `#mayMerge` found in the packet at hand.
  #v4 = false;
  #isTcp = false;
  #transport = 0;
  #headers = 0;
  #flowKey = 0;
  #addressKey = 0;

  /** @param udp whether the interface takes UDP super-packets, too */
  constructor(
    arena: Arena,
    checksum: Checksum,
    writer: VectorWriter,
    udp: boolean,
    counters: Counters = new Counters(arena, THREAD_INBOUND),
  ) {
    this.#arena = arena;
    this.#u8 = arena.u8;
    this.#view = new DataView(arena.u8.buffer);
    this.#checksum = checksum;
    this.#writer = writer;
    this.#udp = udp;
    this.#counters = counters;
    for (let i = 0; i < FLOWS_MAX; i++) this.#groups.push(new Group());
  }

  /**
   * Takes the packet at `at`, valid as far as its IP header; the bytes before it
   * may be overwritten. It is written now or by a later call, and must stay as
   * it is until `flush`.
   *
   * @returns how many packets, of this call or earlier, could not be written
   */
  add(at: number, length: number): number {
    if (!this.#readFlow(at, length)) {
      return this.#flushBetween(this.#addressKey) +
        this.#writeAlone(at, length);
    }
    const i = this.#find(this.#flowKey);
    if (!this.#mayMerge(at, length)) {
      const lost = i < 0 ? 0 : this.#close(i);
      return lost + this.#writeAlone(at, length);
    }
    if (i < 0) return this.#begin(at, length);
    if (this.#continues(this.#groups[i], at, length)) {
      return this.#extend(i, at, length);
    }
    const lost = this.#close(i);
    return lost + this.#begin(at, length);
  }

  /** Writes what waits. @returns how many packets could not be written */
  flush(): number {
    let lost = 0;
    const open = this.#open;
    this.#open = 0;
    for (let i = 0; i < open; i++) lost += this.#write(this.#groups[i]);
    return lost;
  }

  /**
   * Reads the packet's addresses, and its ports.
   *
   * @returns false when it has none, and only the key of the addresses is known
   */
  #readFlow(at: number, length: number): boolean {
    const view = this.#view;
    const v4 = this.#u8[at] >> 4 === 4;
    const end = v4 ? IPV4_HEADER_MIN : IPV6_HEADER;
    let key = 0;
    // Flows with equal keys share a group and so are not merged, no more.
    for (
      let i = v4 ? IPV4_ADDRESSES : IPV6_ADDRESSES;
      i < end;
      i += PORTS_BYTES
    ) {
      key = Math.imul(key ^ view.getInt32(at + i, true), HASH_FACTOR);
      key ^= key >>> 15;
    }
    this.#addressKey = key;
    if (v4) {
      // Ports are behind options, and in the first fragment only.
      if ((this.#u8[at] & 15) * 4 !== IPV4_HEADER_MIN) return false;
      const fragment = readBe16(this.#u8, at + IPV4_FRAGMENT);
      if ((fragment & ~IPV4_DONT_FRAGMENT) !== 0) return false;
    }
    const protocol = this.#u8[at + (v4 ? IPV4_PROTOCOL : IPV6_NEXT_HEADER)];
    if (protocol !== PROTOCOL_TCP && protocol !== PROTOCOL_UDP) return false;
    if (length < end + PORTS_BYTES) return false;
    this.#v4 = v4;
    this.#isTcp = protocol === PROTOCOL_TCP;
    this.#transport = end;
    const ports = view.getInt32(at + end, true);
    this.#flowKey = Math.imul(key ^ ports ^ protocol, HASH_FACTOR);
    return true;
  }

  /** Whether the packet is of a kind that is merged, and right. */
  #mayMerge(at: number, length: number): boolean {
    const u8 = this.#u8;
    const transport = this.#transport;
    let headers: number;
    let protocol: number;
    if (this.#isTcp) {
      if (!this.#tcp || length < transport + TCP_HEADER_MIN) return false;
      const bytes = (u8[at + transport + TCP_OFFSET] >> 4) * 4;
      if (bytes < TCP_HEADER_MIN) return false;
      // SYN, FIN, RST, URG, ECE and CWR mean something for this packet alone.
      const flags = u8[at + transport + TCP_FLAGS];
      if ((flags & ~TCP_PSH) !== TCP_ACK) return false;
      headers = transport + bytes;
      protocol = PROTOCOL_TCP;
    } else {
      if (!this.#udp || length < transport + UDP_HEADER) return false;
      const bytes = readBe16(u8, at + transport + UDP_LENGTH);
      if (bytes !== length - transport) return false;
      if (readBe16(u8, at + transport + UDP_CHECKSUM) === 0) return false;
      headers = transport + UDP_HEADER;
      protocol = PROTOCOL_UDP;
    }
    if (headers >= length) return false;
    this.#headers = headers;
    const { checksum } = this.#checksum;
    if (this.#v4 && checksum(at, IPV4_HEADER_MIN, 0) !== WORD_MASK) {
      return false;
    }
    // Without options the addresses of the pseudo-header are right before the
    // transport's header: one sum.
    const from = this.#v4 ? IPV4_ADDRESSES : IPV6_ADDRESSES;
    const rest = (protocol << 8) + swap16(length - transport);
    return checksum(at + from, length - from, rest) === WORD_MASK;
  }

  /** Number of the open group with that key, or -1. */
  #find(key: number): number {
    const keys = this.#flowKeys;
    if (this.#last < this.#open && keys[this.#last] === key) return this.#last;
    for (let i = 0; i < this.#open; i++) {
      if (keys[i] === key) return this.#last = i;
    }
    return -1;
  }

  #begin(at: number, length: number): number {
    const u8 = this.#u8;
    const transport = this.#transport;
    if (this.#isTcp && (u8[at + transport + TCP_FLAGS] & TCP_PSH) !== 0) {
      return this.#writeAlone(at, length);
    }
    const lost = this.#open === FLOWS_MAX ? this.#close(0) : 0;
    const i = this.#last = this.#open++;
    this.#flowKeys[i] = this.#flowKey;
    this.#addressKeys[i] = this.#addressKey;
    const group = this.#groups[i];
    const size = length - this.#headers;
    group.at = at;
    group.v4 = this.#v4;
    group.tcp = this.#isTcp;
    group.transport = transport;
    group.headers = this.#headers;
    group.size = size;
    group.length = length;
    group.count = 1;
    group.push = false;
    group.packets[0] = at;
    group.payloads[0] = size;
    if (this.#isTcp) {
      const sequence = readBe32(u8, at + transport + TCP_SEQUENCE);
      group.sequence = (sequence + size) | 0;
    }
    return lost;
  }

  /** Whether the packet at hand goes on where the group ends. */
  #continues(group: Group, at: number, length: number): boolean {
    const payload = length - this.#headers;
    return payload <= group.size && group.length + payload <= PACKET_MAX &&
      this.#headers === group.headers && this.#isTcp === group.tcp &&
      this.#v4 === group.v4 && this.#sameNetwork(group, at) &&
      this.#sameTransport(group, at);
  }

  #sameNetwork(group: Group, at: number): boolean {
    const a = group.at;
    if (!group.v4) {
      // Class and flow label; addresses.
      return this.#sameWords(a, at, 0, 4) &&
        this.#same(a + 4, at + 4, IPV6_WORD_4) &&
        this.#sameWords(a, at, IPV6_ADDRESSES, IPV6_HEADER);
    }
    if (
      !this.#same(a, at, IPV4_WORD_0) ||
      !this.#same(a + 4, at + 4, IPV4_WORD_4) ||
      !this.#same(a + 8, at + 8, IPV4_WORD_8) ||
      !this.#sameWords(a, at, IPV4_ADDRESSES, IPV4_HEADER_MIN)
    ) return false;
    const u8 = this.#u8;
    // Without DF a fragment of it is told from another by the number.
    if ((readBe16(u8, at + IPV4_FRAGMENT) & IPV4_DONT_FRAGMENT) !== 0) {
      return true;
    }
    const id = (readBe16(u8, a + IPV4_ID) + group.count) & WORD_MASK;
    return readBe16(u8, at + IPV4_ID) === id;
  }

  #sameTransport(group: Group, at: number): boolean {
    const a = group.at + group.transport;
    const b = at + group.transport;
    if (!this.#same(a, b, -1)) return false;
    if (!group.tcp) return true;
    // Sequence; acknowledgement; the rest of the fixed header; options.
    return (readBe32(this.#u8, b + TCP_SEQUENCE) | 0) === group.sequence &&
      this.#same(a + 8, b + 8, -1) &&
      this.#same(a + TCP_OFFSET, b + TCP_OFFSET, TCP_WORD_12) &&
      this.#same(a + TCP_CHECKSUM, b + TCP_CHECKSUM, TCP_WORD_16) &&
      this.#sameWords(a, b, TCP_HEADER_MIN, group.headers - group.transport);
  }

  /** Whether two words are equal where the mask is set. */
  #same(a: number, b: number, mask: number): boolean {
    const view = this.#view;
    return ((view.getInt32(a, true) ^ view.getInt32(b, true)) & mask) === 0;
  }

  /** Whether all words from byte `from` to byte `to` are equal. */
  #sameWords(a: number, b: number, from: number, to: number): boolean {
    for (let i = from; i < to; i += 4) {
      if (!this.#same(a + i, b + i, -1)) return false;
    }
    return true;
  }

  #extend(i: number, at: number, length: number): number {
    const group = this.#groups[i];
    const payload = length - group.headers;
    group.packets[group.count] = at;
    group.payloads[group.count] = payload;
    group.count++;
    group.length += payload;
    if (group.tcp) {
      group.sequence = (group.sequence + payload) | 0;
      group.push = (this.#u8[at + group.transport + TCP_FLAGS] & TCP_PSH) !== 0;
    }
    const last = group.push || payload < group.size ||
      group.count === MERGE_MAX;
    return last ? this.#close(i) : 0;
  }

  /** Writes group `i`. */
  #close(i: number): number {
    const groups = this.#groups;
    const group = groups[i];
    const open = --this.#open;
    for (let j = i; j < open; j++) {
      groups[j] = groups[j + 1];
      this.#flowKeys[j] = this.#flowKeys[j + 1];
      this.#addressKeys[j] = this.#addressKeys[j + 1];
    }
    groups[open] = group;
    return this.#write(group);
  }

  /** Writes the groups between the same addresses. */
  #flushBetween(addressKey: number): number {
    let lost = 0;
    for (let i = 0; i < this.#open;) {
      if (this.#addressKeys[i] === addressKey) lost += this.#close(i);
      else i++;
    }
    return lost;
  }

  #write(group: Group): number {
    const { at, count, headers, packets, payloads } = group;
    if (count === 1) return this.#writeAlone(at, group.length);
    // Another group may have been refused since this one was begun.
    if (!(group.tcp ? this.#tcp : this.#udp)) return this.#writeSingly(group);
    const u8 = this.#u8;
    const writer = this.#writer;
    const field = at + group.transport +
      (group.tcp ? TCP_CHECKSUM : UDP_CHECKSUM);
    const checksum = readLe16(u8, field);
    const networkChecksum = readLe16(u8, at + IPV4_CHECKSUM);
    this.#clearVnet(at);
    this.#setLengths(group, group.length);
    this.#finishHeaders(group, field);
    writer.append(at - VNET_HEADER, VNET_HEADER + headers + payloads[0]);
    for (let j = 1; j < count; j++) {
      writer.append(packets[j] + headers, payloads[j]);
    }
    const error = writer.write();
    if (error === 0) return 0;
    if (error !== EIO && error !== EINVAL && error !== EOPNOTSUPP) return count;
    // Refused: as the packets came in, and never again if that is what helps.
    this.#setLengths(group, headers + group.size);
    writeLe16(u8, field, checksum);
    if (group.v4) writeLe16(u8, at + IPV4_CHECKSUM, networkChecksum);
    if (group.push) u8[at + group.transport + TCP_FLAGS] &= ~TCP_PSH;
    const lost = this.#writeSingly(group);
    // An interface that is down says EIO, too, and to single packets as well.
    if (lost === count) return lost;
    if (group.tcp) this.#tcp = false;
    else this.#udp = false;
    this.#counters.add(COUNT.rx_offload_refused);
    return lost;
  }

  #writeSingly(group: Group): number {
    let lost = 0;
    for (let j = 0; j < group.count; j++) {
      const length = group.headers + group.payloads[j];
      lost += this.#writeAlone(group.packets[j], length);
    }
    return lost;
  }

  /** @returns 1 when the packet could not be written, else 0 */
  #writeAlone(at: number, length: number): number {
    this.#clearVnet(at);
    this.#writer.append(at - VNET_HEADER, VNET_HEADER + length);
    return this.#writer.write() === 0 ? 0 : 1;
  }

  /** A header of zeros: no checksum to do, GSO_NONE. */
  #clearVnet(at: number): void {
    const view = this.#view;
    view.setInt32(at - VNET_HEADER, 0);
    view.setInt32(at - VNET_HEADER + 4, 0);
    view.setInt16(at - VNET_HEADER + 8, 0);
  }

  /** Sets the length fields of the first packet for a packet of `length`. */
  #setLengths(group: Group, length: number): void {
    const u8 = this.#u8;
    const { at, transport } = group;
    if (group.v4) writeBe16(u8, at + IPV4_LENGTH, length);
    else writeBe16(u8, at + IPV6_LENGTH, length - IPV6_HEADER);
    if (!group.tcp) {
      writeBe16(u8, at + transport + UDP_LENGTH, length - transport);
    }
  }

  /** Headers of the super-packet, as TSO leaves them to a device. */
  #finishHeaders(group: Group, field: number): void {
    const u8 = this.#u8;
    const { at, transport, tcp, v4 } = group;
    const header = at - VNET_HEADER;
    u8[header + VNET.FLAGS] = VNET_NEEDS_CHECKSUM;
    u8[header + VNET.GSO_TYPE] = !tcp ? GSO_UDP : v4 ? GSO_TCPV4 : GSO_TCPV6;
    writeLe16(u8, header + VNET.HEADER_LENGTH, group.headers);
    writeLe16(u8, header + VNET.GSO_SIZE, group.size);
    writeLe16(u8, header + VNET.CHECKSUM_START, transport);
    writeLe16(u8, header + VNET.CHECKSUM_OFFSET, field - at - transport);
    if (v4) {
      writeLe16(u8, at + IPV4_CHECKSUM, 0);
      const sum = this.#checksum.checksum(at, transport, 0);
      writeLe16(u8, at + IPV4_CHECKSUM, ~sum & WORD_MASK);
    }
    if (group.push) u8[at + transport + TCP_FLAGS] |= TCP_PSH;
    // The pseudo-header's sum, not complemented: the rest is the device's work.
    const pseudo = pseudoHeaderSum(
      this.#arena,
      this.#checksum,
      at,
      tcp ? PROTOCOL_TCP : PROTOCOL_UDP,
    );
    const rest = swap16(group.length - transport);
    writeLe16(u8, field, this.#checksum.checksum(at, 0, pseudo + rest));
  }
}
