/** How plans are run and undone, and commands started. */
import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { hookCommand } from "../lib/quick_plan.ts";
import {
  findProgram,
  isAlreadyGone,
  PlanRun,
  Runner,
  StepError,
  undoAll,
} from "../lib/quick_run.ts";
import type { Command, Step } from "../lib/quick_step.ts";

/** A step that wgd does itself, so that tests see it. */
function ownStep(word: string, more: Partial<Step> = {}): Step {
  const own = (argument: string): Command => ({
    argv: ["wgd", "do", argument],
    own: true,
  });
  return { slot: word, do: own(word), undo: [own(`un${word}`)], ...more };
}

/** A runner that notes what it does, and fails at some words. */
function fakeRunner(fails: readonly string[] = []): {
  runner: Runner;
  done: string[];
} {
  const done: string[] = [];
  const act = (argv: readonly string[]): Promise<void> => {
    done.push(argv[2]);
    return fails.includes(argv[2])
      ? Promise.reject(new StepError(argv, "made to fail"))
      : Promise.resolve();
  };
  return { runner: new Runner({ say: () => {}, own: { do: act } }), done };
}

Deno.test("a failure at any step undoes those before it, in reverse", async () => {
  const words = ["a", "b", "c", "d"];
  for (const [i, failing] of words.entries()) {
    const { runner, done } = fakeRunner([failing]);
    const run = new PlanRun(runner);
    const steps = words.map((word) => ownStep(word));
    await assertRejects(() => run.run(steps), StepError, "made to fail");
    assertEquals(await run.unwind(), []);
    const undone = words.slice(0, i).toReversed().map((word) => `un${word}`);
    assertEquals(done, [...words.slice(0, i + 1), ...undone]);
  }
});

Deno.test("a step that may be half done is undone, too; what goes with the interface is not", async () => {
  const { runner, done } = fakeRunner(["b"]);
  const run = new PlanRun(runner);
  const steps = [
    ownStep("x"),
    ownStep("a", { linked: true }),
    ownStep("b", { half: true }),
  ];
  await assertRejects(() => run.run(steps), StepError);
  await run.unwind();
  assertEquals(done, ["x", "a", "b", "unb", "unx"]);
});

Deno.test("a command that a signal ended when its work was done is undone", async () => {
  const file = Deno.makeTempFileSync();
  const run = new PlanRun(new Runner({ say: () => {} }));
  const step: Step = {
    slot: "file",
    do: { argv: ["sh", "-c", `echo done > ${file}; kill -TERM $$`] },
    undo: [{ argv: ["rm", file] }],
  };
  await assertRejects(() => run.run([step]), StepError, "ended by SIGTERM");
  assertEquals(Deno.readTextFileSync(file), "done\n");
  assertEquals(await run.unwind(), []);
  assertThrows(() => Deno.statSync(file), Deno.errors.NotFound);
});

Deno.test("undoing goes on after a failure and tells all of them", async () => {
  const { runner, done } = fakeRunner(["unb", "una"]);
  const run = new PlanRun(runner);
  await run.run(["a", "b", "c"].map((word) => ownStep(word)));
  const problems = await run.unwind();
  assertEquals(done.slice(3), ["unc", "unb", "una"]);
  assertEquals(problems, [
    "wgd do unb: made to fail",
    "wgd do una: made to fail",
  ]);
});

Deno.test("each step is noted before it runs", async () => {
  const noted: string[] = [];
  const { runner } = fakeRunner(["b"]);
  const run = new PlanRun(
    runner,
    (steps) => noted.push(steps.map(({ slot }) => slot).join()),
  );
  await assertRejects(() => run.run([ownStep("a"), ownStep("b")]), StepError);
  assertEquals(noted, ["a", "a,b"]);
});

Deno.test("after an interrupt no step is begun", async () => {
  const { runner, done } = fakeRunner();
  runner.interrupt("SIGINT");
  const run = new PlanRun(runner);
  await assertRejects(() => run.run([ownStep("a")]), StepError, "interrupted");
  assertEquals(done, []);
});

Deno.test("commands run without a shell, with their input, and tell why they fail", async () => {
  const said: string[] = [];
  const runner = new Runner({ say: (line) => said.push(line) });
  await runner.run({ argv: ["test", "$HOME;x", "=", "$HOME;x"] });
  await runner.run({ argv: ["grep", "-q", "^two$"], stdin: "one\ntwo\n" });
  assertEquals(said, ["[#] test $HOME;x = $HOME;x", "[#] grep -q ^two$"]);
  const failing = { argv: ["ls", "/nonexistent"] };
  await assertRejects(() => runner.run(failing), StepError, "No such file");
  const absent = { argv: ["no-such-program-here", "x"] };
  await assertRejects(() => runner.run(absent), StepError, "is not installed");
  assertEquals(findProgram("no-such-program-here"), undefined);
  const hook = hookCommand("exit 3", "wg0", "sh");
  await assertRejects(() => runner.run(hook), StepError, "exit 3: exit 3");
});

Deno.test("a command whose children hold its stderr does not hold up the plan", async () => {
  const said: string[] = [];
  const runner = new Runner({ say: (line) => said.push(line) });
  const pid = Deno.makeTempFileSync();
  const script = `sleep 60 & echo $! >${pid}; echo warned >&2`;
  await runner.run({ argv: ["sh", "-c", script] });
  assertEquals(said.slice(1), ["warned"]);
  // It still runs: it is not what was waited for.
  Deno.kill(Number(Deno.readTextFileSync(pid)), "SIGTERM");
  Deno.removeSync(pid);
});

Deno.test("an interrupt ends the command that runs", async () => {
  const started = Promise.withResolvers<void>();
  const runner = new Runner({ say: () => started.resolve() });
  const running = runner.run({ argv: ["sleep", "60"] });
  await started.promise;
  runner.interrupt("SIGTERM");
  await assertRejects(() => running, StepError, "ended by SIGTERM");
});

Deno.test("undoing passes over what is gone already", async () => {
  const gone = (text: string): boolean =>
    isAlreadyGone(new StepError(["ip"], text));
  assertEquals(gone("RTNETLINK answers: No such file or directory"), true);
  assertEquals(gone('Cannot find device "wg0"'), true);
  assertEquals(gone("Operation not permitted"), false);
  assertEquals(gone("nft is not installed"), false);
  const runner = new Runner({ say: () => {} });
  const remove = { argv: ["ls", "/nonexistent"] };
  assertEquals(await undoAll(runner, [remove]), []);
});
