/**
 * Times lib/crypto: seal and open by provider and packet size beside noble, the
 * trial that chooses on live packets, checksums, and what a handshake is made of.
 * The providers run by turns, round after round, and the medians are compared,
 * so that other load on the machine and its changes of clock are shared; the
 * rest is the best of many short rounds.
 *
 *     deno run -A tests/bench/crypto_bench.ts [--json]
 *
 * @module
 */

// deno-lint-ignore-file no-console

import {
  chooseAead,
  createDataAead,
  testLibcryptoAead,
} from "../../lib/aead_choice.ts";
import {
  type Aead,
  AEAD_OK,
  AEAD_WORK_BYTES,
  aeadEncrypt,
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
  TrialAead,
  xaeadEncrypt,
} from "../../lib/crypto/mod.ts";
import { Arena, DESCRIPTOR_BYTES } from "../crypto_helpers.ts";

/** One provider at one length; ns a packet. */
export interface AeadTime {
  readonly provider: string;
  readonly bytes: number;
  readonly seal: number;
  readonly open: number;
}

/** How the trial of "auto" ended on packets of 1,420 bytes. */
export interface TrialOutcome {
  readonly name: string;
  /** Packets, and time spent on them, until it was settled. */
  readonly packets: number;
  readonly ms: number;
}

interface Result {
  name: string;
  /** Payload bytes of one operation; 0 where a rate means nothing. */
  bytes: number;
  ns: number;
}

const SIZES = [64, 148, 256, 576, 1420];
/** One GSO super-packet of full segments. */
const CHAIN = 45;
const STRIDE = 1500;
const ROUNDS = 20;
const ROUND_MS = 8;
/** Calls between two readings of the clock. */
const BATCH = 16;
const AEAD_ROUNDS = 101;
/** Packets of each before anything is timed: the engine has optimised by then. */
const WARM_PACKETS = 100_000;

const KEY = 4 * AEAD_WORK_BYTES;
const DESC = KEY + 64;
const DATA = 8192;
const COPY = 3 * 65536;

function median(values: number[]): number {
  return values.sort((a, b) => a - b)[values.length >> 1];
}

function elapsed(run: () => void): number {
  const start = performance.now();
  run();
  return performance.now() - start;
}

/** Descriptors of a chain of packets of `length` bytes. */
function describe(arena: Arena, length: number): void {
  for (let i = 0; i < CHAIN; i++) {
    arena.describe(DESC + i * DESCRIPTOR_BYTES, {
      data: DATA + i * STRIDE,
      length,
      key: KEY,
      counter: BigInt(i),
    });
  }
}

/** Seals and opens chains of 45 packets by each provider that works here. */
export function benchAeads(sizes: readonly number[] = SIZES): AeadTime[] {
  const arena = new Arena(4);
  arena.bytes.set(randomBytes(32), KEY);
  const names = ["wasm", "libcrypto", "noble"] as const;
  const aeads = names.filter((name) =>
    name !== "libcrypto" || testLibcryptoAead() === null
  ).map((name, i) =>
    createDataAead(arena.memory, i * AEAD_WORK_BYTES, { name, reason: "" })
  );
  // Chains of one too, and of small packets: what is optimised for one shape of
  // chain alone is thrown away at the next.
  describe(arena, 64);
  for (const aead of aeads) {
    const packets = aead.name === "noble" ? 1000 : WARM_PACKETS;
    for (let i = 0; i < packets; i += CHAIN + 1) {
      for (const n of [CHAIN, 1]) {
        aead.seal(DESC, n);
        aead.open(DESC, n);
      }
    }
  }
  return sizes.flatMap((bytes) => {
    describe(arena, bytes);
    const seal = aeads.map((): number[] => []);
    const open = aeads.map((): number[] => []);
    for (let round = 0; round < AEAD_ROUNDS; round++) {
      aeads.forEach((aead, i) => {
        // Noble is 10 to 40 times slower: enough is enough.
        if (aead.name === "noble" && round % 10 !== 0) return;
        seal[i].push(elapsed(() => aead.seal(DESC, CHAIN)));
        open[i].push(elapsed(() => aead.open(DESC, CHAIN)));
        if (arena.word(DESC, AEAD_OK) !== 1) throw new Error("open failed");
      });
    }
    return aeads.map(({ name: provider }, i) => ({
      provider,
      bytes,
      seal: median(seal[i]) / CHAIN * 1e6,
      open: median(open[i]) / CHAIN * 1e6,
    }));
  });
}

