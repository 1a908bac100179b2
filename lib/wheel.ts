/**
 * The timer wheel: one entry for each session that has a timer pending, in a
 * bucket by its earliest deadline, linked through the session's record. An idle
 * peer has none. Deadlines further away than one turn stay in their bucket for
 * more turns. Never early, at most one tick late.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { SESSION } from "./records.ts";

const TICK_MS = 16;
const BUCKETS = 4096;
const MASK = BUCKETS - 1;
/** WHEEL_BUCKET holds the bucket plus one, so that a zeroed record is in none. */
const NO_BUCKET = 0;

/** Wheel over the sessions of one arena. Control only. */
export class Wheel {
  readonly #arena: Arena;
  readonly #heads = new Int32Array(BUCKETS);
  readonly #due: number[] = [];
  #tick: number;
  #count = 0;

  constructor(arena: Arena, nowMs: number) {
    this.#arena = arena;
    this.#tick = Math.floor(nowMs / TICK_MS);
  }

  /** Sessions with a timer pending. */
  get count(): number {
    return this.#count;
  }

  /** Puts `session` where `deadlineMs` is due, or takes it out for 0. */
  set(session: number, deadlineMs: number): void {
    const { i32 } = this.#arena;
    const at = this.#arena.session(session);
    const bucket = deadlineMs === 0
      ? NO_BUCKET
      : (Math.max(Math.floor(deadlineMs / TICK_MS), this.#tick) + 1 & MASK) + 1;
    const old = i32[at + SESSION.WHEEL_BUCKET];
    if (bucket === old) return;
    if (old !== NO_BUCKET) this.#unlink(at, old);
    if (bucket !== NO_BUCKET) this.#link(session, at, bucket);
  }

  /** Calls `visit` with each session whose bucket came up; it sets it again if need be. */
  advance(nowMs: number, visit: (session: number) => void): void {
    const now = Math.floor(nowMs / TICK_MS);
    const from = Math.max(this.#tick + 1, now - MASK);
    if (now < from) return;
    const { i32 } = this.#arena;
    const due = this.#due;
    for (let tick = from; tick <= now; tick++) {
      const head = this.#heads[tick & MASK];
      for (
        let s = head;
        s !== 0;
        s = i32[this.#arena.session(s) + SESSION.WHEEL_NEXT]
      ) {
        due.push(s);
      }
    }
    this.#tick = now;
    // Out of the wheel before the first visit, as a visit may set any session.
    for (const session of due) this.set(session, 0);
    for (const session of due) visit(session);
    due.length = 0;
  }

  /** Milliseconds until something may be due; `limitMs` if nothing is before. */
  sleepMs(nowMs: number, limitMs: number): number {
    const last = Math.min(MASK, Math.ceil(limitMs / TICK_MS));
    for (let i = 1; this.#count > 0 && i <= last; i++) {
      const tick = this.#tick + i;
      if (this.#heads[tick & MASK] !== 0) {
        return Math.min(limitMs, Math.max(0, tick * TICK_MS - nowMs));
      }
    }
    return limitMs;
  }

  #link(session: number, at: number, bucket: number): void {
    const { i32 } = this.#arena;
    const head = this.#heads[bucket - 1];
    i32[at + SESSION.WHEEL_NEXT] = head;
    i32[at + SESSION.WHEEL_PREV] = 0;
    i32[at + SESSION.WHEEL_BUCKET] = bucket;
    if (head !== 0) {
      i32[this.#arena.session(head) + SESSION.WHEEL_PREV] = session;
    }
    this.#heads[bucket - 1] = session;
    this.#count++;
  }

  #unlink(at: number, bucket: number): void {
    const { i32 } = this.#arena;
    const next = i32[at + SESSION.WHEEL_NEXT];
    const prev = i32[at + SESSION.WHEEL_PREV];
    if (prev === 0) this.#heads[bucket - 1] = next;
    else i32[this.#arena.session(prev) + SESSION.WHEEL_NEXT] = next;
    if (next !== 0) i32[this.#arena.session(next) + SESSION.WHEEL_PREV] = prev;
    i32[at + SESSION.WHEEL_NEXT] = i32[at + SESSION.WHEEL_PREV] = 0;
    i32[at + SESSION.WHEEL_BUCKET] = NO_BUCKET;
    this.#count--;
  }
}
