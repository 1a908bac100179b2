/**
 * The replay window of RFC 6479 over a KEYPAIR record: a ring of 64-bit blocks
 * that is cleared block by block as the highest counter advances, so that
 * accepting a packet never shifts the bitmap. Mirrors `counter_validate` of the
 * kernel's `receive.c`. Inbound alone writes these fields. 64-bit counters are
 * pairs of unsigned 32-bit words. Pure; reference §7.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { bug } from "./assert.ts";
import {
  COUNTER_BITS_TOTAL,
  COUNTER_REDUNDANT_BITS,
  COUNTER_WINDOW_SIZE,
  REJECT_AFTER_MESSAGES_HI,
  REJECT_AFTER_MESSAGES_LO,
} from "./messages.ts";
import { KEYPAIR } from "./records.ts";

const BLOCKS = COUNTER_BITS_TOTAL / COUNTER_REDUNDANT_BITS;
const WORDS = COUNTER_BITS_TOTAL / 32;

bug(
  COUNTER_REDUNDANT_BITS === 64 && (BLOCKS & (BLOCKS - 1)) === 0,
  "blocks of two words, in a ring of a power of two",
);

/** Whether counter A >= counter B, each given as unsigned low and high word. */
export function atLeast(
  loA: number,
  hiA: number,
  loB: number,
  hiB: number,
): boolean {
  return hiA > hiB || (hiA === hiB && loA >= loB);
}

/** Whether a counter may neither be sent nor accepted: REJECT_AFTER_MESSAGES or more. */
export function counterExhausted(lo: number, hi: number): boolean {
  return atLeast(lo, hi, REJECT_AFTER_MESSAGES_LO, REJECT_AFTER_MESSAGES_HI);
}

/**
 * Records the counter of an authenticated packet in the window of the keypair
 * whose record starts at `keypairWord`. False: used already, behind the window,
 * or past REJECT_AFTER_MESSAGES; nothing is recorded then.
 *
 * Must be called after authentication only: a forged counter would move the
 * window past what the peer sends.
 */
export function counterValidate(
  arena: Arena,
  keypairWord: number,
  counterLo: number,
  counterHi: number,
): boolean {
  if (counterExhausted(counterLo, counterHi)) return false;
  const u32 = arena.u32;
  const storedLo = u32[keypairWord + KEYPAIR.RECEIVE_COUNTER_LO];
  const storedHi = u32[keypairWord + KEYPAIR.RECEIVE_COUNTER_HI];
  const lo = (counterLo + 1) >>> 0;
  const hi = lo === 0 ? counterHi + 1 : counterHi;
  const bitmap = keypairWord + KEYPAIR.REPLAY_BITMAP;

  if (atLeast(storedLo, storedHi, lo, hi)) {
    const behindHi = storedHi - hi - (storedLo < lo ? 1 : 0);
    const behindLo = (storedLo - lo) >>> 0;
    if (behindHi !== 0 || behindLo > COUNTER_WINDOW_SIZE) return false;
  } else {
    const aheadHi = hi - storedHi - (lo < storedLo ? 1 : 0);
    const aheadLo = (lo - storedLo) >>> 0;
    if (aheadHi !== 0 || aheadLo >= COUNTER_BITS_TOTAL) {
      u32.fill(0, bitmap, bitmap + WORDS);
    } else {
      const first = storedLo >>> 6;
      const blocks = ((lo >>> 6) - first) & (2 * BLOCKS - 1);
      for (let i = 1; i <= blocks; i++) {
        const block = bitmap + 2 * ((first + i) & (BLOCKS - 1));
        u32[block] = 0;
        u32[block + 1] = 0;
      }
    }
    u32[keypairWord + KEYPAIR.RECEIVE_COUNTER_LO] = lo;
    u32[keypairWord + KEYPAIR.RECEIVE_COUNTER_HI] = hi;
  }

  const word = bitmap + ((lo >>> 5) & (WORDS - 1));
  const bit = 1 << (lo & 31);
  const bits = u32[word];
  if ((bits & bit) !== 0) return false;
  u32[word] = bits | bit;
  return true;
}
