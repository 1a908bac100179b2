/**
 * The output of `--json`, with the keys of wireguard-tools' wg-json: what
 * `wg show all dump` tells, secret keys included. What is unset is left out.
 * `pendingEndpoint`, a name that wgd's daemon looks up, is wgd's own. Pure: device states in, text out.
 *
 * @module
 */
import { encodeKey } from "../crypto/bytes.ts";
import { formatCidr, formatSocketAddress } from "../ip.ts";
import type { DeviceState, PeerState } from "../uapi_state.ts";

/** Values by their keys; undefined ones are left out of JSON. */
type Json = Record<string, unknown>;

/** A value for JSON, or undefined if it is zero. */
function nonZero(value: number | bigint): number | undefined {
  return value ? Number(value) : undefined;
}

function jsonOfPeer(peer: PeerState): Json {
  return {
    presharedKey: peer.presharedKey && encodeKey(peer.presharedKey),
    endpoint: peer.endpoint && formatSocketAddress(peer.endpoint),
    pendingEndpoint: peer.endpoint ? undefined : peer.endpointName,
    latestHandshake: nonZero(peer.lastHandshakeSeconds),
    transferRx: nonZero(peer.rxBytes),
    transferTx: nonZero(peer.txBytes),
    persistentKeepalive: nonZero(peer.persistentKeepalive),
    allowedIps: peer.allowedIps.map(formatCidr),
  };
}

function jsonOfDevice(device: DeviceState): Json {
  return {
    privateKey: device.privateKey && encodeKey(device.privateKey),
    publicKey: device.publicKey && encodeKey(device.publicKey),
    listenPort: nonZero(device.listenPort),
    fwmark: nonZero(device.fwmark),
  };
}

/** The keys that go with a field of `show`, or with `showconf`. */
interface Selection {
  readonly device: readonly string[];
  /** Undefined: no peers at all. */
  readonly peer?: readonly string[];
}

const SELECTIONS: Readonly<Record<string, Selection>> = {
  "public-key": { device: ["publicKey"] },
  "private-key": { device: ["privateKey"] },
  "listen-port": { device: ["listenPort"] },
  "fwmark": { device: ["fwmark"] },
  "peers": { device: [], peer: [] },
  "preshared-keys": { device: [], peer: ["presharedKey"] },
  "endpoints": { device: [], peer: ["endpoint", "pendingEndpoint"] },
  "allowed-ips": { device: [], peer: ["allowedIps"] },
  "latest-handshakes": { device: [], peer: ["latestHandshake"] },
  "transfer": { device: [], peer: ["transferRx", "transferTx"] },
  "persistent-keepalive": { device: [], peer: ["persistentKeepalive"] },
};

const CONFIG_SELECTION: Selection = {
  device: ["privateKey", "listenPort", "fwmark"],
  peer: ["presharedKey", "endpoint", "persistentKeepalive", "allowedIps"],
};

function pick(json: Json, keys: readonly string[] | undefined): Json {
  if (keys === undefined) return json;
  return Object.fromEntries(keys.map((key) => [key, json[key]]));
}

/** All of a device, or what is selected of it. */
function select(device: DeviceState, selection?: Selection): Json {
  const json = pick(jsonOfDevice(device), selection?.device);
  if (selection && !selection.peer) return json;
  const peers = device.peers.map((peer) =>
    [
      encodeKey(peer.publicKey),
      pick(jsonOfPeer(peer), selection?.peer),
    ] as const
  );
  return { ...json, peers: Object.fromEntries(peers) };
}

function render(
  devices: readonly DeviceState[],
  selection: Selection | undefined,
): string {
  const json = Object.fromEntries(
    devices.map((device) => [device.name, select(device, selection)]),
  );
  return JSON.stringify(json, null, "\t") + "\n";
}

/** Devices, or a field of them, as `wgd show --json` prints them. */
export function renderJson(
  devices: readonly DeviceState[],
  field?: string,
): string {
  return render(devices, field === undefined ? undefined : SELECTIONS[field]);
}

/** The configuration of a device, as `wgd showconf --json` prints it. */
export function renderConfigJson(device: DeviceState): string {
  return render([device], CONFIG_SELECTION);
}
