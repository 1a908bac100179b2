/**
 * Changes that go through many records: of all peers, and removals of peers and
 * of their allowed IPs. All in slices (lib/slices), so that half a million peers
 * hold nobody up. Control only.
 *
 * @module
 */
import type { AllowedIps } from "./allowedips.ts";
import type { Arena } from "./arena.ts";
import { PUBLIC_KEY_LEN } from "./messages.ts";
import type { Peers } from "./peer.ts";
import { PEER } from "./records.ts";
import { Slices } from "./slices.ts";
import type { Timers } from "./timers.ts";

/** Peers that a slice goes through: about 1 ms at most. */
const PEERS_AT_ONCE = 256;
/** Allowed IPs of one peer that are removed at once: below 1 ms. */
const ALLOWED_IPS_AT_ONCE = 512;

/** What {@link PeerChanges} works on. */
export interface PeerChangesOptions {
  readonly arena: Arena;
  readonly peers: Peers;
  readonly allowedIps: AllowedIps;
  readonly timers: Timers;
  /** Called after commands were posted to outbound. */
  readonly wake: () => void;
  /** Called when a change has begun that needs more slices. */
  readonly more: () => void;
}

/** Changes of many records. Those that return a promise are done with undefined. */
export class PeerChanges extends Slices {
  readonly #o: PeerChangesOptions;

  constructor(options: PeerChangesOptions) {
    super(options.more);
    this.#o = options;
  }

  /**
   * Calls `visit` for each peer, and again for one with which it was not done.
   * The first slice is done at once, so few peers need no second one.
   */
  each(visit: (peer: number) => boolean): Promise<void> | undefined {
    const { peers, wake } = this.#o;
    const cursor = peers.walk();
    return this.begin(() => {
      for (let n = 0; n < PEERS_AT_ONCE && cursor.peer !== 0; n++) {
        const { peer } = cursor;
        // When it is removed, the cursor goes on by itself.
        if (visit(peer) && cursor.peer === peer) cursor.advance();
      }
      wake();
      if (cursor.peer !== 0) return true;
      cursor[Symbol.dispose]();
      return false;
    });
  }

  /** Removes a peer. */
  remove(peer: number): Promise<void> | undefined {
    return this.#until(peer, () => this.#removeSome(peer));
  }

  /** Removes all peers. */
  removeAll(): Promise<void> | undefined {
    return this.each((peer) => this.#removeSome(peer));
  }

  /** Removes all allowed IPs of a peer. */
  removeAllowedIps(peer: number): Promise<void> | undefined {
    return this.#until(peer, () => this.#removeSomeAllowedIps(peer));
  }

  #removeSome(peer: number): boolean {
    if (!this.#removeSomeAllowedIps(peer)) return false;
    this.#o.peers.remove(peer, this.#o.timers);
    this.#o.wake();
    return true;
  }

  #removeSomeAllowedIps(peer: number): boolean {
    const { allowedIps } = this.#o;
    allowedIps.removeByPeer(peer, ALLOWED_IPS_AT_ONCE);
    return allowedIps.first(peer) === 0;
  }

  /** Calls `step` until it is done, or the peer is gone: at once, then in slices. */
  #until(peer: number, step: () => boolean): Promise<void> | undefined {
    if (step()) return undefined;
    const { arena, peers } = this.#o;
    const word = arena.peer(peer) + PEER.PUBLIC_KEY;
    const key = arena.bytes(word, PUBLIC_KEY_LEN);
    const wanted = key.slice();
    // The number alone may be another peer's by then.
    const same = (): boolean =>
      peers.alive(peer) && wanted.every((byte, i) => key[i] === byte);
    return this.begin(() => same() && !step());
  }
}
