/** How wgd ends, and what it says then with LOG_LEVEL=verbose. */
import { assert, assertEquals } from "@std/assert";
import type { Daemon } from "./daemon.ts";

const END_MS = 6_000;

/** Environment with which wgd tells it. */
export const VERBOSE: Readonly<Record<string, string>> = {
  LOG_LEVEL: "verbose",
};

/**
 * Ends wgd, which must have given back all that it held.
 *
 * @returns its counters
 */
export async function assertCleanEnd(
  daemon: Daemon,
): Promise<Record<string, number>> {
  daemon.process.signal("SIGTERM");
  const status = await daemon.process.ended(END_MS);
  const { said } = daemon.process;
  assertEquals([status.code, status.signal], [0, null], said);
  assert(!/left|fail|error/i.test(said.replace(/counters: .*/, "")), said);
  const objects = lastWords(said, "objects");
  assert("slots" in objects, "slots are counted");
  const held = Object.entries(objects).filter(([, count]) => count !== 0);
  assertEquals(held, [], "objects that were not given back");
  return lastWords(said, "counters");
}

function lastWords(said: string, what: string): Record<string, number> {
  const match = new RegExp(`: ${what}: ({.*})$`, "m").exec(said);
  assert(match !== null, `no ${what}: ${said}`);
  return JSON.parse(match[1]);
}
