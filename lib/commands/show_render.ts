/**
 * The output of `wgd show` and `wgd showconf`, byte for byte that of wg(8)
 * (show.c and showconf.c of wireguard-tools 1.0.20210914). Pure: device states
 * in, text out.
 *
 * @module
 */
import { encodeKey } from "../crypto/bytes.ts";
import { formatCidr, formatIp, formatSocketAddress } from "../ip.ts";
import type { DeviceState, PeerState } from "../uapi_state.ts";

const NONE = "(none)";
const HIDDEN = "(hidden)";

const RESET = "\x1b[0m";
const BOLD = "\x1b[1m";
const RED = "\x1b[31m";
const GREEN = "\x1b[32m";
const YELLOW = "\x1b[33m";
const CYAN = "\x1b[36m";

const SECONDS_PER_MINUTE = 60;
const SECONDS_PER_HOUR = 60 * SECONDS_PER_MINUTE;
const SECONDS_PER_DAY = 24 * SECONDS_PER_HOUR;
const SECONDS_PER_YEAR = 365 * SECONDS_PER_DAY;

function optionalKey(key: Uint8Array | undefined): string {
  return key ? encodeKey(key) : NONE;
}

function endpointOf(peer: PeerState): string {
  return peer.endpoint ? formatSocketAddress(peer.endpoint) : NONE;
}

function allowedIpsOf(peer: PeerState, separator: string): string {
  if (peer.allowedIps.length === 0) return NONE;
  return peer.allowedIps.map(formatCidr).join(separator);
}

function keepaliveOf(peer: PeerState): string {
  return peer.persistentKeepalive ? String(peer.persistentKeepalive) : "off";
}

function fwmarkOf(device: DeviceState): string {
  return device.fwmark ? `0x${device.fwmark.toString(16)}` : "off";
}

/** What a field prints: columns of a row of the device, and of one a peer. */
interface Field {
  readonly device?: (device: DeviceState) => string[];
  readonly peer?: (peer: PeerState) => string[];
}

/** A row a peer, its public key first. */
function peerRows(columns: (peer: PeerState) => string[]): Field {
  return { peer: (peer) => [encodeKey(peer.publicKey), ...columns(peer)] };
}

/** The script outputs. */
const FIELDS: Readonly<Record<string, Field>> = {
  "public-key": { device: ({ publicKey }) => [optionalKey(publicKey)] },
  "private-key": { device: ({ privateKey }) => [optionalKey(privateKey)] },
  "listen-port": { device: ({ listenPort }) => [String(listenPort)] },
  "fwmark": { device: (device) => [fwmarkOf(device)] },
  "peers": peerRows(() => []),
  "preshared-keys": peerRows((peer) => [optionalKey(peer.presharedKey)]),
  "endpoints": peerRows((peer) => [endpointOf(peer)]),
  "allowed-ips": peerRows((peer) => [allowedIpsOf(peer, " ")]),
  "latest-handshakes": peerRows((peer) => [String(peer.lastHandshakeSeconds)]),
  "transfer": peerRows((peer) => [String(peer.rxBytes), String(peer.txBytes)]),
  "persistent-keepalive": peerRows((peer) => [keepaliveOf(peer)]),
  "dump": {
    device: (device) => [
      optionalKey(device.privateKey),
      optionalKey(device.publicKey),
      String(device.listenPort),
      fwmarkOf(device),
    ],
    peer: (peer) => [
      encodeKey(peer.publicKey),
      optionalKey(peer.presharedKey),
      endpointOf(peer),
      allowedIpsOf(peer, ","),
      String(peer.lastHandshakeSeconds),
      String(peer.rxBytes),
      String(peer.txBytes),
      keepaliveOf(peer),
    ],
  },
};

/** The fields that `show IF FIELD` knows, `dump` among them. */
export const SHOW_FIELDS: readonly string[] = Object.keys(FIELDS);

/** The script output of a field of {@linkcode SHOW_FIELDS}, row by row. */
export class FieldRows {
  readonly #field: Field;
  readonly #withInterface: boolean;

  constructor(field: string, withInterface: boolean) {
    this.#field = FIELDS[field];
    this.#withInterface = withInterface;
  }

  /** What is said of the device itself. */
  ofDevice(device: DeviceState): string {
    const { device: columns } = this.#field;
    return columns === undefined ? "" : this.#row(device, columns(device));
  }

  /** What is said of a peer. */
  ofPeer(peer: PeerState, device: DeviceState): string {
    const { peer: columns } = this.#field;
    return columns === undefined ? "" : this.#row(device, columns(peer));
  }

  #row({ name }: DeviceState, columns: readonly string[]): string {
    return `${this.#withInterface ? `${name}\t` : ""}${columns.join("\t")}\n`;
  }
}

/** How {@linkcode renderPretty} prints. */
export interface PrettyOptions {
  readonly color: boolean;
  /** Prints private and preshared keys as they are. */
  readonly showKeys: boolean;
  /** The wall clock. */
  readonly nowMs: number;
}

function duration(seconds: number, unit: (name: string) => string): string {
  const parts: string[] = [];
  const add = (count: number, name: string): void => {
    if (count > 0) {
      parts.push(`${count} ${unit(count === 1 ? name : `${name}s`)}`);
    }
  };
  add(Math.floor(seconds / SECONDS_PER_YEAR), "year");
  const inYear = seconds % SECONDS_PER_YEAR;
  add(Math.floor(inYear / SECONDS_PER_DAY), "day");
  add(Math.floor(inYear % SECONDS_PER_DAY / SECONDS_PER_HOUR), "hour");
  add(Math.floor(inYear % SECONDS_PER_HOUR / SECONDS_PER_MINUTE), "minute");
  add(inYear % SECONDS_PER_MINUTE, "second");
  return parts.join(", ");
}

