/**
 * Helpers on secret bytes: comparison and text forms whose timing does not
 * depend on the bytes, wiping, and randomness. Keys in text are base64 of 32
 * bytes, always 44 characters (wireguard-tools' encoding.c has the same
 * property). All accept views on a SharedArrayBuffer.
 *
 * @module
 */

/** Bytes of every key: private, public, preshared. */
export const KEY_BYTES = 32;

const KEY_TEXT_LENGTH = 44;
/** getRandomValues gives at most this many bytes a call. */
const RANDOM_CHUNK_BYTES = 65536;

/**
 * Compares without stopping at the first difference.
 *
 * @returns False also if the lengths, which are not secret, differ.
 */
export function constantTimeEqual(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  let difference = 0;
  for (let i = 0; i < a.length; i++) difference |= a[i] ^ b[i];
  return difference === 0;
}

/** A shared secret as an array of its own, or null if it is all zero. */
export function secretOrNull(secret: Uint8Array): Uint8Array | null {
  return constantTimeEqual(secret, new Uint8Array(secret.length))
    ? null
    : new Uint8Array(secret);
}

/** Overwrites each array with zeros. */
export function wipe(...arrays: Uint8Array[]): void {
  for (const array of arrays) array.fill(0);
}

/** A fresh array of `length` bytes from the system's generator. */
export function randomBytes(length: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let at = 0; at < length; at += RANDOM_CHUNK_BYTES) {
    crypto.getRandomValues(bytes.subarray(at, at + RANDOM_CHUNK_BYTES));
  }
  return bytes;
}

/** All bits set if a < b, else 0; both below 2^31. */
function below(a: number, b: number): number {
  return (a - b) >> 31;
}

/** All bits set if low <= x <= high, else 0. */
function within(x: number, low: number, high: number): number {
  return below(low - 1, x) & below(x, high + 1);
}

/** Character code of one hexadecimal digit, lower case. */
function hexDigit(value: number): number {
  return value + 0x30 + (below(9, value) & 0x27);
}

/** Value of one hexadecimal digit, or -1. */
function hexValue(code: number): number {
  const lower = code | 0x20;
  const digit = within(code, 0x30, 0x39);
  const letter = within(lower, 0x61, 0x66);
  return (digit & (code - 0x30)) | (letter & (lower - 0x57)) |
    ~(digit | letter);
}

/** Lower-case hexadecimal, two characters a byte. */
export function toHex(bytes: Uint8Array): string {
  const codes = new Array<number>(2 * bytes.length);
  for (let i = 0; i < bytes.length; i++) {
    const byte = bytes[i];
    codes[2 * i] = hexDigit(byte >> 4);
    codes[2 * i + 1] = hexDigit(byte & 15);
  }
  return String.fromCharCode(...codes);
}

/**
 * Reads hexadecimal of either case.
 *
 * @returns Null if the text has an odd length or another character.
 */
export function fromHex(text: string): Uint8Array<ArrayBuffer> | null {
  if (text.length % 2 !== 0) return null;
  const bytes = new Uint8Array(text.length / 2);
  let invalid = 0;
  for (let i = 0; i < bytes.length; i++) {
    const high = hexValue(text.charCodeAt(2 * i));
    const low = hexValue(text.charCodeAt(2 * i + 1));
    invalid |= high | low;
    bytes[i] = (high << 4) | low;
  }
  return invalid < 0 ? null : bytes;
}

/** Character code of one base64 digit. */
function base64Digit(value: number): number {
  return value + 0x41 +
    (below(25, value) & 6) -
    (below(51, value) & 75) -
    (below(61, value) & 15) +
    (below(62, value) & 3);
}

/** Value of one base64 digit, or -1. */
function base64Value(code: number): number {
  const upper = within(code, 0x41, 0x5a);
  const lower = within(code, 0x61, 0x7a);
  const digit = within(code, 0x30, 0x39);
  const plus = within(code, 0x2b, 0x2b);
  const slash = within(code, 0x2f, 0x2f);
  return (upper & (code - 0x41)) | (lower & (code - 0x47)) |
    (digit & (code + 4)) | (plus & 62) | (slash & 63) |
    ~(upper | lower | digit | plus | slash);
}

/** Base64 with padding (RFC 4648 §4). */
export function toBase64(bytes: Uint8Array): string {
  let text = "";
  for (let i = 0; i < bytes.length; i += 3) {
    const left = bytes.length - i;
    const group = bytes[i] << 16 | (left > 1 ? bytes[i + 1] : 0) << 8 |
      (left > 2 ? bytes[i + 2] : 0);
    text += String.fromCharCode(
      base64Digit(group >> 18),
      base64Digit(group >> 12 & 63),
      left > 1 ? base64Digit(group >> 6 & 63) : 0x3d,
      left > 2 ? base64Digit(group & 63) : 0x3d,
    );
  }
  return text;
}

/**
 * Reads base64 strictly: with padding, no white space, unused bits zero.
 *
 * @returns Null if the text is anything else.
 */
export function fromBase64(text: string): Uint8Array<ArrayBuffer> | null {
  if (text.length % 4 !== 0) return null;
  const padding = text.endsWith("==") ? 2 : text.endsWith("=") ? 1 : 0;
  const bytes = new Uint8Array(text.length / 4 * 3 - padding);
  const digits = text.length - padding;
  let invalid = 0;
  let bits = 0;
  for (let i = 0; i < text.length; i++) {
    const value = i < digits ? base64Value(text.charCodeAt(i)) : 0;
    invalid |= value;
    bits = bits << 6 | (value & 63);
    if (i % 4 !== 3) continue;
    const at = (i - 3) / 4 * 3;
    // Bytes past the end are dropped by the array; they must have been zero.
    const unused = [0, 0xff, 0xffff][i === text.length - 1 ? padding : 0];
    invalid |= -(bits & unused);
    bytes[at] = bits >> 16;
    bytes[at + 1] = bits >> 8;
    bytes[at + 2] = bits;
    bits = 0;
  }
  return invalid < 0 ? null : bytes;
}

/**
 * Reads a key of 32 bytes from its 44 characters.
 *
 * @returns Null if the text is not a key.
 */
export function decodeKey(text: string): Uint8Array<ArrayBuffer> | null {
  if (text.length !== KEY_TEXT_LENGTH) return null;
  const key = fromBase64(text);
  return key?.length === KEY_BYTES ? key : null;
}

/**
 * Writes a key of 32 bytes as 44 characters.
 *
 * @throws {RangeError} If `key` is not 32 bytes.
 */
export function encodeKey(key: Uint8Array): string {
  if (key.length !== KEY_BYTES) {
    throw new RangeError(`A key is ${KEY_BYTES} bytes, not ${key.length}`);
  }
  return toBase64(key);
}
