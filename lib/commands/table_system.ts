/**
 * Rows of the command table: wgd as a part of the system, from installation to
 * the next version.
 *
 * @module
 */
import { INTERFACE_WORD } from "./table_types.ts";
import type { Command, Option } from "./table_types.ts";

const PLACE_OPTIONS: readonly Option[] = [
  {
    name: "prefix",
    value: "DIR",
    summary: "Where to, instead of /usr/local",
  },
  {
    name: "root",
    value: "DIR",
    summary: "Another system's root directory",
  },
];

/** Commands that put wgd into a system. */
export const SYSTEM_COMMANDS: readonly Command[] = [
  {
    name: "install",
    summary: "Install this executable, with its service",
    usage: "[OPTION]...",
    args: { min: 0, max: 0 },
    description: [
      "Copies this executable to /usr/local/bin and writes what the machine's " +
      "service manager needs: a unit of systemd, a service of OpenRC, or for " +
      "OpenWrt a service of procd and a protocol of netifd; and, where wgd has " +
      "them, the manual page and completions. It tells what it has done, and " +
      "notes it for wgd uninstall.",
      "A configuration file that was changed is kept.",
    ],
    examples: [
      "wgd install                       # for this machine",
      "wgd install --root /mnt/router --system openwrt",
    ],
    options: [
      {
        name: "system",
        value: "NAME",
        choices: ["systemd", "openrc", "openwrt", "none"],
        summary: "The service manager",
      },
      ...PLACE_OPTIONS,
    ],
    run: async (ctx) => (await import("./install.ts")).runCommand(ctx),
  },
  {
    name: "upgrade",
    summary: "Run an interface on in a daemon of this program",
    usage: "IF",
    args: { min: 1, max: 1 },
    words: [INTERFACE_WORD],
    description: [
      "Replaces the daemon of an interface by one of the wgd that is called, " +
      "as after a new version was installed. The interface, its addresses and " +
      "routes stay; keys, peers and endpoints go over; sessions are made anew " +
      "at once. Counters of peers begin at zero.",
    ],
    examples: ["wgd upgrade wg0"],
    options: [],
    run: async (ctx) => (await import("./upgrade.ts")).runCommand(ctx),
  },
  {
    name: "uninstall",
    summary: "Remove what install has written",
    usage: "[OPTION]...",
    args: { min: 0, max: 0 },
    description: [
      "Removes what wgd install has written and nobody has changed since. " +
      "Interfaces that run go on; wgd down ends them.",
    ],
    examples: ["wgd uninstall"],
    options: PLACE_OPTIONS,
    run: async (ctx) => (await import("./uninstall.ts")).runCommand(ctx),
  },
];
