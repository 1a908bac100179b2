/**
 * The AEAD that tries two on live packets: how it splits chains, when it settles
 * and for what, on providers and a clock of the test.
 *
 * @module
 */

import { assert, assertEquals } from "@std/assert";
import {
  type Aead,
  AEAD_WORK_BYTES,
  createNobleAead,
  createWasmAead,
  FULL_BYTES,
  TrialAead,
} from "../lib/crypto/mod.ts";
import {
  Arena,
  DESCRIPTOR_BYTES,
  FAST_PROVIDERS,
  Random,
  testProvider,
} from "./crypto_helpers.ts";

const DESC = 2048;
const CHAIN = 16;

/** One call of a provider, as "open 2+3": descriptors 2, 3 and 4. */
interface Call {
  aead: string;
  what: string;
}

/** A trial whose providers only note their calls and take `cost` each packet. */
class Lab {
  readonly arena = new Arena(1);
  readonly calls: Call[] = [];
  readonly closed: string[] = [];
  readonly trial: TrialAead;
  #now = 0;

  constructor(cost: { first: number; second: number }) {
    const aead = (name: keyof typeof cost): Aead => {
      const call = (operation: string) => (desc: number, n: number): void => {
        const what = `${operation} ${(desc - DESC) / DESCRIPTOR_BYTES}+${n}`;
        this.calls.push({ aead: name, what });
        this.#now += cost[name] * n;
      };
      return {
        name,
        seal: call("seal"),
        open: call("open"),
        close: () => void this.closed.push(name),
      };
    };
    const now = (): number => this.#now;
    const { memory } = this.arena;
    this.trial = new TrialAead(memory, aead("first"), aead("second"), now);
  }

  /** Writes descriptors of packets of these lengths. */
  chain(lengths: number[]): number {
    lengths.forEach((length, i) =>
      this.arena.describe(DESC + i * DESCRIPTOR_BYTES, {
        data: 16,
        length,
        key: 0,
      })
    );
    return lengths.length;
  }

  /** Seals chains of full packets until the trial is over; how many packets. */
  settle(chain = CHAIN): number {
    const n = this.chain(Array<number>(chain).fill(FULL_BYTES));
    let packets = 0;
    while (!this.trial.settled) {
      assert(packets < 1e6, "the trial ends");
      this.trial.seal(DESC, n);
      packets += n;
    }
    return packets;
  }

  /** The calls since the last look. */
  take(): Call[] {
    return this.calls.splice(0);
  }
}

Deno.test("a trial leaves everything to the first AEAD until that is warm", () => {
  const lab = new Lab({ first: 10, second: 1 });
  const n = lab.chain(Array<number>(CHAIN).fill(FULL_BYTES));
  for (let i = 0; i < 4096 / CHAIN; i++) lab.trial.seal(DESC, n);
  assertEquals(lab.take().filter(({ aead }) => aead !== "first"), []);
  for (let i = 0; i < 4; i++) lab.trial.seal(DESC, n);
  const turns = lab.take().map(({ aead }) => aead);
  assertEquals(turns, ["first", "second", "first", "second"]);
});

Deno.test("seal and open take turns of their own in a trial", () => {
  const lab = new Lab({ first: 10, second: 1 });
  const n = lab.chain(Array<number>(CHAIN).fill(FULL_BYTES));
  for (let i = 0; i < 4096 / CHAIN; i++) lab.trial.open(DESC, n);
  lab.take();
  for (let i = 0; i < 4; i++) {
    lab.trial.seal(DESC, n);
    lab.trial.open(DESC, n);
  }
  const turns = (operation: string): string[] =>
    lab.calls.filter(({ what }) => what.startsWith(operation))
      .map(({ aead }) => aead);
  assertEquals(turns("seal"), ["first", "second", "first", "second"]);
  assertEquals(turns("open"), ["first", "second", "first", "second"]);
});

Deno.test("a trial is won by a margin, and then splits chains by length", () => {
  const lab = new Lab({ first: 10, second: 8.9 });
  assert(lab.settle() < 10_000);
  assertEquals(lab.trial.name, "first+second");
  assertEquals(lab.closed, []);
  lab.take();
  const [small, full] = [FULL_BYTES - 1, FULL_BYTES];
  const n = lab.chain([full, full, small, 0, 1420, small, full]);
  lab.trial.seal(DESC, n);
  assertEquals(lab.take(), [
    { aead: "second", what: "seal 0+2" },
    { aead: "first", what: "seal 2+2" },
    { aead: "second", what: "seal 4+1" },
    { aead: "first", what: "seal 5+1" },
    { aead: "second", what: "seal 6+1" },
  ]);
  lab.trial.open(DESC + DESCRIPTOR_BYTES, 2);
  assertEquals(lab.take(), [
    { aead: "second", what: "open 1+1" },
    { aead: "first", what: "open 2+1" },
  ]);
  lab.trial.open(DESC, 0);
  assertEquals(lab.take(), []);
  lab.trial.close();
  assertEquals(lab.closed, ["first", "second"]);
});

