/**
 * `wgd save FILE|IF`: the state of a running interface into its file.
 *
 * @module
 */
import type { Config } from "../config.ts";
import { liveAddresses, liveMtu } from "../quick_facts.ts";
import { savedConfig } from "../quick_save.ts";
import { readState } from "../quick_state.ts";
import { getDevice, listDevices } from "../uapi_client.ts";
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";
import { configFileOf } from "./config_file.ts";
import { readConfig } from "./quick_file.ts";

const FILE_MODE = 0o600;

/** Runs `wgd save`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const { path, name } = configFileOf(ctx.args[0]);
  const config = readConfig(path, ctx);
  if (!(await listDevices()).includes(name)) {
    throw new CliError(`${name} is not a WireGuard interface`);
  }
  await saveConfig(path, name, config);
  return EXIT.OK;
}

/** Writes the state of the interface to the file, all of it or nothing. */
export async function saveConfig(
  path: string,
  name: string,
  config: Config,
): Promise<void> {
  const netns = readState(name)?.netns;
  const [device, addresses, mtu] = await Promise.all([
    getDevice(name),
    liveAddresses(name, netns),
    liveMtu(name, netns),
  ]);
  const text = savedConfig(config, { device, addresses, mtu });
  const real = Deno.realPathSync(path);
  const early = `${real}.tmp`;
  try {
    // What an interrupted run has left may be open to others.
    removeIfThere(early);
    using file = Deno.openSync(early, {
      write: true,
      createNew: true,
      mode: FILE_MODE,
    });
    writeAll(file, new TextEncoder().encode(text));
    file.syncSync();
    Deno.renameSync(early, real);
  } catch (error) {
    removeIfThere(early);
    const reason = error instanceof Error ? error.message : String(error);
    throw new CliError(`${path}: cannot be written: ${reason}`);
  }
}

function writeAll(file: Deno.FsFile, bytes: Uint8Array): void {
  for (let at = 0; at < bytes.length;) {
    at += file.writeSync(bytes.subarray(at));
  }
}

function removeIfThere(path: string): void {
  try {
    Deno.removeSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
