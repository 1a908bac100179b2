/**
 * From the command line to a command of the table, and from its outcome to an
 * exit status: expected errors become one line on stderr, bugs a trace.
 *
 * @module
 */
import { parseArgs } from "@std/cli/parse-args";
import { isInterfaceName } from "../config.ts";
import { ConfigErrors } from "../config_error.ts";
import { editDistance, nearest } from "../suggest.ts";
import { UapiError } from "../uapi_client.ts";
import { processIo } from "./context.ts";
import { CliError, EXIT, OutputClosedError } from "./errors.ts";
import { commandHelp, generalHelp, versionText } from "./help.ts";
import {
  COMMANDS,
  COMMON_OPTIONS,
  findCommand,
  GLOBAL_OPTIONS,
} from "./table.ts";
import type { CommandIo, OptionValues } from "./context.ts";
import type { Command, Option } from "./table.ts";

const EPERM = 1;
const EACCES = 13;
/** Shorter names are as likely interfaces as mistyped commands. */
const TYPO_LENGTH_MIN = 4;

function usageError(message: string, command?: Command): CliError {
  const help = command ? `wgd help ${command.name}` : "wgd --help";
  return new CliError(`${message} (see ${help})`, EXIT.USAGE);
}

/** Parses arguments by a list of options; unknown options are errors. */
function parseOptions(
  args: readonly string[],
  options: readonly Option[],
  where: { command?: Command; stopEarly?: boolean },
): { values: OptionValues; rest: string[] } {
  const prefix = where.command ? `${where.command.name}: ` : "";
  const unknown = (arg: string, key?: string): boolean => {
    if (key === undefined) return true; // a positional argument
    const shown = key.length === 1 ? `-${key}` : `--${key}`;
    const guess = nearest(key, options.map((option) => option.name));
    throw usageError(
      `${prefix}unknown option ${arg.startsWith("-") ? shown : arg}` +
        (guess ? `; did you mean --${guess}?` : ""),
      where.command,
    );
  };
  const withValue = options.filter((option) => option.value);
  const parsed = parseArgs([...args], {
    boolean: options.filter((option) => !option.value).map(({ name }) => name),
    string: [...withValue.map(({ name }) => name), "_"],
    alias: Object.fromEntries(
      options.flatMap(({ name, short }) => short ? [[name, short]] : []),
    ),
    stopEarly: where.stopEarly ?? false,
    unknown,
  });
  const values: Record<string, string | boolean | undefined> = {};
  for (const option of options) {
    const { name, value } = option;
    const given: unknown = parsed[name];
    if (!value) values[name] = given === true ? true : undefined;
    else if (typeof given === "string") {
      const expected = expectedOf(option);
      if (given === "" || !isAllowed(option, given)) {
        throw usageError(
          `${prefix}--${name}: ${
            given === "" ? "no value" : JSON.stringify(given)
          }; expected ${expected}`,
          where.command,
        );
      }
      values[name] = given;
    }
  }
  return { values, rest: parsed._.map(String) };
}

async function runCommand(
  command: Command,
  args: readonly string[],
  io: CommandIo,
): Promise<number> {
  const options = [...command.options, ...COMMON_OPTIONS];
  const { values, rest } = parseOptions(args, options, { command });
  if (values.help) {
    io.out(commandHelp(command));
    return EXIT.OK;
  }
  const { min, max } = command.args;
  if (rest.length < min || rest.length > max) {
    const problem = rest.length < min
      ? "an argument is missing"
      : `unexpected argument ${JSON.stringify(rest[max])}`;
    throw usageError(
      `${command.name}: ${problem}; usage: ` +
        `wgd ${command.name} ${command.usage}`.trimEnd(),
      command,
    );
  }
  return await command.run({ ...io, args: rest, options: values });
}

function showHelp(args: readonly string[], io: CommandIo): number {
  const [name] = args;
  if (name === undefined || name === "help") {
    io.out(generalHelp());
    return EXIT.OK;
  }
  const command = findCommand(name);
  if (!command) throw unknownCommand(name);
  io.out(commandHelp(command));
  return EXIT.OK;
}

