/** The cookie reply's own XChaCha20-Poly1305, against noble and big integers. */
import { assertEquals } from "@std/assert";
import { xaeadEncrypt } from "../lib/crypto/chacha.ts";
import {
  fastSealCookie,
  poly1305Blocks,
  sealCookie,
} from "../lib/crypto/cookie_seal.ts";
import { Random } from "./crypto_helpers.ts";

const P = (1n << 130n) - 5n;

function fromLittleEndian(bytes: Uint8Array): bigint {
  return bytes.reduceRight((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
}

function toLittleEndian(value: bigint, length: number): Uint8Array {
  return Uint8Array.from(
    { length },
    (_, i) => Number((value >> BigInt(8 * i)) & 255n),
  );
}

/** RFC 8439 §2.5.1, by the letter. */
function plainPoly1305(key: Uint8Array, message: Uint8Array): Uint8Array {
  const r = fromLittleEndian(key.subarray(0, 16)) &
    0x0ffffffc0ffffffc0ffffffc0fffffffn;
  let sum = 0n;
  for (let at = 0; at < message.length; at += 16) {
    const block = fromLittleEndian(message.subarray(at, at + 16));
    sum = (sum + block + (1n << 128n)) * r % P;
  }
  const tag = sum + fromLittleEndian(key.subarray(16));
  return toLittleEndian(tag & ((1n << 128n) - 1n), 16);
}

function tagOf(key: Uint8Array, message: Uint8Array): Uint8Array {
  const tag = new Uint8Array(16);
  poly1305Blocks(tag, 0, key, message);
  return tag;
}

Deno.test("cookies are sealed as noble seals them", () => {
  const random = new Random(1);
  for (let i = 0; i < 3_000; i++) {
    const parts = [
      random.bytes(32),
      random.bytes(24),
      random.bytes(16),
      random.bytes(16),
    ] as const;
    const expected = xaeadEncrypt(...parts);
    assertEquals(fastSealCookie(...parts), expected);
    if (i < 10) assertEquals(sealCookie(...parts), expected);
  }
  for (const fill of [0, 0xff]) {
    const parts = [32, 24, 16, 16].map((n) => new Uint8Array(n).fill(fill));
    const [key, nonce, cookie, aad] = parts;
    assertEquals(
      fastSealCookie(key, nonce, cookie, aad),
      xaeadEncrypt(key, nonce, cookie, aad),
    );
  }
});

Deno.test("Poly1305 is right at its edges", () => {
  const random = new Random(2);
  const extremes = [0n, 1n, 2n, (1n << 128n) - 1n, (1n << 128n) - 2n];
  const rs = [0n, 1n, 2n, 4n, 5n, 0x0ffffffc0ffffffc0ffffffc0fffffffn];
  for (const r of rs) {
    for (const s of extremes) {
      const key = new Uint8Array(32);
      key.set(toLittleEndian(r, 16));
      key.set(toLittleEndian(s, 16), 16);
      for (const a of extremes) {
        for (const b of extremes) {
          const message = new Uint8Array(48);
          message.set(toLittleEndian(a, 16));
          message.set(toLittleEndian(b, 16), 16);
          // The last block brings the sum to a value around 0 and p.
          for (let wanted = P - 6n; wanted < P + 6n; wanted++) {
            const before = (((a + (1n << 128n)) * r + b + (1n << 128n)) * r) %
              P;
            const last = (wanted - before - (1n << 128n)) % P;
            message.set(toLittleEndian((last + P) % P, 16), 32);
            assertEquals(
              tagOf(key, message),
              plainPoly1305(key, message),
            );
          }
        }
      }
    }
  }
  for (let i = 0; i < 3_000; i++) {
    const key = random.bytes(32);
    const message = random.bytes(16 * (1 + i % 8));
    if (i % 3 === 0) message.fill(0xff);
    if (i % 5 === 0) key.fill(0xff, 0, 16);
    assertEquals(tagOf(key, message), plainPoly1305(key, message));
  }
});
