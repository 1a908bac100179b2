/**
 * The runner that stands in for `deno test` in the suite's file: what it runs,
 * what it counts, and that .ci/run understands its closing line.
 */
import { assert, assertEquals, assertMatch, assertThrows } from "@std/assert";
import { Runner } from "./suite/runner.ts";

const CI = new URL("../.ci/run", import.meta.url);

interface Ran {
  readonly runner: Runner;
  readonly said: string;
  readonly ran: string[];
}

/** Runs one file of tests. */
async function runFile(
  declare: (runner: Runner, note: (name: string) => () => void) => unknown,
  filter?: string,
): Promise<Ran> {
  let said = "";
  const ran: string[] = [];
  const runner = new Runner({ filter, say: (text) => void (said += text) });
  const note = (name: string) => (): void => void ran.push(name);
  await runner.runFile("x_test.ts", async () => await declare(runner, note));
  return { runner, said: said + runner.summary(), ran };
}

/** What .ci/run takes from a closing line: passed, failed, ignored. */
function counted(said: string): number[] {
  const [, expression] =
    /sed -nE 's\/(.*)\/\\2 \\3 0\\5\/p'/.exec(Deno.readTextFileSync(CI)) ?? [];
  assert(expression !== undefined, "the expression of .ci/run");
  const found = said.split("\n").map((line) => line.match(expression))
    .filter((match) => match !== null);
  assertEquals(found.length, 1, said);
  const [, , passed, failed, , ignored] = found[0];
  return [passed, failed, ignored ?? 0].map(Number);
}

Deno.test("tests run in order, and are counted as .ci/run counts", async () => {
  const { runner, said, ran } = await runFile((runner, note) => {
    runner.declare("one", note("one"));
    runner.declare({ name: "two", ignore: true, fn: note("two") });
    runner.declare({ name: "three", fn: async () => await note("three")() });
  });
  assertEquals(ran, ["one", "three"]);
  assertEquals(counted(said), [2, 0, 1]);
  assert(runner.ok);
  assertMatch(
    said,
    /^running 3 tests from x_test\.ts\none \.\.\. ok \(\d+ms\)$/m,
  );
  assertMatch(said, /^two \.\.\. ignored$/m);
  assertMatch(said, /^ok \| 2 passed \| 0 failed \| 1 ignored \(\d+ms\)$/m);
});

Deno.test("a test that fails in any way does not keep the next from running", async () => {
  const { runner, said, ran } = await runFile((runner, note) => {
    runner.declare("throws", () => {
      throw new Error("this is why");
    });
    runner.declare("rejects", () => Promise.reject(new Error("that is why")));
    runner.declare("fails unseen", () => runner.uncaught(new Error("unseen")));
    runner.declare("passes", note("passes"));
  });
  assertEquals(ran, ["passes"]);
  assertEquals(counted(said), [1, 3, 0]);
  assert(!runner.ok);
  assertMatch(said, /^FAILED \| 1 passed \| 3 failed \(\d+ms\)$/m);
  for (
    const why of ["this is why", "that is why", "(uncaught) Error: unseen"]
  ) {
    assert(said.includes(why), said);
  }
  assertMatch(said, /^ FAILURES\n\nthrows => x_test\.ts\nrejects => /m);
});

Deno.test("a file that cannot be loaded fails, and so does an empty run", async () => {
  const broken = await runFile(() => Promise.reject(new Error("broken")));
  assertEquals(counted(broken.said), [0, 1, 0]);
  assert(broken.said.includes("Error: broken"));
  assert(!broken.runner.ok);
  const empty = await runFile(() => {});
  assertEquals(counted(empty.said), [0, 0, 0]);
  assert(!empty.runner.ok);
});

Deno.test("a filter is a part of a name, or an expression", async () => {
  const names = ["one", "two", "three"];
  const run = (filter: string): Promise<Ran> =>
    runFile((runner, note) => {
      for (const name of names) runner.declare(name, note(name));
    }, filter);
  assertEquals((await run("t")).ran, ["two", "three"]);
  const { ran, said } = await run("/^t.*e$/");
  assertEquals(ran, ["three"]);
  assertMatch(said, /^ok \| 1 passed \| 0 failed \| 2 filtered out \(/m);
  assertEquals(counted(said), [1, 0, 0]);
});

Deno.test("a form of Deno.test that the runner does not know is refused", () => {
  const runner = new Runner({ say: () => {} });
  const unknown: unknown[][] = [
    ["name"],
    [() => {}],
    ["name", {}, () => {}],
    ["with steps", (_t: Deno.TestContext) => {}],
  ];
  for (const [first, second] of unknown) {
    assertThrows(() => runner.declare(first, second), TypeError);
  }
});
