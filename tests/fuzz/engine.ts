/**
 * A small fuzzer: inputs of a corpus, changed at random but the same for the
 * same seed, given to a target that throws when something is wrong. An input
 * that makes a target do what no input before did (by the signature that it
 * returns) is kept, so that later inputs start from there.
 *
 * @module
 */

import { toHex } from "../../lib/crypto/bytes.ts";
import { SeededRandom } from "../../lib/selftest/random.ts";

/** Something that is fuzzed. */
export interface Target {
  readonly name: string;
  /** Bytes of the longest input. */
  readonly lengthMax: number;
  /** Words that inputs are made of, put into them now and then. */
  readonly words: readonly Uint8Array[];
  /**
   * Runs with one input, and throws when something is wrong.
   *
   * @returns in short, what happened
   */
  run(input: Uint8Array): string | Promise<string>;
}

/** An input that made a target throw. */
export class Finding extends Error {
  override readonly name = "Finding";

  constructor(
    readonly target: string,
    readonly input: Uint8Array,
    cause: unknown,
  ) {
    super(`${target}: ${cause instanceof Error ? cause.stack : cause}`, {
      cause,
    });
  }
}

/** Numbers at which things change. */
const INTERESTING = [
  0,
  1,
  2,
  7,
  8,
  9,
  16,
  19,
  20,
  21,
  28,
  39,
  40,
  41,
  48,
  60,
  63,
  64,
  127,
  128,
  255,
  256,
  1279,
  1280,
  1420,
  1500,
  4095,
  4096,
  32_767,
  32_768,
  65_494,
  65_495,
  65_507,
  65_515,
  65_534,
  65_535,
  0x7fff_ffff,
  0x8000_0000,
  0xffff_ffff,
];
/** Most inputs kept in memory besides the corpus. */
const KEPT_MAX = 1000;
const CHANGES_MAX = 6;
const SHRINK_TRIES = 600;

/** Fuzzes one target. */
export class Fuzzer {
  readonly target: Target;
  executions = 0;
  readonly #random: SeededRandom;
  readonly #inputs: Uint8Array[];
  readonly #corpusCount: number;
  readonly #seen = new Set<string>();
  readonly #buffer: Uint8Array;
  #length = 0;

  constructor(target: Target, corpus: readonly Uint8Array[], seed: number) {
    if (corpus.length === 0) throw new Error(`no corpus for ${target.name}`);
    this.target = target;
    this.#inputs = [...corpus];
    this.#corpusCount = corpus.length;
    this.#random = new SeededRandom(seed);
    this.#buffer = new Uint8Array(target.lengthMax);
  }

  /** Different things that the target did. */
  get signatures(): number {
    return this.#seen.size;
  }

  /**
   * Runs the target `times` with inputs that were not run before.
   *
   * @throws Finding
   */
  async run(times: number): Promise<void> {
    // Refused inputs throw errors by the million: their stacks cost the most.
    const { stackTraceLimit } = Error;
    Error.stackTraceLimit = 0;
    try {
      for (let i = 0; i < times; i++) {
        this.#make();
        const input = this.#buffer.slice(0, this.#length);
        const signature = await this.#try(input);
        this.executions++;
        if (!this.#seen.has(signature)) this.#keep(signature, input);
      }
    } catch (error) {
      if (!(error instanceof Finding)) throw error;
      throw await this.#explain(error);
    } finally {
      Error.stackTraceLimit = stackTraceLimit;
    }
  }

  /** @throws Finding */
  async #try(input: Uint8Array): Promise<string> {
    try {
      const signature = this.target.run(input);
      return typeof signature === "string" ? signature : await signature;
    } catch (error) {
      throw new Finding(this.target.name, input, error);
    }
  }

