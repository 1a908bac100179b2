/**
 * lib/aead_choice and lib/sys/libcrypto: what each choice gives, libcrypto that
 * is missing, wiped keys, and that nothing is allocated a packet.
 *
 * @module
 */

import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import {
  chooseAead,
  createDataAead,
  testLibcryptoAead,
} from "../lib/aead_choice.ts";
import { LibcryptoAead } from "../lib/aead_libcrypto.ts";
import { aeadEncrypt } from "../lib/crypto/mod.ts";
import {
  Arena,
  DESCRIPTOR_BYTES,
  PROVIDERS,
  Random,
  testProvider,
} from "./crypto_helpers.ts";

const KEY = 1024;
const DESC = 2048;
const DATA = 8192;
const STRIDE = 1500;
const CHAIN = 30;

const [libcrypto] = PROVIDERS.filter(({ name }) => name === "libcrypto");

/** Lines that a program prints in a process of its own. */
async function evaluate(source: string, ...args: string[]): Promise<string[]> {
  const { stdout, stderr, success } = await new Deno.Command(Deno.execPath(), {
    args: ["eval", ...args, source],
    stdout: "piped",
    stderr: "piped",
  }).output();
  const decoder = new TextDecoder();
  assert(success, decoder.decode(stderr));
  return decoder.decode(stdout).trimEnd().split("\n");
}

/** Descriptors of `CHAIN` full packets. */
function describeChain(arena: Arena): void {
  arena.bytes.set(new Random(31).bytes(32), KEY);
  for (let i = 0; i < CHAIN; i++) {
    const packet = { data: DATA + i * STRIDE, length: 1420, key: KEY };
    arena.describe(DESC + i * DESCRIPTOR_BYTES, {
      ...packet,
      counter: BigInt(i),
    });
  }
}

Deno.test("a choice that is asked for is what is made", () => {
  const { memory } = new Arena(1);
  for (const choice of ["wasm", "noble"] as const) {
    const chosen = chooseAead(choice);
    assertEquals(chosen.name, choice);
    assertEquals(createDataAead(memory, 0, chosen).name, choice);
    assertEquals(structuredClone(chosen), chosen, "can be posted");
  }
});

testProvider(libcrypto, "agrees with noble, and auto tries it", () => {
  assertEquals(testLibcryptoAead(), null);
  assertEquals(chooseAead("libcrypto").name, "libcrypto");
  assertEquals(chooseAead("auto").name, "wasm+libcrypto");
});

// A path on which the loader finds nothing needs a process of its own.
Deno.test("without libcrypto auto is wasm, and libcrypto a clear error", async () => {
  const module = new URL("../lib/aead_choice.ts", import.meta.url).href;
  const source = `
    const dlopen = Deno.dlopen;
    Deno.dlopen = (name, symbols) =>
      dlopen(name.replace("libcrypto", "libnone"), symbols);
    const { chooseAead } = await import(${JSON.stringify(module)});
    console.log(chooseAead("auto").name, "|", chooseAead("auto").reason);
    try {
      chooseAead("libcrypto");
    } catch (error) {
      console.log(error.message);
    }`;
  const [auto, forced] = await evaluate(source);
  const missing = /Cannot open libcrypto: .*libnone\.so\.3.*; .*libnone/;
  assertMatch(auto, /^wasm \| /);
  assertMatch(auto, missing);
  assertMatch(forced, missing);
  assertMatch(forced, /^--crypto libcrypto is impossible here: /);
});

testProvider(libcrypto, "needs a shared memory, and ends when closed", () => {
  const unshared = new WebAssembly.Memory({ initial: 1, maximum: 1 });
  assertThrows(() => new LibcryptoAead(unshared), Error, "not shared");
  const aead = new LibcryptoAead(new Arena(1).memory);
  aead.close();
  aead.close();
  assertThrows(() => aead.seal(DESC, 1), Error, "closed");
  assertThrows(() => aead.open(DESC, 1), Error, "closed");
});

testProvider(libcrypto, "refuses what is outside of the memory", () => {
  const arena = new Arena(1);
  const aead = new LibcryptoAead(arena.memory);
  const end = arena.bytes.length;
  for (
    const [data, length, key] of [
      [0, 0, KEY],
      [15, 0, KEY],
      [end - 15, 0, KEY],
      [16, end - 31, KEY],
      [16, 2 ** 32 - 1, KEY],
      [16, 2 ** 31, KEY],
      [16, 0, end - 31],
      [2 ** 32 - 1, 0, KEY],
    ]
  ) {
    arena.describe(DESC, { data, length, key });
    const before = arena.bytes.slice();
    assertThrows(() => aead.seal(DESC, 1), RangeError, "outside");
    assertThrows(() => aead.open(DESC, 1), RangeError, "outside");
    assertEquals(arena.bytes.slice(), before);
  }
  arena.describe(DESC, { data: 16, length: 0, key: end - 32 });
  aead.seal(DESC, 1);
  arena.describe(DESC, { data: end - 16, length: 0, key: KEY });
  aead.seal(DESC, 1);
  aead.close();
});

