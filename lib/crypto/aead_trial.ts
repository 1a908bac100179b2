/**
 * Two AEADs as one: small packets by the first, full ones by whichever proves
 * faster on the packets of this thread. Made for the wasm kernel and libcrypto.
 *
 * Why not measured before the first packet: the engine runs the kernel six
 * times slower for its first 600 full packets or so (10 ms and more), and the
 * code around libcrypto at half speed for its first 30,000 (50 ms), until it has
 * optimised them. A trial of a few milliseconds would compare two compilers'
 * first drafts, and one that waits would delay the start. On live packets it
 * costs two readings of the clock a run, and an idle tunnel pays nothing.
 *
 * Runs of full packets go to the two in turn and are timed. A round compares
 * the medians; what wins two rounds by the margin is kept. If the second AEAD
 * has not won when the trial is over, the first does everything.
 *
 * @module
 */

import {
  type Aead,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_LENGTH,
} from "./aead_layout.ts";

/** Packets of at least so many bytes are full: these are tried, and split off. */
export const FULL_BYTES = 1024;
/** Full packets by the first AEAD before the trial, for it to be optimised. */
const WARM_PACKETS = 4096;
/** Full packets after which the trial ends without a winner. */
const TRIAL_PACKETS = 262_144;
/** Runs of each that make a round. */
const ROUND_RUNS = 64;
/** Packets in the shortest run that is timed. */
const TIMED_RUN_MIN = 4;
/** What the second's median may be of the first's for the second to win. */
const MARGIN = 0.9;
/** Rounds in a row that the second must win. */
const ROUNDS_WON = 2;

const STRIDE = 4 * AEAD_DESCRIPTOR_WORDS;
const SEAL = 0;
const OPEN = 1;

/** Where the trial is. */
type Stage = "warming" | "trying" | "first" | "both";

/** Nanoseconds a packet in timed runs: a round of one AEAD. */
class Round {
  readonly #times = new Float64Array(ROUND_RUNS);
  #count = 0;

  get full(): boolean {
    return this.#count === ROUND_RUNS;
  }

  add(time: number): void {
    if (!this.full) this.#times[this.#count++] = time;
  }

  /** The median; the next round begins. */
  take(): number {
    this.#count = 0;
    return this.#times.sort()[ROUND_RUNS / 2];
  }
}

/** Small packets by one AEAD, full ones by the faster of two. */
export class TrialAead implements Aead {
  readonly #memory: WebAssembly.Memory;
  readonly #first: Aead;
  readonly #second: Aead;
  readonly #now: () => number;
  #u32: Uint32Array;
  #stage: Stage = "warming";
  /** Full packets so far. */
  #packets = 0;
  /** Rounds in a row that the second has won. */
  #won = 0;
  /** Whether the second is next, for seal and for open. */
  readonly #turn = [false, false];
  readonly #firstRound = new Round();
  readonly #secondRound = new Round();

  /**
   * @param memory The arena.
   * @param first For small packets, and for full ones until the trial is won.
   * @param second For full packets, if it is faster; closed if it is not.
   * @param now A clock in milliseconds with a fraction.
   */
  constructor(
    memory: WebAssembly.Memory,
    first: Aead,
    second: Aead,
    now: () => number = () => performance.now(),
  ) {
    this.#memory = memory;
    this.#first = first;
    this.#second = second;
    this.#now = now;
    this.#u32 = new Uint32Array(memory.buffer);
  }

  /** What is in use now: the second's name appears when it has won. */
  get name(): string {
    const { name } = this.#first;
    return this.#stage === "both" ? `${name}+${this.#second.name}` : name;
  }

  /** Whether the trial is over. */
  get settled(): boolean {
    return this.#stage === "first" || this.#stage === "both";
  }

  seal(desc: number, n: number): void {
    this.#walk(SEAL, desc, n);
  }

  open(desc: number, n: number): void {
    this.#walk(OPEN, desc, n);
  }

  close(): void {
    this.#first.close?.();
    // Closed already if it lost.
    if (this.#stage !== "first") this.#second.close?.();
    this.#stage = "first";
  }

  /** Passes on runs of full packets, and runs of others, in order. */
  #walk(operation: number, desc: number, n: number): void {
    if (this.#stage === "first") {
      return run(this.#first, operation, desc, n);
    }
    if (this.#u32.buffer !== this.#memory.buffer) {
      this.#u32 = new Uint32Array(this.#memory.buffer);
    }
    for (let done = 0; done < n;) {
      const at = desc + done * STRIDE;
      const full = this.#isFull(at);
      let count = 1;
      while (
        done + count < n && this.#isFull(at + count * STRIDE) === full
      ) count++;
      if (!full) run(this.#first, operation, at, count);
      else if (this.#stage === "both") {
        run(this.#second, operation, at, count);
      } else this.#try(operation, at, count);
      done += count;
    }
  }

  #isFull(desc: number): boolean {
    return this.#u32[(desc >>> 2) + AEAD_LENGTH] >= FULL_BYTES;
  }

  /** Takes a run of full packets before the trial is over. */
  #try(operation: number, desc: number, n: number): void {
    this.#packets += n;
    if (this.#stage !== "trying") {
      run(this.#first, operation, desc, n);
      if (this.#packets >= WARM_PACKETS) this.#stage = "trying";
      return;
    }
    const second = this.#turn[operation];
    this.#turn[operation] = !second;
    const start = this.#now();
    run(second ? this.#second : this.#first, operation, desc, n);
    const time = (this.#now() - start) / n;
    if (n >= TIMED_RUN_MIN) {
      (second ? this.#secondRound : this.#firstRound).add(time);
      if (this.#firstRound.full && this.#secondRound.full) this.#judge();
    }
    if (this.#stage === "trying" && this.#packets >= TRIAL_PACKETS) {
      this.#stage = "first";
      this.#second.close?.();
    }
  }

  #judge(): void {
    const limit = MARGIN * this.#firstRound.take();
    this.#won = this.#secondRound.take() <= limit ? this.#won + 1 : 0;
    if (this.#won === ROUNDS_WON) this.#stage = "both";
  }
}

function run(aead: Aead, operation: number, desc: number, n: number): void {
  if (operation === SEAL) aead.seal(desc, n);
  else aead.open(desc, n);
}