  /** The shortest input that still makes the target throw, with its stack. */
  async #explain(finding: Finding): Promise<Finding> {
    const input = await this.#shrink(finding.input);
    Error.stackTraceLimit = 10;
    try {
      await this.#try(input);
      return finding; // It depends on what was run before.
    } catch (error) {
      return error as Finding;
    }
  }

  #keep(signature: string, input: Uint8Array): void {
    this.#seen.add(signature);
    if (this.#inputs.length < this.#corpusCount + KEPT_MAX) {
      this.#inputs.push(input);
    } else {
      const kept = this.#corpusCount + this.#random.below(KEPT_MAX);
      this.#inputs[kept] = input;
    }
  }

  /** Takes pieces out for as long as the target still throws. */
  async #shrink(input: Uint8Array): Promise<Uint8Array> {
    let best = input;
    let tries = SHRINK_TRIES;
    for (
      let size = best.length >> 1;
      size > 0 && tries > 0;
      size >>= 1
    ) {
      for (let at = 0; at + size <= best.length && tries-- > 0;) {
        const shorter = new Uint8Array(best.length - size);
        shorter.set(best.subarray(0, at));
        shorter.set(best.subarray(at + size), at);
        if (await this.#fails(shorter)) best = shorter;
        else at += size;
      }
    }
    return best;
  }

  async #fails(input: Uint8Array): Promise<boolean> {
    try {
      await this.target.run(input);
      return false;
    } catch {
      return true;
    }
  }

  #any(): Uint8Array {
    return this.#inputs[this.#random.below(this.#inputs.length)];
  }

  /** Makes the next input. */
  #make(): void {
    const from = this.#any();
    this.#length = Math.min(from.length, this.#buffer.length);
    this.#buffer.set(from.subarray(0, this.#length));
    for (let n = this.#random.below(CHANGES_MAX); n >= 0; n--) this.#change();
  }

  #change(): void {
    const random = this.#random;
    const buffer = this.#buffer;
    const at = this.#place();
    switch (random.below(12)) {
      case 0:
        buffer[at] ^= 1 << random.below(8);
        break;
      case 1:
        buffer[at] = random.word();
        break;
      case 2:
        buffer[at] += random.below(2) === 0 ? 1 : -1;
        break;
      case 3:
      case 4:
        this.#number(at);
        break;
      case 5:
        this.#length = random.below(this.#length + 1);
        break;
      case 6:
        this.#remove(at, 1 + this.#size());
        break;
      case 7:
        this.#insert(at, 1 + this.#size());
        for (let n = random.below(4); n > 0; n--) {
          buffer[at + n] = random.word();
        }
        break;
      case 8:
        this.#copy(at, this.#place(), 1 + this.#size());
        break;
      case 9:
        this.#splice(at);
        break;
      default:
        this.#word(at);
    }
  }

  /** Somewhere in the input, and rather near its start: there are the headers. */
  #place(): number {
    const near = this.#random.below(2) === 0
      ? Math.min(this.#length, 64)
      : this.#length;
    return near === 0 ? 0 : this.#random.below(near);
  }

  /** A length that is rather short. */
  #size(): number {
    return this.#random.below(1 << this.#random.below(9));
  }

  /** Writes a number of 1, 2 or 4 bytes in either order. */
  #number(at: number): void {
    const random = this.#random;
    const value = random.below(4) === 0
      ? random.word()
      : INTERESTING[random.below(INTERESTING.length)];
    const bytes = 1 << random.below(3);
    const big = random.below(2) === 0;
    for (let i = 0; i < bytes && at + i < this.#length; i++) {
      const shift = big ? bytes - 1 - i : i;
      this.#buffer[at + i] = value >>> (8 * shift);
    }
  }

  #remove(at: number, size: number): void {
    const end = Math.min(this.#length, at + size);
    this.#buffer.copyWithin(at, end, this.#length);
    this.#length -= end - at;
  }

  /** Makes room for as many bytes as fit; what is in it is left. */
  #insert(at: number, size: number): number {
    const room = Math.min(size, this.#buffer.length - this.#length);
    this.#buffer.copyWithin(at + room, at, this.#length);
    this.#length += room;
    return room;
  }

  #copy(to: number, from: number, size: number): void {
    const bytes = this.#buffer.slice(from, Math.min(from + size, this.#length));
    const room = this.#random.below(2) === 0
      ? this.#insert(to, bytes.length)
      : Math.min(bytes.length, this.#length - to);
    this.#buffer.set(bytes.subarray(0, room), to);
  }

  /** Goes on as another input does. */
  #splice(at: number): void {
    const other = this.#any();
    if (other.length === 0) return;
    const from = this.#random.below(other.length);
    const rest = other.subarray(from, from + this.#buffer.length - at);
    this.#buffer.set(rest, at);
    this.#length = at + rest.length;
  }

  #word(at: number): void {
    const { words } = this.target;
    if (words.length === 0) return this.#number(at);
    const word = words[this.#random.below(words.length)];
    const room = this.#random.below(4) > 0
      ? this.#insert(at, word.length)
      : Math.min(word.length, this.#length - at);
    this.#buffer.set(word.subarray(0, room), at);
  }
}

const CORPUS = new URL("corpus/", import.meta.url);

/** A target's inputs that are checked in, by the names of their files. */
export function readCorpus(target: string): Map<string, Uint8Array> {
  const folder = new URL(`${target}/`, CORPUS);
  const names = [...Deno.readDirSync(folder)]
    .filter((entry) => entry.isFile)
    .map((entry) => entry.name)
    .sort();
  return new Map(
    names.map((name) => [name, Deno.readFileSync(new URL(name, folder))]),
  );
}

/** Puts a finding into its target's corpus. @returns the path of the file */
export async function saveFinding(finding: Finding): Promise<string> {
  const input = finding.input as Uint8Array<ArrayBuffer>;
  const hash = new Uint8Array(await crypto.subtle.digest("SHA-256", input));
  const file = new URL(
    `${finding.target}/finding-${toHex(hash).slice(0, 12)}`,
    CORPUS,
  );
  Deno.writeFileSync(file, input);
  return file.pathname;
}
