/**
 * The play: from nothing to a tunnel that was measured, step by step, and back
 * to nothing.
 *
 * @module
 */
import { formatSocketAddress } from "../lib/ip.ts";
import type { DeviceState, PeerState } from "../lib/uapi_state.ts";
import { Meter } from "./demo_measure.ts";
import { type Commands, DemoError, until } from "./demo_process.ts";
import {
  formatBytes,
  formatMs,
  formatRangeMs,
  formatRate,
  type Report,
} from "./demo_report.ts";
import {
  LISTEN_PORT,
  removeLeftovers,
  type Side,
  Stage,
} from "./demo_stage.ts";

/** How it is played. */
export interface ActOptions {
  readonly way: "namespaces" | "user namespace";
  /** Whether to measure without ping and iperf3. */
  readonly builtin: boolean;
}

const PINGS = 5;
const FIRST_PINGS_MAX = 12;
const HANDSHAKE_TIMEOUT_MS = 2_000;

/**
 * Plays it and cleans up.
 *
 * @throws DemoError, or the reason of the commands' signal
 */
export async function perform(
  report: Report,
  commands: Commands,
  options: ActOptions,
): Promise<void> {
  const v6 = hasIpv6();
  const entry = options.way === "namespaces" ? "ip netns exec" : "nsenter";
  const stage = new Stage(commands, entry, v6);
  try {
    await setUp(report, commands, stage, options);
    const meter = new Meter(commands, stage, options.builtin);
    await connect(report, commands.signal, stage, meter);
    await pingAll(report, stage, meter, v6);
    await transferAll(report, stage, meter);
  } catch (error) {
    report.abandon(commands.signal.aborted ? "interrupted" : "");
    throw error;
  } finally {
    for (const text of stage.complaints()) report.note(text);
    await cleanUp(report, stage);
  }
}

/** @throws DemoError, in place of what ended the demo, when something is left */
async function cleanUp(report: Report, stage: Stage): Promise<void> {
  report.begin("removed");
  const left = await stage.remove();
  if (left.length > 0) {
    report.abandon("");
    throw new DemoError(`left behind: ${left.join(", ")}`);
  }
  report.ok("daemons, interfaces, namespaces, sockets");
}

function hasIpv6(): boolean {
  try {
    Deno.statSync("/proc/net/if_inet6");
    return true;
  } catch {
    return false;
  }
}

async function setUp(
  report: Report,
  commands: Commands,
  stage: Stage,
  { way }: ActOptions,
): Promise<void> {
  const { a, b } = stage;
  report.block(drawing(a, b));
  const leftovers = await removeLeftovers(commands);
  if (leftovers.length > 0) {
    report.begin("leftovers");
    report.ok(`of a killed demo removed: ${leftovers.join(", ")}`);
  }
  report.begin("namespaces");
  await stage.makeNamespaces();
  const where = way === "namespaces" ? "" : ", in a user namespace";
  report.ok(`two, joined by a veth pair${where}`);

  report.begin("daemons");
  const startMs = performance.now();
  const pids = await stage.startDaemons();
  const tookMs = performance.now() - startMs;
  report.ok(`two, pids ${pids.join(" and ")}, ready in ${formatMs(tookMs)}`);
  const program = Deno.env.get("WGD_PROGRAM");
  if (program) report.note(`they are ${program}`);

  report.begin("configured");
  await stage.configure();
  report.ok("fresh keys, port and peer, each over its UAPI socket");

  report.begin("up");
  await stage.bringUp();
  report.ok(`addresses set, both listen on UDP port ${LISTEN_PORT}`);
}

function drawing(a: Side, b: Side): string[] {
  const row = (left: string, line: string, right: string): string =>
    `  ${left.padEnd(24)}${line.padEnd(18)}${right}`;
  return [
    row(a.namespace, "", b.namespace),
    row(a.device, "", b.device),
    row(`${a.v4}  ${a.v6}`, "=== tunnel ===", `${b.v4}  ${b.v6}`),
    row(`${a.outer} (veth)`, "---- veth ----", `${b.outer} (veth)`),
  ];
}

