/**
 * The data path's AEAD, each case on each provider: published vectors, the
 * descriptor's contract, forgeries, and the choice of provider. Random packets
 * are in crypto_aead_random_test.ts.
 *
 * @module
 */

import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type Aead,
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_DONE,
  AEAD_FORGED,
  AEAD_KEY,
  AEAD_LENGTH,
  AEAD_OK,
  AEAD_PENDING,
  AEAD_RECEIVER,
  AEAD_USER,
  AEAD_WORK_BYTES,
  aeadEncrypt,
  createAead,
  createWasmAead,
  testAead,
  testWasmAead,
} from "../lib/crypto/mod.ts";
import {
  Arena,
  DESCRIPTOR_BYTES,
  hex,
  PROVIDERS,
  Random,
  testProvider,
  USER_MARK,
} from "./crypto_helpers.ts";

const WORK = 0;
const KEY = 1024;
const DESC = 2048;
const DATA = 4096 + 16;

function eachProvider(
  name: string,
  test: (aead: Aead, arena: Arena) => void,
): void {
  for (const provider of PROVIDERS) {
    testProvider(provider, name, () => {
      const arena = new Arena(2);
      const aead = provider.create(arena.memory, WORK);
      test(aead, arena);
      aead.close?.();
    });
  }
}

/** Seals one packet at DATA and returns its ciphertext and tag. */
function sealOne(
  aead: Aead,
  arena: Arena,
  key: Uint8Array,
  counter: bigint,
  plaintext: Uint8Array,
): Uint8Array {
  arena.bytes.set(key, KEY);
  arena.bytes.set(plaintext, DATA);
  arena.describe(DESC, {
    data: DATA,
    length: plaintext.length,
    key: KEY,
    counter,
  });
  aead.seal(DESC, 1);
  return arena.slice(DATA, plaintext.length + 16);
}

/** Opens the packet at DATA; returns OK. */
function openOne(aead: Aead, arena: Arena, length: number): number {
  arena.describe(DESC, { data: DATA, length, key: KEY });
  aead.open(DESC, 1);
  return arena.word(DESC, AEAD_OK);
}

// RFC 8439 §A.1, vectors 2 to 4: keystream with a zero nonce. Block 0 keys
// Poly1305, so block 1 is what 64 zero bytes become.
const KEYSTREAM_VECTORS = [
  {
    key: "00".repeat(32),
    block: 1,
    keystream: `9f07e7be5551387a98ba977c732d080dcb0f29a048e3656912c6533e32ee7aed
      29b721769ce64e43d57133b074d839d531ed1f28510afb45ace10a1f4b794d6f`,
  },
  {
    key: "00".repeat(31) + "01",
    block: 1,
    keystream: `3aeb5224ecf849929b9d828db1ced4dd832025e8018b8160b82284f3c949aa5a
      8eca00bbb4a73bdad192b5c42f73f2fd4e273644c8b36125a64addeb006c13a0`,
  },
  {
    key: "00ff" + "00".repeat(30),
    block: 2,
    keystream: `72d54dfbf12ec44b362692df94137f328fea8da73990265ec1bbbea1ae9af0ca
      13b25aa26cb4a648cb9b9d1be65b2c0924a66c54d545ec1b7374f4872e99f096`,
  },
];

eachProvider("makes the keystreams of RFC 8439 A.1", (aead, arena) => {
  for (const { key, block, keystream } of KEYSTREAM_VECTORS) {
    const zeros = new Uint8Array(64 * block);
    const sealed = sealOne(aead, arena, hex(key), 0n, zeros);
    const at = 64 * (block - 1);
    assertEquals(sealed.subarray(at, at + 64), hex(keystream));
  }
});

