/**
 * The world of a soak: three devices that all know each other, the wire between
 * them with its faults, what an operator has set, and a clock that skips what
 * nobody waits for. Everything comes from one seed.
 *
 * @module
 */
import { SeededRandom } from "../../lib/selftest/random.ts";
import type { TimestampFloor } from "../../lib/tai64n.ts";
import { SAVE_INTERVAL_MS } from "../../lib/timestamp_store.ts";
import {
  type Datagram,
  MemoryDevice,
  Network,
  parseAddress,
} from "../memory/device.ts";
import { endpointOf, setEndpoint } from "../memory/pair.ts";
import { Violation, Watch, type Watched } from "./watch.ts";

const NAMES = ["a", "b", "c"] as const;
/** A device whose peers and packets are few. */
const LIMITS = { peers: 8, allowedIpNodes: 64, sessions: 8, txSlots: 400 };
/** Where somebody sits who replays and sends on what was sent. */
const ATTACKER = "203.0.113.9:9";
/** Old datagrams that are kept for replays. */
const KEPT_MAX = 256;
const REORDERED_MS = 2_000;
/** Longest time that a datagram is on its way. */
export const LATE_MAX_MS = REORDERED_MS + 200;
const PROTOCOL_ICMP = 1;
const FLOOD = 700;
const TRACE_MAX = 40;
const CLEAN = { loss: 0, duplicate: 0, reorder: 0, corrupt: 0, latencyMs: 20 };

/** What the wire does, as shares of 1. */
export type Wire = { -readonly [K in keyof typeof CLEAN]: number };

/** What a soak may do besides, to show that the watch sees it. */
export interface Sabotage {
  /** What the watch is told instead of a packet delivered. */
  delivered?(side: Side, packet: Uint8Array): Uint8Array[];
  /** Called after each step. */
  step?(world: World): void;
  /** Whether a datagram is lost, even when faults have ceased. */
  loses?(datagram: Datagram): boolean;
}

/** What an operator has set for a peer. */
export interface Link {
  present: boolean;
  presharedKey: Uint8Array;
  keepaliveSeconds: number;
}

/** One device, and what its machine keeps over a restart. */
export interface Side extends Watched {
  device: MemoryDevice;
  readonly peers: number[];
  readonly links: Link[];
  readonly store: Store;
  privateKey: Uint8Array;
  up: boolean;
  /** The machine sleeps: it does nothing, and nothing reaches it. */
  suspended: boolean;
}

/** What lib/timestamp_store keeps, without a file. */
class Store {
  #savedMs = -Infinity;
  #lastMs = -Infinity;

  /** What a daemon that starts now reads. */
  open(wallMs: number): TimestampFloor {
    const behind = wallMs < this.#savedMs;
    return {
      floorMs: behind ? this.#savedMs + SAVE_INTERVAL_MS : -Infinity,
      used: (ms) => {
        this.#lastMs = ms;
        if (ms >= this.#savedMs + SAVE_INTERVAL_MS) this.#savedMs = ms;
      },
    };
  }

  /** A daemon ends well. */
  close(): void {
    this.#savedMs = Math.max(this.#savedMs, this.#lastMs);
  }
}

interface Kept {
  readonly datagram: Datagram;
  readonly to: number;
  /** Number of the packet in it, 0 for none. */
  readonly number: number;
}

/** The devices and what is between them. */
export class World {
  readonly random: SeededRandom;
  readonly network = new Network();
  readonly sides: Side[] = [];
  readonly watch: Watch;
  wire: Wire = { ...CLEAN };
  /** Directions, as `from << 4 | to`, in which nothing passes. */
  readonly blocked = new Set<number>();
  /** Called with each packet that arrived, and its ends. */
  onArrival: (from: number, to: number, number: number) => void = () => {};
  readonly counts: Record<string, number> = {};
  steps = 0;
  /** Of everything that left: the same for the same seed. */
  digest = 0;
  readonly #owners = new Map<string, number>();
  readonly #kept: Kept[] = [];
  readonly #agenda: { atMs: number; run: () => void }[] = [];
  readonly #trace: string[] = [];
  readonly #sabotage: Sabotage;
  readonly #startMs: number;
  #addresses = 0;
  #spoofed = false;

