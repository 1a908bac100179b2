/** SIGTERM in the middle of everything: a few rounds of `deno task sigterm`. */
import { assert, assertEquals } from "@std/assert";
import { labTest } from "./harness.ts";
import type { Outcome } from "./sigterm_round.ts";
import { playRounds } from "./sigterm_sides.ts";

const ROUNDS = 24;

labTest(
  `SIGTERM at ${ROUNDS} random moments ends daemons and commands, and leaves nothing`,
  { joined: false, programs: ["nft"] },
  async () => {
    const seed = crypto.getRandomValues(new Uint32Array(1))[0];
    const outcomes: Outcome[] = [];
    await playRounds({
      rounds: ROUNDS,
      seed,
      atOnce: 2,
      tell: (outcome) => outcomes.push(outcome),
    });
    assertEquals(outcomes.length, ROUNDS);
    const found = outcomes.filter(({ findings }) => findings.length > 0);
    assertEquals(found, [], `seed ${seed}`);
    assert(new Set(outcomes.map(({ phase }) => phase)).size > 1);
  },
);
