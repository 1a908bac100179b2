/**
 * What tests/scheduler.ts runs on: memory and threads of one scenario, words and
 * Atomics whose accesses are steps, and the replay of a thread up to its next.
 */
import { Arena, type ArenaLimits } from "../lib/arena.ts";

type Words = Int32Array<SharedArrayBuffer>;

/** A thread: operations, with what it knows between them. */
export interface Thread<Local> {
  readonly name: string;
  /** What it knows before the first; must be what JSON can tell apart. */
  readonly start: Local;
  /**
   * The next operation; it may know nothing but `local` and what it reads, and
   * change nothing but words. Often run in part.
   *
   * @returns what the thread knows then
   */
  operation(local: Local): Local;
  /** Whether it has no operation left. */
  done(local: Local): boolean;
  /**
   * How many of the present operation's first results can be forgotten, because
   * it has begun again as if it knew nothing: so it is with loops that try again.
   */
  forgets?(results: readonly number[]): number;
}

/** A state of the system, for checks. */
export interface View {
  /** Value of a word. */
  word(at: number): number;
  /** What a thread knew before its present operation, or in the end. */
  local(thread: number): unknown;
  /** Whether a thread has ended its last operation and not begun the next. */
  between(thread: number): boolean;
  /** Steps that a thread has done of its present operation and not forgotten. */
  steps(thread: number): number;
  /** Whether a thread has ended. */
  ended(thread: number): boolean;
  /** Whether a thread sleeps in Atomics.wait. */
  sleeps(thread: number): boolean;
  /** Runs code on a copy of the memory, all at once. */
  alone<Result>(run: () => Result): Result;
}

/** Threads, and what must hold. */
export interface Scenario {
  readonly threads: readonly Thread<unknown>[];
  /** Words that are not zero at the start. */
  readonly initial?: ReadonlyMap<number, number>;
  /** Words that nobody changes: to read them is no step. */
  readonly fixed?: ReadonlyMap<number, number>;
  /** Words that nobody reads: to store to them is no step. */
  readonly unread?: ReadonlySet<number>;
  /** Whether accesses to a word happen with the step before: then they are no steps. */
  joined?(at: number): boolean;
  /** Whether the code does not use the result of an operation on a word. */
  unused?(name: string, at: number): boolean;
  /**
   * Called in each state, behind a step of `thread`; throws if something is
   * wrong. `past` is what it gave in the state before, 0 at the start.
   */
  check?(view: View, thread: number, past: number): number;
  /** Called in each state in which no thread can go on. */
  end(view: View): void;
}

/** Status of a thread that can go on. */
export const RUNS = -1;
const ENDED = -2;
/** Results of Atomics.wait in the log. */
const WAIT_OK = 1;
const WAIT_NOT_EQUAL = 0;

interface ThreadState {
  readonly local: unknown;
  readonly localKey: string;
  /** Whether the present operation has begun. */
  readonly begun: boolean;
  /** Results of its steps. */
  readonly log: readonly number[];
  /** RUNS, ENDED, or the word that it sleeps on. */
  readonly status: number;
}

export interface State {
  readonly memory: number[];
  readonly threads: ThreadState[];
  /** Threads that sleep, first come first. */
  readonly sleepers: number[];
  past: number;
}

function betweenOperations(
  thread: Thread<unknown>,
  local: unknown,
): ThreadState {
  const status = thread.done(local) ? ENDED : RUNS;
  const localKey = JSON.stringify(local);
  return { local, localKey, begun: false, log: [], status };
}

class Stop extends Error {}
const STOP = new Stop();

/** Does a step or gives its result again. */
type Access = (name: string, at: number, act: () => number) => number;

let access: Access | undefined;
let machine: Machine | undefined;

function scheduled(): { step: Access; machine: Machine } {
  if (access === undefined || machine === undefined) {
    throw new Error("scheduled words are used outside of a scenario");
  }
  return { step: access, machine };
}

/** The words that the threads share; of any length, zero at first. */
export const scheduledWords: Words = new Proxy(
  new Int32Array(new SharedArrayBuffer(0)),
  {
    get: (_, key): number => {
      const { step, machine } = scheduled();
      return step("read", Number(key), () => machine.get(Number(key)));
    },
    set: (_, key, value): boolean => {
      const { step, machine } = scheduled();
      step("write", Number(key), () => machine.set(Number(key), value));
      return true;
    },
  },
);

/**
 * Changes a word as part of the step before, behind the last access of an
 * operation: for memory that is the thread's own, and for the test's notes.
 */
export function poke(at: number, change: (before: number) => number): void {
  const { machine } = scheduled();
  machine.set(at, change(machine.get(at)));
}

