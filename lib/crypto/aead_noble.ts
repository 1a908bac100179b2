/**
 * The AEAD by @noble/ciphers: the reference that tests compare with, and the
 * fallback where the wasm kernel cannot run. Needs no scratch area; allocates.
 *
 * @module
 */

import { chacha20poly1305 } from "@noble/ciphers/chacha.js";
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
  AEAD_RECEIVER,
  AEAD_TAG_BYTES,
} from "./aead_layout.ts";
import type { Aead } from "./aead_layout.ts";

const TYPE_DATA = 4;
const NONCE_BYTES = 12;

/**
 * Makes an AEAD by noble.
 *
 * @param memory A memory, shared or not.
 */
export function createNobleAead(memory: WebAssembly.Memory): Aead {
  let view = new DataView(memory.buffer);

  /** Runs `packet` on each descriptor, on the memory as large as it is now. */
  function forEachPacket(
    desc: number,
    n: number,
    packet: (word: (index: number) => number, data: number) => void,
  ): void {
    if (view.buffer !== memory.buffer) view = new DataView(memory.buffer);
    const stride = 4 * AEAD_DESCRIPTOR_WORDS;
    for (let at = desc; at < desc + n * stride; at += stride) {
      const word = (index: number): number => at + 4 * index;
      packet(word, view.getUint32(word(AEAD_DATA), true));
    }
  }

  /** The cipher of the descriptor, with the nonce that its counter makes. */
  function cipher(
    word: (index: number) => number,
  ): ReturnType<typeof chacha20poly1305> {
    const nonce = new Uint8Array(NONCE_BYTES);
    const nonceView = new DataView(nonce.buffer);
    const low = view.getUint32(word(AEAD_COUNTER_LO), true);
    const high = view.getUint32(word(AEAD_COUNTER_HI), true);
    nonceView.setUint32(4, low, true);
    nonceView.setUint32(8, high, true);
    const keyOffset = view.getUint32(word(AEAD_KEY), true);
    return chacha20poly1305(bytesAt(keyOffset, AEAD_KEY_BYTES), nonce);
  }

  function bytesAt(offset: number, length: number): Uint8Array {
    return new Uint8Array(view.buffer, offset, length);
  }

  return {
    name: "noble",

    seal(desc: number, n: number): void {
      forEachPacket(desc, n, (word, data) => {
        const header = data - AEAD_HEADER_BYTES;
        const receiver = view.getUint32(word(AEAD_RECEIVER), true);
        view.setUint32(header, TYPE_DATA, true);
        view.setUint32(header + 4, receiver, true);
        for (let half = 0; half < 8; half += 4) {
          const value = view.getUint32(word(AEAD_COUNTER_LO) + half, true);
          view.setUint32(header + 8 + half, value, true);
        }
        const length = view.getUint32(word(AEAD_LENGTH), true);
        const sealed = cipher(word).encrypt(bytesAt(data, length));
        bytesAt(data, sealed.length).set(sealed);
        view.setUint32(word(AEAD_OK), AEAD_DONE, true);
      });
    },

    open(desc: number, n: number): void {
      forEachPacket(desc, n, (word, data) => {
        for (let half = 0; half < 8; half += 4) {
          const value = view.getUint32(data - 8 + half, true);
          view.setUint32(word(AEAD_COUNTER_LO) + half, value, true);
        }
        const length = view.getUint32(word(AEAD_LENGTH), true);
        const sealed = bytesAt(data, length + AEAD_TAG_BYTES);
        let opened: Uint8Array | null = null;
        try {
          opened = cipher(word).decrypt(sealed);
        } catch {
          // The tag does not match: noble reports it by an exception.
        }
        if (opened !== null) sealed.set(opened);
        const ok = opened === null ? AEAD_FORGED : AEAD_DONE;
        view.setUint32(word(AEAD_OK), ok, true);
      });
    },
  };
}
