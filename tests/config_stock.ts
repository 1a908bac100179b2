/**
 * What the stock `wg setconf` and our parser make of the same configuration
 * file, as plain values to compare.
 */
import { ConfigErrors, parseConfig } from "../lib/config.ts";
import { encodeKey } from "../lib/crypto/bytes.ts";
import { formatCidr, formatEndpoint, formatSocketAddress } from "../lib/ip.ts";
import { servicePort } from "../lib/sys/getaddrinfo.ts";
import {
  FakeDevice,
  FakeServer,
  stockWg,
  uniqueName,
  WIREGUARD_DIRECTORY,
} from "./uapi_fake.ts";
import type { Config } from "../lib/config.ts";

/** The state of a device in memory. */
export function stateOfDevice(device: FakeDevice): unknown {
  return {
    privateKey: device.secret ? encodeKey(device.secret) : "",
    listenPort: device.port,
    fwmark: device.mark,
    peers: [...device.peersByHandle.values()].map((peer) => ({
      publicKey: encodeKey(peer.publicKey),
      presharedKey: encodeKey(peer.presharedKey),
      endpoint: peer.endpoint
        ? formatSocketAddress({ ...peer.endpoint, scope: "" })
        : "",
      allowedIps: peer.allowedIps.map(formatCidr),
      keepalive: peer.persistentKeepalive,
    })),
  };
}

/**
 * The state that setconf makes: sections of one peer add up, the last one has
 * the allowed IPs, and an allowed IP is the last peer's that is given it.
 */
export function stateOfConfig({ interface: device, peers }: Config): unknown {
  const byKey = new Map<
    string,
    Record<string, unknown> & { allowedIps: string[] }
  >();
  for (const peer of peers) {
    const publicKey = encodeKey(peer.publicKey);
    const before = byKey.get(publicKey) ?? {
      publicKey,
      presharedKey: encodeKey(new Uint8Array(32)),
      endpoint: "",
      keepalive: 0,
      allowedIps: [],
    };
    byKey.set(publicKey, {
      ...before,
      ...(peer.presharedKey && { presharedKey: encodeKey(peer.presharedKey) }),
      ...(peer.endpoint && { endpoint: formatEndpoint(peer.endpoint) }),
      ...(peer.persistentKeepalive !== undefined &&
        { keepalive: peer.persistentKeepalive }),
      allowedIps: [],
    });
    for (const text of peer.allowedIps.map(formatCidr)) {
      for (const other of byKey.values()) {
        other.allowedIps = other.allowedIps.filter((ip) => ip !== text);
      }
      byKey.get(publicKey)?.allowedIps.push(text);
    }
  }
  return {
    privateKey: device.privateKey ? encodeKey(device.privateKey) : "",
    listenPort: device.listenPort ?? 0,
    fwmark: device.fwmark ?? 0,
    peers: [...byKey.values()],
  };
}

/** Configures a fresh device with the stock wg; null if it refuses the file. */
export async function stockState(file: string): Promise<unknown> {
  const device = new FakeDevice();
  const name = uniqueName("wgdc");
  await using _server = FakeServer.of(
    `${WIREGUARD_DIRECTORY}/${name}.sock`,
    device,
  );
  const { code } = await stockWg(["setconf", name, file], {
    WG_ENDPOINT_RESOLUTION_RETRIES: "0",
  });
  return code === 0 ? stateOfDevice(device) : null;
}

/** What our parser makes of it for wg(8); null if it refuses it. */
export function ourState(text: string): unknown {
  try {
    return stateOfConfig(parseConfig(text, { format: "wg", servicePort }));
  } catch (error) {
    if (error instanceof ConfigErrors) return null;
    throw error;
  }
}