/** The first packet makes the handshake happen. */
async function connect(
  report: Report,
  signal: AbortSignal,
  stage: Stage,
  meter: Meter,
): Promise<void> {
  report.begin("handshake");
  let first = await meter.ping(stage.a, stage.b.v4, 1);
  let lost = 0;
  while (first.received === 0) {
    if (++lost === FIRST_PINGS_MAX) {
      throw new DemoError("no answer through the tunnel");
    }
    first = await meter.ping(stage.a, stage.b.v4, 1);
  }
  const isDone = async (): Promise<boolean> =>
    (await peers(stage)).every((peer) => peer.lastHandshakeSeconds > 0);
  if (!await until(isDone, HANDSHAKE_TIMEOUT_MS, signal)) {
    throw new DemoError("the daemons tell of no handshake");
  }
  const [, { endpoint }] = await peers(stage);
  const learned = endpoint === undefined
    ? "no endpoint"
    : formatSocketAddress(endpoint);
  report.ok(
    `first answer after ${formatMs(first.avgMs)}; b learned a's endpoint ` +
      learned,
  );
  if (lost > 0) report.note(`pings before it without an answer: ${lost}`);
}

async function peers(stage: Stage): Promise<[PeerState, PeerState]> {
  const peerOf = ({ name, peers: [peer] }: DeviceState): PeerState => {
    if (peer === undefined) throw new DemoError(`${name} has no peer`);
    return peer;
  };
  return [
    peerOf(await stage.state(stage.a)),
    peerOf(await stage.state(stage.b)),
  ];
}

async function pingAll(
  report: Report,
  { a, b }: Stage,
  meter: Meter,
  v6: boolean,
): Promise<void> {
  for (const [from, to] of [[a, b], [b, a]]) {
    for (const address of v6 ? [to.v4, to.v6] : [to.v4]) {
      report.begin(`ping ${from.label} -> ${to.label}`);
      const pings = await meter.ping(from, address, PINGS);
      const { sent, received, minMs, avgMs, maxMs } = pings;
      const count = `${address.padEnd(11)}${received} of ${sent} answered`;
      if (received < sent) throw new DemoError(count);
      report.ok(
        `${count}, ${formatMs(avgMs)} (${formatRangeMs(minMs, maxMs)})`,
      );
    }
  }
  report.note(`round trips by ${meter.pingName}`);
  if (!v6) report.note("this kernel has no IPv6: IPv4 only");
}

async function transferAll(
  report: Report,
  stage: Stage,
  meter: Meter,
): Promise<void> {
  const { a, b } = stage;
  let moved = 0;
  for (const [from, to] of [[a, b], [b, a]]) {
    report.begin(`TCP ${from.label} -> ${to.label}`);
    const { bytes, seconds } = await meter.transfer(from, to, to.v4);
    if (bytes === 0) throw new DemoError("nothing arrived");
    const rate = formatRate(bytes * 8 / seconds);
    report.ok(`${rate}, ${formatBytes(bytes)} in ${formatMs(seconds * 1e3)}`);
    moved += bytes;
  }
  report.note(`one stream at a time, by ${meter.transferName}`);

  report.begin("counted");
  const [ofA, ofB] = await peers(stage);
  const counts = [ofA, ofB].map(({ txBytes, rxBytes }) => ({
    sent: Number(txBytes),
    received: Number(rxBytes),
  }));
  // What arrived inside also went over the cable, and more: the headers.
  if (counts.some(({ sent, received }) => sent + received < moved)) {
    throw new DemoError("the daemons counted less than was transferred");
  }
  const [one, other] = counts.map(({ sent, received }) =>
    `sent ${formatBytes(sent)}, received ${formatBytes(received)}`
  );
  report.ok(`a ${one}; b ${other}`);
}
