/**
 * The difference between a device as it is and as it is to be: what `syncconf`
 * and `reload` send. Pure: {@linkcode syncUpdate} takes the parsed
 * configuration, its endpoints resolved, and the state that getDevice read, and
 * returns what changes; formatSet makes the UAPI text of that.
 *
 *     const state = await getDevice(name);
 *     const update = syncUpdate(state, target);
 *     await setDevice(name, formatSet(update));
 *
 * or, with what an older daemon does not know tried first, `syncDevice` of
 * lib/uapi_client. The device ends as `wg setconf` of the same file would leave
 * it, but peers that are in both keep their sessions, as do their endpoints
 * where the file names none, and what is equal is not touched:
 *
 * - Allowed IPs that move to another peer are moved by adding them there, and
 *   peers that are to go are removed last: no address is without its peer in
 *   between, so that nothing leaks to a peer with a wider prefix.
 * - wg sends all of every peer again, allowed IPs removed first.
 *
 * @module
 */
import { toHex } from "./crypto/bytes.ts";
import { publicKey } from "./crypto/x25519.ts";
import { formatCidr, formatSocketAddress, maskAddress } from "./ip.ts";
import type { Cidr, SocketAddress } from "./ip.ts";
import type { DeviceState, DeviceUpdate, PeerUpdate } from "./uapi_state.ts";

/** A peer as it is to be; a section of a file. */
export interface PeerTarget {
  /** 32 bytes. */
  readonly publicKey: Uint8Array;
  /** Undefined: none. */
  readonly presharedKey?: Uint8Array;
  /** Undefined: the one that the device knows, if any. */
  readonly endpoint?: SocketAddress;
  /**
   * `host:port` for the daemon to look up, where there is no `endpoint`; only
   * wgd's knows how. A peer whose name is being looked up already is let be.
   */
  readonly endpointName?: string;
  /** Host bits do not count. */
  readonly allowedIps: readonly Cidr[];
  /** Undefined: off. */
  readonly persistentKeepalive?: number;
}

/** A device as it is to be. */
export interface DeviceTarget {
  /** All zeros: none. Undefined: the one that it has. */
  readonly privateKey?: Uint8Array;
  /** 0: any. Undefined: the one that it has. */
  readonly listenPort?: number;
  /** 0: none. Undefined: the one that it has. */
  readonly fwmark?: number;
  /**
   * All that are to be there. Several of one key are one peer: later ones
   * replace its allowed IPs, and whatever else they have. Of several peers with
   * the same allowed IP, the last one gets it.
   */
  readonly peers: readonly PeerTarget[];
}

/** How {@linkcode syncUpdate} says it. */
export interface SyncOptions {
  /**
   * Takes single allowed IPs away, without a moment in which the others are
   * missing. Else, and for daemons of before 2025, which do not know how, a
   * peer that loses some has all of them replaced.
   */
  readonly incremental?: boolean;
}

/** A peer with all of its sections added up. */
interface Wanted {
  readonly publicKey: Uint8Array;
  presharedKey?: Uint8Array;
  endpoint?: SocketAddress;
  endpointName?: string;
  persistentKeepalive: number;
  /** By their text. */
  readonly allowedIps: Map<string, Cidr>;
}

function equal(a: Uint8Array | undefined, b: Uint8Array | undefined): boolean {
  // Undefined and zeros mean the same: none. This tells nobody anything by its
  // timing who could not read the keys anyway.
  for (let i = 0; i < Math.max(a?.length ?? 0, b?.length ?? 0); i++) {
    if ((a?.[i] ?? 0) !== (b?.[i] ?? 0)) return false;
  }
  return true;
}

function isZero(key: Uint8Array): boolean {
  return key.every((byte) => byte === 0);
}

function masked({ address, cidr }: Cidr): Cidr {
  const copy = address.slice();
  maskAddress(copy, cidr);
  return { address: copy, cidr };
}

/** The key of the peer that the device is itself, in hexadecimal. */
function ownKey(state: DeviceState, target: DeviceTarget): string | undefined {
  const { privateKey } = target;
  if (privateKey === undefined) {
    return state.publicKey && toHex(state.publicKey);
  }
  return isZero(privateKey) ? undefined : toHex(publicKey(privateKey));
}

