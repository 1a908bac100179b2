/**
 * The keys of configuration files: one entry a key, with how its value is read
 * and what it is expected to be. Pure.
 *
 * @module
 */
import { EXPECTED_KEY, quote } from "./config_error.ts";
import { decodeKey } from "./crypto/bytes.ts";
import {
  formatCidr,
  hasHostBits,
  isHostName,
  maskAddress,
  parseCidr,
  parseDecimal,
  parseEndpoint,
  parseIp,
} from "./ip.ts";
import type { InterfaceConfig, PeerConfig } from "./config.ts";

const PORT_MAX = 65535;
const KEEPALIVE_MAX = 65535;
const FWMARK_MAX = 0xffffffff;
/** The smallest packet that IPv4 hosts must take (RFC 791). */
const MTU_MIN = 68;
const MTU_MAX = 65535;

/** `Key = value` of a line. Columns count from 1. */
export interface Field {
  readonly key: string;
  readonly line: number;
  readonly nameColumn: number;
  readonly column: number;
  /** Without comment and surrounding white space. */
  readonly value: string;
  /** With what follows `#`. */
  readonly valueWithComment: string;
}

/** Where a key's reader complains; offsets count from the value's start. */
export interface Report {
  fail(problem: string, expected: string, text?: string, offset?: number): void;
  warn(message: string, offset?: number): void;
}

/** A key and how its value is read into `T`. */
export interface KeySpec<T> {
  readonly name: string;
  /** Whether it belongs to wg-quick(8) only. */
  readonly quick?: boolean;
  /** Whether it may be given again to add to what was given. */
  readonly repeats?: boolean;
  /** Reads the value into `into`, or reports why it cannot. */
  read(field: Field, into: T, report: Report): void;
}

/** wg(8) drops all white space of a line before it looks at it. */
function compact(value: string): string {
  return value.replace(/\s/g, "");
}

/** The entries of a list, each with its offset in the value. */
function* entries(
  value: string,
  separator: RegExp,
): Generator<{ text: string; offset: number }> {
  let offset = 0;
  for (const part of value.split(separator)) {
    const lead = part.length - part.trimStart().length;
    yield { text: part.trim(), offset: offset + lead };
    offset += part.length + 1;
  }
}

function readKey(field: Field, report: Report): Uint8Array | undefined {
  const key = decodeKey(compact(field.value));
  if (key !== null) return key;
  report.fail(field.value ? "not a key" : "no key given", EXPECTED_KEY);
  return undefined;
}

function readNumber(
  field: Field,
  report: Report,
  options: { min?: number; max: number; off?: boolean; hex?: boolean },
): number | undefined {
  const { min = 0, max, off = false, hex = false } = options;
  const text = compact(field.value);
  if (off && text.toLowerCase() === "off") return 0;
  const isHex = hex && /^0x[0-9a-fA-F]{1,16}$/.test(text);
  const value = isHex ? Number(text) : parseDecimal(text, max);
  if (value >= min && value <= max) return value;
  const range = hex ? "0 to 0xffffffff" : `${min} to ${max}`;
  report.fail(
    `${quote(field.value)} is not a number from ${range}`,
    off ? `a number from ${range}, or off` : `a number from ${range}`,
    field.value,
  );
  return undefined;
}

/** What an entry that is no prefix should have been. */
function expectedCidr(text: string): string {
  const address = parseIp(text.split("/")[0]);
  if (address === null) {
    return "an IPv4 or IPv6 address with a prefix length, such as 10.0.0.0/24";
  }
  return `an address with a prefix length of 0 to ${address.length * 8}`;
}

function failCidr(text: string, offset: number, report: Report): void {
  const expected = /\s/.test(text)
    ? "entries separated by commas"
    : expectedCidr(text);
  const problem = text
    ? `${quote(text)} is not an address with a prefix length`
    : "an empty entry";
  report.fail(problem, expected, text, offset);
}

function readHook(
  list: "preUp" | "postUp" | "preDown" | "postDown",
): KeySpec<InterfaceConfig>["read"] {
  return (field, into, report) => {
    if (field.valueWithComment) into[list].push(field.valueWithComment);
    else report.fail("no command given", "a shell command");
  };
}

