/**
 * Handshake messages in and out (kernel: the handshake parts of `receive.c` and
 * `send.c`): the queue that inbound fills, the under-load rule, cookies and the
 * rate limiter, then lib/noise; and the messages to outbound's ring. Control
 * only.
 *
 * @module
 */
import {
  type Arena,
  HEADER,
  MESSAGE_ENTRY,
  MESSAGES_RING_CAPACITY,
} from "./arena.ts";
import type { Askers } from "./askers.ts";
import { type Cookies, hasMac2 } from "./cookie.ts";
import { COUNT, type Counters } from "./counters.ts";
import { readEndpoint, writeEndpoint } from "./endpoint.ts";
import { FloodLevel } from "./flood.ts";
import {
  COOKIE_REPLY,
  HANDSHAKE_DSCP,
  INITIATION,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_INITIATION,
  REKEY_TIMEOUT_MS,
  RESPONSE,
  UNDER_LOAD_HYSTERESIS_MS,
  UNDER_LOAD_QUEUE_LENGTH,
} from "./messages.ts";
import type { Noise } from "./noise.ts";
import type { Sessions } from "./noise_sessions.ts";
import {
  COMMAND_KEEPALIVE,
  handshakeRings,
  type Mailbox,
  MessageRing,
} from "./queueing.ts";
import type { RateLimiter } from "./ratelimiter.ts";
import { ENDPOINT, PEER, SESSION } from "./records.ts";
import type { Timers } from "./timers.ts";

/** Microseconds of work that a message was: codes, an answer, products of keys. */
const CONSUMED = {
  NOTHING: 0,
  CHECKED: 2,
  CHECKED_COOKIE: 4,
  ANSWERED: 8,
  COMPUTED: 900,
} as const;

/** Work on handshake messages in a turn: 16 handshakes, about 15 ms. */
const HANDSHAKE_WORK_MAX = 16 * CONSUMED.COMPUTED;
/**
 * Work on messages that come to nothing, for each ms since the turn before: 75
 * messages that are checked, half as many with a mac2, are what a flood gets of
 * this thread's time. More than this is left until the next turn.
 */
const FLOOD_WORK_PER_MS = 150;
/**
 * Answers with cookies among them. Four in ten are for whoever asks, the others
 * for those who ask again when an initiator would (lib/askers).
 */
const ANSWERS_PER_MS = 10;
const ANSWERS_FOR_ASKERS = 0.6;
/** As if so long had passed at least, and at most. */
const FLOOD_TURN_MIN_MS = 5;
const FLOOD_TURN_MAX_MS = 25;
/** So many that come to nothing, in a turn, are a flood: the next turn can wait. */
const FLOOD_MESSAGES = 8;
/** So long after the last load nobody waits for an answer any more. */
const FLOOD_OVER_MS = 30_000;

/** Levels (lib/flood) of messages without a mac2, and with one. */
export type FloodLevels = readonly [first: number, cookieHolders: number];

/** What {@link Handshakes} works on. */
export interface HandshakesOptions {
  readonly arena: Arena;
  readonly noise: Noise;
  readonly sessions: Sessions;
  readonly cookies: Cookies;
  readonly limiter: RateLimiter;
  readonly askers: Askers;
  readonly timers: Timers;
  readonly counters: Counters;
  readonly commands: Mailbox;
  /** Wall clock in ms since the epoch. */
  readonly wallMs: () => number;
  /** Time for the timestamp of an initiation, in ms since the epoch. */
  readonly timestampMs: () => number;
}

/** The handshake messages of a device. */
export class Handshakes {
  readonly #o: HandshakesOptions;
  readonly #arena: Arena;
  readonly #incoming: readonly MessageRing[];
  readonly #levels = [new FloodLevel(), new FloodLevel()] as const;
  #turn = 0;
  #consumedMs = 0;
  #flooded = false;
  /** Answers that may be given in this turn, and how many only to askers. */
  #answersLeft = 0;
  #answersForAskers = 0;
  readonly #outgoing: MessageRing;
  #lastUnderLoadMs = -Infinity;
  // In a flood, to make an array for each message would be half of the work.
  readonly #initiation = new Uint8Array(INITIATION.end);
  readonly #response = new Uint8Array(RESPONSE.end);
  readonly #cookieReply = new Uint8Array(COOKIE_REPLY.end);
  readonly #reply = new Uint8Array(COOKIE_REPLY.end);

