/**
 * From the command line to a command of the table, and from its outcome to an
 * exit status: expected errors become one line on stderr, bugs a trace.
 *
 * @module
 */
import { isInterfaceName } from "../config.ts";
import { ConfigErrors } from "../config_error.ts";
import { parseArguments, parseOptions } from "./arguments.ts";
import { processIo } from "./context.ts";
import { CliError, EXIT, OutputClosedError } from "./errors.ts";
import { commandHelp, generalHelp, versionText } from "./help.ts";
import { findCommand, GLOBAL_OPTIONS } from "./table.ts";
import { isTypo, unknownCommand } from "./usage.ts";
import type { CommandIo } from "./context.ts";
import type { Command } from "./table.ts";

const EPERM = 1;
const EACCES = 13;

async function runCommand(
  command: Command,
  args: readonly string[],
  io: CommandIo,
): Promise<number> {
  try {
    const { values, rest } = parseArguments(command, args);
    if (values.help) {
      io.out(commandHelp(command));
      return EXIT.OK;
    }
    return await command.run({ ...io, args: rest, options: values });
  } catch (error) {
    const known = command.wgStatus ? expected(error) : null;
    if (known === null) throw error;
    throw new CliError(known.message, EXIT.FAILED, { cause: error });
  }
}

/** `wgd --help [COMMAND]` */
function showHelp(name: string | undefined, io: CommandIo): number {
  const command = name === undefined ? undefined : findCommand(name);
  if (name !== undefined && !command) throw unknownCommand(name);
  io.out(command ? commandHelp(command) : generalHelp());
  return EXIT.OK;
}

async function dispatch(
  args: readonly string[],
  io: CommandIo,
): Promise<number> {
  const { values, rest } = parseOptions(args, GLOBAL_OPTIONS, {
    stopEarly: true,
  });
  if (values.help) return showHelp(rest[0], io);
  if (values.version) {
    io.out(versionText());
    return EXIT.OK;
  }
  const [name, ...others] = rest;
  if (name === undefined) {
    io.err(generalHelp().trimEnd());
    return EXIT.USAGE;
  }
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
  // By their names: not every command need load what throws them.
  const isSystem = error instanceof Error &&
    (["SysError", "UapiError"].includes(error.name) || isFileError(error));
  if (!isSystem) return null;
  const errno: unknown = "errno" in error ? error.errno : undefined;
  const isDenied = errno === EPERM || errno === EACCES;
  return {
    message: error.message,
    code: isDenied ? EXIT.NOT_PERMITTED : EXIT.FAILED,
  };
}

/** Whether the system refused Deno something with a file: ENOTDIR, EISDIR, EIO. */
function isFileError(error: unknown): error is Error {
  return error instanceof Error && "code" in error &&
    typeof error.code === "string" && /^E[A-Z]+$/.test(error.code);
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
