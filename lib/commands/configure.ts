/**
 * What `set`, `setconf`, `addconf` and `syncconf` have in common: key files,
 * configuration files, and endpoints by name.
 *
 * @module
 */
import { dirname } from "node:path";
import { parseConfig, worldAccessibleWarning } from "../config.ts";
import { quote } from "../config_error.ts";
import {
  resolutionRetries,
  resolveEndpoint,
  ResolveError,
} from "../resolve.ts";
import { isSystemPath, readSystemFile } from "../sys/files.ts";
import { servicePort } from "../sys/getaddrinfo.ts";
import { SysError } from "../sys/libc.ts";
import { CliError, EXIT } from "./errors.ts";
import type { ParsedConfig, PeerConfig } from "../config.ts";
import type { Endpoint, SocketAddress } from "../ip.ts";
import type { PeerTarget } from "../sync.ts";
import type { CommandContext } from "./context.ts";

/** What the system says of a file or directory, as perror(3) has it. */
function fileProblem(error: unknown): string | undefined {
  if (error instanceof Deno.errors.NotFound) return "No such file or directory";
  if (error instanceof Deno.errors.PermissionDenied) return "Permission denied";
  if (error instanceof Deno.errors.IsADirectory) return "Is a directory";
  if (error instanceof Deno.errors.NotADirectory) return "Not a directory";
  if (error instanceof Deno.errors.FilesystemLoop) {
    return "Too many levels of symbolic links";
  }
  if (error instanceof SysError) return error.reason;
  return error instanceof Error && "code" in error ? error.message : undefined;
}

/**
 * Reads a file that may be a pipe, and warns if everybody may read it.
 *
 * @throws {CliError} names `what` was to be read
 */
export function readSecretFile(
  path: string,
  what: string,
  ctx: Pick<CommandContext, "err">,
): { bytes: Uint8Array; isSeekable: boolean } {
  try {
    // As /dev/stdin, or a shell's /dev/fd/63.
    if (isSystemPath(path)) return readSystemFile(path);
    using file = Deno.openSync(path);
    const { isFile, mode } = file.statSync();
    const bytes = readAll(file);
    if (isFile) {
      const directory = Deno.statSync(dirname(path)).mode ?? 0;
      const warning = worldAccessibleWarning(path, mode ?? 0, directory);
      if (warning !== null) ctx.err(warning);
    }
    return { bytes, isSeekable: isSeekable(file) };
  } catch (error) {
    const problem = fileProblem(error);
    if (problem === undefined) throw error;
    // A key in place of its file is not to be repeated.
    throw new CliError(
      `${what}: ${quote(path)}: ${problem}`,
      error instanceof Deno.errors.PermissionDenied
        ? EXIT.NOT_PERMITTED
        : EXIT.FAILED,
    );
  }
}

function readAll(file: Deno.FsFile): Uint8Array {
  const chunks: Uint8Array[] = [];
  let length = 0;
  for (;;) {
    const chunk = new Uint8Array(64 * 1024);
    const read = file.readSync(chunk);
    if (read === null) break;
    chunks.push(chunk.subarray(0, read));
    length += read;
  }
  const bytes = new Uint8Array(length);
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.length;
    chunk.fill(0);
  }
  return bytes;
}

function isSeekable(file: Deno.FsFile): boolean {
  try {
    file.seekSync(0, Deno.SeekMode.Current);
    return true;
  } catch {
    return false; // a pipe or a terminal
  }
}

/**
 * Reads a configuration file in wg(8)'s format.
 *
 * @throws {CliError} if it cannot be read
 * @throws {ConfigErrors} what is wrong in it
 */
export function readWgConfig(
  path: string,
  ctx: Pick<CommandContext, "err">,
): ParsedConfig {
  const { bytes } = readSecretFile(path, "configuration", ctx);
  // The parser tells of a byte order mark.
  const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
  bytes.fill(0);
  const config = parseConfig(text, { file: path, format: "wg", servicePort });
  for (const warning of config.warnings) ctx.err(warning);
  return config;
}

/**
 * Resolves endpoints, all at once, as the environment says, and tells of failed
 * tries. The first one that fails for good ends it.
 *
 * @throws {CliError}
 */
export async function resolveEndpoints(
  endpoints: readonly (Endpoint | undefined)[],
  ctx: Pick<CommandContext, "env" | "err">,
): Promise<(SocketAddress | undefined)[]> {
  const others = new AbortController();
  const { signal } = others;
  const onRetry = (line: string): void => ctx.err(line);
  try {
    const retries = resolutionRetries(
      ctx.env("WG_ENDPOINT_RESOLUTION_RETRIES"),
    );
    return await Promise.all(
      endpoints.map((endpoint) =>
        endpoint && resolveEndpoint(endpoint, { retries, onRetry, signal })
      ),
    );
  } catch (error) {
    others.abort();
    if (!(error instanceof ResolveError || error instanceof SyntaxError)) {
      throw error;
    }
    throw new CliError(error.message, EXIT.FAILED, { cause: error });
  }
}

/** The peers of a file with their endpoints resolved. */
export async function resolvePeers(
  peers: readonly PeerConfig[],
  ctx: Pick<CommandContext, "env" | "err">,
): Promise<PeerTarget[]> {
  const addresses = await resolveEndpoints(
    peers.map(({ endpoint }) => endpoint),
    ctx,
  );
  return peers.map((peer, i) => ({ ...peer, endpoint: addresses[i] }));
}
