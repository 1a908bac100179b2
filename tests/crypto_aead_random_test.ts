/**
 * The fast AEADs on random packets and at the edges of memory: against noble,
 * with every byte of the memory checked, at offsets above 2^31, and in two
 * instances and two threads at once.
 *
 * WGD_SLOW=1 compares 1,000,000 packets instead of 20,000.
 *
 * @module
 */

import { assertEquals, assertThrows } from "@std/assert";
import {
  AEAD_OK,
  AEAD_WORK_BYTES,
  aeadEncrypt,
  createNobleAead,
} from "../lib/crypto/mod.ts";
import {
  Arena,
  DESCRIPTOR_BYTES,
  FAST_PROVIDERS,
  type Provider,
  Random,
  testProvider,
} from "./crypto_helpers.ts";

const PAGE_BYTES = 65536;
const PACKETS = Deno.env.get("WGD_SLOW") === "1" ? 1_000_000 : 20_000;
const NO_AAD = new Uint8Array(0);

/** The index of the first difference, or -1. */
function difference(
  a: Uint8Array<ArrayBufferLike>,
  b: Uint8Array<ArrayBufferLike>,
): number {
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return i;
  return -1;
}

function eachProvider(
  what: string,
  test: (create: Provider["create"], name: string) => void | Promise<void>,
): void {
  for (const provider of FAST_PROVIDERS) {
    testProvider(provider, what, () => test(provider.create, provider.name));
  }
}

eachProvider(
  "agrees with noble on random packets, byte for byte of the memory",
  (create) => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0];
    const random = new Random(seed);
    const work = PAGE_BYTES;
    const keys = 2 * PAGE_BYTES;
    const desc = keys + 1024;
    const start = 3 * PAGE_BYTES;
    const fast = new Arena(4);
    const noble = new Arena(4);
    const fastAead = create(fast.memory, work);
    const nobleAead = createNobleAead(noble.memory);
    fast.bytes.set(random.bytes(fast.bytes.length));
    fast.bytes.fill(0, work, work + AEAD_WORK_BYTES);

    for (let done = 0; done < PACKETS;) {
      // A chain of packets with gaps of any length, short ones more often.
      let count = 0;
      let at = start + random.below(64);
      for (;;) {
        const length = random.below([100, 300, 1500][random.below(3)]);
        if (at + length + 32 > fast.bytes.length || count === 64) break;
        fast.describe(desc + count * DESCRIPTOR_BYTES, {
          data: at + 16,
          length,
          key: keys + 4 * random.below(200),
          receiver: random.below(2 ** 32),
          counter: BigInt(random.below(2 ** 32)) << BigInt(random.below(33)),
        });
        at += length + 32 + random.below(40);
        count++;
      }
      done += count;

      noble.bytes.set(fast.bytes);
      fastAead.seal(desc, count);
      nobleAead.seal(desc, count);
      const sealed = difference(fast.bytes, noble.bytes);
      assertEquals(sealed, -1, `seal differs at ${sealed}, seed ${seed}`);

      // One bit in four chains is flipped, anywhere in the packets.
      if (random.below(4) === 0) {
        const flip = start + random.below(at - start);
        fast.bytes[flip] ^= 1 << random.below(8);
        noble.bytes[flip] = fast.bytes[flip];
      }
      fastAead.open(desc, count);
      nobleAead.open(desc, count);
      const opened = difference(fast.bytes, noble.bytes);
      assertEquals(opened, -1, `open differs at ${opened}, seed ${seed}`);
    }
  },
);

eachProvider("agrees with noble at every length to 1,100", (create) => {
  const random = new Random(11);
  const arena = new Arena(1);
  const aead = create(arena.memory, 0);
  const key = random.bytes(32);
  arena.bytes.set(key, 1024);
  for (let length = 0; length <= 1100; length++) {
    const data = 4096 + (length * 7) % 16;
    const plaintext = random.bytes(length);
    const counter = BigInt(length);
    arena.bytes.set(plaintext, data);
    arena.describe(2048, { data, length, key: 1024, counter });
    aead.seal(2048, 1);
    assertEquals(
      arena.slice(data, length + 16),
      aeadEncrypt(key, counter, plaintext, NO_AAD),
      `length ${length}`,
    );
  }
});

eachProvider(
  "works on the first and the last bytes of the memory",
  (create) => {
    const random = new Random(12);
    const arena = new Arena(1);
    const work = 8192;
    const desc = 10240;
    const aead = create(arena.memory, work);
    for (let length = 0; length < 600; length++) {
      const key = random.bytes(32);
      const keyAt = 16384;
      arena.bytes.set(key, keyAt);
      // A read past the end of the memory would trap.
      for (const data of [16, PAGE_BYTES - 16 - length]) {
        const plaintext = random.bytes(length);
        arena.bytes.set(plaintext, data);
        arena.describe(desc, { data, length, key: keyAt });
        aead.seal(desc, 1);
        const sealed = arena.slice(data, length + 16);
        assertEquals(sealed, aeadEncrypt(key, 0n, plaintext, NO_AAD));
        aead.open(desc, 1);
        assertEquals(arena.word(desc, AEAD_OK), 1);
        assertEquals(arena.slice(data, length), plaintext);
      }
    }
    // A key in the last bytes, and a packet that does reach past the end.
    arena.describe(desc, { data: 16, length: 100, key: PAGE_BYTES - 32 });
    aead.seal(desc, 1);
    const past = PAGE_BYTES - 16 - 99;
    arena.describe(desc, { data: past, length: 100, key: 16384 });
    assertThrows(() => aead.open(desc, 1), Error, "out");
  },
);