/** Runs code that shall see zeros and change nothing, and takes no step. */
export function aside(run: () => void): void {
  const kept = access;
  access = (): number => 0;
  try {
    run();
  } finally {
    access = kept;
  }
}

/** An arena whose 32-bit words are scheduled. */
export function scheduledArena(limits: ArenaLimits): Arena {
  return Object.create(new Arena(limits), { i32: { value: scheduledWords } });
}

type Update = (before: number, operand: number) => number;

/** The atomic operations that are an access each, by what they make of a word. */
const UPDATES = {
  add: (before, operand) => before + operand,
  sub: (before, operand) => before - operand,
  or: (before, operand) => before | operand,
  and: (before, operand) => before & operand,
  exchange: (_, operand) => operand,
} satisfies Record<string, Update>;

type ScheduledAtomics = Pick<
  typeof Atomics,
  | keyof typeof UPDATES
  | "load"
  | "store"
  | "compareExchange"
  | "wait"
  | "notify"
>;

function withScheduledAtomics<Result>(run: () => Result): Result {
  const original: ScheduledAtomics = { ...pick(Atomics) };
  const patched: Record<string, unknown> = {};
  for (const [name, update] of Object.entries<Update>(UPDATES)) {
    const key = name as keyof typeof UPDATES;
    patched[name] = (words: Words, at: number, operand: number): number => {
      if (words !== scheduledWords) return original[key](words, at, operand);
      const { step, machine } = scheduled();
      return step(name, at, () => {
        const before = machine.get(at);
        machine.set(at, update(before, operand));
        return before;
      });
    };
  }
  patched.load = (words: Words, at: number): number => {
    if (words !== scheduledWords) return original.load(words, at);
    const { step, machine } = scheduled();
    return step("load", at, () => machine.get(at));
  };
  patched.store = (words: Words, at: number, value: number): number => {
    if (words !== scheduledWords) return original.store(words, at, value);
    const { step, machine } = scheduled();
    return step("store", at, () => machine.set(at, value));
  };
  patched.compareExchange = (
    words: Words,
    at: number,
    expected: number,
    value: number,
  ): number => {
    if (words !== scheduledWords) {
      return original.compareExchange(words, at, expected, value);
    }
    const { step, machine } = scheduled();
    return step("compareExchange", at, () => {
      const before = machine.get(at);
      if (before === (expected | 0)) machine.set(at, value);
      return before;
    });
  };
  patched.wait = (words: Words, at: number, value: number): string => {
    if (words !== scheduledWords) return original.wait(words, at, value);
    const { step, machine } = scheduled();
    const result = step("wait", at, () => machine.wait(at, value));
    return result === WAIT_OK ? "ok" : "not-equal";
  };
  patched.notify = (words: Words, at: number, count?: number): number => {
    if (words !== scheduledWords) return original.notify(words, at, count);
    const { step, machine } = scheduled();
    return step("notify", at, () => machine.notify(at, count ?? Infinity));
  };
  Object.assign(Atomics, patched);
  try {
    return run();
  } finally {
    Object.assign(Atomics, original);
  }
}

function pick(atomics: ScheduledAtomics): ScheduledAtomics {
  const { load, store, add, sub, or, and, exchange } = atomics;
  const { compareExchange, wait, notify } = atomics;
  return {
    ...{ load, store, add, sub, or, and, exchange },
    ...{ compareExchange, wait, notify },
  };
}

