/**
 * The other way round: segments of one flow that come in one after another
 * become one super-packet for the interface (kernel: GRO, `tcp_offload.c`,
 * `udp_offload.c`). Nothing is copied: the interface gets the first packet and
 * the payloads of those behind it as one vector. Pure.
 *
 * Only what can be split again into the same packets is merged: same addresses,
 * ports, options, window and acknowledgement, consecutive sequence numbers, equal
 * sizes but for the last, and a checksum that is right.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import type { Checksum } from "./crypto/checksum.ts";
import type { VectorWriter } from "./io.ts";
import {
  GSO_NONE,
  GSO_TCPV4,
  GSO_TCPV6,
  GSO_UDP,
  IPV4_CHECKSUM,
  IPV4_HEADER_MIN,
  IPV4_ID,
  IPV4_LENGTH,
  IPV6_HEADER,
  IPV6_LENGTH,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
  pseudoHeaderSum,
  readBe16,
  readBe32,
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
const PACKET_MAX = 65_535;
const IPV4_FRAGMENT = 6;
const IPV4_DONT_FRAGMENT = 0x4000;
const WORD_MASK = 0xffff;

/** Merges the packets of one batch. */
export class Coalescer {
  readonly #arena: Arena;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #checksum: Checksum;
  readonly #writer: VectorWriter;
  readonly #udp: boolean;
  #at = 0;
  #v4 = false;
  #tcp = false;
  #transport = 0;
  #headers = 0;
  #size = 0;
  #length = 0;
  #count = 0;
  #sequence = 0;
  #closed = false;
  // What `#parse` found in the packet at hand.
  #parsedTransport = 0;
  #parsedHeaders = 0;
  #parsedTcp = false;

  /** @param udp whether the interface takes UDP super-packets, too */
  constructor(
    arena: Arena,
    checksum: Checksum,
    writer: VectorWriter,
    udp: boolean,
  ) {
    this.#arena = arena;
    this.#u8 = arena.u8;
    this.#checksum = checksum;
    this.#writer = writer;
    this.#udp = udp;
  }

  /**
   * Takes the packet at `at`, valid as far as its IP header; the bytes before it
   * may be overwritten. It is written now or by a later call.
   *
   * @returns 0, or the error number of a write
   */
  add(at: number, length: number): number {
    if (!this.#parse(at, length)) {
      return this.flush() || this.#writeAlone(at, length);
    }
    if (this.#count > 0 && this.#continues(at, length)) {
      this.#extend(at, length);
      return 0;
    }
    const error = this.flush();
    this.#begin(at, length);
    return error;
  }

  /** Writes what waits. @returns 0, or an error number */
  flush(): number {
    if (this.#count === 0) return 0;
    const many = this.#count > 1;
    this.#count = 0;
    const header = this.#at - VNET_HEADER;
    const u8 = this.#u8;
    u8.fill(0, header, this.#at);
    if (many) this.#finishHeaders(header);
    return this.#writer.write();
  }

  #writeAlone(at: number, length: number): number {
    const header = at - VNET_HEADER;
    this.#u8.fill(0, header, at);
    this.#u8[header + VNET.GSO_TYPE] = GSO_NONE;
    this.#writer.append(header, length + VNET_HEADER);
    return this.#writer.write();
  }

  /** Whether the packet is of a kind that is merged; remembers its headers. */
  #parse(at: number, length: number): boolean {
    const u8 = this.#u8;
    const v4 = u8[at] >> 4 === 4;
    const transport = v4 ? (u8[at] & 15) * 4 : IPV6_HEADER;
    // An option or a fragment makes a packet one of its own.
    if (v4 && transport !== IPV4_HEADER_MIN) return false;
    if (v4 && this.#checksum.checksum(at, transport, 0) !== WORD_MASK) {
      return false;
    }
    const fragment = v4 ? readBe16(u8, at + IPV4_FRAGMENT) : 0;
    if ((fragment & ~IPV4_DONT_FRAGMENT) !== 0) return false;
    const protocol = u8[at + (v4 ? 9 : 6)];
    let headers: number;
    if (protocol === PROTOCOL_TCP) {
      if (length < transport + TCP_HEADER_MIN) return false;
      const bytes = (u8[at + transport + 12] >> 4) * 4;
      if (bytes < TCP_HEADER_MIN) return false;
      // SYN, FIN, RST, URG, ECE and CWR mean something for this packet alone.
      const flags = u8[at + transport + TCP_FLAGS];
      if ((flags & ~TCP_PSH) !== TCP_ACK) return false;
      headers = transport + bytes;
    } else if (protocol === PROTOCOL_UDP && this.#udp) {
      if (length < transport + UDP_HEADER) return false;
      if (readBe16(u8, at + transport + UDP_LENGTH) !== length - transport) {
        return false;
      }
      if (readBe16(u8, at + transport + UDP_CHECKSUM) === 0) return false;
      headers = transport + UDP_HEADER;
    } else return false;
    if (headers >= length) return false;
    this.#parsedTransport = transport;
    this.#parsedHeaders = headers;
    this.#parsedTcp = protocol === PROTOCOL_TCP;
    return this.#checksumRight(at, length, transport, protocol);
  }

