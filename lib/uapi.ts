/**
 * The configuration protocol of userspace WireGuard devices ("UAPI",
 * https://www.wireguard.com/xplatform/): serving it on a connection. The stock
 * wg(8) takes a negative errno as the answer to set, a positive one as the
 * answer to get. Pure: the connection is bytes in, text out.
 *
 * @module
 */
import { formatGet, formatStats } from "./uapi_get.ts";
import type { UapiSource } from "./uapi_get.ts";
import {
  LineSplitter,
  LineTooLongError,
  UAPI_ERRNO,
  UAPI_REQUEST_MAX_BYTES,
} from "./uapi_lines.ts";
import { UapiSetParser } from "./uapi_set.ts";
import type { UapiSink } from "./uapi_set.ts";

export { formatGet, formatStats } from "./uapi_get.ts";
export type { UapiEndpoint, UapiPeerWalk, UapiSource } from "./uapi_get.ts";
export {
  LineSplitter,
  LineTooLongError,
  UAPI_ERRNO,
  UAPI_LINE_MAX,
} from "./uapi_lines.ts";
export { UapiSetParser } from "./uapi_set.ts";
export type { UapiSink } from "./uapi_set.ts";

/** The daemon's end of a UAPI connection. */
export interface UapiConnection {
  /** What the client sends. */
  readonly input: AsyncIterable<Uint8Array>;
  /** Sends to the client; resolves when more can be sent. */
  write(text: string): Promise<void>;
}

type Operation = "none" | "set" | "get" | "stats";

/** Requests, by their first line; `get=stats` is wgd's own. */
const OPERATIONS: ReadonlyMap<string, Operation> = new Map([
  ["set=1", "set"],
  ["get=1", "get"],
  ["get=stats", "stats"],
]);

class Session {
  readonly #write: (text: string) => Promise<void>;
  readonly #source: UapiSource;
  readonly #sink: UapiSink;
  readonly #set: UapiSetParser;
  readonly #lines = new LineSplitter();
  #operation: Operation = "none";
  #getErrno = 0;
  /** Bytes since the last request began, about. */
  #bytes = 0;
  readonly #bytesMax: number;

  constructor(
    connection: UapiConnection,
    sink: UapiSink,
    source: UapiSource,
    bytesMax: number,
  ) {
    this.#bytesMax = bytesMax;
    this.#write = (text) => connection.write(text);
    this.#sink = sink;
    this.#set = new UapiSetParser(sink);
    this.#source = source;
  }

  /** Handles a piece of input; false when the connection is to be closed. */
  async handle(chunk: Uint8Array): Promise<boolean> {
    this.#bytes += chunk.length;
    if (this.#bytes > this.#bytesMax) return await this.#refuse();
    this.#lines.push(chunk);
    if (this.#operation === "set") {
      await this.#settled();
      this.#set.resume();
    }
    for (;;) {
      let line: string | null;
      try {
        line = this.#lines.next();
      } catch (error) {
        if (!(error instanceof LineTooLongError)) throw error;
        return await this.#refuse();
      }
      if (line === null) return true;
      const goesOn = this.#line(line);
      if (!(typeof goesOn === "boolean" ? goesOn : await goesOn)) return false;
    }
  }

  /** Ends what is no request of ours. */
  async #refuse(): Promise<false> {
    if (this.#operation === "set") {
      this.#set.end();
      await this.#write(`errno=${-UAPI_ERRNO.EPROTO}\n\n`);
    }
    return false;
  }

  /** Ends a set request that the end of the input ends, as wireguard-go does. */
  async end(): Promise<void> {
    if (this.#operation === "set") await this.#finish();
  }

  /** Waits until nobody else's change of many peers is under way. */
  async #settled(): Promise<void> {
    for (let busy; (busy = this.#sink.settled()) !== undefined;) await busy;
  }

  /** A promise only where there is something to wait for: lines are many. */
  #line(line: string): boolean | Promise<boolean> {
    if (this.#operation === "none") {
      const operation = OPERATIONS.get(line);
      if (operation === undefined) return false;
      this.#operation = operation;
      this.#getErrno = 0;
      if (line === "get=1" || this.#sink.settled() === undefined) return true;
      return this.#settled().then(() => true);
    }
    if (line === "") return this.#finish().then(() => true);
    if (this.#operation !== "set") {
      this.#getErrno = UAPI_ERRNO.EINVAL;
      return true;
    }
    const errno = this.#set.line(line);
    if (typeof errno === "number") return true;
    return errno.then(() => this.#settled()).then(() => {
      this.#set.resume();
      return true;
    });
  }

  async #finish(): Promise<void> {
    const operation = this.#operation;
    this.#operation = "none";
    this.#bytes = 0;
    if (operation === "set") {
      const errno = this.#set.end();
      await this.#write(`errno=${errno === 0 ? 0 : -errno}\n\n`);
    } else if (this.#getErrno !== 0) {
      await this.#write(`errno=${this.#getErrno}\n\n`);
    } else if (operation === "stats") {
      await this.#write(formatStats(this.#source));
    } else {
      for (const text of formatGet(this.#source)) await this.#write(text);
    }
  }
}

/**
 * Serves requests until the client closes the connection or sends what is no
 * request; the caller then closes it. Several connections may be served at
 * once. Rejects only with what `write`, `input` or the device throws.
 *
 * @param bytesMax no request is longer
 */
export async function serveUapi(
  connection: UapiConnection,
  sink: UapiSink,
  source: UapiSource,
  bytesMax = UAPI_REQUEST_MAX_BYTES,
): Promise<void> {
  const session = new Session(connection, sink, source, bytesMax);
  for await (const chunk of connection.input) {
    if (!await session.handle(chunk)) return;
  }
  await session.end();
}
