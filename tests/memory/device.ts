/**
 * Devices in memory: control, outbound and inbound of lib/ as they are, with
 * interfaces and sockets that are arrays, on a virtual clock. What the network
 * carries can be seen, changed, dropped and replayed.
 *
 * @module
 */
import { AllowedIpsReader } from "../../lib/allowedips.ts";
import {
  Arena,
  type ArenaLimits,
  BATCH,
  HEADER,
  THREAD_INBOUND,
  THREAD_OUTBOUND,
} from "../../lib/arena.ts";
import { Control } from "../../lib/control.ts";
import { type CounterName, readCounters } from "../../lib/counters.ts";
import { createAead } from "../../lib/crypto/aead.ts";
import { LaneWaker } from "../../lib/crypt.ts";
import { createChecksum } from "../../lib/crypto/checksum.ts";
import { describeEndpoint, fillEndpoint } from "../../lib/endpoint.ts";
import type {
  DatagramReceiver,
  DatagramSender,
  TunOffloads,
  TunPort,
} from "../../lib/io.ts";
import { type FillRandom, IndexReader } from "../../lib/peerlookup.ts";
import { Waker } from "../../lib/queueing.ts";
import { Inbound } from "../../lib/receive.ts";
import { ENDPOINT } from "../../lib/records.ts";
import { VNET_HEADER } from "../../lib/segments.ts";
import { Outbound } from "../../lib/send.ts";
import type { TimestampFloor } from "../../lib/tai64n.ts";

/** What a device in memory reserves unless told otherwise. */
export const LIMITS: ArenaLimits = {
  peers: 64,
  allowedIpNodes: 256,
  sessions: 64,
  txSlots: 512,
};
const MTU = 1420;
const START_MS = 1_000_000;
const WALL_OFFSET_MS = 1_700_000_000_000;
/** Interface that every datagram comes in on. */
const IFINDEX = 7;

/** A datagram on its way. */
export interface Datagram {
  from: string;
  to: string;
  ds: number;
  /** Whether it was sent from a sticky source. */
  sticky: boolean;
  bytes: Uint8Array;
}

/** Sees each datagram; returns those that go on, in order. */
export type Wire = (datagram: Datagram) => Datagram[];

/** The network and the clock that its devices share. */
export class Network {
  nowMs = START_MS;
  /** Added to boot time to give wall time. */
  wallOffsetMs = WALL_OFFSET_MS;
  readonly devices = new Map<string, MemoryDevice>();
  /** Everything sent, in order. */
  readonly log: Datagram[] = [];
  wire: Wire = (datagram) => [datagram];
  readonly #late: { atMs: number; datagram: Datagram }[] = [];

  /** Carries one datagram to the device that has its address. */
  send(datagram: Datagram): void {
    this.log.push(datagram);
    for (const arrived of this.wire(datagram)) this.inject(arrived);
  }

  /** Delivers a datagram without logging it. */
  inject(datagram: Datagram): void {
    this.devices.get(datagram.to)?.incoming.push(datagram);
  }

  /** Delivers a datagram, unlogged, once the clock has gone on by `ms`. */
  later(datagram: Datagram, ms: number): void {
    this.#late.push({ atMs: this.nowMs + ms, datagram });
  }

  /** Milliseconds until a datagram arrives that is on its way; `limitMs` at most. */
  sleepMs(limitMs: number): number {
    return this.#late.reduce(
      (ms, { atMs }) => Math.min(ms, atMs - this.nowMs),
      limitMs,
    );
  }

  /** Lets all devices work until none has anything to do. */
  settle(): void {
    for (const { atMs, datagram } of this.#late.splice(0)) {
      if (atMs <= this.nowMs) this.inject(datagram);
      else this.#late.push({ atMs, datagram });
    }
    const devices = [...new Set(this.devices.values())];
    for (const device of devices) device.tick();
    while (devices.map((device) => device.pump()).some((worked) => worked));
  }

  /** Moves the clock on in steps, and lets all devices work after each. */
  advance(ms: number, stepMs = 20): void {
    this.settle();
    for (const end = this.nowMs + ms; this.nowMs < end;) {
      this.nowMs = Math.min(end, this.nowMs + stepMs);
      this.settle();
    }
  }

  /** Types of the messages sent since `from`, as their first bytes. */
  types(from = 0): number[] {
    return this.log.slice(from).map((datagram) => datagram.bytes[0]);
  }
}

/** What a device in memory may be given. */
export interface MemoryDeviceOptions {
  /** Random bytes of control's; else the system's. */
  readonly fillRandom?: FillRandom;
  /** Where timestamps go on from. */
  readonly timestamps?: TimestampFloor;
  /** Super-packets: then frames to send begin with their vnet headers. */
  readonly offloads?: TunOffloads;
}

