/**
 * Datagrams one by one, by `send` and `receive` of `Deno.listenDatagram`: the
 * second implementation of lib/io's DatagramSender and DatagramReceiver, for
 * where system calls on the socket's descriptor are not to be had. It works on
 * the thread that opened the socket, copies each datagram, and knows neither
 * sticky sources nor DS fields nor marks.
 *
 * @module
 */
import {
  type Arena,
  BATCH,
  SLOT_BYTES,
  SLOT_HEADROOM,
  THREAD_OUTBOUND,
} from "./arena.ts";
import { describeEndpoint, fillEndpoint } from "./endpoint.ts";
import type { DatagramReceiver, DatagramSender } from "./io.ts";
import { formatIp, parseIp } from "./ip.ts";
import { ENDPOINT } from "./records.ts";
import { ERRNO, SysError } from "./sys/libc.ts";

/** Datagrams received and not read yet: what a socket's buffer is otherwise. */
const RECEIVED_MAX = 1024;
/** Datagrams being sent at a time. */
const SENDING_MAX = 1024;
/** Place of the endpoint blocks in outbound's scratch area. */
const BLOCKS_AT = 192 * 1024;

interface Received {
  readonly bytes: Uint8Array;
  readonly address: Uint8Array;
  readonly port: number;
}

/** One socket of both families, or of IPv4 where IPv6 is absent. */
export class PlainDatagrams implements DatagramSender, DatagramReceiver {
  readonly errors: Int32Array = new Int32Array(BATCH);
  readonly sourceForgotten: Uint8Array = new Uint8Array(BATCH);
  readonly sender: DatagramSender = this;
  readonly receiver: DatagramReceiver = this;
  readonly #arena: Arena;
  readonly #signal: () => void;
  readonly #received: Received[] = [];
  readonly #lengths = new Int32Array(BATCH);
  readonly #batch: { bytes: Uint8Array<ArrayBuffer>; to: Deno.NetAddr }[] = [];
  readonly #sends = new Set<Promise<void>>();
  #listener: Deno.DatagramConn | undefined;
  #pumping: Promise<void> = Promise.resolve();
  #ending: Promise<unknown> = Promise.resolve();
  #dropped = 0;

  /** @param signal ends the loop's sleep: there is something to receive */
  constructor(arena: Arena, signal: () => void) {
    this.#arena = arena;
    this.#signal = signal;
  }

  /** Datagrams dropped because too many waited. */
  get dropped(): number {
    return this.#dropped;
  }

  /** Opens the socket, in place of the one before. @returns its port */
  open(port: number): number {
    let listener: Deno.DatagramConn;
    try {
      listener = listen("::", port);
    } catch (error) {
      if (error instanceof Deno.errors.AddrInUse) {
        throw new SysError(`UDP port ${port}`, ERRNO.EADDRINUSE);
      }
      listener = listen("0.0.0.0", port);
    }
    this.close();
    this.#listener = listener;
    this.#pumping = this.#pump(listener);
    return (listener.addr as Deno.NetAddr).port;
  }

  /** Closes the socket. */
  close(): void {
    if (this.#listener !== undefined) {
      this.#listener.close();
      // What is under way on it holds it, and its port.
      this.#ending = Promise.all([
        this.#ending,
        this.#pumping,
        ...this.#sends,
      ]);
    }
    this.#listener = undefined;
    this.#received.length = 0;
  }

  /** Resolves when the ports of sockets that were closed are free. */
  async settled(): Promise<void> {
    await this.#ending;
  }

  async #pump(listener: Deno.DatagramConn): Promise<void> {
    for await (const [bytes, from] of listener) {
      const { hostname, port } = from as Deno.NetAddr;
      const address = parseIp(hostname);
      if (address === null || this.#received.length >= RECEIVED_MAX) {
        this.#dropped++;
        continue;
      }
      this.#received.push({ bytes, address, port });
      if (this.#received.length === 1) this.#signal();
    }
  }

  get endpointWord(): number {
    return (this.#arena.work(THREAD_OUTBOUND) + BLOCKS_AT) / 4 +
      this.#batch.length * ENDPOINT.WORDS;
  }

  get count(): number {
    return this.#batch.length;
  }

  readonly segments = false;

  get full(): boolean {
    return this.#batch.length === BATCH;
  }

  /** Never called: `segments` is false. */
  append(): void {}

  /** Never called either. */
  setSize(): void {}

  add(offset: number, length: number, _ds: number): void {
    const to = describeEndpoint(this.#arena, this.endpointWord);
    this.#batch.push({
      bytes: new Uint8Array(this.#arena.u8.subarray(offset, offset + length)),
      to: {
        transport: "udp",
        hostname: to === undefined ? "" : formatIp(to.address),
        port: to?.port ?? 0,
      },
    });
  }

  flush(): void {
    this.sourceForgotten.fill(0);
    this.#batch.forEach(({ bytes, to }, i) => {
      this.errors[i] = this.#send(bytes, to);
    });
    this.#batch.length = 0;
  }

  #send(bytes: Uint8Array<ArrayBuffer>, to: Deno.NetAddr): number {
    if (this.#listener === undefined) return ERRNO.ENETUNREACH;
    if (this.#sends.size >= SENDING_MAX) return ERRNO.ENOBUFS;
    const done: Promise<void> = this.#listener.send(bytes, to)
      .then(() => {}, () => void this.#dropped++)
      .finally(() => void this.#sends.delete(done));
    this.#sends.add(done);
    return 0;
  }

  receive(slots: Int32Array, count: number): number {
    const n = Math.min(count, this.#received.length);
    for (let i = 0; i < n; i++) {
      const { bytes, address, port } = this.#received[i];
      const fits = bytes.length <= SLOT_BYTES - 2 * SLOT_HEADROOM;
      this.#lengths[i] = fits ? bytes.length : 0;
      if (fits) this.#arena.u8.set(bytes, this.#arena.rxPayload(slots[i]));
      fillEndpoint(
        this.#arena,
        this.#arena.rxEndpoint(slots[i]),
        address,
        port,
        0,
      );
    }
    this.#received.splice(0, n);
    return n;
  }

  length(i: number): number {
    return this.#lengths[i];
  }

  size(_i: number): number {
    return 0;
  }

  ds(_i: number): number {
    return 0;
  }
}

function listen(hostname: string, port: number): Deno.DatagramConn {
  return Deno.listenDatagram({ transport: "udp", hostname, port });
}
