// deno-lint-ignore-file no-console
/**
 * `deno task soak`: a year of three devices' life, or as many days as are asked
 * for, on a virtual clock. Ends with status 1 and the seed if anything is wrong.
 *
 * @module
 */
import { parseArgs } from "@std/cli";
import { type Figures, Soak, SoakError } from "./soak_run.ts";

const USAGE = `Usage: deno task soak [OPTION]...

  --days N      days of the devices' time (default: 365)
  --minutes M   end after so many minutes of ours, if the days are not over
  --seed S      a number (default: a random one, printed)`;
const REPORT_MS = 30_000;

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

function describe(figures: Figures): string {
  const { counts, digest, ...rest } = figures;
  const lines = Object.entries(rest).map(([name, value]) =>
    `${name}: ${Math.round(value * 100) / 100}`
  );
  lines.push(`digest: ${digest.toString(16)}`);
  for (const kind of Object.keys(counts).sort()) {
    if (!kind.startsWith("(end)")) lines.push(`  ${kind}: ${counts[kind]}`);
  }
  return lines.join("\n");
}

// `deno task soak -- --days 1` hands the dashes on.
const args = parseArgs(Deno.args.filter((argument) => argument !== "--"), {
  string: ["days", "minutes", "seed"],
  boolean: ["help"],
  unknown: (argument) => usage(`Unknown argument: ${argument}`),
});
if (args.help) {
  console.log(USAGE);
  Deno.exit(0);
}
const days = numberOf(args.days, "days", 365);
const minutes = numberOf(args.minutes, "minutes", Infinity);
const seed = numberOf(
  args.seed,
  "seed",
  crypto.getRandomValues(new Uint32Array(1))[0],
);
console.log(`seed ${seed}`);

const soak = new Soak(seed);
const start = performance.now();
let reported = start;
try {
  const figures = soak.run(days, () => {
    const now = performance.now();
    if (now - reported >= REPORT_MS) {
      reported = now;
      const { days, packets } = soak.figures();
      console.log(
        `${Math.round((now - start) / 1000)} s: day ${
          days.toFixed(1)
        }, ${packets} packets`,
      );
    }
    return now - start < minutes * 60_000;
  });
  console.log(describe(figures));
  const seconds = (performance.now() - start) / 1000;
  console.log(`in ${seconds.toFixed(1)} s, no findings`);
} catch (error) {
  if (!(error instanceof SoakError)) throw error;
  console.error(error.message);
  console.log(describe(soak.figures()));
  Deno.exitCode = 1;
}