function unknownCommand(name: string): CliError {
  const guess = nearest(name, [...COMMANDS.map((c) => c.name), "help"]);
  return usageError(
    `unknown command ${JSON.stringify(name)}` +
      (guess ? `; did you mean ${guess}?` : ""),
  );
}

/** Whether a bare word is rather a mistyped command than an interface. */
function isTypo(word: string): boolean {
  return /^[a-z]+$/.test(word) && word.length >= TYPO_LENGTH_MIN &&
    [...COMMANDS.map((c) => c.name), "help"].some((name) =>
      name.length >= TYPO_LENGTH_MIN && editDistance(word, name) === 1
    );
}

async function dispatch(
  args: readonly string[],
  io: CommandIo,
): Promise<number> {
  const { values, rest } = parseOptions(args, GLOBAL_OPTIONS, {
    stopEarly: true,
  });
  if (values.help) return showHelp(rest, io);
  if (values.version) {
    io.out(versionText());
    return EXIT.OK;
  }
  const [name, ...others] = rest;
  if (name === undefined) {
    io.err(generalHelp().trimEnd());
    return EXIT.USAGE;
  }
  if (name === "help") return showHelp(others, io);
  const foreground = values.foreground ? ["--foreground"] : [];
  const command = findCommand(name);
  if (command) return await runCommand(command, [...foreground, ...others], io);
  const hasMoreWords = others.some((word) => !word.startsWith("-"));
  const run = findCommand("run");
  if (!run || hasMoreWords || !isInterfaceName(name)) {
    throw unknownCommand(name);
  }
  if (isTypo(name)) {
    throw new CliError(
      `${unknownCommand(name).message}, or wgd run ${name} for an interface`,
      EXIT.USAGE,
    );
  }
  return await runCommand(run, [...foreground, name, ...others], io);
}

/** The message and exit status of an error; null for a bug of wgd. */
function expected(error: unknown): { message: string; code: number } | null {
  if (error instanceof CliError) {
    return { message: error.message, code: error.exitCode };
  }
  if (
    error instanceof Deno.errors.PermissionDenied ||
    error instanceof Deno.errors.NotCapable
  ) return { message: error.message, code: EXIT.NOT_PERMITTED };
  // A SysError of lib/sys, which `wgd genkey` need not load.
  const isSystem = error instanceof UapiError ||
    (error instanceof Error && error.name === "SysError");
  if (!isSystem) return null;
  const errno: unknown = "errno" in error ? error.errno : undefined;
  const isDenied = errno === EPERM || errno === EACCES;
  return {
    message: error.message,
    code: isDenied ? EXIT.NOT_PERMITTED : EXIT.FAILED,
  };
}

/** Runs wgd with these arguments; resolves to the exit status. */
export async function main(
  args: readonly string[],
  io: CommandIo = processIo(),
): Promise<number> {
  try {
    return await dispatch(args, io);
  } catch (error) {
    if (error instanceof OutputClosedError) return EXIT.OK;
    if (error instanceof ConfigErrors) {
      io.err(error.message); // begins with the file, as compilers' messages do
      return EXIT.FAILED;
    }
    const known = expected(error);
    if (known) {
      for (const line of known.message.split("\n")) io.err(`wgd: ${line}`);
      return known.code;
    }
    const trace = error instanceof Error ? error.stack : String(error);
    io.err(`wgd: this is a bug in wgd: ${trace}`);
    return EXIT.FAILED;
  }
}

function isAllowed({ choices, max }: Option, given: string): boolean {
  if (max !== undefined) return /^\d{1,9}$/.test(given) && +given <= max;
  return choices === undefined || choices.includes(given);
}

function expectedOf({ choices, max, value }: Option): string | undefined {
  if (max !== undefined) return `a number from 0 to ${max}`;
  return choices ? `one of ${choices.join(", ")}` : value;
}
