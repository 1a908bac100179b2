/**
 * Devices in memory on a virtual network: everything of this directory.
 *
 * @module
 */
export * from "./device.ts";
export * from "./pair.ts";
