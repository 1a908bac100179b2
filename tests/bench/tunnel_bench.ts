/**
 * Times whole tunnels, two daemons of one implementation in two namespaces on
 * this machine, contenders in turn: TCP one stream and four, small UDP packets,
 * ping idle and under load, CPU and memory of the daemons. Medians of the
 * rounds, and the ratios to the first contender.
 *
 * @module
 */

import type { Daemon, Implementation } from "../netns/daemon.ts";
import { Lab } from "../netns/lab.ts";
import { attempt } from "../netns/process.ts";
import { findProgram, missing, otherCommand } from "../netns/requirements.ts";
import { iperf, type IperfResult } from "../netns/traffic.ts";
import { INNER, Tunnel } from "../netns/tunnel.ts";
import { digits, median, percentile, table } from "./report.ts";

const UDP_BYTES = 64;
const UDP_S = 3;
/** Rate at which the CPU of a packet is measured; the flood has no limit. */
const UDP_PACED_PPS = 30_000;
const PINGS = 1000;
const LOAD_S = 5;
/** Until TCP under the pings is at full speed. */
const LOAD_STARTS_MS = 800;
const CLOCK_TICKS = 100;

/** One round's figures; the names say the units. */
export type Figures = Record<string, number>;

/** A daemon that is measured. */
export interface Contender {
  readonly name: string;
  readonly implementation: Implementation;
  /** Options of `wgd run`. */
  readonly args: readonly string[];
}

/** What was measured. */
export interface TunnelReport {
  readonly rounds: number;
  readonly seconds: number;
  readonly contenders: readonly (Contender & { readonly version: string })[];
  readonly medians: Record<string, Figures>;
  /** Each round by itself. */
  readonly all: Record<string, Figures[]>;
}

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
  args: readonly string[],
): Promise<{ result: IperfResult; cpu: number }> {
  const before = cpuSeconds(a) + cpuSeconds(b);
  const result = await iperf(lab.a, lab.b, INNER.b.v4, args);
  return { result, cpu: cpuSeconds(a) + cpuSeconds(b) - before };
}

async function measureTcp(
  tunnel: Tunnel,
  seconds: number,
  streams: number,
): Promise<Figures> {
  const args = ["-t", String(seconds), "-P", String(streams)];
  const { result, cpu } = await measured(tunnel, args);
  const { bytes, "bits_per_second": rate } = result.end["sum_received"];
  return {
    [`tcp${streams}_mbps`]: rate / 1e6,
    [`tcp${streams}_cpu_s_per_gb`]: cpu / (bytes / 1e9),
  };
}

async function measureUdp(
  tunnel: Tunnel,
  name: string,
  pps: number,
): Promise<Figures> {
  const rate = String(pps * UDP_BYTES * 8);
  const time = ["-t", String(UDP_S)];
  const args = ["-u", "-b", rate, "-l", String(UDP_BYTES), ...time];
  const { result, cpu } = await measured(tunnel, args);
  const sum = result.end.sum;
  if (sum === undefined) throw new Error("iperf3 gave no sum");
  const received = sum.packets - sum["lost_packets"];
  return {
    [`${name}_rx_kpps`]: received / UDP_S / 1000,
    [`${name}_cpu_us_per_packet`]: cpu * 1e6 / received,
  };
}

async function measure(
  { implementation, args }: Contender,
  seconds: number,
): Promise<Figures> {
  await using lab = await Lab.make();
  const tunnel = await Tunnel.make(lab, {
    a: implementation,
    b: implementation,
    daemon: { args },
  });
  await pingUs(lab); // warms up
  const rssIdle = memoryMb(tunnel.a, "VmRSS");
  const idle = await pingUs(lab);
  const tcp1 = await measureTcp(tunnel, seconds, 1);
  const tcp4 = await measureTcp(tunnel, seconds, 4);
  const load = iperf(lab.a, lab.b, INNER.b.v4, ["-t", String(LOAD_S)]);
  await new Promise((resolve) => setTimeout(resolve, LOAD_STARTS_MS));
  const loaded = await pingUs(lab);
  await load;
  return {
    ...tcp1,
    ...tcp4,
    ...await measureUdp(tunnel, "udp_flood", 0),
    ...await measureUdp(tunnel, "udp_paced", UDP_PACED_PPS),
    "ping_idle_p50_us": idle.p50,
    "ping_idle_p99_us": idle.p99,
    "ping_load_p50_us": loaded.p50,
    "ping_load_p99_us": loaded.p99,
    "rss_idle_mb": rssIdle,
    "rss_peak_mb": memoryMb(tunnel.a, "VmHWM"),
  };
}

/** What the machine lacks for it, in words; undefined: nothing. */
export function missingForTunnels(): string | undefined {
  return missing(["iperf3"]);
}

/** The other implementations that are here. */
export function otherContenders(): Contender[] {
  return (["wireguard-go", "boringtun"] as const).filter((implementation) => {
    const [program] = otherCommand(implementation);
    return program.startsWith("/") || findProgram(program) !== undefined;
  }).map((implementation) => ({
    name: implementation,
    implementation,
    args: [],
  }));
}

async function versionOf({ implementation }: Contender): Promise<string> {
  if (implementation === "wgd") return "";
  const command = [...otherCommand(implementation), "--version"];
  const { stdout } = await attempt(command);
  return stdout.split("\n")[0].trim();
}

/** Runs all contenders in turn, round after round. */
export async function benchTunnels(
  { rounds, seconds, contenders, progress }: {
    readonly rounds: number;
    /** Of each TCP transfer. */
    readonly seconds: number;
    readonly contenders: readonly Contender[];
    progress(text: string): void;
  },
): Promise<TunnelReport> {
  const all: Record<string, Figures[]> = {};
  const versions = await Promise.all(contenders.map(versionOf));
  for (let round = 1; round <= rounds; round++) {
    for (const contender of contenders) {
      progress(`tunnel, round ${round} of ${rounds}: ${contender.name}`);
      (all[contender.name] ??= []).push(await measure(contender, seconds));
    }
  }
  const medians = Object.fromEntries(
    Object.entries(all).map(([name, list]) => [name, mediansOf(list)]),
  );
  return {
    rounds,
    seconds,
    contenders: contenders.map((contender, i) => ({
      ...contender,
      version: versions[i],
    })),
    medians,
    all,
  };
}

function mediansOf(list: readonly Figures[]): Figures {
  return Object.fromEntries(
    Object.keys(list[0]).map((name) => [
      name,
      median(list.map((figures) => figures[name])),
    ]),
  );
}

/** The medians as a table, with ratios of the first contender to the others. */
export function tunnelTable(
  { rounds, seconds, contenders, medians }: TunnelReport,
): string {
  const names = contenders.map(({ name }) => name);
  const [first, ...others] = names;
  const rows = Object.keys(medians[first]).map((figure) => [
    figure,
    ...names.map((name) => digits(medians[name][figure])),
    ...others.map((name) =>
      (medians[first][figure] / medians[name][figure]).toFixed(2)
    ),
  ]);
  const versions = contenders.filter(({ version }) => version !== "")
    .map(({ name, version }) => `${name}: ${version}\n`);
  const title = `tunnels: medians of ${rounds} rounds of ${seconds} s`;
  const ratios = others.map((name) => `${first}/${name}`);
  return table([[title, ...names, ...ratios], ...rows]) + "\n" +
    versions.join("");
}
