/**
 * The mixer's UDP flows. A datagram names its flow, its number there and its
 * length; the rest is what these stand for, so that every byte is known to who
 * receives it. Those too short for that are known by their length alone.
 */
import { Buffer } from "node:buffer";
import { check, libc } from "../../lib/sys/libc.ts";
import { content, mix, type Random } from "./mixer_content.ts";

/** One side's flows. */
export interface UdpReport {
  /** Without the short ones. */
  sent: number;
  sentShort: number;
  /** Refused by the system when sent. */
  refused: number;
  received: number;
  receivedShort: number;
  /** Flows by which something came. */
  flows: number;
  duplicates: number;
  /** Datagrams with a number below one that came before. */
  late: number;
  corrupted: number;
  readonly samples: string[];
}

const HEADER_BYTES = 16;
const FULL = { v4: 1420 - 28, v6: 1420 - 48 } as const;
const FRAGMENTED_MAX = 8_000;
const BURST_MAX = 24;
const PAUSE_MAX_MS = 12;
const TRAIN_MIN = 60;
const TRAIN_SEGMENTS_MAX = 40;
const SAMPLES_MAX = 10;
const SEQUENCE_BITS = 24;
const BITMAP_BYTES = 1 << (SEQUENCE_BITS - 3);
const BUFFER_BYTES = 8 << 20;
const SOL_SOCKET = 1;
const SO_RCVBUFFORCE = 33;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const AF_INET = 2;
const AF_INET6 = 10;
const FD_MAX = 1024;
/** Set in the numbers of the flows that the server sends. */
export const BACKWARD = 0x8000_0000;

/** A socket with a large buffer. @param port 0: any */
export function listen(family: "v4" | "v6", port: number): Deno.DatagramConn {
  const hostname = family === "v4" ? "0.0.0.0" : "::";
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
  setOption(socket, family, SOL_SOCKET, SO_RCVBUFFORCE, BUFFER_BYTES);
  return socket;
}

/** The flows of one side. */
export class Flows {
  readonly #report: UdpReport = {
    sent: 0,
    sentShort: 0,
    refused: 0,
    received: 0,
    receivedShort: 0,
    flows: 0,
    duplicates: 0,
    late: 0,
    corrupted: 0,
    samples: [],
  };
  readonly #seen = new Map<number, Seen>();
  /**
   * The last datagram that each socket was given: of several that wait for room
   * in one, Deno tells the last alone that there is some.
   */
  readonly #last = new WeakMap<Deno.DatagramConn, Promise<void>>();

  /** What came of it. */
  report(): UdpReport {
    return { ...this.#report, flows: this.#seen.size };
  }

  /**
   * Sends a flow until `untilMs`. Flows with odd numbers send by UDP_SEGMENT
   * from a socket of their own: `socket` must be one that is bound anew.
   */
  async send(
    flow: number,
    socket: Deno.DatagramConn,
    to: Deno.NetAddr,
    random: Random,
    untilMs: number,
  ): Promise<void> {
    const family = to.hostname.includes(":") ? "v6" : "v4";
    const train = flow % 2 === 1;
    const segment = train ? random.between(TRAIN_MIN, FULL[family]) : 0;
    if (train) setOption(socket, family, SOL_UDP, UDP_SEGMENT, segment);
    const buffer = new Uint8Array(TRAIN_SEGMENTS_MAX * FULL.v4);
    let sequence = 0;
    while (Date.now() < untilMs) {
      if (train) {
        const count = random.between(1, TRAIN_SEGMENTS_MAX);
        const last = random.between(HEADER_BYTES, segment);
        for (let i = 0; i < count; i++) {
          const length = i < count - 1 ? segment : last;
          write(buffer.subarray(i * segment), flow, sequence++, length);
        }
        const bytes = buffer.subarray(0, (count - 1) * segment + last);
        await this.#sendOne(socket, bytes, to, count);
      } else {
        const burst = random.magnitude(BURST_MAX);
        for (let i = 0; i < burst; i++) {
          const length = randomLength(random, FULL[family]);
          if (length < HEADER_BYTES) {
            this.#report.sentShort++;
            await this.#sendOne(socket, short(length), to, 0);
          } else {
            const bytes = buffer.subarray(0, length);
            write(bytes, flow, sequence++, length);
            await this.#sendOne(socket, bytes, to, 1);
          }
        }
      }
      await new Promise((done) => setTimeout(done, random.below(PAUSE_MAX_MS)));
    }
  }

  #sendOne(
    socket: Deno.DatagramConn,
    bytes: Uint8Array,
    to: Deno.NetAddr,
    count: number,
  ): Promise<void> {
    const before = this.#last.get(socket) ?? Promise.resolve();
    const sent = before.then(() => this.#sendNow(socket, bytes, to, count));
    this.#last.set(socket, sent);
    return sent;
  }

  async #sendNow(
    socket: Deno.DatagramConn,
    bytes: Uint8Array,
    to: Deno.NetAddr,
    count: number,
  ): Promise<void> {
    try {
      await socket.send(bytes, to);
      this.#report.sent += count;
    } catch (error) {
      this.#report.refused++;
      this.#sample(`sent ${bytes.length} bytes: ${error}`);
    }
  }

  /** Looks at a datagram. @returns its flow when it is the first of it */
  take(bytes: Uint8Array): number | undefined {
    const { length } = bytes;
    if (length < HEADER_BYTES) {
      if (Buffer.compare(bytes, short(length)) === 0) {
        this.#report.receivedShort++;
      } else this.#corrupted(bytes);
      return;
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const flow = view.getUint32(0);
    const sequence = view.getUint32(4);
    const place = placeOf(flow, sequence, length);
    const body = bytes.subarray(HEADER_BYTES);
    if (
      view.getUint32(8) !== length || view.getUint32(12) !== place ||
      sequence >= 1 << SEQUENCE_BITS ||
      Buffer.compare(body, content(place, body.length)) !== 0
    ) {
      this.#corrupted(bytes);
      return;
    }
    this.#report.received++;
    let seen = this.#seen.get(flow);
    const first = seen === undefined;
    if (seen === undefined) {
      seen = { bits: new Uint8Array(BITMAP_BYTES), highest: -1 };
      this.#seen.set(flow, seen);
    }
    const bit = 1 << (sequence & 7);
    if ((seen.bits[sequence >> 3] & bit) !== 0) {
      this.#report.duplicates++;
      this.#sample(`flow ${flow}: number ${sequence} came again`);
    }
    seen.bits[sequence >> 3] |= bit;
    if (sequence < seen.highest) this.#report.late++;
    else seen.highest = sequence;
    return first ? flow : undefined;
  }

  #corrupted(bytes: Uint8Array): void {
    this.#report.corrupted++;
    this.#sample(
      `${bytes.length} wrong bytes: ${bytes.subarray(0, 64).toHex()}`,
    );
  }

  #sample(text: string): void {
    const { samples } = this.#report;
    if (samples.length < SAMPLES_MAX) samples.push(text);
  }
}

