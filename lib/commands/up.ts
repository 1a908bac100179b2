/**
 * `wgd up FILE|IF`: an interface from a configuration file, as wg-quick(8).
 * The file is read, checked and its names resolved before anything is touched.
 *
 * @module
 */
import { lookup } from "node:dns/promises";
import {
  type Config,
  interfaceNameOf,
  isInterfaceName,
  parseConfig,
  worldAccessibleWarning,
} from "../config.ts";
import { startDaemon } from "../daemon.ts";
import { type Endpoint, parseIp, type SocketAddress } from "../ip.ts";
import { notify } from "../notify.ts";
import {
  addressSteps,
  routeSteps,
  runCommandLine,
  runPlan,
  type Step,
  StepError,
  unsupported,
} from "../quick.ts";
import { closeSockets, openSockets } from "../socket.ts";
import { cString, ERRNO, libc, SysError } from "../sys/libc.ts";
import { setDevice } from "../uapi_client.ts";
import { formatSet, type PeerUpdate } from "../uapi_state.ts";
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";
import { deviceArguments } from "./run.ts";

const CONFIG_DIRECTORY = "/etc/wireguard";

/** A configuration file by path or by the name of its interface. */
export interface ConfigFile {
  readonly path: string;
  readonly name: string;
}

/** The file that an argument of `up` or `down` means. */
export function configFileOf(argument: string): ConfigFile {
  if (isInterfaceName(argument) && !argument.endsWith(".conf")) {
    return { path: `${CONFIG_DIRECTORY}/${argument}.conf`, name: argument };
  }
  const name = interfaceNameOf(argument);
  if (name === null) {
    throw new CliError(
      `${JSON.stringify(argument)} is no configuration; expected the name of ` +
        "an interface, or a file named after one as in ./wg0.conf",
      EXIT.USAGE,
    );
  }
  return { path: argument, name };
}

/** Runs `wgd up`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const { path, name } = configFileOf(ctx.args[0]);
  const config = readConfig(path, ctx);
  const problems = unsupported(config);
  if (problems.length > 0) {
    throw new CliError(problems.map((text) => `${path}: ${text}`).join("\n"));
  }
  const peers = await resolvePeers(path, config);
  if (linkExists(name)) {
    throw new CliError(`${name} exists already; wgd down ${name} removes it`);
  }
  probePort(path, config.interface.listenPort ?? 0);
  const steps = plan(name, config, peers, deviceArguments(ctx.options));
  let interrupted = false;
  const onSignal = (): void => {
    interrupted = true;
  };
  const signals = ["SIGINT", "SIGTERM"] as const;
  for (const signal of signals) Deno.addSignalListener(signal, onSignal);
  try {
    await runPlan(steps, ctx.err, () => interrupted);
  } catch (error) {
    // The daemon has told why on stderr.
    if (error instanceof DaemonError) return error.status;
    if (!(error instanceof StepError)) throw error;
    throw new CliError(error.message, EXIT.FAILED, { cause: error });
  } finally {
    for (const signal of signals) Deno.removeSignalListener(signal, onSignal);
  }
  notify("READY=1");
  return EXIT.OK;
}

/** The daemon did not start; `status` is what it ended with. */
class DaemonError extends StepError {
  constructor(argv: readonly string[], readonly status: number) {
    super(argv, "the daemon did not start");
  }
}

function readConfig(path: string, ctx: CommandContext): Config {
  let text: string;
  try {
    text = Deno.readTextFileSync(path);
    const directory = path.replace(/[^/]*$/, "") || ".";
    const { mode } = Deno.statSync(path);
    const warning = worldAccessibleWarning(
      path,
      mode ?? 0,
      Deno.statSync(directory).mode ?? 0,
    );
    if (warning !== null) ctx.err(warning);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new CliError(`${path}: no such file`);
    }
    throw error;
  }
  const config = parseConfig(text, { file: path });
  for (const warning of config.warnings) ctx.err(warning);
  return config;
}

async function resolvePeers(
  path: string,
  config: Config,
): Promise<PeerUpdate[]> {
  return await Promise.all(config.peers.map(async (peer) => ({
    publicKey: peer.publicKey,
    presharedKey: peer.presharedKey,
    endpoint: peer.endpoint && await resolve(path, peer.endpoint),
    persistentKeepalive: peer.persistentKeepalive,
    replaceAllowedIps: true,
    allowedIps: peer.allowedIps,
  })));
}

async function resolve(path: string, to: Endpoint): Promise<SocketAddress> {
  const [host, scope = ""] = to.host.split("%");
  const literal = parseIp(host);
  if (literal !== null) return { address: literal, port: to.port, scope };
  try {
    const found = await lookup(to.host);
    const address = parseIp(found.address);
    if (address !== null) return { address, port: to.port, scope: "" };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CliError(
      `${path}: cannot resolve the endpoint ${to.host}: ${reason}`,
    );
  }
  throw new CliError(`${path}: the endpoint ${to.host} has no address`);
}

/** Fails while nothing is touched yet if the port cannot be listened on. */
function probePort(path: string, port: number): void {
  if (port === 0) return;
  try {
    closeSockets(openSockets(port, 0, false));
  } catch (error) {
    if (!(error instanceof SysError) || error.errno !== ERRNO.EADDRINUSE) {
      throw error;
    }
    throw new CliError(`${path}: ListenPort: UDP port ${port} is in use`);
  }
}

/** In the network namespace of this thread; /sys may show another one. */
function linkExists(name: string): boolean {
  return libc().if_nametoindex(cString(name)) !== 0;
}

function plan(
  name: string,
  config: Config,
  peers: PeerUpdate[],
  options: string[],
): Step[] {
  const run = ["run", ...options, name];
  const { privateKey, listenPort, fwmark } = config.interface;
  return [
    {
      argv: ["wgd", ...run],
      run: async (): Promise<void> => {
        const status = await startDaemon(run);
        if (status !== 0) throw new DaemonError(["wgd", ...run], status);
      },
      undo: () => runCommandLine(["ip", "link", "delete", "dev", name]),
    },
    {
      argv: ["wgd", "setconf", name],
      run: async (): Promise<void> => {
        const text = formatSet({ privateKey, listenPort, fwmark, peers });
        await setDevice(name, text);
      },
    },
    ...addressSteps(name, config),
    ...routeSteps(name, config),
  ];
}
