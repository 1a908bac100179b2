/**
 * A script of updates of the allowed IPs that ends where it began, and the right
 * answers in each of its states: what the concurrent tests play.
 */
import { assert } from "@std/assert";
import type { AllowedIps } from "../lib/allowedips.ts";
import type { Grace } from "../lib/epoch.ts";
import { LinearList, type Prefix } from "../lib/selftest/linear_list.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

/** One update of the script that the concurrent test repeats. */
export type Update = Prefix & { readonly kind: "insert" | "remove" };

const CHAIN_PEERS = 256;
/** Owners of single addresses: from here on. */
const HOST_PEERS = 400;
/** Updates of a script, at least. */
export const UPDATES = 900;

/** An address, then others that share ever more of its prefix. */
function nest(bytes: number, random: SeededRandom): Uint8Array[] {
  const main = random.fill(new Uint8Array(bytes));
  const addresses = [main];
  for (let bit = 3; bit < 8 * bytes; bit += bytes) {
    addresses.push(flip(main, bit));
  }
  return addresses;
}

function flip(address: Uint8Array, bit: number): Uint8Array {
  const flipped = address.slice();
  flipped[bit >> 3] ^= 128 >> (bit & 7);
  return flipped;
}

/**
 * Updates that begin and end with an empty table. A sibling at each second
 * bit of the main address makes the way to it long, over nodes that come and go
 * with their prefix and nodes that stay; on it, few prefixes come,
 * go and change hands, so that an old owner met above and a removal missed below
 * give an answer that was never right. Single addresses come, go and change hands
 * as well.
 */
function script(
  addresses: readonly Uint8Array[],
  random: SeededRandom,
): Update[] {
  const [main] = addresses;
  const bits = 8 * main.length;
  const updates: Update[] = [];
  const list = new LinearList();
  const add = (update: Update): void => {
    updates.push(update);
    const { kind, address, cidr, peer } = update;
    if (kind === "insert") list.insert(address, cidr, peer);
    else assert(list.remove(address, cidr, peer));
  };
  const sibling = (bit: number): Prefix => ({
    address: flip(main, bit),
    cidr: bit + 1,
    peer: CHAIN_PEERS + bit,
  });
  const changeHost = (): void => {
    const address = addresses[random.below(addresses.length)];
    const there = list.prefixes.find((one) =>
      one.cidr === bits && one.peer >= HOST_PEERS &&
      one.address.every((byte, i) => byte === address[i])
    );
    const peer = HOST_PEERS + random.below(100);
    if (there && random.below(2) === 0) add({ ...there, kind: "remove" });
    else add({ kind: "insert", address, cidr: bits, peer });
  };
  for (let bit = 0; bit < bits; bit += 2) {
    add({ kind: "insert", ...sibling(bit) });
  }
  while (updates.length < UPDATES) {
    const chain = list.prefixes.filter(({ peer }) => peer < CHAIN_PEERS);
    const some = chain[random.below(chain.length)];
    const peer = 1 + random.below(CHAIN_PEERS - 1);
    const kind = random.below(14);
    if (kind >= 10) changeHost();
    else if (kind < 2) {
      const bit = 2 * random.below(bits / 2);
      const prefix = sibling(bit);
      const there = list.prefixes.some((one) => one.peer === prefix.peer);
      add({ kind: there ? "remove" : "insert", ...prefix });
    } else if (kind < 5 && some) {
      add({ ...some, kind: "insert", peer });
    } else if (chain.length > 2) {
      add({ ...some, kind: "remove" });
    } else {
      const cidr = random.below(bits + 1);
      add({ kind: "insert", address: main, cidr, peer });
    }
  }
  while (list.prefixes.length > 0) {
    const some = list.prefixes[random.below(list.prefixes.length)];
    add({ kind: "remove", ...some });
  }
  return updates;
}

/** Owner of each address in each state. */
function answersOf(
  updates: readonly Update[],
  addresses: readonly Uint8Array[],
): Int32Array<SharedArrayBuffer> {
  const answers = new Int32Array(
    new SharedArrayBuffer(4 * updates.length * addresses.length),
  );
  const list = new LinearList();
  for (const [state, { kind, address, cidr, peer }] of updates.entries()) {
    for (const [i, wanted] of addresses.entries()) {
      answers[state * addresses.length + i] = list.lookup(wanted);
    }
    if (kind === "insert") list.insert(address, cidr, peer);
    else list.remove(address, cidr, peer);
  }
  return answers;
}

/** Plays the script over and over. */
export class Player {
  readonly updates: readonly Update[];
  /** The first has all prefixes nested around it. */
  readonly addresses: readonly Uint8Array[];
  /** Owner of address `i` in state `k`: element `k * addresses.length + i`. */
  readonly answers: Int32Array<SharedArrayBuffer>;
  readonly #table: AllowedIps;
  readonly #grace: Grace;
  #count = 0;

  constructor(bytes: number, table: AllowedIps, grace: Grace) {
    const random = new SeededRandom(bytes);
    this.addresses = nest(bytes, random);
    this.updates = script(this.addresses, random);
    this.answers = answersOf(this.updates, this.addresses);
    this.#table = table;
    this.#grace = grace;
  }

  /** Makes the next update; `onStart` and `onEnd` are told how many there were. */
  step(
    onStart?: (count: number) => void,
    onEnd?: (count: number) => void,
  ): void {
    const update = this.updates[this.#count % this.updates.length];
    const { kind, address, cidr, peer } = update;
    this.#count++;
    onStart?.(this.#count);
    if (kind === "remove") {
      assert(this.#table.remove(address, cidr, peer));
    } else {
      // Readers leave their epochs all the time, so this ends.
      while (!this.#table.insert(address, cidr, peer)) this.#grace.collect();
    }
    onEnd?.(this.#count);
    this.#grace.collect();
  }

  /** Fails unless `owner` was right in a state from `from` updates to `to`. */
  expect(i: number, owner: number, from: number, to: number): void {
    const count = this.addresses.length;
    for (let state = from; state <= to; state++) {
      const at = state % this.updates.length * count + i;
      if (this.answers[at] === owner) return;
    }
    throw new Error(`address ${i}: ${owner} from update ${from} to ${to}`);
  }
}
