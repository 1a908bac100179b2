// deno-lint-ignore-file no-console
/**
 * `deno task sigterm`: starts wgd, and ends it by SIGTERM at random moments, as
 * often as it is told to, in network namespaces of its own. Tells where the
 * signals found it, and ends with status 1 if anything was wrong or left behind.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { wgdCommand } from "./requirements.ts";
import type { Outcome } from "./sigterm_round.ts";
import { playRounds } from "./sigterm_sides.ts";

const USAGE = `Usage: deno task sigterm [OPTION]...

  --rounds N     how many (default: 300)
  --from N       the number of the first one (default: 0)
  --at-once N    daemons that are ended at a time (default: 2)
  --seed S       a number (default: a random one, printed)

WGD_PROGRAM names the executable to test; else it is this checkout.`;
const REPORT_MS = 60_000;

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

const args = parseArgs(Deno.args.filter((argument) => argument !== "--"), {
  string: ["rounds", "from", "at-once", "seed"],
  boolean: ["help"],
  unknown: (argument) => usage(`Unknown argument: ${argument}`),
});
if (args.help) {
  console.log(USAGE);
  Deno.exit(0);
}
const seed = numberOf(
  args.seed,
  "seed",
  crypto.getRandomValues(new Uint32Array(1))[0],
);

/** Times to the end, by where the signal found it. */
const tookMs = new Map<string, number[]>();
let rounds = 0;
let findings = 0;
const startMs = performance.now();

function report(): void {
  const seconds = (performance.now() - startMs) / 1000;
  console.log(
    `${rounds} rounds in ${seconds.toFixed(0)} s, ${findings} findings`,
  );
  for (const [phase, all] of [...tookMs].sort()) {
    all.sort((a, b) => a - b);
    const at = (share: number): string =>
      String(Math.round(all[Math.floor((all.length - 1) * share)]))
        .padStart(5);
    console.log(
      `  ${phase.padEnd(32)} ${String(all.length).padStart(6)}   ms to its ` +
        `end: p50 ${at(0.5)}, p99 ${at(0.99)}, most ${at(1)}`,
    );
  }
}

function tell({ round, phase, tookMs: ms, findings: found }: Outcome): void {
  rounds++;
  tookMs.set(phase, [...tookMs.get(phase) ?? [], ms]);
  for (const finding of found) {
    findings++;
    console.log(`round ${round}, ${phase}: ${finding}`);
  }
}

console.log(`seed ${seed}, ${wgdCommand().join(" ")}`);
const timer = setInterval(report, REPORT_MS);
try {
  await playRounds({
    rounds: numberOf(args.rounds, "rounds", 300),
    from: numberOf(args.from, "from", 0),
    atOnce: Math.max(1, numberOf(args["at-once"], "at-once", 2)),
    seed,
    tell,
  });
} finally {
  clearInterval(timer);
}
report();
if (findings > 0) Deno.exitCode = 1;
