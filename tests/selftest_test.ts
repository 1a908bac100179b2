/**
 * lib/selftest: each run-time self-test passes, and they run as `wgd selftest`
 * runs them, one after the other in one process.
 */
import { assertEquals } from "@std/assert";
import { selftests } from "../lib/selftest/mod.ts";

for (const { name, run } of selftests) {
  Deno.test(`the self-test of ${name} passes`, run);
}

Deno.test("self-tests have names of their own", () => {
  const names = new Set(selftests.map(({ name }) => name));
  assertEquals(names.size, selftests.length);
});
