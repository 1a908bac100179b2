/**
 * "Host unreachable" and "address unreachable" for packets that the tunnel has
 * no way for (kernel: `icmp_ndo_send` in `wg_xmit`), by the rules of RFC 1122
 * §3.2.2 and RFC 4443 §2.4, and as often as a host may say so; and which packets
 * are redirects. Pure; nothing here allocates.
 *
 * The error is made where the packet lies: its headers go before it, and it is
 * what the error quotes. It comes from the address that cannot be reached, not
 * from one of the interface's as the kernel driver's does: the system takes
 * nothing from an interface that has an address of its own as source.
 *
 * @module
 */
import type { Checksum } from "./crypto/checksum.ts";
import {
  IPV4_ADDRESSES,
  IPV4_CHECKSUM,
  IPV4_HEADER_MIN,
  IPV4_LENGTH,
  IPV4_PROTOCOL,
  IPV6_ADDRESSES,
  IPV6_ADDRESSES_BYTES,
  IPV6_HEADER,
  IPV6_LENGTH,
  IPV6_NEXT_HEADER,
  readBe16,
  swap16,
  writeBe16,
  writeLe16,
} from "./segments.ts";

const ICMP_HEADER = 8;
/** Most bytes that the headers of an error take before the packet. */
export const ICMP_HEADROOM = IPV6_HEADER + ICMP_HEADER;

const PROTOCOL_ICMP = 1;
const PROTOCOL_ICMPV6 = 58;
const ICMP_DEST_UNREACH = 3;
const ICMP_REDIRECT = 5;
const ICMP_HOST_UNREACH = 1;
const ICMPV6_DEST_UNREACH = 1;
const ICMPV6_ADDR_UNREACH = 3;
const ICMPV6_INFORMATIONAL = 128;
const ICMPV6_REDIRECT = 137;
/** Queries and answers of ICMP, by bit; all else is an error or not known. */
const ICMP_QUERIES = (1 << 0) | (1 << 8) | (1 << 9) | (1 << 10) | (1 << 13) |
  (1 << 14) | (1 << 15) | (1 << 16) | (1 << 17) | (1 << 18);
const ICMP_QUERY_MAX = 18;

/** Most bytes of an error: what every host takes in whole. */
const IPV4_ERROR_MAX = 576;
const IPV6_ERROR_MAX = 1280;

const TTL = 64;
const VERSION_4 = 0x45;
const VERSION_6 = 0x60;
/** Precedence of internetwork control, as routers and Linux mark errors. */
const IPV4_CONTROL_DS = 0xc0;
const IPV4_TTL = 8;
const IPV4_FRAGMENT = 6;
const IPV4_OFFSET_MASK = 0x1fff;
const IPV4_DONT_FRAGMENT = 0x4000;
const IPV4_ADDRESS = 4;
const IPV6_ADDRESS = 16;
const IPV6_HOP_LIMIT = 7;
const MULTICAST_4 = 224;
const LOOPBACK_4 = 127;
const MULTICAST_6 = 0xff;

const HOP_BY_HOP = 0;
const ROUTING = 43;
const FRAGMENT = 44;
const DESTINATION_OPTIONS = 60;
const EXTENSION_UNIT = 8;
const FRAGMENT_OFFSET_MASK = 0xfff8;

const WORD_MASK = 0xffff;

/**
 * Makes the error for the packet of `length` bytes at `at`, right before it:
 * up to ICMP_HEADROOM bytes there are overwritten.
 *
 * @returns bytes of the error's headers, so that it begins that many before
 * `at`; 0 when the packet is one that must not be answered
 */
export function unreachableHeaders(
  u8: Uint8Array,
  checksum: Checksum,
  at: number,
  length: number,
): number {
  return u8[at] >> 4 === 4
    ? unreachable4(u8, checksum, at, length)
    : unreachable6(u8, checksum, at, length);
}

