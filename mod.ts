/**
 * wgd as a library: run a WireGuard interface inside a Deno program.
 *
 * ```ts
 * import { createLog, Device } from "./mod.ts";
 *
 * const log = createLog("error", "wg0");
 * const device = await Device.start({ name: "wg0", log });
 * console.log(await device.ended);
 * ```
 *
 * The interface is then configured on /var/run/wireguard/wg0.sock, by `wg`, by
 * `wgd`, or by `setDevice`.
 *
 * @module
 */
export type { ArenaLimits } from "./lib/arena.ts";
export type { ObjectCounts } from "./lib/parts.ts";
export { COUNTER_NAMES, type CounterName } from "./lib/counters.ts";
export type { AeadChoice } from "./lib/crypto/aead.ts";
export {
  type DatagramChoice,
  Device,
  type DeviceObjects,
  type DeviceOptions,
  type EndReason,
  type OffloadChoice,
} from "./lib/device.ts";
export type { TimestampFloor } from "./lib/tai64n.ts";
export type { Cidr, SocketAddress } from "./lib/ip.ts";
export { createLog, type Log, type LogLevel } from "./lib/log.ts";
export {
  getDevice,
  type GetOptions,
  getStats,
  listDevices,
  setDevice,
  type UapiClientOptions,
} from "./lib/uapi_client.ts";
export type { SocketSettings } from "./lib/uapi_device.ts";
export type { DeviceState, PeerState, PeerVisitor } from "./lib/uapi_state.ts";
export { VERSION } from "./lib/version.ts";
