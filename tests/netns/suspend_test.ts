/**
 * A machine that was suspended: keys are wiped, and the tunnel comes back. The
 * daemon's boot time is made to jump by gdb, which puts other code in the place
 * of its C library's clock_gettime.
 */
import { assertEquals } from "@std/assert";
import { labTest } from "./harness.ts";
import { run, until } from "./process.ts";
import { assertPings } from "./traffic.ts";
import { INNER, Tunnel } from "./tunnel.ts";

/** The system call; and for CLOCK_BOOTTIME, 600 s on top of what it says. */
const LATER = [
  ...[0xb8, 0xe4, 0, 0, 0, 0x0f, 0x05], // mov eax, 228; syscall
  ...[0x83, 0xff, 7, 0x75, 7], // cmp edi, 7; jne over the next
  ...[0x48, 0x81, 0x06, 0x58, 0x02, 0, 0, 0xc3], // add qword [rsi], 600; ret
];

async function suspend(pid: number): Promise<void> {
  const address = "(unsigned char *)&clock_gettime";
  const writes = LATER.flatMap((byte, i) => [
    "-ex",
    `set var *(${address} + ${i}) = ${byte}`,
  ]);
  await run(["gdb", "-q", "-nx", "-batch", "-p", String(pid), ...writes]);
}

labTest(
  "after a suspension keys are wiped, and traffic makes new ones",
  {
    programs: ["gdb"],
    skip: Deno.build.arch === "x86_64" ? undefined : "knows x86-64's code only",
  },
  async (lab) => {
    const tunnel = await Tunnel.make(lab, {
      daemon: { env: { LOG_LEVEL: "verbose" } },
    });
    await assertPings(lab.a, INNER.b.v4);
    const { a } = tunnel;
    const wipings = (): number =>
      a.process.said.split("suspended: keys wiped").length - 1;
    assertEquals(wipings(), 0);
    await suspend(a.process.pid);
    // Control looks when it has its turn.
    await a.set("fwmark", "7");
    await until("the wiping", () => wipings() === 1, 70_000);
    await assertPings(lab.a, INNER.b.v4, { count: 3 });
    assertEquals(wipings(), 1);
  },
);
