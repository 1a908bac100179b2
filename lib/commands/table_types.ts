/**
 * What a row of the command table says, and the parts that rows share. The
 * rows are in `table*.ts`; parsing, help, the man page, completions and the
 * README's list are made from them.
 *
 * @module
 */
import { LANES_MAX, QUEUES_MAX } from "../messages.ts";
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
  /** What completion offers for the value besides the choices. */
  readonly kind?: WordKind;
  readonly summary: string;
}

/**
 * What a shell can offer for a word: names of running interfaces, names of
 * configurations and files `*.conf`, any file, public keys of the interface
 * that was named before, names of commands.
 */
export type WordKind = "interface" | "config" | "file" | "peer" | "command";

/** A positional argument, for completion. */
export interface Word {
  /** What may stand there. */
  readonly kinds?: readonly WordKind[];
  /** Fixed words that may stand there. */
  readonly choices?: readonly string[];
  /**
   * What follows after some of `choices`; null: something that no shell can
   * guess. Only of use with `repeats`.
   */
  readonly then?: Readonly<Record<string, WordKind | null>>;
  /** Whether all further words are like this one. */
  readonly repeats?: boolean;
}

/** An environment variable that a command heeds. */
export interface Variable {
  readonly name: string;
  /** What it does, with its values; no full stop. */
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
  /** The positional arguments, in order; needed if there can be any. */
  readonly words?: readonly Word[];
  /**
   * Whether all from the first positional argument on belongs to the command's
   * own grammar: nothing there is taken for an option, but `--help`.
   */
  readonly verbatim?: boolean;
  /** Whether whatever goes wrong is status 1, wrong usage too, as with wg(8). */
  readonly wgStatus?: boolean;
  /** What it does, in paragraphs. */
  readonly description: readonly string[];
  readonly environment?: readonly Variable[];
  /** Command lines, with `#` and what they do. */
  readonly examples: readonly string[];
  readonly options: readonly Option[];
  /** Runs it; resolves to the exit status. */
  run(ctx: CommandContext): Promise<number>;
}

/** Commands that help lists together. */
export interface CommandGroup {
  /** What they have in common; no full stop. */
  readonly title: string;
  readonly commands: readonly Command[];
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

/** The option of commands that read. */
export const JSON_OPTION: Option = { name: "json", summary: "Print JSON" };

/** How a device is run; `run` and `up` have these in common. */
export const DEVICE_OPTIONS: readonly Option[] = [
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

/** Where a device is run. */
export const NETNS_OPTIONS: readonly Option[] = [
  {
    name: "netns",
    value: "NAME",
    summary: "Network namespace for the interface",
  },
  {
    name: "socket-netns",
    value: "NAME",
    summary: "Network namespace for the sockets",
  },
];

/** A word that names a running interface. */
export const INTERFACE_WORD: Word = { kinds: ["interface"] };

/** A word that names a configuration. */
export const CONFIG_WORD: Word = { kinds: ["config"] };

/** A word that names a file. */
export const FILE_WORD: Word = { kinds: ["file"] };
