/**
 * The keys of configuration files: one entry a key, with how its value is read
 * and what it is expected to be. Keys of wg(8) are read as wg does, without any
 * white space and never empty; those of wg-quick(8) may be empty, as web
 * interfaces write them. Pure.
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
import type { Endpoint } from "./ip.ts";
import type { InterfaceConfig, PeerConfig } from "./config.ts";

const PORT_MAX = 65535;
const KEEPALIVE_MAX = 65535;
const FWMARK_MAX = 0xffffffff;
/** The smallest packet that IPv4 hosts must take (RFC 791). */
const MTU_MIN = 68;
const MTU_MAX = 65535;

/** What C's isspace takes for white space, as wg(8) does. */
const WHITE_SPACE = /[ \t\n\v\f\r]/g;

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

/** The UDP port of a service by its name; null if there is none. */
export type ServicePort = (name: string) => number | null;

/** Where a key's reader complains; offsets count from the value's start. */
export interface Report {
  fail(problem: string, expected: string, text?: string, offset?: number): void;
  warn(message: string, offset?: number): void;
  readonly servicePort: ServicePort;
}

/** A key and how its value is read into `T`. */
export interface KeySpec<T> {
  readonly name: string;
  /** What the value is, for the manual; no full stop. */
  readonly summary: string;
  /** Whether it belongs to wg-quick(8) only. */
  readonly quick?: boolean;
  /** Whether it may be given again to add to what was given. */
  readonly repeats?: boolean;
  /** Reads the value into `into`, or reports why it cannot. */
  read(field: Field, into: T, report: Report): void;
}

/** Removes all white space, as wg(8) does before it looks at a line. */
export function compact(text: string): string {
  return text.replace(WHITE_SPACE, "");
}

/** A part of a text without white space around it: its start and end. */
export function trimmedRange(
  text: string,
  from: number,
  to: number,
): [start: number, end: number] {
  const isSpace = (at: number): boolean => {
    const code = text.charCodeAt(at);
    return code === 0x20 || (code >= 0x09 && code <= 0x0d);
  };
  let start = from;
  let end = to;
  while (start < end && isSpace(start)) start++;
  while (end > start && isSpace(end - 1)) end--;
  return [start, end];
}

/** The letter case of ASCII alone does not matter. */
export function lowerCase(text: string): string {
  return text.replace(/[A-Z]/g, (letter) => letter.toLowerCase());
}

