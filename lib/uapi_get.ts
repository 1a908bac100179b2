/**
 * The daemon's side of `get=1`: the device as lines, in the order of
 * wireguard-go's device/uapi.go, in pieces that fit a socket buffer. Pure.
 *
 * @module
 */
import { toHex } from "./crypto/bytes.ts";
import { formatCidr, formatSocketAddress } from "./ip.ts";

/** What stands for no preshared key. */
const NO_KEY = "0".repeat(64);
/** Pieces are yielded once they are about this long. */
const CHUNK_LENGTH = 32 * 1024;

/** A numeric endpoint; `scope` is an interface's index, 0 for none. */
export interface UapiEndpoint {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  /** 0 to 65535. */
  readonly port: number;
  /** Index of an interface, for link-local addresses; or 0. */
  readonly scope: number;
}

/** A walk over the peers of a device, which may change meanwhile. */
export interface UapiPeerWalk extends Disposable {
  /** Handle of the present peer; 0 after the last. It goes on when it is removed. */
  readonly peer: number;
  /** Goes on to the next. */
  advance(): void;
}

/**
 * The device as `get=1` reads it. A peer's accessors are called in one go, with
 * nothing in between; but between peers the reader may wait for the client,
 * while the device changes.
 */
export interface UapiSource {
  /** 32 bytes; undefined if there is none. */
  privateKey(): Uint8Array | undefined;
  /** 0: none yet. */
  listenPort(): number;
  /** 0: none. */
  fwmark(): number;
  /** Begins a walk over the peers that there are now. */
  walk(): UapiPeerWalk;
  /** 32 bytes. */
  publicKey(peer: number): Uint8Array;
  /** 32 bytes, all zeros if there is none. */
  presharedKey(peer: number): Uint8Array;
  /** Undefined if none is known. */
  endpoint(peer: number): UapiEndpoint | undefined;
  /** `host:port` that is to be looked up for an endpoint, while it has none. */
  endpointName?(peer: number): string | undefined;
  /** Wall clock in milliseconds since 1970; 0: never. */
  lastHandshakeMs(peer: number): number;
  /** Bytes sent, of WireGuard messages. */
  txBytes(peer: number): number | bigint;
  /** Bytes received, of WireGuard messages. */
  rxBytes(peer: number): number | bigint;
  /** Seconds; 0: off. */
  persistentKeepalive(peer: number): number;
  /** Calls `visit` for each allowed IP, in the order they were added. */
  allowedIps(
    peer: number,
    visit: (address: Uint8Array, cidr: number) => void,
  ): void;
  /** The name of the interface of this index, or the index in decimal. */
  scopeName(id: number): string;
  /** Live objects and what was dropped, by name. */
  stats(): Iterable<readonly [string, number]>;
}

function peerHead(source: UapiSource, peer: number): string {
  const endpoint = source.endpoint(peer);
  const handshakeMs = source.lastHandshakeMs(peer);
  const seconds = Math.floor(handshakeMs / 1000);
  const nanoseconds = Math.floor((handshakeMs - seconds * 1000) * 1e6);
  const presharedKey = source.presharedKey(peer);
  let text = `public_key=${toHex(source.publicKey(peer))}\n` +
    `preshared_key=${
      presharedKey.some((byte) => byte !== 0) ? toHex(presharedKey) : NO_KEY
    }\n` +
    "protocol_version=1\n";
  if (endpoint) {
    const { address, port, scope } = endpoint;
    const scopeName = scope === 0 ? "" : source.scopeName(scope);
    text += `endpoint=${
      formatSocketAddress({ address, port, scope: scopeName })
    }\n`;
  }
  const endpointName = source.endpointName?.(peer);
  if (endpointName) text += `endpoint_name=${endpointName}\n`;
  return text + `last_handshake_time_sec=${seconds}\n` +
    `last_handshake_time_nsec=${nanoseconds}\n` +
    `tx_bytes=${source.txBytes(peer)}\nrx_bytes=${source.rxBytes(peer)}\n` +
    `persistent_keepalive_interval=${source.persistentKeepalive(peer)}\n`;
}

/** The answer to `get=1`, in pieces, with `errno=0` and the empty line. */
export function* formatGet(source: UapiSource): Generator<string> {
  let text = "";
  const privateKey = source.privateKey();
  if (privateKey) text += `private_key=${toHex(privateKey)}\n`;
  const listenPort = source.listenPort();
  if (listenPort !== 0) text += `listen_port=${listenPort}\n`;
  const fwmark = source.fwmark();
  if (fwmark !== 0) text += `fwmark=${fwmark}\n`;

  const full: string[] = [];
  const addAllowedIp = (address: Uint8Array, cidr: number): void => {
    text += `allowed_ip=${formatCidr({ address, cidr })}\n`;
    if (text.length < CHUNK_LENGTH) return;
    full.push(text);
    text = "";
  };
  using walk = source.walk();
  for (let peer; (peer = walk.peer) !== 0;) {
    text += peerHead(source, peer);
    source.allowedIps(peer, addAllowedIp);
    walk.advance();
    yield* full;
    full.length = 0;
    if (text.length >= CHUNK_LENGTH) {
      yield text;
      text = "";
    }
  }
  yield text + "errno=0\n\n";
}

/** The answer to `get=stats`. */
export function formatStats(source: UapiSource): string {
  let text = "";
  for (const [name, value] of source.stats()) text += `${name}=${value}\n`;
  return text + "errno=0\n\n";
}
