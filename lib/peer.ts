/**
 * Peers: records on the arena, their list in the order of creation, and their
 * removal in steps, because workers may still hold their numbers (kernel:
 * `peer.c`). Control only.
 *
 * @module
 */
import type { AllowedIps } from "./allowedips.ts";
import { type Arena, Pool } from "./arena.ts";
import type { Grace } from "./epoch.ts";
import type { Keypairs } from "./keypairs.ts";
import { PUBLIC_KEY_LEN } from "./messages.ts";
import type { Sessions } from "./noise_sessions.ts";
import type { PublicKeyTable } from "./peerlookup.ts";
import { COMMAND_REMOVE, type Mailbox } from "./queueing.ts";
import { ENDPOINT, PEER, PEER_ALIVE } from "./records.ts";
import type { Timers } from "./timers.ts";

/** What {@link Peers} works on. */
export interface PeersOptions {
  readonly arena: Arena;
  readonly grace: Grace;
  readonly publicKeys: PublicKeyTable;
  readonly allowedIps: AllowedIps;
  readonly keypairs: Keypairs;
  readonly sessions: Sessions;
  readonly commands: Mailbox;
}

/**
 * A walk over the peers that there were at its beginning, in the order of their
 * creation, while peers are added and removed. Ends when it is disposed of.
 */
export interface PeerCursor extends Disposable {
  /** The peer that it is at, 0 after the last; when that is removed, the next. */
  readonly peer: number;
  /** Goes on to the next. */
  advance(): void;
}

class Cursor implements PeerCursor {
  readonly #after: (peer: number) => number;
  readonly #end: () => void;
  peer: number;
  /** Where it ends. */
  last: number;

  constructor(
    first: number,
    last: number,
    after: (peer: number) => number,
    end: () => void,
  ) {
    this.peer = first;
    this.last = last;
    this.#after = after;
    this.#end = end;
  }

  advance(): void {
    this.peer = this.peer === this.last ? 0 : this.#after(this.peer);
  }

  [Symbol.dispose](): void {
    this.#end();
  }
}

/** The peers of a device. */
export class Peers {
  readonly #arena: Arena;
  readonly #options: PeersOptions;
  readonly #pool: Pool;
  #first = 0;
  #last = 0;
  #count = 0;
  readonly #cursors = new Set<Cursor>();

  constructor(options: PeersOptions) {
    this.#arena = options.arena;
    this.#options = options;
    const { layout, limits } = options.arena;
    this.#pool = new Pool(
      options.arena,
      layout.peers,
      PEER.WORDS,
      limits.peers,
    );
  }

  /** Peers configured. */
  get count(): number {
    return this.#count;
  }

  /** Records in use: configured peers and those whose removal is not complete. */
  get used(): number {
    return this.#pool.used;
  }

  /** Whether `peer` is a configured peer. */
  alive(peer: number): boolean {
    return (this.#arena.i32[this.#arena.peer(peer) + PEER.FLAGS] &
      PEER_ALIVE) !== 0;
  }

  /** Adds a peer that `publicKeys` does not have; 0 when there is no record left. */
  create(publicKey: Uint8Array): number {
    const { grace, publicKeys } = this.#options;
    let peer = this.#pool.alloc();
    if (peer === 0) {
      grace.collect(Infinity);
      peer = this.#pool.alloc();
    }
    if (peer === 0) return 0;
    const { i32, u8 } = this.#arena;
    const at = this.#arena.peer(peer);
    u8.set(publicKey.subarray(0, PUBLIC_KEY_LEN), (at + PEER.PUBLIC_KEY) * 4);
    i32[at + PEER.FLAGS] = PEER_ALIVE;
    i32[at + PEER.LIST_PREV] = this.#last;
    if (this.#last === 0) this.#first = peer;
    else i32[this.#arena.peer(this.#last) + PEER.LIST_NEXT] = peer;
    this.#last = peer;
    this.#count++;
    publicKeys.insert(peer);
    return peer;
  }

  /**
   * Takes a peer out of all tables, wipes its keys and asks outbound to let go
   * of it; `removed` ends what this begins. The caller wakes outbound.
   */
  remove(peer: number, timers: Timers): void {
    const { allowedIps, publicKeys, keypairs, sessions, commands } =
      this.#options;
    const { i32 } = this.#arena;
    const at = this.#arena.peer(peer);
    allowedIps.removeByPeer(peer);
    publicKeys.remove(peer);
    const session = sessions.sessionOf(peer, false);
    if (session !== 0) timers.stop(session);
    keypairs.removeAll(peer);
    sessions.releaseSession(peer);
    i32[at + PEER.FLAGS] = 0;
    this.#arena.zero(at + PEER.PRESHARED_KEY, 16);
    i32.fill(0, at + PEER.ENDPOINT, at + PEER.ENDPOINT + ENDPOINT.WORDS);
    const next = i32[at + PEER.LIST_NEXT];
    const prev = i32[at + PEER.LIST_PREV];
    if (prev === 0) this.#first = next;
    else i32[this.#arena.peer(prev) + PEER.LIST_NEXT] = next;
    if (next === 0) this.#last = prev;
    else i32[this.#arena.peer(next) + PEER.LIST_PREV] = prev;
    for (const cursor of this.#cursors) {
      if (cursor.peer === peer) cursor.advance();
      if (cursor.last === peer) cursor.last = prev;
    }
    this.#count--;
    commands.post(peer, COMMAND_REMOVE);
  }

  /** Called when outbound has let go of a removed peer. */
  removed(peer: number): void {
    this.#options.grace.retire(this.#free, peer);
  }

  /** Begins a walk over the peers. */
  walk(): PeerCursor {
    const { i32 } = this.#arena;
    const cursor = new Cursor(
      this.#first,
      this.#last,
      (peer) => i32[this.#arena.peer(peer) + PEER.LIST_NEXT],
      () => this.#cursors.delete(cursor),
    );
    this.#cursors.add(cursor);
    return cursor;
  }

  /** The peers that there were at the beginning of the walk. */
  *[Symbol.iterator](): Generator<number> {
    using cursor = this.walk();
    for (let peer; (peer = cursor.peer) !== 0;) {
      cursor.advance();
      yield peer;
    }
  }

  readonly #free = (peer: number): void => {
    const { i32 } = this.#arena;
    const at = this.#arena.peer(peer);
    // A worker's last words about the peer may not have been read yet.
    const told = i32[at + PEER.OUTBOUND_EVENTS] | i32[at + PEER.INBOUND_EVENTS];
    if (told !== 0) {
      this.#options.grace.retire(this.#free, peer);
      return;
    }
    this.#arena.zero(at, PEER.WORDS);
    this.#pool.free(peer);
  };
}
