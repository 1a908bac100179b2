/**
 * `wgd down FILE|IF`: removes an interface; its daemon ends, addresses and
 * routes go with it, and what else `up` has set is undone. Everything is tried,
 * whatever fails on the way.
 *
 * @module
 */
import type { Config } from "../config.ts";
import { dnsSteps } from "../dns.ts";
import { uapiPath } from "../ipc.ts";
import { findTraces, gatherFacts } from "../quick_facts.ts";
import { hookCommand } from "../quick_plan.ts";
import { findProgram, Runner, undoAll } from "../quick_run.ts";
import {
  handOver,
  ownNamespace,
  type QuickState,
  readState,
  removeState,
} from "../quick_state.ts";
import { type Command, undoCommands } from "../quick_step.ts";
import { pause } from "../sys/turn.ts";
import { getDevice, listDevices } from "../uapi_client.ts";
import { type ConfigFile, configFileOf } from "./config_file.ts";
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";
import { asCliError, readConfig } from "./quick_file.ts";
import { saveConfig } from "./save.ts";

const DAEMON_END_MS = 5_000;
const POLL_MS = 20;

/** Runs `wgd down`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const file = configFileOf(ctx.args[0]);
  const { name } = file;
  const state = readState(name);
  const runs = (await listDevices()).includes(name);
  const isHere = state?.namespace === ownNamespace();
  if (!runs && !isHere) {
    throw new CliError(`${name} is not a WireGuard interface`);
  }
  if (state !== undefined && !isHere) {
    throw new CliError(`${name} is up in another network namespace`);
  }
  const config = readIfThere(file, state, ctx);
  const runner = new Runner({ say: ctx.err, netns: state?.netns });
  const hooks = async (texts: readonly string[]): Promise<void> => {
    const shell = findProgram("bash") === undefined ? "sh" : "bash";
    for (const text of texts) {
      try {
        await runner.run(hookCommand(text, name, shell));
      } catch (error) {
        throw asCliError(error);
      }
    }
  };
  const { preDown = [], postDown = [] } = config?.interface ?? {};
  if (runs) await hooks(preDown);
  if (runs && config?.interface.saveConfig) {
    await saveConfig(file.path, name, config);
  }
  const commands = state === undefined
    ? await undoOfOthers(name, config)
    : undoCommands(handOver(state));
  const problems = await undoAll(runner, commands);
  if (runs) await daemonEnded(name);
  if (problems.length === 0) removeState(name);
  for (const problem of problems) {
    ctx.err(`wgd: could not be undone: ${problem}`);
  }
  await hooks(postDown);
  return problems.length === 0 ? EXIT.OK : EXIT.FAILED;
}

/** The file may be gone where the notes are there; its hooks are then, too. */
function readIfThere(
  { path }: ConfigFile,
  state: QuickState | undefined,
  ctx: CommandContext,
): Config | undefined {
  try {
    return readConfig(path, ctx);
  } catch (error) {
    if (state === undefined || !(error instanceof CliError)) throw error;
    ctx.err(`wgd: ${error.message}; going on without its hooks`);
    return undefined;
  }
}

/** What undoes the work of stock wg-quick, found by its traces. */
async function undoOfOthers(
  name: string,
  config: Config | undefined,
): Promise<Command[]> {
  const remove = { argv: ["ip", "link", "delete", "dev", name] };
  if (config === undefined) return [remove];
  const { fwmark, peers } = await getDevice(name);
  const { table = "auto" } = config.interface;
  const hasDefault = table === "auto" && fwmark !== 0 &&
    peers.some(({ allowedIps }) => allowedIps.some(({ cidr }) => cidr === 0));
  const { dns, dnsPrefix } = await gatherFacts({
    name,
    config: { ...config, peers: [] },
    endpoints: [],
    exists: false,
    mark: 0,
  });
  const servers = dns === null ? [] : dnsSteps(
    name,
    config.interface.dns,
    { tool: dns, prefix: dnsPrefix },
  );
  return [
    ...await findTraces(name, hasDefault ? fwmark : undefined),
    ...undoCommands(servers),
    remove,
  ];
}

/** The daemon removes its socket when the interface is gone. */
export async function daemonEnded(name: string): Promise<void> {
  for (let waitedMs = 0; waitedMs < DAEMON_END_MS; waitedMs += POLL_MS) {
    try {
      Deno.lstatSync(uapiPath(name));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throw error;
    }
    await pause(POLL_MS);
  }
  throw new CliError(`${name} is removed, but its daemon has not ended`);
}
