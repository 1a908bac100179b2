/**
 * `wgd up FILE|IF`: an interface from a configuration file, as wg-quick(8). The
 * daemon takes longest to start, so that comes first, even before the code is
 * loaded that finds out whether it shall run.
 *
 * @module
 */
import { HeldDaemon } from "../daemon.ts";
import { configFileOf } from "./config_file.ts";
import type { CommandContext } from "./context.ts";
import { deviceArguments } from "./device_arguments.ts";

/** Runs `wgd up`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const file = configFileOf(ctx.args[0]);
  const daemonOptions = deviceArguments(ctx.options);
  await using daemon = ctx.options["dry-run"] === true
    ? undefined
    : new HeldDaemon(["run", ...daemonOptions, file.name]);
  const { runUp } = await import("./up_run.ts");
  return await runUp(ctx, { file, daemonOptions, daemon });
}
