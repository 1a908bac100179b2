/**
 * The checked-in wasm kernels are what their sources compile to.
 *
 * @module
 */

import { fileURLToPath } from "node:url";
import { assertEquals } from "@std/assert";

const FOLDER = fileURLToPath(new URL("../tools/wasm/", import.meta.url));
const CONFIG = ["--config", `${FOLDER}deno.json`];
const TOOL = `${FOLDER}build.ts`;

async function deno(...args: string[]): Promise<[number, string]> {
  const { code, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    stdout: "null",
    stderr: "piped",
  }).output();
  return [code, new TextDecoder().decode(stderr)];
}

// The compiler comes from npm once, then from the cache.
const [unavailable, reason] = await deno("cache", ...CONFIG, TOOL);

Deno.test({
  name: unavailable === 0
    ? "the wasm kernels are reproducible from their sources"
    : `the wasm kernels are reproducible (skipped, no compiler: ${reason})`,
  ignore: unavailable !== 0,
  fn: async (): Promise<void> => {
    const [code, errors] = await deno("run", "-A", ...CONFIG, TOOL, "--check");
    assertEquals(code, 0, errors);
  },
});
