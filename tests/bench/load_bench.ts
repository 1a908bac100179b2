/**
 * Floods a device with handshake initiations from forged addresses and measures
 * what an established tunnel still carries, and when a new peer gets in
 * (tests/netns/attack.ts).
 *
 * The floods: "stopped", dropped by a rule before b's socket, so that what the
 * attacker itself takes of this machine shows; "nothing", with a wrong mac1;
 * "mac1", by who knows b's public key; "cookie", with any mac2 besides.
 *
 *     deno run -A tests/bench/load_bench.ts [--rounds N] [--seconds N]
 *         [--rate N] [--program wgd|wireguard-go] [--floods LIST] [--json]
 *
 * Needs root, iproute2, iperf3, nft, ping, wireguard-tools.
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { parseArgs } from "@std/cli/parse-args";
import type { Daemon, Implementation } from "../netns/daemon.ts";
import { Attack, type Flood } from "../netns/attack.ts";
import { Lab, type Namespace } from "../netns/lab.ts";
import { delay } from "../netns/process.ts";
import { missing, wgdCommand } from "../netns/requirements.ts";
import { iperf } from "../netns/traffic.ts";
import { INNER, PORT } from "../netns/tunnel.ts";

const CLOCK_TICKS = 100;
const NEW_PEER_LIMIT_S = 95;
const FLOOD_START_MS = 2_000;

const options = parseArgs(Deno.args, {
  boolean: ["json"],
  string: ["rounds", "seconds", "rate", "program", "floods"],
  default: {
    rounds: "3",
    seconds: "5",
    rate: "50000",
    program: "wgd",
    floods: "none,stopped,nothing,mac1,cookie",
  },
});
const seconds = Number(options.seconds);
const implementation = options.program as Implementation;

const problem = missing(["iperf3", "nft"]);
if (problem !== undefined) {
  console.error(`wgd bench: ${problem}`);
  Deno.exit(1);
}

/** CPU seconds of each of the daemon's threads, by name. */
function cpuSeconds(daemon: Daemon): Map<string, number> {
  const tasks = `/proc/${daemon.process.pid}/task`;
  const sums = new Map<string, number>();
  for (const { name: task } of Deno.readDirSync(tasks)) {
    const text = Deno.readTextFileSync(`${tasks}/${task}/stat`);
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    const name = text.slice(text.indexOf("(") + 1, text.lastIndexOf(")"));
    const seconds = (Number(fields[11]) + Number(fields[12])) / CLOCK_TICKS;
    sums.set(name, (sums.get(name) ?? 0) + seconds);
  }
  return sums;
}

/** Datagrams that a namespace's sockets had no room for. */
async function overflows(namespace: Namespace): Promise<number> {
  const text = await namespace.run(["nstat", "-asz", "UdpRcvbufErrors"]);
  return Number(/UdpRcvbufErrors\s+(\d+)/.exec(text)?.[1]);
}

/** wgd's counters, but for those that say nothing about a flood. */
async function counters(daemon: Daemon): Promise<Map<string, number>> {
  if (implementation !== "wgd") return new Map();
  const text = await daemon.namespace.run(
    [...wgdCommand(), "show", daemon.name, "--stats", "--json"],
  );
  const all = Object.entries<number>(JSON.parse(text));
  return new Map(all.filter(([name]) => /handshake|cookie|drop/.test(name)));
}

interface Figures {
  readonly flood: string;
  readonly mbps: number;
  /** Of b, in cores. */
  readonly daemonCores: number;
  /** The same of the threads that took a part worth naming. */
  readonly threads: Record<string, number>;
  /** Datagrams a second that b's socket had no room for. */
  readonly overflows: number;
  /** What else happened a second, by wgd's counters. */
  readonly events: Record<string, number>;
  /** Initiations a second that were really sent. */
  readonly rate: number;
  readonly attackerCores: number;
  /** Seconds until the new peer's first answer; undefined: not at all. */
  readonly newPeerS?: number;
}