  constructor(options: HandshakesOptions) {
    this.#o = options;
    this.#arena = options.arena;
    const { layout } = options.arena;
    this.#incoming = handshakeRings(options.arena);
    this.#outgoing = new MessageRing(
      options.arena,
      HEADER.MESSAGES_RING,
      layout.messagesRing,
      MESSAGES_RING_CAPACITY,
    );
  }

  /** Handshake messages that wait. */
  get queued(): number {
    const [first, cookieHolders] = this.#incoming;
    return first.length + cookieHolders.length;
  }

  /** How much of a flood the sockets shall drop; changes with `watchFlood`. */
  get floodLevels(): FloodLevels {
    const [first, cookieHolders] = this.#levels;
    return [first.level, cookieHolders.level];
  }

  /** Looks at what waits. @returns whether to look again soon */
  watchFlood(nowMs: number): boolean {
    if (this.#lastUnderLoadMs + FLOOD_OVER_MS < nowMs) this.#o.askers.forget();
    let flood = false;
    for (const [i, level] of this.#levels.entries()) {
      level.update(this.#incoming[i].length, nowMs);
      flood ||= level.level > 0;
    }
    return flood;
  }

  /** Whether what waits is part of a flood, and can wait for some ms. */
  get flooded(): boolean {
    return this.#flooded;
  }

  /** Handles what waits, as far as its turn goes. @returns whether there was any */
  consume(nowMs: number): boolean {
    const elapsedMs = nowMs - this.#consumedMs;
    this.#consumedMs = nowMs;
    const turnMs = Math.min(
      FLOOD_TURN_MAX_MS,
      Math.max(FLOOD_TURN_MIN_MS, elapsedMs),
    );
    let floodLeft = FLOOD_WORK_PER_MS * turnMs;
    this.#answersLeft = ANSWERS_PER_MS * turnMs;
    this.#answersForAskers = this.#answersLeft * ANSWERS_FOR_ASKERS;
    let left = HANDSHAKE_WORK_MAX;
    let handled = 0;
    let useless = 0;
    while (left > 0 && floodLeft > 0) {
      const work = this.#consumeNext(nowMs);
      if (work === CONSUMED.NOTHING) break;
      handled++;
      if (work === CONSUMED.COMPUTED) {
        left -= work;
        continue;
      }
      floodLeft -= work;
      useless++;
    }
    this.#flooded = floodLeft <= 0 || useless >= FLOOD_MESSAGES;
    return handled > 0;
  }

  /** Handles the oldest waiting message, of the two rings in turn. @returns its work */
  #consumeNext(nowMs: number): number {
    this.#turn ^= 1;
    let ring = this.#incoming[this.#turn];
    let entry = ring.peek();
    if (entry === 0) {
      ring = this.#incoming[this.#turn ^ 1];
      entry = ring.peek();
    }
    if (entry === 0) return CONSUMED.NOTHING;
    const { u8 } = this.#arena;
    const from = (entry + MESSAGE_ENTRY.MESSAGE) * 4;
    const message = this.#room(u8[from]);
    for (let i = 0; i < message.length; i++) message[i] = u8[from + i];
    const work = this.#consume(message, entry + MESSAGE_ENTRY.ENDPOINT, nowMs);
    ring.release();
    return work;
  }

  /** Where a message of this type is handled; inbound has looked at its length. */
  #room(type: number): Uint8Array {
    return type === MESSAGE_INITIATION
      ? this.#initiation
      : type === MESSAGE_COOKIE_REPLY
      ? this.#cookieReply
      : this.#response;
  }

  /** Drops all waiting messages: the interface goes down. */
  drain(): void {
    for (const ring of this.#incoming) {
      while (ring.peek() !== 0) ring.release();
    }
  }

  /**
   * Sends an initiation to the peer unless one was sent less than 5 s ago.
   *
   * @param retry whether it repeats an unanswered one, and attempts count on
   */
  sendInitiation(peer: number, retry: boolean, nowMs: number): void {
    const { noise, sessions, timers, cookies, counters, timestampMs } = this.#o;
    noise.followIdentity(peer);
    const session = sessions.sessionOf(peer, true);
    if (session === 0) {
      // No timer tries again: the next packet has to ask.
      this.answerAsked(peer);
      return counters.add(COUNT.handshake_no_memory);
    }
    const at = this.#arena.session(session);
    if (!retry) this.#arena.i32[at + SESSION.ATTEMPTS] = 0;
    const lastMs = this.#arena.getF64(at + SESSION.LAST_SENT_HANDSHAKE_F64);
    if (lastMs + REKEY_TIMEOUT_MS > nowMs) {
      return timers.handshakeRefused(session, lastMs + REKEY_TIMEOUT_MS);
    }
    this.#arena.setF64(at + SESSION.LAST_SENT_HANDSHAKE_F64, nowMs);
    const message = new Uint8Array(INITIATION.end);
    if (!noise.handshakeCreateInitiation(peer, message, timestampMs())) return;
    cookies.addMacs(message, peer, nowMs);
    this.#send(peer, message);
    timers.handshakeInitiated(session, nowMs);
  }

  #consume(message: Uint8Array, endpoint: number, nowMs: number): number {
    const { cookies, counters } = this.#o;
    const type = message[0];
    if (type === MESSAGE_COOKIE_REPLY) {
      if (!cookies.consumeCookieReply(message, nowMs)) {
        counters.add(COUNT.handshake_refused_cookie_reply);
      }
      return CONSUMED.CHECKED;
    }
    if (this.#underLoad(nowMs)) {
      const work = this.#checkUnderLoad(message, endpoint, nowMs);
      if (work !== CONSUMED.NOTHING) return work;
    } else if (!cookies.hasValidMac1(message)) return this.#invalidMac();
    if (type === MESSAGE_INITIATION) {
      this.#consumeInitiation(message, endpoint, nowMs);
    } else {
      this.#consumeResponse(message, endpoint, nowMs);
    }
    return CONSUMED.COMPUTED;
  }

  /**
   * Asks for a cookie, and answers without. What will come to nothing is found
   * out in the cheapest order.
   *
   * @returns the work that the message was, or NOTHING if it may be consumed
   */
  #checkUnderLoad(
    message: Uint8Array,
    endpoint: number,
    nowMs: number,
  ): number {
    const { cookies, limiter, counters } = this.#o;
    const isHolder = cookies.hasValidMac2(message, endpoint, nowMs);
    if (!isHolder && !this.#mayAnswer(endpoint, nowMs)) {
      counters.add(COUNT.handshake_under_load);
      counters.add(COUNT.handshake_unanswered);
      return hasMac2(message) ? CONSUMED.CHECKED_COOKIE : CONSUMED.CHECKED;
    }
    if (!cookies.hasValidMac1(message)) return this.#invalidMac();
    counters.add(COUNT.handshake_under_load);
    if (!isHolder) {
      this.#answersLeft--;
      this.#sendCookieReply(message, endpoint, nowMs);
      return CONSUMED.ANSWERED;
    }
    if (limiter.allow(endpoint + ENDPOINT.ADDRESS, nowMs)) {
      return CONSUMED.NOTHING;
    }
    counters.add(COUNT.handshake_ratelimited);
    return CONSUMED.CHECKED_COOKIE;
  }

  #invalidMac(): number {
    this.#o.counters.add(COUNT.handshake_invalid_mac);
    return CONSUMED.CHECKED;
  }

  /**
   * Whether the queue is an eighth full, or was in the last second; or would be
   * if the sockets took in all.
   */
  #underLoad(nowMs: number): boolean {
    const [first, cookieHolders] = this.#levels;
    if (
      this.queued >= UNDER_LOAD_QUEUE_LENGTH || first.level > 0 ||
      cookieHolders.level > 0
    ) {
      this.#lastUnderLoadMs = nowMs;
      return true;
    }
    return this.#lastUnderLoadMs + UNDER_LOAD_HYSTERESIS_MS > nowMs;
  }

  /**
   * Whether a message without a cookie is answered with one. Where there are
   * more than can be answered, who comes back is preferred: forged sources do not.
   */
  #mayAnswer(endpoint: number, nowMs: number): boolean {
    return this.#answersLeft > this.#answersForAskers ||
      this.#o.askers.asksAgain(endpoint, nowMs) && this.#answersLeft > 0;
  }

  #consumeInitiation(message: Uint8Array, from: number, nowMs: number): void {
    const { noise, counters } = this.#o;
    const peer = noise.handshakeConsumeInitiation(message, nowMs);
    if (peer === 0) return counters.add(COUNT.handshake_refused_initiation);
    this.#authenticated(peer, message.length, from, nowMs);
    this.#sendResponse(peer, nowMs);
  }

  #consumeResponse(message: Uint8Array, from: number, nowMs: number): void {
    const { noise, timers, counters, commands, sessions, wallMs } = this.#o;
    const peer = noise.handshakeConsumeResponse(message);
    if (peer === 0) return counters.add(COUNT.handshake_refused_response);
    this.#authenticated(peer, message.length, from, nowMs);
    if (noise.handshakeBeginSession(peer, nowMs) === 0) {
      return counters.add(COUNT.handshake_no_memory);
    }
    const session = sessions.sessionOf(peer, false);
    timers.sessionDerived(session, nowMs);
    timers.handshakeComplete(session, wallMs());
    this.answerAsked(peer);
    // Whatever goes out first confirms the key to the responder.
    commands.post(peer, COMMAND_KEEPALIVE);
  }

  /** Lets outbound ask for a handshake of the peer again. */
  answerAsked(peer: number): void {
    const word = this.#arena.peer(peer) + PEER.HANDSHAKE_ASKED;
    Atomics.store(this.#arena.i32, word, 0);
  }

  /** Roaming, statistics and timers for an authentic handshake message. */
  #authenticated(
    peer: number,
    bytes: number,
    from: number,
    nowMs: number,
  ): void {
    const arena = this.#arena;
    const peerWord = arena.peer(peer);
    writeEndpoint(arena, peerWord, from);
    const rx = peerWord + PEER.RX_BYTES_CONTROL_F64;
    arena.setF64(rx, arena.getF64(rx) + bytes);
    const { sessions, timers } = this.#o;
    timers.handshakeReceived(sessions.sessionOf(peer, false), nowMs);
  }

  #sendResponse(peer: number, nowMs: number): void {
    const { noise, sessions, timers, cookies, counters } = this.#o;
    const session = sessions.sessionOf(peer, false);
    const at = this.#arena.session(session);
    this.#arena.setF64(at + SESSION.LAST_SENT_HANDSHAKE_F64, nowMs);
    const message = new Uint8Array(RESPONSE.end);
    if (!noise.handshakeCreateResponse(peer, message)) {
      return counters.add(COUNT.handshake_refused_initiation);
    }
    cookies.addMacs(message, peer, nowMs);
    if (noise.handshakeBeginSession(peer, nowMs) === 0) {
      return counters.add(COUNT.handshake_no_memory);
    }
    timers.sessionDerived(session, nowMs);
    this.#send(peer, message);
  }

  #sendCookieReply(message: Uint8Array, to: number, nowMs: number): void {
    const { cookies, counters } = this.#o;
    const reply = this.#reply;
    if (!cookies.createCookieReply(reply, message, to, nowMs)) return;
    const entry = this.#outgoing.reserve();
    if (entry === 0) return counters.add(COUNT.handshake_messages_dropped);
    const { i32 } = this.#arena;
    const at = entry + MESSAGE_ENTRY.ENDPOINT;
    for (let w = 0; w < ENDPOINT.WORDS; w++) i32[at + w] = i32[to + w];
    this.#publish(entry, 0, reply, 0);
    counters.add(COUNT.cookie_replies_sent);
  }

  #send(peer: number, message: Uint8Array): void {
    const entry = this.#outgoing.reserve();
    const arena = this.#arena;
    if (
      entry === 0 ||
      !readEndpoint(arena, arena.peer(peer), entry + MESSAGE_ENTRY.ENDPOINT)
    ) return this.#o.counters.add(COUNT.handshake_messages_dropped);
    this.#publish(entry, peer, message, HANDSHAKE_DSCP);
  }

  #publish(entry: number, peer: number, message: Uint8Array, ds: number): void {
    const { i32, u8 } = this.#arena;
    i32[entry + MESSAGE_ENTRY.LENGTH] = message.length;
    i32[entry + MESSAGE_ENTRY.PEER] = peer;
    i32[entry + MESSAGE_ENTRY.DS] = ds;
    const to = (entry + MESSAGE_ENTRY.MESSAGE) * 4;
    for (let i = 0; i < message.length; i++) u8[to + i] = message[i];
    this.#outgoing.publish();
  }
}
