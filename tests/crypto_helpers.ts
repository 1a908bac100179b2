/**
 * What the tests of lib/crypto share: reproducible random numbers, and packets
 * with their descriptors in a shared memory.
 *
 * @module
 */

import {
  type ChosenAead,
  createDataAead,
  missingLibcrypto,
} from "../lib/aead_choice.ts";
import {
  type Aead,
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_KEY,
  AEAD_LENGTH,
  AEAD_OK,
  AEAD_RECEIVER,
  AEAD_TAG_BYTES,
  AEAD_USER,
} from "../lib/crypto/mod.ts";

/** Bytes of a descriptor. */
export const DESCRIPTOR_BYTES = 4 * AEAD_DESCRIPTOR_WORDS;
/** What `Arena.describe` puts where providers must not write, or write later. */
export const USER_MARK = 0x5a5a5a5a;

/** A provider that the AEAD suites run on. */
export interface Provider {
  readonly name: ChosenAead["name"];
  /** Why it cannot be tested here, or null if it can. */
  readonly missing: string | null;
  create(memory: WebAssembly.Memory, workOffset: number): Aead;
}

function provider(name: ChosenAead["name"], missing: string | null): Provider {
  const create = (memory: WebAssembly.Memory, workOffset: number): Aead =>
    createDataAead(memory, workOffset, { name, reason: "under test" });
  return { name, missing, create };
}

const noLibcrypto = missingLibcrypto();

/** The providers that call no noble, and need to be compared with it. */
export const FAST_PROVIDERS: readonly Provider[] = [
  provider("wasm", null),
  provider("libcrypto", noLibcrypto),
];
/** Every provider. */
export const PROVIDERS: readonly Provider[] = [
  ...FAST_PROVIDERS,
  provider("wasm+libcrypto", noLibcrypto),
  provider("noble", null),
];

/** Registers a test of a provider, skipped with the reason where it is missing. */
export function testProvider(
  { name, missing }: Provider,
  what: string,
  run: () => void | Promise<void>,
): void {
  const skipped = missing === null ? "" : ` (skipped: ${missing})`;
  Deno.test({
    name: `${name} AEAD ${what}${skipped}`,
    ignore: missing !== null,
    fn: run,
  });
}

/** A small reproducible generator (xorshift32). Not for secrets. */
export class Random {
  #state: number;

  constructor(seed: number = crypto.getRandomValues(new Uint32Array(1))[0]) {
    this.#state = seed || 1;
  }

  /** An integer from 0 to below `limit`. */
  below(limit: number): number {
    let x = this.#state;
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    this.#state = x >>> 0;
    return Math.floor(this.#state / 2 ** 32 * limit);
  }

  /** Fresh random bytes. */
  bytes(length: number): Uint8Array<ArrayBuffer> {
    return Uint8Array.from({ length }, () => this.below(256));
  }
}

/** One packet, as a descriptor gives it. */
export interface Packet {
  data: number;
  length: number;
  key: number;
  receiver?: number;
  counter?: bigint;
}

/** A shared memory with views. */
export class Arena {
  readonly memory: WebAssembly.Memory;
  readonly bytes: Uint8Array<ArrayBufferLike>;
  readonly view: DataView;

  constructor(pages: number) {
    this.memory = new WebAssembly.Memory({
      initial: pages,
      maximum: pages,
      shared: true,
    });
    this.bytes = new Uint8Array(this.memory.buffer);
    this.view = new DataView(this.memory.buffer);
  }

  /** Writes a descriptor at byte offset `desc`. */
  describe(desc: number, packet: Packet): void {
    const set = (word: number, value: number): void =>
      this.view.setUint32(desc + 4 * word, value, true);
    const counter = packet.counter ?? 0n;
    set(AEAD_DATA, packet.data);
    set(AEAD_LENGTH, packet.length);
    set(AEAD_KEY, packet.key);
    set(AEAD_RECEIVER, packet.receiver ?? 0);
    set(AEAD_COUNTER_LO, Number(counter & 0xffffffffn));
    set(AEAD_COUNTER_HI, Number(counter >> 32n));
    set(AEAD_OK, USER_MARK);
    set(AEAD_USER, USER_MARK);
  }

  /** One word of the descriptor at byte offset `desc`. */
  word(desc: number, word: number): number {
    return this.view.getUint32(desc + 4 * word, true);
  }

  /** A copy of the bytes of a packet from its header to its tag. */
  packet(data: number, length: number): Uint8Array {
    return this.bytes.slice(data - 16, data + length + AEAD_TAG_BYTES);
  }

  /** A copy of `length` bytes at `offset`. */
  slice(offset: number, length: number): Uint8Array {
    return this.bytes.slice(offset, offset + length);
  }
}

/** The bytes of hexadecimal text, white space allowed. */
export function hex(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromHex(text.replace(/\s/g, ""));
}
