/**
 * `wgd version`.
 *
 * @module
 */
import { versionText } from "./help.ts";
import type { CommandContext } from "./context.ts";
import { EXIT } from "./errors.ts";

/** Runs `wgd version`. */
export function runCommand(ctx: CommandContext): Promise<number> {
  ctx.out(versionText());
  return Promise.resolve(EXIT.OK);
}
