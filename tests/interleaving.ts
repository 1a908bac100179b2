/**
 * Interleavings of a lock-free reader and its writer, at each single load and
 * store and on one thread, so that a test reaches them without luck: the
 * writer's stores are recorded first, then done again one by one between the
 * loads of the reader.
 */
import type { Arena } from "../lib/arena.ts";
import type { SeededRandom } from "../lib/selftest/random.ts";

type Words = Int32Array<SharedArrayBuffer>;

const proxied = new WeakSet<Words>();

function withWords(arena: Arena, handler: ProxyHandler<Words>): Arena {
  const words = new Proxy(arena.i32, {
    get: (target, key): unknown => Reflect.get(target, key, target),
    set: (target, key, value): boolean =>
      Reflect.set(target, key, value, target),
    ...handler,
  });
  proxied.add(words);
  return Object.create(arena, { i32: { value: words } });
}

/** The arena, but `onRead` is told of each of its 32-bit words before a read. */
export function watchedArena(
  arena: Arena,
  onRead: (word: number) => void,
): Arena {
  return withWords(arena, {
    get: (target, key): unknown => {
      onRead(Number(key));
      return Reflect.get(target, key, target);
    },
  });
}

/** Calls `run` while the atomic operations work on proxies, too. */
export function withProxies(run: () => void): void {
  const { add, compareExchange, load, or, store } = Atomics;
  Object.assign(Atomics, {
    compareExchange: (
      words: Words,
      at: number,
      expected: number,
      value: number,
    ): number => {
      if (!proxied.has(words)) {
        return compareExchange(words, at, expected, value);
      }
      const before = words[at];
      if (before === expected) words[at] = value;
      return before;
    },
    or: (words: Words, at: number, value: number): number => {
      if (!proxied.has(words)) return or(words, at, value);
      const before = words[at];
      if ((before | value) !== before) words[at] = before | value;
      return before;
    },
    load: (words: Words, at: number): number =>
      proxied.has(words) ? words[at] : load(words, at),
    store: (words: Words, at: number, value: number): number =>
      proxied.has(words) ? words[at] = value : store(words, at, value),
    add: (words: Words, at: number, value: number): number => {
      if (!proxied.has(words)) return add(words, at, value);
      const before = words[at];
      words[at] = before + value;
      return before;
    },
  });
  try {
    run();
  } finally {
    Object.assign(Atomics, { add, compareExchange, load, or, store });
  }
}

/** The stores of a writer, in order, and where each of its updates begins. */
export class StoreLog {
  readonly #words: number[] = [];
  readonly #values: number[] = [];
  /** Stores before the end of update k. */
  readonly #ends: number[] = [];

  /** An arena whose words the writer uses; `update` around each of its updates. */
  recording(arena: Arena): Arena {
    return withWords(arena, {
      set: (target, key, value): boolean => {
        this.#words.push(Number(key));
        this.#values.push(value);
        return Reflect.set(target, key, value, target);
      },
    });
  }

  /** Records an update. */
  update(run: () => void): void {
    run();
    this.#ends.push(this.#words.length);
  }

  /** Stores so far. */
  get length(): number {
    return this.#words.length;
  }

  /**
   * Does the recorded stores again, on an arena that is as the first one was.
   *
   * @param storesBefore called before each load of the reader: so many stores
   * happen first
   */
  replay(arena: Arena, storesBefore: () => number): Replay {
    return new Replay(
      arena,
      storesBefore,
      this.#words,
      this.#values,
      this.#ends,
    );
  }
}

/** The writer of a reader under test. */
export class Replay {
  /** The arena as the reader must see it: stores happen between its loads. */
  readonly arena: Arena;
  /** Updates finished. */
  completed = 0;
  readonly #i32: Words;
  readonly #words: readonly number[];
  readonly #values: readonly number[];
  readonly #ends: readonly number[];
  #position = 0;

  constructor(
    arena: Arena,
    storesBefore: () => number,
    words: readonly number[],
    values: readonly number[],
    ends: readonly number[],
  ) {
    this.#i32 = arena.i32;
    this.#words = words;
    this.#values = values;
    this.#ends = ends;
    this.arena = watchedArena(arena, () => this.advance(storesBefore()));
  }

  /** Whether all stores are done. */
  get done(): boolean {
    return this.#position === this.#words.length;
  }

  /** Updates begun. */
  get started(): number {
    const done = this.completed === 0 ? 0 : this.#ends[this.completed - 1];
    return this.completed + (this.#position > done ? 1 : 0);
  }

  /** Does the next `count` stores. */
  advance(count: number): void {
    for (let n = 0; n < count && !this.done; n++) {
      this.#i32[this.#words[this.#position]] = this.#values[this.#position];
      this.#position++;
      while (this.#ends[this.completed] <= this.#position) this.completed++;
    }
  }

  /** Begins anew, with all words that are ever stored at zero. */
  reset(): void {
    for (const word of this.#words) this.#i32[word] = 0;
    this.#position = 0;
    this.completed = 0;
  }
}

/** Interruptions at random: a few stores within an update, or some updates. */
export class RandomInterruptions {
  readonly #random: SeededRandom;
  readonly #loads: number;
  #left = 0;

  /** @param loads of the reader between two interruptions, on average */
  constructor(random: SeededRandom, loads: number) {
    this.#random = random;
    this.#loads = loads;
  }

  /** From here on so many: few enough for a lookup to end. */
  allow(interruptions: number): void {
    this.#left = interruptions;
  }

  /** Stores before the next load. */
  next(): number {
    const random = this.#random;
    if (this.#left === 0 || random.below(this.#loads) !== 0) return 0;
    this.#left--;
    return random.below(random.below(2) === 0 ? 4 : 60);
  }
}
