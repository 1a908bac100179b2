/**
 * What many peers on one interface cost, one address each: time to configure and
 * memory, a dump, the change of one peer, removal, the longest that control
 * keeps others waiting, and a tunnel's throughput and ping beside them, against
 * those of a daemon with one peer at the same time; and lookups. Beside
 * wireguard-go, up to the 65,536 peers that it takes.
 *
 *     deno run -A tests/bench/scale_bench.ts [--peers N,N] [--rounds N]
 *         [--seconds N] [--json]
 *
 * WGD_WIREGUARD_GO names another wireguard-go than the PATH's. Needs root,
 * iproute2, iperf3, ping, wireguard-tools.
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { parseArgs } from "@std/cli/parse-args";
import type { Daemon, Implementation } from "../netns/daemon.ts";
import { Lab } from "../netns/lab.ts";
import { delay, run } from "../netns/process.ts";
import {
  findProgram,
  missing,
  wgdCommand,
  wireguardGoCommand,
} from "../netns/requirements.ts";
import { iperf } from "../netns/traffic.ts";
import { generateKeys } from "../netns/tunnel.ts";
import { Meter } from "./scale_meter.ts";
import { lookupNs, PREFIXES, type PrefixKind } from "./scale_lookup.ts";
import { ask, configFile, setRequest } from "./scale_peers.ts";

const PINGS = 300;
const SETTLE_MS = 1_500;
const WIREGUARD_GO_PEERS_MAX = 65_536;
const LOOKUP_PREFIXES = 1_000;
const WG_TIMEOUT_S = 300;

/** One column; the names say the units. */
type Figures = Record<string, number>;

const options = parseArgs(Deno.args, {
  boolean: ["json"],
  string: ["peers", "rounds", "seconds"],
  default: {
    peers: "1,1000,10000,100000,500000",
    rounds: "3",
    seconds: "2",
  },
});
const counts = options.peers.split(",").map(Number);
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

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];
}

async function pingUs(lab: Lab, to: string): Promise<number> {
  const { stdout } = await lab.a.attempt(
    ["ping", "-i", "0.002", "-c", String(PINGS), "-W", "1", to],
  );
  const times = [...stdout.matchAll(/time=([\d.]+) ms/g)]
    .map(([, ms]) => Number(ms) * 1000);
  return times.length === 0 ? NaN : median(times);
}

/** Two daemons that are each other's peer; `net` tells pairs apart. */
async function makePair(
  lab: Lab,
  implementation: Implementation,
  net: number,
): Promise<{ a: Daemon; b: Daemon; far: string }> {
  const [a, b, keysOfA, keysOfB] = await Promise.all([
    lab.a.daemon(implementation),
    lab.b.daemon(implementation),
    generateKeys(),
    generateKeys(),
  ]);
  const [near, far, port] = [`10.9.${net}.1`, `10.9.${net}.2`, 51_900 + net];
  await b.set(
    ...["private-key", lab.file(keysOfB.private), "listen-port", String(port)],
    ...["peer", keysOfA.public, "allowed-ips", `${near}/32`],
  );
  await a.set(
    ...["private-key", lab.file(keysOfA.private)],
    ...["peer", keysOfB.public, "allowed-ips", `${far}/32`],
    ...["endpoint", `10.77.0.2:${port}`],
  );
  await b.up(`${far}/24`);
  await a.up(`${near}/24`);
  await pingUs(lab, far);
  return { a, b, far };
}

function expectDone(what: string, { errno }: { errno: number }): void {
  if (errno !== 0) throw new Error(`${what}: errno=${errno}`);
}

/** Time of a command that must succeed, its output thrown away. */
async function timed(command: string): Promise<number> {
  const startMs = performance.now();
  await run(["sh", "-c", command], { timeoutS: WG_TIMEOUT_S });
  return (performance.now() - startMs) / 1000;
}

/** Writes the peers to a file of `wg syncconf`, after the one that a tunnel has. */
async function writeConfig(
  lab: Lab,
  { a }: { a: Daemon },
  count: number,
  changed?: number,
): Promise<string> {
  const path = lab.file(await a.wg("showconf", a.name));
  using file = Deno.openSync(path, { append: true });
  const encoder = new TextEncoder();
  let text = "\n";
  for (const peer of configFile(count, changed)) {
    text += peer;
    if (text.length < 1 << 20) continue;
    file.writeSync(encoder.encode(text));
    text = "";
  }
  file.writeSync(encoder.encode(text));
  return path;
}

