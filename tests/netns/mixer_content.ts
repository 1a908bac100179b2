/** What the mixer sends: random bytes that both sides know, and random choices. */

/** A small generator with a seed (mulberry32), so that a run can be repeated. */
export class Random {
  #state: number;

  constructor(seed: number) {
    this.#state = seed >>> 0;
  }

  /** Uniform in [0, 2^32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    return mix(this.#state);
  }

  /** Uniform in [0, limit). */
  below(limit: number): number {
    return Math.floor(this.next() / 2 ** 32 * limit);
  }

  /** Uniform in [from, to]. */
  between(from: number, to: number): number {
    return from + this.below(to - from + 1);
  }

  /** In [1, limit], every order of magnitude as often. */
  magnitude(limit: number): number {
    return Math.min(
      limit,
      Math.floor(Math.exp(this.fraction() * Math.log(limit + 1))),
    );
  }

  /** Uniform in [0, 1). */
  fraction(): number {
    return this.next() / 2 ** 32;
  }
}

/** Scrambles 32 bits. */
export function mix(value: number): number {
  let x = value >>> 0;
  x = Math.imul(x ^ (x >>> 15), x | 1);
  x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
  return (x ^ (x >>> 14)) >>> 0;
}

/** Longest piece of content. */
export const PIECE_MAX = 256 << 10;
const POOL_BYTES = 2 << 20;
const pool = new Uint8Array(POOL_BYTES + PIECE_MAX);
{
  const random = new Random(0x77676421);
  const words = new Uint32Array(pool.buffer);
  for (let i = 0; i < words.length; i++) words[i] = random.next();
}

/** `length` random bytes, the same ones for the same `place`; not a copy. */
export function content(
  place: number,
  length: number,
): Uint8Array<ArrayBuffer> {
  const at = mix(place) % POOL_BYTES;
  return pool.subarray(at, at + length);
}

/** Number of errors of this namespace's protocols: bad checksums and headers. */
export function protocolErrors(): Record<string, number> {
  const errors: Record<string, number> = {};
  const tables = Deno.readTextFileSync("/proc/self/net/snmp").split("\n");
  // Pairs of lines: names, values.
  for (let i = 0; i + 1 < tables.length; i += 2) {
    const [protocol, ...names] = tables[i].split(" ");
    const values = tables[i + 1].split(" ").slice(1);
    names.forEach((name, j) => {
      if (isError(name)) {
        errors[protocol.replace(":", "") + name] = Number(values[j]);
      }
    });
  }
  for (
    const [, name, value] of Deno.readTextFileSync("/proc/self/net/snmp6")
      .matchAll(/^(\S+)\s+(\d+)$/gm)
  ) if (isError(name)) errors[name] = Number(value);
  return errors;
}

function isError(name: string): boolean {
  return /InCsumErrors|InHdrErrors|InTruncatedPkts/.test(name);
}
