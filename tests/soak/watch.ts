/**
 * What must hold at each moment of a soak, whatever is done to the devices:
 *
 * - no nonce is used twice under one key;
 * - what leaves is the plaintext that was read, sealed for the peer it is for;
 * - no plaintext is delivered twice, altered, to another peer, or out of a
 *   message with a foreign source address;
 * - no key older than 180 s seals or opens;
 * - slots, chains and keys that are in use are accounted for.
 *
 * Keys are told apart by their bytes, and their ages are taken from when they
 * were first seen: what the records say about them is not believed.
 *
 * @module
 */
import { HEADER } from "../../lib/arena.ts";
import { aeadDecrypt } from "../../lib/crypto/chacha.ts";
import {
  DATA,
  DATA_OVERHEAD,
  MESSAGE_DATA,
  REJECT_AFTER_TIME_MS,
} from "../../lib/messages.ts";
import { KEYPAIR, PEER } from "../../lib/records.ts";
import { SeededRandom } from "../../lib/selftest/random.ts";
import type { Datagram, MemoryDevice } from "../memory/device.ts";

/** A device as the watch sees it. */
export interface Watched {
  readonly index: number;
  readonly name: string;
  /** Address inside of the tunnel. */
  readonly inner: readonly number[];
  readonly device: MemoryDevice;
  /** Its number for each of the others, 0: no peer. */
  readonly peers: readonly number[];
}

/** Something that must not be. */
export class Violation extends Error {
  override readonly name = "Violation";
}

const SLOTS = [PEER.CURRENT, PEER.PREVIOUS, PEER.NEXT] as const;
const IP_HEADER = 20;
const NUMBER_BYTES = 4;
const EMPTY = new Uint8Array(0);
/** What became of a packet, by its number. */
const SENT = 1;
const DELIVERED = 2;
/** Must never arrive. */
const FORBIDDEN = 3;
const MANY = 1 << 16;

/** Watches all devices of a soak. */
export class Watch {
  readonly #nowMs: () => number;
  readonly #all: readonly Watched[];
  /** State of each packet, and the indices of its ends. */
  #states = new Uint8Array(MANY);
  #ends = new Uint8Array(MANY);
  #count = 0;
  /** Key that sealed each packet that is not delivered. */
  readonly #sealedBy = new Map<number, string>();
  /** When a key was first seen, by its user's index and direction. */
  readonly #births = new Map<string, number>();
  readonly #lastCounters = new Map<string, bigint>();
  /** Number and first word of what each slot held when it was looked at last. */
  readonly #seen = new Map<number, number>();
  #delivered = 0;

  /** @param all the devices, by their indices; the array is read each time */
  constructor(nowMs: () => number, all: readonly Watched[]) {
    this.#nowMs = nowMs;
    this.#all = all;
  }

  /** Packets made. */
  get packets(): number {
    return this.#count;
  }

  /** Packets delivered. */
  get delivered(): number {
    return this.#delivered;
  }

  /** Keys that have sealed something. */
  get keys(): number {
    return this.#lastCounters.size;
  }

  /**
   * A new packet.
   *
   * @param source index of the device whose address it comes from, if that is
   *   not the sender's: nobody may take it
   */
  packet(from: number, to: number, source = from): Uint8Array {
    const number = ++this.#count;
    if (number >= this.#states.length) {
      this.#states = grown(this.#states);
      this.#ends = grown(this.#ends);
    }
    this.#states[number] = source === from ? SENT : FORBIDDEN;
    this.#ends[number] = source << 4 | to;
    return this.#make(number);
  }

  /** Number of a packet that was made here. */
  numberOf(packet: Uint8Array): number {
    return new DataView(packet.buffer, packet.byteOffset).getUint32(IP_HEADER);
  }

  /** Whether a packet has arrived. */
  isDelivered(number: number): boolean {
    return this.#states[number] === DELIVERED;
  }

  /** From now on the packet must not arrive any more. */
  forbid(number: number): void {
    this.#states[number] = FORBIDDEN;
  }

