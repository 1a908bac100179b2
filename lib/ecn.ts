/**
 * ECN of packets in a tunnel (RFC 6040, as the kernel does it: `inet_ecn.h`):
 * what the outside shows of the inner packet's field, and what a mark on the way
 * does to it. The rest of the DS field never leaves the tunnel. Pure.
 *
 * @module
 */
import { IPV4_CHECKSUM, readBe16, writeBe16 } from "./segments.ts";

/** The field's values. */
export const ECN_NOT_ECT = 0;
export const ECN_ECT_1 = 1;
export const ECN_ECT_0 = 2;
export const ECN_CE = 3;
export const ECN_MASK = 3;

const WORD_MASK = 0xffff;
/** Place of the field in the second byte of an IPv6 header. */
const IPV6_SHIFT = 4;

/** ECN of the IP packet at `at`. */
export function ecnOf(u8: Uint8Array, at: number): number {
  const shift = u8[at] >> 4 === 4 ? 0 : IPV6_SHIFT;
  return (u8[at + 1] >> shift) & ECN_MASK;
}

/**
 * ECN of the datagram that carries the IP packet at `at`: the packet's own. A
 * mark that it has already is not shown: what is marked on the way through the
 * tunnel can be told from it.
 */
export function ecnEncapsulate(u8: Uint8Array, at: number): number {
  const ecn = ecnOf(u8, at);
  return ecn === ECN_CE ? ECN_ECT_0 : ecn;
}

/**
 * Carries the ECN of a datagram over to the IP packet at `at` that was in it.
 *
 * @param outer the datagram's DS field
 * @returns false for a mark on a packet whose sender does not know ECN: RFC 6040
 * would have it dropped, the kernel's driver lets it pass unchanged
 */
export function ecnDecapsulate(
  u8: Uint8Array,
  at: number,
  outer: number,
): boolean {
  const mark = outer & ECN_MASK;
  const inner = ecnOf(u8, at);
  if (inner === ECN_NOT_ECT) return mark !== ECN_CE;
  if (mark === ECN_CE || (mark === ECN_ECT_1 && inner === ECN_ECT_0)) {
    if (mark !== inner) setEcn(u8, at, mark);
  }
  return true;
}

/** Writes the field, and mends the checksum of IPv4 (RFC 1624). */
function setEcn(u8: Uint8Array, at: number, ecn: number): void {
  if (u8[at] >> 4 !== 4) {
    u8[at + 1] = (u8[at + 1] & ~(ECN_MASK << IPV6_SHIFT)) | (ecn << IPV6_SHIFT);
    return;
  }
  const before = readBe16(u8, at);
  u8[at + 1] = (u8[at + 1] & ~ECN_MASK) | ecn;
  const checksum = readBe16(u8, at + IPV4_CHECKSUM);
  let sum = (~checksum & WORD_MASK) + (~before & WORD_MASK) + readBe16(u8, at);
  sum = (sum & WORD_MASK) + (sum >> 16);
  sum = (sum & WORD_MASK) + (sum >> 16);
  writeBe16(u8, at + IPV4_CHECKSUM, ~sum & WORD_MASK);
}
