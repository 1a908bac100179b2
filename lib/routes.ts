/**
 * What outbound must know of the system's routes and cannot ask for: the MTU of
 * the route that a packet came by, for its padding, and whether a datagram of
 * our own has come back by the interface (kernel: `skb_dst` in `wg_xmit`, ELOOP
 * in `socket.c`). Outbound asks by one block of words; control asks the system
 * and puts the answer into a table, which it empties when routes change. Until
 * there is an answer, outbound goes on without.
 *
 * @module
 */
import {
  type Arena,
  HEADER,
  ROUTE_ANSWER_WORDS,
  ROUTE_ANSWERS,
} from "./arena.ts";
import { bug } from "./assert.ts";
import { DATA, MESSAGE_DATA } from "./messages.ts";
import { ENDPOINT, KEYPAIR, PEER } from "./records.ts";
import { isUnchanged, storeWords } from "./seqlock.ts";

/** What is asked. */
export const ROUTE_MTU = 1;
export const ROUTE_LOOP = 2;

/** Answers to ROUTE_MTU: the MTU, or that the route has none of its own. */
export const NO_MTU = 0x7fff_ffff;
/** Answers to ROUTE_LOOP. */
export const LOOP_NO = 1;
export const LOOP_YES = 2;

/** Places of HEADER.ROUTE_ASKED: what is asked, 0: nothing; then the addresses. */
const ASKED_DESTINATION = 1;
const ASKED_SOURCE = 5;
const ADDRESS_WORDS = 4;

/** An entry of the table. The sequence number is odd while control writes. */
const ENTRY = { SEQUENCE: 0, KIND: 1, ADDRESS: 2, VALUE: 6, WORDS: 8 } as const;
bug(ENTRY.WORDS === ROUTE_ANSWER_WORDS, "an answer has its size");
const HASH_FACTOR = 0x9e3779b1 | 0;

const IPV4_ADDRESSES = 12;
const IPV4_ADDRESS = 4;
const IPV6_ADDRESSES = 8;
const IPV6_ADDRESS = 16;
const IPV4_PROTOCOL = 9;
const IPV4_FRAGMENT = 6;
const IPV4_OFFSET_MASK = 0x1fff;
const IPV6_NEXT_HEADER = 6;
const IPV6_HEADER = 40;
const PROTOCOL_UDP = 17;
const FRAGMENT = 44;
const FRAGMENT_HEADER = 8;
const FRAGMENT_OFFSET_MASK = 0xfff8;
const UDP_HEADER = 8;

function entryOf(arena: Arena, kind: number, address: number): number {
  let key = kind;
  for (let w = 0; w < ADDRESS_WORDS; w++) {
    key = Math.imul(key ^ arena.i32[address + w], HASH_FACTOR);
    key ^= key >>> 15;
  }
  return arena.layout.routeAnswers +
    (key & (ROUTE_ANSWERS - 1)) * ENTRY.WORDS;
}

/** Outbound's side. */
export class RouteQuestions {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #wakeControl: () => void;
  #nowMs = 0;
  #askedMs = -1;

  /** @param wakeControl called when there is a question */
  constructor(arena: Arena, wakeControl: () => void) {
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#u8 = arena.u8;
    this.#wakeControl = wakeControl;
  }

  /** Called first in each batch. */
  start(nowMs: number): void {
    this.#nowMs = nowMs;
  }

  /** MTU of the route of the IP packet at `at`, as far as it is known. */
  mtu(at: number): number {
    const value = this.#ask(ROUTE_MTU, at);
    return value === 0 ? NO_MTU : value;
  }

  /**
   * Whether the IP packet at `at` is a datagram of ours that came back and would
   * do so again, once `peer` has it: a peer may well be reached through another
   * one of the same interface, but not each through the other.
   */
  isLoop(at: number, length: number, peer: number): boolean {
    return this.#isFromOurPort(at, length) &&
      this.#ask(ROUTE_LOOP, at, peer) === LOOP_YES;
  }