/** Bytes of the packet that the error quotes. */
export function quotedLength(headers: number, length: number): number {
  const max = headers === ICMP_HEADROOM ? IPV6_ERROR_MAX : IPV4_ERROR_MAX;
  return Math.min(length, max - headers);
}

function unreachable4(
  u8: Uint8Array,
  { checksum }: Checksum,
  at: number,
  length: number,
): number {
  if (!mayAnswer4(u8, at, length)) return 0;
  const headers = IPV4_HEADER_MIN + ICMP_HEADER;
  const quoted = quotedLength(headers, length);
  const ip = at - headers;
  u8.fill(0, ip, at);
  u8[ip] = VERSION_4;
  u8[ip + 1] = IPV4_CONTROL_DS;
  writeBe16(u8, ip + IPV4_LENGTH, headers + quoted);
  writeBe16(u8, ip + IPV4_FRAGMENT, IPV4_DONT_FRAGMENT);
  u8[ip + IPV4_TTL] = TTL;
  u8[ip + IPV4_PROTOCOL] = PROTOCOL_ICMP;
  swapAddresses(u8, at + IPV4_ADDRESSES, ip + IPV4_ADDRESSES, IPV4_ADDRESS);
  const sum = checksum(ip, IPV4_HEADER_MIN, 0);
  writeLe16(u8, ip + IPV4_CHECKSUM, ~sum & WORD_MASK);
  const icmp = ip + IPV4_HEADER_MIN;
  u8[icmp] = ICMP_DEST_UNREACH;
  u8[icmp + 1] = ICMP_HOST_UNREACH;
  const whole = checksum(icmp, ICMP_HEADER + quoted, 0);
  writeLe16(u8, icmp + 2, ~whole & WORD_MASK);
  return headers;
}

function unreachable6(
  u8: Uint8Array,
  { checksum }: Checksum,
  at: number,
  length: number,
): number {
  if (!mayAnswer6(u8, at, length)) return 0;
  const headers = ICMP_HEADROOM;
  const quoted = quotedLength(headers, length);
  const ip = at - headers;
  u8.fill(0, ip, at);
  u8[ip] = VERSION_6;
  writeBe16(u8, ip + IPV6_LENGTH, ICMP_HEADER + quoted);
  u8[ip + IPV6_NEXT_HEADER] = PROTOCOL_ICMPV6;
  u8[ip + IPV6_HOP_LIMIT] = TTL;
  swapAddresses(u8, at + IPV6_ADDRESSES, ip + IPV6_ADDRESSES, IPV6_ADDRESS);
  const icmp = ip + IPV6_HEADER;
  u8[icmp] = ICMPV6_DEST_UNREACH;
  u8[icmp + 1] = ICMPV6_ADDR_UNREACH;
  // The addresses of the pseudo-header are right before the message.
  const whole = checksum(
    ip + IPV6_ADDRESSES,
    IPV6_ADDRESSES_BYTES + ICMP_HEADER + quoted,
    (PROTOCOL_ICMPV6 << 8) + swap16(ICMP_HEADER + quoted),
  );
  writeLe16(u8, icmp + 2, ~whole & WORD_MASK);
  return headers;
}

/** Copies source and destination, each to the other's place. */
function swapAddresses(
  u8: Uint8Array,
  from: number,
  to: number,
  bytes: number,
): void {
  u8.copyWithin(to, from + bytes, from + 2 * bytes);
  u8.copyWithin(to + bytes, from, from + bytes);
}

