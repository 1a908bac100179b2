/**
 * The timers of a peer (kernel: `timers.c`; whitepaper 6; reference §5):
 *
 * - retransmit_handshake: 5 s and jitter after an initiation without response
 *   the next one is sent; after 20 in all, silence until new data.
 * - new_handshake: 15 s and jitter after data went out and nothing came back a
 *   handshake is started.
 * - send_keepalive: 10 s after data came in and nothing went out an empty
 *   message is sent.
 * - persistent_keepalive: an empty message after so many seconds without any
 *   authenticated message in either direction, if configured.
 * - zero_key_material: 540 s after the last new keys all keys are wiped.
 *
 * Functions are named after the event that they tell of. Control only; what the
 * data workers tell is in lib/activity. Time and randomness are passed in.
 *
 * @module
 */
import {
  keepalivePending,
  newHandshakePending,
  sentSeq,
  stampMs,
} from "./activity.ts";
import type { Arena } from "./arena.ts";
import { clearSource } from "./endpoint.ts";
import {
  KEEPALIVE_TIMEOUT_MS,
  MAX_TIMER_HANDSHAKES,
  NEW_HANDSHAKE_TIMEOUT_MS,
  REKEY_TIMEOUT_JITTER_MS,
  REKEY_TIMEOUT_MS,
  ZERO_KEY_MATERIAL_MS,
} from "./messages.ts";
import {
  PEER,
  SESSION,
  WATCH_DATA_RECEIVED,
  WATCH_DATA_SENT,
} from "./records.ts";
import { Wheel } from "./wheel.ts";

/** What an expired timer does. */
export interface TimerActions {
  /** Sends an initiation if the limits allow it; a retry keeps counting attempts. */
  sendInitiation(peer: number, retry: boolean): void;
  /** Sends staged packets, or a keepalive if there are none. */
  sendKeepalive(peer: number): void;
  /** Drops all staged packets: no session came to be. */
  giveUp(peer: number): void;
  /** Wipes the handshake and all keypairs. */
  zeroKeyMaterial(peer: number): void;
}

/** Fields of SESSION that hold a deadline. */
const DEADLINES = [
  SESSION.RETRANSMIT_AT_F64,
  SESSION.NEW_HANDSHAKE_AT_F64,
  SESSION.KEEPALIVE_AT_F64,
  SESSION.PERSISTENT_AT_F64,
  SESSION.ZERO_KEY_AT_F64,
] as const;

/** What an expiry costs of what is done at once (lib/wheel), in expiries. */
const INITIATION_COST = 64;

/**
 * Persistent keepalives begun in a second: more are spread over the seconds to
 * come, so that neither they nor those of the intervals after fall together.
 */
const KEEPALIVES_PER_SECOND = 20_000;
const KEEPALIVES_AT_ONCE_MS = 50;

/** Timers of all peers of a device. */
export class Timers {
  readonly #arena: Arena;
  readonly #actions: TimerActions;
  readonly #random: () => number;
  readonly #wheel: Wheel;
  /** Initiations of the present visit. */
  #initiations = 0;
  /** When the next persistent keepalive may begin. */
  #keepaliveMs = 0;

  /** @param random uniform in [0, 1) */
  constructor(
    arena: Arena,
    actions: TimerActions,
    random: () => number,
    nowMs: number,
  ) {
    this.#arena = arena;
    this.#actions = actions;
    this.#random = random;
    this.#wheel = new Wheel(arena, nowMs);
  }

  /** Peers with a timer pending. */
  get count(): number {
    return this.#wheel.count;
  }

  /** Milliseconds until a timer may expire, at most `limitMs`. */
  sleepMs(nowMs: number, limitMs: number): number {
    return this.#wheel.sleepMs(nowMs, limitMs);
  }