// RFC 8439 §A.5 has additional data, which data packets do not: its ciphertext
// is comparable, its tag is not.
eachProvider("encrypts the message of RFC 8439 A.5", (aead, arena) => {
  const plaintext = new TextEncoder().encode(
    "Internet-Drafts are draft documents valid for a maximum of six months " +
      "and may be updated, replaced, or obsoleted by other documents at any " +
      "time. It is inappropriate to use Internet-Drafts as reference " +
      "material or to cite them other than as /“work in progress./”",
  );
  const key = hex(`1c9240a5eb55d38af333888604f6b5f0
    473917c1402b80099dca5cbc207075c0`);
  const sealed = sealOne(aead, arena, key, 0x0807060504030201n, plaintext);
  assertEquals(
    sealed.subarray(0, 48),
    hex(`64a0861575861af460f062c79be643bd5e805cfd345cf389
      f108670ac76c8cb24c6cfc18755d43eea09ee94e382d26b0`),
  );
  assertEquals(
    sealed.subarray(plaintext.length - 25, plaintext.length),
    hex("305beaba2eda04df997b714d6c6f2c29a6ad5cb4022b02709b"),
  );
});

eachProvider(
  "writes the header and OK, and nothing into the other words",
  (aead, arena) => {
    arena.describe(DESC, {
      data: DATA,
      length: 0,
      key: KEY,
      receiver: 0x89abcdef,
      counter: 0xfedcba9876543210n,
    });
    aead.seal(DESC, 1);
    assertEquals(
      arena.slice(DATA - 16, 16),
      hex("04000000 efcdab89 1032547698badcfe"),
    );
    assertEquals(arena.word(DESC, AEAD_DATA), DATA);
    assertEquals(arena.word(DESC, AEAD_LENGTH), 0);
    assertEquals(arena.word(DESC, AEAD_KEY), KEY);
    assertEquals(arena.word(DESC, AEAD_RECEIVER), 0x89abcdef);
    assertEquals(arena.word(DESC, AEAD_OK), AEAD_DONE);
    assertEquals(arena.word(DESC, AEAD_USER), USER_MARK);
    assertEquals(arena.word(DESC, AEAD_COUNTER_LO), 0x76543210);
    assertEquals(arena.word(DESC, AEAD_COUNTER_HI), 0xfedcba98);
  },
);

eachProvider("opens what it sealed and reports the counter", (aead, arena) => {
  const random = new Random(1);
  for (const length of [0, 1, 15, 16, 17, 64, 192, 193, 448, 449, 1420]) {
    const plaintext = random.bytes(length);
    sealOne(aead, arena, random.bytes(32), 0xfedcba9876543210n, plaintext);
    assertEquals(openOne(aead, arena, length), 1, `length ${length}`);
    assertEquals(arena.slice(DATA, length), plaintext);
    assertEquals(arena.word(DESC, AEAD_COUNTER_LO), 0x76543210);
    assertEquals(arena.word(DESC, AEAD_COUNTER_HI), 0xfedcba98);
    assertEquals(arena.word(DESC, AEAD_USER), USER_MARK);
  }
});

eachProvider("refuses every flipped bit of tag and counter", (aead, arena) => {
  const random = new Random(2);
  const length = 100;
  sealOne(aead, arena, random.bytes(32), 7n, random.bytes(length));
  const sealed = arena.packet(DATA, length);
  const tag = length;
  for (const start of [tag, -8]) {
    const size = start === tag ? 16 : 8;
    for (let bit = 0; bit < 8 * size; bit++) {
      const at = DATA + start + (bit >> 3);
      arena.bytes[at] ^= 1 << (bit & 7);
      const forged = arena.packet(DATA, length);
      assertEquals(openOne(aead, arena, length), 0, `bit ${bit}`);
      assertEquals(arena.packet(DATA, length), forged, "payload untouched");
      arena.bytes[at] ^= 1 << (bit & 7);
    }
  }
  assertEquals(arena.packet(DATA, length), sealed);
  assertEquals(openOne(aead, arena, length), 1);
});

eachProvider("refuses every changed byte of the payload", (aead, arena) => {
  const random = new Random(3);
  for (const length of [1, 64, 333, 1420]) {
    sealOne(aead, arena, random.bytes(32), 7n, random.bytes(length));
    for (let i = 0; i < length; i += 1 + random.below(1 + length / 50)) {
      arena.bytes[DATA + i] ^= 0x80;
      const forged = arena.packet(DATA, length);
      assertEquals(openOne(aead, arena, length), 0, `byte ${i} of ${length}`);
      assertEquals(arena.packet(DATA, length), forged, "payload untouched");
      arena.bytes[DATA + i] ^= 0x80;
    }
    assertEquals(openOne(aead, arena, length), 1);
  }
});