  /** The packet with a number: the same each time. */
  #make(number: number): Uint8Array {
    const random = new SeededRandom(number);
    const length = number % 64 === 0
      ? 1_392
      : IP_HEADER + NUMBER_BYTES + random.below(160);
    const packet = new Uint8Array(length);
    const view = new DataView(packet.buffer);
    packet[0] = 0x45;
    view.setUint16(2, length);
    const ends = this.#ends[number];
    packet.set(this.#all[ends >> 4].inner, 12);
    packet.set(this.#all[ends & 15].inner, 16);
    view.setUint32(IP_HEADER, number);
    for (let at = IP_HEADER + NUMBER_BYTES; at < length; at++) {
      packet[at] = number * 31 + at * 7;
    }
    return packet;
  }

  /**
   * Called with each datagram as it leaves a device.
   *
   * @returns the number of the packet in it, 0 for none
   * @throws Violation
   */
  sent(from: Watched, { bytes }: Datagram): number {
    if (bytes[0] !== MESSAGE_DATA) return 0;
    const view = new DataView(bytes.buffer, bytes.byteOffset);
    const index = view.getUint32(DATA.receiver, true);
    const counter = view.getBigUint64(DATA.counter, true);
    const found = this.#findKey(from, index);
    if (found === undefined) {
      throw new Violation(`${from.name} sealed with a key that it has not`);
    }
    const { to, word } = found;
    const { arena } = from.device;
    const name = keyName(arena.u32, word + KEYPAIR.SEND_KEY);
    const last = this.#lastCounters.get(name);
    if (last !== undefined && counter <= last) {
      throw new Violation(
        `${from.name} used nonce ${counter} after ${last} with one key`,
      );
    }
    this.#lastCounters.set(name, counter);
    this.#checkAge(`${from.index}>${name}`, `${from.name} sealed`);
    const key = arena.bytes(word + KEYPAIR.SEND_KEY, 32).slice();
    const plaintext = aeadDecrypt(key, counter, bytes.slice(DATA.end), EMPTY);
    if (plaintext === null) {
      throw new Violation(`${from.name} sent what its key does not open`);
    }
    if (bytes.length === DATA_OVERHEAD) return 0;
    const number = this.#check(plaintext, `${from.name} sealed`);
    if ((this.#ends[number] & 15) !== to) {
      throw new Violation(`${from.name} sealed packet ${number} for another`);
    }
    this.#sealedBy.set(number, name);
    return number;
  }

  /**
   * Called with each packet that a device gives to its interface.
   *
   * @returns its number
   * @throws Violation
   */
  arrived(to: Watched, packet: Uint8Array): number {
    const number = this.#check(packet, `${to.name} was given`, true);
    const what = `packet ${number}, given to ${to.name},`;
    if ((this.#ends[number] & 15) !== to.index) {
      throw new Violation(`${what} was for another`);
    }
    switch (this.#states[number]) {
      case DELIVERED:
        throw new Violation(`${what} came a second time`);
      case FORBIDDEN:
        throw new Violation(`${what} must not come at all`);
    }
    this.#states[number] = DELIVERED;
    this.#delivered++;
    const key = this.#sealedBy.get(number);
    this.#sealedBy.delete(number);
    if (key === undefined) throw new Violation(`${what} was never sealed`);
    this.#look(to);
    this.#checkAge(`${to.index}<${key}`, `${to.name} opened`);
    return number;
  }

  /** Number of a packet, which is as it was made but for padding. */
  #check(packet: Uint8Array, what: string, exact = false): number {
    const number = packet.length < IP_HEADER + NUMBER_BYTES
      ? 0
      : this.numberOf(packet);
    if (number === 0 || number > this.#count) {
      throw new Violation(`${what} what nobody sent`);
    }
    const expected = this.#make(number);
    const padded = exact
      ? packet.length === expected.length
      : packet.length >= expected.length;
    if (!padded || expected.some((byte, i) => byte !== packet[i])) {
      throw new Violation(`${what} packet ${number} altered`);
    }
    return number;
  }

  #findKey(
    { device, peers }: Watched,
    remoteIndex: number,
  ): { to: number; word: number } | undefined {
    const { arena } = device;
    for (const [to, peer] of peers.entries()) {
      if (peer === 0) continue;
      for (const slot of SLOTS) {
        const keypair = arena.i32[arena.peer(peer) + slot];
        if (keypair === 0) continue;
        const word = arena.keypair(keypair);
        if (arena.u32[word + KEYPAIR.REMOTE_INDEX] === remoteIndex) {
          return { to, word };
        }
      }
    }
    return undefined;
  }

  #checkAge(key: string, what: string): void {
    const nowMs = this.#nowMs();
    const birthMs = this.#births.get(key);
    if (birthMs === undefined) this.#births.set(key, nowMs);
    else if (nowMs - birthMs >= REJECT_AFTER_TIME_MS) {
      throw new Violation(
        `${what} with a key ${(nowMs - birthMs) / 1000} s old`,
      );
    }
  }