/** Memory and threads of one scenario. */
export class Machine {
  readonly #scenario: Scenario;
  /** Place of each word in a state's memory. */
  readonly #places = new Map<number, number>();
  readonly #initial: number[] = [];
  #state: State;
  #thread = 0;
  readonly #view: View = {
    word: (at) => this.get(at),
    local: (thread) => this.#state.threads[thread].local,
    between: (thread) => !this.#state.threads[thread].begun,
    steps: (thread) => this.#state.threads[thread].log.length,
    ended: (thread) => this.#state.threads[thread].status === ENDED,
    sleeps: (thread) => this.#state.threads[thread].status >= 0,
    alone: (run) => this.#alone(run),
  };

  constructor(scenario: Scenario) {
    this.#scenario = scenario;
    for (const [at, value] of scenario.initial ?? []) {
      this.#places.set(at, this.#initial.length);
      this.#initial.push(value);
    }
    this.#state = {
      memory: [],
      sleepers: [],
      past: 0,
      threads: scenario.threads.map((thread) =>
        betweenOperations(thread, thread.start)
      ),
    };
  }

  /** The state before the first step. */
  get start(): State {
    return this.#state;
  }

  #place(at: number): number {
    let place = this.#places.get(at);
    if (place === undefined) {
      if (!Number.isInteger(at) || at < 0) throw new Error(`word ${at}`);
      place = this.#initial.length;
      this.#places.set(at, place);
      this.#initial.push(0);
    }
    return place;
  }

  /** Value of a word of the present state. */
  get(at: number): number {
    const place = this.#place(at);
    return this.#state.memory[place] ?? this.#initial[place];
  }

  /** Sets a word of the present state. */
  set(at: number, value: number): number {
    const place = this.#place(at);
    const { memory } = this.#state;
    for (let i = memory.length; i < place; i++) memory[i] = this.#initial[i];
    memory[place] = value | 0;
    return value | 0;
  }

  /** Puts the present thread to sleep if the word is `value`. */
  wait(at: number, value: number): number {
    if (this.get(at) !== (value | 0)) return WAIT_NOT_EQUAL;
    const { threads, sleepers } = this.#state;
    threads[this.#thread] = { ...threads[this.#thread], status: at };
    sleepers.push(this.#thread);
    throw STOP;
  }

  /** Ends the sleep of the first `count` threads that sleep on the word. */
  notify(at: number, count: number): number {
    const { threads, sleepers } = this.#state;
    let woken = 0;
    for (let i = 0; i < sleepers.length && woken < count;) {
      const sleeper = threads[sleepers[i]];
      if (sleeper.status !== at) {
        i++;
        continue;
      }
      const log = [...sleeper.log, WAIT_OK];
      threads[sleepers[i]] = { ...sleeper, status: RUNS, log };
      sleepers.splice(i, 1);
      woken++;
    }
    return woken;
  }

  /** What tells a state from all others. */
  key({ memory, threads, sleepers, past }: State): string {
    let key = `${memory.join()}|${sleepers.join()}|${past}`;
    for (const { localKey, begun, log, status } of threads) {
      key += `|${localKey}${begun ? ":" : "."}${log.join()}:${status}`;
    }
    return key;
  }

  /** The state behind one step of `thread`. `said` is told of the step. */
  step(
    before: State,
    thread: number,
    said: (name: string, at: number, result: number) => void,
  ): State {
    const state: State = {
      memory: before.memory.slice(),
      threads: before.threads.slice(),
      sleepers: before.sleepers.slice(),
      past: before.past,
    };
    this.#state = state;
    this.#thread = thread;
    const { local, log: done } = before.threads[thread];
    const log = done.slice();
    let position = 0;
    let stepped = false;
    access = (name, at, act): number => {
      const fixed = this.#scenario.fixed?.get(at);
      if (fixed !== undefined) return this.#readFixed(name, at, fixed);
      if (this.#scenario.unread?.has(at)) return this.#storeUnread(name, at);
      if (position < log.length) return log[position++];
      if (!this.#scenario.joined?.(at)) {
        if (stepped) throw STOP;
        stepped = true;
      }
      const result = act();
      said(name, at, result);
      log.push(this.#scenario.unused?.(name, at) ? 0 : result);
      return log[position++];
    };
    try {
      const program = this.#scenario.threads[thread];
      const next = program.operation(local);
      state.threads[thread] = betweenOperations(program, next);
    } catch (error) {
      if (error !== STOP) throw error;
      const { status } = state.threads[thread];
      const { forgets } = this.#scenario.threads[thread];
      if (forgets !== undefined) log.splice(0, forgets(log));
      state.threads[thread] = { ...state.threads[thread], begun: true, log };
      if (status !== RUNS) said("wait", status, 0);
    } finally {
      access = undefined;
    }
    return state;
  }

  #readFixed(name: string, at: number, value: number): number {
    if (name !== "read" && name !== "load") {
      throw new Error(`${name} of word ${at}, which is fixed`);
    }
    return value;
  }

  #storeUnread(name: string, at: number): number {
    if (name !== "write" && name !== "store") {
      throw new Error(`${name} of word ${at}, which nobody reads`);
    }
    return 0;
  }

  /** The one view, of `state` from now on. */
  view(state: State): View {
    this.#state = state;
    return this.#view;
  }

  #alone<Result>(run: () => Result): Result {
    const state = this.#state;
    this.#state = { ...state, memory: state.memory.slice() };
    access = (_name, at, act) => this.#scenario.fixed?.get(at) ?? act();
    try {
      return run();
    } finally {
      access = undefined;
      this.#state = state;
    }
  }
}

/** Runs `run` on a scenario's memory and threads. */
export function withMachine<Result>(
  scenario: Scenario,
  run: (machine: Machine) => Result,
): Result {
  return withScheduledAtomics(() => {
    machine = new Machine(scenario);
    try {
      return run(machine);
    } finally {
      machine = undefined;
    }
  });
}
