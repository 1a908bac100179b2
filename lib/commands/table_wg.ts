/**
 * The rows of the command table that are commands of wg(8).
 *
 * @module
 */
import { FILE_WORD, INTERFACE_WORD, JSON_OPTION } from "./table_types.ts";
import type { Command, Variable } from "./table_types.ts";

const RETRIES_VARIABLE: Variable = {
  name: "WG_ENDPOINT_RESOLUTION_RETRIES",
  summary: "how often a name is tried again: a number (15), or infinity",
};

/** Commands of wg(8), in the order in which help lists them. */
export const WG_COMMANDS: readonly Command[] = [
  {
    name: "show",
    wgStatus: true,
    summary: "Show interfaces and peers",
    usage: "[--json] [--stats] [IF | all | interfaces] [FIELD]",
    args: { min: 0, max: 2 },
    words: [
      { kinds: ["interface"], choices: ["all", "interfaces"] },
      {
        choices: [
          "public-key",
          "private-key",
          "listen-port",
          "fwmark",
          "peers",
          "preshared-keys",
          "endpoints",
          "allowed-ips",
          "latest-handshakes",
          "transfer",
          "persistent-keepalive",
          "dump",
        ],
      },
    ],
    description: [
      "Shows the configuration and state of one interface or all, as wg show " +
      "does, whatever userspace daemon runs them.",
      "FIELD: public-key, private-key, listen-port, fwmark, peers, " +
      "preshared-keys, endpoints, allowed-ips, latest-handshakes, transfer, " +
      "persistent-keepalive, dump. Fields and JSON contain secret keys.",
    ],
    environment: [
      {
        name: "WG_COLOR_MODE",
        summary: "always, never or auto: colours only on a terminal",
      },
      { name: "NO_COLOR", summary: "if set: as WG_COLOR_MODE=never" },
      {
        name: "WG_HIDE_KEYS",
        summary: "never: show secret keys; always: hide them",
      },
    ],
    examples: [
      "wgd show",
      "wgd show wg0 latest-handshakes",
      "wgd show all --json",
      "wgd show wg0 endpoints --json",
    ],
    options: [JSON_OPTION, {
      name: "stats",
      summary: "Show live objects, and what was dropped and why",
    }],
    run: async (ctx) => (await import("./show.ts")).runCommand(ctx),
  },
  {
    name: "showconf",
    wgStatus: true,
    summary: "Print an interface's configuration as a file",
    usage: "[--json] IF",
    args: { min: 1, max: 1 },
    words: [INTERFACE_WORD],
    description: [
      "Prints what setconf and syncconf read: keys, port, mark, and the peers " +
      "with their endpoints of now. It contains secret keys.",
    ],
    examples: ["(umask 077 && wgd showconf wg0 > wg0.conf)"],
    options: [JSON_OPTION],
    run: async (ctx) => (await import("./showconf.ts")).runCommand(ctx),
  },
  {
    name: "set",
    wgStatus: true,
    verbatim: true,
    summary: "Change settings of an interface and its peers",
    usage: "IF [SETTING VALUE]... [peer KEY [remove] [SETTING VALUE]...]...",
    args: { min: 2, max: Infinity },
    words: [INTERFACE_WORD, {
      choices: [
        "listen-port",
        "fwmark",
        "private-key",
        "peer",
        "remove",
        "preshared-key",
        "endpoint",
        "persistent-keepalive",
        "allowed-ips",
      ],
      then: {
        "listen-port": null,
        "fwmark": null,
        "private-key": "file",
        "peer": "peer",
        "preshared-key": "file",
        "endpoint": null,
        "persistent-keepalive": null,
        "allowed-ips": null,
      },
      repeats: true,
    }],
    description: [
      "Settings of the interface: listen-port PORT (0: any), fwmark MARK " +
      "(decimal, 0x and hexadecimal, or off), private-key FILE.",
      "Settings of a peer: preshared-key FILE, endpoint HOST:PORT, " +
      "persistent-keepalive SECONDS (or off), allowed-ips IP/LENGTH,... An " +
      "unknown peer is added; remove removes it.",
      "Keys come from files, or from standard input as /dev/stdin; an empty " +
      "file or /dev/null removes the key. allowed-ips replaces those that the " +
      "peer has, unless + or - stands before one of them: then each is added, " +
      "or the one with - removed.",
    ],
    environment: [RETRIES_VARIABLE],
    examples: [
      "wgd set wg0 listen-port 51820 private-key ./private.key",
      "wgd set wg0 peer KEY endpoint vpn.example.com:51820 allowed-ips ::/0",
      "wgd set wg0 peer KEY allowed-ips +10.0.1.0/24,-10.0.2.0/24",
      "wgd set wg0 peer KEY remove",
    ],
    options: [],
    run: async (ctx) => (await import("./set.ts")).runCommand(ctx),
  },
  {
    name: "setconf",
    wgStatus: true,
    summary: "Make an interface what a file says",
    usage: "IF FILE",
    args: { min: 2, max: 2 },
    words: [INTERFACE_WORD, FILE_WORD],
    description: [
      "Replaces the whole configuration, and removes what the file does not " +
      "have: keys, mark, peers. Sessions start anew. FILE has wg's keys only; " +
      "wgd strip takes out those of wg-quick.",
    ],
    environment: [RETRIES_VARIABLE],
    examples: ["wgd setconf wg0 wg0.conf"],
    options: [],
    run: async (ctx) => (await import("./setconf.ts")).setconfCommand(ctx),
  },
  {
    name: "addconf",
    wgStatus: true,
    summary: "Add what a file says to an interface",
    usage: "IF FILE",
    args: { min: 2, max: 2 },
    words: [INTERFACE_WORD, FILE_WORD],
    description: [
      "Sets what the file has and leaves the rest as it is; peers of the file " +
      "get its allowed IPs in place of their own.",
    ],
    environment: [RETRIES_VARIABLE],
    examples: ["wgd addconf wg0 more-peers.conf"],
    options: [],
    run: async (ctx) => (await import("./setconf.ts")).addconfCommand(ctx),
  },
  {
    name: "syncconf",
    wgStatus: true,
    summary: "Change what differs between an interface and a file",
    usage: "IF FILE",
    args: { min: 2, max: 2 },
    words: [INTERFACE_WORD, FILE_WORD],
    description: [
      "Ends as setconf does, but changes only what differs: peers that are in " +
      "both keep their sessions. A file without ListenPort leaves the port as " +
      "it is.",
    ],
    environment: [RETRIES_VARIABLE],
    examples: [
      "wgd syncconf wg0 wg0.conf",
      "wgd strip wg0 | wgd syncconf wg0 /dev/stdin",
    ],
    options: [],
    run: async (ctx) => (await import("./setconf.ts")).syncconfCommand(ctx),
  },
  {
    name: "genkey",
    wgStatus: true,
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
    wgStatus: true,
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
    wgStatus: true,
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
];
