/**
 * `wgd selftest`: the run-time self-tests on this machine.
 *
 * @module
 */
import { selftests } from "../selftest/mod.ts";
import type { CommandContext } from "./context.ts";
import { EXIT } from "./errors.ts";

/** Runs `wgd selftest`. */
export function runCommand(ctx: CommandContext): Promise<number> {
  let failed = 0;
  for (const { name, run } of selftests) {
    try {
      run();
      ctx.out(`${name}: pass\n`);
    } catch (error) {
      failed++;
      const reason = error instanceof Error ? error.message : String(error);
      ctx.out(`${name}: FAIL: ${reason}\n`);
    }
  }
  ctx.out(`${selftests.length - failed} passed, ${failed} failed\n`);
  return Promise.resolve(failed === 0 ? EXIT.OK : EXIT.FAILED);
}