async function measure(
  implementation: Implementation,
  count: number,
): Promise<Figures> {
  const figures: Figures = {};
  await using lab = await Lab.make();
  const one = await makePair(lab, implementation, 1);
  const many = await makePair(lab, implementation, 2);
  const { name } = many.a;
  const rssMb = (): number => many.a.residentBytes() / 1e6;
  await delay(SETTLE_MS);
  // Without the tunnel's own peer.
  const added = Math.max(1, count - 1);
  const before = many.a.residentBytes();
  figures["rss_before_mb"] = before / 1e6;
  const oneFile = await writeConfig(lab, many, 0);
  const set = await ask(name, setRequest(added));
  expectDone("set", set);
  await delay(SETTLE_MS);
  figures["set_s"] = set.seconds;
  figures["rss_loaded_mb"] = rssMb();
  figures["bytes_a_peer"] = (many.a.residentBytes() - before) / added;
  const dump = await ask(name, ["get=1\n\n"]);
  expectDone("get", dump);
  figures["get_s"] = dump.seconds;
  figures["wg_show_dump_s"] = await timed(`wg show ${name} dump > /dev/null`);
  const wgd = wgdCommand().join(" ");
  figures["wgd_show_dump_head_s"] = await timed(
    `test $(${wgd} show ${name} dump | head -n 2 | wc -l) = 2`,
  );
  const changed = await writeConfig(lab, many, added, 0);
  figures["wg_syncconf_s"] = await timed(`wg syncconf ${name} ${changed}`);
  await delay(SETTLE_MS);
  figures["rss_after_dumps_mb"] = rssMb();
  await traffic(lab, one.far, many.far, figures);
  figures["wg_syncconf_remove_s"] = await timed(
    `wg syncconf ${name} ${oneFile}`,
  );
  await delay(SETTLE_MS);
  figures["rss_removed_mb"] = rssMb();
  figures["peers_left"] = (await many.a.peers()).length;
  if (implementation === "wgd") await stalls(lab, count, figures);
  return figures;
}

/** Throughput and ping of both tunnels in turn. */
async function traffic(
  lab: Lab,
  one: string,
  many: string,
  figures: Figures,
): Promise<void> {
  const all: Record<string, number[]> = {};
  const add = (key: string, value: number): void => {
    (all[key] ??= []).push(value);
  };
  for (let round = 0; round < rounds; round++) {
    for (const [key, to] of [["one", one], ["many", many]]) {
      add(`ping_us_${key}`, await pingUs(lab, to));
      const args = ["-t", String(seconds)];
      const { end } = await iperf(lab.a, lab.b, to, args);
      add(`tcp_mbps_${key}`, end["sum_received"]["bits_per_second"] / 1e6);
    }
  }
  for (const [key, values] of Object.entries(all)) {
    figures[key] = median(values);
  }
  // Of neighbours in time, as the machine's speed changes.
  for (const name of ["ping_us", "tcp_mbps"]) {
    const one = all[`${name}_one`];
    const ratios = all[`${name}_many`].map((value, i) => value / one[i]);
    figures[`${name}_ratio`] = median(ratios);
  }
}

/** CPU time of the longest turn of control while the peers come, are told and go. */
async function stalls(
  lab: Lab,
  count: number,
  figures: Figures,
): Promise<void> {
  await using meter = await Meter.start(lab);
  const { name } = meter;
  // What is compiled for the first time takes its time with one peer, too.
  for (const peers of [Math.min(count, 20_000), count]) {
    await meter.reset();
    const set = await ask(name, setRequest(peers));
    expectDone("set", set);
    figures["stall_set_ms"] = (await meter.reset()).cpuMs;
    expectDone("get", await ask(name, ["get=1\n\n"]));
    figures["stall_get_ms"] = (await meter.reset()).cpuMs;
    await lab.a.ip("link", "set", name, "down");
    await delay(SETTLE_MS);
    figures["stall_down_ms"] = (await meter.reset()).cpuMs;
    await lab.a.ip("link", "set", name, "up");
    await delay(SETTLE_MS);
    figures["stall_up_ms"] = (await meter.reset()).cpuMs;
    const removal = await ask(name, ["set=1\nreplace_peers=true\n\n"]);
    expectDone("removal", removal);
    figures["replace_peers_s"] = removal.seconds;
    figures["stall_remove_ms"] = (await meter.reset()).cpuMs;
  }
  figures["objects_left"] = await meter.objects();
}

const all: Record<string, Record<number, Figures>> = {};
for (const count of counts) {
  for (const implementation of implementations) {
    if (implementation !== "wgd" && count > WIREGUARD_GO_PEERS_MAX) continue;
    console.error(`${implementation}: ${count} peers`);
    (all[implementation] ??= {})[count] = await measure(implementation, count);
  }
}
const lookups: Record<string, Record<number, number>> = {};
for (const kind of Object.keys(PREFIXES) as PrefixKind[]) {
  for (const count of new Set([LOOKUP_PREFIXES, ...counts])) {
    (lookups[kind] ??= {})[count] = lookupNs(kind, count);
  }
}

function table(title: string, columns: number[], rows: Figures[]): void {
  console.log(`\n${title}`);
  const print = (cells: string[]): void =>
    console.log(cells.map((text, i) => text.padStart(i ? 11 : 24)).join(""));
  print(["peers", ...columns.map(String)]);
  for (const name of Object.keys(rows[0])) {
    const values = rows.map((figures) => figures[name] ?? NaN);
    print([name, ...values.map((v) => v.toFixed(v < 100 ? 2 : 0))]);
  }
}

if (options.json) {
  console.log(JSON.stringify({ rounds, seconds, all, lookups }));
} else {
  for (const [implementation, figures] of Object.entries(all)) {
    table(
      implementation,
      Object.keys(figures).map(Number),
      Object.values(figures),
    );
  }
  const columns = Object.keys(Object.values(lookups)[0]).map(Number);
  table(
    "lookup, ns",
    columns,
    columns.map((count) =>
      Object.fromEntries(
        Object.entries(lookups).map(([kind, ns]) => [kind, ns[count]]),
      )
    ),
  );
}