// The contexts are caught on their way to libcrypto, and then asked for more
// keystream under whatever key they have.
testProvider(libcrypto, "keeps no key in a context after a call", async () => {
  const provider = new URL("../lib/aead_libcrypto.ts", import.meta.url).href;
  const helpers = new URL("./crypto_helpers.ts", import.meta.url).href;
  const [sealing, opening] = await evaluate(`
    const dlopen = Deno.dlopen;
    let lib;
    const contexts = [];
    Deno.dlopen = (name, table) => {
      lib = dlopen(name, table).symbols;
      const EVP_CIPHER_CTX_new = () => {
        contexts.push(lib.EVP_CIPHER_CTX_new());
        return contexts.at(-1);
      };
      return { symbols: { ...lib, EVP_CIPHER_CTX_new } };
    };
    const { LibcryptoAead } = await import(${JSON.stringify(provider)});
    const { Arena } = await import(${JSON.stringify(helpers)});
    const arena = new Arena(1);
    const aead = new LibcryptoAead(arena.memory);
    arena.bytes.fill(7, ${KEY}, ${KEY} + 32);
    arena.describe(${DESC}, { data: ${DATA}, length: 1420, key: ${KEY} });
    aead.seal(${DESC}, 1);
    aead.open(${DESC}, 1);
    for (const context of contexts.slice(-2)) {
      const bytes = new Uint8Array(new ArrayBuffer(128));
      const at = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
      lib.EVP_EncryptInit_ex(context, 0n, 0n, 0n, at + 96n);
      lib.EVP_EncryptUpdate(context, at, at + 120n, at, 64);
      console.log(bytes.subarray(0, 64).toHex());
    }`);
  const zeros = new Uint8Array(64);
  const keystream = aeadEncrypt(
    new Uint8Array(32),
    0n,
    zeros,
    new Uint8Array(0),
  ).subarray(0, 64).toHex();
  assertEquals(sealing, keystream);
  assertEquals(opening, keystream);
});

testProvider(
  libcrypto,
  "allocates nothing a packet once optimised",
  async () => {
    const provider = new URL("../lib/aead_libcrypto.ts", import.meta.url).href;
    const helpers = new URL("./crypto_helpers.ts", import.meta.url).href;
    const source = `
    import { LibcryptoAead } from ${JSON.stringify(provider)};
    import { Arena, DESCRIPTOR_BYTES } from ${JSON.stringify(helpers)};
    const arena = new Arena(2);
    const aead = new LibcryptoAead(arena.memory);
    for (let i = 0; i < ${CHAIN}; i++) {
      arena.describe(${DESC} + i * DESCRIPTOR_BYTES, {
        data: ${DATA} + 128 * i, length: 64, key: ${KEY} + 32 * (i % 2),
      });
    }
    const run = (calls) => {
      for (let i = 0; i < calls; i++) {
        aead.seal(${DESC}, ${CHAIN});
        aead.open(${DESC}, ${CHAIN});
      }
    };
    run(10_000);
    gc();
    const before = Deno.memoryUsage().heapUsed;
    run(2_000);
    const packets = 2 * 2_000 * ${CHAIN};
    console.log((Deno.memoryUsage().heapUsed - before) / packets);`;
    // No collection in between that would hide garbage.
    const flags =
      "--expose-gc,--min-semi-space-size=64,--max-semi-space-size=64";
    const [bytes] = (await evaluate(source, `--v8-flags=${flags}`)).map(Number);
    assert(bytes < 8, `${bytes} bytes a packet`);
  },
);

Deno.test("an AEAD of each choice seals and opens a chain", () => {
  for (const { name, missing, create } of PROVIDERS) {
    if (missing !== null) continue;
    const arena = new Arena(2);
    describeChain(arena);
    const aead = create(arena.memory, 0);
    const before = arena.slice(DATA, CHAIN * STRIDE);
    aead.seal(DESC, CHAIN);
    assert(arena.slice(DATA, 1420).some((byte, i) => byte !== before[i]));
    aead.open(DESC, CHAIN);
    const after = arena.slice(DATA, 1420);
    assertEquals(after, before.subarray(0, 1420), name);
    aead.close?.();
  }
});
