/**
 * `wgd show`: the state of devices, as wg(8) shows it. Exit statuses are wg's,
 * 0 or 1, because scripts rely on them.
 *
 * @module
 */
import {
  getDevice,
  getStats,
  listDevices,
  UapiError,
  withPublicKey,
} from "../uapi_client.ts";
import { quote } from "../config_error.ts";
import { nearest } from "../suggest.ts";
import { CliError, EXIT } from "./errors.ts";
import { renderJson } from "./show_json.ts";
import { FieldRows, renderPretty, SHOW_FIELDS } from "./show_render.ts";
import type { DeviceState } from "../uapi_state.ts";
import type { CommandContext } from "./context.ts";

/** Output is written once it is about this long. */
const PIECE_LENGTH = 32 * 1024;

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

function pretty(device: DeviceState, ctx: CommandContext): string {
  return renderPretty(device, {
    color: wantsColor(ctx),
    showKeys: ctx.env("WG_HIDE_KEYS") === "never",
    nowMs: Date.now(),
  });
}

/** Prints a field of a device as its peers come: there may be very many. */
async function showField(
  ctx: CommandContext,
  name: string,
  field: string,
  withInterface: boolean,
): Promise<void> {
  const rows = new FieldRows(field, withInterface);
  let text: string | undefined;
  const begun = (device: DeviceState): string =>
    text ?? rows.ofDevice(withPublicKey(device));
  const device = await getDevice(name, {
    eachPeer: (peer, device) => {
      text = begun(device) + rows.ofPeer(peer, device);
      if (text.length < PIECE_LENGTH) return;
      ctx.out(text);
      text = "";
    },
  });
  ctx.out(begun(device));
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
  let shown = 0;
  for (const [i, name] of names.entries()) {
    try {
      if (ctx.options.json) devices.push(await getDevice(name));
      else if (field !== undefined) await showField(ctx, name, field, true);
      else {
        const gap = i < names.length - 1 ? "\n" : "";
        ctx.out(pretty(await getDevice(name), ctx) + gap);
      }
      shown++;
    } catch (error) {
      if (!(error instanceof UapiError)) throw error;
      ctx.err(error.message);
    }
  }
  if (ctx.options.json) ctx.out(renderJson(devices, field));
  return names.length === 0 || shown > 0 ? EXIT.OK : EXIT.FAILED;
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
  if (ctx.options.json) ctx.out(renderJson([await getDevice(name)], field));
  else if (field !== undefined) await showField(ctx, name, field, false);
  else ctx.out(pretty(await getDevice(name), ctx));
  return EXIT.OK;
}
