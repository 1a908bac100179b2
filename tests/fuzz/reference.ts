/**
 * What the segment code must do, written down again in the plainest way and
 * from the other side: how a kernel cuts a super-packet, what a flow is, which
 * packets may not change places.
 *
 * @module
 */

const VNET = 10;

function le16(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}

/** Big-endian 16 bits. */
export function be16(bytes: Uint8Array, at: number): number {
  return (bytes[at] << 8) | bytes[at + 1];
}

/** Writes them. */
export function setBe16(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value >> 8;
  bytes[at + 1] = value;
}

/** Big-endian 32 bits. */
export function be32(bytes: Uint8Array, at: number): number {
  return be16(bytes, at) * 65_536 + be16(bytes, at + 2);
}

/** Writes them. */
export function setBe32(bytes: Uint8Array, at: number, value: number): void {
  setBe16(bytes, at, value >>> 16);
  setBe16(bytes, at + 2, value & 0xffff);
}

/** Sum of big-endian words, folded. */
export function sum(
  bytes: Uint8Array,
  from: number,
  to: number,
  initial = 0,
): number {
  let total = initial;
  for (let i = from; i + 1 < to; i += 2) {
    total += (bytes[i] << 8) | bytes[i + 1];
  }
  if ((to - from) % 2 === 1) total += bytes[to - 1] << 8;
  while (total > 0xffff) total = (total % 65_536) + Math.floor(total / 65_536);
  return total;
}

/** The pseudo-header's sum. */
export function pseudoSum(
  packet: Uint8Array,
  protocol: number,
  length: number,
): number {
  return packet[0] >> 4 === 4
    ? sum(packet, 12, 20, protocol + length)
    : sum(packet, 8, 40, protocol + length);
}

/** Writes the header checksum of an IPv4 packet. */
export function setNetworkChecksum(packet: Uint8Array): void {
  setBe16(packet, 10, 0);
  setBe16(packet, 10, ~sum(packet, 0, (packet[0] & 15) * 4) & 0xffff);
}

/** Writes the checksum of TCP or UDP, whose header is at `l4`. */
export function setTransportChecksum(
  packet: Uint8Array,
  l4: number,
  protocol: number,
): void {
  const field = l4 + (protocol === 6 ? 16 : 6);
  setBe16(packet, field, 0);
  const length = packet.length - l4;
  const pseudo = pseudoSum(packet, protocol, length);
  const value = ~sum(packet, l4, packet.length, pseudo) & 0xffff;
  setBe16(packet, field, value === 0 && protocol === 17 ? 0xffff : value);
}

/** Where TCP or UDP begins, behind options or extension headers; 0: nowhere. */
function findTransport(ip: Uint8Array, protocol: number): number {
  if (ip[0] >> 4 === 4) {
    const bytes = (ip[0] & 15) * 4;
    return bytes >= 20 && ip.length >= bytes && ip[9] === protocol ? bytes : 0;
  }
  if (ip[0] >> 4 !== 6 || ip.length < 40) return 0;
  let at = 40;
  for (let next = ip[6]; next !== protocol;) {
    if (![0, 43, 60].includes(next) || at + 8 > ip.length) return 0;
    next = ip[at];
    at += 8 + ip[at + 1] * 8;
  }
  return at;
}

/** What a super-packet's headers say, if they do not lie. */
export interface SuperPacket {
  readonly ip: Uint8Array;
  readonly protocol: number;
  /** Bytes before the transport's header. */
  readonly l4: number;
  /** Bytes of all headers. */
  readonly headers: number;
  readonly size: number;
  readonly count: number;
}

/** Reads a packet with its vnet header; null if that lies or it is no super-packet. */
export function readSuperPacket(packet: Uint8Array): SuperPacket | null {
  if (packet.length <= VNET) return null;
  const ip = packet.subarray(VNET);
  const kind = packet[1] & 0x7f;
  const protocol = kind === 5 ? 17 : 6;
  const version = ip[0] >> 4;
  if (kind !== 5 && kind !== (version === 4 ? 1 : 4)) return null;
  const l4 = le16(packet, 6);
  const size = le16(packet, 4);
  if (l4 === 0 || l4 !== findTransport(ip, protocol) || size === 0) return null;
  if (l4 + (protocol === 6 ? 20 : 8) > ip.length) return null;
  const own = protocol === 6 ? (ip[l4 + 12] >> 4) * 4 : 8;
  if (protocol === 6 && own < 20) return null;
  const headers = l4 + own;
  if (headers >= ip.length) return null;
  const count = Math.ceil((ip.length - headers) / size);
  return { ip, protocol, l4, headers, size, count };
}

/** Cuts segment `i` out of a super-packet, as the kernel's GSO does. */
export function cut(whole: SuperPacket, i: number): Uint8Array {
  const { ip, protocol, l4, headers, size, count } = whole;
  const from = headers + i * size;
  const payload = ip.subarray(from, Math.min(ip.length, from + size));
  const segment = new Uint8Array(headers + payload.length);
  segment.set(ip.subarray(0, headers));
  segment.set(payload, headers);
  if (ip[0] >> 4 === 4) {
    setBe16(segment, 2, segment.length);
    setBe16(segment, 4, (be16(ip, 4) + i) & 0xffff);
    setNetworkChecksum(segment);
  } else setBe16(segment, 4, segment.length - 40);
  if (protocol === 6) {
    setBe32(segment, l4 + 4, (be32(ip, l4 + 4) + i * size) % 2 ** 32);
    if (i < count - 1) segment[l4 + 13] &= ~0x09;
    if (i > 0) segment[l4 + 13] &= ~0x80;
  } else setBe16(segment, l4 + 4, segment.length - l4);
  setTransportChecksum(segment, l4, protocol);
  return segment;
}

/** The bytes of a packet's addresses, as text. */
export function hostsOf(packet: Uint8Array): string {
  const v4 = packet[0] >> 4 === 4;
  let hosts = "";
  for (let at = v4 ? 12 : 8; at < (v4 ? 20 : 40); at += 4) {
    hosts += `${be32(packet, at)}.`;
  }
  return hosts;
}

/** The flow of a packet, as text; undefined for one that shows no ports. */
export function flowOf(packet: Uint8Array): string | undefined {
  const v4 = packet[0] >> 4 === 4;
  if (v4 && packet[0] !== 0x45) return undefined;
  // More fragments, an offset, or the bit that must be zero.
  if (v4 && (be16(packet, 6) & 0xbfff) !== 0) return undefined;
  const protocol = packet[v4 ? 9 : 6];
  const l4 = v4 ? 20 : 40;
  if ((protocol !== 6 && protocol !== 17) || packet.length < l4 + 4) {
    return undefined;
  }
  return `${hostsOf(packet)} ${protocol} ${be32(packet, l4)}`;
}
