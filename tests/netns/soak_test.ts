/**
 * Correctness under speed: mixed TCP and UDP, IPv4 and IPv6, over a wire that
 * loses, delays and doubles packets. Every byte is the same at the far end,
 * nothing comes twice, no packet is called a replay that is none, and a daemon
 * has given back all that it held when it ends.
 *
 * A case takes SECONDS; with WGD_SLOW=1 it takes 60.
 */
import { assert, assertEquals } from "@std/assert";
import type { Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { assertCleanEnd, VERBOSE } from "./last_words.ts";
import { CONTROL_PORT, type MixerReport, type SideReport } from "./mixer.ts";
import { until } from "./process.ts";
import { moduleCommand, wgdLacks } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { INNER, Tunnel } from "./tunnel.ts";
import { type Impairment, Wire, WIRE_PROGRAMS } from "./wire.ts";

const SECONDS = Deno.env.get("WGD_SLOW") === "1" ? 60 : 5;
/** For starting, and for what TCP makes up for after the end. */
const MIXER_EXTRA_S = 180;
const SERVER_READY_MS = 20_000;

const LOSS: Impairment = {
  lossPercent: 1,
  latePercent: 5,
  lateMs: 2,
  duplicatePercent: 0,
};
const LOSS_AND_DUPLICATES: Impairment = { ...LOSS, duplicatePercent: 1 };
const NONE: Impairment = {
  lossPercent: 0,
  latePercent: 0,
  lateMs: 0,
  duplicatePercent: 0,
};

/**
 * Where wireguard-go (0.0.20260522) cuts UDP super-packets, one segment in 65,536
 * gets the checksum zero, which IPv6 forbids: the far end's system drops it.
 */
const ZERO_CHECKSUM_EVERY = 10_000;

/** Handshakes that cross at the start leave a few. */
const UNKNOWN_INDEX_MAX = 10;

/** Counters of what a sound tunnel never does, however bad the wire is. */
const NEVER = [
  "tx_not_ip",
  "tx_bad_offload",
  "tx_no_endpoint",
  "tx_tun_read_failed",
  "rx_invalid_message",
  "rx_key_expired",
  "rx_auth_failed",
  "rx_not_ip",
  "rx_bad_length",
  "rx_wrong_source",
  "rx_receive_failed",
  "rx_tun_write_failed",
] as const;

interface SoakOptions {
  readonly a?: Implementation;
  readonly b?: Implementation;
  readonly args?: readonly string[];
  readonly outer?: "v4" | "v6";
  readonly wire?: Impairment;
  /** See WireOptions. */
  readonly split?: boolean;
}

/** Runs the mixer through the tunnel. */
async function mix(lab: Lab): Promise<MixerReport> {
  const server = lab.b.spawn(moduleCommand("mixer.ts", "server"));
  await until("the mixer's server", async () => {
    assert(server.status === undefined, server.said);
    return (await lab.b.run(["ss", "-tlnH"])).includes(`:${CONTROL_PORT} `);
  }, SERVER_READY_MS);
  const seed = crypto.getRandomValues(new Uint32Array(1))[0];
  const said = await lab.a.run(
    moduleCommand(
      "mixer.ts",
      ...["client", String(SECONDS), String(seed), INNER.b.v4, INNER.b.v6],
    ),
    { timeoutS: SECONDS + MIXER_EXTRA_S },
  );
  assertEquals((await server.ended()).code, 0, server.said);
  return JSON.parse(said);
}

/**
 * Checks what one side received of what the other sent.
 *
 * @param by who sealed it
 */
function assertSame(
  from: SideReport,
  to: SideReport,
  by: Implementation,
  what: string,
): void {
  const { tcp, udp } = to;
  assertEquals(tcp.failures, [], what);
  assertEquals(tcp.received, from.tcp.sent, `${what}: TCP`);
  assert(tcp.received.streams > 24, `${what}: ${tcp.received.streams} streams`);
  const said = `${what}: ${JSON.stringify({ sent: from.udp, received: udp })}`;
  assertEquals([udp.corrupted, udp.duplicates, udp.refused], [0, 0, 0], said);
  assert(udp.flows === 12, said);
  assert(udp.received > 1000 && udp.receivedShort > 0, said);
  // Enough of it came; slow machines and peers lose a lot.
  const { sent } = from.udp;
  assert(udp.received > sent / 4 && udp.received <= sent, said);
  assert(udp.receivedShort <= from.udp.sentShort, said);
  // A wrong checksum inside is corruption that the system has hidden.
  const { Udp6InCsumErrors: zeros = 0, ...errors } = to.errors;
  assertEquals(errors, {}, `${what}: errors of the protocols`);
  const zerosMax = by === "wireguard-go" ? sent / ZERO_CHECKSUM_EVERY + 10 : 0;
  assert(zeros <= zerosMax, `${what}: ${zeros} Udp6InCsumErrors`);
}

function assertCounters(
  counters: Record<string, number>,
  wire: Impairment,
  from: string,
): void {
  const text = `${from}: ${JSON.stringify(counters)}`;
  assert(counters.tx_packets > 1000 && counters.rx_packets > 1000, text);
  for (const name of NEVER) assertEquals(counters[name], 0, `${name}, ${text}`);
  assert(counters.rx_unknown_index <= UNKNOWN_INDEX_MAX, text);
  const replays = counters.rx_replayed;
  // Also proof that the wire is as bad as it shall be.
  assert(wire.duplicatePercent > 0 ? replays > 0 : replays === 0, text);
}

/** One case: a tunnel, a bad wire, traffic, the end. */
async function soak(lab: Lab, options: SoakOptions): Promise<void> {
  const { a = "wgd", b = "wgd", args = [], outer } = options;
  const { wire: how = LOSS_AND_DUPLICATES, split } = options;
  const wire = await Wire.make(lab, { split });
  const daemon = { args, env: VERBOSE };
  const tunnel = await Tunnel.make(lab, { a, b, outer, daemon });
  await assertPings(lab.a, INNER.b.v4);
  await assertPings(lab.a, INNER.b.v6);
  if (how !== NONE) await wire.impair(how);
  const { client, server } = await mix(lab);
  report(client, server, await wire.frames());
  assertSame(client, server, a, "client to server");
  assertSame(server, client, b, "server to client");
  for (const side of [tunnel.a, tunnel.b]) {
    if (side.implementation !== "wgd") continue;
    const counters = await assertCleanEnd(side);
    const name = side === tunnel.a ? "a" : "b";
    tell(`${name}: ${JSON.stringify(counters)}`);
    assertCounters(counters, how, name);
  }
}

/** With WGD_REPORT=1, tells what passed. */
function report(client: SideReport, server: SideReport, frames: string): void {
  for (const [name, { tcp, udp }] of Object.entries({ client, server })) {
    const { bytes, streams } = tcp.received;
    tell(
      `${name} received ${bytes} bytes in ${streams} streams, ` +
        `${JSON.stringify(udp)}`,
    );
  }
  tell(frames);
}

function tell(text: string): void {
  if (Deno.env.get("WGD_REPORT") !== "1") return;
  Deno.stderr.writeSync(new TextEncoder().encode(`${text}\n`));
}

const noLanes = wgdLacks("--lanes");

function soakTest(name: string, options: SoakOptions, skip?: string): void {
  const { a = "wgd", b = "wgd" } = options;
  const programs = [...WIRE_PROGRAMS, ...new Set([a, b])]
    .filter((program) => program !== "wgd");
  labTest(
    `soak: ${name}: every byte comes over a bad wire, once`,
    { programs, joined: false, skip },
    (lab) => soak(lab, options),
  );
}

soakTest("wgd to wgd", {});
soakTest("wgd to wgd, IPv6 outside, super-packets cut by the wire", {
  outer: "v6",
  split: true,
});
soakTest("wgd to wgd, a good wire: no replays", { wire: NONE });
soakTest("wgd to wgd, no duplicates: no replays", { wire: LOSS, split: true });
for (const offload of ["none", "tun", "udp"]) {
  soakTest(`wgd --offload ${offload}`, {
    args: ["--offload", offload],
    split: offload === "udp",
  });
}
for (const threads of ["1", "2"]) {
  soakTest(`wgd --threads ${threads}`, { args: ["--threads", threads] });
}
for (const lanes of ["0", "1", "3"]) {
  soakTest(
    `wgd --lanes ${lanes}`,
    { args: ["--lanes", lanes], split: lanes === "3" },
    noLanes,
  );
}
soakTest("wgd to wireguard-go", { b: "wireguard-go" });
soakTest("wireguard-go to wgd", { a: "wireguard-go", split: true });