/** RFC 1122 §3.2.2: what no error may answer. */
function mayAnswer4(u8: Uint8Array, at: number, length: number): boolean {
  const header = (u8[at] & 15) * 4;
  if (header < IPV4_HEADER_MIN || header > length) return false;
  if ((readBe16(u8, at + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) !== 0) return false;
  const source = u8[at + IPV4_ADDRESSES];
  // Not one host: this network, loopback, multicast, reserved, broadcast.
  if (source === 0 || source === LOOPBACK_4 || source >= MULTICAST_4) {
    return false;
  }
  if (u8[at + IPV4_ADDRESSES + IPV4_ADDRESS] >= MULTICAST_4) return false;
  if (u8[at + IPV4_PROTOCOL] !== PROTOCOL_ICMP) return true;
  const type = u8[at + header];
  return header < length && type <= ICMP_QUERY_MAX &&
    (ICMP_QUERIES >> type & 1) !== 0;
}

/** RFC 4443 §2.4 (e): what no error may answer. */
function mayAnswer6(u8: Uint8Array, at: number, length: number): boolean {
  const source = at + IPV6_ADDRESSES;
  if (u8[source] === MULTICAST_6 || isUnspecified(u8, source)) return false;
  if (u8[source + IPV6_ADDRESS] === MULTICAST_6) return false;
  let next = u8[at + IPV6_NEXT_HEADER];
  let offset = IPV6_HEADER;
  while (next !== PROTOCOL_ICMPV6) {
    const isFragment = next === FRAGMENT;
    if (
      !isFragment && next !== HOP_BY_HOP && next !== ROUTING &&
      next !== DESTINATION_OPTIONS
    ) return true;
    if (offset + EXTENSION_UNIT > length) return false;
    const here = at + offset;
    // What an error is about cannot be seen in a later fragment.
    if (
      isFragment && (readBe16(u8, here + 2) & FRAGMENT_OFFSET_MASK) !== 0
    ) return false;
    next = u8[here];
    offset += isFragment ? EXTENSION_UNIT : (u8[here + 1] + 1) * EXTENSION_UNIT;
  }
  const type = u8[at + offset];
  return offset < length && type >= ICMPV6_INFORMATIONAL &&
    type !== ICMPV6_REDIRECT;
}

function isUnspecified(u8: Uint8Array, at: number): boolean {
  for (let i = 0; i < IPV6_ADDRESS; i++) if (u8[at + i] !== 0) return false;
  return true;
}

/**
 * Whether the packet, whose IP header is whole, is a redirect. The system sends
 * one to a peer whose packet leaves by the interface that it came in by, unless
 * `send_redirects` is off for this interface and for all. The kernel's driver
 * turns the latter off (`wg_open`), which nobody can put back exactly once
 * several interfaces, a crash or the user's own setting are in between; so the
 * setting is left alone and the redirect dropped. Whoever sent it: a redirect is
 * for the sender's own link, and hosts take none from further away (RFC 1122
 * §3.2.2.2, RFC 4861 §8.1), so one that would be forwarded is of no use either.
 */
export function isRedirect(
  u8: Uint8Array,
  at: number,
  length: number,
): boolean {
  if (u8[at] >> 4 !== 4) {
    return u8[at + IPV6_NEXT_HEADER] === PROTOCOL_ICMPV6 &&
      length > IPV6_HEADER && u8[at + IPV6_HEADER] === ICMPV6_REDIRECT;
  }
  if (u8[at + IPV4_PROTOCOL] !== PROTOCOL_ICMP) return false;
  const header = (u8[at] & 15) * 4;
  return header < length && u8[at + header] === ICMP_REDIRECT &&
    (readBe16(u8, at + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) === 0;
}

/** Errors a second, and at once: Linux's icmp_msgs_per_sec and icmp_msgs_burst. */
export const ICMP_PER_SECOND = 1000;
export const ICMP_BURST = 50;

/** How often errors may be sent: a token bucket. */
export class IcmpLimiter {
  #tokens = ICMP_BURST;
  #lastMs = -Infinity;

  /** Whether one more may be sent. @param nowMs never goes back */
  allow(nowMs: number): boolean {
    const gained = (nowMs - this.#lastMs) * (ICMP_PER_SECOND / 1000);
    this.#lastMs = nowMs;
    this.#tokens = Math.min(ICMP_BURST, this.#tokens + gained);
    if (this.#tokens < 1) return false;
    this.#tokens--;
    return true;
  }
}
