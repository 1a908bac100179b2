/**
 * Whether the threads that move packets still take turns. One that throws tells
 * of it; one that hangs cannot, and a device that says nothing of it is worse
 * than one that ends.
 *
 * A thread is stuck when it is awake, and not one turn further at several looks
 * in a row. It is not when it is the machine that stands still: when the looks
 * themselves come late, when the thread gets no CPU time, or waits for a disk.
 *
 * @module
 */
import { type Arena, HEADER } from "./arena.ts";
import type { Role } from "./loop.ts";

/** How often to look: what is stuck is found within a second. */
export const PULSE_LOOK_MS = 200;
/** Looks in a row that must see the same. */
const LOOKS = 4;
/** Between two looks that count. */
const LATE_MS = 2 * PULSE_LOOK_MS;
/** Of the time between them, what a thread that computes has had at least. */
const CPU_SHARE_MIN = 0.5;

/** What the system says of a thread. */
export interface ThreadState {
  /** As in /proc/PID/stat: R runs or could, S sleeps, D waits for a disk, … */
  readonly letter: string;
  /** CPU time that it has had. */
  readonly cpuMs: number;
}

/** A thread that is looked at. */
export interface PulseThread {
  readonly name: string;
  /** Another number after each turn; undefined while it waits for work. */
  turn(): number | undefined;
  /** Undefined where the system does not tell. */
  state(): ThreadState | undefined;
}

interface Seen {
  readonly turn: number;
  readonly sinceMs: number;
  readonly cpuMs: number;
  looks: number;
}

/** Looks at threads. */
export class Pulse {
  readonly #threads: readonly PulseThread[];
  readonly #seen = new Map<PulseThread, Seen>();
  #lookedMs = -Infinity;

  constructor(threads: readonly PulseThread[]) {
    this.#threads = threads;
  }

  /**
   * Called every {@linkcode PULSE_LOOK_MS}.
   *
   * @returns the name of a thread that is stuck
   */
  look(nowMs: number): string | undefined {
    if (nowMs - this.#lookedMs > LATE_MS) this.#seen.clear();
    this.#lookedMs = nowMs;
    for (const thread of this.#threads) {
      if (this.#isStuck(thread, nowMs)) return thread.name;
    }
    return undefined;
  }

  #isStuck(thread: PulseThread, nowMs: number): boolean {
    const turn = thread.turn();
    if (turn === undefined) {
      this.#seen.delete(thread);
      return false;
    }
    const seen = this.#seen.get(thread);
    if (seen?.turn !== turn) {
      const cpuMs = thread.state()?.cpuMs ?? 0;
      this.#seen.set(thread, { turn, sinceMs: nowMs, cpuMs, looks: 1 });
      return false;
    }
    if (++seen.looks < LOOKS) return false;
    this.#seen.delete(thread);
    const state = thread.state();
    if (state === undefined) return true;
    const share = (state.cpuMs - seen.cpuMs) / (nowMs - seen.sinceMs);
    return state.letter === "R" ? share >= CPU_SHARE_MIN : state.letter !== "D";
  }
}

/** Where a loop counts its turns. */
export function turnsWord(role: Role): number {
  return role === "inbound" ? HEADER.INBOUND_TURNS : HEADER.OUTBOUND_TURNS;
}

/** A loop's turns so far; undefined while it waits for work. */
export function turnsOf(arena: Arena, role: Role): number | undefined {
  const sleeps = role === "inbound"
    ? HEADER.INBOUND_SLEEPS
    : HEADER.OUTBOUND_SLEEPS;
  return Atomics.load(arena.i32, sleeps) === 1
    ? undefined
    : arena.i32[turnsWord(role)];
}