eachProvider("refuses truncated and extended packets", (aead, arena) => {
  const random = new Random(4);
  const length = 300;
  sealOne(aead, arena, random.bytes(32), 7n, random.bytes(length));
  for (let change = -40; change <= 40; change++) {
    const expected = change === 0 ? 1 : 0;
    assertEquals(openOne(aead, arena, length + change), expected);
    if (change === 0) aead.seal(DESC, 1);
  }
});

eachProvider("refuses the wrong key", (aead, arena) => {
  const random = new Random(5);
  sealOne(aead, arena, random.bytes(32), 7n, random.bytes(50));
  arena.bytes[KEY + 31] ^= 1;
  assertEquals(openOne(aead, arena, 50), 0);
});

eachProvider(
  "takes a chain with keys and lengths of its own",
  (aead, arena) => {
    const random = new Random(6);
    const count = 70;
    const stride = 1000;
    const packets = Array.from({ length: count }, (_, i) => ({
      data: DATA + 200 + i * stride,
      length: random.below(stride - 60),
      key: KEY + 32 * (i % 8),
      receiver: i,
      counter: BigInt(i) << 30n,
    }));
    const keys = Array.from({ length: 8 }, () => random.bytes(32));
    keys.forEach((key, i) => arena.bytes.set(key, KEY + 32 * i));
    const plaintexts = packets.map(({ length }) => random.bytes(length));
    packets.forEach((packet, i) => {
      arena.bytes.set(plaintexts[i], packet.data);
      arena.describe(DESC + i * DESCRIPTOR_BYTES, packet);
    });

    aead.seal(DESC, count);
    packets.forEach(({ data, length, counter }, i) => {
      assertEquals(
        arena.slice(data, length + 16),
        aeadEncrypt(keys[i % 8], counter, plaintexts[i], new Uint8Array(0)),
      );
    });

    const forged = new Set([0, 13, count - 1]);
    for (const i of forged) arena.bytes[packets[i].data] ^= 1;
    aead.open(DESC, count);
    packets.forEach(({ data, length }, i) => {
      const ok = arena.word(DESC + i * DESCRIPTOR_BYTES, AEAD_OK);
      assertEquals(ok, forged.has(i) ? 0 : 1);
      if (ok === 1) assertEquals(arena.slice(data, length), plaintexts[i]);
    });
  },
);

eachProvider(
  "takes another key at the same offset, call after call",
  (aead, arena) => {
    const random = new Random(9);
    for (let round = 0; round < 20; round++) {
      const key = random.bytes(32);
      const plaintext = random.bytes(1100);
      const sealed = sealOne(aead, arena, key, 7n, plaintext);
      const expected = aeadEncrypt(key, 7n, plaintext, new Uint8Array(0));
      assertEquals(sealed, expected, `round ${round}`);
      // Opened with the key before this one, it is a forgery.
      arena.bytes[KEY] ^= 1;
      assertEquals(openOne(aead, arena, 1100), AEAD_FORGED);
      assertEquals(arena.slice(DATA, 1116), expected, "payload untouched");
      arena.bytes[KEY] ^= 1;
      assertEquals(openOne(aead, arena, 1100), AEAD_DONE);
    }
  },
);

eachProvider("sets OK packet by packet", (aead, arena) => {
  const random = new Random(10);
  arena.bytes.set(random.bytes(32), KEY);
  // The last packet ends outside of the memory: the call throws there.
  const ends = [DATA, DATA + 200, arena.bytes.length - 20];
  ends.forEach((data, i) => {
    const at = DESC + i * DESCRIPTOR_BYTES;
    arena.describe(at, { data, length: 100, key: KEY });
    arena.view.setUint32(at + 4 * AEAD_OK, AEAD_PENDING, true);
  });
  const oks = (): number[] =>
    ends.map((_, i) => arena.word(DESC + i * DESCRIPTOR_BYTES, AEAD_OK));
  assertThrows(() => aead.seal(DESC, 3));
  assertEquals(oks(), [AEAD_DONE, AEAD_DONE, AEAD_PENDING]);
  arena.bytes[DATA] ^= 1;
  assertThrows(() => aead.open(DESC, 3));
  assertEquals(oks(), [AEAD_FORGED, AEAD_DONE, AEAD_PENDING]);
});