  #checksumRight(
    at: number,
    length: number,
    transport: number,
    protocol: number,
  ): boolean {
    const pseudo = pseudoHeaderSum(this.#arena, this.#checksum, at, protocol);
    const bytes = length - transport;
    return this.#checksum.checksum(
      at + transport,
      bytes,
      pseudo + swap16(bytes),
    ) === WORD_MASK;
  }

  #begin(at: number, length: number): void {
    const u8 = this.#u8;
    this.#at = at;
    this.#v4 = u8[at] >> 4 === 4;
    this.#tcp = this.#parsedTcp;
    this.#transport = this.#parsedTransport;
    this.#headers = this.#parsedHeaders;
    this.#size = length - this.#headers;
    this.#length = length;
    this.#count = 1;
    this.#closed = false;
    if (this.#tcp) {
      this.#sequence = readBe32(u8, at + this.#transport + TCP_SEQUENCE) +
        this.#size;
      this.#closed = (u8[at + this.#transport + TCP_FLAGS] & TCP_PSH) !== 0;
    }
    this.#writer.append(at - VNET_HEADER, length + VNET_HEADER);
  }

  /** Whether the packet at hand goes on where the group ends. */
  #continues(at: number, length: number): boolean {
    const payload = length - this.#parsedHeaders;
    if (this.#closed || this.#count >= MERGE_MAX) return false;
    if (payload > this.#size || this.#length + payload > PACKET_MAX) {
      return false;
    }
    if (
      this.#parsedTcp !== this.#tcp || this.#parsedHeaders !== this.#headers
    ) return false;
    return this.#sameNetwork(at) && this.#sameTransport(at);
  }

  #sameNetwork(at: number): boolean {
    const u8 = this.#u8;
    const first = this.#at;
    if (u8[at] >> 4 !== u8[first] >> 4) return false;
    if (!this.#v4) {
      // Class and flow label; next header and hop limit; addresses.
      return this.#same(at, 0, 4) && this.#same(at, 6, IPV6_HEADER);
    }
    // Class; fragment bits, TTL and protocol; addresses.
    if (!this.#same(at, 0, 2) || !this.#same(at, IPV4_FRAGMENT, 10)) {
      return false;
    }
    if (!this.#same(at, 12, IPV4_HEADER_MIN)) return false;
    if ((readBe16(u8, at + IPV4_FRAGMENT) & IPV4_DONT_FRAGMENT) !== 0) {
      return true;
    }
    const id = (readBe16(u8, first + IPV4_ID) + this.#count) & WORD_MASK;
    return readBe16(u8, at + IPV4_ID) === id;
  }

  #sameTransport(at: number): boolean {
    const t = this.#transport;
    // Ports.
    if (!this.#same(at, t, t + 4)) return false;
    if (!this.#tcp) return true;
    if (readBe32(this.#u8, at + t + TCP_SEQUENCE) !== this.#sequence >>> 0) {
      return false;
    }
    // Acknowledgement and offset; window; urgent pointer and options.
    return this.#same(at, t + 8, t + TCP_FLAGS) &&
      this.#same(at, t + 14, t + TCP_CHECKSUM) &&
      this.#same(at, t + 18, this.#headers);
  }

  #same(at: number, from: number, to: number): boolean {
    const u8 = this.#u8;
    const first = this.#at;
    for (let i = from; i < to; i++) {
      if (u8[at + i] !== u8[first + i]) return false;
    }
    return true;
  }

  #extend(at: number, length: number): void {
    const payload = length - this.#headers;
    this.#writer.append(at + this.#headers, payload);
    this.#length += payload;
    this.#count++;
    if (payload < this.#size) this.#closed = true;
    if (!this.#tcp) return;
    this.#sequence += payload;
    const flags = this.#u8[at + this.#transport + TCP_FLAGS];
    if ((flags & TCP_PSH) === 0) return;
    this.#u8[this.#at + this.#transport + TCP_FLAGS] |= TCP_PSH;
    this.#closed = true;
  }

  /** Headers of the super-packet, as TSO leaves them to a device. */
  #finishHeaders(header: number): void {
    const u8 = this.#u8;
    const at = this.#at;
    const field = this.#tcp ? TCP_CHECKSUM : UDP_CHECKSUM;
    const protocol = this.#tcp ? PROTOCOL_TCP : PROTOCOL_UDP;
    u8[header + VNET.FLAGS] = VNET_NEEDS_CHECKSUM;
    u8[header + VNET.GSO_TYPE] = !this.#tcp
      ? GSO_UDP
      : this.#v4
      ? GSO_TCPV4
      : GSO_TCPV6;
    writeLe16(u8, header + VNET.HEADER_LENGTH, this.#headers);
    writeLe16(u8, header + VNET.GSO_SIZE, this.#size);
    writeLe16(u8, header + VNET.CHECKSUM_START, this.#transport);
    writeLe16(u8, header + VNET.CHECKSUM_OFFSET, field);
    const bytes = this.#length - this.#transport;
    if (this.#v4) {
      writeBe16(u8, at + IPV4_LENGTH, this.#length);
      writeLe16(u8, at + IPV4_CHECKSUM, 0);
      const sum = this.#checksum.checksum(at, this.#transport, 0);
      writeLe16(u8, at + IPV4_CHECKSUM, ~sum & WORD_MASK);
    } else writeBe16(u8, at + IPV6_LENGTH, this.#length - IPV6_HEADER);
    if (!this.#tcp) writeBe16(u8, at + this.#transport + UDP_LENGTH, bytes);
    // The pseudo-header's sum, not complemented: the rest is the device's work.
    const pseudo = pseudoHeaderSum(this.#arena, this.#checksum, at, protocol);
    const partial = this.#checksum.checksum(at, 0, pseudo + swap16(bytes));
    writeLe16(u8, at + this.#transport + field, partial);
  }
}
