/**
 * Help, made from the table of commands, for a terminal of 80 columns.
 *
 * @module
 */
import { FULL_VERSION, VERSION } from "../version.ts";
import { COMMANDS, COMMON_OPTIONS, GLOBAL_OPTIONS } from "./table.ts";
import type { Command, Option } from "./table.ts";

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

function columns(rows: readonly (readonly [string, string])[]): string {
  const width = Math.max(...rows.map(([left]) => left.length));
  return rows
    .map(([left, right]) => `${INDENT}${left.padEnd(width)}  ${right}`)
    .join("\n");
}

function optionRow(option: Option): readonly [string, string] {
  const short = option.short ? `-${option.short}, ` : "    ";
  const value = option.value ? ` ${option.value}` : "";
  const choices = option.choices
    ? ` (${option.choices.join(", ")})`
    : option.max
    ? ` (0 to ${option.max})`
    : "";
  return [`${short}--${option.name}${value}`, option.summary + choices];
}

function join(sections: readonly string[]): string {
  return sections.join("\n\n") + "\n";
}

/** The text of `wgd --version`. */
export function versionText(): string {
  return `wgd ${FULL_VERSION}\n`;
}

/** The text of `wgd --help`. */
export function generalHelp(): string {
  return join([
    `wgd ${VERSION}: WireGuard in user space`,
    "Usage: wgd COMMAND [ARGUMENT]...\n       wgd [-f] IF",
    "Commands:\n" + columns([
      ...COMMANDS.map(({ name, summary }) => [name, summary] as const),
      ["help", "Show help on a command: wgd help COMMAND"],
    ]),
    "Options:\n" + columns(GLOBAL_OPTIONS.map(optionRow)),
    "Exit status: 0 done, 1 failed, 2 wrong usage, 3 not permitted.",
  ]);
}

/** The text of `wgd help COMMAND`. */
export function commandHelp(command: Command): string {
  const options = [...command.options, ...COMMON_OPTIONS];
  return join([
    `wgd ${command.name}: ${command.summary}`,
    `Usage: wgd ${command.name} ${command.usage}`.trimEnd(),
    ...command.description.map((paragraph) => wrap(paragraph)),
    "Options:\n" + columns(options.map(optionRow)),
    "Examples:\n" +
    command.examples.map((example) => INDENT + example).join("\n"),
  ]);
}