async function measure(flood: string): Promise<Figures> {
  await using lab = await Lab.make();
  const attack = await Attack.make(lab, implementation);
  const { tunnel } = attack;
  await iperf(lab.a, lab.b, INNER.b.v4, ["-t", "3"]); // warms up
  if (flood === "stopped") {
    await lab.b.run(["nft", "-f", "-"], {
      stdin: `table ip f { chain c { type filter hook prerouting priority -400;
        iifname vcb udp dport ${PORT.b} drop; }; }`,
    });
  }
  const floodS = FLOOD_START_MS / 1000 + seconds + NEW_PEER_LIMIT_S;
  const flooding = flood === "none" ? undefined : attack.flood(
    flood === "stopped" ? "mac1" : flood as Flood,
    Number(options.rate),
    floodS,
  );
  await delay(FLOOD_START_MS);
  const before = cpuSeconds(tunnel.b);
  const lostBefore = await overflows(lab.b);
  const countersBefore = await counters(tunnel.b);
  const startMs = Date.now();
  const { end } = await iperf(lab.a, lab.b, INNER.b.v4, [
    "-t",
    options.seconds,
  ]);
  const tookS = (Date.now() - startMs) / 1000;
  const cores = [...cpuSeconds(tunnel.b)].map(([name, seconds]) =>
    [name, (seconds - (before.get(name) ?? 0)) / tookS] as const
  );
  const lost = (await overflows(lab.b) - lostBefore) / tookS;
  const countersTookS = (Date.now() - startMs) / 1000;
  const events = [...await counters(tunnel.b)].map(([name, count]) =>
    [
      name,
      Math.round((count - (countersBefore.get(name) ?? 0)) / countersTookS),
    ] as const
  );
  // The tunnel stays busy while the new peer tries.
  lab.b.spawn(["iperf3", "-s", "-p", "5999"]);
  await delay(300);
  lab.a.spawn(["iperf3", "-c", INNER.b.v4, "-p", "5999", "-t", "600"]);
  const newPeerS = flood === "stopped" ? undefined : await attack.getsIn(
    NEW_PEER_LIMIT_S,
  );
  let rate = 0;
  let attackerCores = 0;
  if (flooding !== undefined) {
    flooding.signal("SIGTERM");
    await flooding.ended();
    const last = flooding.said.trim().split("\n").at(-1) ?? "";
    const match = /sent (\d+) in ([\d.]+) s.*cpu ([\d.]+) s/.exec(last);
    rate = Number(match?.[1]) / Number(match?.[2]);
    attackerCores = Number(match?.[3]) / Number(match?.[2]);
  }
  return {
    flood,
    mbps: end["sum_received"]["bits_per_second"] / 1e6,
    daemonCores: cores.reduce((sum, [, value]) => sum + value, 0),
    threads: Object.fromEntries(cores.filter(([, value]) => value > 0.02)),
    overflows: lost,
    events: Object.fromEntries(events.filter(([, count]) => count > 0)),
    rate,
    attackerCores,
    newPeerS,
  };
}

const all: Figures[] = [];
for (let round = 0; round < Number(options.rounds); round++) {
  for (const flood of options.floods.split(",")) {
    const figures = await measure(flood);
    all.push(figures);
    console.error(JSON.stringify(figures));
  }
}
if (options.json) console.log(JSON.stringify(all));

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

const base = median(
  all.filter(({ flood }) => flood === "none").map(({ mbps }) => mbps),
);
for (const flood of options.floods.split(",")) {
  const mine = all.filter((figures) => figures.flood === flood);
  const mbps = median(mine.map((figures) => figures.mbps));
  const inS = mine.map(({ newPeerS }) => newPeerS?.toFixed(1) ?? "-");
  console.log(
    `${flood.padEnd(8)} ${mbps.toFixed(0).padStart(6)} Mbit/s` +
      ` (${(mbps / base * 100).toFixed(0)} % of none),` +
      ` b ${median(mine.map((f) => f.daemonCores)).toFixed(2)} cores,` +
      ` attacker ${median(mine.map((f) => f.attackerCores)).toFixed(2)} cores` +
      ` for ${median(mine.map((f) => f.rate)).toFixed(0)}/s,` +
      ` new peer after ${inS.join(", ")} s`,
  );
}
