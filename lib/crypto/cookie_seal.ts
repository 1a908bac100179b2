/**
 * XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha) for cookie replies and nothing
 * else: 16 bytes under 16 bytes of additional data. A flood is answered with
 * tens of thousands a second, for which noble takes nine times as long; it is
 * the reference and fallback. The key is made of a public key, so this is no
 * place for secrets.
 *
 * @module
 */
import { constantTimeEqual } from "./bytes.ts";
import { xaeadEncrypt, XNONCE_BYTES } from "./chacha.ts";

/** Bytes of a cookie, and of the additional data. */
export const COOKIE_BYTES = 16;
/** Bytes of a sealed cookie: ciphertext and tag. */
export const SEALED_COOKIE_BYTES = 32;

/**
 * Seals a cookie.
 *
 * @param key 32 bytes.
 * @param nonce 24 bytes, random.
 * @param cookie 16 bytes.
 * @param aad 16 bytes.
 * @returns A fresh array: ciphertext, then the 16-byte tag.
 */
export type SealCookie = (
  key: Uint8Array,
  nonce: Uint8Array,
  cookie: Uint8Array,
  aad: Uint8Array,
) => Uint8Array;

const CONSTANTS = [0x61707865, 0x3320646e, 0x79622d32, 0x6b206574];
const STATE_WORDS = 16;
const KEY_WORDS = 8;
const DOUBLE_ROUNDS = 10;

/** Little-endian word. */
function word(bytes: Uint8Array, at: number): number {
  return bytes[at] | bytes[at + 1] << 8 | bytes[at + 2] << 16 |
    bytes[at + 3] << 24;
}

function setWord(bytes: Uint8Array, at: number, value: number): void {
  bytes[at] = value;
  bytes[at + 1] = value >>> 8;
  bytes[at + 2] = value >>> 16;
  bytes[at + 3] = value >>> 24;
}

/** The 20 rounds of ChaCha (RFC 8439 §2.3), in place; words in variables: fast. */
function rounds(x: Int32Array): void {
  let x0 = x[0];
  let x1 = x[1];
  let x2 = x[2];
  let x3 = x[3];
  let x4 = x[4];
  let x5 = x[5];
  let x6 = x[6];
  let x7 = x[7];
  let x8 = x[8];
  let x9 = x[9];
  let x10 = x[10];
  let x11 = x[11];
  let x12 = x[12];
  let x13 = x[13];
  let x14 = x[14];
  let x15 = x[15];
  for (let i = 0; i < DOUBLE_ROUNDS; i++) {
    x0 = x0 + x4 | 0;
    x12 ^= x0;
    x12 = x12 << 16 | x12 >>> 16;
    x8 = x8 + x12 | 0;
    x4 ^= x8;
    x4 = x4 << 12 | x4 >>> 20;
    x0 = x0 + x4 | 0;
    x12 ^= x0;
    x12 = x12 << 8 | x12 >>> 24;
    x8 = x8 + x12 | 0;
    x4 ^= x8;
    x4 = x4 << 7 | x4 >>> 25;
    x1 = x1 + x5 | 0;
    x13 ^= x1;
    x13 = x13 << 16 | x13 >>> 16;
    x9 = x9 + x13 | 0;
    x5 ^= x9;
    x5 = x5 << 12 | x5 >>> 20;
    x1 = x1 + x5 | 0;
    x13 ^= x1;
    x13 = x13 << 8 | x13 >>> 24;
    x9 = x9 + x13 | 0;
    x5 ^= x9;
    x5 = x5 << 7 | x5 >>> 25;
    x2 = x2 + x6 | 0;
    x14 ^= x2;
    x14 = x14 << 16 | x14 >>> 16;
    x10 = x10 + x14 | 0;
    x6 ^= x10;
    x6 = x6 << 12 | x6 >>> 20;
    x2 = x2 + x6 | 0;
    x14 ^= x2;
    x14 = x14 << 8 | x14 >>> 24;
    x10 = x10 + x14 | 0;
    x6 ^= x10;
    x6 = x6 << 7 | x6 >>> 25;
    x3 = x3 + x7 | 0;
    x15 ^= x3;
    x15 = x15 << 16 | x15 >>> 16;
    x11 = x11 + x15 | 0;
    x7 ^= x11;
    x7 = x7 << 12 | x7 >>> 20;
    x3 = x3 + x7 | 0;
    x15 ^= x3;
    x15 = x15 << 8 | x15 >>> 24;
    x11 = x11 + x15 | 0;
    x7 ^= x11;
    x7 = x7 << 7 | x7 >>> 25;
    x0 = x0 + x5 | 0;
    x15 ^= x0;
    x15 = x15 << 16 | x15 >>> 16;
    x10 = x10 + x15 | 0;
    x5 ^= x10;
    x5 = x5 << 12 | x5 >>> 20;
    x0 = x0 + x5 | 0;
    x15 ^= x0;
    x15 = x15 << 8 | x15 >>> 24;
    x10 = x10 + x15 | 0;
    x5 ^= x10;
    x5 = x5 << 7 | x5 >>> 25;
    x1 = x1 + x6 | 0;
    x12 ^= x1;
    x12 = x12 << 16 | x12 >>> 16;
    x11 = x11 + x12 | 0;
    x6 ^= x11;
    x6 = x6 << 12 | x6 >>> 20;
    x1 = x1 + x6 | 0;
    x12 ^= x1;
    x12 = x12 << 8 | x12 >>> 24;
    x11 = x11 + x12 | 0;
    x6 ^= x11;
    x6 = x6 << 7 | x6 >>> 25;
    x2 = x2 + x7 | 0;
    x13 ^= x2;
    x13 = x13 << 16 | x13 >>> 16;
    x8 = x8 + x13 | 0;
    x7 ^= x8;
    x7 = x7 << 12 | x7 >>> 20;
    x2 = x2 + x7 | 0;
    x13 ^= x2;
    x13 = x13 << 8 | x13 >>> 24;
    x8 = x8 + x13 | 0;
    x7 ^= x8;
    x7 = x7 << 7 | x7 >>> 25;
    x3 = x3 + x4 | 0;
    x14 ^= x3;
    x14 = x14 << 16 | x14 >>> 16;
    x9 = x9 + x14 | 0;
    x4 ^= x9;
    x4 = x4 << 12 | x4 >>> 20;
    x3 = x3 + x4 | 0;
    x14 ^= x3;
    x14 = x14 << 8 | x14 >>> 24;
    x9 = x9 + x14 | 0;
    x4 ^= x9;
    x4 = x4 << 7 | x4 >>> 25;
  }
  x[0] = x0;
  x[1] = x1;
  x[2] = x2;
  x[3] = x3;
  x[4] = x4;
  x[5] = x5;
  x[6] = x6;
  x[7] = x7;
  x[8] = x8;
  x[9] = x9;
  x[10] = x10;
  x[11] = x11;
  x[12] = x12;
  x[13] = x13;
  x[14] = x14;
  x[15] = x15;
}

