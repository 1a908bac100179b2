/**
 * Arguments of the command line against the command table: options, their
 * values, and how many positional arguments there are. What is wrong is told
 * with what was expected and what was probably meant.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { nearest } from "../suggest.ts";
import { usageError, usageLine } from "./usage.ts";
import { COMMON_OPTIONS } from "./table_types.ts";
import type { OptionValues } from "./context.ts";
import type { Command, Option } from "./table_types.ts";

/** What {@linkcode parseOptions} and {@linkcode parseArguments} return. */
export interface ParsedArguments {
  readonly values: OptionValues;
  /** The positional arguments. */
  readonly rest: readonly string[];
}

/**
 * Parses arguments by a list of options; unknown options are errors.
 *
 * @param where.stopEarly all from the first positional argument on is `rest`
 */
export function parseOptions(
  args: readonly string[],
  options: readonly Option[],
  where: { command?: Command; stopEarly?: boolean },
): ParsedArguments {
  const { command, stopEarly = false } = where;
  const fail = (message: string): never => {
    throw usageError(
      command ? `${command.name}: ${message}` : message,
      command,
    );
  };
  const unknown = (arg: string, key?: string): boolean => {
    if (key === undefined) return true; // a positional argument
    const shown = key.length === 1 ? `-${key}` : `--${key}`;
    const guess = nearest(key, options.map((option) => option.name));
    return fail(
      `unknown option ${arg.startsWith("-") ? shown : arg}` +
        (guess ? `; did you mean --${guess}?` : ""),
    );
  };
  const withValue = options.filter((option) => option.value);
  const parsed = parseArgs([...args], {
    boolean: options.filter((option) => !option.value).map(({ name }) => name),
    string: [...withValue.map(({ name }) => name), "_"],
    alias: Object.fromEntries(
      options.flatMap(({ name, short }) => short ? [[name, short]] : []),
    ),
    stopEarly,
    unknown,
  });
  const rest = parsed._.map(String);
  const before = args.slice(0, args.length - rest.length);
  const values: Record<string, string | boolean | undefined> = {};
  for (const option of options) {
    const { name, value, choices } = option;
    const given: unknown = parsed[name];
    if (value === undefined) {
      if (before.some((arg) => arg.startsWith(`--${name}=`))) {
        fail(`--${name} takes no value`);
      }
      values[name] = given === true ? true : undefined;
    } else if (typeof given === "string") {
      if (given === "" || !isAllowed(option, given)) {
        const what = given === "" ? "no value" : JSON.stringify(given);
        const expected = expectedOf(option);
        const guess = choices && nearest(given, choices);
        fail(
          `--${name}: ${what}; expected ${expected}` +
            (guess ? `; did you mean ${guess}?` : ""),
        );
      }
      values[name] = given;
    }
  }
  return { values, rest };
}

/** Parses the arguments of a command and checks how many there are. */
export function parseArguments(
  command: Command,
  args: readonly string[],
): ParsedArguments {
  // No grammar of a command's own has a word like this.
  if (command.verbatim && args.includes("--help")) {
    return { values: { help: true }, rest: [] };
  }
  const { values, rest } = parseOptions(
    args,
    [...command.options, ...COMMON_OPTIONS],
    { command, stopEarly: command.verbatim },
  );
  if (values.help) return { values, rest };
  const { min, max } = command.args;
  if (rest.length < min || rest.length > max) {
    const problem = rest.length < min
      ? "an argument is missing"
      : `unexpected argument ${JSON.stringify(rest[max])}`;
    throw usageError(
      `${command.name}: ${problem}; usage: ${usageLine(command)}`,
      command,
    );
  }
  return { values, rest };
}

function isAllowed({ choices, max }: Option, given: string): boolean {
  if (max !== undefined) return /^\d{1,9}$/.test(given) && +given <= max;
  return choices === undefined || choices.includes(given);
}

function expectedOf({ choices, max, value }: Option): string | undefined {
  if (max !== undefined) return `a number from 0 to ${max}`;
  return choices ? `one of ${choices.join(", ")}` : value;
}

/** What an option's value may be, for help: ` (…)`, or nothing. */
export function valueHint({ choices, max }: Option): string {
  if (max !== undefined) return ` (0 to ${max})`;
  return choices ? ` (${choices.join(", ")})` : "";
}