  #isFromOurPort(at: number, length: number): boolean {
    const udp = this.#udp(at, length);
    return udp !== 0 &&
      this.#be16(at + udp) === this.#i32[HEADER.LISTEN_PORT];
  }

  /**
   * Whether the IP packet at `at`, which would go to `peer`, is a data message
   * of ours to that very peer: nobody else sends with this index. So it is
   * known wherever the interface is, and whoever has translated its addresses.
   */
  cameBack(at: number, length: number, peer: number): boolean {
    const udp = this.#udp(at, length);
    const message = at + udp + UDP_HEADER;
    if (
      udp === 0 || udp + UDP_HEADER + DATA.end > length ||
      this.#u8[message] !== MESSAGE_DATA
    ) return false;
    const index = this.#le32(message + DATA.receiver);
    const ours = this.#hasIndex(peer + PEER.CURRENT, index) ||
      this.#hasIndex(peer + PEER.PREVIOUS, index);
    if (!ours || Atomics.load(this.#i32, HEADER.CAME_BACK) === 1) return ours;
    this.#copyAddresses(at, HEADER.ROUTE_LOOKUP);
    for (let w = 0; w < ADDRESS_WORDS; w++) {
      this.#i32[HEADER.CAME_BACK + 1 + w] = this.#i32[HEADER.ROUTE_LOOKUP + w];
    }
    Atomics.store(this.#i32, HEADER.CAME_BACK, 1);
    this.#wakeControl();
    return true;
  }

  #hasIndex(slot: number, index: number): boolean {
    const keypair = this.#i32[slot];
    return keypair !== 0 &&
      this.#i32[this.#arena.keypair(keypair) + KEYPAIR.REMOTE_INDEX] === index;
  }

  /** Place of the UDP header in an IP packet; 0: it has none. */
  #udp(at: number, length: number): number {
    const u8 = this.#u8;
    let udp: number;
    if (u8[at] >> 4 === 4) {
      if (u8[at + IPV4_PROTOCOL] !== PROTOCOL_UDP) return 0;
      if ((this.#be16(at + IPV4_FRAGMENT) & IPV4_OFFSET_MASK) !== 0) return 0;
      udp = (u8[at] & 15) * 4;
    } else {
      udp = IPV6_HEADER;
      const next = u8[at + IPV6_NEXT_HEADER];
      if (next === FRAGMENT) {
        const here = at + IPV6_HEADER;
        if (u8[here] !== PROTOCOL_UDP) return 0;
        if ((this.#be16(here + 2) & FRAGMENT_OFFSET_MASK) !== 0) return 0;
        udp += FRAGMENT_HEADER;
      } else if (next !== PROTOCOL_UDP) return 0;
    }
    return udp + UDP_HEADER <= length ? udp : 0;
  }

  #le32(at: number): number {
    const u8 = this.#u8;
    return u8[at] | (u8[at + 1] << 8) | (u8[at + 2] << 16) | (u8[at + 3] << 24);
  }

  #be16(at: number): number {
    return (this.#u8[at] << 8) | this.#u8[at + 1];
  }

  /**
   * The answer about the packet's destination, or where `peer` is; 0: it is not
   * known yet, and asked for if nothing else is.
   */
  #ask(kind: number, at: number, peer = 0): number {
    const i32 = this.#i32;
    const asked = HEADER.ROUTE_ASKED;
    if (Atomics.load(i32, asked) === 0) {
      // Where the question goes, if it comes to that.
      const destination = asked + ASKED_DESTINATION;
      this.#copyAddresses(at, destination);
      if (peer !== 0) this.#copyEndpoint(peer, destination);
      const value = this.#known(kind, destination);
      if (value !== 0) return value;
      // Few questions, however many destinations there are.
      if (this.#askedMs === this.#nowMs) return 0;
      this.#askedMs = this.#nowMs;
      Atomics.store(i32, asked, kind);
      this.#wakeControl();
      return 0;
    }
    this.#copyAddresses(at, HEADER.ROUTE_LOOKUP);
    if (peer !== 0) this.#copyEndpoint(peer, HEADER.ROUTE_LOOKUP);
    return this.#known(kind, HEADER.ROUTE_LOOKUP);
  }

  /** Torn only while the peer roams: then a question is in vain. */
  #copyEndpoint(peer: number, to: number): void {
    const from = peer + PEER.ENDPOINT + ENDPOINT.ADDRESS;
    for (let w = 0; w < ADDRESS_WORDS; w++) {
      this.#i32[to + w] = this.#i32[from + w];
    }
  }

  /** Copies destination and source of the packet, IPv4 as `::ffff:a.b.c.d`. */
  #copyAddresses(at: number, to: number): void {
    const u8 = this.#u8;
    const i32 = this.#i32;
    const v4 = u8[at] >> 4 === 4;
    const bytes = v4 ? IPV4_ADDRESS : IPV6_ADDRESS;
    const source = at + (v4 ? IPV4_ADDRESSES : IPV6_ADDRESSES);
    const skip = IPV6_ADDRESS - bytes;
    if (v4) {
      for (const word of [to, to + ADDRESS_WORDS]) {
        i32[word] = i32[word + 1] = 0;
        i32[word + 2] = 0xffff0000 | 0;
      }
    }
    for (let i = 0; i < bytes; i++) {
      u8[to * 4 + skip + i] = u8[source + bytes + i];
      u8[(to + ADDRESS_WORDS) * 4 + skip + i] = u8[source + i];
    }
  }

  #known(kind: number, address: number): number {
    const i32 = this.#i32;
    const entry = entryOf(this.#arena, kind, address);
    const sequence = Atomics.load(i32, entry + ENTRY.SEQUENCE);
    if ((sequence & 1) !== 0 || i32[entry + ENTRY.KIND] !== kind) return 0;
    for (let w = 0; w < ADDRESS_WORDS; w++) {
      if (i32[entry + ENTRY.ADDRESS + w] !== i32[address + w]) return 0;
    }
    const value = i32[entry + ENTRY.VALUE];
    return isUnchanged(i32, entry + ENTRY.SEQUENCE, sequence) ? value : 0;
  }
}

/** What is asked of the system. Addresses have 4 or 16 bytes. */
export interface RouteSource {
  /** MTU of the route to `destination` if it has one, or 0. */
  mtu(destination: Uint8Array): number;
  /** Whether datagrams from `source` to `destination` leave by the interface. */
  isLoop(destination: Uint8Array, source: Uint8Array): boolean;
}

const MAPPED_PREFIX_BYTES = 12;

/** Control's side. */
export class RouteAnswers {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #source: RouteSource;

  constructor(arena: Arena, source: RouteSource) {
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#source = source;
  }

  /** Answers what is asked. @returns the destination of a loop, if it is one */
  step(): Uint8Array | undefined {
    const i32 = this.#i32;
    if (Atomics.load(i32, HEADER.CAME_BACK) === 1) {
      const destination = this.#address(HEADER.CAME_BACK + 1);
      Atomics.store(i32, HEADER.CAME_BACK, 0);
      return destination;
    }
    const asked = HEADER.ROUTE_ASKED;
    const kind = Atomics.load(i32, asked);
    if (kind === 0) return undefined;
    const destination = this.#address(asked + ASKED_DESTINATION);
    const loop = kind === ROUTE_LOOP && this.#source.isLoop(
      destination,
      this.#address(asked + ASKED_SOURCE),
    );
    const value = kind === ROUTE_MTU
      ? this.#source.mtu(destination) || NO_MTU
      : loop
      ? LOOP_YES
      : LOOP_NO;
    this.#write(kind, asked + ASKED_DESTINATION, value);
    Atomics.store(i32, asked, 0);
    return loop ? destination : undefined;
  }

  /** Called when routes, addresses, rules, port or mark have changed. */
  forget(): void {
    const end = this.#arena.layout.routeAnswers + ROUTE_ANSWERS * ENTRY.WORDS;
    for (
      let entry = this.#arena.layout.routeAnswers;
      entry < end;
      entry += ENTRY.WORDS
    ) {
      if (this.#i32[entry + ENTRY.KIND] === 0) continue;
      Atomics.add(this.#i32, entry + ENTRY.SEQUENCE, 1);
      Atomics.store(this.#i32, entry + ENTRY.KIND, 0);
      Atomics.add(this.#i32, entry + ENTRY.SEQUENCE, 1);
    }
  }

  #address(word: number): Uint8Array {
    const { u32, u8 } = this.#arena;
    const mapped = u32[word] === 0 && u32[word + 1] === 0 &&
      u32[word + 2] === 0xffff0000;
    return u8.slice(
      word * 4 + (mapped ? MAPPED_PREFIX_BYTES : 0),
      word * 4 + IPV6_ADDRESS,
    );
  }

  #write(kind: number, address: number, value: number): void {
    const i32 = this.#i32;
    const entry = entryOf(this.#arena, kind, address);
    Atomics.add(i32, entry + ENTRY.SEQUENCE, 1);
    Atomics.store(i32, entry + ENTRY.KIND, kind);
    storeWords(i32, entry + ENTRY.ADDRESS, address, ADDRESS_WORDS);
    Atomics.store(i32, entry + ENTRY.VALUE, value);
    Atomics.add(i32, entry + ENTRY.SEQUENCE, 1);
  }
}