eachProvider("works above 2^31 in a memory of 4 GiB", (create) => {
  const random = new Random(13);
  const pages = 65536;
  const end = pages * PAGE_BYTES;
  const arena = new Arena(pages);
  const length = 1420;
  const key = random.bytes(32);
  // Scratch, key, descriptor and packet on both sides of 2^31 and at the end.
  const bases = [1024, 2 ** 31 - 600, 2 ** 31 + 4096, end - 8192];
  for (const base of bases) {
    const aead = create(arena.memory, base);
    const keyAt = base + AEAD_WORK_BYTES;
    const desc = keyAt + 32;
    const first = desc + 2 * DESCRIPTOR_BYTES + 16;
    const last = base === end - 8192 ? end - 16 - length : first + 2000;
    const plaintext = random.bytes(length);
    const expected = aeadEncrypt(key, 0n, plaintext, NO_AAD);
    arena.bytes.set(key, keyAt);
    [first, last].forEach((data, i) => {
      arena.bytes.set(plaintext, data);
      const at = desc + i * DESCRIPTOR_BYTES;
      arena.describe(at, { data, length, key: keyAt });
    });
    aead.seal(desc, 2);
    assertEquals(arena.slice(first, length + 16), expected, `base ${base}`);
    assertEquals(arena.slice(last, length + 16), expected, `base ${base}`);
    aead.open(desc, 2);
    assertEquals(arena.word(desc, AEAD_OK), 1);
    assertEquals(arena.word(desc + DESCRIPTOR_BYTES, AEAD_OK), 1);
    assertEquals(arena.slice(last, length), plaintext);
  }
});

eachProvider("does not disturb another one on the same memory", (create) => {
  const random = new Random(14);
  const arena = new Arena(1);
  const sides = [0, 1].map((side) => ({
    aead: create(arena.memory, side * AEAD_WORK_BYTES),
    desc: 4096 + side * DESCRIPTOR_BYTES,
    keyAt: 8192 + side * 32,
    data: 16384 + side * 4096,
    key: random.bytes(32),
    plaintext: random.bytes(0),
  }));
  for (const { key, keyAt } of sides) arena.bytes.set(key, keyAt);
  for (let round = 0; round < 500; round++) {
    const counter = BigInt(round);
    for (const side of sides) {
      side.plaintext = random.bytes(random.below(1500));
      const { desc, data, plaintext, keyAt } = side;
      arena.bytes.set(plaintext, data);
      const length = plaintext.length;
      arena.describe(desc, { data, length, key: keyAt, counter });
    }
    for (const { aead, desc } of sides) aead.seal(desc, 1);
    for (const { key, data, plaintext } of sides) {
      assertEquals(
        arena.slice(data, plaintext.length + 16),
        aeadEncrypt(key, counter, plaintext, NO_AAD),
      );
    }
    // Each opens what the other sealed.
    sides[0].aead.open(sides[1].desc, 1);
    sides[1].aead.open(sides[0].desc, 1);
    for (const { data, plaintext } of sides) {
      assertEquals(arena.slice(data, plaintext.length), plaintext);
    }
  }
});

eachProvider(
  "works in two threads on one memory at the same time",
  async (_, name) => {
    const random = new Random(15);
    const arena = new Arena(4);
    const rounds = 3000;
    const module = new URL("../lib/aead_choice.ts", import.meta.url).href;
    // Seals and opens one packet over and over; posts how often that failed.
    const source = `
    import { createDataAead } from ${JSON.stringify(module)};
    const chosen = { name: "${name}", reason: "under test" };
    self.onmessage = ({ data: { memory, work, desc, ok } }) => {
      const aead = createDataAead(memory, work, chosen);
      const word = new Uint32Array(memory.buffer, ok, 1);
      let failed = 0;
      for (let i = 0; i < ${rounds}; i++) {
        aead.seal(desc, 1);
        aead.open(desc, 1);
        if (word[0] !== 1) failed++;
      }
      self.postMessage(failed);
    };`;
    const url = URL.createObjectURL(
      new Blob([source], { type: "application/javascript" }),
    );
    const length = 1420;
    const threads = [0, 1].map((thread) => {
      const work = thread * AEAD_WORK_BYTES;
      const desc = 4096 + thread * DESCRIPTOR_BYTES;
      const key = 8192 + thread * 32;
      const data = 16384 + thread * 4096;
      const plaintext = random.bytes(length);
      arena.bytes.set(random.bytes(32), key);
      arena.bytes.set(plaintext, data);
      arena.describe(desc, { data, length, key });
      const worker = new Worker(url, { type: "module" });
      const failures = new Promise<number>((resolve, reject) => {
        worker.onmessage = (event): void => resolve(event.data);
        worker.onerror = (event): void => reject(new Error(event.message));
      });
      const ok = desc + 4 * AEAD_OK;
      worker.postMessage({ memory: arena.memory, work, desc, ok });
      return { worker, failures, data, plaintext };
    });
    for (const { worker, failures, data, plaintext } of threads) {
      assertEquals(await failures, 0);
      assertEquals(arena.slice(data, length), plaintext);
      worker.terminate();
    }
    URL.revokeObjectURL(url);
  },
);
