/**
 * `wgd completions SHELL`: scripts that complete commands, options and their
 * values, interfaces, peers and files, made from the table of commands. What
 * the scripts for different shells have in common is here.
 *
 * @module
 */
import { nearest } from "../suggest.ts";
import { bashCompletions } from "./completions_bash.ts";
import { fishCompletions } from "./completions_fish.ts";
import { zshCompletions } from "./completions_zsh.ts";
import type { CommandContext } from "./context.ts";
import { EXIT } from "./errors.ts";
import { findCommand, SHELLS } from "./table.ts";
import { usageError } from "./usage.ts";

/** The script for each shell. */
export const COMPLETIONS: Readonly<
  Record<typeof SHELLS[number], () => string>
> = {
  bash: bashCompletions,
  zsh: zshCompletions,
  fish: fishCompletions,
};

/** Runs `wgd completions`. */
export function runCommand(ctx: CommandContext): Promise<number> {
  const [wanted] = ctx.args;
  const shell = SHELLS.find((name) => name === wanted);
  if (shell === undefined) {
    const guess = nearest(wanted, SHELLS);
    throw usageError(
      `completions: ${JSON.stringify(wanted)}; expected one of ` +
        SHELLS.join(", ") + (guess ? `; did you mean ${guess}?` : ""),
      findCommand("completions"),
    );
  }
  ctx.out(COMPLETIONS[shell]());
  return Promise.resolve(EXIT.OK);
}
