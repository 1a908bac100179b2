/**
 * Times whole tunnels, two daemons of one implementation in two namespaces on
 * this machine, implementations in turn: TCP one stream and four, small UDP
 * packets, ping idle and under load, CPU and memory of the daemons. Medians of
 * the rounds, and the ratio to wireguard-go.
 *
 *     deno run -A tests/bench/tunnel_bench.ts [--rounds N] [--seconds N] [--json]
 *
 * WGD_WIREGUARD_GO names another wireguard-go than the PATH's, WGD_PROGRAM a
 * compiled wgd. Needs root, iproute2, iperf3, ping, wireguard-tools.
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { parseArgs } from "@std/cli/parse-args";
import type { Daemon, Implementation } from "../netns/daemon.ts";
import { Lab } from "../netns/lab.ts";
import {
  findProgram,
  missing,
  wireguardGoCommand,
} from "../netns/requirements.ts";
import { iperf, type IperfResult } from "../netns/traffic.ts";
import { INNER, Tunnel } from "../netns/tunnel.ts";

const UDP_BYTES = 64;
/** Rate at which the CPU of a packet is measured, and of the flood: no limit. */
const UDP_PACED_PPS = 30_000;
const PINGS = 1000;
const CLOCK_TICKS = 100;

/** One round's figures; the names say the units. */
type Figures = Record<string, number>;

const options = parseArgs(Deno.args, {
  boolean: ["json"],
  string: ["rounds", "seconds"],
  default: { rounds: "3", seconds: "5" },
});
const rounds = Number(options.rounds);
const seconds = Number(options.seconds);

const problem = missing(["iperf3"]);
if (problem !== undefined) {
  console.error(`wgd bench: ${problem}`);
  Deno.exit(1);
}
const implementations: Implementation[] = ["wgd"];
const [other] = wireguardGoCommand();
if (other.startsWith("/") || findProgram(other) !== undefined) {
  implementations.push("wireguard-go");
} else console.error("wgd bench: no wireguard-go to compare with");

/** CPU seconds that a process has used. */
function cpuSeconds(daemon: Daemon): number {
  const text = Deno.readTextFileSync(`/proc/${daemon.process.pid}/stat`);
  const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
}

/** A figure of memory in MB: VmRSS, VmHWM. */
function memoryMb(daemon: Daemon, field: string): number {
  const text = Deno.readTextFileSync(`/proc/${daemon.process.pid}/status`);
  const match = new RegExp(`${field}:\\s+(\\d+)`).exec(text);
  return Number(match?.[1] ?? 0) / 1024;
}

function percentile(values: number[], p: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))];
}

async function pingUs(lab: Lab): Promise<{ p50: number; p99: number }> {
  const { stdout } = await lab.a.attempt(
    ["ping", "-i", "0.002", "-c", String(PINGS), "-W", "1", INNER.b.v4],
  );
  const times = [...stdout.matchAll(/time=([\d.]+) ms/g)]
    .map(([, ms]) => Number(ms) * 1000);
  return { p50: percentile(times, 0.5), p99: percentile(times, 0.99) };
}

/** Runs iperf3 and gives its result with the daemons' CPU seconds. */
async function measured(
  { lab, a, b }: Tunnel,
  args: string[],
): Promise<{ result: IperfResult; cpu: number }> {
  const before = cpuSeconds(a) + cpuSeconds(b);
  const result = await iperf(lab.a, lab.b, INNER.b.v4, args);
  return { result, cpu: cpuSeconds(a) + cpuSeconds(b) - before };
}

async function measure(implementation: Implementation): Promise<Figures> {
  await using lab = await Lab.make();
  const tunnel = await Tunnel.make(lab, {
    a: implementation,
    b: implementation,
  });
  await pingUs(lab); // warms up
  const figures: Figures = {};
  figures["rss_idle_mb"] = memoryMb(tunnel.a, "VmRSS");
  const idle = await pingUs(lab);
  figures["ping_idle_p50_us"] = idle.p50;
  figures["ping_idle_p99_us"] = idle.p99;
  for (const [name, args] of [["tcp1", []], ["tcp4", ["-P", "4"]]] as const) {
    const time = ["-t", String(seconds)];
    const { result, cpu } = await measured(tunnel, [...time, ...args]);
    const { bytes, "bits_per_second": rate } = result.end["sum_received"];
    figures[`${name}_mbps`] = rate / 1e6;
    figures[`${name}_cpu_s_per_gb`] = cpu / (bytes / 1e9);
  }
  const load = iperf(lab.a, lab.b, INNER.b.v4, ["-t", "5"]);
  const loaded = await pingUs(lab);
  await load;
  figures["ping_load_p50_us"] = loaded.p50;
  figures["ping_load_p99_us"] = loaded.p99;
  for (
    const [name, pps] of [["udp_flood", 0], [
      "udp_paced",
      UDP_PACED_PPS,
    ]] as const
  ) {
    const rate = String(pps * UDP_BYTES * 8);
    const udp = ["-u", "-b", rate, "-l", String(UDP_BYTES), "-t", "3"];
    const { result, cpu } = await measured(tunnel, udp);
    const sum = result.end.sum;
    if (sum === undefined) throw new Error("iperf3 gave no sum");
    const received = sum.packets - sum["lost_packets"];
    figures[`${name}_rx_kpps`] = received / 3 / 1000;
    figures[`${name}_cpu_us_per_packet`] = cpu * 1e6 / received;
  }
  figures["rss_peak_mb"] = memoryMb(tunnel.a, "VmHWM");
  return figures;
}

const all: Record<string, Figures[]> = {};
for (let round = 0; round < rounds; round++) {
  for (const implementation of implementations) {
    (all[implementation] ??= []).push(await measure(implementation));
  }
}

const names = Object.keys(all.wgd[0]);
const medians = Object.fromEntries(
  Object.entries(all).map(([implementation, list]) => [
    implementation,
    Object.fromEntries(
      names.map((name) => [
        name,
        percentile(list.map((figures) => figures[name]), 0.5),
      ]),
    ),
  ]),
);
if (options.json) {
  console.log(JSON.stringify({ rounds, seconds, medians, all }));
} else {
  console.log(`medians of ${rounds} rounds, in turn`);
  const columns = ["", ...implementations, "ratio"];
  console.log(columns.map((text) => text.padStart(24)).join(""));
  for (const name of names) {
    const values = implementations.map((i) => medians[i][name]);
    const ratio = values.length > 1 ? (values[0] / values[1]).toFixed(2) : "";
    const cells = [name, ...values.map((value) => value.toFixed(1)), ratio];
    console.log(cells.map((text) => text.padStart(24)).join(""));
  }
}
