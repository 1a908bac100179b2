/**
 * The data path's AEAD: seals and opens chains of WireGuard data packets in
 * place, in the shared arena. Callers fill descriptors and name them by byte
 * offset; the provider walks the bytes. This file has the descriptor's layout,
 * the interface, the self-test of a provider, and the choice between those that
 * need no system: the wasm kernel, or noble where the kernel cannot run.
 * lib/aead_choice chooses among these and libcrypto.
 *
 * A descriptor is eight little-endian 32-bit words. The 16-byte data header
 * lies at DATA - 16 and the 16-byte tag at DATA + LENGTH; providers touch
 * nothing outside [DATA - 16, DATA + LENGTH + 16), the key, the descriptor and
 * their scratch area.
 *
 * @module
 */

import { createNobleAead } from "./aead_noble.ts";
import { createWasmAead } from "./aead_wasm.ts";
import { aeadEncrypt } from "./chacha.ts";
import {
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_DONE,
  AEAD_FORGED,
  AEAD_HEADER_BYTES,
  AEAD_KEY,
  AEAD_KEY_BYTES,
  AEAD_LENGTH,
  AEAD_OK,
  AEAD_PENDING,
  AEAD_RECEIVER,
  AEAD_TAG_BYTES,
  AEAD_WORK_BYTES,
} from "./aead_layout.ts";
import type { Aead } from "./aead_layout.ts";
import { randomBytes } from "./bytes.ts";

export * from "./aead_layout.ts";

/** What a device may be asked for; "libcrypto" is for lib/aead_choice alone. */
export type AeadChoice = "auto" | "wasm" | "libcrypto" | "noble";

const SELF_TEST_LENGTHS = [0, 1, 64, 192, 193, 447, 1420];
const SELF_TEST_KEY_OFFSET = AEAD_WORK_BYTES;
const SELF_TEST_DESC_OFFSET = SELF_TEST_KEY_OFFSET + AEAD_KEY_BYTES;
const SELF_TEST_DATA_OFFSET = SELF_TEST_DESC_OFFSET +
  4 * AEAD_DESCRIPTOR_WORDS + AEAD_HEADER_BYTES;
const SELF_TEST_RECEIVER = 0x89abcdef;
const SELF_TEST_COUNTER_LO = 0xfedcba98;
const SELF_TEST_COUNTER_HI = 0x01234567;

/** Unset until the first "auto" of this thread, then why wasm cannot be used. */
let wasmProblem: string | null | undefined;

/**
 * Compares a provider with noble, on a memory of its own.
 *
 * @param create Makes it on that memory, with its scratch area at byte 0.
 * @returns Why the provider cannot be used, or null if it can.
 */
export function testAead(
  create: (memory: WebAssembly.Memory, workOffset: number) => Aead,
): string | null {
  const memory = new WebAssembly.Memory({
    initial: 1,
    maximum: 1,
    shared: true,
  });
  let aead: Aead | undefined;
  try {
    aead = create(memory, 0);
    for (const packet of packetsByNoble()) {
      if (!holdsFor(aead, memory, packet)) {
        const { length } = packet.plaintext;
        return `${aead.name} disagrees with noble at ${length} bytes`;
      }
    }
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  } finally {
    aead?.close?.();
  }
}

/** @returns Why the wasm kernel cannot be used, or null if it can. */
export function testWasmAead(): string | null {
  return testAead(createWasmAead);
}

/** A packet as noble seals it. */
interface SealedPacket {
  readonly key: Uint8Array;
  readonly plaintext: Uint8Array;
  readonly sealed: Uint8Array;
}

let sealedPackets: readonly SealedPacket[] | undefined;

/** Packets of random bytes, made once in a thread: noble is slow at first. */
function packetsByNoble(): readonly SealedPacket[] {
  const counter = BigInt(SELF_TEST_COUNTER_HI) << 32n |
    BigInt(SELF_TEST_COUNTER_LO);
  return sealedPackets ??= SELF_TEST_LENGTHS.map((length) => {
    const key = randomBytes(AEAD_KEY_BYTES);
    const plaintext = randomBytes(length);
    const sealed = aeadEncrypt(key, counter, plaintext, new Uint8Array(0));
    return { key, plaintext, sealed };
  });
}

/** Seals, opens and forges one packet. */
function holdsFor(
  aead: Aead,
  memory: WebAssembly.Memory,
  { key, plaintext, sealed }: SealedPacket,
): boolean {
  const { length } = plaintext;
  const bytes = new Uint8Array(memory.buffer);
  const words = new Uint32Array(
    memory.buffer,
    SELF_TEST_DESC_OFFSET,
    AEAD_DESCRIPTOR_WORDS,
  );
  const packet = bytes.subarray(
    SELF_TEST_DATA_OFFSET,
    SELF_TEST_DATA_OFFSET + length + AEAD_TAG_BYTES,
  );
  bytes.set(key, SELF_TEST_KEY_OFFSET);
  packet.set(plaintext);
  words[AEAD_DATA] = SELF_TEST_DATA_OFFSET;
  words[AEAD_LENGTH] = length;
  words[AEAD_KEY] = SELF_TEST_KEY_OFFSET;
  words[AEAD_RECEIVER] = SELF_TEST_RECEIVER;
  words[AEAD_COUNTER_LO] = SELF_TEST_COUNTER_LO;
  words[AEAD_COUNTER_HI] = SELF_TEST_COUNTER_HI;

  const holds = (expected: Uint8Array): boolean =>
    expected.every((byte, i) => packet[i] === byte);
  words[AEAD_OK] = AEAD_PENDING;
  aead.seal(SELF_TEST_DESC_OFFSET, 1);
  if (words[AEAD_OK] !== AEAD_DONE || !holds(sealed)) return false;

  const open = (): number => {
    words[AEAD_OK] = AEAD_PENDING;
    aead.open(SELF_TEST_DESC_OFFSET, 1);
    return words[AEAD_OK];
  };
  packet[length] ^= 1;
  if (open() !== AEAD_FORGED) return false;
  packet[length] ^= 1;
  return holds(sealed) && open() === AEAD_DONE && holds(plaintext);
}

/**
 * Makes an AEAD on a shared memory.
 *
 * @param memory The arena; must be shared for the wasm kernel.
 * @param workOffset Byte offset of AEAD_WORK_BYTES of scratch that nobody else
 * uses, one area for each instance.
 * @param choice "auto" takes the wasm kernel if it runs and agrees with noble
 * (tested once in a thread), else noble.
 * @throws {Error} If "wasm" was asked for and cannot work, `workOffset` is out
 * of range, or "libcrypto" was asked for, which needs the system.
 */
export function createAead(
  memory: WebAssembly.Memory,
  workOffset: number,
  choice: AeadChoice,
): Aead {
  if (choice === "noble") return createNobleAead(memory);
  if (choice === "wasm") return createWasmAead(memory, workOffset);
  if (choice !== "auto") {
    throw new Error(`Cannot make the AEAD ${JSON.stringify(choice)} here`);
  }
  if (wasmProblem === undefined) wasmProblem = testWasmAead();
  return wasmProblem === null
    ? createWasmAead(memory, workOffset)
    : createNobleAead(memory);
}
