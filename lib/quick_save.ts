/**
 * Files that are made of a wg-quick file: what `strip` prints and what `save`
 * writes. Pure.
 *
 * @module
 */
import { type Config, formatConfig, type PeerConfig } from "./config.ts";
import { ConfigError, ConfigErrors, quote } from "./config_error.ts";
import { toHex } from "./crypto/bytes.ts";
import { type Cidr, type Endpoint, formatIp } from "./ip.ts";
import type { DeviceState, PeerState } from "./uapi_state.ts";

/** The keys that wg(8) does not know. */
const QUICK_KEYS = new Set([
  ...["address", "mtu", "dns", "table", "saveconfig"],
  ...["preup", "postup", "predown", "postdown"],
]);

/**
 * A file without the lines of wg-quick, for wg(8): byte for byte what
 * `wg-quick strip` prints, comments and blank lines included. wg-quick drops
 * blanks around lines, and ends with an empty one. Of the values it looks at
 * SaveConfig alone.
 *
 * @param file the file's name, for errors
 * @throws ConfigErrors
 */
export function stripConfig(text: string, file: string): string {
  let inInterface = false;
  let out = "";
  const errors: ConfigError[] = [];
  const lines = text.split("\n");
  if (lines.at(-1) === "") lines.pop();
  for (const [i, line] of lines.entries()) {
    const setting = line.replace(/#.*/, "");
    const [key] = setting.split("=");
    const name = key.trim().toLowerCase();
    if (name.startsWith("[")) inInterface = name === "[interface]";
    if (!inInterface || !QUICK_KEYS.has(name)) {
      out += `${line.replace(/^[ \t]+|[ \t]+$/g, "")}\n`;
    } else if (name === "saveconfig") {
      const value = setting.slice(setting.indexOf("=") + 1).trim();
      if (/^(true|false)$/i.test(value)) continue;
      errors.push(
        new ConfigError({
          file,
          line: i + 1,
          column: setting.indexOf(value, key.length) + 1,
          key: "SaveConfig",
          problem: `${quote(value)} is neither true nor false`,
          text: value,
          expected: "true or false",
        }),
      );
    }
  }
  if (errors.length > 0) throw new ConfigErrors(errors);
  return `${out}\n`;
}

/** What `save` finds. */
export interface LiveState {
  readonly device: DeviceState;
  /** The addresses of the interface. */
  readonly addresses: readonly Cidr[];
  /** The MTU of the interface. */
  readonly mtu?: number;
}

/**
 * The configuration that `save` writes: of the file what only the file knows,
 * the rest from the running interface. Where wg-quick would lose something, it
 * is kept: name servers without a resolvconf to list them, and the names of
 * endpoints that have no address yet. The link's own IPv6 address is the
 * kernel's and left out.
 */
export function savedConfig(config: Config, live: LiveState): string {
  const { interface: file } = config;
  const { device } = live;
  const names = new Map(
    config.peers.map((peer) => [toHex(peer.publicKey), peer.endpoint]),
  );
  const own = new Set(file.addresses.map(({ address }) => formatIp(address)));
  const saved: Config = {
    interface: {
      addresses: live.addresses.filter(({ address }) =>
        !isLinkLocal(address) || own.has(formatIp(address))
      ),
      dns: file.dns,
      ...file.mtu !== undefined && { mtu: live.mtu ?? file.mtu },
      ...file.table !== undefined && { table: file.table },
      ...file.saveConfig && { saveConfig: true },
      preUp: file.preUp,
      postUp: file.postUp,
      preDown: file.preDown,
      postDown: file.postDown,
      ...device.listenPort && { listenPort: device.listenPort },
      ...device.fwmark && { fwmark: device.fwmark },
      ...device.privateKey && { privateKey: device.privateKey },
    },
    peers: device.peers.map((peer) =>
      peerConfig(peer, names.get(toHex(peer.publicKey)))
    ),
  };
  return `${formatConfig(saved).trimEnd()}\n`;
}

function peerConfig(peer: PeerState, named: Endpoint | undefined): PeerConfig {
  const { endpoint, presharedKey, persistentKeepalive } = peer;
  const numeric = endpoint && {
    host: formatIp(endpoint.address) + (endpoint.scope && `%${endpoint.scope}`),
    port: endpoint.port,
  };
  return {
    publicKey: peer.publicKey,
    allowedIps: peer.allowedIps,
    ...presharedKey && { presharedKey },
    ...(numeric ?? named) && { endpoint: numeric ?? named },
    ...persistentKeepalive && { persistentKeepalive },
  };
}

/** Whether an address is of fe80::/10. */
export function isLinkLocal(address: Uint8Array): boolean {
  return address.length === 16 && address[0] === 0xfe &&
    (address[1] & 0xc0) === 0x80;
}
