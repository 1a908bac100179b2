/**
 * Self-test of the AEAD that this machine would use, against noble.
 *
 * @module
 */
import { bug } from "../assert.ts";
import { createAead, testWasmAead } from "../crypto/aead.ts";

const PAGES = 1;

/** @throws BugError if the wasm kernel runs here and is wrong */
export function aeadSelftest(): void {
  const memory = new WebAssembly.Memory({
    initial: PAGES,
    maximum: PAGES,
    shared: true,
  });
  const problem = testWasmAead();
  // Where wasm cannot run, noble does the work; wrong results are no reason.
  bug(
    problem === null || createAead(memory, 0, "auto").name === "noble",
    `AEAD: ${problem}`,
  );
  bug(!problem?.includes("disagrees"), `AEAD: ${problem}`);
}
