/**
 * `wgd down FILE|IF`: removes an interface; its daemon ends, and addresses and
 * routes go with it.
 *
 * @module
 */
import { uapiPath } from "../ipc.ts";
import { runCommandLine, StepError } from "../quick.ts";
import { listDevices } from "../uapi_client.ts";
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";
import { configFileOf } from "./up.ts";

const DAEMON_END_MS = 5_000;
const POLL_MS = 20;

/** Runs `wgd down`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const { name } = configFileOf(ctx.args[0]);
  if (!(await listDevices()).includes(name)) {
    throw new CliError(`${name} is not a WireGuard interface`);
  }
  const argv = ["ip", "link", "delete", "dev", name];
  ctx.err(`[#] ${argv.join(" ")}`);
  try {
    await runCommandLine(argv);
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    throw new CliError(error.message, EXIT.FAILED, { cause: error });
  }
  await daemonEnded(name);
  return EXIT.OK;
}

/** The daemon removes its socket when the interface is gone. */
async function daemonEnded(name: string): Promise<void> {
  for (let waitedMs = 0; waitedMs < DAEMON_END_MS; waitedMs += POLL_MS) {
    try {
      Deno.lstatSync(uapiPath(name));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  throw new CliError(`${name} is removed, but its daemon has not ended`);
}
