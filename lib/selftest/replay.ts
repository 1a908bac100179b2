/**
 * Self-test of the replay window: the sequences of the kernel's
 * `selftest/counter.c`, which try each edge of the window and of the counter.
 *
 * @module
 */
import { Arena } from "../arena.ts";
import { bug } from "../assert.ts";
import { COUNTER_WINDOW_SIZE, REJECT_AFTER_MESSAGES } from "../messages.ts";
import { KEYPAIR } from "../records.ts";
import { counterValidate } from "../replay.ts";

/** One past the window. */
const LIM = BigInt(COUNTER_WINDOW_SIZE) + 1n;
const REJECT = REJECT_AFTER_MESSAGES;

/** Counters in turn, and whether each shall be accepted. */
const EDGES: readonly (readonly [bigint, boolean])[] = [
  [0n, true],
  [1n, true],
  [1n, false],
  [9n, true],
  [8n, true],
  [7n, true],
  [7n, false],
  [LIM, true],
  [LIM - 1n, true],
  [LIM - 1n, false],
  [LIM - 2n, true],
  [2n, true],
  [2n, false],
  [LIM + 16n, true],
  [3n, false],
  [LIM + 16n, false],
  [LIM * 4n, true],
  [LIM * 4n - (LIM - 1n), true],
  [10n, false],
  [LIM * 4n - LIM, false],
  [LIM * 4n - (LIM + 1n), false],
  [LIM * 4n - (LIM - 2n), true],
  [LIM * 4n + 1n - LIM, false],
  [0n, false],
  [REJECT, false],
  [REJECT - 1n, true],
  [REJECT, false],
  [REJECT - 1n, false],
  [REJECT - 2n, true],
  [REJECT + 1n, false],
  [REJECT + 2n, false],
  [REJECT - 2n, false],
  [REJECT - 3n, true],
  [0n, false],
];

/** Runs the self-test; throws if it fails. */
export function replaySelftest(): void {
  const arena = new Arena({
    peers: 1,
    allowedIpNodes: 1,
    sessions: 1,
    txSlots: 1,
  });
  const word = arena.keypair(1);
  const expect = (counter: bigint, accepted: boolean): void => {
    const lo = Number(counter & 0xffff_ffffn);
    const hi = Number(counter >> 32n);
    bug(
      counterValidate(arena, word, lo, hi) === accepted,
      `counter ${counter} is ${accepted ? "accepted" : "refused"}`,
    );
  };
  const ascending = (from: bigint, to: bigint): void => {
    for (let counter = from; counter <= to; counter++) expect(counter, true);
  };
  const descending = (from: bigint, to: bigint): void => {
    for (let counter = from; counter >= to; counter--) expect(counter, true);
  };
  const onFreshWindow = (run: () => void): void => {
    arena.zero(word, KEYPAIR.WORDS);
    run();
  };

  onFreshWindow(() => {
    for (const [counter, accepted] of EDGES) expect(counter, accepted);
  });
  onFreshWindow(() => {
    ascending(1n, LIM - 1n);
    expect(0n, true);
    expect(0n, false);
  });
  onFreshWindow(() => {
    ascending(2n, LIM);
    expect(1n, true);
    expect(0n, false);
  });
  onFreshWindow(() => descending(LIM - 1n, 0n));
  onFreshWindow(() => {
    descending(LIM, 1n);
    expect(0n, false);
  });
  onFreshWindow(() => {
    descending(LIM - 1n, 1n);
    expect(LIM, true);
    expect(0n, false);
  });
  onFreshWindow(() => {
    descending(LIM - 1n, 1n);
    expect(0n, true);
    expect(LIM, true);
  });
}
