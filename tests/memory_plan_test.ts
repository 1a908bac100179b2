/** `--memory`: what fits into how much, and what is refused. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { arenaBytes, DEFAULT_LIMITS } from "../lib/arena.ts";
import { MemoryError, planMemory } from "../lib/memory.ts";

const MB = 1e6;

Deno.test("what is planned fits, and grows with the memory", () => {
  let before = planMemory(120, 1);
  for (let mb = 121; mb < 20_000; mb = Math.ceil(mb * 1.07)) {
    const plan = planMemory(mb, 1);
    const { limits, heapMb } = plan;
    assert(arenaBytes(limits) / MB + heapMb < mb - 60, `${mb} MB`);
    assert(heapMb >= before.heapMb && heapMb >= 8);
    for (const name of Object.keys(limits) as (keyof typeof limits)[]) {
      assert(limits[name] >= before.limits[name], `${name} at ${mb} MB`);
      assert(limits[name] <= DEFAULT_LIMITS[name], `${name} at ${mb} MB`);
    }
    before = plan;
  }
  assertEquals(before.limits, DEFAULT_LIMITS);
});

Deno.test("128 MB are enough for a router with some hundred peers", () => {
  const { limits } = planMemory(128, 1);
  assert(limits.peers >= 500, String(limits.peers));
  assert(limits.txSlots >= 192, String(limits.txSlots));
});

Deno.test("too little is refused, with what is needed, and that is enough", () => {
  for (const [mb, workers] of [[0, 1], [64, 1], [100, 0], [120, 4]]) {
    const error = assertThrows(() => planMemory(mb, workers), MemoryError);
    assert(error.neededMb > mb);
    assertEquals(
      error.message,
      `--memory ${mb} is too little: wgd needs ${error.neededMb} MB here`,
    );
    planMemory(error.neededMb, workers);
    assertThrows(() => planMemory(error.neededMb - 1, workers), MemoryError);
  }
});

Deno.test("more workers leave less for packets and peers", () => {
  const one = planMemory(256, 1).limits;
  const four = planMemory(256, 4).limits;
  assert(four.peers < one.peers && four.txSlots < one.txSlots);
});
