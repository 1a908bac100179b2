/**
 * SESSION records: what the kernel's `noise_handshake` and the rest of an active
 * peer's control state is, here apart from the peer, which gets one when it
 * first needs it and gives it back after long idleness.
 *
 * Control alone reads and writes them, but for the chain of the index table
 * that runs through them: so a record is used again only after a grace period.
 *
 * @module
 */
import type { Arena, Pool } from "./arena.ts";
import { bug } from "./assert.ts";
import type { Grace } from "./epoch.ts";
import {
  COOKIE_LEN,
  HASH_LEN,
  INITIATIONS_PER_SECOND,
  PRIVATE_KEY_LEN,
  PUBLIC_KEY_LEN,
} from "./messages.ts";
import { SymmetricState } from "./noise_symmetric.ts";
import type { IndexTable } from "./peerlookup.ts";
import {
  HANDSHAKE_CREATED_INITIATION,
  HANDSHAKE_ZEROED,
  PEER,
  SESSION,
} from "./records.ts";

const INITIATION_INTERVAL_MS = 1000 / INITIATIONS_PER_SECOND;

/** Both ephemeral keys, hash and chaining key: next to each other. */
const SECRET_WORDS = SESSION.LAST_MAC1 - SESSION.EPHEMERAL_PRIVATE;
bug(
  SECRET_WORDS === (PRIVATE_KEY_LEN + PUBLIC_KEY_LEN + 2 * HASH_LEN) / 4,
  "a handshake's secrets lie next to each other",
);

/** What {@link Sessions} works on. */
export interface SessionsOptions {
  readonly arena: Arena;
  /** Of SESSION records. */
  readonly pool: Pool;
  readonly grace: Grace;
  readonly indices: Pick<IndexTable, "removeSession">;
}

/** The sessions of a device. */
export class Sessions {
  readonly #arena: Arena;
  readonly #pool: Pool;
  readonly #grace: Grace;
  readonly #indices: Pick<IndexTable, "removeSession">;

  constructor({ arena, pool, grace, indices }: SessionsOptions) {
    this.#arena = arena;
    this.#pool = pool;
    this.#grace = grace;
    this.#indices = indices;
  }

  /** Records in use, those that wait for the workers included. */
  get used(): number {
    return this.#pool.used;
  }

  /** The peer's session, a new one if it has none and `allocate`; 0: none. */
  sessionOf(peer: number, allocate: boolean): number {
    const arena = this.#arena;
    const slot = arena.peer(peer) + PEER.SESSION;
    if (arena.u32[slot] !== 0 || !allocate) return arena.u32[slot];
    let session = this.#pool.alloc();
    if (session === 0) {
      this.#grace.collect(Infinity);
      session = this.#pool.alloc();
    }
    if (session === 0) return 0;
    const at = arena.session(session);
    arena.u32[at + SESSION.PEER] = peer;
    arena.setF64(at + SESSION.COOKIE_BIRTH_F64, -Infinity);
    arena.setF64(at + SESSION.LAST_INITIATION_CONSUMPTION_F64, -Infinity);
    arena.setF64(at + SESSION.LAST_SENT_HANDSHAKE_F64, -Infinity);
    arena.u32[slot] = session;
    return session;
  }

  /**
   * Takes back the session of a peer that is removed or has been idle for long;
   * its timers are stopped. The cookie and the times of the last messages are
   * forgotten; the greatest timestamp is the peer's and stays.
   */
  releaseSession(peer: number): void {
    const arena = this.#arena;
    const session = this.sessionOf(peer, false);
    if (session === 0) return;
    const at = arena.session(session);
    bug(arena.u32[at + SESSION.WHEEL_BUCKET] === 0, "timers are stopped");
    this.handshakeClear(peer);
    arena.zero(at + SESSION.COOKIE, COOKIE_LEN / 4);
    arena.u32[at + SESSION.PEER] = 0;
    arena.u32[arena.peer(peer) + PEER.SESSION] = 0;
    this.#grace.retire(this.#free, session);
  }

  /** Wipes the peer's handshake and gives up its index. */
  handshakeClear(peer: number): void {
    const session = this.sessionOf(peer, false);
    if (session === 0) return;
    this.#indices.removeSession(session);
    this.zeroHandshake(session);
  }

  /** Wipes the handshake alone: its index is someone else's by now. */
  zeroHandshake(session: number): void {
    const at = this.#arena.session(session);
    this.#arena.zero(at + SESSION.EPHEMERAL_PRIVATE, SECRET_WORDS);
    this.#arena.u32[at + SESSION.REMOTE_INDEX] = 0;
    this.#arena.u32[at + SESSION.STATE] = HANDSHAKE_ZEROED;
  }

  /** Whether the peer's last initiation was accepted less than 20 ms ago. */
  flooded(session: number, nowMs: number): boolean {
    const at = this.#arena.session(session);
    const lastMs = this.#arena.getF64(
      at + SESSION.LAST_INITIATION_CONSUMPTION_F64,
    );
    return lastMs + INITIATION_INTERVAL_MS > nowMs;
  }

  /** Whether the last step was an own initiation, which carried this index. */
  awaitsResponse(session: number, index: number): boolean {
    const { u32 } = this.#arena;
    const at = this.#arena.session(session);
    return u32[at + SESSION.STATE] === HANDSHAKE_CREATED_INITIATION &&
      u32[at + SESSION.LOCAL_INDEX] === index;
  }

  /** Working copy of the handshake's hashes. */
  load(session: number): SymmetricState {
    const at = this.#arena.session(session);
    return new SymmetricState(
      this.#arena.bytes(at + SESSION.CHAINING_KEY, HASH_LEN),
      this.#arena.bytes(at + SESSION.HASH, HASH_LEN),
    );
  }

  /** Ends a step: its state and hashes; an own ephemeral key before it is used up. */
  save(session: number, state: number, noise: SymmetricState): void {
    const at = this.#arena.session(session);
    this.#arena.zero(at + SESSION.EPHEMERAL_PRIVATE, PRIVATE_KEY_LEN / 4);
    this.#arena.u8.set(noise.chainingKey, (at + SESSION.CHAINING_KEY) * 4);
    this.#arena.u8.set(noise.hash, (at + SESSION.HASH) * 4);
    this.#arena.u32[at + SESSION.STATE] = state;
  }

  readonly #free = (session: number): void => {
    this.#arena.zero(this.#arena.session(session), SESSION.WORDS);
    this.#pool.free(session);
  };
}
