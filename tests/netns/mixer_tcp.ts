/**
 * The mixer's TCP streams. A stream is its length, its bytes and their SHA-256,
 * then the end; both directions of a connection carry one at once.
 */
import { createHash } from "node:crypto";
import { content, PIECE_MAX, type Random } from "./mixer_content.ts";

/** What became of one side's streams of one direction. */
export interface StreamTotals {
  streams: number;
  bytes: number;
  /** All streams' hashes, combined: the same on both sides, in any order. */
  digest: string;
}

/** One side's streams. */
export interface TcpReport {
  readonly sent: StreamTotals;
  readonly received: StreamTotals;
  readonly failures: string[];
}

const LENGTH_BYTES = 4;
const HASH_BYTES = 32;
const STREAM_MAX = 8 << 20;
/** Streams written by the byte or so are shorter. */
const TRICKLE_MAX = 32 << 10;
const READ_BYTES = 128 << 10;
const FAILURES_MAX = 20;

/** Ways to write: the longest piece, and the longest stream. */
const WAYS = [
  { piece: 100, stream: TRICKLE_MAX },
  { piece: 3_000, stream: STREAM_MAX / 8 },
  { piece: 64 << 10, stream: STREAM_MAX },
  { piece: PIECE_MAX, stream: STREAM_MAX },
] as const;

/** The streams of one side, counted. */
export class Streams {
  readonly #sent = new Totals();
  readonly #received = new Totals();
  readonly #failures: string[] = [];
  readonly #open = new Set<string>();

  /** Sends and receives by `connection`, then closes it. Never throws. */
  async exchange(connection: Deno.TcpConn, random: Random): Promise<void> {
    const { localAddr, remoteAddr } = connection;
    const name = `${text(localAddr)} ${text(remoteAddr)}`;
    this.#open.add(name);
    try {
      connection.setNoDelay(random.below(2) === 0);
      await Promise.all([
        this.#send(connection, random),
        this.#take(connection),
      ]);
    } catch (error) {
      this.fail(`${name}: ${error instanceof Error ? error.message : error}`);
    } finally {
      connection.close();
      this.#open.delete(name);
    }
  }

  /** Notes that something went wrong. */
  fail(what: string): void {
    if (this.#failures.length < FAILURES_MAX) this.#failures.push(what);
  }

  /** Connections that have not ended. */
  get open(): readonly string[] {
    return [...this.#open];
  }

  /** What came of it. */
  report(): TcpReport {
    return {
      sent: this.#sent.totals(),
      received: this.#received.totals(),
      failures: this.#failures,
    };
  }

  async #send(connection: Deno.TcpConn, random: Random): Promise<void> {
    const way = WAYS[random.below(WAYS.length)];
    const length = random.magnitude(way.stream);
    const hash = createHash("sha256");
    const head = new Uint8Array(LENGTH_BYTES);
    new DataView(head.buffer).setUint32(0, length);
    await writeAll(connection, head);
    for (let sent = 0; sent < length;) {
      const size = Math.min(random.between(1, way.piece), length - sent);
      const piece = content(random.next(), size);
      hash.update(piece);
      await writeAll(connection, piece);
      sent += size;
    }
    const digest = hash.digest();
    await writeAll(connection, digest);
    await connection.closeWrite();
    this.#sent.add(length, digest);
  }

  async #take(connection: Deno.TcpConn): Promise<void> {
    const head = new Uint8Array(LENGTH_BYTES);
    await readAll(connection, head);
    const length = new DataView(head.buffer).getUint32(0);
    if (length > STREAM_MAX) throw new Error(`a stream of ${length} bytes`);
    const hash = createHash("sha256");
    const buffer = new Uint8Array(READ_BYTES);
    for (let left = length; left > 0;) {
      const n = await connection.read(buffer.subarray(0, left));
      if (n === null) throw new Error(`${left} of ${length} bytes are missing`);
      hash.update(buffer.subarray(0, n));
      left -= n;
    }
    const digest = hash.digest();
    const said = new Uint8Array(HASH_BYTES);
    await readAll(connection, said);
    if (!digest.equals(said)) {
      throw new Error(`${length} bytes came with another hash`);
    }
    if (await connection.read(head) !== null) {
      throw new Error(`more than ${length} bytes came`);
    }
    this.#received.add(length, digest);
  }
}

/** Sums of one direction. */
class Totals {
  #streams = 0;
  #bytes = 0;
  readonly #digest = new Uint8Array(HASH_BYTES);

  add(length: number, digest: Uint8Array): void {
    this.#streams++;
    this.#bytes += length;
    for (let i = 0; i < HASH_BYTES; i++) this.#digest[i] ^= digest[i];
  }

  totals(): StreamTotals {
    return {
      streams: this.#streams,
      bytes: this.#bytes,
      digest: this.#digest.toHex(),
    };
  }
}

/** Writes all of `bytes`. */
export async function writeAll(
  connection: Deno.TcpConn,
  bytes: Uint8Array,
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    at += await connection.write(bytes.subarray(at));
  }
}

/** Fills `bytes`. @throws Error at the end of the stream */
async function readAll(
  connection: Deno.TcpConn,
  bytes: Uint8Array,
): Promise<void> {
  for (let at = 0; at < bytes.length;) {
    const n = await connection.read(bytes.subarray(at));
    if (n === null) throw new Error("ended early");
    at += n;
  }
}

function text(address: Deno.Addr): string {
  return "hostname" in address ? `${address.hostname}:${address.port}` : "";
}
