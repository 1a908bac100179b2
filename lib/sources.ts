/**
 * Sticky sources that have become wrong: when addresses, routes or rules have
 * changed, each peer's source is looked at as the kernel's driver does before it
 * sends (`socket.c`, reference §6), a slice of the peers at a time. Control
 * only.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { clearSource, isMapped, readEndpoint } from "./endpoint.ts";
import type { PeerCursor, Peers } from "./peer.ts";
import { ENDPOINT } from "./records.ts";

/** What is asked of the system. */
export interface SourceRoutes {
  /** Whether the address, of 4 or 16 bytes, is one of this machine's. */
  isLocal(address: Uint8Array): boolean;
  /**
   * Interface that a datagram from `source` to `destination` leaves by; 0 where
   * the source is refused, undefined where there is no route now.
   */
  leavesBy(
    destination: Uint8Array,
    source: Uint8Array,
    fwmark: number,
  ): number | undefined;
}

/** Peers looked at before others have their turn: about 2 ms. */
const PEERS_AT_ONCE = 256;
/** A busy routing table must not keep control busy. */
const INTERVAL_MS = 250;
const MAPPED_PREFIX_BYTES = 12;

/** Looks after the sources of all peers. */
export class Sources {
  readonly #arena: Arena;
  readonly #peers: Peers;
  readonly #routes: SourceRoutes;
  /** Where the peer's endpoint is copied to. */
  readonly #block: number;
  #changed = false;
  /** Where a round is that is under way. */
  #cursor: PeerCursor | undefined;
  #nextMs = -Infinity;
  /** Local or not, by address, for one round. */
  readonly #local = new Map<string, boolean>();

  /** @param block word of an endpoint block to work with */
  constructor(arena: Arena, peers: Peers, routes: SourceRoutes, block: number) {
    this.#arena = arena;
    this.#peers = peers;
    this.#routes = routes;
    this.#block = block;
  }

  /** Called when addresses, routes or rules have changed. */
  changed(): void {
    this.#changed = true;
  }

  /** Looks at a slice of the peers. @returns whether there is more to do now */
  step(nowMs: number, fwmark: number): boolean {
    if (this.#cursor === undefined) {
      if (!this.#changed || nowMs < this.#nextMs) return false;
      this.#changed = false;
      this.#local.clear();
      this.#cursor = this.#peers.walk();
    }
    for (let n = 0; n < PEERS_AT_ONCE; n++) {
      const { peer } = this.#cursor;
      if (peer === 0) {
        this.#end();
        this.#nextMs = nowMs + INTERVAL_MS;
        return false;
      }
      this.#cursor.advance();
      const peerWord = this.#arena.peer(peer);
      if (this.#isWrong(peerWord, fwmark)) clearSource(this.#arena, peerWord);
    }
    return true;
  }

  /** Milliseconds until `step` has something to do. */
  sleepMs(nowMs: number): number {
    if (this.#cursor !== undefined) return 0;
    return this.#changed ? Math.max(0, this.#nextMs - nowMs) : Infinity;
  }

  /** Ends a round. */
  close(): void {
    this.#end();
    this.#changed = false;
  }

  #end(): void {
    this.#cursor?.[Symbol.dispose]();
    this.#cursor = undefined;
  }

  #isWrong(peerWord: number, fwmark: number): boolean {
    const block = this.#block;
    if (!readEndpoint(this.#arena, peerWord, block)) return false;
    const { i32 } = this.#arena;
    const at = block + ENDPOINT.SOURCE;
    if ((i32[at] | i32[at + 1] | i32[at + 2] | i32[at + 3]) === 0) return false;
    const source = this.#address(at);
    if (!this.#isLocal(source)) return true;
    // The driver asks about the interface for IPv4 alone.
    const interfaceIndex = i32[block + ENDPOINT.IFINDEX];
    if (source.length !== 4 || interfaceIndex === 0) return false;
    const to = this.#address(block + ENDPOINT.ADDRESS);
    const by = this.#routes.leavesBy(to, source, fwmark);
    return by !== undefined && by !== interfaceIndex;
  }

  #isLocal(address: Uint8Array): boolean {
    const key = address.toString();
    let local = this.#local.get(key);
    if (local === undefined) {
      local = this.#routes.isLocal(address);
      this.#local.set(key, local);
    }
    return local;
  }

  #address(word: number): Uint8Array {
    const mapped = isMapped(this.#arena, word);
    return this.#arena.u8.slice(
      word * 4 + (mapped ? MAPPED_PREFIX_BYTES : 0),
      word * 4 + 16,
    );
  }
}