eachProvider("does nothing for an empty chain", (aead, arena) => {
  arena.bytes.fill(0xaa, AEAD_WORK_BYTES);
  aead.seal(DESC, 0);
  aead.open(DESC, 0);
  const rest = arena.bytes.subarray(AEAD_WORK_BYTES);
  assert(rest.every((byte) => byte === 0xaa));
});

Deno.test("wasm AEAD leaves no key or keystream in its scratch area", () => {
  const arena = new Arena(2);
  const random = new Random(7);
  const aead = createAead(arena.memory, WORK, "wasm");
  sealOne(aead, arena, random.bytes(32), 7n, random.bytes(1000));
  assert(arena.slice(WORK, AEAD_WORK_BYTES).every((byte) => byte === 0));
  openOne(aead, arena, 1000);
  assert(arena.slice(WORK, AEAD_WORK_BYTES).every((byte) => byte === 0));
});

Deno.test("wasm AEAD does not depend on what its scratch area held", () => {
  const arena = new Arena(2);
  const random = new Random(8);
  const aead = createAead(arena.memory, WORK, "wasm");
  const key = random.bytes(32);
  const plaintext = random.bytes(1000);
  const expected = aeadEncrypt(key, 7n, plaintext, new Uint8Array(0));
  arena.bytes.set(random.bytes(AEAD_WORK_BYTES), WORK);
  assertEquals(sealOne(aead, arena, key, 7n, plaintext), expected);
});

Deno.test("createAead refuses a provider that it does not make", () => {
  const { memory } = new Arena(1);
  assertThrows(
    () => createAead(memory, WORK, "libcrypto"),
    Error,
    'Cannot make the AEAD "libcrypto" here',
  );
});

Deno.test("a self-test finds a provider that is wrong", () => {
  const wrongs: [string, (aead: Aead, memory: WebAssembly.Memory) => Aead][] = [
    ["opens anything", ({ seal }, memory) => ({
      name: "wrong",
      seal,
      open: (desc) => new Uint32Array(memory.buffer)[desc / 4 + AEAD_OK] = 1,
    })],
    ["seals nothing", ({ open }) => ({ name: "wrong", open, seal(): void {} })],
    ["writes over a forged payload", ({ seal, open }, memory) => ({
      name: "wrong",
      seal,
      open(desc, n): void {
        open(desc, n);
        const words = new Uint32Array(memory.buffer);
        const data = words[desc / 4 + AEAD_DATA];
        const length = words[desc / 4 + AEAD_LENGTH];
        if (words[desc / 4 + AEAD_OK] === AEAD_FORGED && length > 0) {
          new Uint8Array(memory.buffer)[data] ^= 1;
        }
      },
    })],
    ["breaks", ({ open }) => ({
      name: "wrong",
      open,
      seal: () => assert(false, "broken"),
    })],
  ];
  assertEquals(testAead(createWasmAead), null);
  for (const [what, wrong] of wrongs) {
    const problem = testAead((memory, work) =>
      wrong(createWasmAead(memory, work), memory)
    );
    assert(problem !== null, what);
  }
});

Deno.test("auto takes the wasm AEAD, which passes its self-test", () => {
  const { memory } = new Arena(1);
  assertEquals(testWasmAead(), null);
  assertEquals(createAead(memory, WORK, "auto").name, "wasm");
  assertEquals(createAead(memory, WORK, "noble").name, "noble");
});

Deno.test("wasm AEAD that cannot work is a clear error", () => {
  const unshared = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  assertThrows(
    () => createAead(unshared, WORK, "wasm"),
    Error,
    "the memory is not shared",
  );
  const { memory } = new Arena(1);
  for (const offset of [-1, 0.5, 65536 - AEAD_WORK_BYTES + 1]) {
    assertThrows(() => createAead(memory, offset, "wasm"), RangeError);
  }
});