/** Applies the sections in their order, as a device does. */
function wantedPeers(
  peers: readonly PeerTarget[],
  own: string | undefined,
): Map<string, Wanted> {
  const wanted = new Map<string, Wanted>();
  const owners = new Map<string, Wanted>();
  for (const section of peers) {
    const key = toHex(section.publicKey);
    if (key === own) continue;
    let peer = wanted.get(key);
    if (peer === undefined) {
      peer = {
        publicKey: section.publicKey,
        persistentKeepalive: 0,
        allowedIps: new Map(),
      };
      wanted.set(key, peer);
    }
    if (section.presharedKey) peer.presharedKey = section.presharedKey;
    if (section.endpoint || section.endpointName) {
      peer.endpoint = section.endpoint;
      peer.endpointName = section.endpoint ? undefined : section.endpointName;
    }
    if (section.persistentKeepalive !== undefined) {
      peer.persistentKeepalive = section.persistentKeepalive;
    }
    for (const text of peer.allowedIps.keys()) owners.delete(text);
    peer.allowedIps.clear();
    for (const given of section.allowedIps) {
      const cidr = masked(given);
      const text = formatCidr(cidr);
      owners.get(text)?.allowedIps.delete(text);
      owners.set(text, peer);
      peer.allowedIps.set(text, cidr);
    }
  }
  return wanted;
}

function sameEndpoint(
  a: SocketAddress | undefined,
  b: SocketAddress | undefined,
): boolean {
  return (a && formatSocketAddress(a)) === (b && formatSocketAddress(b));
}

/** Entries of `from` that `without` does not have. */
function beyond(
  from: ReadonlyMap<string, Cidr>,
  without: ReadonlyMap<string, unknown>,
): Cidr[] {
  return [...from].filter(([text]) => !without.has(text))
    .map(([, cidr]) => cidr);
}

/**
 * What makes a device of this state the one that is wanted.
 *
 * @param state as the daemon tells it
 */
export function syncUpdate(
  state: DeviceState,
  target: DeviceTarget,
  { incremental = false }: SyncOptions = {},
): DeviceUpdate & { readonly peers: readonly PeerUpdate[] } {
  const own = ownKey(state, target);
  const wanted = wantedPeers(target.peers, own);
  const all = new Map<string, Cidr>();
  for (const { allowedIps } of wanted.values()) {
    for (const [text, cidr] of allowedIps) all.set(text, cidr);
  }
  const current = new Map(
    state.peers.map((peer) => [toHex(peer.publicKey), peer]),
  );

  const peers: PeerUpdate[] = [];
  for (const [key, peer] of wanted) {
    const before = current.get(key);
    if (before === undefined) {
      peers.push({
        publicKey: peer.publicKey,
        ...(peer.presharedKey && { presharedKey: peer.presharedKey }),
        ...(peer.endpoint && { endpoint: peer.endpoint }),
        ...(peer.endpointName && { endpointName: peer.endpointName }),
        persistentKeepalive: peer.persistentKeepalive,
        replaceAllowedIps: true,
        allowedIps: [...peer.allowedIps.values()],
      });
      continue;
    }
    const has = new Map(
      before.allowedIps.map((cidr) => [formatCidr(cidr), cidr]),
    );
    const added = beyond(peer.allowedIps, has);
    // Those that another peer gets go with that.
    const removed = beyond(has, peer.allowedIps).filter((cidr) =>
      !all.has(formatCidr(cidr))
    );
    const replaces = removed.length > 0 && !incremental;
    const allowedIps = replaces ? [...peer.allowedIps.values()] : [
      ...removed.map((cidr) => ({ ...cidr, remove: true })),
      ...added,
    ];
    const change = {
      ...(!equal(before.presharedKey, peer.presharedKey) && {
        presharedKey: peer.presharedKey ?? new Uint8Array(32),
      }),
      ...(peer.endpoint && !sameEndpoint(before.endpoint, peer.endpoint) && {
        endpoint: peer.endpoint,
      }),
      ...(peer.endpointName && before.endpointName !== peer.endpointName && {
        endpointName: peer.endpointName,
      }),
      ...(before.persistentKeepalive !== peer.persistentKeepalive && {
        persistentKeepalive: peer.persistentKeepalive,
      }),
      ...(replaces && { replaceAllowedIps: true }),
      ...(allowedIps.length > 0 && { allowedIps }),
    };
    if (Object.keys(change).length > 0) {
      peers.push({ publicKey: peer.publicKey, updateOnly: true, ...change });
    }
  }
  for (const [key, { publicKey }] of current) {
    // The device removes its own key by itself.
    if (!wanted.has(key) && key !== own) {
      peers.push({ publicKey, remove: true });
    }
  }

  const { privateKey, listenPort, fwmark } = target;
  return {
    ...(privateKey && !equal(state.privateKey, privateKey) && { privateKey }),
    ...(listenPort !== undefined && listenPort !== state.listenPort &&
      { listenPort }),
    ...(fwmark !== undefined && fwmark !== state.fwmark && { fwmark }),
    peers,
  };
}

/** Whether there is nothing to send. */
export function isUnchanged(update: DeviceUpdate): boolean {
  const { privateKey, listenPort, fwmark, replacePeers, peers = [] } = update;
  return privateKey === undefined && listenPort === undefined &&
    fwmark === undefined && !replacePeers && [...peers].length === 0;
}
