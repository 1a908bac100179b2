/**
 * BLAKE2s, HMAC-BLAKE2s and the key derivation of WireGuard: published vectors
 * and the wasm kernel against noble.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type Blake2s,
  createWasmBlake2s,
  hash,
  HASH_BYTES,
  hmac,
  kdf1,
  kdf2,
  kdf3,
  mac16,
  nobleBlake2s,
} from "../lib/crypto/mod.ts";
import { hex, Random } from "./crypto_helpers.ts";

const PROVIDERS: [string, Blake2s][] = [
  ["wasm", createWasmBlake2s(nobleBlake2s)],
  ["noble", nobleBlake2s],
];
const NO_KEY = new Uint8Array(0);

function ascii(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** RFC 7693 appendix E: the deterministic sequence of its self-test. */
function selfTestSequence(length: number, seed: number): Uint8Array {
  let a = Math.imul(0xdead4bad, seed) >>> 0;
  let b = 1;
  return Uint8Array.from({ length }, () => {
    const t = (a + b) >>> 0;
    a = b;
    b = t;
    return t >>> 24;
  });
}

for (const [name, blake2s] of PROVIDERS) {
  Deno.test(`${name} BLAKE2s of "abc" is that of RFC 7693 appendix B`, () => {
    assertEquals(
      blake2s.digest(NO_KEY, HASH_BYTES, [ascii("abc")]),
      hex("508c5e8c327c14e2e1a72ba34eeb452f37458b209ed63a294d999b4c86675982"),
    );
  });

  Deno.test(`${name} BLAKE2s passes the self-test of RFC 7693 appendix E`, () => {
    const digests: Uint8Array[] = [];
    for (const outLength of [16, 20, 28, 32]) {
      for (const inLength of [0, 3, 64, 65, 255, 1024]) {
        const input = selfTestSequence(inLength, inLength);
        const key = selfTestSequence(outLength, outLength);
        digests.push(blake2s.digest(NO_KEY, outLength, [input]));
        digests.push(blake2s.digest(key, outLength, [input]));
      }
    }
    assertEquals(
      blake2s.digest(NO_KEY, HASH_BYTES, digests),
      hex("6a411f08ce25adcdfb02aba641451cec53c598b24f4fc787fbdc88797f4c1dfe"),
    );
  });
}

Deno.test("wasm and noble BLAKE2s agree on random messages, keys and digests", () => {
  const random = new Random(41);
  const [[, wasm], [, noble]] = PROVIDERS;
  for (let i = 0; i < 4000; i++) {
    const length = random.below(i % 50 === 0 ? 9000 : 300);
    const message = random.bytes(length);
    const cut = random.below(length + 1);
    const parts = [message.subarray(0, cut), message.subarray(cut)];
    const key = random.bytes(random.below(33));
    const digest = 1 + random.below(32);
    assertEquals(
      wasm.digest(key, digest, parts),
      noble.digest(key, digest, [message]),
    );
  }
});

Deno.test("BLAKE2s refuses a key of more than 32 bytes", () => {
  for (const [, blake2s] of PROVIDERS) {
    assertThrows(() => blake2s.digest(new Uint8Array(33), 16, []));
  }
});

Deno.test("hash makes the initial chaining key and hash of WireGuard", () => {
  const chainingKey = hash(ascii("Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s"));
  assertEquals(
    chainingKey,
    hex("60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36"),
  );
  assertEquals(
    hash(chainingKey, ascii("WireGuard v1 zx2c4 Jason@zx2c4.com")),
    hex("2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3"),
  );
});

Deno.test("mac16 is keyed BLAKE2s of 16 bytes over the joined parts", () => {
  const random = new Random(42);
  const key = random.bytes(32);
  const message = random.bytes(116);
  assertEquals(
    mac16(key, message.subarray(0, 50), message.subarray(50)),
    nobleBlake2s.digest(key, 16, [message]),
  );
});

