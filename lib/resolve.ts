/**
 * Endpoint names to addresses, with wg(8)'s rules: errors that are final end it
 * at once, others are tried again after 1 s, then 1.2 times as long each time,
 * at most 20 s, as often as WG_ENDPOINT_RESOLUTION_RETRIES says. Used by all
 * that configure a device: `set`, `setconf`, `addconf`, `syncconf`, and up and
 * reload (which may rather take {@linkcode resolveAddresses}, one try that
 * tells all addresses, and go on without the peer).
 *
 * Errors of the port's name are final here; wg 1.0.20210914 tries those again,
 * too, for minutes.
 *
 * @module
 */
import { formatEndpoint, parseIp } from "./ip.ts";
import { EAI, lookupEndpoint } from "./sys/getaddrinfo.ts";
import type { Endpoint, SocketAddress } from "./ip.ts";
import type { LookupAnswer } from "./sys/getaddrinfo.ts";

/** Tries after the first one, where the environment does not say. */
export const RESOLUTION_RETRIES = 15;

const RETRIES_MAX = 0x7fffffff;
const DELAY_FIRST_MS = 1_000;
const DELAY_MAX_MS = 20_000;
const MS_PER_S = 1_000;

/** Asking again gives the same answer. */
const PERMANENT: ReadonlySet<number> = new Set([
  EAI.NONAME,
  EAI.FAIL,
  EAI.NODATA,
  EAI.FAMILY,
  EAI.SERVICE,
]);

/** An endpoint that has no address, or none now. */
export class ResolveError extends Error {
  /** The class's name. */
  override readonly name = "ResolveError";

  /** The message is wg's: what the resolver says, and the endpoint. */
  constructor(
    readonly endpoint: Endpoint,
    /** What the resolver says, as `Name or service not known`. */
    readonly reason: string,
    /** Whether trying again is in vain. */
    readonly isPermanent: boolean,
  ) {
    super(`${reason}: \`${formatEndpoint(endpoint)}'`);
  }
}

/** Asks the system for the addresses of a host. */
export type Lookup = (host: string, service: string) => Promise<LookupAnswer>;

/** How {@linkcode resolveEndpoint} goes about it. */
export interface ResolveOptions {
  /** Tries after the first one; Infinity is allowed. */
  readonly retries?: number;
  /** Gets a line about each failure that is tried again. */
  readonly onRetry?: (line: string) => void;
  /** Ends the waiting; the promise is rejected with its reason. */
  readonly signal?: AbortSignal;
  /** In place of the system's resolver. */
  readonly lookup?: Lookup;
  /** In place of a timer. */
  readonly delay?: (ms: number, signal?: AbortSignal) => Promise<void>;
}

/**
 * Tries after the first one by the environment's
 * WG_ENDPOINT_RESOLUTION_RETRIES: a number, `infinity`, or unset.
 *
 * @throws {SyntaxError} with a message for the user
 */
export function resolutionRetries(value: string | undefined): number {
  if (value === undefined) return RESOLUTION_RETRIES;
  if (value === "infinity") return Infinity;
  const retries = value === "" ? 0 : Number(value);
  if (/^\d*$/.test(value) && retries <= RETRIES_MAX) return retries;
  throw new SyntaxError(
    `WG_ENDPOINT_RESOLUTION_RETRIES: ${JSON.stringify(value)} is neither a ` +
      "number of tries nor infinity",
  );
}

/** The address of an endpoint that needs no looking up; null for a name. */
export function numericAddress({ host, port }: Endpoint): SocketAddress | null {
  const percent = host.indexOf("%");
  const literal = parseIp(percent < 0 ? host : host.slice(0, percent));
  if (literal === null) return null;
  return {
    address: literal,
    port,
    scope: percent < 0 ? "" : host.slice(percent + 1),
  };
}

/**
 * One try: all addresses of an endpoint, the one to prefer first.
 *
 * @throws {ResolveError}
 */
export async function resolveAddresses(
  endpoint: Endpoint,
  lookup: Lookup = lookupEndpoint,
): Promise<SocketAddress[]> {
  const numeric = numericAddress(endpoint);
  // A scope is looked up, because it must be a link that there is.
  if (numeric?.scope === "") return [numeric];
  const answer = await lookup(endpoint.host, String(endpoint.port));
  if ("error" in answer) {
    const { error, reason } = answer;
    throw new ResolveError(endpoint, reason, PERMANENT.has(error));
  }
  if (answer.addresses.length === 0) {
    const reason = "Neither IPv4 nor IPv6 address found";
    throw new ResolveError(endpoint, reason, true);
  }
  if (numeric !== null) return [numeric];
  return answer.addresses.map(({ address, port, scopeId }) => ({
    address,
    port,
    scope: scopeId === 0 ? "" : String(scopeId),
  }));
}

/**
 * The address of an endpoint, tried again while the failure may pass.
 *
 * @throws {ResolveError} the last one
 */
export async function resolveEndpoint(
  endpoint: Endpoint,
  options: ResolveOptions = {},
): Promise<SocketAddress> {
  const { retries = RESOLUTION_RETRIES, onRetry, signal, lookup } = options;
  const wait = options.delay ?? delay;
  let delayMs = DELAY_FIRST_MS;
  for (let left = retries;; left--) {
    try {
      const [preferred] = await resolveAddresses(endpoint, lookup);
      return preferred;
    } catch (error) {
      if (!(error instanceof ResolveError)) throw error;
      if (error.isPermanent || left === 0) throw error;
      const seconds = (delayMs / MS_PER_S).toFixed(2);
      onRetry?.(`${error.message}. Trying again in ${seconds} seconds...`);
    }
    await wait(delayMs, signal);
    signal?.throwIfAborted();
    delayMs = Math.min(DELAY_MAX_MS, delayMs * 6 / 5);
  }
}

/** Waits, or until `signal`. */
function delay(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", done);
      resolve();
    };
    const timer = setTimeout(done, ms);
    signal?.addEventListener("abort", done);
    if (signal?.aborted) done();
  });
}