const state = new Int32Array(STATE_WORDS);
const block = new Int32Array(STATE_WORDS);

/** Puts the subkey of `key` and the nonce's first 16 bytes into `state`. */
function hchacha(key: Uint8Array, nonce: Uint8Array): void {
  block.set(CONSTANTS);
  for (let i = 0; i < KEY_WORDS; i++) block[4 + i] = word(key, 4 * i);
  for (let i = 0; i < 4; i++) block[12 + i] = word(nonce, 4 * i);
  rounds(block);
  state.set(CONSTANTS);
  for (let i = 0; i < 4; i++) {
    state[4 + i] = block[i];
    state[8 + i] = block[12 + i];
  }
}

/** Block `counter` of the key stream of `state`, into `block`. */
function chacha(counter: number): void {
  state[12] = counter;
  block.set(state);
  rounds(block);
  for (let i = 0; i < STATE_WORDS; i++) block[i] += state[i];
}

/** Limbs of 22 bits: six are 132 bits, and what overflows counts 4 times 5. */
const LIMBS = 6;
const LIMB = 2 ** 22;
const MASK = LIMB - 1;
const WRAP = 20;
/** Bit 128 of a block, in the last limb; bit 130, where the prime is near. */
const BLOCK_BIT = 2 ** 18;
const PRIME_BIT = 2 ** 20;
const WORD = 2 ** 32;

const r = new Float64Array(LIMBS);
const sum = new Float64Array(LIMBS);
const product = new Float64Array(LIMBS);

/** Adds the 128-bit number at `at` to limbs, and `bit` to the last. */
function addBlock(
  h: Float64Array,
  bytes: Uint8Array,
  at: number,
  bit: number,
): void {
  const w0 = word(bytes, at);
  const w1 = word(bytes, at + 4);
  const w2 = word(bytes, at + 8);
  const w3 = word(bytes, at + 12);
  h[0] += w0 & MASK;
  h[1] += (w0 >>> 22 | w1 << 10) & MASK;
  h[2] += (w1 >>> 12 | w2 << 20) & MASK;
  h[3] += w2 >>> 2 & MASK;
  h[4] += (w2 >>> 24 | w3 << 8) & MASK;
  h[5] += (w3 >>> 14) + bit;
}

const clamped = new Uint8Array(COOKIE_BYTES);

