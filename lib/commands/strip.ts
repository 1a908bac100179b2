/**
 * `wgd strip FILE|IF`: a file without the keys of wg-quick(8), for wg(8).
 *
 * @module
 */
import { stripConfig } from "../quick_save.ts";
import type { CommandContext } from "./context.ts";
import { EXIT } from "./errors.ts";
import { configFileOf } from "./config_file.ts";
import { readConfigText } from "./quick_file.ts";

/** Runs `wgd strip`. */
export function runCommand(ctx: CommandContext): Promise<number> {
  const { path } = configFileOf(ctx.args[0]);
  ctx.out(stripConfig(readConfigText(path, ctx), path));
  return Promise.resolve(EXIT.OK);
}