  /** Called after an initiation was sent. */
  handshakeInitiated(session: number, nowMs: number): void {
    const { i32 } = this.#arena;
    const at = this.#arena.session(session);
    const peerWord = this.#arena.peer(i32[at + SESSION.PEER]);
    i32[at + SESSION.STAGED_SEQ_SEEN] = i32[peerWord + PEER.STAGED_SEQ];
    this.#arm(
      session,
      SESSION.RETRANSMIT_AT_F64,
      nowMs + REKEY_TIMEOUT_MS + this.#jitterMs(),
    );
  }

  /**
   * Called when the limiter refused an initiation: something must try again, or
   * packets would wait for ever. `allowedMs` is when the limiter lets it through.
   */
  handshakeRefused(session: number, allowedMs: number): void {
    const at = this.#arena.session(session);
    if (this.#arena.getF64(at + SESSION.RETRANSMIT_AT_F64) !== 0) return;
    this.#arm(session, SESSION.RETRANSMIT_AT_F64, allowedMs + this.#jitterMs());
  }

  /** Called when a response was consumed, or the first message confirmed the key. */
  handshakeComplete(session: number, wallMs: number): void {
    const { i32 } = this.#arena;
    const at = this.#arena.session(session);
    i32[at + SESSION.ATTEMPTS] = 0;
    i32[at + SESSION.SENT_LASTMINUTE] = 0;
    const peerWord = this.#arena.peer(i32[at + SESSION.PEER]);
    this.#arena.setF64(peerWord + PEER.LAST_HANDSHAKE_F64, wallMs);
    this.#arm(session, SESSION.RETRANSMIT_AT_F64, 0);
  }

  /** Called when keys were derived, on either side. */
  sessionDerived(session: number, nowMs: number): void {
    this.#arm(session, SESSION.ZERO_KEY_AT_F64, nowMs + ZERO_KEY_MATERIAL_MS);
  }

  /** Called after an authenticated handshake message of the peer was received. */
  handshakeReceived(session: number, nowMs: number): void {
    const { i32 } = this.#arena;
    const peerWord = this.#arena.peer(
      i32[this.#arena.session(session) + SESSION.PEER],
    );
    i32[peerWord + PEER.RX_SEQ_CONTROL]++;
    i32[peerWord + PEER.LAST_RECEIVED_CONTROL_MS] = nowMs;
    this.persistentKeepaliveChanged(session, nowMs);
  }

  /** Called when a worker armed a timer that is not watched (EVENT_ARMED). */
  armed(session: number, nowMs: number): void {
    this.#watchDataSent(session, nowMs);
    this.#watchDataReceived(session, nowMs);
  }

  /** Called when the interval changed or the first authenticated message passed. */
  persistentKeepaliveChanged(session: number, nowMs: number): void {
    const peerWord = this.#peerWord(session);
    const intervalMs = this.#arena.i32[peerWord + PEER.PERSISTENT_KEEPALIVE] *
      1000;
    this.#arm(
      session,
      SESSION.PERSISTENT_AT_F64,
      intervalMs === 0 ? 0 : nowMs + intervalMs,
    );
  }

  /**
   * Called when the interval was turned on, or the interface came up with it.
   *
   * @returns whether a keepalive is to be sent now; else it will be
   */
  persistentKeepaliveStarted(session: number, nowMs: number): boolean {
    this.persistentKeepaliveChanged(session, nowMs);
    const startMs = Math.max(nowMs, this.#keepaliveMs);
    this.#keepaliveMs = startMs + 1000 / KEEPALIVES_PER_SECOND;
    if (startMs - nowMs < KEEPALIVES_AT_ONCE_MS) return true;
    const word = this.#arena.session(session) + SESSION.PERSISTENT_AT_F64;
    if (startMs < this.#arena.getF64(word)) {
      this.#arm(session, SESSION.PERSISTENT_AT_F64, startMs);
    }
    return false;
  }

  /** Cancels all timers of a session that ends or whose interface goes down. */
  stop(session: number): void {
    const { i32 } = this.#arena;
    const at = this.#arena.session(session);
    for (const field of DEADLINES) this.#arena.setF64(at + field, 0);
    this.#wheel.set(session, 0);
    const peerWord = this.#peerWord(session);
    i32[peerWord + PEER.RX_SEQ_CONTROL]++;
    i32[peerWord + PEER.TX_SEQ_CONTROL]++;
    Atomics.store(i32, peerWord + PEER.WATCHES, 0);
    i32[at + SESSION.ATTEMPTS] = 0;
    i32[at + SESSION.SENT_LASTMINUTE] = 0;
  }

  /** Whether any timer of the session is pending. */
  pending(session: number): boolean {
    const at = this.#arena.session(session);
    return DEADLINES.some((field) => this.#arena.getF64(at + field) !== 0);
  }

  /**
   * Runs the actions of timers that expired by `nowMs`: a few milliseconds' worth.
   *
   * @returns whether there are more
   */
  run(nowMs: number): boolean {
    return this.#wheel.advance(nowMs, (session) => {
      this.#initiations = 0;
      this.#expire(session, nowMs);
      return 1 + INITIATION_COST * this.#initiations;
    });
  }

  #expire(session: number, nowMs: number): void {
    const at = this.#arena.session(session);
    const peer = this.#arena.i32[at + SESSION.PEER];
    if (peer === 0) return;
    if (this.#takeExpired(at + SESSION.ZERO_KEY_AT_F64, nowMs)) {
      this.#actions.zeroKeyMaterial(peer);
    }
    // Zeroing may have ended the session.
    if (this.#arena.i32[at + SESSION.PEER] !== peer) return;
    if (this.#takeExpired(at + SESSION.RETRANSMIT_AT_F64, nowMs)) {
      this.#retransmit(session, peer, nowMs);
    }
    if (this.#takeExpired(at + SESSION.NEW_HANDSHAKE_AT_F64, nowMs)) {
      this.#newHandshake(session, peer, nowMs);
    }
    if (this.#takeExpired(at + SESSION.KEEPALIVE_AT_F64, nowMs)) {
      this.#keepalive(session, peer, nowMs);
    }
    if (this.#takeExpired(at + SESSION.PERSISTENT_AT_F64, nowMs)) {
      this.#persistentKeepalive(session, peer, nowMs);
    }
    this.#schedule(session);
  }

  #retransmit(session: number, peer: number, nowMs: number): void {
    const { i32 } = this.#arena;
    const at = this.#arena.session(session);
    const peerWord = this.#arena.peer(peer);
    // Packets that came since the last initiation are new demand: start over.
    const stagedSeq = i32[peerWord + PEER.STAGED_SEQ];
    if (stagedSeq !== i32[at + SESSION.STAGED_SEQ_SEEN]) {
      i32[at + SESSION.ATTEMPTS] = 0;
    }
    if (i32[at + SESSION.ATTEMPTS] > MAX_TIMER_HANDSHAKES) {
      this.#arm(session, SESSION.KEEPALIVE_AT_F64, 0);
      i32[peerWord + PEER.TX_SEQ_CONTROL]++;
      Atomics.and(i32, peerWord + PEER.WATCHES, ~WATCH_DATA_RECEIVED);
      if (this.#arena.getF64(at + SESSION.ZERO_KEY_AT_F64) === 0) {
        this.#arm(
          session,
          SESSION.ZERO_KEY_AT_F64,
          nowMs + ZERO_KEY_MATERIAL_MS,
        );
      }
      this.#actions.giveUp(peer);
      return;
    }
    i32[at + SESSION.ATTEMPTS]++;
    clearSource(this.#arena, peerWord);
    this.#initiations++;
    this.#actions.sendInitiation(peer, true);
  }

  #newHandshake(session: number, peer: number, nowMs: number): void {
    const { i32 } = this.#arena;
    const peerWord = this.#arena.peer(peer);
    Atomics.and(i32, peerWord + PEER.WATCHES, ~WATCH_DATA_SENT);
    // Looked at after the watch ended: who arms it now tells.
    if (!newHandshakePending(this.#arena, peerWord)) return;
    const armedMs = stampMs(i32[peerWord + PEER.DATA_SENT_MS], nowMs);
    if (nowMs - armedMs < NEW_HANDSHAKE_TIMEOUT_MS) {
      this.#watchDataSent(session, nowMs);
      return;
    }
    i32[peerWord + PEER.RX_SEQ_CONTROL]++;
    clearSource(this.#arena, peerWord);
    this.#initiations++;
    this.#actions.sendInitiation(peer, false);
  }

  #keepalive(session: number, peer: number, nowMs: number): void {
    const { i32 } = this.#arena;
    const at = this.#arena.session(session);
    const peerWord = this.#arena.peer(peer);
    Atomics.and(i32, peerWord + PEER.WATCHES, ~WATCH_DATA_RECEIVED);
    const rearmed =
      i32[at + SESSION.KEEPALIVE_TX_SEQ] === ((sentSeq(i32, peerWord) + 1) | 0);
    const pending = keepalivePending(this.#arena, peerWord);
    if (!pending && !rearmed) return;
    const armedMs = stampMs(i32[peerWord + PEER.DATA_RECEIVED_MS], nowMs);
    if (!rearmed && nowMs - armedMs < KEEPALIVE_TIMEOUT_MS) {
      this.#watchDataReceived(session, nowMs);
      return;
    }
    i32[peerWord + PEER.TX_SEQ_CONTROL]++;
    const another = i32[peerWord + PEER.NEED_ANOTHER_KEEPALIVE] !== 0;
    if (another) {
      // Cancelled again by the keepalive itself, unless that cannot be sent.
      i32[peerWord + PEER.NEED_ANOTHER_KEEPALIVE] = 0;
      i32[at + SESSION.KEEPALIVE_TX_SEQ] = sentSeq(i32, peerWord) + 1;
      this.#arm(
        session,
        SESSION.KEEPALIVE_AT_F64,
        nowMs + KEEPALIVE_TIMEOUT_MS,
      );
    }
    this.#actions.sendKeepalive(peer);
  }

  #persistentKeepalive(session: number, peer: number, nowMs: number): void {
    const { i32 } = this.#arena;
    const peerWord = this.#arena.peer(peer);
    const intervalMs = i32[peerWord + PEER.PERSISTENT_KEEPALIVE] * 1000;
    if (intervalMs === 0) return;
    const idleMs = this.#idleMs(peerWord, nowMs);
    if (idleMs < intervalMs) {
      this.#arm(
        session,
        SESSION.PERSISTENT_AT_F64,
        nowMs + intervalMs - idleMs,
      );
      return;
    }
    this.#arm(session, SESSION.PERSISTENT_AT_F64, nowMs + intervalMs);
    this.#actions.sendKeepalive(peer);
  }

  /** Milliseconds since an authenticated message passed in either direction. */
  #idleMs(peerWord: number, nowMs: number): number {
    const { i32 } = this.#arena;
    const age = (seq: number, stamp: number): number =>
      i32[peerWord + seq] === 0
        ? Infinity
        : nowMs - stampMs(i32[peerWord + stamp], nowMs);
    return Math.min(
      age(PEER.TX_SEQ, PEER.LAST_SENT_MS),
      age(PEER.RX_SEQ, PEER.LAST_RECEIVED_MS),
      age(PEER.LAST_RECEIVED_CONTROL_MS, PEER.LAST_RECEIVED_CONTROL_MS),
    );
  }

  /**
   * Looks at `new_handshake` when it is due. A timer that is not pending any
   * more is watched for its whole time, too: under traffic it is armed again at
   * once, and would be told of again and again.
   */
  #watchDataSent(session: number, nowMs: number): void {
    const peerWord = this.#peerWord(session);
    const field = SESSION.NEW_HANDSHAKE_AT_F64;
    if (!this.#watch(session, WATCH_DATA_SENT, field)) return;
    const { i32 } = this.#arena;
    const armedMs = newHandshakePending(this.#arena, peerWord)
      ? stampMs(i32[peerWord + PEER.DATA_SENT_MS], nowMs)
      : nowMs;
    const dueMs = armedMs + NEW_HANDSHAKE_TIMEOUT_MS + this.#jitterMs();
    this.#arm(session, field, dueMs);
  }

  /** The same for the passive keepalive. */
  #watchDataReceived(session: number, nowMs: number): void {
    const peerWord = this.#peerWord(session);
    const field = SESSION.KEEPALIVE_AT_F64;
    if (!this.#watch(session, WATCH_DATA_RECEIVED, field)) return;
    const { i32 } = this.#arena;
    const armedMs = keepalivePending(this.#arena, peerWord)
      ? stampMs(i32[peerWord + PEER.DATA_RECEIVED_MS], nowMs)
      : nowMs;
    this.#arm(session, field, armedMs + KEEPALIVE_TIMEOUT_MS);
  }

  /** Sets a watch; false when the timer's deadline stands already. */
  #watch(session: number, bit: number, field: number): boolean {
    Atomics.or(this.#arena.i32, this.#peerWord(session) + PEER.WATCHES, bit);
    return this.#arena.getF64(this.#arena.session(session) + field) === 0;
  }

  #peerWord(session: number): number {
    const { i32 } = this.#arena;
    return this.#arena.peer(i32[this.#arena.session(session) + SESSION.PEER]);
  }

  #jitterMs(): number {
    return Math.floor(this.#random() * (REKEY_TIMEOUT_JITTER_MS + 1));
  }

  #arm(session: number, field: number, deadlineMs: number): void {
    this.#arena.setF64(this.#arena.session(session) + field, deadlineMs);
    this.#schedule(session);
  }

  #schedule(session: number): void {
    const at = this.#arena.session(session);
    let first = 0;
    for (const field of DEADLINES) {
      const deadline = this.#arena.getF64(at + field);
      if (deadline !== 0 && (first === 0 || deadline < first)) first = deadline;
    }
    this.#wheel.set(session, first);
  }

  #takeExpired(word: number, nowMs: number): boolean {
    const deadline = this.#arena.getF64(word);
    if (deadline === 0 || deadline > nowMs) return false;
    this.#arena.setF64(word, 0);
    return true;
  }
}