/** One device, in one thread. */
export class MemoryDevice implements TunPort {
  readonly arena: Arena;
  readonly control: Control;
  readonly outbound: Outbound;
  readonly inbound: Inbound;
  /** Datagrams that arrived and are not read yet. */
  readonly incoming: Datagram[] = [];
  /** Packets to read from the interface. */
  readonly toSend: Uint8Array[] = [];
  /** Packets written to the interface. */
  readonly delivered: Uint8Array[] = [];
  readonly offloads: TunOffloads | undefined;
  /** Packets written in pieces come with their vnet headers. */
  readonly vector = {
    append: (offset: number, length: number): void => {
      this.#pieces.push(this.arena.u8.slice(offset, offset + length));
    },
    write: (): number => {
      const pieces = this.#pieces.splice(0);
      if (this.writeError !== 0) return this.writeError;
      this.#deliver(Uint8Array.from(pieces.flatMap((bytes) => [...bytes])));
      return 0;
    },
  };
  readonly #pieces: Uint8Array[] = [];
  /** What this device's wall clock is ahead of the network's. */
  wallSkewMs = 0;
  /** Called with each packet written to the interface. */
  onDelivery: (packet: Uint8Array) => void = () => {};
  /** Error number with which sending fails, 0: none. */
  sendError = 0;
  /** Whether the system refuses the sticky source of what is sent. */
  refusesSource = false;
  /** Error number with which writing to the interface fails, 0: none. */
  writeError = 0;
  /** Called when control asks for the wall clock: in the middle of its work. */
  onWallClock: () => void = () => {};
  /** Called when outbound reads from the interface. */
  onRead: () => void = () => {};
  #outboundAwake = true;
  #inboundAwake = false;
  /** What lanes wake. */
  readonly wakers: { outbound: Waker; inbound: Waker };
  #controlAwake = true;

  /** @param address own address and port as `a.b.c.d:port` */
  constructor(
    readonly network: Network,
    public address: string,
    limits: ArenaLimits = LIMITS,
    lanes = 0,
    options: MemoryDeviceOptions = {},
  ) {
    network.devices.set(address, this);
    this.offloads = options.offloads;
    const arena = this.arena = new Arena(limits);
    arena.i32[HEADER.MTU] = MTU;
    const outbound = new Waker(
      arena,
      HEADER.OUTBOUND_SLEEPS,
      () => this.#outboundAwake = true,
    );
    const inbound = new Waker(
      arena,
      HEADER.INBOUND_SLEEPS,
      () => this.#inboundAwake = true,
    );
    this.wakers = { outbound, inbound };
    const control = new Waker(
      arena,
      HEADER.CONTROL_SLEEPS,
      () => this.#controlAwake = true,
    );
    this.control = new Control({
      arena,
      fillRandom: options.fillRandom ??
        ((bytes) => crypto.getRandomValues(bytes)),
      timestamps: options.timestamps,
      nowMs: () => network.nowMs,
      wallMs: () => {
        this.onWallClock();
        return network.nowMs + network.wallOffsetMs + this.wallSkewMs;
      },
      outbound,
      more: () => this.#controlAwake = true,
    });
    const allowedIps = new AllowedIpsReader(arena);
    const part = (thread: number) => ({
      arena,
      allowedIps,
      tun: this,
      control,
      checksum: createChecksum(arena.memory),
      aead: createAead(arena.memory, arena.work(thread), "auto"),
      lanes: new LaneWaker(arena, lanes),
    });
    this.outbound = new Outbound({
      ...part(THREAD_OUTBOUND),
      sender: new MemorySender(this),
    });
    this.inbound = new Inbound({
      ...part(THREAD_INBOUND),
      indexTable: new IndexReader(arena),
      receiver: new MemoryReceiver(this),
    });
  }

  /** Changes the device's address: it roams. */
  move(address: string): void {
    this.network.devices.delete(this.address);
    this.address = address;
    this.network.devices.set(address, this);
  }

  /** The clock moved on: control looks at its timers. */
  tick(): void {
    this.#controlAwake = this.control.pump();
    this.#sleep();
  }

  /**
   * One turn of all three, each only if it was woken or has something to read,
   * so that a wake-up that is left out shows. Whether any had work.
   */
  pump(): boolean {
    const { nowMs } = this.network;
    let worked = false;
    // A loop that is blocked sleeps on, whatever there is to read.
    const { inbound, outbound } = this;
    if (
      this.#inboundAwake || (this.incoming.length > 0 && !inbound.blocked)
    ) {
      this.#inboundAwake = false;
      inbound.pump(nowMs);
      worked = true;
    }
    if (
      this.#outboundAwake || (this.toSend.length > 0 && !outbound.blocked)
    ) {
      this.#outboundAwake = this.outbound.pump(nowMs);
      worked = true;
    }
    if (this.#controlAwake) {
      this.#controlAwake = this.control.pump();
      worked = true;
    }
    this.#sleep();
    return worked;
  }

