/**
 * The executable for arm64 on a machine of another kind, by QEMU's emulation of
 * its programs: the self-tests, and tunnels to daemons of this machine. The
 * emulator passes system calls on to this machine's kernel, so that structures
 * and numbers of arm64 are put to the test; how it orders loads and stores is
 * not. Needs the executable in WGD_PROGRAM_ARM64, or where it is compiled to.
 */
import { assert, assertEquals } from "@std/assert";
import { VERSION } from "../../lib/version.ts";
import {
  findProgram,
  must,
  ROOT,
  runProgram,
  testUnless,
} from "../compile_helpers.ts";
import { exists } from "../netns/daemon.ts";
import { labTest } from "../netns/harness.ts";
import { assertPings, iperf, Pinger } from "../netns/traffic.ts";
import { INNER, Tunnel } from "../netns/tunnel.ts";

const program = Deno.env.get("WGD_PROGRAM_ARM64") ||
  `${ROOT}dist/wgd-linux-aarch64`;
const emulator = findProgram("qemu-aarch64") ??
  findProgram("qemu-aarch64-static");
/** Where Debian keeps arm64's C library on other machines. */
const libraries = Deno.env.get("QEMU_LD_PREFIX") || "/usr/aarch64-linux-gnu";
const command = [emulator ?? "", "-L", libraries, program];

/** Whatever the machine is busy with: nothing here is about speed. */
const READY_MS = 180_000;
const REPLIES_MS = 60_000;
const TRANSFER_S = 180;

/** Why it cannot run here. */
function lacks(): string | undefined {
  if (Deno.build.arch === "aarch64") {
    return "is for other machines: here WGD_PROGRAM is such an executable";
  }
  if (!exists(program)) {
    return "needs an executable for arm64: deno task compile --target " +
      "aarch64-unknown-linux-gnu, or WGD_PROGRAM_ARM64";
  }
  if (emulator === undefined) {
    return "needs qemu-aarch64: apt-get install qemu-user";
  }
  const needed = ["ld-linux-aarch64.so.1", "libc.so.6", "libgcc_s.so.1"];
  return needed.every((name) => exists(`${libraries}/lib/${name}`))
    ? undefined
    : "needs arm64's C library in QEMU_LD_PREFIX, or apt-get install " +
      "libc6-arm64-cross libgcc-s1-arm64-cross";
}

const why = lacks();

testUnless(
  why,
  "an executable for arm64 knows its version, makes keys and tests itself",
  async () => {
    const version = await must([...command, "--version"]);
    assert(version.startsWith(`wgd ${VERSION} (`), version);
    const key = await must([...command, "genkey"]);
    const publicKey = await must([...command, "pubkey"], { stdin: key });
    assertEquals(publicKey, await must(["wg", "pubkey"], { stdin: key }));
    const { code, out, err } = await runProgram([...command, "selftest"]);
    assertEquals(code, 0, out + err);
  },
);

for (const far of ["wgd", "wireguard-go"] as const) {
  labTest(`a tunnel from arm64 to ${far} on this machine: pings and TCP`, {
    programs: ["iperf3", ...far === "wgd" ? [] : [far]],
    skip: why,
  }, async (lab) => {
    const tunnel = await Tunnel.make(lab, {
      b: far,
      daemonA: { command, readyMs: READY_MS },
    });
    // The first packets find code that has yet to be translated.
    await new Pinger(lab.a, INNER.b.v4).replies(5, REPLIES_MS);
    await assertPings(lab.b, INNER.a.v6, { sizeBytes: 1300 });
    for (const [address, way] of [[INNER.b.v4, "-i1"], [INNER.b.v6, "-R"]]) {
      const args = ["-t", "3", way];
      const { end } = await iperf(lab.a, lab.b, address, args, TRANSFER_S);
      assert(end.sum_received.bytes > 0, `${address} ${way}`);
    }
    tunnel.a.process.signal("SIGTERM");
    assertEquals((await tunnel.a.process.ended(READY_MS)).code, 0);
  });
}
