/**
 * Writes the list of commands into README.md from the table of commands:
 * `deno run -A tools/readme.ts`. A test fails where it was forgotten.
 *
 * @module
 */
import { usageLine } from "../lib/commands/usage.ts";
import { COMMAND_GROUPS } from "../lib/commands/table.ts";

const README = new URL("../README.md", import.meta.url);
const BEGIN = "<!-- commands: written by tools/readme.ts -->";
const END = "<!-- end of commands -->";

/** Rows of a Markdown table, in columns as `deno fmt` has them. */
function table(rows: readonly (readonly [string, string])[]): string {
  const width = (column: 0 | 1): number =>
    Math.max(...rows.map((row) => row[column].length));
  const widths = [width(0), width(1)] as const;
  const line = (row: readonly [string, string]): string =>
    `| ${row[0].padEnd(widths[0])} | ${row[1].padEnd(widths[1])} |`;
  const [head, ...body] = rows;
  const rule = `| ${"-".repeat(widths[0])} | ${"-".repeat(widths[1])} |`;
  return [line(head), rule, ...body.map(line)].join("\n");
}

/** The README's list of commands. */
export function commandList(): string {
  return table([
    ["command", "what it does"],
    ...COMMAND_GROUPS.flatMap(({ commands }) =>
      commands.map((command) => {
        // What comes after the first words is in `wgd help COMMAND`.
        const usage = usageLine(command).replaceAll("[OPTION]... ", "");
        return [
          `\`${usage.replaceAll("|", "\\|")}\``,
          command.summary,
        ] as const;
      })
    ),
  ]);
}

/** The README with the list of now between the markers. */
export function withCommandList(readme: string): string {
  const begin = readme.indexOf(BEGIN);
  const end = readme.indexOf(END);
  if (begin < 0 || end < begin) {
    throw new Error(`README.md: no ${BEGIN} and ${END}`);
  }
  return readme.slice(0, begin + BEGIN.length) + `\n\n${commandList()}\n\n` +
    readme.slice(end);
}

if (import.meta.main) {
  const readme = Deno.readTextFileSync(README);
  Deno.writeTextFileSync(README, withCommandList(readme));
}
