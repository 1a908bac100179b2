/**
 * Endpoints by name, in the daemon. A name that has no address yet is asked for
 * again, later and later, for as long as the peer wants it; nothing waits for
 * it. One that has several addresses, of both families say, gets the next one
 * each time that handshakes are sent and none is answered, until one is. The
 * first handshake ends it: from then on the peer's endpoint follows its packets,
 * as ever. Pure: time, the resolver and the peers are given.
 *
 * @module
 */
import { formatEndpoint, formatSocketAddress } from "./ip.ts";
import type { Endpoint, SocketAddress } from "./ip.ts";

/** wg(8)'s delays. */
const DELAY_FIRST_MS = 1_000;
const DELAY_MAX_MS = 20_000;
/** Three handshake initiations go unanswered in this time. */
const TRY_MS = 15_000;

/** What the peer has done so far. */
export interface PeerProgress {
  /** Where it is now, as text; undefined: nowhere. */
  readonly endpoint: string | undefined;
  /** Whether it has a session that can still be used. */
  readonly isConnected: boolean;
  /** Bytes sent. */
  readonly txBytes: number | bigint;
}

/** The peers and the world, for {@linkcode PendingEndpoints}. */
export interface PendingOptions {
  /** All addresses of an endpoint, the best one first. @throws if none */
  readonly resolve: (endpoint: Endpoint) => Promise<readonly SocketAddress[]>;
  /** How the peer of this key does; undefined: it is gone. */
  readonly progress: (key: string) => PeerProgress | undefined;
  /** Gives the peer of this key an endpoint. */
  readonly setEndpoint: (key: string, to: SocketAddress) => void;
  /** Calls `then` once, later. @returns what cancels it */
  readonly schedule: (then: () => void, ms: number) => () => void;
  /** Gets a line about a name that has no address, or at last has one. */
  readonly log: (line: string) => void;
}

interface Entry {
  readonly endpoint: Endpoint;
  /** Left to try. */
  candidates: SocketAddress[];
  /** What the peer had when the last address was given to it. */
  since: PeerProgress;
  isPending: boolean;
  delayMs: number;
  cancel: () => void;
}

/** The names that are being looked up or tried. */
export class PendingEndpoints {
  readonly #options: PendingOptions;
  readonly #entries = new Map<string, Entry>();

  constructor(options: PendingOptions) {
    this.#options = options;
  }

  /** Where the peer of this key is to be, while that has no address. */
  nameOf(key: string): string | undefined {
    const entry = this.#entries.get(key);
    return entry?.isPending ? formatEndpoint(entry.endpoint) : undefined;
  }

  /** How many names there are. */
  get size(): number {
    return this.#entries.size;
  }

  /**
   * The peer of this key is at `endpoint`, by name. If it has a numeric
   * endpoint, this is taken as the name's first address.
   */
  add(key: string, endpoint: Endpoint): void {
    this.cancel(key);
    const since = this.#options.progress(key);
    if (since === undefined) return;
    const entry: Entry = {
      endpoint,
      candidates: [],
      since,
      isPending: since.endpoint === undefined,
      delayMs: DELAY_FIRST_MS,
      cancel: () => {},
    };
    this.#entries.set(key, entry);
    if (entry.isPending) this.#resolve(key, entry);
    else this.#later(key, entry, TRY_MS);
  }

  /** Forgets the name of a peer that is gone, or has another endpoint now. */
  cancel(key: string): void {
    this.#entries.get(key)?.cancel();
    this.#entries.delete(key);
  }

  /** Forgets all. */
  close(): void {
    for (const key of [...this.#entries.keys()]) this.cancel(key);
  }

  #later(key: string, entry: Entry, ms: number): void {
    entry.cancel = this.#options.schedule(() => this.#turn(key, entry), ms);
  }

  #turn(key: string, entry: Entry): void {
    const now = this.#options.progress(key);
    const { since } = entry;
    const isDone = now === undefined || now.isConnected ||
      now.endpoint !== since.endpoint;
    if (isDone) this.cancel(key);
    else if (entry.isPending) this.#resolve(key, entry);
    else if (now.txBytes === since.txBytes) this.#later(key, entry, TRY_MS);
    else if (entry.candidates.length > 0) this.#tryNext(key, entry);
    else this.#resolve(key, entry);
  }

  #tryNext(key: string, entry: Entry): void {
    const next = entry.candidates.shift();
    if (next === undefined) return;
    this.#options.setEndpoint(key, next);
    entry.since = this.#options.progress(key) ?? entry.since;
    this.#later(key, entry, TRY_MS);
  }

  #resolve(key: string, entry: Entry): void {
    const isCurrent = (): boolean => this.#entries.get(key) === entry;
    const { log } = this.#options;
    const name = formatEndpoint(entry.endpoint);
    this.#options.resolve(entry.endpoint).then((addresses) => {
      if (!isCurrent()) return;
      this.#found(key, entry, addresses);
      if (!entry.isPending || !isCurrent()) return;
      entry.isPending = false;
      log(`the endpoint ${name} has an address now`);
    }, (error: unknown) => {
      if (!isCurrent()) return;
      const reason = error instanceof Error ? error.message : String(error);
      log(`the endpoint ${name} has no address: ${reason}`);
      this.#later(key, entry, entry.isPending ? entry.delayMs : TRY_MS);
      entry.delayMs = Math.min(DELAY_MAX_MS, entry.delayMs * 6 / 5);
    });
  }

  /** Tries the addresses in turn, the one that was tried last as the last. */
  #found(
    key: string,
    entry: Entry,
    addresses: readonly SocketAddress[],
  ): void {
    const now = this.#options.progress(key);
    if (now === undefined || now.endpoint !== entry.since.endpoint) {
      this.cancel(key); // it has come by another way
      return;
    }
    const isNow = (address: SocketAddress): boolean =>
      formatSocketAddress(address) === now.endpoint;
    const at = addresses.findIndex(isNow);
    entry.candidates = [
      ...addresses.slice(at + 1),
      ...addresses.slice(0, at + 1),
    ];
    this.#tryNext(key, entry);
  }
}