  #sleep(): void {
    const { i32 } = this.arena;
    i32[HEADER.OUTBOUND_SLEEPS] = this.#outboundAwake ? 0 : 1;
    i32[HEADER.INBOUND_SLEEPS] = this.#inboundAwake ? 0 : 1;
    i32[HEADER.CONTROL_SLEEPS] = this.#controlAwake ? 0 : 1;
  }

  read(offset: number, capacity: number): number {
    this.onRead();
    const packet = this.toSend.shift();
    if (packet === undefined) return 0;
    const header = this.offloads === undefined ? 0 : VNET_HEADER;
    const bytes = packet.subarray(0, header + capacity);
    this.arena.u8.set(bytes, offset - header);
    return packet.length - header;
  }

  write(offset: number, length: number): number {
    if (this.writeError !== 0) return this.writeError;
    this.#deliver(this.arena.u8.slice(offset, offset + length));
    return 0;
  }

  #deliver(packet: Uint8Array): void {
    this.delivered.push(packet);
    this.onDelivery(packet);
  }

  /** Counters that are not zero, packets aside. */
  counters(): Partial<Record<CounterName, number>> {
    return Object.fromEntries(
      Object.entries(readCounters(this.arena)).filter(([name, value]) =>
        value !== 0 && name !== "tx_packets" && name !== "rx_packets"
      ),
    );
  }

  /** Closes the device and gives the objects and slots that are left: none. */
  close(): Record<string, number> {
    this.control.close();
    for (let i = 0; i < 3; i++) this.network.settle();
    return {
      ...this.control.objects(),
      slots: this.outbound.slotsUsed + this.inbound.slotsUsed,
      chains: this.arena.i32[HEADER.OUTBOUND_CHAINS] +
        this.arena.i32[HEADER.INBOUND_CHAINS],
    };
  }
}

class MemorySender implements DatagramSender {
  readonly errors = new Int32Array(BATCH);
  readonly sourceForgotten = new Uint8Array(BATCH);
  readonly #device: MemoryDevice;
  readonly #blocks: number;
  readonly #batch: Datagram[] = [];

  constructor(device: MemoryDevice) {
    this.#device = device;
    // Behind the AEAD's descriptors.
    this.#blocks = (device.arena.work(THREAD_OUTBOUND) + 128 * 1024) / 4;
  }

  get endpointWord(): number {
    return this.#blocks + this.#batch.length * ENDPOINT.WORDS;
  }

  get count(): number {
    return this.#batch.length;
  }

  readonly segments = false;

  get full(): boolean {
    return this.#batch.length === BATCH;
  }

  append(): void {
    throw new Error("one datagram a message");
  }

  setSize(): void {
    throw new Error("one datagram a message");
  }

  add(offset: number, length: number, ds: number): void {
    const { arena, address } = this.#device;
    const { endpointWord } = this;
    const to = describeEndpoint(arena, endpointWord);
    if (to === undefined) throw new Error("a datagram without an address");
    this.#batch.push({
      from: address,
      to: `${to.address.join(".")}:${to.port}`,
      ds,
      sticky: arena.i32[endpointWord + ENDPOINT.IFINDEX] !== 0,
      bytes: arena.u8.slice(offset, offset + length),
    });
  }

  flush(): void {
    const { network, sendError, refusesSource } = this.#device;
    this.#batch.forEach((datagram, i) => {
      this.errors[i] = sendError;
      this.sourceForgotten[i] = refusesSource && datagram.sticky ? 1 : 0;
      if (sendError === 0) network.send(datagram);
    });
    this.#batch.length = 0;
  }
}

class MemoryReceiver implements DatagramReceiver {
  readonly #device: MemoryDevice;
  readonly #lengths = new Int32Array(BATCH);
  readonly #ds = new Uint8Array(BATCH);

  constructor(device: MemoryDevice) {
    this.#device = device;
  }

  receive(slots: Int32Array, count: number): number {
    const { arena, incoming } = this.#device;
    const n = Math.min(count, incoming.length);
    for (let i = 0; i < n; i++) {
      const { bytes, from, to, ds } = incoming[i];
      this.#ds[i] = ds;
      arena.u8.set(bytes, arena.rxPayload(slots[i]));
      this.#lengths[i] = bytes.length;
      const word = arena.rxEndpoint(slots[i]);
      // The sticky source: the address and interface that it came in on.
      fillEndpoint(arena, word, parseAddress(to).address, 0, 0);
      const own = word + ENDPOINT.ADDRESS;
      const source = arena.i32.slice(own, own + 4);
      const { address, port } = parseAddress(from);
      fillEndpoint(arena, word, address, port, 0);
      arena.i32[word + ENDPOINT.IFINDEX] = IFINDEX;
      arena.i32.set(source, word + ENDPOINT.SOURCE);
    }
    incoming.splice(0, n);
    return n;
  }

  size(_i: number): number {
    return 0;
  }

  ds(i: number): number {
    return this.#ds[i];
  }

  length(i: number): number {
    return this.#lengths[i];
  }
}

/** Splits `a.b.c.d:port`. */
export function parseAddress(
  text: string,
): { address: Uint8Array; port: number } {
  const [host, port] = text.split(":");
  return {
    address: Uint8Array.from(host.split("."), Number),
    port: Number(port),
  };
}
