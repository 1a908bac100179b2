/**
 * The one table of commands and options: parsing, help and suggestions are made
 * from it, and its tests hold it together. Each command's code is loaded when
 * it runs, so that `wgd genkey` does not load a tunnel.
 *
 * @module
 */
import { LANES_MAX } from "../arena.ts";
import { QUEUES_MAX } from "../tun.ts";
import { SYSTEM_COMMANDS } from "./table_system.ts";
import type { CommandContext } from "./context.ts";

/** An option of a command: `--name`, with a value if `value` says so. */
export interface Option {
  /** Long name, without dashes. */
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /** What the value is called in help; absent for a flag. */
  readonly value?: string;
  /** The values that are allowed; absent if all are. */
  readonly choices?: readonly string[];
  /** The greatest number that is allowed, from 0 on; absent if it is no number. */
  readonly max?: number;
  readonly summary: string;
}

/** A command of wgd. */
export interface Command {
  readonly name: string;
  /** One line, without a full stop. */
  readonly summary: string;
  /** Arguments and options, as help shows them after the name. */
  readonly usage: string;
  /** Least and greatest number of positional arguments. */
  readonly args: { readonly min: number; readonly max: number };
  /** What it does, in paragraphs. */
  readonly description: readonly string[];
  /** Command lines, with `#` and what they do. */
  readonly examples: readonly string[];
  readonly options: readonly Option[];
  /** Runs it; resolves to the exit status. */
  run(ctx: CommandContext): Promise<number>;
}

/** The options that every command has. */
export const COMMON_OPTIONS: readonly Option[] = [
  { name: "help", short: "h", summary: "Show this help" },
];

/** The options that stand before a command. */
export const GLOBAL_OPTIONS: readonly Option[] = [
  ...COMMON_OPTIONS,
  { name: "version", short: "v", summary: "Show the version" },
  {
    name: "foreground",
    short: "f",
    summary: "With IF alone: as wgd run --foreground IF",
  },
];

/** How a device is run; `run` and `up` have these in common. */
const DEVICE_OPTIONS: readonly Option[] = [
  {
    name: "threads",
    value: "N",
    choices: ["0", "1", "2"],
    summary: "Worker threads for packets",
  },
  {
    name: "lanes",
    value: "N",
    max: LANES_MAX,
    summary: "Threads that help to seal and open packets",
  },
  {
    name: "queues",
    value: "N",
    max: QUEUES_MAX,
    summary: "Queues of the interface",
  },
  {
    name: "crypto",
    value: "PROVIDER",
    choices: ["auto", "wasm", "libcrypto", "noble"],
    summary: "What encrypts packets",
  },
  {
    name: "udp",
    value: "PATH",
    choices: ["batched", "plain"],
    summary: "How datagrams are sent and received",
  },
  {
    name: "offload",
    value: "WHICH",
    choices: ["auto", "tun", "udp", "none"],
    summary: "Which super-packets are used",
  },
  {
    name: "memory",
    value: "MB",
    max: 65_536,
    summary: "What the daemon may take",
  },
];

/** All commands, in the order in which help lists them. */
export const COMMANDS: readonly Command[] = [
  {
    name: "up",
    summary: "Set up an interface from a configuration file",
    usage: "[OPTION]... FILE | IF",
    args: { min: 1, max: 1 },
    description: [
      "Creates the interface, configures it and brings it up, as wg-quick " +
      "does. FILE is named after the interface, as in ./wg0.conf; IF alone " +
      "means /etc/wireguard/IF.conf.",
      "A file with an error in it is refused whole, before anything is done.",
    ],
    examples: [
      "wgd up wg0            # from /etc/wireguard/wg0.conf",
      "wgd up ./office.conf  # an interface called office",
    ],
    options: DEVICE_OPTIONS,
    run: async (ctx) => (await import("./up.ts")).runCommand(ctx),
  },
  {
    name: "down",
    summary: "Take down an interface that up has set up",
    usage: "FILE | IF",
    args: { min: 1, max: 1 },
    description: [
      "Removes the interface, with its addresses and routes, and ends its " +
      "daemon.",
    ],
    examples: ["wgd down wg0"],
    options: [],
    run: async (ctx) => (await import("./down.ts")).runCommand(ctx),
  },
  {
    name: "run",
    summary: "Run an interface, to be configured with wg(8) or wgd",
    usage: "[OPTION]... IF",
    args: { min: 1, max: 1 },
    description: [
      "Creates the interface, goes into the background and listens on " +
      "/var/run/wireguard/IF.sock, as wireguard-go does. The word run can be " +
      "left out. The daemon ends on SIGINT or SIGTERM, when the interface is " +
      "deleted, and when its socket is.",
      "Environment: LOG_LEVEL (verbose, error, silent), WG_TUN_FD, " +
      "WG_UAPI_FD, WG_PROCESS_FOREGROUND=1.",
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
    ],
    run: async (ctx) => (await import("./run.ts")).runCommand(ctx),
  },
  {
    name: "show",
    summary: "Show interfaces and peers",
    usage: "[--json] [IF | all | interfaces] [FIELD]",
    args: { min: 0, max: 2 },
    description: [
      "Shows the configuration and state of one interface or all, as wg show " +
      "does, whatever userspace daemon runs them.",
      "FIELD: public-key, private-key, listen-port, fwmark, peers, " +
      "preshared-keys, endpoints, allowed-ips, latest-handshakes, transfer, " +
      "persistent-keepalive, dump. Fields and JSON contain secret keys.",
      "Environment: WG_COLOR_MODE (always, never, auto), NO_COLOR, " +
      "WG_HIDE_KEYS (never, always).",
    ],
    examples: [
      "wgd show",
      "wgd show wg0 latest-handshakes",
      "wgd show all --json",
    ],
    options: [{ name: "json", summary: "Print JSON" }],
    run: async (ctx) => (await import("./show.ts")).runCommand(ctx),
  },
  {
    name: "genkey",
    summary: "Print a new private key",
    usage: "",
    args: { min: 0, max: 0 },
    description: ["Prints a new private key in base64."],
    examples: ["(umask 077 && wgd genkey > private.key)"],
    options: [],
    run: async (ctx) => (await import("./keys.ts")).genkeyCommand(ctx),
  },
  {
    name: "genpsk",
    summary: "Print a new preshared key",
    usage: "",
    args: { min: 0, max: 0 },
    description: ["Prints a new preshared key in base64."],
    examples: ["(umask 077 && wgd genpsk > preshared.key)"],
    options: [],
    run: async (ctx) => (await import("./keys.ts")).genpskCommand(ctx),
  },
  {
    name: "pubkey",
    summary: "Print the public key of a private key",
    usage: "< PRIVATE-KEY",
    args: { min: 0, max: 0 },
    description: [
      "Reads a private key from standard input and prints its public key.",
    ],
    examples: ["wgd pubkey < private.key > public.key"],
    options: [],
    run: async (ctx) => (await import("./keys.ts")).pubkeyCommand(ctx),
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
  ...SYSTEM_COMMANDS,
];

/** The command of this name. */
export function findCommand(name: string): Command | undefined {
  return COMMANDS.find((command) => command.name === name);
}
