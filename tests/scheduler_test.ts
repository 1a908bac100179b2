/** The scheduler of the interleaving tests: exhaustive, and finds what is wrong. */
import { assertEquals, assertThrows } from "@std/assert";
import { explore, scheduledWords, type Thread } from "./scheduler.ts";

/** A thread of one operation. */
function once(name: string, run: () => void): Thread<number> {
  return {
    name,
    start: 0,
    operation(): number {
      run();
      return 1;
    },
    done: (operations) => operations === 1,
  };
}

/** A thread that stores 1, 2, … `steps` to a word of its own. */
function counts(word: number, steps: number): Thread<number> {
  return once(`counts ${word}`, () => {
    for (let i = 1; i <= steps; i++) Atomics.store(scheduledWords, word, i);
  });
}

Deno.test("independent threads have as many interleavings as there are shuffles", () => {
  for (
    const { steps, expected } of [
      { steps: [3, 4], expected: 35 },
      { steps: [5], expected: 1 },
      { steps: [2, 2, 2], expected: 90 },
      { steps: [9, 9], expected: 48_620 },
    ]
  ) {
    const threads = steps.map((count, word) => counts(word, count));
    const explored = explore({ threads, end: () => {} });
    assertEquals(explored.interleavings, expected);
    const states = steps.reduce((product, count) => product * (count + 1), 1);
    assertEquals(explored.states, states);
  }
});

Deno.test("plain accesses are steps, and a lost addition is found", () => {
  const ends = new Set<number>();
  const adds = (name: string): Thread<number> =>
    once(name, () => {
      scheduledWords[7] = scheduledWords[7] + 1;
    });
  const { interleavings } = explore({
    threads: [adds("a"), adds("b")],
    end: (view) => ends.add(view.word(7)),
  });
  assertEquals(interleavings, 6);
  assertEquals([...ends].sort(), [1, 2]);
});

Deno.test("each atomic operation gives and leaves what it shall", () => {
  const expected = new Int32Array(new SharedArrayBuffer(4));
  const work = (words: Int32Array<SharedArrayBuffer>): number[] => [
    Atomics.store(words, 0, 5),
    Atomics.add(words, 0, 0x7fff_ffff),
    Atomics.sub(words, 0, 3),
    Atomics.or(words, 0, 12),
    Atomics.and(words, 0, -2),
    Atomics.exchange(words, 0, 9),
    Atomics.compareExchange(words, 0, 8, 1),
    Atomics.compareExchange(words, 0, 9, 2),
    Atomics.load(words, 0),
  ];
  const results = work(expected);
  explore({
    threads: [once("all", () => assertEquals(work(scheduledWords), results))],
    end: (view) => assertEquals(view.word(0), expected[0]),
  });
});

Deno.test("a thread sleeps until it is notified, not until the word changes", () => {
  const slept: boolean[] = [];
  explore({
    threads: [
      once("sleeper", () => Atomics.wait(scheduledWords, 0, 0)),
      once("other", () => Atomics.store(scheduledWords, 0, 1)),
    ],
    end: (view) => slept.push(view.sleeps(0)),
  });
  assertEquals(slept, [true, false]);
  explore({
    threads: [
      once("sleeper", () => Atomics.wait(scheduledWords, 0, 0)),
      once("other", () => {
        Atomics.store(scheduledWords, 0, 1);
        Atomics.notify(scheduledWords, 0);
      }),
    ],
    end: (view) => assertEquals(view.ended(0), true),
  });
});

Deno.test("one notification wakes one sleeper", () => {
  const sleeps = (name: string): Thread<number> =>
    once(name, () => Atomics.wait(scheduledWords, 0, 0));
  const ends = new Set<string>();
  explore({
    threads: [
      sleeps("a"),
      sleeps("b"),
      once("waker", () => Atomics.notify(scheduledWords, 0, 1)),
    ],
    end: (view) => ends.add([0, 1].map((i) => view.sleeps(i)).join()),
  });
  assertEquals([...ends].sort(), ["false,true", "true,false", "true,true"]);
});

Deno.test("a failed check comes with the steps that led to it", () => {
  const error = assertThrows(
    () =>
      explore({
        threads: [counts(1, 2)],
        check(view): number {
          if (view.word(1) === 2) throw new Error("two");
          return 0;
        },
        end: () => {},
      }),
    Error,
    "two",
  );
  assertEquals(error.message.split("\n"), [
    "two",
    "counts 1: store [1] -> 1",
    "counts 1: store [1] -> 2",
  ]);
});

Deno.test("outside of a scenario the words cannot be used, and Atomics work", () => {
  assertThrows(() => scheduledWords[0], Error, "outside");
  const words = new Int32Array(new SharedArrayBuffer(4));
  Atomics.add(words, 0, 2);
  assertEquals(words[0], 2);
});