/** Two decimals, ties to even as printf rounds them. */
function twoDecimals(value: bigint, divisor: bigint): string {
  const scaled = value * 100n;
  let hundredths = scaled / divisor;
  const twice = scaled % divisor * 2n;
  if (twice > divisor || (twice === divisor && hundredths % 2n === 1n)) {
    hundredths++;
  }
  const digits = String(hundredths).padStart(3, "0");
  return `${digits.slice(0, -2)}.${digits.slice(-2)}`;
}

function byteCount(bytes: bigint, unit: (name: string) => string): string {
  if (bytes < 1024n) return `${bytes} ${unit("B")}`;
  const names = ["KiB", "MiB", "GiB", "TiB"];
  let divisor = 1024n;
  let i = 0;
  while (i < names.length - 1 && bytes >= divisor * 1024n) {
    divisor *= 1024n;
    i++;
  }
  const asDouble = BigInt(Number(bytes)); // wg counts in a double here
  return `${twoDecimals(asDouble, divisor)} ${unit(names[i])}`;
}

/** Latest handshake first, peers without one last. */
function byHandshake(a: PeerState, b: PeerState): number {
  return b.lastHandshakeSeconds - a.lastHandshakeSeconds ||
    b.lastHandshakeNanoseconds - a.lastHandshakeNanoseconds;
}

/** The output for people. */
export function renderPretty(
  device: DeviceState,
  { color, showKeys, nowMs }: PrettyOptions,
): string {
  const paint = (codes: string, text: string): string =>
    color ? codes + text + RESET : text;
  const unit = (name: string): string => paint(CYAN, name);
  const line = (label: string, value: string): string =>
    `  ${paint(BOLD, label)}: ${value}\n`;
  const secret = (key: Uint8Array): string =>
    showKeys ? encodeKey(key) : HIDDEN;
  const ago = (seconds: number): string => {
    const age = Math.floor(nowMs / 1000) - seconds;
    if (age === 0) return "Now";
    if (age > 0) return `${duration(age, unit)} ago`;
    const text = "System clock wound backward; connection problems may ensue.";
    return `(${paint(RED, text)})`;
  };
  const allowedIps = (peer: PeerState): string =>
    peer.allowedIps.map(({ address, cidr }) =>
      formatIp(address) + paint(CYAN, "/") + cidr
    ).join(", ") || NONE;

  let text = color ? RESET : "";
  text += `${paint(GREEN + BOLD, "interface")}: ${paint(GREEN, device.name)}\n`;
  if (device.publicKey) {
    text += line("public key", encodeKey(device.publicKey));
  }
  if (device.privateKey) text += line("private key", secret(device.privateKey));
  if (device.listenPort) {
    text += line("listening port", String(device.listenPort));
  }
  if (device.fwmark) text += line("fwmark", fwmarkOf(device));

  for (const peer of device.peers.toSorted(byHandshake)) {
    const key = encodeKey(peer.publicKey);
    text += `\n${paint(YELLOW + BOLD, "peer")}: ${paint(YELLOW, key)}\n`;
    if (peer.presharedKey) {
      text += line("preshared key", secret(peer.presharedKey));
    }
    if (peer.endpoint) text += line("endpoint", endpointOf(peer));
    else if (peer.endpointName) {
      // wgd's own: no other daemon looks up names.
      text += line("endpoint", `${peer.endpointName} (pending)`);
    }
    text += line("allowed ips", allowedIps(peer));
    if (peer.lastHandshakeSeconds) {
      text += line("latest handshake", ago(peer.lastHandshakeSeconds));
    }
    if (peer.rxBytes || peer.txBytes) {
      const received = byteCount(peer.rxBytes, unit);
      const sent = byteCount(peer.txBytes, unit);
      text += line("transfer", `${received} received, ${sent} sent`);
    }
    if (peer.persistentKeepalive) {
      const every = duration(peer.persistentKeepalive, unit);
      text += line("persistent keepalive", `every ${every}`);
    }
  }
  return text;
}

/** The configuration as a file; `[Interface]` and a blank line always. */
export function renderConfig(device: DeviceState): string {
  let text = "[Interface]\n";
  if (device.listenPort) text += `ListenPort = ${device.listenPort}\n`;
  if (device.fwmark) text += `FwMark = ${fwmarkOf(device)}\n`;
  if (device.privateKey) {
    text += `PrivateKey = ${encodeKey(device.privateKey)}\n`;
  }
  return `${text}\n${device.peers.map(peerSection).join("\n")}`;
}

function peerSection(peer: PeerState): string {
  let text = `[Peer]\nPublicKey = ${encodeKey(peer.publicKey)}\n`;
  if (peer.presharedKey) {
    text += `PresharedKey = ${encodeKey(peer.presharedKey)}\n`;
  }
  if (peer.allowedIps.length > 0) {
    text += `AllowedIPs = ${allowedIpsOf(peer, ", ")}\n`;
  }
  if (peer.endpoint) text += `Endpoint = ${endpointOf(peer)}\n`;
  if (peer.persistentKeepalive) {
    text += `PersistentKeepalive = ${peer.persistentKeepalive}\n`;
  }
  return text;
}
