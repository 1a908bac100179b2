/**
 * `wgd run IF`: the contract of userspace daemons (reference §9.2, §9.4): create
 * the interface, go into the background, serve the UAPI socket.
 *
 * @module
 */
import { isInterfaceName } from "../config.ts";
import { isDaemon, leaveSession, startDaemon } from "../daemon.ts";
import { hardenProcess, limitDaemon } from "../harden.ts";
import { notify } from "../notify.ts";
import { prepareWorker } from "../worker_start.ts";
import type { CommandContext, OptionValues } from "./context.ts";
import { deviceArguments } from "./device_arguments.ts";
import { CliError, EXIT } from "./errors.ts";

/** Runs `wgd run`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const [name] = ctx.args;
  if (!isInterfaceName(name)) {
    throw new CliError(
      `${JSON.stringify(name)} is no name of an interface; expected up to ` +
        "15 letters, digits and _=+.-",
      EXIT.USAGE,
    );
  }
  const daemon = isDaemon();
  const foreground = daemon || ctx.options.foreground === true ||
    ctx.env("WG_PROCESS_FOREGROUND") === "1";
  if (!foreground) {
    // Nothing else is started here; where it has no right to, it has no rights.
    const { netns } = ctx.options;
    limitDaemon((netns ?? ctx.options["socket-netns"]) !== undefined);
    const words = ["run", ...deviceArguments(ctx.options), name];
    const status = await startDaemon(words);
    if (status === EXIT.OK) notify("READY=1");
    return status;
  }
  if (daemon) leaveSession();
  const missing = hardenProcess();
  if (hasWorker(ctx.options)) prepareWorker();
  // The worker loads its code meanwhile.
  const { serve } = await import("./serve.ts");
  return await serve(name, ctx, { daemon, missing });
}

/** Whether there will be one that is in this thread's namespace. */
function hasWorker(options: OptionValues): boolean {
  return options.threads !== "0" && options.udp !== "plain" &&
    options["socket-netns"] === undefined;
}
