/**
 * Wrong usage: the errors about it, with what was probably meant.
 *
 * @module
 */
import { editDistance, nearest } from "../suggest.ts";
import { CliError, EXIT } from "./errors.ts";
import { COMMANDS } from "./table.ts";
import type { Command } from "./table_types.ts";

/** Shorter names are as likely interfaces as mistyped commands. */
const TYPO_LENGTH_MIN = 4;

/** The usage of a command in one line. */
export function usageLine({ name, usage }: Command): string {
  return `wgd ${name} ${usage}`.trimEnd();
}

/** An error that ends wgd with status 2 and says where help is. */
export function usageError(message: string, command?: Command): CliError {
  const help = command ? `wgd help ${command.name}` : "wgd --help";
  return new CliError(`${message} (see ${help})`, EXIT.USAGE);
}

/** The error about a command that does not exist. */
export function unknownCommand(name: string): CliError {
  const guess = nearest(name, COMMANDS.map((command) => command.name));
  return usageError(
    `unknown command ${JSON.stringify(name)}` +
      (guess ? `; did you mean ${guess}?` : ""),
  );
}

/** Whether a bare word is rather a mistyped command than an interface. */
export function isTypo(word: string): boolean {
  return /^[a-z]+$/.test(word) && word.length >= TYPO_LENGTH_MIN &&
    COMMANDS.some(({ name }) =>
      name.length >= TYPO_LENGTH_MIN && editDistance(word, name) === 1
    );
}
