/**
 * `wgd selftest`: the run-time self-tests on this machine.
 *
 * @module
 */
import { missingLibcrypto, testLibcryptoAead } from "../aead_choice.ts";
import { type Selftest, selftests } from "../selftest/mod.ts";
import type { CommandContext } from "./context.ts";
import { EXIT } from "./errors.ts";

/** Of what needs the system; where libcrypto is missing nothing is wrong. */
const LIBCRYPTO: Selftest = {
  name: "AEAD of libcrypto",
  run(): void {
    const problem = testLibcryptoAead();
    if (problem !== null) throw new Error(problem);
  },
};

/** Runs `wgd selftest`. */
export function runCommand(ctx: CommandContext): Promise<number> {
  const missing = missingLibcrypto();
  const tests = missing === null ? [...selftests, LIBCRYPTO] : selftests;
  let failed = 0;
  for (const { name, run } of tests) {
    try {
      run();
      ctx.out(`${name}: pass\n`);
    } catch (error) {
      failed++;
      const reason = error instanceof Error ? error.message : String(error);
      ctx.out(`${name}: FAIL: ${reason}\n`);
    }
  }
  if (missing !== null) ctx.out(`${LIBCRYPTO.name}: skipped: ${missing}\n`);
  ctx.out(`${tests.length - failed} passed, ${failed} failed\n`);
  return Promise.resolve(failed === 0 ? EXIT.OK : EXIT.FAILED);
}
