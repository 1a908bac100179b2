/**
 * Internet addresses as bytes: parsing and printing of IPv4 and IPv6
 * addresses, prefixes and endpoints, for the configuration file and the UAPI.
 * Accepts what `inet_pton` accepts and prints what `inet_ntop` prints (RFC 5952
 * and the v4-mapped form), because both protocols are defined by what wg(8)
 * does. An address is a `Uint8Array` of 4 or 16 bytes. Pure.
 *
 * @module
 */

/** Length of an IPv4 address in bytes. */
export const IPV4_LENGTH = 4;
/** Length of an IPv6 address in bytes. */
export const IPV6_LENGTH = 16;

const PORT_MAX = 65535;
const HOST_NAME_MAX = 253;
const IPV6_GROUPS = 8;

const DOT = 0x2e;
const COLON = 0x3a;
const ZERO = 0x30;

/** An address with a prefix length. The host bits may be set. */
export interface Cidr {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** 0 to 32 for IPv4, 0 to 128 for IPv6. */
  readonly cidr: number;
}

/** Where a peer is reached, as a configuration file names it. */
export interface Endpoint {
  /** IPv4 or IPv6 address (with `%scope` if one was given), or a name. */
  readonly host: string;
  /** 0 to 65535. */
  readonly port: number;
}

/** A numeric endpoint. */
export interface SocketAddress {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** 0 to 65535. */
  readonly port: number;
  /** What follows `%`: an interface name or its index; empty if absent. */
  readonly scope: string;
}

/** Parses decimal digits from `start` to `end`; -1 unless 0 to `max`. */
export function parseDecimal(
  text: string,
  max: number,
  start = 0,
  end: number = text.length,
): number {
  if (start >= end) return -1;
  let value = 0;
  for (let i = start; i < end; i++) {
    const digit = text.charCodeAt(i) - ZERO;
    if (digit < 0 || digit > 9) return -1;
    value = value * 10 + digit;
    if (value > max) return -1;
  }
  return value;
}

/** Parses the dotted quad `text[start..stop)` into `out` at `offset`. */
function parseIpv4Into(
  text: string,
  start: number,
  stop: number,
  out: Uint8Array,
  offset: number,
): boolean {
  let position = start;
  for (let part = 0; part < IPV4_LENGTH; part++) {
    let end = position;
    while (end < stop && text.charCodeAt(end) !== DOT) end++;
    if ((end === stop) !== (part === IPV4_LENGTH - 1)) return false;
    // inet_pton refuses leading zeros, which some programs read as octal.
    if (end - position > 1 && text.charCodeAt(position) === ZERO) return false;
    const value = parseDecimal(text, 255, position, end);
    if (value < 0) return false;
    out[offset + part] = value;
    position = end + 1;
  }
  return true;
}

function hexDigit(code: number): number {
  if (code >= ZERO && code <= 0x39) return code - ZERO;
  const lower = code | 0x20;
  return lower >= 0x61 && lower <= 0x66 ? lower - 0x61 + 10 : -1;
}

/** Parses the IPv6 address `text[start..stop)` into the 16 bytes of `out`. */
function parseIpv6Into(
  text: string,
  start: number,
  stop: number,
  out: Uint8Array,
): boolean {
  let group = 0;
  let gap = -1;
  let position = start;
  if (stop - start >= 2 && text.startsWith("::", start)) {
    gap = 0;
    position += 2;
  }
  while (position < stop) {
    if (group === IPV6_GROUPS) return false;
    let value = 0;
    let end = position;
    while (end < stop) {
      const digit = hexDigit(text.charCodeAt(end));
      if (digit < 0) break;
      value = value * 16 + digit;
      if (++end - position > 4) return false;
    }
    if (end === position) return false;
    if (end < stop && text.charCodeAt(end) === DOT) {
      if (group > IPV6_GROUPS - 2) return false;
      if (!parseIpv4Into(text, position, stop, out, group * 2)) return false;
      group += 2;
      break;
    }
    out[group * 2] = value >> 8;
    out[group * 2 + 1] = value & 0xff;
    group++;
    if (end === stop) break;
    if (text.charCodeAt(end) !== COLON) return false;
    position = end + 1;
    if (position === stop) return false;
    if (text.charCodeAt(position) === COLON) {
      if (gap >= 0) return false;
      gap = group;
      position++;
    }
  }
  if (gap < 0) return group === IPV6_GROUPS;
  if (group === IPV6_GROUPS) return false;
  const shift = (IPV6_GROUPS - group) * 2;
  out.copyWithin(gap * 2 + shift, gap * 2, group * 2);
  out.fill(0, gap * 2, gap * 2 + shift);
  return true;
}