/** The numbers of a flow that came. */
interface Seen {
  readonly bits: Uint8Array;
  highest: number;
}

function placeOf(flow: number, sequence: number, length: number): number {
  return mix(mix(flow ^ mix(sequence)) ^ length);
}

function write(
  to: Uint8Array,
  flow: number,
  sequence: number,
  length: number,
): void {
  const view = new DataView(to.buffer, to.byteOffset);
  const place = placeOf(flow, sequence, length);
  view.setUint32(0, flow);
  view.setUint32(4, sequence);
  view.setUint32(8, length);
  view.setUint32(12, place);
  to.set(content(place, length - HEADER_BYTES), HEADER_BYTES);
}

function short(length: number): Uint8Array {
  return content(length, length);
}

function randomLength(random: Random, full: number): number {
  const kind = random.below(100);
  if (kind < 5) return random.below(HEADER_BYTES);
  if (kind < 35) return random.between(HEADER_BYTES, 100);
  if (kind < 75) return random.between(100, full);
  if (kind < 98) return full;
  return random.between(full + 1, FRAGMENTED_MAX);
}

function setOption(
  socket: Deno.DatagramConn,
  family: "v4" | "v6",
  level: number,
  name: number,
  value: number,
): void {
  const { port } = socket.addr as Deno.NetAddr;
  const fd = descriptor(family === "v4" ? AF_INET : AF_INET6, port);
  check(
    libc().setsockopt(fd, level, name, new Int32Array([value]), 4),
    `setsockopt ${level}/${name}`,
  );
}

/** Descriptor of this process's socket that is bound to a port. */
function descriptor(family: number, port: number): number {
  const address = new Uint8Array(28);
  for (let fd = 3; fd < FD_MAX; fd++) {
    const length = new Uint32Array([address.length]);
    if (
      libc().getsockname(fd, address, length) === 0 &&
      address[0] === family && ((address[2] << 8) | address[3]) === port
    ) return fd;
  }
  throw new Error(`no socket of port ${port}`);
}
