/**
 * `wgd help`: help, made from the table of commands, for a terminal of 80
 * columns.
 *
 * @module
 */
import { valueHint } from "./arguments.ts";
import { FULL_VERSION, VERSION } from "../version.ts";
import { EXIT } from "./errors.ts";
import { COMMAND_GROUPS, COMMANDS, findCommand } from "./table.ts";
import { COMMON_OPTIONS, GLOBAL_OPTIONS } from "./table_types.ts";
import { unknownCommand, usageLine } from "./usage.ts";
import type { CommandContext } from "./context.ts";
import type { Command, Option } from "./table_types.ts";

const WIDTH = 79;
const INDENT = "  ";

/** Breaks text into lines that fit. */
function wrap(text: string, indent = ""): string {
  const lines: string[] = [];
  let line = indent;
  for (const word of text.split(" ")) {
    const isFirst = line === indent;
    if (!isFirst && line.length + 1 + word.length > WIDTH) {
      lines.push(line);
      line = indent + word;
    } else line += isFirst ? word : ` ${word}`;
  }
  return [...lines, line].join("\n");
}

/** Rows of two columns; the right one is broken into lines that fit. */
function columns(
  rows: readonly (readonly [string, string])[],
  leftWidth = 0,
): string {
  const width = Math.max(leftWidth, ...rows.map(([left]) => left.length));
  const indent = " ".repeat(INDENT.length + width + 2);
  return rows
    .map(([left, right]) =>
      INDENT + left.padEnd(width + 2) +
      wrap(right, indent).slice(indent.length)
    )
    .join("\n");
}

function optionRow(option: Option): readonly [string, string] {
  const short = option.short ? `-${option.short}, ` : "    ";
  const value = option.value ? ` ${option.value}` : "";
  return [
    `${short}--${option.name}${value}`,
    option.summary + valueHint(option),
  ];
}

function join(sections: readonly string[]): string {
  return sections.join("\n\n") + "\n";
}

/** The text of `wgd --version`. */
export function versionText(): string {
  return `wgd ${FULL_VERSION}\n`;
}

/** What exit statuses mean. */
export const EXIT_STATUSES: readonly (readonly [number, string])[] = [
  [EXIT.OK, "done"],
  [EXIT.FAILED, "failed; of wg's commands: whatever went wrong, as with wg"],
  [EXIT.USAGE, "wrong usage"],
  [EXIT.NOT_PERMITTED, "not permitted"],
];

/** The text of `wgd --help`. */
export function generalHelp(): string {
  const width = Math.max(...COMMANDS.map(({ name }) => name.length));
  return join([
    `wgd ${VERSION}: WireGuard in user space`,
    "Usage: wgd COMMAND [ARGUMENT]...\n       wgd [-f] IF",
    ...COMMAND_GROUPS.map(({ title, commands }) =>
      `${title}:\n` + columns(
        commands.map(({ name, summary }) => [name, summary] as const),
        width,
      )
    ),
    "Options:\n" + columns(GLOBAL_OPTIONS.map(optionRow)),
    "wgd help COMMAND shows a command's options and examples.",
    "Exit status:\n" +
    columns(EXIT_STATUSES.map(([status, meaning]) => [`${status}`, meaning])),
  ]);
}

/** The text of `wgd help COMMAND`. */
export function commandHelp(command: Command): string {
  const options = [...command.options, ...COMMON_OPTIONS];
  const { environment = [] } = command;
  return join([
    `wgd ${command.name}: ${command.summary}`,
    `Usage: ${wrap(usageLine(command), " ".repeat(7)).trimStart()}`,
    ...command.description.map((paragraph) => wrap(paragraph)),
    "Options:\n" + columns(options.map(optionRow)),
    ...(environment.length > 0
      ? [
        "Environment:\n" +
        columns(environment.map(({ name, summary }) => [name, summary])),
      ]
      : []),
    "Examples:\n" +
    command.examples.map((example) => INDENT + example).join("\n"),
  ]);
}

/** Runs `wgd help`. */
export function runCommand(ctx: CommandContext): Promise<number> {
  const [name] = ctx.args;
  if (name === undefined) ctx.out(generalHelp());
  else {
    const command = findCommand(name);
    if (!command) throw unknownCommand(name);
    ctx.out(commandHelp(command));
  }
  return Promise.resolve(EXIT.OK);
}