/** Poly1305 (RFC 8439 §2.5) of whole blocks of 16 bytes, to `tag` at `to`. */
export function poly1305Blocks(
  tag: Uint8Array,
  to: number,
  key: Uint8Array,
  message: Uint8Array,
): void {
  for (let i = 0; i < COOKIE_BYTES; i++) {
    clamped[i] = key[i] & (i % 4 === 3 ? 15 : i > 3 && i % 4 === 0 ? 252 : 255);
  }
  r.fill(0);
  sum.fill(0);
  addBlock(r, clamped, 0, 0);
  for (let at = 0; at < message.length; at += COOKIE_BYTES) {
    addBlock(sum, message, at, BLOCK_BIT);
    product.fill(0);
    // Limbs are below 2^24 here: each sum is below 6 * 20 * 2^46, so exact.
    for (let i = 0; i < LIMBS; i++) {
      const h = sum[i];
      const wrapped = h * WRAP;
      for (let j = 0; j < LIMBS - i; j++) product[i + j] += h * r[j];
      for (let j = LIMBS - i; j < LIMBS; j++) {
        product[i + j - LIMBS] += wrapped * r[j];
      }
    }
    sum.set(product);
    carry(sum);
    carry(sum);
  }
  finish(tag, to, key);
}

/** Takes carries: limbs end below 2^22 but for the first, which is little over. */
function carry(h: Float64Array): void {
  let over = 0;
  for (let i = 0; i < LIMBS; i++) {
    const value = h[i] + over;
    over = Math.floor(value / LIMB);
    h[i] = value - over * LIMB;
  }
  h[0] += over * WRAP;
}

/** The sum modulo 2^130 - 5, plus the key's second half, modulo 2^128. */
function finish(tag: Uint8Array, to: number, key: Uint8Array): void {
  carry(sum);
  // Twice: what is left above 2^130 can carry into it again.
  for (let i = 0; i < 2; i++) {
    const top = Math.floor(sum[5] / PRIME_BIT);
    sum[5] -= top * PRIME_BIT;
    sum[0] += top * 5;
    carry(sum);
  }
  // 5 more reaches 2^130 if and only if the prime can be taken off.
  product.set(sum);
  product[0] += 5;
  carry(product);
  const h = product[5] >= PRIME_BIT ? product : sum;
  const [h0, h1, h2, h3, h4, h5] = h;
  let over = 0;
  for (let i = 0; i < 4; i++) {
    const part = i === 0
      ? h0 | h1 << 22
      : i === 1
      ? h1 >>> 10 | h2 << 12
      : i === 2
      ? h2 >>> 20 | h3 << 2 | h4 << 24
      : h4 >>> 8 | h5 << 14;
    const value = (part >>> 0) + (word(key, COOKIE_BYTES + 4 * i) >>> 0) + over;
    over = value >= WORD ? 1 : 0;
    setWord(tag, to + 4 * i, value >>> 0);
  }
}

const oneTimeKey = new Uint8Array(32);
/** Additional data, ciphertext, and the length of each as 64 bits. */
const authenticated = new Uint8Array(3 * COOKIE_BYTES);
authenticated[2 * COOKIE_BYTES] = COOKIE_BYTES;
authenticated[2 * COOKIE_BYTES + 8] = COOKIE_BYTES;

/** The implementation here. */
export const fastSealCookie: SealCookie = (key, nonce, cookie, aad) => {
  hchacha(key, nonce);
  state[13] = 0;
  state[14] = word(nonce, 16);
  state[15] = word(nonce, 20);
  chacha(0);
  for (let i = 0; i < KEY_WORDS; i++) setWord(oneTimeKey, 4 * i, block[i]);
  chacha(1);
  const sealed = new Uint8Array(SEALED_COOKIE_BYTES);
  for (let i = 0; i < COOKIE_BYTES; i += 4) {
    setWord(sealed, i, word(cookie, i) ^ block[i / 4]);
  }
  authenticated.set(aad);
  authenticated.set(sealed.subarray(0, COOKIE_BYTES), COOKIE_BYTES);
  poly1305Blocks(sealed, COOKIE_BYTES, oneTimeKey, authenticated);
  return sealed;
};

let chosen: SealCookie | undefined;

/** Seals a cookie: as above if that agrees with noble, else by noble. */
export const sealCookie: SealCookie = (key, nonce, cookie, aad) => {
  if (chosen === undefined) {
    const bytes = Uint8Array.from({ length: 64 }, (_, i) => 255 - i);
    const test = [
      bytes.subarray(0, 32),
      bytes.subarray(8, 8 + XNONCE_BYTES),
      bytes.subarray(32, 32 + COOKIE_BYTES),
      bytes.subarray(48),
    ] as const;
    const agrees = constantTimeEqual(
      fastSealCookie(...test),
      xaeadEncrypt(...test),
    );
    chosen = agrees ? fastSealCookie : xaeadEncrypt;
  }
  return chosen(key, nonce, cookie, aad);
};
