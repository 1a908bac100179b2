/**
 * The client's side of the UAPI protocol: the answer to `get=1` as an object,
 * and the text of a `set=1` request. Pure.
 *
 * @module
 */
import { fromHex, KEY_BYTES, toHex } from "./crypto/bytes.ts";
import {
  formatCidr,
  formatSocketAddress,
  parseCidr,
  parseDecimal,
  parseSocketAddress,
} from "./ip.ts";
import { UAPI_ERRNO } from "./uapi_lines.ts";
import type { Cidr, SocketAddress } from "./ip.ts";

const PORT_MAX = 65535;
const FWMARK_MAX = 0xffffffff;
const KEEPALIVE_MAX = 65535;
const ERRNO_MAX = 0x7fffffff;
/** Pieces of a request are yielded once they are about this long. */
const CHUNK_LENGTH = 32 * 1024;

/** A peer, as the daemon tells it. */
export interface PeerState {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** 32 bytes; undefined if there is none. */
  presharedKey?: Uint8Array;
  /** Undefined if none is known. */
  endpoint?: SocketAddress;
  /** `host:port` that wgd's daemon looks up for an endpoint. */
  endpointName?: string;
  /** In the order of the daemon. */
  readonly allowedIps: Cidr[];
  /** Seconds since 1970; 0: never. */
  lastHandshakeSeconds: number;
  /** The part of a second. */
  lastHandshakeNanoseconds: number;
  /** Bytes received. */
  rxBytes: bigint;
  /** Bytes sent. */
  txBytes: bigint;
  /** Seconds; 0: off. */
  persistentKeepalive: number;
}

/** A device, as the daemon tells it. */
export interface DeviceState {
  /** Name of the interface. */
  readonly name: string;
  /** 32 bytes; undefined if the daemon tells none. */
  privateKey?: Uint8Array;
  /** 32 bytes: the one of `privateKey`; left out by {@linkcode UapiGetParser}. */
  publicKey?: Uint8Array;
  /** 0: none. */
  listenPort: number;
  /** 0: none. */
  fwmark: number;
  /** In the order of the daemon. */
  readonly peers: PeerState[];
}

function parseKey(text: string): Uint8Array | null {
  const key = fromHex(text);
  return key?.length === KEY_BYTES ? key : null;
}

/** Is given peers one by one, with the device that they are of. */
export type PeerVisitor = (peer: PeerState, device: DeviceState) => void;

/**
 * Reads the answer to `get=1`, line by line. As wg(8), it passes over keys that
 * it does not know.
 */
export class UapiGetParser {
  /** Complete once `line` has returned 0. */
  readonly device: DeviceState;
  readonly #eachPeer: PeerVisitor;
  #peer: PeerState | undefined;
  #errno: number = UAPI_ERRNO.EPROTO;

  /**
   * `name` is that of the interface; `eachPeer` gets each peer once it is
   * complete, and by default adds it to the device.
   */
  constructor(name: string, eachPeer: PeerVisitor = keepPeer) {
    this.device = { name, listenPort: 0, fwmark: 0, peers: [] };
    this.#eachPeer = eachPeer;
  }

  /**
   * Takes a line; undefined while there is more to come.
   *
   * @returns the errno at the end of the answer: 0 for a good one, EPROTO for
   * one that makes no sense
   */
  line(text: string): number | undefined {
    if (text === "") {
      this.#endPeer();
      return this.#errno;
    }
    const equals = text.indexOf("=");
    if (equals < 0) return UAPI_ERRNO.EPROTO;
    const key = text.slice(0, equals);
    const value = text.slice(equals + 1);
    const isGood = key === "errno"
      ? this.#readErrno(value)
      : key === "public_key"
      ? this.#startPeer(value)
      : this.#peer
      ? readPeerLine(this.#peer, key, value)
      : readDeviceLine(this.device, key, value);
    return isGood ? undefined : UAPI_ERRNO.EPROTO;
  }

  #readErrno(value: string): boolean {
    this.#errno = parseDecimal(value, ERRNO_MAX);
    return this.#errno >= 0;
  }

  #startPeer(value: string): boolean {
    const publicKey = parseKey(value);
    if (publicKey === null) return false;
    this.#endPeer();
    this.#peer = {
      publicKey,
      allowedIps: [],
      lastHandshakeSeconds: 0,
      lastHandshakeNanoseconds: 0,
      rxBytes: 0n,
      txBytes: 0n,
      persistentKeepalive: 0,
    };
    return true;
  }

  #endPeer(): void {
    if (this.#peer !== undefined) this.#eachPeer(this.#peer, this.device);
    this.#peer = undefined;
  }
}

function keepPeer(peer: PeerState, { peers }: DeviceState): void {
  peers.push(peer);
}

function readDeviceLine(
  device: DeviceState,
  key: string,
  value: string,
): boolean {
  switch (key) {
    case "private_key": {
      const privateKey = parseKey(value);
      if (privateKey) device.privateKey = privateKey;
      return privateKey !== null;
    }
    case "listen_port":
      device.listenPort = parseDecimal(value, PORT_MAX);
      return device.listenPort >= 0;
    case "fwmark":
      device.fwmark = parseDecimal(value, FWMARK_MAX);
      return device.fwmark >= 0;
    default:
      return true;
  }
}

