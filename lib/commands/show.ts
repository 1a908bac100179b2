/**
 * `wgd show`: the state of devices, as wg(8) shows it. Exit statuses are wg's,
 * 0 or 1, because scripts rely on them.
 *
 * @module
 */
import { getDevice, getStats, listDevices, UapiError } from "../uapi_client.ts";
import { quote } from "../config_error.ts";
import { nearest } from "../suggest.ts";
import { CliError, EXIT } from "./errors.ts";
import { renderJson } from "./show_json.ts";
import { renderField, renderPretty, SHOW_FIELDS } from "./show_render.ts";
import type { DeviceState } from "../uapi_state.ts";
import type { CommandContext } from "./context.ts";

/** Whether to colour: WG_COLOR_MODE decides, then NO_COLOR, then the terminal. */
export function wantsColor(
  ctx: Pick<CommandContext, "env" | "isTerminal">,
): boolean {
  switch (ctx.env("WG_COLOR_MODE")) {
    case "always":
      return true;
    case "never":
      return false;
  }
  return !ctx.env("NO_COLOR") && ctx.isTerminal;
}

function checkField(field: string | undefined): void {
  if (field === undefined || SHOW_FIELDS.includes(field)) return;
  const guess = nearest(field, SHOW_FIELDS);
  throw new CliError(
    `show: ${quote(field)} is not a field; ` +
      (guess ? `did you mean ${guess}?` : `fields: ${SHOW_FIELDS.join(", ")}`),
  );
}

function render(
  device: DeviceState,
  ctx: CommandContext,
  field: string | undefined,
  withInterface: boolean,
): string {
  if (field !== undefined) return renderField(device, field, withInterface);
  return renderPretty(device, {
    color: wantsColor(ctx),
    showKeys: ctx.env("WG_HIDE_KEYS") === "never",
    nowMs: Date.now(),
  });
}

async function showInterfaces(ctx: CommandContext): Promise<number> {
  const names = await listDevices();
  if (ctx.options.json) ctx.out(`${JSON.stringify(names)}\n`);
  else if (names.length > 0) ctx.out(`${names.join(" ")}\n`);
  return EXIT.OK;
}

/** Shows all that can be read; fails if there are some, but none can. */
async function showAll(
  ctx: CommandContext,
  field: string | undefined,
): Promise<number> {
  const names = await listDevices();
  const devices: DeviceState[] = [];
  for (const [i, name] of names.entries()) {
    try {
      const device = await getDevice(name);
      devices.push(device);
      if (ctx.options.json) continue;
      const isLast = i === names.length - 1;
      const gap = field === undefined && !isLast ? "\n" : "";
      ctx.out(render(device, ctx, field, true) + gap);
    } catch (error) {
      if (!(error instanceof UapiError)) throw error;
      ctx.err(error.message);
    }
  }
  if (ctx.options.json) ctx.out(renderJson(devices, field));
  return names.length === 0 || devices.length > 0 ? EXIT.OK : EXIT.FAILED;
}

/** Live objects and drops of one device. */
async function showStats(ctx: CommandContext, name: string): Promise<number> {
  const stats = await getStats(name);
  if (ctx.options.json) {
    ctx.out(`${JSON.stringify(Object.fromEntries(stats))}\n`);
    return EXIT.OK;
  }
  const lines = [...stats].map(([key, value]) => `${key}: ${value}\n`);
  ctx.out(lines.join(""));
  return EXIT.OK;
}

/** `wgd show [IF | all | interfaces] [FIELD]` */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const [name = "all", field] = ctx.args;
  if (field !== undefined && name === "interfaces") {
    throw new CliError("show interfaces: no field can be given");
  }
  if (
    ctx.options.stats &&
    (field !== undefined || ["all", "interfaces"].includes(name))
  ) {
    throw new CliError("show: --stats takes the name of one interface");
  }
  checkField(field);
  if (ctx.options.stats) return await showStats(ctx, name);
  if (name === "interfaces") return await showInterfaces(ctx);
  if (name === "all") return await showAll(ctx, field);
  const device = await getDevice(name);
  ctx.out(
    ctx.options.json
      ? renderJson([device], field)
      : render(device, ctx, field, false),
  );
  return EXIT.OK;
}
