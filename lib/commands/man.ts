/**
 * `wgd man`: the manual page wgd(8), made from the table of commands and the
 * keys of configuration files, as roff for man(7) macros.
 *
 * @module
 */
import { valueHint } from "./arguments.ts";
import { CONFIG_DIRECTORY } from "../config.ts";
import { INTERFACE_KEYS, PEER_KEYS } from "../config_keys.ts";
import { VERSION } from "../version.ts";
import type { CommandContext } from "./context.ts";
import { EXIT } from "./errors.ts";
import { EXIT_STATUSES } from "./help.ts";
import { COMMAND_GROUPS, COMMANDS, GLOBAL_OPTIONS } from "./table.ts";
import { usageLine } from "./usage.ts";
import type { Command, Option, Variable } from "./table_types.ts";

/** Text as roff, so that it comes out as it is, in terminals and on paper. */
function escape(text: string): string {
  const special: Record<string, string> = {
    "\\": "\\e",
    "-": "\\-",
    "'": "\\(aq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
    '"': "\\(dq",
  };
  return text.replace(/[\\\-'`^~"]/g, (c) => special[c]).replace(/^\./, "\\&.");
}

function bold(text: string): string {
  return `\\fB${escape(text)}\\fR`;
}

/** A command line: the names bold, what is to be replaced in italics. */
function usage(command: Command): string {
  const rest = usageLine(command).slice(`wgd ${command.name}`.length);
  return bold(`wgd ${command.name}`) +
    escape(rest).replace(
      /[A-Z]{2,}(?:\\-[A-Z]+)*/g,
      (word) => `\\fI${word}\\fR`,
    );
}

function tagged(tag: string, text: string): string[] {
  return [".TP", tag, escape(text)];
}

function optionLines(
  option: Option,
): string[] {
  const { name, short, value, summary } = option;
  const names = [...(short ? [bold(`-${short}`)] : []), bold(`--${name}`)];
  return tagged(
    names.join(", ") + (value ? ` \\fI${escape(value)}\\fR` : ""),
    `${summary}${valueHint(option)}.`,
  );
}

function commandLines(command: Command): string[] {
  const { summary, description, options, examples } = command;
  return [
    `.SS ${escape(command.name)}`,
    usage(command),
    ".PP",
    escape(`${summary}.`),
    ...description.flatMap((paragraph) => [".PP", escape(paragraph)]),
    ...options.flatMap(optionLines),
    ".PP",
    examples.length > 1 ? "Examples:" : "Example:",
    ".PP",
    ".RS 4",
    ".EX",
    ...examples.map(escape),
    ".EE",
    ".RE",
  ];
}

function keyLines(
  keys: readonly { name: string; summary: string }[],
): string[] {
  return keys.flatMap(({ name, summary }) => tagged(bold(name), `${summary}.`));
}

/** Variables of all commands, each with the commands that heed it. */
function variableLines(): string[] {
  const commandsOf = new Map<string, { variable: Variable; names: string[] }>();
  for (const { name, environment = [] } of COMMANDS) {
    for (const variable of environment) {
      const known = commandsOf.get(variable.name);
      if (known) known.names.push(name);
      else commandsOf.set(variable.name, { variable, names: [name] });
    }
  }
  return [...commandsOf.values()].flatMap(({ variable, names }) =>
    tagged(
      bold(variable.name),
      `For ${names.join(", ")}: ${variable.summary}.`,
    )
  );
}

/** The text of `wgd man`. */
export function manualPage(): string {
  return [
    `.TH WGD 8 "" "wgd ${VERSION}" "System Administration"`,
    ".nh", // no hyphens in names of commands
    ".ad l",
    ".SH NAME",
    "wgd \\- WireGuard in user space",
    ".SH SYNOPSIS",
    `${bold("wgd")} \\fICOMMAND\\fR [\\fIARGUMENT\\fR]...`,
    ".br",
    `${bold("wgd")} [${bold("-f")}] \\fIIF\\fR`,
    ".SH DESCRIPTION",
    escape(
      "wgd runs WireGuard interfaces and is their wg(8) and wg-quick(8): the " +
        "commands of both work as theirs do, whatever userspace daemon runs " +
        "the interface.",
    ),
    ".SH OPTIONS",
    ...GLOBAL_OPTIONS.flatMap(optionLines),
    ".SH COMMANDS",
    escape("Each command has --help."),
    ...COMMAND_GROUPS.flatMap(({ commands }) => commands.flatMap(commandLines)),
    ".SH CONFIGURATION FILES",
    escape(
      "A file has sections, and in them lines Key = Value. What follows # is a " +
        "comment, but not in hooks. The case of letters does not matter in " +
        "keys. Several sections [Interface] are one.",
    ),
    `.SS ${escape("[Interface]")}`,
    ...keyLines(INTERFACE_KEYS.filter(({ quick }) => !quick)),
    `.SS ${escape("[Interface], files of wg-quick only")}`,
    ...keyLines(INTERFACE_KEYS.filter(({ quick }) => quick)),
    `.SS ${escape("[Peer]")}`,
    ...keyLines(PEER_KEYS),
    ".SH ENVIRONMENT",
    ...variableLines(),
    ".SH FILES",
    ...tagged(
      `\\fI${CONFIG_DIRECTORY}/IF.conf\\fR`,
      "The configuration of the interface IF.",
    ),
    ...tagged(
      "\\fI/var/run/wireguard/IF.sock\\fR",
      "The socket on which its daemon is configured.",
    ),
    ".SH EXIT STATUS",
    ...EXIT_STATUSES.flatMap(([status, meaning]) =>
      tagged(bold(String(status)), `${meaning}.`)
    ),
    ".SH SEE ALSO",
    `${bold("wg")}(8), ${bold("wg-quick")}(8), ${bold("ip")}(8)`,
  ].join("\n") + "\n";
}

/** Runs `wgd man`. */
export function runCommand(ctx: CommandContext): Promise<number> {
  ctx.out(manualPage());
  return Promise.resolve(EXIT.OK);
}
