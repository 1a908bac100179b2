/**
 * The completion script for fish: one `complete` for each word that can be
 * offered, with the condition under which it is.
 *
 * @module
 */
import { CONFIG_DIRECTORY } from "../config.ts";
import { VERSION } from "../version.ts";
import { optionsOf, verbatimNames } from "./completions_case.ts";
import { COMMANDS } from "./table.ts";
import type { Command, Option, Word, WordKind } from "./table_types.ts";

/** Each is a list for `complete -a`; files are an option of `complete`. */
const LISTS: Readonly<Record<WordKind, string | null>> = {
  command: "(__wgd_commands)",
  config: "(__wgd_configs)",
  file: null,
  interface: "(__wgd_interfaces)",
  peer: "(__wgd_peers)",
};

function quote(text: string): string {
  return /^[\w./-]+$/.test(text)
    ? text
    : `'${text.replace(/[\\']/g, (c) => `\\${c}`)}'`;
}

function complete(condition: string, ...rest: readonly string[]): string {
  return ["complete -c wgd -n", quote(condition), ...rest].join(" ");
}

/** What to offer where `condition` holds. */
function offers(
  condition: string,
  kinds: readonly WordKind[] = [],
  choices: readonly string[] = [],
): string[] {
  const lists = kinds.map((kind) => LISTS[kind]);
  return [
    ...lists.map((list) =>
      list === null
        ? complete(condition, "-F")
        : complete(condition, "-a", quote(list))
    ),
    ...(choices.length > 0
      ? [complete(condition, "-a", quote(choices.join(" ")))]
      : []),
  ];
}

function optionLine(option: Option, command?: Command): string {
  const { name, short, value, choices, kind, summary } = option;
  const condition = !command
    ? "__wgd_at '' 0"
    : command.verbatim
    ? `__wgd_at ${command.name} 1`
    : `__wgd_in ${command.name}`;
  const list = kind === undefined ? undefined : LISTS[kind];
  const takes = value === undefined
    ? []
    : list === null
    ? ["-r", "-F"]
    : ["-x", "-a", quote(choices?.join(" ") ?? list ?? "")];
  return complete(
    condition,
    ...(short ? ["-s", short] : []),
    "-l",
    name,
    ...takes,
    "-d",
    quote(summary),
  );
}

function wordLines(command: Command, word: Word, place: number): string[] {
  const { kinds, choices, repeats } = word;
  const at = `__wgd_at ${command.name} ${place}${repeats ? " more" : ""}`;
  if (!word.then) return offers(at, kinds, choices);
  const waiting = Object.keys(word.then);
  return [
    ...offers(
      `${at}; and not __wgd_after ${waiting.join(" ")}`,
      kinds,
      choices,
    ),
    ...Object.entries(word.then).flatMap(([name, kind]) =>
      kind === null ? [] : offers(`${at}; and __wgd_after ${name}`, [kind])
    ),
  ];
}

function commandLines(command: Command): string[] {
  return [
    "",
    ...optionsOf(command).map((option) => optionLine(option, command)),
    ...(command.words ?? []).flatMap((word, i) =>
      wordLines(command, word, i + 1)
    ),
  ];
}

/** The text of `wgd completions fish`. */
export function fishCompletions(): string {
  const commands = COMMANDS.map(({ name, summary }) =>
    `    echo ${name}\\t${quote(summary)}`
  );
  const withValue = COMMANDS.flatMap(({ name, options }) =>
    options.flatMap((option) =>
      option.value === undefined ? [] : [quote(`${name} --${option.name}`)]
    )
  );
  return `# Completion of wgd ${VERSION} for fish; made by: wgd completions fish

function __wgd_commands
${commands.join("\n")}
end

function __wgd_interfaces
    wgd show interfaces 2>/dev/null | string split -n ' '
end

# Public keys of the interface that was named first.
function __wgd_peers
    wgd show (__wgd_words)[2] peers 2>/dev/null
end

function __wgd_configs
    for file in ${CONFIG_DIRECTORY}/*.conf
        string replace -r '.*/(.*)\\.conf$' '$1' -- $file
    end
    set -l typed (commandline -ct)
    set -l files $typed*.conf $typed*/
    string join \\n -- $files
end

# The positional words before the cursor, the command first.
function __wgd_words
    set -l command ''
    set -l waits 0
    set -l plain 0
    for word in (commandline -opc)[2..-1]
        if test $waits = 1
            set waits 0
            continue
        end
        if test $plain = 0
            switch "$command $word"
                case '* --'
                    set plain 1
                    continue
                case ${withValue.join(" ")}
                    set waits 1
                    continue
                case '* -?*'
                    continue
            end
        end
        if test -z "$command"
            set command $word
        else if contains -- $command ${verbatimNames().join(" ")}
            set plain 1
        end
        echo $word
    end
end

# Whether this is the command.
function __wgd_in
    set -l words (__wgd_words)
    test "$words[1]" = $argv[1]
end

# Whether the cursor is at this place of the command, or, with "more", behind.
function __wgd_at
    set -l words (__wgd_words)
    test "$words[1]" = "$argv[1]"; or return 1
    test (count $words) = $argv[2]; and return 0
    test "$argv[3]" = more; and test (count $words) -gt $argv[2]
end

# Whether the word before the cursor is one of these.
function __wgd_after
    set -l words (__wgd_words)
    contains -- "$words[-1]" $argv
end

complete -c wgd -f
${complete("__wgd_at '' 0", "-a", quote("(__wgd_commands)"))}
${optionsOf(undefined).map((option) => optionLine(option)).join("\n")}
${COMMANDS.flatMap(commandLines).join("\n").trimStart()}
`;
}