/**
 * Parses the address `text[start..stop)` into `out`, which has 16 bytes.
 *
 * @returns its length, 4 or 16, or 0 if it is no address
 */
export function parseIpInto(
  text: string,
  start: number,
  stop: number,
  out: Uint8Array,
): number {
  for (let i = start; i < stop; i++) {
    if (text.charCodeAt(i) === COLON) {
      return parseIpv6Into(text, start, stop, out) ? IPV6_LENGTH : 0;
    }
  }
  return parseIpv4Into(text, start, stop, out, 0) ? IPV4_LENGTH : 0;
}

/** Parses an IPv4 or IPv6 address; null if it is neither. */
export function parseIp(text: string): Uint8Array | null {
  const out = new Uint8Array(IPV6_LENGTH);
  const length = parseIpInto(text, 0, text.length, out);
  return length === 0 ? null : out.slice(0, length);
}

function formatIpv4(address: Uint8Array, offset: number): string {
  return `${address[offset]}.${address[offset + 1]}.${address[offset + 2]}.${
    address[offset + 3]
  }`;
}

/** Prints a 4- or 16-byte address as `inet_ntop` does. */
export function formatIp(address: Uint8Array): string {
  if (address.length === IPV4_LENGTH) return formatIpv4(address, 0);
  if (address.length !== IPV6_LENGTH) {
    throw new RangeError(`an address of ${address.length} bytes`);
  }
  const group = (i: number): number =>
    (address[i * 2] << 8) | address[i * 2 + 1];

  let gapStart = -1;
  let gapLength = 1; // one zero group alone is not shortened
  for (let i = 0; i < IPV6_GROUPS; i++) {
    let end = i;
    while (end < IPV6_GROUPS && group(end) === 0) end++;
    if (end - i > gapLength) {
      gapStart = i;
      gapLength = end - i;
    }
    i = end;
  }
  const embedsIpv4 = gapStart === 0 &&
    (gapLength === 6 || (gapLength === 5 && group(5) === 0xffff));

  let text = "";
  for (let i = 0; i < IPV6_GROUPS; i++) {
    if (i === gapStart) {
      text += "::";
      i += gapLength - 1;
      continue;
    }
    if (text !== "" && !text.endsWith("::")) text += ":";
    if (embedsIpv4 && i === 6) return text + formatIpv4(address, 12);
    text += group(i).toString(16);
  }
  return text;
}

/**
 * Parses `address/length`, or an address alone, which stands for itself with
 * the full length. Host bits are kept; see {@linkcode maskAddress}.
 */
export function parseCidr(text: string): Cidr | null {
  const slash = text.indexOf("/");
  const address = parseIp(slash < 0 ? text : text.slice(0, slash));
  if (address === null) return null;
  const bits = address.length * 8;
  if (slash < 0) return { address, cidr: bits };
  const cidr = parseDecimal(text, bits, slash + 1);
  return cidr < 0 ? null : { address, cidr };
}

/** Prints `address/length`. */
export function formatCidr({ address, cidr }: Cidr): string {
  return `${formatIp(address)}/${cidr}`;
}

