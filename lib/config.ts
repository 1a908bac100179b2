/**
 * Configuration files of wg(8) and wg-quick(8): the types, and the one parser
 * and one formatter that every command uses. wg-quick's format is wg's with
 * more keys in `[Interface]`. Comments, blank lines and the order of keys are not
 * part of a configuration: what is parsed and formatted again is without them,
 * as after `wg-quick save`. Pure: reading the file is the caller's.
 *
 * @module
 */
import { formatConfig } from "./config_format.ts";
import { parseConfig } from "./config_parse.ts";
import type { Cidr, Endpoint } from "./ip.ts";

export { ConfigError, ConfigErrors } from "./config_error.ts";
export type { ConfigErrorFields } from "./config_error.ts";
export type { ServicePort } from "./config_keys.ts";
export type { ParseConfigOptions } from "./config_parse.ts";
export { formatConfig, parseConfig };

/** A range of addresses that a peer may use: host bits are zero. */
export type AllowedIp = Cidr;

/** Section `[Interface]`. What the file does not say is undefined or empty. */
export interface InterfaceConfig {
  /** 32 bytes. */
  privateKey?: Uint8Array;
  /** 0: any port. */
  listenPort?: number;
  /** 0 is `off`. */
  fwmark?: number;
  /** Addresses of the interface; host bits are kept. */
  addresses: Cidr[];
  /** DNS servers and search domains, in the order of the file. */
  dns: string[];
  /** 68 to 65535. */
  mtu?: number;
  /** `off`, `auto`, or the number or name of a routing table. */
  table?: string;
  /** Shell commands, with `%i` for the name of the interface. */
  preUp: string[];
  /** As `preUp`. */
  postUp: string[];
  /** As `preUp`. */
  preDown: string[];
  /** As `preUp`. */
  postDown: string[];
  /** Whether `down` saves the state to the file. */
  saveConfig?: boolean;
}

/** A section `[Peer]`. */
export interface PeerConfig {
  /** 32 bytes. */
  publicKey: Uint8Array;
  /** 32 bytes. */
  presharedKey?: Uint8Array;
  /** Where the peer is reached at first. */
  endpoint?: Endpoint;
  /** In the order of the file. */
  allowedIps: AllowedIp[];
  /** Seconds; 0 is `off`. */
  persistentKeepalive?: number;
}

/** A whole file. */
export interface Config {
  /** All sections `[Interface]` together. */
  interface: InterfaceConfig;
  /** One a section `[Peer]`, in the order of the file. */
  peers: PeerConfig[];
}

/** What {@linkcode parseConfig} returns. */
export interface ParsedConfig extends Config {
  /** One line each, as errors are: `wg0.conf:7:14: …`. */
  warnings: string[];
}

/** Where configurations are found by the name of their interface. */
export const CONFIG_DIRECTORY = "/etc/wireguard";

/** Which keys are allowed: those of wg(8), or also those of wg-quick(8). */
export type ConfigFormat = "wg" | "wg-quick";

/** Whether wg-quick(8) would take this name for an interface. */
export function isInterfaceName(name: string): boolean {
  return /^[a-zA-Z0-9_=+.-]{1,15}$/.test(name) && !/^\.{1,2}$/.test(name);
}

/** The interface that a file `…/IF.conf` is for; null if it is not so named. */
export function interfaceNameOf(path: string): string | null {
  const match = /(?:^|\/)([^/]+)\.conf$/.exec(path);
  return match && isInterfaceName(match[1]) ? match[1] : null;
}

/**
 * The warning about a file that others may read, given the modes (`st_mode`)
 * of the file and of its directory; null if it is private.
 */
export function worldAccessibleWarning(
  path: string,
  fileMode: number,
  directoryMode: number,
): string | null {
  if ((fileMode & directoryMode & 0o007) === 0) return null;
  return `Warning: \`${path}' is world accessible`;
}
