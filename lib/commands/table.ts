/**
 * The one table of commands and options: parsing, help, the man page,
 * completions, suggestions and the README's list are made from it, and its
 * tests hold it together. Rows are in `table_quick.ts` (wg-quick), `table_wg.ts`
 * (wg) and here (wgd's own); `table_types.ts` says what a row is. Each
 * command's code is loaded when it runs, so that `wgd genkey` does not load a
 * tunnel.
 *
 * @module
 */
import { QUICK_COMMANDS } from "./table_quick.ts";
import { SYSTEM_COMMANDS } from "./table_system.ts";
import { DEVICE_OPTIONS, NETNS_OPTIONS } from "./table_types.ts";
import { WG_COMMANDS } from "./table_wg.ts";
import type { Command, CommandGroup } from "./table_types.ts";

export { COMMON_OPTIONS, GLOBAL_OPTIONS } from "./table_types.ts";
export type {
  Command,
  CommandGroup,
  Option,
  Variable,
  Word,
  WordKind,
} from "./table_types.ts";

/** The shells that completions are made for. */
export const SHELLS = ["bash", "zsh", "fish"] as const;

/** wgd's own commands, in the order in which help lists them. */
const OWN_COMMANDS: readonly Command[] = [
  {
    name: "run",
    summary: "Run an interface, to be configured with wg(8) or wgd",
    usage: "[OPTION]... IF",
    args: { min: 1, max: 1 },
    words: [{}], // a new name
    description: [
      "Creates the interface, goes into the background and listens on " +
      "/var/run/wireguard/IF.sock, as wireguard-go does. The word run can be " +
      "left out. The daemon ends on SIGINT or SIGTERM, when the interface is " +
      "deleted, and when its socket is.",
    ],
    environment: [
      {
        name: "LOG_LEVEL",
        summary: "verbose, error (default) or silent; if set, the daemon " +
          "writes to a pipe that is its stderr",
      },
      { name: "WG_TUN_FD", summary: "descriptor of an open TUN" },
      { name: "WG_UAPI_FD", summary: "descriptor of a listening socket" },
      {
        name: "WG_PROCESS_FOREGROUND",
        summary: "1: as --foreground",
      },
    ],
    examples: [
      "wgd run wg0                          # in the background",
      "LOG_LEVEL=verbose wgd run -f wg0     # in the foreground",
      "WG_QUICK_USERSPACE_IMPLEMENTATION=wgd wg-quick up wg0",
    ],
    options: [
      {
        name: "foreground",
        short: "f",
        summary: "Stay in the foreground",
      },
      ...DEVICE_OPTIONS,
      ...NETNS_OPTIONS,
    ],
    run: async (ctx) => (await import("./run.ts")).runCommand(ctx),
  },
  {
    name: "selftest",
    summary: "Test wgd's own parts on this machine",
    usage: "",
    args: { min: 0, max: 0 },
    description: [
      "Runs the self-tests that the kernel's driver runs when it is loaded: " +
      "allowed IPs, replay window, rate limiter; and those of the queues and " +
      "the cryptography.",
    ],
    examples: ["wgd selftest"],
    options: [],
    run: async (ctx) => (await import("./selftest.ts")).runCommand(ctx),
  },
  {
    name: "help",
    summary: "Show help on a command",
    usage: "[COMMAND]",
    args: { min: 0, max: 1 },
    words: [{ kinds: ["command"] }],
    description: [
      "Shows what a command does, its options and examples; without COMMAND, " +
      "the list of commands.",
    ],
    examples: ["wgd help up"],
    options: [],
    run: async (ctx) => (await import("./help.ts")).runCommand(ctx),
  },
  {
    name: "man",
    summary: "Print the manual page",
    usage: "",
    args: { min: 0, max: 0 },
    description: [
      "Prints the manual page wgd(8) as roff, to be shown by man or installed.",
    ],
    examples: [
      "wgd man | man -l -",
      "wgd man > /usr/local/share/man/man8/wgd.8",
    ],
    options: [],
    run: async (ctx) => (await import("./man.ts")).runCommand(ctx),
  },
  {
    name: "completions",
    summary: "Print a completion script for a shell",
    usage: SHELLS.join(" | "),
    args: { min: 1, max: 1 },
    words: [{ choices: SHELLS }],
    description: [
      "Prints a script that completes commands, options, interfaces, peers " +
      "and files of wgd in that shell.",
    ],
    examples: [
      "source <(wgd completions bash)",
      "wgd completions zsh > /usr/local/share/zsh/site-functions/_wgd",
      "wgd completions fish > ~/.config/fish/completions/wgd.fish",
    ],
    options: [],
    run: async (ctx) => (await import("./completions.ts")).runCommand(ctx),
  },
  {
    name: "version",
    summary: "Show the version",
    usage: "",
    args: { min: 0, max: 0 },
    description: ["Shows the version, as --version does."],
    examples: ["wgd version"],
    options: [],
    run: async (ctx) => (await import("./version.ts")).runCommand(ctx),
  },
];

/** All commands, in the order in which help lists them. */
export const COMMAND_GROUPS: readonly CommandGroup[] = [
  {
    title: "Interfaces from files, as with wg-quick",
    commands: QUICK_COMMANDS,
  },
  { title: "Devices and keys, as with wg", commands: WG_COMMANDS },
  { title: "wgd itself", commands: OWN_COMMANDS },
  { title: "wgd as a part of the system", commands: SYSTEM_COMMANDS },
];

/** The commands of all groups. */
export const COMMANDS: readonly Command[] = COMMAND_GROUPS.flatMap(
  ({ commands }) => commands,
);

/** The command of this name. */
export function findCommand(name: string): Command | undefined {
  return COMMANDS.find((command) => command.name === name);
}