  constructor(seed: number, sabotage: Sabotage = {}) {
    this.random = new SeededRandom(seed);
    this.#sabotage = sabotage;
    const { network } = this;
    // Somewhere before the low 32 bits of the clock wrap, or half of them.
    network.nowMs = 2 ** (31 + this.random.below(2)) -
      this.random.below(4 * 86_400_000);
    this.#startMs = network.nowMs;
    network.wire = (datagram) => this.#carry(datagram);
    this.watch = new Watch(() => network.nowMs, this.sides);
    for (const [index, name] of NAMES.entries()) {
      const address = this.newAddress(index);
      const store = new Store();
      this.sides.push({
        index,
        name,
        inner: [10, 0, 0, index + 1],
        device: this.#newDevice(index, address, store),
        peers: NAMES.map(() => 0),
        links: NAMES.map((other) => ({
          present: other !== name,
          presharedKey: new Uint8Array(32),
          keepaliveSeconds: 0,
        })),
        store,
        privateKey: this.bytes(32),
        up: true,
        suspended: false,
      });
    }
    for (const side of this.sides) {
      side.device.control.setPrivateKey(side.privateKey);
    }
    for (const side of this.sides) this.#configure(side);
  }

  // ---- randomness, time ---------------------------------------------------

  get nowMs(): number {
    return this.network.nowMs;
  }

  /** Time since the soak began. */
  get elapsedMs(): number {
    return this.network.nowMs - this.#startMs;
  }

  bytes(count: number): Uint8Array {
    return this.random.fill(new Uint8Array(count));
  }

  chance(share: number): boolean {
    return this.random.word() < share * 2 ** 32;
  }

  any<T>(of: readonly T[]): T {
    return of[this.random.below(of.length)];
  }

  /** A number from `min` to `max`, small ones as likely as large ones. */
  between(min: number, max: number): number {
    const exponent = this.random.word() / 2 ** 32;
    return Math.round(min * (max / min) ** exponent);
  }

  /** Counts something that was done, and notes it for whoever looks at a finding. */
  note(kind: string, text = ""): void {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    const days = (this.elapsedMs / 86_400_000).toFixed(6);
    this.#trace.push(`day ${days}: ${kind} ${text}`.trimEnd());
    if (this.#trace.length > TRACE_MAX) this.#trace.shift();
  }

  /** What was done last. */
  get trace(): readonly string[] {
    return this.#trace;
  }

  /** Does something once the clock has gone on by `ms`. */
  after(ms: number, run: () => void): void {
    this.#agenda.push({ atMs: this.nowMs + Math.max(1, Math.round(ms)), run });
  }

  /** Lets `ms` pass, from each event to the next. */
  advance(ms: number): void {
    const endMs = this.nowMs + ms;
    // What was begun just now.
    this.settle();
    while (this.nowMs < endMs) {
      let sleepMs = this.network.sleepMs(endMs - this.nowMs);
      for (const side of this.sides) {
        if (side.suspended) continue;
        sleepMs = Math.min(sleepMs, side.device.control.sleepMs());
      }
      for (const { atMs } of this.#agenda) {
        sleepMs = Math.min(sleepMs, atMs - this.nowMs);
      }
      this.network.nowMs += Math.max(1, Math.ceil(sleepMs));
      this.#runAgenda();
      this.settle();
    }
  }

  #runAgenda(): void {
    for (let i = 0; i < this.#agenda.length;) {
      if (this.#agenda[i].atMs > this.nowMs) i++;
      else this.#agenda.splice(i, 1)[0].run();
    }
  }

  /** Lets the devices do what there is to do now, and looks at them. */
  settle(): void {
    this.network.settle();
    this.steps++;
    for (const side of this.sides) {
      if (!side.suspended) this.watch.step(side);
    }
    if (this.#spoofed) this.#checkEndpoints();
    this.#sabotage.step?.(this);
  }

  // ---- the wire -----------------------------------------------------------

  /** An address that no device had before. */
  newAddress(index: number): string {
    const n = ++this.#addresses;
    const address = `192.${n >> 16 & 255}.${n >> 8 & 255}.${n & 255}:51820`;
    this.#owners.set(address, index);
    return address;
  }

  /** The same address with another port. */
  newPort(index: number): string {
    const [host] = this.sides[index].device.address.split(":");
    const address = `${host}:${1024 + this.random.below(60_000)}`;
    this.#owners.set(address, index);
    return address;
  }

  #carry(datagram: Datagram): Datagram[] {
    const { network, wire } = this;
    network.log.length = 0;
    const from = this.#owners.get(datagram.from);
    if (from === undefined) throw new Error(`nobody is ${datagram.from}`);
    const number = this.watch.sent(this.sides[from], datagram);
    const { bytes } = datagram;
    const kind = ["", "initiations", "responses", "cookies", "data"][bytes[0]];
    this.#count(`sent ${kind}`);
    for (
      const word of [this.elapsedMs, from, bytes[0], bytes.length]
    ) this.digest = Math.imul(this.digest ^ word, 0x01000193) >>> 0;
    // What is sent to where nobody is: an old address, or the attacker's.
    const to = this.#owners.get(datagram.to);
    if (to === undefined) return [];
    this.#keep({ datagram, to, number });
    if (
      this.blocked.has(from << 4 | to) || this.chance(wire.loss) ||
      this.#sabotage.loses?.(datagram)
    ) return this.#count("wire: lost");
    const arriving = [datagram];
    if (this.chance(wire.duplicate)) {
      this.#count("wire: duplicated");
      arriving.push(datagram);
    }
    for (const one of arriving) {
      const changed = this.chance(wire.corrupt) ? this.#corrupt(one) : one;
      let ms = wire.latencyMs;
      if (this.chance(wire.reorder)) {
        this.#count("wire: reordered");
        ms += 1 + this.random.below(REORDERED_MS);
      }
      network.later(changed, ms);
    }
    return [];
  }

  #count(kind: string): [] {
    this.counts[kind] = (this.counts[kind] ?? 0) + 1;
    return [];
  }