  /** Notes keys that are new. */
  #look({ index, device, peers }: Watched): void {
    const { u32 } = device.arena;
    for (const [to, peer] of peers.entries()) {
      if (peer === 0) continue;
      for (const slot of SLOTS) {
        const keypair = u32[device.arena.peer(peer) + slot];
        if (keypair === 0) continue;
        const word = device.arena.keypair(keypair);
        const place = (index << 4 | to) * PEER.WORDS + slot;
        const first = u32[word + KEYPAIR.SEND_KEY];
        if (this.#seen.get(place) === first) continue;
        this.#seen.set(place, first);
        const nowMs = this.#nowMs();
        for (
          const name of [
            `${index}>${keyName(u32, word + KEYPAIR.SEND_KEY)}`,
            `${index}<${keyName(u32, word + KEYPAIR.RECEIVE_KEY)}`,
          ]
        ) if (!this.#births.has(name)) this.#births.set(name, nowMs);
      }
    }
  }

  /**
   * Called when all work of a moment is done.
   *
   * @throws Violation
   */
  step(side: Watched): void {
    this.#look(side);
    const { device, peers, name } = side;
    const { arena } = device;
    let staged = 0;
    let count = 0;
    for (const peer of peers) {
      if (peer === 0) continue;
      count++;
      staged += arena.i32[arena.peer(peer) + PEER.STAGED_COUNT];
    }
    const { outbound, inbound } = device;
    if (outbound.slotsUsed !== staged) {
      throw new Violation(
        `${name} holds ${outbound.slotsUsed} slots for ${staged} packets`,
      );
    }
    const chains = arena.i32[HEADER.OUTBOUND_CHAINS] +
      arena.i32[HEADER.INBOUND_CHAINS];
    if (inbound.slotsUsed !== 0 || chains !== 0) {
      throw new Violation(
        `${name} holds ${inbound.slotsUsed} slots and ${chains} chains for nothing`,
      );
    }
    const { keypairs, sessions, retired } = device.control.objects();
    if (keypairs > 3 * count + retired || sessions > count + retired) {
      throw new Violation(
        `${name} has ${keypairs} keypairs and ${sessions} sessions ` +
          `of ${count} peers, ${retired} retired`,
      );
    }
  }

  /**
   * Called after a silence in which all keys and timers came to their end.
   *
   * @throws Violation
   */
  idle({ device, name }: Watched): void {
    const { peers: _peers, allowedIpNodes: _nodes, ...objects } = device.control
      .objects();
    this.empty(name, { ...objects, slots: device.outbound.slotsUsed });
  }

  /**
   * Called with what is left of a device.
   *
   * @throws Violation
   */
  empty(name: string, objects: Record<string, number>): void {
    const left = Object.entries(objects).filter(([, value]) => value !== 0);
    if (left.length === 0) return;
    throw new Violation(
      `${name} has left: ${left.map((entry) => entry.join(" ")).join(", ")}`,
    );
  }
}

function grown(bytes: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  const more = new Uint8Array(2 * bytes.length);
  more.set(bytes);
  return more;
}

/** Keys differ in their first 96 bits. */
function keyName(u32: Uint32Array, word: number): string {
  return `${u32[word]}.${u32[word + 1]}.${u32[word + 2]}`;
}