/** The entries of a list, each with its offset in the value. */
function* entries(
  value: string,
  separator: RegExp,
): Generator<{ text: string; offset: number }> {
  let offset = 0;
  for (const part of value.split(separator)) {
    const [start, end] = trimmedRange(part, 0, part.length);
    yield { text: part.slice(start, end), offset: offset + start };
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
  text: string,
  options: { min?: number; max: number; off?: boolean; hex?: boolean },
): number | undefined {
  const { min = 0, max, off = false, hex = false } = options;
  if (off && lowerCase(text) === "off") return 0;
  const isHex = hex && /^0x[0-9a-fA-F]+$/.test(text);
  const value = isHex ? Number(text) : parseDecimal(text, max);
  if (value >= min && value <= max) return value;
  const range = hex ? "0 to 0xffffffff" : `${min} to ${max}`;
  report.fail(
    field.value
      ? `${quote(field.value)} is not a number from ${range}`
      : "no number given",
    off ? `a number from ${range}, or off` : `a number from ${range}`,
    field.value,
  );
  return undefined;
}

/** A port by its number, or as the system knows it by a name; -1 for neither. */
function portOf(text: string, { servicePort }: Report): number {
  if (!/^[a-zA-Z][\w+.-]*$/.test(text)) return parseDecimal(text, PORT_MAX);
  return servicePort(text) ?? -1;
}

function endpointOf(text: string, report: Report): Endpoint | null {
  const colon = text.lastIndexOf(":");
  const port = portOf(text.slice(colon + 1), report);
  return parseEndpoint(`${text.slice(0, colon)}:${port}`);
}

/** Whether DNS may say so: a server, a domain, or a domain of resolved's. */
function isDnsEntry(text: string): boolean {
  const [address, scope] = text.split("%", 2);
  if (parseIp(address) !== null) {
    return scope === undefined ||
      (address.includes(":") && /^[\w=+.-]{1,15}$/.test(scope));
  }
  return text === "~." || isHostName(text.replace(/^~/, ""));
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

/** A list of wg-quick, which is separated by commas or white space. */
function* words(
  value: string,
): Generator<{ text: string; offset: number }> {
  for (const entry of entries(value, /[ \t\n\v\f\r,]/)) {
    if (entry.text !== "") yield entry;
  }
}

function readHook(
  list: "preUp" | "postUp" | "preDown" | "postDown",
): KeySpec<InterfaceConfig>["read"] {
  return (field, into, report) => {
    const command = field.valueWithComment;
    if (command === "") return; // wg-easy writes hooks that it does not have
    if (command.includes("\0")) {
      report.fail("a command with a NUL in it", "a shell command");
    } else into[list].push(command);
  };
}

/** The keys of `[Interface]`. */
export const INTERFACE_KEYS: readonly KeySpec<InterfaceConfig>[] = [
  {
    name: "PrivateKey",
    summary: "the private key in base64",
    read(field, into, report): void {
      into.privateKey = readKey(field, report);
    },
  },
  {
    name: "ListenPort",
    summary: "the UDP port, by number or name; 0 or none: any",
    read(field, into, report): void {
      const text = compact(field.value);
      const port = portOf(text, report);
      if (port >= 0) into.listenPort = port;
      else readNumber(field, report, text, { max: PORT_MAX });
    },
  },
  {
    name: "FwMark",
    summary: "the mark of packets sent, decimal or hexadecimal with 0x, or off",
    read(field, into, report): void {
      into.fwmark = readNumber(field, report, compact(field.value), {
        max: FWMARK_MAX,
        off: true,
        hex: true,
      });
    },
  },
  {
    name: "Address",
    summary:
      "addresses with prefix lengths, separated by commas; may be repeated",
    quick: true,
    repeats: true,
    read(field, into, report): void {
      for (const { text, offset } of words(field.value)) {
        const cidr = parseCidr(text);
        if (cidr === null) failCidr(text, offset, report);
        else into.addresses.push(cidr);
      }
    },
  },
  {
    name: "DNS",
    summary:
      "DNS servers and search domains, separated by commas; may be repeated",
    quick: true,
    repeats: true,
    read(field, into, report): void {
      for (const { text, offset } of words(field.value)) {
        if (isDnsEntry(text)) into.dns.push(text);
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
    summary: "the MTU; else it is made out from the routes to the endpoints",
    quick: true,
    read(field, into, report): void {
      if (field.value === "") {
        delete into.mtu;
        return;
      }
      into.mtu = readNumber(field, report, field.value, {
        min: MTU_MIN,
        max: MTU_MAX,
      });
    },
  },
  {
    name: "Table",
    summary:
      "the routing table of the peers' routes: auto, off for none, or a table",
    quick: true,
    read(field, into, report): void {
      if (field.value === "") delete into.table;
      else if (/^[a-zA-Z0-9_.-]+$/.test(field.value)) into.table = field.value;
      else {
        report.fail(
          `${quote(field.value)} is not a routing table`,
          "off, auto, or the number or name of a routing table",
          field.value,
        );
      }
    },
  },
  {
    name: "PreUp",
    summary:
      "a shell command run before the interface is up; %i is the interface; may be repeated",
    quick: true,
    repeats: true,
    read: readHook("preUp"),
  },
  {
    name: "PostUp",
    summary:
      "a shell command run when it is up; %i is the interface; may be repeated",
    quick: true,
    repeats: true,
    read: readHook("postUp"),
  },
  {
    name: "PreDown",
    summary:
      "a shell command run before it is taken down; %i is the interface; may be repeated",
    quick: true,
    repeats: true,
    read: readHook("preDown"),
  },
  {
    name: "PostDown",
    summary:
      "a shell command run when it is gone; %i is the interface; may be repeated",
    quick: true,
    repeats: true,
    read: readHook("postDown"),
  },
  {
    name: "SaveConfig",
    summary: "true: down saves the state to the file",
    quick: true,
    read(field, into, report): void {
      const value = lowerCase(field.value);
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
    summary: "the public key in base64; needed",
    read(field, into, report): void {
      into.publicKey = readKey(field, report);
    },
  },
  {
    name: "PresharedKey",
    summary: "the preshared key in base64",
    read(field, into, report): void {
      into.presharedKey = readKey(field, report);
    },
  },
  {
    name: "Endpoint",
    summary: "where the peer is: name:port, a.b.c.d:port or [IPv6]:port",
    read(field, into, report): void {
      const endpoint = endpointOf(compact(field.value), report);
      if (endpoint) into.endpoint = endpoint;
      else {
        report.fail(
          field.value
            ? `${quote(field.value)} is not an endpoint`
            : "no endpoint given",
          "name:port, a.b.c.d:port or [IPv6]:port, " +
            "with a port number from 1 to 65535",
          field.value,
        );
      }
    },
  },
  {
    name: "AllowedIPs",
    summary:
      "addresses with prefix lengths that are the peer's, separated by commas; may be repeated",
    repeats: true,
    read(field, into, report): void {
      if (field.value === "") {
        report.fail(
          "no addresses given",
          "addresses with a prefix length, or no AllowedIPs at all",
        );
        return;
      }
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
    summary: "seconds between keepalives, or off",
    read(field, into, report): void {
      into.persistentKeepalive = readNumber(
        field,
        report,
        compact(field.value),
        { max: KEEPALIVE_MAX, off: true },
      );
    },
  },
];
