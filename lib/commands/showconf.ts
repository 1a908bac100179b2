/**
 * `wgd showconf IF`: the configuration of a device as a file, byte for byte as
 * wg(8) prints it.
 *
 * @module
 */
import { getDevice } from "../uapi_client.ts";
import { EXIT } from "./errors.ts";
import { renderConfigJson } from "./show_json.ts";
import { renderConfig } from "./show_render.ts";
import type { CommandContext } from "./context.ts";

/** Runs `wgd showconf`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const device = await getDevice(ctx.args[0]);
  ctx.out(ctx.options.json ? renderConfigJson(device) : renderConfig(device));
  return EXIT.OK;
}
