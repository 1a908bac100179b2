/**
 * The arguments of `wg set` after the interface, to what they ask for. Pure but
 * for the ports' names: key files are read and endpoints resolved by `set`.
 *
 * @module
 */
import { EXPECTED_KEY, quote } from "../config_error.ts";
import { decodeKey } from "../crypto/bytes.ts";
import {
  formatCidr,
  hasHostBits,
  parseCidr,
  parseDecimal,
  parseEndpoint,
} from "../ip.ts";
import { nearest } from "../suggest.ts";
import { CliError } from "./errors.ts";
import type { ServicePort } from "../config_keys.ts";
import type { Endpoint } from "../ip.ts";
import type { AllowedIpUpdate } from "../uapi_state.ts";

const PORT_MAX = 65535;
const FWMARK_MAX = 0xffffffff;
const KEEPALIVE_MAX = 65535;

/** What is asked of a peer. */
export interface PeerRequest {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  remove?: boolean;
  /** Path of the file. */
  presharedKeyFile?: string;
  endpoint?: Endpoint;
  /** Seconds; 0: off. */
  persistentKeepalive?: number;
  replaceAllowedIps?: boolean;
  /** In the order given. */
  readonly allowedIps: AllowedIpUpdate[];
}

/** What is asked of a device. */
export interface SetRequest {
  /** 0: any. */
  listenPort?: number;
  /** 0: none. */
  fwmark?: number;
  /** Path of the file. */
  privateKeyFile?: string;
  /** In the order given; the same peer may come again. */
  readonly peers: PeerRequest[];
  /** Lines for the user. */
  readonly warnings: string[];
}

interface Options {
  readonly servicePort: ServicePort;
  readonly warn: (line: string) => void;
}

type Reader<T> = (into: T, value: string, options: Options) => void;

function fail(option: string, value: string, expected: string): never {
  throw new CliError(`set: ${option}: ${quote(value)} is not ${expected}`);
}

/** A name as /etc/services has them; the resolver takes stranger things. */
function isServiceName(text: string): boolean {
  return /^[\w.+-]*[a-zA-Z][\w.+-]*$/.test(text);
}

function readPort(value: string, { servicePort }: Options): number | null {
  const port = parseDecimal(value, PORT_MAX);
  if (port >= 0) return port;
  return isServiceName(value) ? servicePort(value) : null;
}

function readEndpoint(value: string, options: Options): Endpoint | null {
  const numbered = parseEndpoint(value);
  if (numbered !== null) return numbered;
  const colon = value.lastIndexOf(":");
  const port = colon < 0 ? null : readPort(value.slice(colon + 1), options);
  if (port === null) return null;
  return parseEndpoint(`${value.slice(0, colon)}:${port}`);
}

function readFwmark(value: string): number {
  if (value.toLowerCase() === "off") return 0;
  if (!/^0x[0-9a-fA-F]+$/.test(value)) return parseDecimal(value, FWMARK_MAX);
  const mark = Number(value);
  return mark <= FWMARK_MAX ? mark : -1;
}

const DEVICE_OPTIONS: Readonly<Record<string, Reader<SetRequest>>> = {
  "listen-port": (into, value, options) => {
    into.listenPort = readPort(value, options) ??
      fail("listen-port", value, "a port from 0 to 65535");
  },
  "fwmark": (into, value) => {
    into.fwmark = readFwmark(value);
    if (into.fwmark < 0) {
      fail("fwmark", value, "a number from 0 to 0xffffffff, or off");
    }
  },
  "private-key": (into, value) => {
    into.privateKeyFile = value;
  },
};

const PEER_OPTIONS: Readonly<Record<string, Reader<PeerRequest>>> = {
  "preshared-key": (into, value) => {
    into.presharedKeyFile = value;
  },
  "endpoint": (into, value, options) => {
    const expected = "name:port, a.b.c.d:port or [IPv6]:port";
    into.endpoint = readEndpoint(value, options) ??
      fail("endpoint", value, expected);
  },
  "persistent-keepalive": (into, value) => {
    into.persistentKeepalive = value.toLowerCase() === "off"
      ? 0
      : parseDecimal(value, KEEPALIVE_MAX);
    if (into.persistentKeepalive < 0) {
      fail("persistent-keepalive", value, "seconds from 0 to 65535, or off");
    }
  },
  "allowed-ips": (into, value, { warn }) => {
    const list = value.replace(/\s/g, "");
    into.replaceAllowedIps = true;
    if (list === "") return;
    for (const entry of list.split(",")) {
      const isIncremental = /^[+-]/.test(entry);
      const cidr = parseCidr(isIncremental ? entry.slice(1) : entry);
      if (cidr === null) {
        fail("allowed-ips", entry, "an address with a prefix length");
      }
      if (hasHostBits(cidr)) {
        warn(
          `allowed-ips: ${formatCidr(cidr)} has bits set beyond its prefix`,
        );
      }
      if (isIncremental) into.replaceAllowedIps = false;
      into.allowedIps.push(
        entry.startsWith("-") ? { ...cidr, remove: true } : cidr,
      );
    }
  },
};

const WORDS = [
  ...Object.keys(DEVICE_OPTIONS),
  ...["peer", "remove"],
  ...Object.keys(PEER_OPTIONS),
];

function misplaced(word: string, hasPeer: boolean): CliError {
  if (Object.hasOwn(DEVICE_OPTIONS, word) && hasPeer) {
    return new CliError(`set: ${word} belongs before the first peer`);
  }
  if (WORDS.includes(word)) {
    return new CliError(`set: ${word} belongs after the peer that it is about`);
  }
  const guess = nearest(word, WORDS);
  return new CliError(
    `set: invalid argument ${quote(word)}; ` +
      (guess ? `did you mean ${guess}?` : `expected ${WORDS.join(", ")}`),
  );
}

/**
 * Reads the arguments of `wg set` after the interface.
 *
 * @throws {CliError} about the first one that is wrong
 */
export function parseSet(
  args: readonly string[],
  servicePort: ServicePort,
): SetRequest {
  const warnings: string[] = [];
  const request: SetRequest = { peers: [], warnings };
  const options = { servicePort, warn: (s: string) => void warnings.push(s) };
  let peer: PeerRequest | undefined;
  for (let i = 0; i < args.length;) {
    const word = args[i++];
    if (word === "remove" && peer) {
      peer.remove = true;
      continue;
    }
    const readers = peer ? PEER_OPTIONS : DEVICE_OPTIONS;
    const isOption = word === "peer" || Object.hasOwn(readers, word);
    if (!isOption) throw misplaced(word, peer !== undefined);
    if (i === args.length) throw new CliError(`set: ${word}: no value given`);
    const value = args[i++];
    if (word === "peer") {
      const publicKey = decodeKey(value);
      if (publicKey === null) {
        // Somebody's private key, perhaps.
        throw new CliError(`set: peer: not a key; expected ${EXPECTED_KEY}`);
      }
      peer = { publicKey, allowedIps: [] };
      request.peers.push(peer);
    } else if (peer) PEER_OPTIONS[word](peer, value, options);
    else DEVICE_OPTIONS[word](request, value, options);
  }
  return request;
}
