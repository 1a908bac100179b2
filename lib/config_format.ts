/**
 * Prints a configuration in the layout of `wg-quick save` and `wg showconf`: of
 * a configuration without keys of wg-quick, the bytes of `wg showconf`. What it
 * prints parses to an equal configuration; comments and the form of values are
 * not part of one and are lost. Pure.
 *
 * @module
 */
import { encodeKey } from "./crypto/bytes.ts";
import { formatCidr, formatEndpoint } from "./ip.ts";
import type { Config, InterfaceConfig, PeerConfig } from "./config.ts";

function interfaceLines(config: InterfaceConfig): string[] {
  const lines = ["[Interface]"];
  for (const address of config.addresses) {
    lines.push(`Address = ${formatCidr(address)}`);
  }
  for (const dns of config.dns) lines.push(`DNS = ${dns}`);
  if (config.mtu !== undefined) lines.push(`MTU = ${config.mtu}`);
  if (config.table !== undefined) lines.push(`Table = ${config.table}`);
  if (config.saveConfig !== undefined) {
    lines.push(`SaveConfig = ${config.saveConfig}`);
  }
  for (const hook of config.preUp) lines.push(`PreUp = ${hook}`);
  for (const hook of config.postUp) lines.push(`PostUp = ${hook}`);
  for (const hook of config.preDown) lines.push(`PreDown = ${hook}`);
  for (const hook of config.postDown) lines.push(`PostDown = ${hook}`);
  if (config.listenPort !== undefined) {
    lines.push(`ListenPort = ${config.listenPort}`);
  }
  if (config.fwmark !== undefined) {
    const mark = config.fwmark ? `0x${config.fwmark.toString(16)}` : "off";
    lines.push(`FwMark = ${mark}`);
  }
  if (config.privateKey) {
    lines.push(`PrivateKey = ${encodeKey(config.privateKey)}`);
  }
  return lines;
}

function peerLines(peer: PeerConfig): string[] {
  const lines = ["[Peer]", `PublicKey = ${encodeKey(peer.publicKey)}`];
  if (peer.presharedKey) {
    lines.push(`PresharedKey = ${encodeKey(peer.presharedKey)}`);
  }
  if (peer.allowedIps.length > 0) {
    lines.push(`AllowedIPs = ${peer.allowedIps.map(formatCidr).join(", ")}`);
  }
  if (peer.endpoint) lines.push(`Endpoint = ${formatEndpoint(peer.endpoint)}`);
  if (peer.persistentKeepalive !== undefined) {
    lines.push(`PersistentKeepalive = ${peer.persistentKeepalive || "off"}`);
  }
  return lines;
}

/** Prints a configuration file. */
export function formatConfig(config: Config): string {
  const section = (lines: string[]): string => lines.join("\n") + "\n";
  return section(interfaceLines(config.interface)) + "\n" +
    config.peers.map((peer) => section(peerLines(peer))).join("\n");
}
