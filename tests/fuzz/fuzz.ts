// deno-lint-ignore-file no-console
/**
 * `deno task fuzz`: fuzzes for as long, or as often, as it is told to; all
 * targets in turns, or one. A finding is written to its target's corpus, where
 * the tests try it again each time, and ends the run with status 1.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { Finding, Fuzzer, readCorpus, saveFinding } from "./engine.ts";
import { TARGETS } from "./targets.ts";

const USAGE = `Usage: deno task fuzz [OPTION]...

  --seconds N      how long, in all (default: 60)
  --executions N   how often, in all, instead
  --target T       ${Object.keys(TARGETS).join(", ")} (default: all in turns)
  --seed S         a number (default: a random one, printed)`;
/** Each target runs about as long, before it is the next one's turn. */
const TURN_MS = 200;
const REPORT_MS = 30_000;

interface Options {
  readonly seconds: number;
  readonly executions: number;
  readonly targets: readonly string[];
  readonly seed: number;
}

function usage(message: string): never {
  console.error(`${message}\n\n${USAGE}`);
  Deno.exit(2);
}

function numberOf(value: unknown, name: string, otherwise: number): number {
  if (value === undefined) return otherwise;
  const number = Number(value);
  if (value === "" || !(number >= 0)) usage(`--${name} takes a number`);
  return number;
}

function readOptions(args: readonly string[]): Options {
  const parsed = parseArgs(args, {
    string: ["seconds", "executions", "target", "seed"],
    boolean: ["help"],
    unknown: (argument) => usage(`Unknown argument: ${argument}`),
  });
  if (parsed.help) {
    console.log(USAGE);
    Deno.exit(0);
  }
  const { target } = parsed;
  if (target !== undefined && !(target in TARGETS)) {
    usage(`--target is one of ${Object.keys(TARGETS).join(", ")}`);
  }
  const executions = numberOf(parsed.executions, "executions", Infinity);
  return {
    executions,
    seconds: numberOf(
      parsed.seconds,
      "seconds",
      executions === Infinity ? 60 : Infinity,
    ),
    targets: target === undefined ? Object.keys(TARGETS) : [target],
    seed: numberOf(
      parsed.seed,
      "seed",
      crypto.getRandomValues(new Uint32Array(1))[0],
    ),
  };
}

/** Runs the fuzzer until enough is done. @throws Finding */
async function fuzz(
  fuzzers: readonly Fuzzer[],
  { seconds, executions }: Options,
  report: () => void,
): Promise<void> {
  const start = performance.now();
  const share = executions / fuzzers.length;
  let reported = start;
  for (let open = [...fuzzers]; open.length > 0;) {
    for (const fuzzer of open) {
      const turn = performance.now();
      while (
        performance.now() - turn < TURN_MS && fuzzer.executions < share
      ) await fuzzer.run(Math.min(100, share - fuzzer.executions));
    }
    open = open.filter((fuzzer) => fuzzer.executions < share);
    const now = performance.now();
    if (now - start >= seconds * 1000) return;
    if (now - reported >= REPORT_MS) {
      reported = now;
      report();
    }
  }
}

const options = readOptions(Deno.args);
console.log(`seed ${options.seed}`);
const fuzzers = options.targets.map((name, i) =>
  new Fuzzer(
    TARGETS[name](),
    [...readCorpus(name).values()],
    options.seed + i,
  )
);
const report = (): void => {
  for (const { target, executions, signatures } of fuzzers) {
    console.log(
      `${target.name.padEnd(9)} ${String(executions).padStart(10)} ` +
        `executions, ${signatures} kinds of outcomes`,
    );
  }
};
try {
  await fuzz(fuzzers, options, report);
} catch (error) {
  if (!(error instanceof Finding)) throw error;
  console.error(error.message);
  console.error(`written to ${await saveFinding(error)}`);
  Deno.exitCode = 1;
}
report();
const total = fuzzers.reduce((sum, { executions }) => sum + executions, 0);
console.log(`in all    ${String(total).padStart(10)} executions`);
