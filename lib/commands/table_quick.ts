/**
 * The rows of the command table that are commands of wg-quick(8).
 *
 * @module
 */
import { CONFIG_WORD, DEVICE_OPTIONS, NETNS_OPTIONS } from "./table_types.ts";
import type { Command, Option } from "./table_types.ts";

const FILE_MEANING =
  "FILE is named after the interface, as in ./wg0.conf; IF " +
  "alone means /etc/wireguard/IF.conf.";

const DRY_RUN: Option = {
  name: "dry-run",
  summary: "Print the commands, and run none of them",
};

/** Commands of wg-quick(8), in the order in which help lists them. */
export const QUICK_COMMANDS: readonly Command[] = [
  {
    name: "up",
    summary: "Set up an interface from a configuration file",
    usage: "[OPTION]... FILE | IF",
    args: { min: 1, max: 1 },
    words: [CONFIG_WORD],
    description: [
      "Creates the interface, configures it and brings it up, as wg-quick " +
      "does: addresses, MTU, routes, name servers, and hooks. " + FILE_MEANING,
      "A file with an error in it is refused whole, before anything is done. " +
      "When a command or a hook fails, or a signal arrives, all that was done " +
      "is undone, but for what hooks did.",
      "The endpoint of a peer whose name has no address yet is looked up in " +
      "the background until it has one; wgd show tells of it.",
      "With --netns the interface and all that is set for it are in that " +
      "network namespace, hooks are run in there, and the sockets are here; " +
      "with --socket-netns the sockets are there. Names are looked up here.",
    ],
    examples: [
      "wgd up wg0            # from /etc/wireguard/wg0.conf",
      "wgd up ./office.conf  # an interface called office",
      "wgd up --dry-run wg0  # what would be run",
      "wgd up --netns inside wg0",
    ],
    options: [DRY_RUN, ...DEVICE_OPTIONS, ...NETNS_OPTIONS],
    run: async (ctx) => (await import("./up.ts")).runCommand(ctx),
  },
  {
    name: "down",
    summary: "Take down an interface that up has set up",
    usage: "FILE | IF",
    args: { min: 1, max: 1 },
    words: [CONFIG_WORD],
    description: [
      "Removes the interface, ends its daemon, and undoes what up has done: " +
      "rules, name servers, packet filter, sysctl. With SaveConfig = true in " +
      "the file, saves it first. Also takes down what a killed up has left.",
    ],
    examples: ["wgd down wg0"],
    options: [],
    run: async (ctx) => (await import("./down.ts")).runCommand(ctx),
  },
  {
    name: "reload",
    summary: "Apply a changed configuration file to a running interface",
    usage: "[--dry-run] FILE | IF",
    args: { min: 1, max: 1 },
    words: [CONFIG_WORD],
    description: [
      "Changes what differs between the file and the interface that up has " +
      "set up: peers, addresses, MTU, routes, rules and name servers. Peers " +
      "that stay keep their sessions, and their traffic goes on.",
      "Of hooks, lines of PreDown and PostDown that are gone from the file are " +
      "run, and lines of PreUp and PostUp that are new; what stays is not run " +
      "again. A key or port that the file does not name stays as it is.",
    ],
    examples: ["wgd reload wg0"],
    options: [DRY_RUN],
    run: async (ctx) => (await import("./reload.ts")).runCommand(ctx),
  },
  {
    name: "save",
    summary: "Save the state of a running interface to its file",
    usage: "FILE | IF",
    args: { min: 1, max: 1 },
    words: [CONFIG_WORD],
    description: [
      "Writes the file anew from the running interface, as wg-quick save " +
      "does. Comments are lost. " + FILE_MEANING,
    ],
    examples: ["wgd save wg0"],
    options: [],
    run: async (ctx) => (await import("./save.ts")).runCommand(ctx),
  },
  {
    name: "strip",
    summary: "Print a configuration file without the keys of wg-quick",
    usage: "FILE | IF",
    args: { min: 1, max: 1 },
    words: [CONFIG_WORD],
    description: [
      "Prints the part of a file that wgd setconf and syncconf take. " +
      FILE_MEANING,
    ],
    examples: ["wgd syncconf wg0 <(wgd strip wg0)"],
    options: [],
    run: async (ctx) => (await import("./strip.ts")).runCommand(ctx),
  },
];
