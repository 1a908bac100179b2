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
/** List of what came up and was not visited yet. */
const DUE = BUCKETS;
/** WHEEL_BUCKET holds the bucket plus one, so that a zeroed record is in none. */
const NO_BUCKET = 0;
/** Sessions that `advance` visits unless told otherwise. */
const VISITS = 256;

/** Wheel over the sessions of one arena. Control only. */
export class Wheel {
  readonly #arena: Arena;
  readonly #heads = new Int32Array(BUCKETS + 1);
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
    const at = this.#arena.session(session);
    const bucket = deadlineMs === 0
      ? NO_BUCKET
      : (Math.max(Math.floor(deadlineMs / TICK_MS), this.#tick) + 1 & MASK) + 1;
    const old = this.#arena.i32[at + SESSION.WHEEL_BUCKET];
    if (bucket === old) return;
    if (old !== NO_BUCKET) this.#unlink(at);
    if (bucket !== NO_BUCKET) this.#link(session, at, bucket);
  }

  /**
   * Calls `visit` with sessions whose bucket came up, in the order of their
   * ticks, until the costs that it returns come to `budget`; it sets the session
   * again if need be.
   *
   * @returns whether there are more to visit at once
   */
  advance(
    nowMs: number,
    visit: (session: number) => number,
    budget: number = VISITS,
  ): boolean {
    const now = Math.floor(nowMs / TICK_MS);
    for (let left = budget;;) {
      for (let session; (session = this.#heads[DUE]) !== 0;) {
        if (left <= 0) return true;
        // Out of the wheel before the visit, which may set any session.
        this.set(session, 0);
        left -= visit(session);
      }
      if (this.#count === 0) this.#tick = Math.max(this.#tick, now);
      if (this.#tick >= now) return false;
      this.#tick = Math.max(this.#tick + 1, now - MASK);
      this.#comeUp(this.#tick & MASK);
    }
  }

  /** Milliseconds until something may be due; `limitMs` if nothing is before. */
  sleepMs(nowMs: number, limitMs: number): number {
    if (this.#heads[DUE] !== 0) return 0;
    const last = Math.min(MASK, Math.ceil(limitMs / TICK_MS));
    for (let i = 1; this.#count > 0 && i <= last; i++) {
      const tick = this.#tick + i;
      if (this.#heads[tick & MASK] !== 0) {
        return Math.min(limitMs, Math.max(0, tick * TICK_MS - nowMs));
      }
    }
    return limitMs;
  }

  /**
   * Makes a bucket the list of what is due. Its sessions keep the number of the
   * bucket: setting one for the same bucket a turn later leaves it where it is,
   * and the visit finds that it is early.
   */
  #comeUp(bucket: number): void {
    const head = this.#heads[bucket];
    this.#heads[bucket] = 0;
    this.#heads[DUE] = head;
    if (head === 0) return;
    const at = this.#arena.session(head);
    this.#arena.i32[at + SESSION.WHEEL_PREV] = -1 - DUE;
  }

  #link(session: number, at: number, bucket: number): void {
    const { i32 } = this.#arena;
    const list = bucket - 1;
    const head = this.#heads[list];
    i32[at + SESSION.WHEEL_NEXT] = head;
    // The first of a list says which list.
    i32[at + SESSION.WHEEL_PREV] = -1 - list;
    i32[at + SESSION.WHEEL_BUCKET] = bucket;
    if (head !== 0) {
      i32[this.#arena.session(head) + SESSION.WHEEL_PREV] = session;
    }
    this.#heads[list] = session;
    this.#count++;
  }

  #unlink(at: number): void {
    const { i32 } = this.#arena;
    const next = i32[at + SESSION.WHEEL_NEXT];
    const prev = i32[at + SESSION.WHEEL_PREV];
    if (prev < 0) this.#heads[-1 - prev] = next;
    else i32[this.#arena.session(prev) + SESSION.WHEEL_NEXT] = next;
    if (next !== 0) i32[this.#arena.session(next) + SESSION.WHEEL_PREV] = prev;
    i32[at + SESSION.WHEEL_NEXT] = i32[at + SESSION.WHEEL_PREV] = 0;
    i32[at + SESSION.WHEEL_BUCKET] = NO_BUCKET;
    this.#count--;
  }
}