  #corrupt(datagram: Datagram): Datagram {
    this.#count("wire: corrupted");
    let bytes = datagram.bytes.slice();
    if (this.chance(0.2)) bytes = bytes.slice(0, this.random.below(200));
    else bytes[this.random.below(bytes.length)] ^= 1 << this.random.below(8);
    return { ...datagram, bytes };
  }

  #keep(kept: Kept): void {
    if (this.#kept.length < KEPT_MAX) this.#kept.push(kept);
    else if (this.chance(0.1)) {
      this.#kept[this.random.below(KEPT_MAX)] = kept;
    }
  }

  /** Sends an old datagram again; from elsewhere, if it is known to be spent. */
  replay(): void {
    if (this.#kept.length === 0) return;
    const { datagram, to, number } = this.any(this.#kept);
    let { from } = datagram;
    if (number !== 0 && this.watch.isDelivered(number) && this.chance(0.5)) {
      from = ATTACKER;
      this.#spoofed = true;
    }
    this.#count("wire: replayed");
    const { address } = this.sides[to].device;
    this.network.inject({ ...datagram, from, to: address });
  }

  /** A flood of old handshake messages, which puts a device under load. */
  flood(): void {
    const one = this.#kept.filter(({ datagram }) => datagram.bytes[0] === 1);
    if (one.length === 0) return;
    const { datagram, to } = this.any(one);
    const { suspended, device } = this.sides[to];
    if (suspended) return;
    for (let i = 0; i < FLOOD; i++) {
      this.network.inject({ ...datagram, to: device.address });
    }
    // Control must see all of them at once.
    while (device.incoming.length > 0) device.inbound.pump(this.nowMs);
  }

  /** Nobody follows somebody who only sends again what was delivered. */
  #checkEndpoints(): void {
    this.#spoofed = false;
    for (const { device, peers, name } of this.sides) {
      for (const peer of peers) {
        if (peer === 0 || endpointOf(device, peer) !== ATTACKER) continue;
        throw new Violation(`${name} follows a replayed message`);
      }
    }
  }

  /** The wire has no faults from now on. */
  clean(): void {
    this.wire = { ...CLEAN };
    this.blocked.clear();
  }

  // ---- machines -----------------------------------------------------------

  #newDevice(index: number, address: string, store: Store): MemoryDevice {
    const { network } = this;
    const wallMs = network.nowMs + network.wallOffsetMs;
    const skewMs = this.sides[index]?.device.wallSkewMs ?? 0;
    const device = new MemoryDevice(network, address, LIMITS, 0, {
      fillRandom: (bytes) => this.random.fill(bytes),
      timestamps: store.open(wallMs + skewMs),
    });
    device.wallSkewMs = skewMs;
    device.onDelivery = (packet) => this.#arrived(index, packet);
    return device;
  }