/** Gives the trial of "auto" full packets until it has settled. */
export function benchTrial(): TrialOutcome | null {
  const arena = new Arena(4);
  const trial: Aead = createDataAead(arena.memory, 0, chooseAead("auto"));
  if (!(trial instanceof TrialAead)) return null;
  describe(arena, 1420);
  let packets = 0;
  const ms = elapsed(() => {
    while (!trial.settled) {
      trial.seal(DESC, CHAIN);
      trial.open(DESC, CHAIN);
      packets += 2 * CHAIN;
    }
  });
  const { name } = trial;
  trial.close();
  return { name, packets, ms };
}

/** The best time in ns of one call of `run`. */
function best(run: () => void): number {
  let fastest = Infinity;
  for (let round = 0; round < ROUNDS; round++) {
    const end = performance.now() + ROUND_MS;
    let [total, calls] = [0, 0];
    do {
      const start = performance.now();
      for (let i = 0; i < BATCH; i++) run();
      total += performance.now() - start;
      calls += BATCH;
    } while (performance.now() < end);
    fastest = Math.min(fastest, total / calls);
  }
  return fastest * 1e6;
}

/** Times the rest: checksums, and what a handshake is made of. */
export function benchParts(): Result[] {
  const arena = new Arena(4);
  const results: Result[] = [];
  const bench = (name: string, run: () => unknown, bytes = 0): void => {
    results.push({ name, bytes, ns: best(run) });
  };

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
    const [name, hash] of [["wasm", wasmBlake2s.digest], [
      "noble",
      nobleBlake2s.digest.bind(nobleBlake2s),
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
  bench(
    "xaeadEncrypt",
    () => xaeadEncrypt(key, randomBytes(24), noKey, key),
    16,
  );
  return results;
}

/** The provider's times by size, and what of noble's time they are. */
function printAeads(times: readonly AeadTime[]): void {
  console.log(
    "ns a packet".padEnd(14) + "bytes".padStart(6) + "seal".padStart(9) +
      "open".padStart(9) + "seal MB/s".padStart(11) +
      "noble / seal".padStart(14),
  );
  for (const { provider, bytes, seal, open } of times) {
    const noble = times.find((time) =>
      time.provider === "noble" && time.bytes === bytes
    );
    const ratio = noble === undefined ? NaN : noble.seal / seal;
    console.log(
      provider.padEnd(14) + String(bytes).padStart(6) +
        seal.toFixed(0).padStart(9) + open.toFixed(0).padStart(9) +
        (bytes / seal * 1000).toFixed(0).padStart(11) +
        ratio.toFixed(1).padStart(14),
    );
  }
}

function printParts(results: readonly Result[]): void {
  for (const { name, bytes, ns } of results) {
    const size = bytes > 0 ? `${bytes} B` : "";
    const rate = bytes > 0 ? `${(bytes / ns * 1000).toFixed(0)} MB/s` : "";
    console.log(
      name.padEnd(24) + size.padStart(8) + `${ns.toFixed(0)} ns`.padStart(14) +
        rate.padStart(14),
    );
  }
}

if (import.meta.main) {
  const aeads = benchAeads();
  const trial = benchTrial();
  const parts = benchParts();
  if (Deno.args.includes("--json")) {
    console.log(JSON.stringify({ aeads, trial, parts }, null, 2));
  } else {
    printAeads(aeads);
    console.log(
      trial === null
        ? `auto: ${chooseAead("auto").name}, ${chooseAead("auto").reason}`
        : `auto: ${trial.name} after ${trial.packets} full packets, ${
          trial.ms.toFixed(0)
        } ms`,
    );
    printParts(parts);
  }
}
