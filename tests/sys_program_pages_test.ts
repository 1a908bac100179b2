/** Pages of program files: which, and that they can be given back at any time. */
import { assert, assertEquals } from "@std/assert";
import { dropProgramPages, programMappings } from "../lib/sys/program_pages.ts";

const SMAPS = `55e0000000-55e0002000 r--p 00000000 fe:00 11    /usr/bin/wgd
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
55e0002000-55e0009000 r-xp 00002000 fe:00 11    /usr/bin/wgd
Rss:                   8 kB
Anonymous:             0 kB
Swap:                  0 kB
55e0009000-55e000a000 r--p 00009000 fe:00 11    /usr/bin/wgd
Anonymous:             4 kB
Swap:                  0 kB
55e000a000-55e000b000 rw-p 0000a000 fe:00 11    /usr/bin/wgd
Anonymous:             0 kB
Swap:                  0 kB
7f00000000-7f00001000 r-xp 00000000 00:00 0
Anonymous:             0 kB
Swap:                  0 kB
7f00001000-7f00002000 r--s 00000000 fe:00 12    /etc/shared
Anonymous:             0 kB
Swap:                  0 kB
7f00002000-7f00003000 r-xp 00000000 00:00 0     [vdso]
Anonymous:             0 kB
Swap:                  0 kB
7f00004000-7f00005000 r--p 00000000 fe:00 13    /usr/lib/relocated.so
Anonymous:             0 kB
Swap:                  4 kB
`;

Deno.test("only what is as it is on disk is given back", () => {
  assertEquals(programMappings(SMAPS), [
    { address: 0x55e0000000n, bytes: 0x2000n },
    { address: 0x55e0002000n, bytes: 0x7000n },
  ]);
});

/** Bytes of files that are in memory. */
function residentBytes(): number {
  const text = Deno.readTextFileSync("/proc/self/status");
  return Number(/RssFile:\s+(\d+)/.exec(text)?.[1]) * 1024;
}

Deno.test({
  name: "a program goes on without the pages that it gave back",
  ignore: Deno.build.os !== "linux",
  fn(): void {
    const before = residentBytes();
    assert(dropProgramPages());
    const after = residentBytes();
    assert(after < before / 2, `${before} bytes, then ${after}`);
    // Code that was in use, and code that is new.
    assertEquals(JSON.parse(JSON.stringify({ a: [1, 2] })), { a: [1, 2] });
    assertEquals(new Intl.NumberFormat("en").format(1234.5), "1,234.5");
    assertEquals(eval("6 * 7"), 42);
  },
});