for (const [name, blake2s] of PROVIDERS) {
  Deno.test(`${name} BLAKE2s knows a MAC of 16 bytes, and every change of key, message and code`, () => {
    const random = new Random(45);
    for (const keyLength of [1, 16, 32]) {
      for (const length of [0, 1, 63, 64, 116, 132, 5000]) {
        const key = random.bytes(keyLength);
        const message = random.bytes(length + 40);
        message.set(
          nobleBlake2s.digest(key, 16, [message.subarray(0, length)]),
          length,
        );
        const before = message.slice();
        assert(blake2s.isMac16(key, message, length));
        assertEquals(message, before);
        for (let at = 0; at < length + 16; at += length > 200 ? 251 : 1) {
          message[at] ^= 1 << at % 8;
          assert(!blake2s.isMac16(key, message, length), `byte ${at}`);
          message[at] ^= 1 << at % 8;
        }
        key[keyLength - 1] ^= 1;
        assert(!blake2s.isMac16(key, message, length));
      }
    }
  });
}

Deno.test("hmac takes keys shorter than, as long as and longer than a block", () => {
  // HMAC by its definition, from the hash.
  const random = new Random(43);
  for (const length of [0, 1, 32, 63, 64, 65, 200]) {
    const key = random.bytes(length);
    const message = random.bytes(100);
    const block = new Uint8Array(64);
    block.set(length > 64 ? nobleBlake2s.digest(NO_KEY, 32, [key]) : key);
    const inner = nobleBlake2s.digest(NO_KEY, 32, [
      block.map((byte) => byte ^ 0x36),
      message,
    ]);
    const outer = nobleBlake2s.digest(NO_KEY, 32, [
      block.map((byte) => byte ^ 0x5c),
      inner,
    ]);
    assertEquals(
      hmac(key, message.subarray(0, 33), message.subarray(33)),
      outer,
    );
  }
});

// wireguard-go's device/kdf_test.go.
const KDF_VECTORS = [
  {
    key: "test-key",
    input: "test-input",
    outputs: [
      "6f0e5ad38daba1bea8a0d213688736f19763239305e0f58aba697f9ffc41c633",
      "df1194df20802a4fe594cde27e92991c8cae66c366e8106aaa937a55fa371e8a",
      "fac6e2745a325f5dc5d11a5b165aad08b0ada28e7b4e666b7c077934a4d76c24",
    ],
  },
  {
    key: "wireguard",
    input: "wireguard",
    outputs: [
      "491d43bbfdaa8750aaf535e334ecbfe5129967cd64635101c566d4caefda96e8",
      "1e71a379baefd8a79aa4662212fcafe19a23e2b609a3db7d6bcba8f560e3d25f",
      "31e1ae48bddfbe5de38f295e5452b1909a1b4e38e183926af3780b0c1e1f0160",
    ],
  },
  {
    key: "",
    input: "",
    outputs: [
      "8387b46bf43eccfcf349552a095d8315c4055beb90208fb1be23b894bc2ed5d0",
      "58a0e5f6faefccf4807bff1f05fa8a9217945762040bcec2f4b4a62bdfe0e86e",
      "0ce6ea98ec548f8e281e93e32db65621c45eb18dc6f0a7ad94178610a2f7338e",
    ],
  },
];

Deno.test("kdf1, kdf2 and kdf3 make the outputs of wireguard-go's vectors", () => {
  for (const { key, input, outputs } of KDF_VECTORS) {
    const [first, second, third] = outputs.map(hex);
    const [k, i] = [ascii(key), ascii(input)];
    assertEquals(kdf1(k, i), first);
    assertEquals(kdf2(k, i), [first, second]);
    assertEquals(kdf3(k, i), [first, second, third]);
  }
});

Deno.test("hashes take views on a SharedArrayBuffer and leave inputs alone", () => {
  const random = new Random(44);
  const plain = random.bytes(64);
  const shared = new Uint8Array(new SharedArrayBuffer(64));
  shared.set(plain);
  const [key, input] = [shared.subarray(0, 32), shared.subarray(32)];
  assertEquals(hash(shared), hash(plain));
  assertEquals(nobleBlake2s.digest(NO_KEY, 32, [shared]), hash(plain));
  assertEquals(mac16(key, input), mac16(key.slice(), input.slice()));
  assertEquals(kdf3(key, input), kdf3(key.slice(), input.slice()));
  assertEquals(new Uint8Array(shared), plain);
});
