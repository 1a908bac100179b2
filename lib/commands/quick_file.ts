/**
 * What the commands of wg-quick(8) have in common: reading a file, its endpoints
 * by name, signals, and how failures are told.
 *
 * @module
 */
import { parseConfig, type ParsedConfig } from "../config.ts";
import { formatEndpoint, type SocketAddress } from "../ip.ts";
import { type Runner, StepError } from "../quick_run.ts";
import { numericAddress, resolveAddresses, ResolveError } from "../resolve.ts";
import type { PeerTarget } from "../sync.ts";
import { isSystemPath } from "../sys/files.ts";
import { servicePort } from "../sys/getaddrinfo.ts";
import { setDevice, UapiError } from "../uapi_client.ts";
import { formatSet } from "../uapi_state.ts";
import { readSecretFile } from "./configure.ts";
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";

/** Names that take longer are left to the daemon. */
const RESOLVE_MS = 5_000;

/** The text of a configuration file. @throws CliError if there is none */
export function readConfigText(
  path: string,
  ctx: Pick<CommandContext, "err">,
): string {
  try {
    if (!isSystemPath(path)) Deno.statSync(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new CliError(`${path}: no such file`);
  }
  const { bytes } = readSecretFile(path, "configuration", ctx);
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** Reads a file of wg-quick's format. @throws CliError, ConfigErrors */
export function readConfig(
  path: string,
  ctx: Pick<CommandContext, "err">,
): ParsedConfig {
  const text = readConfigText(path, ctx);
  const config = parseConfig(text, { file: path, servicePort });
  for (const warning of config.warnings) ctx.err(warning);
  return config;
}

/** The peers of a file, as far as their endpoints have addresses. */
export interface ResolvedPeers {
  readonly targets: readonly PeerTarget[];
  /** Endpoints by name, which the daemon keeps an eye on. */
  readonly named: readonly {
    readonly publicKey: Uint8Array;
    readonly endpointName: string;
  }[];
  /** Where the peers are. */
  readonly endpoints: readonly SocketAddress[];
}

/**
 * Looks names up, all at once and once; what has no address now is told and
 * left to the daemon.
 */
export async function resolvePeers(
  path: string,
  config: ParsedConfig,
  ctx: Pick<CommandContext, "err">,
): Promise<ResolvedPeers> {
  const targets = await Promise.all(config.peers.map(async (peer) => {
    const { endpoint, ...rest } = peer;
    if (endpoint === undefined) return rest;
    try {
      const [address] = await within(resolveAddresses(endpoint), RESOLVE_MS);
      return { ...rest, endpoint: address };
    } catch (error) {
      if (!(error instanceof ResolveError || error instanceof TimeoutError)) {
        throw error;
      }
      const reason = error instanceof ResolveError
        ? error.reason
        : error.message;
      ctx.err(
        `${path}: the endpoint ${formatEndpoint(endpoint)} has no address ` +
          `yet (${reason}); it is looked up again in the background`,
      );
      return rest;
    }
  }));
  return {
    targets,
    named: config.peers.flatMap(({ publicKey, endpoint }) =>
      endpoint === undefined || numericAddress(endpoint) !== null
        ? []
        : [{ publicKey, endpointName: formatEndpoint(endpoint) }]
    ),
    endpoints: targets.flatMap((peer) =>
      "endpoint" in peer && peer.endpoint ? [peer.endpoint] : []
    ),
  };
}

class TimeoutError extends Error {}

async function within<T>(promise: Promise<T>, ms: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new TimeoutError(`no answer within ${ms / 1000} s`)),
      ms,
    );
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** Gives a daemon of wgd's the names; another one does without. */
export async function sendNames(
  name: string,
  named: ResolvedPeers["named"],
  ctx: Pick<CommandContext, "err">,
): Promise<void> {
  if (named.length === 0) return;
  const peers = named.map((peer) => ({ ...peer, updateOnly: true }));
  try {
    await setDevice(name, formatSet({ peers }));
  } catch (error) {
    if (!(error instanceof UapiError) || error.code !== "EINVAL") throw error;
    ctx.err(`${name}: its daemon does not look names up again`);
  }
}

const SIGNALS = ["SIGINT", "SIGTERM", "SIGHUP"] as const;

/** Lets signals end what `runner` runs, while `use` does. */
export async function withSignals<T>(
  runner: Runner,
  use: () => Promise<T>,
): Promise<T> {
  const listeners = SIGNALS.map((signal) => {
    const listener = (): void => runner.interrupt(signal);
    Deno.addSignalListener(signal, listener);
    return { signal, listener };
  });
  try {
    return await use();
  } finally {
    for (const { signal, listener } of listeners) {
      Deno.removeSignalListener(signal, listener);
    }
  }
}

/** A failure of a step as the user is told of it; else the error itself. */
export function asCliError(error: unknown): unknown {
  return error instanceof StepError
    ? new CliError(error.message, EXIT.FAILED, { cause: error })
    : error;
}

/** @throws CliError with all problems, if there are any */
export function throwProblems(what: string, problems: readonly string[]): void {
  if (problems.length === 0) return;
  throw new CliError(problems.map((text) => `${what}: ${text}`).join("\n"));
}
