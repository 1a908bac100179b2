/**
 * Plays rounds in the namespace that it is started in; for `deno task sigterm`.
 * Its argument is a file with a {@link SideJob}; each line that it prints is an
 * {@link Outcome}.
 */
import { delay } from "./process.ts";
import type { Site } from "./sigterm_driver.ts";
import { systemState } from "./sigterm_left.ts";
import { Rounds } from "./sigterm_round.ts";

/** What a side is told to do. */
export interface SideJob {
  readonly site: Site;
  readonly seed: number;
  /** Rounds `from`, `from + step`, … below `to`. */
  readonly from: number;
  readonly to: number;
  readonly step: number;
}

/** Addresses of links' own come in their own time. */
async function settled(): Promise<void> {
  for (let state = ""; state !== systemState(false); await delay(2_500)) {
    state = systemState(false);
  }
}

/** Plays them. */
export async function main([file]: readonly string[]): Promise<void> {
  const job: SideJob = JSON.parse(Deno.readTextFileSync(file));
  await settled();
  const rounds = new Rounds(job.site, job.seed);
  for (let round = job.from; round < job.to; round += job.step) {
    const outcome = await rounds.play(round);
    const line = `${JSON.stringify(outcome)}\n`;
    Deno.stdout.writeSync(new TextEncoder().encode(line));
  }
}

if (import.meta.main) await main(Deno.args);
