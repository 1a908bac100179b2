/**
 * Times lib/crypto: seal and open by provider and packet size, checksums, and
 * what a handshake is made of. Best of many short rounds, so that other load on
 * the machine and its changes of clock count less.
 *
 *     deno run -A tests/bench/crypto_bench.ts [--json]
 *
 * @module
 */

// deno-lint-ignore-file no-console

import {
  type Aead,
  AEAD_OK,
  aeadEncrypt,
  createAead,
  createChecksum,
  createWasmBlake2s,
  hmac,
  kdf2,
  kdf3,
  mac16,
  nobleBlake2s,
  nobleX25519,
  nodeX25519,
  randomBytes,
  xaeadEncrypt,
} from "../../lib/crypto/mod.ts";
import { Arena, DESCRIPTOR_BYTES } from "../crypto_helpers.ts";

interface Result {
  name: string;
  /** Payload bytes of one operation; 0 where a rate means nothing. */
  bytes: number;
  ns: number;
}

const SIZES = [64, 148, 1420];
/** One GSO super-packet of full segments. */
const CHAIN = 45;
const STRIDE = 1500;
const ROUNDS = 20;
const ROUND_MS = 8;

const KEY = 1024;
const DESC = 2048;
const DATA = 8192;
const COPY = 3 * 65536;
const arena = new Arena(4);
const results: Result[] = [];

/** The best time in ns of one call of `run`, `prepare` not counted. */
function best(run: () => void, prepare?: () => void): number {
  const batch = prepare === undefined ? 16 : 1;
  let fastest = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const end = performance.now() + ROUND_MS;
    let [total, calls] = [0, 0];
    do {
      prepare?.();
      const start = performance.now();
      for (let i = 0; i < batch; i++) run();
      total += performance.now() - start;
      calls += batch;
    } while (performance.now() < end);
    fastest = Math.min(fastest, total / calls);
  }
  return fastest * 1e6;
}

function benchAead(aead: Aead): void {
  for (const length of SIZES) {
    for (let i = 0; i < CHAIN; i++) {
      arena.describe(DESC + i * DESCRIPTOR_BYTES, {
        data: DATA + i * STRIDE,
        length,
        key: KEY,
        counter: BigInt(i),
      });
    }
    const seal = (): void => aead.seal(DESC, CHAIN);
    const open = (): void => aead.open(DESC, CHAIN);
    for (
      const [name, ns] of [["seal", best(seal)], ["open", best(open, seal)]]
    ) {
      results.push({
        name: `${aead.name} ${name}`,
        bytes: length,
        ns: Number(ns) / CHAIN,
      });
    }
    if (arena.word(DESC, AEAD_OK) !== 1) throw new Error("open failed");
  }
}

function bench(name: string, run: () => unknown, bytes = 0): void {
  results.push({ name, bytes, ns: best(run) });
}

arena.bytes.set(randomBytes(32), KEY);
benchAead(createAead(arena.memory, 0, "wasm"));
benchAead(createAead(arena.memory, 0, "noble"));

for (const choice of ["wasm", "js"] as const) {
  const { checksum, checksumCopy } = createChecksum(arena.memory, choice);
  bench(`${choice} checksum`, () => checksum(DATA, 1380, 0), 1380);
  bench(
    `${choice} checksumCopy`,
    () => checksumCopy(COPY, DATA, 1380, 0),
    1380,
  );
}

const key = randomBytes(32);
const input = randomBytes(32);
const message = randomBytes(116);
const noKey = new Uint8Array(0);
for (const x25519 of [nodeX25519, nobleX25519]) {
  const peer = x25519.publicKey(input);
  bench(`${x25519.name} X25519`, () => x25519.sharedSecret(key, peer));
  bench(`${x25519.name} X25519 public key`, () => x25519.publicKey(key));
}
const wasmBlake2s = createWasmBlake2s(nobleBlake2s);
for (
  const [name, hash] of [["wasm", wasmBlake2s], [
    "noble",
    nobleBlake2s,
  ]] as const
) {
  bench(`${name} BLAKE2s`, () => hash(noKey, 32, [input]), 32);
  bench(`${name} BLAKE2s mac1`, () => hash(key, 16, [message]), 116);
}
bench("mac16", () => mac16(key, message), 116);
bench("hmac", () => hmac(key, input), 32);
bench("kdf2", () => kdf2(key, input), 32);
bench("kdf3", () => kdf3(key, input), 32);
bench("aeadEncrypt", () => aeadEncrypt(key, 0n, input, key), 32);
bench("xaeadEncrypt", () => xaeadEncrypt(key, randomBytes(24), noKey, key), 16);

if (Deno.args.includes("--json")) {
  console.log(JSON.stringify(results, null, 2));
} else {
  for (const { name, bytes, ns } of results) {
    const size = bytes > 0 ? `${bytes} B` : "";
    const rate = bytes > 0 ? `${(bytes / ns * 1000).toFixed(0)} MB/s` : "";
    console.log(
      name.padEnd(24) + size.padStart(8) + `${ns.toFixed(0)} ns`.padStart(14) +
        rate.padStart(14),
    );
  }
}
