/**
 * Rounds of `deno task sigterm` and of its test: some namespaces in which
 * daemons are ended at once, each with a far side that stays.
 */
import { Lab } from "./lab.ts";
import { makeSite } from "./quick_lab.ts";
import { moduleCommand, wgdCommand } from "./requirements.ts";
import type { Outcome } from "./sigterm_round.ts";
import type { SideJob } from "./sigterm_side.ts";
import { OUTER, PORT } from "./tunnel.ts";

/** What to play. */
export interface SigtermOptions {
  readonly rounds: number;
  readonly seed: number;
  /** The first round's number; default 0. */
  readonly from?: number;
  /** Namespaces that are busy at once. */
  readonly atOnce: number;
  /** Gets each outcome. */
  readonly tell: (outcome: Outcome) => void;
}

/** Plays the rounds. @throws Error when a side does not come to its end */
export async function playRounds(options: SigtermOptions): Promise<void> {
  const sides = Array.from(
    { length: Math.min(options.atOnce, options.rounds) },
    (_, i) => playSide(options, i),
  );
  const outcomes = await Promise.allSettled(sides);
  for (const outcome of outcomes) {
    if (outcome.status === "rejected") throw outcome.reason;
  }
}

function hexOf(key: string): string {
  return Uint8Array.from(atob(key), (c) => c.charCodeAt(0)).toHex();
}

async function playSide(options: SigtermOptions, i: number): Promise<void> {
  const { rounds, seed, from = 0, atOnce, tell } = options;
  await using lab = await Lab.make();
  const { name, keys } = await makeSite(lab);
  const job: SideJob = {
    site: {
      name,
      wgd: wgdCommand(),
      directory: lab.directory,
      configuration: `${lab.directory}/${name}.conf`,
      privateKey: hexOf(keys.a.private),
      peerKey: hexOf(keys.b.public),
      privateText: keys.a.private,
      peerText: keys.b.public,
      endpoint: `${OUTER.v4.b}:${PORT.b}`,
    },
    seed,
    from: from + i,
    to: from + rounds,
    step: atOnce,
  };
  const file = lab.file(JSON.stringify(job));
  const [program, ...args] = lab.a.argv(moduleCommand("sigterm_side.ts", file));
  const child = new Deno.Command(program, {
    args,
    env: { LOG_LEVEL: "error" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const decoder = new TextDecoder();
  let rest = "";
  for await (const bytes of child.stdout) {
    const lines = (rest + decoder.decode(bytes, { stream: true })).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) tell(JSON.parse(line));
  }
  const { code } = await child.status;
  if (code !== 0) throw new Error(`side ${i} ended with ${code}`);
}
