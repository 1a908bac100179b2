/**
 * Memory under a flood: what wgd needs, it takes at its start. Its resident
 * memory stays flat while more comes than it can move, in either direction.
 *
 * A case takes SECONDS; with WGD_SLOW=1 it takes 60.
 */
import { assert } from "@std/assert";
import type { Daemon, Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { assertCleanEnd, VERBOSE } from "./last_words.ts";
import { delay } from "./process.ts";
import { wgdLacks } from "./requirements.ts";
import { assertPings, iperf } from "./traffic.ts";
import { INNER, Tunnel } from "./tunnel.ts";

const SECONDS = Deno.env.get("WGD_SLOW") === "1" ? 60 : 5;
const IPERF_EXTRA_S = 30;
/** Until every slot of the pool was used and the code is compiled. */
const WARM_UP_MS = 1_500;
const SAMPLE_MS = 250;
const GROWTH_MAX_BYTES = 8 << 20;
/** A flood, even where little of it comes. */
const PACKETS_MIN = 2_000;

interface FloodOptions {
  readonly a?: Implementation;
  readonly b?: Implementation;
  readonly args?: readonly string[];
  /** Arguments of iperf3. */
  readonly traffic: readonly string[];
}

/** Resident memory of a daemon, sample by sample. */
class Samples {
  readonly #bytes: number[] = [];

  constructor(readonly daemon: Daemon, readonly name: string) {}

  take(): void {
    this.#bytes.push(this.daemon.residentBytes());
  }

  /** The most of the last third is hardly more than that of the first. */
  assertFlat(): void {
    const third = Math.floor(this.#bytes.length / 3);
    assert(third >= 3, `${this.#bytes.length} samples`);
    const first = Math.max(...this.#bytes.slice(0, third));
    const last = Math.max(...this.#bytes.slice(-third));
    const mib = this.#bytes.map((bytes) => (bytes / 2 ** 20).toFixed(1));
    const what = `${this.name} ${this.daemon.implementation}, MiB: ` +
      mib.filter((_, i) => i % Math.ceil(mib.length / 24) === 0).join(" ");
    tell(`${what}; grown by ${((last - first) / 2 ** 20).toFixed(1)}`);
    assert(last - first < GROWTH_MAX_BYTES, what);
  }
}

/** One case: a flood from a to b, and both daemons' memory meanwhile. */
async function flood(lab: Lab, options: FloodOptions): Promise<void> {
  const { a = "wgd", b = "wgd", args = [], traffic } = options;
  const daemon = { args, env: VERBOSE };
  const tunnel = await Tunnel.make(lab, { a, b, daemon });
  await assertPings(lab.a, INNER.b.v4);
  const samples = [
    new Samples(tunnel.a, "out"),
    new Samples(tunnel.b, "in"),
  ].filter((of) => of.daemon.implementation === "wgd");
  let flooding = true;
  const flooded = iperf(
    lab.a,
    lab.b,
    INNER.b.v4,
    ["-t", String(SECONDS), ...traffic],
    SECONDS + IPERF_EXTRA_S,
  ).finally(() => flooding = false);
  await delay(WARM_UP_MS);
  const endMs = Date.now() + SECONDS * 1000 - WARM_UP_MS;
  while (flooding && Date.now() < endMs) {
    for (const of of samples) of.take();
    await delay(SAMPLE_MS);
  }
  const { end } = await flooded;
  const { packets = 0, lost_packets: lost = 0 } = end.sum ?? {};
  tell(`${traffic.join(" ")}: ${packets} packets sent, ${packets - lost} came`);
  assert(packets - lost > PACKETS_MIN, `${packets} packets, ${lost} lost`);
  for (const of of samples) of.assertFlat();
  for (const { daemon } of samples) {
    const counters = await assertCleanEnd(daemon);
    tell(JSON.stringify(counters));
  }
}

/** With WGD_REPORT=1, tells what was measured. */
function tell(text: string): void {
  if (Deno.env.get("WGD_REPORT") !== "1") return;
  Deno.stderr.writeSync(new TextEncoder().encode(`${text}\n`));
}

function memoryTest(name: string, options: FloodOptions, skip?: string): void {
  const { a = "wgd", b = "wgd" } = options;
  const programs = ["iperf3", ...new Set([a, b])]
    .filter((program) => program !== "wgd");
  labTest(
    `memory stays flat under a flood: ${name}`,
    { programs, skip },
    (lab) => flood(lab, options),
  );
}

/** UDP as fast as the system takes it. */
function udp(length: number): string[] {
  return ["-u", "-b", "0", "-l", String(length)];
}

for (const length of [64, 1372]) {
  const traffic = udp(length);
  const size = `${length} bytes`;
  memoryTest(`wgd to wgd, ${size}`, { traffic });
  memoryTest(`wgd to wireguard-go, ${size}`, { b: "wireguard-go", traffic });
  memoryTest(`wireguard-go to wgd, ${size}`, { a: "wireguard-go", traffic });
}
memoryTest("wgd --offload none, 1372 bytes", {
  args: ["--offload", "none"],
  traffic: udp(1372),
});
memoryTest("wgd --threads 2, both ways", {
  args: ["--threads", "2"],
  traffic: [...udp(1372), "--bidir"],
});
memoryTest("wgd --lanes 2, both ways", {
  args: ["--lanes", "2"],
  traffic: [...udp(1372), "--bidir"],
}, wgdLacks("--lanes"));
