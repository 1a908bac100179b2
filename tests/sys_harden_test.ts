/** lib/sys/harden: pages of memory that is kept out of dumps and swap space. */
import { assert, assertEquals } from "@std/assert";
import { leaveOutOfDumps, secretRoom, wholePages } from "../lib/sys/harden.ts";

Deno.test("what lies in pages of 4, 16 and 64 KiB is covered by whole ones", () => {
  const range = { address: 0x7f00_0001_2345n, bytes: 0x9000 };
  assertEquals(
    [0x1000, 0x4000, 0x1_0000].map((page) => wholePages(range, page)),
    [
      { address: 0x7f00_0001_2000n, bytes: 0xa000 },
      { address: 0x7f00_0001_0000n, bytes: 0xc000 },
      { address: 0x7f00_0001_0000n, bytes: 0x1_0000 },
    ],
  );
});

Deno.test({
  name: "a secret's room is its own, and memory anywhere is left out of dumps",
  ignore: Deno.build.os !== "linux",
  sanitizeResources: false, // the C library stays loaded
  fn(): void {
    const [first, second] = [secretRoom(32), secretRoom(32)];
    assert(first !== undefined && second !== undefined);
    first.fill(1);
    assert(second.every((byte) => byte === 0));
    assertEquals(secretRoom(1 << 20), undefined);
    const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(first));
    // Not at the bounds of a page, which the system would refuse.
    assertEquals(leaveOutOfDumps({ address: address + 5n, bytes: 10 }), []);
  },
});
