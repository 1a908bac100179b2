/**
 * What the completion scripts for bash and zsh share: quoting, and the arms of
 * their `case` statements, which both shells write alike. The statements look at
 * these variables, which the scripts set from the words before the cursor:
 * `command`; `place`, how many positional words there are; `before`, the last
 * word; `option`, an option that waits for its value. They call functions that
 * the scripts define: `_wgd_offer WORD...`, `_wgd_commands`, `_wgd_interfaces`,
 * `_wgd_configs`, `_wgd_peers`, `_wgd_files`.
 *
 * @module
 */
import { COMMANDS, COMMON_OPTIONS, GLOBAL_OPTIONS } from "./table.ts";
import type { Command, Option, Word, WordKind } from "./table_types.ts";

const FUNCTIONS: Readonly<Record<WordKind, string>> = {
  command: "_wgd_commands",
  config: "_wgd_configs",
  file: "_wgd_files",
  interface: "_wgd_interfaces",
  peer: "_wgd_peers",
};

/** A word that no shell of the two takes for anything else. */
export function shellQuote(text: string): string {
  return /^[\w./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

/** The options of a command; of wgd itself without one. */
export function optionsOf(command: Command | undefined): readonly Option[] {
  return command ? [...command.options, ...COMMON_OPTIONS] : GLOBAL_OPTIONS;
}

function offer(words: readonly string[]): string {
  return ["_wgd_offer", ...words.map(shellQuote)].join(" ");
}

function calls(
  kinds: readonly WordKind[] = [],
  choices: readonly string[] = [],
): string[] {
  return [
    ...kinds.map((kind) => FUNCTIONS[kind]),
    ...(choices.length > 0 ? [offer(choices)] : []),
  ];
}

function arm(pattern: string, body: readonly string[]): string[] {
  return [`${pattern})`, ...body.map((line) => `  ${line}`), "  ;;"];
}

/** A `case` statement. */
export function caseOf(subject: string, arms: readonly string[]): string[] {
  return [`case ${subject} in`, ...arms.map((line) => `  ${line}`), "esac"];
}

/** Each line moved to the right. */
export function indent(lines: readonly string[], by: number): string {
  return lines.map((line) => " ".repeat(by) + line).join("\n");
}

function valueOptions(): { command: Command; option: Option }[] {
  return COMMANDS.flatMap((command) =>
    command.options.filter((option) => option.value !== undefined)
      .map((option) => ({ command, option }))
  );
}

/** A pattern of `"$command $word"`: all options that have a value. */
export function valuePattern(): string {
  return valueOptions().map(({ command, option }) =>
    `"${command.name} --${option.name}"`
  ).join(" | ");
}

/** The commands that have a grammar of their own. */
export function verbatimNames(): string[] {
  return COMMANDS.filter(({ verbatim }) => verbatim).map(({ name }) => name);
}

/** Offers the values of `$option`. */
export function valueCase(): string[] {
  return caseOf(
    '"$command $option"',
    valueOptions().flatMap(({ command, option }) => {
      const kinds = option.kind === undefined ? [] : [option.kind];
      const body = calls(kinds, option.choices);
      return body.length === 0
        ? []
        : arm(`"${command.name} --${option.name}"`, body);
    }),
  );
}

/** Offers the options of `$command`. */
export function optionCase(): string[] {
  const commandsOf = new Map<string, string[]>();
  for (const command of [undefined, ...COMMANDS]) {
    const call = offer(optionsOf(command).map(({ name }) => `--${name}`));
    const name = command?.name ?? '""';
    commandsOf.set(call, [...commandsOf.get(call) ?? [], name]);
  }
  return caseOf(
    '"$command"',
    [...commandsOf].flatMap(([call, names]) => arm(names.join(" | "), [call])),
  );
}

function wordArms(command: Command, word: Word, place: number): string[] {
  const { kinds, choices, repeats = false } = word;
  const pattern = repeats
    ? `"${command.name} "*`
    : `"${command.name} ${place}"`;
  const body = calls(kinds, choices);
  if (!word.then) return body.length === 0 ? [] : arm(pattern, body);
  const { then } = word;
  const following = [...new Set(Object.values(then))].flatMap((kind) => {
    const names = Object.keys(then).filter((name) => then[name] === kind);
    return arm(names.join(" | "), kind === null ? [":"] : calls([kind]));
  });
  return arm(pattern, caseOf('"$before"', [...following, ...arm("*", body)]));
}

/** Offers positional words. */
export function wordCase(): string[] {
  return caseOf('"$command $place"', [
    ...arm('" 0"', ["_wgd_commands"]),
    ...COMMANDS.flatMap((command) =>
      (command.words ?? []).flatMap((word, i) => wordArms(command, word, i + 1))
    ),
  ]);
}