/** Whether any bit of the address beyond the prefix is set. */
export function hasHostBits({ address, cidr }: Cidr): boolean {
  for (let i = cidr >> 3; i < address.length; i++) {
    const mask = i === cidr >> 3 ? 0xff >> (cidr & 7) : 0xff;
    if ((address[i] & mask) !== 0) return true;
  }
  return false;
}

/** Clears the bits beyond the prefix, in place. */
export function maskAddress(address: Uint8Array, cidr: number): void {
  const first = cidr >> 3;
  if (first >= address.length) return;
  address[first] &= ~(0xff >> (cidr & 7));
  address.fill(0, first + 1);
}

/** Splits `host:port` or `[host]:port`; null if there is no port in it. */
function splitHostPort(
  text: string,
): { host: string; port: number; bracketed: boolean } | null {
  const bracketed = text.startsWith("[");
  const close = bracketed ? text.indexOf("]:") : text.lastIndexOf(":");
  if (close < 0) return null;
  const port = parseDecimal(text, PORT_MAX, close + (bracketed ? 2 : 1));
  if (port < 0) return null;
  return { host: text.slice(bracketed ? 1 : 0, close), port, bracketed };
}

/** Parses an IPv6 address that may carry `%scope`. */
function parseScoped(
  text: string,
): { address: Uint8Array; scope: string } | null {
  const percent = text.indexOf("%");
  const scope = percent < 0 ? "" : text.slice(percent + 1);
  if (percent >= 0 && !/^[a-zA-Z0-9_=+.@-]{1,15}$/.test(scope)) return null;
  const address = parseIp(percent < 0 ? text : text.slice(0, percent));
  return address?.length === IPV6_LENGTH ? { address, scope } : null;
}

/** Parses a numeric endpoint: `a.b.c.d:port` or `[v6]:port` or `[v6%scope]:port`. */
export function parseSocketAddress(text: string): SocketAddress | null {
  const split = splitHostPort(text);
  if (split === null) return null;
  const { host, port, bracketed } = split;
  if (bracketed) {
    const scoped = parseScoped(host);
    return scoped && { ...scoped, port };
  }
  const address = parseIp(host);
  if (address?.length !== IPV4_LENGTH) return null;
  return { address, port, scope: "" };
}

/** Prints a numeric endpoint. */
export function formatSocketAddress(
  { address, port, scope }: SocketAddress,
): string {
  if (address.length === IPV4_LENGTH) return `${formatIp(address)}:${port}`;
  return `[${formatIp(address)}${scope && `%${scope}`}]:${port}`;
}

/** Whether the text may be a host name: labels of letters, digits, `-`, `_`. */
export function isHostName(text: string): boolean {
  if (text.length > HOST_NAME_MAX) return false;
  const labels = (text.endsWith(".") ? text.slice(0, -1) : text).split(".");
  // A last label of digits alone is a mistyped IPv4 address, not a name.
  return labels.every((label) => /^[a-zA-Z0-9_-]{1,63}$/.test(label)) &&
    !/^\d+$/.test(labels[labels.length - 1]);
}

/**
 * Parses `a.b.c.d:port`, `[v6]:port`, `[v6%scope]:port` or `name:port`.
 * Ports are numbers from 1 to 65535; service names are not looked up.
 */
export function parseEndpoint(text: string): Endpoint | null {
  const split = splitHostPort(text);
  if (split === null || split.port === 0) return null;
  const { host, port, bracketed } = split;
  if (bracketed) {
    const scoped = parseScoped(host);
    if (scoped === null) return null;
    const { address, scope } = scoped;
    return { host: formatIp(address) + (scope && `%${scope}`), port };
  }
  const address = parseIp(host);
  if (address !== null) {
    return address.length === IPV4_LENGTH ? { host, port } : null;
  }
  return isHostName(host) ? { host, port } : null;
}

/** Prints an endpoint, an IPv6 address in brackets. */
export function formatEndpoint({ host, port }: Endpoint): string {
  return host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
}