function readPeerLine(peer: PeerState, key: string, value: string): boolean {
  switch (key) {
    case "preshared_key": {
      const presharedKey = parseKey(value);
      if (presharedKey?.some((byte) => byte !== 0)) {
        peer.presharedKey = presharedKey;
      }
      return presharedKey !== null;
    }
    case "endpoint": {
      const endpoint = parseSocketAddress(value);
      if (endpoint) peer.endpoint = endpoint;
      return endpoint !== null;
    }
    case "endpoint_name":
      peer.endpointName = value;
      return true;
    case "allowed_ip": {
      const cidr = value.includes("/") ? parseCidr(value) : null;
      if (cidr) peer.allowedIps.push(cidr);
      return cidr !== null;
    }
    case "last_handshake_time_sec":
      peer.lastHandshakeSeconds = parseDecimal(value, Number.MAX_SAFE_INTEGER);
      return peer.lastHandshakeSeconds >= 0;
    case "last_handshake_time_nsec":
      peer.lastHandshakeNanoseconds = parseDecimal(
        value,
        Number.MAX_SAFE_INTEGER,
      );
      return peer.lastHandshakeNanoseconds >= 0;
    case "persistent_keepalive_interval":
      peer.persistentKeepalive = parseDecimal(value, KEEPALIVE_MAX);
      return peer.persistentKeepalive >= 0;
    case "rx_bytes":
    case "tx_bytes": {
      if (!/^\d{1,20}$/.test(value)) return false;
      const bytes = BigInt(value);
      if (key === "rx_bytes") peer.rxBytes = bytes;
      else peer.txBytes = bytes;
      return bytes < 1n << 64n;
    }
    default:
      return true;
  }
}

/** An allowed IP to add or remove. */
export interface AllowedIpUpdate extends Cidr {
  /**
   * Takes it from the peer, if the peer has exactly this one. Daemons of before
   * 2025 do not know this and answer EINVAL.
   */
  readonly remove?: boolean;
}

/** What a `set=1` request changes of a peer. What is undefined stays. */
export interface PeerUpdate {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Removes the peer; the rest does not count then. */
  readonly remove?: boolean;
  /** Does not create the peer. */
  readonly updateOnly?: boolean;
  /** 32 bytes; all zeros: none. */
  readonly presharedKey?: Uint8Array;
  /** Where the peer is reached. */
  readonly endpoint?: SocketAddress;
  /** `host:port` that the daemon is to look up; only wgd's knows how. */
  readonly endpointName?: string;
  /** Seconds; 0: off. */
  readonly persistentKeepalive?: number;
  /** Removes those that the peer has, before `allowedIps` are added. */
  readonly replaceAllowedIps?: boolean;
  /** Allowed IPs to add or remove, applied in this order. */
  readonly allowedIps?: readonly AllowedIpUpdate[];
}

/** What a `set=1` request changes. What is undefined stays. */
export interface DeviceUpdate {
  /** 32 bytes; all zeros: none. */
  readonly privateKey?: Uint8Array;
  /** 0: any port. */
  readonly listenPort?: number;
  /** 0: none. */
  readonly fwmark?: number;
  /** Removes all peers first. */
  readonly replacePeers?: boolean;
  /** Applied in this order. */
  readonly peers?: Iterable<PeerUpdate>;
}

function formatPeer(peer: PeerUpdate): string {
  let text = `public_key=${toHex(peer.publicKey)}\n`;
  if (peer.remove) return text + "remove=true\n";
  if (peer.updateOnly) text += "update_only=true\n";
  if (peer.presharedKey) {
    text += `preshared_key=${toHex(peer.presharedKey)}\n`;
  }
  if (peer.endpoint) {
    text += `endpoint=${formatSocketAddress(peer.endpoint)}\n`;
  }
  if (peer.endpointName) text += `endpoint_name=${peer.endpointName}\n`;
  if (peer.persistentKeepalive !== undefined) {
    text += `persistent_keepalive_interval=${peer.persistentKeepalive}\n`;
  }
  if (peer.replaceAllowedIps) text += "replace_allowed_ips=true\n";
  for (const cidr of peer.allowedIps ?? []) {
    text += `allowed_ip=${cidr.remove ? "-" : ""}${formatCidr(cidr)}\n`;
  }
  return text;
}

/**
 * A `set=1` request, in pieces, from `set=1` to the empty line; the lines are
 * in the order in which wg(8) sends them.
 */
export function* formatSet(update: DeviceUpdate): Generator<string> {
  let text = "set=1\n";
  if (update.privateKey) text += `private_key=${toHex(update.privateKey)}\n`;
  if (update.listenPort !== undefined) {
    text += `listen_port=${update.listenPort}\n`;
  }
  if (update.fwmark !== undefined) text += `fwmark=${update.fwmark}\n`;
  if (update.replacePeers) text += "replace_peers=true\n";
  for (const peer of update.peers ?? []) {
    text += formatPeer(peer);
    if (text.length < CHUNK_LENGTH) continue;
    yield text;
    text = "";
  }
  yield text + "\n";
}
