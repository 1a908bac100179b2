/**
 * Endpoints of peers on the arena: the far address and the sticky source. Two
 * threads write one: inbound (roaming) and control (configuration, handshakes);
 * outbound reads. A sequence word is odd while somebody writes; who wants to
 * write makes it odd by compare-and-exchange, so a holder has it for the few
 * nanoseconds of a copy. The kernel's `endpoint_lock`.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { ENDPOINT, PEER } from "./records.ts";
import { isUnchanged, storeWords } from "./seqlock.ts";

/** Address families as Linux numbers them. */
export const AF_UNSPEC = 0;
export const AF_INET = 2;
export const AF_INET6 = 10;

/** Bytes of an IPv4-mapped IPv6 address before the IPv4 address. */
const MAPPED_PREFIX_BYTES = 12;
const WORDS_WITHOUT_SOURCE = ENDPOINT.IFINDEX;

function lock(arena: Arena, word: number): number {
  for (;;) {
    const seq = Atomics.load(arena.i32, word);
    if (
      (seq & 1) === 0 &&
      Atomics.compareExchange(arena.i32, word, seq, seq + 1) === seq
    ) {
      return seq;
    }
  }
}

function unlock(arena: Arena, word: number, seq: number): void {
  Atomics.store(arena.i32, word, (seq + 2) | 0);
}

/**
 * Copies the peer's endpoint to the block at word `to`.
 *
 * @returns false when the peer has no endpoint
 */
export function readEndpoint(
  arena: Arena,
  peerWord: number,
  to: number,
): boolean {
  const { i32 } = arena;
  const from = peerWord + PEER.ENDPOINT;
  const lockWord = peerWord + PEER.ENDPOINT_LOCK;
  for (;;) {
    const seq = Atomics.load(i32, lockWord);
    if ((seq & 1) !== 0) continue;
    for (let i = 0; i < ENDPOINT.WORDS; i++) i32[to + i] = i32[from + i];
    if (isUnchanged(i32, lockWord, seq)) {
      return (i32[to] & 0xffff) !== AF_UNSPEC;
    }
  }
}

/** Whether the peer's endpoint is the block at word `from`, its source included. */
export function sameEndpoint(
  arena: Arena,
  peerWord: number,
  from: number,
): boolean {
  const { i32 } = arena;
  const at = peerWord + PEER.ENDPOINT;
  for (let i = 0; i < ENDPOINT.WORDS; i++) {
    if (i32[at + i] !== i32[from + i]) return false;
  }
  return true;
}

/** Makes the block at word `from` the peer's endpoint, source included. */
export function writeEndpoint(
  arena: Arena,
  peerWord: number,
  from: number,
): void {
  const { i32 } = arena;
  const lockWord = peerWord + PEER.ENDPOINT_LOCK;
  const to = peerWord + PEER.ENDPOINT;
  const seq = lock(arena, lockWord);
  storeWords(i32, to, from, ENDPOINT.WORDS);
  unlock(arena, lockWord, seq);
}

/** Forgets the sticky source of the peer; the far address stays. */
export function clearSource(arena: Arena, peerWord: number): void {
  const lockWord = peerWord + PEER.ENDPOINT_LOCK;
  const from = peerWord + PEER.ENDPOINT + WORDS_WITHOUT_SOURCE;
  const end = peerWord + PEER.ENDPOINT + ENDPOINT.WORDS;
  const seq = lock(arena, lockWord);
  for (let word = from; word < end; word++) Atomics.store(arena.i32, word, 0);
  unlock(arena, lockWord, seq);
}

/**
 * Writes an endpoint block without a source at word `to`.
 *
 * @param address 4 or 16 bytes
 */
export function fillEndpoint(
  arena: Arena,
  to: number,
  address: Uint8Array,
  port: number,
  scope: number,
): void {
  const { i32, u8 } = arena;
  i32.fill(0, to, to + ENDPOINT.WORDS);
  const bytes = to * 4;
  u8[bytes] = AF_INET6;
  u8[bytes + 2] = port >> 8;
  u8[bytes + 3] = port & 0xff;
  const at = (to + ENDPOINT.ADDRESS) * 4;
  if (address.length === 4) {
    u8[at + 10] = u8[at + 11] = 0xff;
    u8.set(address, at + MAPPED_PREFIX_BYTES);
  } else {
    u8.set(address, at);
    i32[to + ENDPOINT.SCOPE] = scope;
  }
}

/** Whether the 16 address bytes at word `word` are an IPv4-mapped address. */
export function isMapped(arena: Arena, word: number): boolean {
  return arena.u32[word] === 0 && arena.u32[word + 1] === 0 &&
    arena.u32[word + 2] === 0xffff0000;
}

/** An endpoint as configuration shows it. */
export interface EndpointAddress {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  readonly port: number;
  readonly scope: number;
}

/** The endpoint block at word `at` as plain data, or undefined if it is none. */
export function describeEndpoint(
  arena: Arena,
  at: number,
): EndpointAddress | undefined {
  const { u8, i32 } = arena;
  if ((i32[at] & 0xffff) === AF_UNSPEC) return undefined;
  const address = (at + ENDPOINT.ADDRESS) * 4;
  const mapped = isMapped(arena, at + ENDPOINT.ADDRESS);
  return {
    address: u8.slice(
      address + (mapped ? MAPPED_PREFIX_BYTES : 0),
      address + 16,
    ),
    port: (u8[at * 4 + 2] << 8) | u8[at * 4 + 3],
    scope: i32[at + ENDPOINT.SCOPE],
  };
}