  #arrived(index: number, packet: Uint8Array): void {
    const side = this.sides[index];
    side.device.delivered.length = 0;
    // The device itself tells its machine that there is no such peer.
    if (packet[9] === PROTOCOL_ICMP) return void this.#count("ICMP");
    const packets = this.#sabotage.delivered?.(side, packet) ?? [packet];
    for (const one of packets) {
      const number = this.watch.arrived(side, one);
      this.onArrival(one[15] - 1, index, number);
    }
  }

  /** Ends a device and starts it anew; `crash`: without any preparation. */
  restart(side: Side, crash: boolean): void {
    const { device, store } = side;
    const { address } = device;
    if (crash) this.network.devices.delete(address);
    else {
      this.#close(side);
      store.close();
    }
    side.device = this.#newDevice(side.index, address, store);
    side.device.control.setPrivateKey(side.privateKey);
    side.peers.fill(0);
    this.#configure(side);
  }

  /** Sets all that the operator has set. */
  #configure(side: Side): void {
    for (const other of this.sides) {
      if (other !== side && side.links[other.index].present) {
        this.addPeer(side, other);
      }
    }
    if (side.up) side.device.control.up();
  }

  /** Makes `other` a peer, as `side` knows it. */
  addPeer(side: Side, other: Side): void {
    const { control } = side.device;
    const { publicKey } = other.device.control;
    if (publicKey === null) throw new Error(`${other.name} has no key`);
    const peer = control.createPeer(publicKey);
    if (peer <= 0) throw new Violation(`${side.name} has no room for a peer`);
    const link = side.links[other.index];
    link.present = true;
    side.peers[other.index] = peer;
    control.allowedIps.insert(Uint8Array.from(other.inner), 32, peer);
    control.setPresharedKey(peer, link.presharedKey);
    setEndpoint(side.device, peer, other.device.address);
    control.setPersistentKeepalive(peer, link.keepaliveSeconds);
    control.peerDone(peer);
  }

  /** Removes it. */
  removePeer(side: Side, other: Side): void {
    side.links[other.index].present = false;
    const peer = side.peers[other.index];
    if (peer === 0) return;
    side.peers[other.index] = 0;
    side.device.control.removePeer(peer);
  }

  /** Whether `side` has the address that `other` has now. */
  knows(side: Side, other: Side): boolean {
    return endpointOf(side.device, side.peers[other.index]) ===
      other.device.address;
  }

  /** The operator tells `side` where `other` is. */
  tell(side: Side, other: Side): void {
    const peer = side.peers[other.index];
    if (peer === 0) return;
    const { address, port } = parseAddress(other.device.address);
    side.device.control.setEndpoint(peer, address, port, 0);
  }

  /** Puts a packet of `from` for `to` at its interface. */
  send(from: number, to: number, source = from): Uint8Array {
    const packet = this.watch.packet(from, to, source);
    const { device, suspended } = this.sides[from];
    // Nobody runs who could send it.
    if (!suspended) device.toSend.push(packet);
    return packet;
  }

  #close({ name, device, peers }: Side): void {
    peers.fill(0);
    this.watch.empty(name, device.close());
    this.network.devices.delete(device.address);
    const { handshake_no_memory = 0, tx_slots_exhausted = 0 } = device
      .counters();
    this.watch.empty(name, { handshake_no_memory, tx_slots_exhausted });
  }

  /** Closes all devices, and looks at what is left of them. */
  close(): void {
    for (const side of this.sides) this.#close(side);
  }
}
