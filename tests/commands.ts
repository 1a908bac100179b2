/** Runs commands of wgd inside the test, with streams in memory. */
import { main } from "../lib/commands/main.ts";
import type { CommandIo } from "../lib/commands/context.ts";

/** What a command did. */
export interface Outcome {
  code: number;
  out: string;
  err: string;
}

/** Streams that are kept in `outcome`. */
export function testIo(outcome: { out: string; err: string }): CommandIo {
  return {
    out: (text) => void (outcome.out += text),
    err: (line) => void (outcome.err += `${line}\n`),
    readStdin: () => Promise.resolve(new Uint8Array()),
    env: () => undefined,
    isTerminal: false,
  };
}

/** Runs `wgd ARGS`. */
export async function wgd(...args: string[]): Promise<Outcome> {
  const outcome = { code: -1, out: "", err: "" };
  outcome.code = await main(args, testIo(outcome));
  return outcome;
}