/** The keys of `[Interface]`. */
export const INTERFACE_KEYS: readonly KeySpec<InterfaceConfig>[] = [
  {
    name: "PrivateKey",
    read(field, into, report): void {
      into.privateKey = readKey(field, report);
    },
  },
  {
    name: "ListenPort",
    read(field, into, report): void {
      into.listenPort = readNumber(field, report, { max: PORT_MAX });
    },
  },
  {
    name: "FwMark",
    read(field, into, report): void {
      into.fwmark = readNumber(field, report, {
        max: FWMARK_MAX,
        off: true,
        hex: true,
      });
    },
  },
  {
    name: "Address",
    quick: true,
    repeats: true,
    read(field, into, report): void {
      for (const { text, offset } of entries(field.value, /[\s,]/)) {
        if (text === "") continue;
        const cidr = parseCidr(text);
        if (cidr === null) failCidr(text, offset, report);
        else into.addresses.push(cidr);
      }
    },
  },
  {
    name: "DNS",
    quick: true,
    repeats: true,
    read(field, into, report): void {
      for (const { text, offset } of entries(field.value, /[\s,]/)) {
        if (text === "") continue;
        if (parseIp(text) !== null || isHostName(text)) into.dns.push(text);
        else {
          report.fail(
            `${quote(text)} is neither an address nor a domain`,
            "addresses of DNS servers and search domains",
            text,
            offset,
          );
        }
      }
    },
  },
  {
    name: "MTU",
    quick: true,
    read(field, into, report): void {
      into.mtu = readNumber(field, report, { min: MTU_MIN, max: MTU_MAX });
    },
  },
  {
    name: "Table",
    quick: true,
    read(field, into, report): void {
      if (/^[a-zA-Z0-9_.-]+$/.test(field.value)) into.table = field.value;
      else {
        report.fail(
          `${quote(field.value)} is not a routing table`,
          "off, auto, or the number or name of a routing table",
          field.value,
        );
      }
    },
  },
  { name: "PreUp", quick: true, repeats: true, read: readHook("preUp") },
  { name: "PostUp", quick: true, repeats: true, read: readHook("postUp") },
  { name: "PreDown", quick: true, repeats: true, read: readHook("preDown") },
  { name: "PostDown", quick: true, repeats: true, read: readHook("postDown") },
  {
    name: "SaveConfig",
    quick: true,
    read(field, into, report): void {
      const value = field.value.toLowerCase();
      if (value === "true" || value === "false") {
        into.saveConfig = value === "true";
      } else {
        report.fail(
          `${quote(field.value)} is neither true nor false`,
          "true or false",
          field.value,
        );
      }
    },
  },
];

/** The keys of `[Peer]`. */
export const PEER_KEYS: readonly KeySpec<
  Partial<PeerConfig> & Pick<PeerConfig, "allowedIps">
>[] = [
  {
    name: "PublicKey",
    read(field, into, report): void {
      into.publicKey = readKey(field, report);
    },
  },
  {
    name: "PresharedKey",
    read(field, into, report): void {
      into.presharedKey = readKey(field, report);
    },
  },
  {
    name: "Endpoint",
    read(field, into, report): void {
      const text = compact(field.value);
      const endpoint = parseEndpoint(text);
      if (endpoint) into.endpoint = endpoint;
      else {
        report.fail(
          `${quote(field.value)} is not an endpoint`,
          "name:port, a.b.c.d:port or [IPv6]:port, " +
            "with a port number from 1 to 65535",
          field.value,
        );
      }
    },
  },
  {
    name: "AllowedIPs",
    repeats: true,
    read(field, into, report): void {
      if (field.value === "") return;
      for (const { text, offset } of entries(field.value, /,/)) {
        const cidr = parseCidr(compact(text));
        if (cidr === null) {
          failCidr(text, offset, report);
          continue;
        }
        if (hasHostBits(cidr)) {
          maskAddress(cidr.address, cidr.cidr);
          report.warn(
            `${compact(text)} has bits set beyond its prefix; ` +
              `${formatCidr(cidr)} is meant`,
            offset,
          );
        }
        into.allowedIps.push(cidr);
      }
    },
  },
  {
    name: "PersistentKeepalive",
    read(field, into, report): void {
      into.persistentKeepalive = readNumber(field, report, {
        max: KEEPALIVE_MAX,
        off: true,
      });
    },
  },
];