Deno.test("a trial that the second does not win ends, and closes it once", () => {
  for (const second of [9.1, 10, 30]) {
    const lab = new Lab({ first: 10, second });
    assertEquals(lab.settle(), 262_144);
    assertEquals(lab.trial.name, "first");
    assertEquals(lab.closed, ["second"]);
    lab.take();
    lab.trial.seal(DESC, lab.chain([FULL_BYTES, 0, FULL_BYTES]));
    assertEquals(lab.take(), [{ aead: "first", what: "seal 0+3" }]);
    lab.trial.close();
    assertEquals(lab.closed, ["second", "first"]);
  }
});

Deno.test("runs that are too short to time decide nothing", () => {
  const lab = new Lab({ first: 10, second: 1 });
  lab.settle(3);
  assertEquals(lab.trial.name, "first");
});

Deno.test("small packets start no trial", () => {
  const lab = new Lab({ first: 10, second: 1 });
  const n = lab.chain(Array<number>(CHAIN).fill(FULL_BYTES - 1));
  for (let i = 0; i < 20_000; i++) lab.trial.seal(DESC, n);
  assert(!lab.trial.settled);
  assertEquals(new Set(lab.take().map(({ aead }) => aead)), new Set(["first"]));
});

const [libcrypto] = FAST_PROVIDERS.filter(({ name }) => name === "libcrypto");

testProvider(
  libcrypto,
  "and wasm agree with noble before, in and after a trial",
  () => {
    const random = new Random();
    const [mixed, noble] = [new Arena(2), new Arena(2)];
    const keys = 1024;
    const data = 8192;
    const stride = 1600;
    for (let at = keys; at < keys + 128; at++) {
      mixed.bytes[at] = random.below(256);
    }
    // A clock that goes while the first works, so that the second wins.
    let now = 0;
    const { seal, open } = createWasmAead(mixed.memory, 0);
    const first: Aead = {
      name: "wasm",
      seal: (desc, n) => (now += n, seal(desc, n)),
      open: (desc, n) => (now += n, open(desc, n)),
    };
    const second = libcrypto.create(mixed.memory, 0);
    const trial = new TrialAead(mixed.memory, first, second, () => now);
    const reference = createNobleAead(noble.memory);
    let settledAt = Infinity;
    for (let chain = 0; chain < settledAt + 50; chain++) {
      assert(chain < 2000, "the trial ends");
      for (let i = 0; i < CHAIN; i++) {
        const at = data + i * stride;
        // One packet in 20 is small or just short of full.
        const length = random.below(20) === 0
          ? [random.below(200), FULL_BYTES - 1][random.below(2)]
          : FULL_BYTES + random.below(480);
        mixed.describe(DESC + i * DESCRIPTOR_BYTES, {
          data: at,
          length,
          key: keys + 32 * random.below(4),
          receiver: random.below(2 ** 32),
          counter: BigInt(random.below(2 ** 32)) << BigInt(random.below(33)),
        });
      }
      noble.bytes.set(mixed.bytes);
      noble.bytes.fill(0, 0, AEAD_WORK_BYTES);
      trial.seal(DESC, CHAIN);
      reference.seal(DESC, CHAIN);
      const same = (): boolean =>
        mixed.bytes.every((byte, i) => byte === noble.bytes[i]);
      assert(chain % 20 !== 0 && !trial.settled || same(), `seal of ${chain}`);
      const flipped = data + random.below(CHAIN) * stride;
      mixed.bytes[flipped] ^= 1;
      noble.bytes[flipped] ^= 1;
      trial.open(DESC, CHAIN);
      reference.open(DESC, CHAIN);
      assert(chain % 20 !== 0 && !trial.settled || same(), `open of ${chain}`);
      if (trial.settled && settledAt === Infinity) settledAt = chain;
    }
    assertEquals(trial.name, "wasm+libcrypto");
    trial.close();
  },
);
