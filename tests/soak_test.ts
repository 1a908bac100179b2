/**
 * A short soak (`deno task soak` runs a year), and faults that are made on
 * purpose, each of which it must see. WGD_SOAK_SEED and WGD_SOAK_DAYS make it
 * another or a longer one.
 *
 * @module
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Pool } from "../lib/arena.ts";
import { KEYPAIR, PEER } from "../lib/records.ts";
import { Soak, SoakError } from "./soak/soak_run.ts";
import type { Sabotage, Side, World } from "./soak/world.ts";

const SEED = Number(Deno.env.get("WGD_SOAK_SEED") ?? 20_261_123);
const DAYS = Number(Deno.env.get("WGD_SOAK_DAYS") ?? 5);
/** Days within which a fault made on purpose is seen. */
const SEEN_WITHIN = 20;

Deno.test(`${DAYS} days of three devices, whatever happens to them (seed ${SEED})`, () => {
  const { packets, delivered, counts } = new Soak(SEED).run(DAYS);
  assert(packets > 1_000 && delivered > packets / 4, `${delivered} delivered`);
  assert(counts["sent responses"] > 50 && counts["wire: replayed"] > 50);
});

Deno.test("a soak is the same again with its seed, and another with another", () => {
  const [first, again, other] = [1, 1, 2].map((seed) =>
    new Soak(seed).run(0.2)
  );
  assertEquals(again, first);
  assert(other.digest !== first.digest);
});

/** Words of all keypairs in the slots of a world's devices. */
function* keypairs(
  { sides }: World,
): Generator<{ side: Side; word: number }> {
  for (const side of sides) {
    const { arena } = side.device;
    for (const peer of side.peers) {
      if (peer === 0) continue;
      for (const slot of [PEER.CURRENT, PEER.PREVIOUS, PEER.NEXT]) {
        const keypair = arena.i32[arena.peer(peer) + slot];
        if (keypair !== 0) yield { side, word: arena.keypair(keypair) };
      }
    }
  }
}

/** Alters each hundredth packet. */
function each100(alter: (packet: Uint8Array) => Uint8Array[]): Sabotage {
  let n = 0;
  return {
    delivered: (_side, packet) => ++n % 100 === 0 ? alter(packet) : [packet],
  };
}

const SABOTAGE: Readonly<Record<string, [RegExp, () => Sabotage]>> = {
  "a device that forgets which nonces it received": [
    /came a second time/,
    () => ({
      step: (world) => {
        for (const { side, word } of keypairs(world)) {
          const { u32 } = side.device.arena;
          u32.fill(0, word + KEYPAIR.REPLAY_BITMAP, word + KEYPAIR.WORDS);
          u32.fill(
            0,
            word + KEYPAIR.RECEIVE_COUNTER_LO,
            word + KEYPAIR.CONFIRMED,
          );
        }
      },
    }),
  ],
  "a device that sends with a nonce again": [
    /used nonce \d+ after/,
    () => ({
      step: (world) => {
        for (const { side, word } of keypairs(world)) {
          const { u32 } = side.device.arena;
          if (u32[word + KEYPAIR.SEND_COUNTER_LO] % 50 === 49) {
            u32[word + KEYPAIR.SEND_COUNTER_LO] -= 1;
          }
        }
      },
    }),
  ],
  "a device whose keys do not grow old": [
    /(sealed|opened) with a key 1\d\d(\.\d+)? s old/,
    () => ({
      step: (world) => {
        for (const { side, word } of keypairs(world)) {
          const { arena } = side.device;
          arena.setF64(word + KEYPAIR.BIRTH_F64, world.nowMs);
        }
      },
    }),
  ],
  "a device that delivers twice": [
    /came a second time/,
    () => each100((packet) => [packet, packet]),
  ],
  "a device that alters packets": [
    /altered/,
    () =>
      each100((packet) => {
        const changed = packet.slice();
        changed[packet.length - 1] ^= 1;
        return [changed];
      }),
  ],
  "a device that gives packets to the wrong one": [
    /was for another/,
    () => {
      let other: Uint8Array | undefined;
      return {
        delivered: ({ index }, packet) => {
          if (index === 1) other = packet;
          return index === 2 && other !== undefined ? [other] : [packet];
        },
      };
    },
  ],
  "a keypair that nobody gives back": [
    /has left: keypairs 1/,
    () => {
      const alloc = Pool.prototype.alloc;
      let n = 0;
      return {
        // What is taken besides, now and then, is never freed.
        step: ({ sides }) => {
          if (++n !== 500) return;
          Pool.prototype.alloc = function (): number {
            Pool.prototype.alloc = alloc;
            alloc.call(this);
            return alloc.call(this);
          };
          sides[0].device.control.suspended();
        },
      };
    },
  ],
  "a path that stays broken": [
    /nothing passes from/,
    () => {
      let n = 0;
      return {
        loses: ({ from, to }) => from < to && ++n > 500,
      };
    },
  ],
};

for (const [what, [message, make]] of Object.entries(SABOTAGE)) {
  Deno.test(`a soak sees ${what}`, () => {
    const soak = new Soak(SEED, make());
    const error = assertThrows(() => soak.run(SEEN_WITHIN), SoakError);
    assert(message.test(error.message), error.message);
    assert(error.message.includes(`--seed ${SEED}`));
  });
}
