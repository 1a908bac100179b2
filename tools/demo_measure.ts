/**
 * Round trips and throughput through the tunnel: by ping and iperf3 where they
 * are installed and do their work, else by the demo's own programs.
 *
 * @module
 */
import {
  type Commands,
  complaint,
  DemoError,
  isInstalled,
  type Output,
  type Program,
  until,
} from "./demo_process.ts";
import { type ProbeResult, READY, type ReceiveResult } from "./demo_peer.ts";
import type { Side, Stage } from "./demo_stage.ts";
import { moduleCommand } from "./modules.ts";

/** Round trips. */
export interface Pings {
  readonly sent: number;
  readonly received: number;
  readonly minMs: number;
  readonly avgMs: number;
  readonly maxMs: number;
}

/** A transfer. */
export interface Transfer {
  readonly bytes: number;
  readonly seconds: number;
}

/** Seconds that a throughput test takes. */
export const TRANSFER_SECONDS = 3;
const PING_INTERVAL_SECONDS = 0.2;
const IPERF_PORT = 5201;
const OWN_PORT = 5202;
const START_TIMEOUT_MS = 5_000;

/** Reads what ping(8) of iputils, busybox or inetutils prints at its end. */
export function parsePing(text: string): Pings | null {
  const counts = /(\d+) packets transmitted, (\d+) (?:packets )?received/.exec(
    text,
  );
  if (counts === null) return null;
  const times = /= *([\d.]+)\/([\d.]+)\/([\d.]+)/.exec(text);
  const [minMs, avgMs, maxMs] = times?.slice(1).map(Number) ?? [NaN, NaN, NaN];
  const [sent, received] = counts.slice(1).map(Number);
  return { sent, received, minMs, avgMs, maxMs };
}

/** Reads what `iperf3 -J` prints; null unless something arrived. */
export function parseIperf(text: string): Transfer | null {
  let result: { end?: { sum_received?: Partial<Transfer> } };
  try {
    result = JSON.parse(text);
  } catch {
    return null;
  }
  const { bytes, seconds } = result.end?.sum_received ?? {};
  return bytes && seconds ? { bytes, seconds } : null;
}

function summary({ sent, roundTripsMs }: ProbeResult): Pings {
  const received = roundTripsMs.length;
  return {
    sent,
    received,
    minMs: Math.min(...roundTripsMs),
    avgMs: roundTripsMs.reduce((sum, ms) => sum + ms, 0) / received,
    maxMs: Math.max(...roundTripsMs),
  };
}

/** Measures between the sides of a stage. */
export class Meter {
  readonly #commands: Commands;
  readonly #stage: Stage;
  #ping: boolean;
  #iperf3: boolean;

  /** @param builtin whether to do without ping and iperf3 */
  constructor(commands: Commands, stage: Stage, builtin: boolean) {
    this.#commands = commands;
    this.#stage = stage;
    this.#ping = !builtin && isInstalled("ping");
    this.#iperf3 = !builtin && isInstalled("iperf3");
  }

  /** What measures the round trips. */
  get pingName(): string {
    return this.#ping ? "ping" : "wgd's own UDP echo";
  }

  /** What measures the throughput. */
  get transferName(): string {
    return this.#iperf3 ? "iperf3" : "wgd's own TCP sender";
  }

  /** Takes the time of `count` round trips. */
  async ping(from: Side, address: string, count: number): Promise<Pings> {
    if (this.#ping) {
      const options = [
        ...["-n", "-c", String(count), "-W", "1"],
        ...(count > 1 ? ["-i", String(PING_INTERVAL_SECONDS)] : []),
        ...(address.includes(":") ? ["-6"] : []),
      ];
      const { stdout } = await this.#runIn(from, ["ping", ...options, address]);
      const pings = parsePing(stdout);
      if (pings !== null) return pings;
      this.#ping = false; // one that may not send, or knows other options
    }
    return await this.#probe(from, address, count);
  }

  /** Sends over TCP for {@link TRANSFER_SECONDS}. */
  async transfer(from: Side, to: Side, address: string): Promise<Transfer> {
    if (this.#iperf3) {
      const transfer = await this.#iperf(from, to, address);
      if (transfer !== null) return transfer;
      this.#iperf3 = false;
    }
    return await this.#send(from, to, address);
  }

  async #iperf(
    from: Side,
    to: Side,
    address: string,
  ): Promise<Transfer | null> {
    const server = this.#startIn(
      to,
      ["iperf3", "-s", "-p", String(IPERF_PORT)],
    );
    const client = [
      ...["iperf3", "-c", address, "-p", String(IPERF_PORT)],
      ...["-t", String(TRANSFER_SECONDS), "-J"],
    ];
    let transfer: Transfer | null = null;
    await until(
      async () => {
        const { stdout } = await this.#runIn(from, client);
        transfer = parseIperf(stdout);
        // The server says that it listens only once its pipe is full.
        return transfer !== null || !/refused/.test(stdout) || !server.running;
      },
      START_TIMEOUT_MS,
      this.#commands.signal,
    );
    await server.stop();
    return transfer;
  }

  async #probe(from: Side, address: string, count: number): Promise<Pings> {
    const { a, b } = this.#stage;
    const to = from === a ? b : a;
    const where = [address, String(OWN_PORT)];
    const echo = await this.#startOwn(to, ["echo", ...where]);
    const probe = peerCommand("probe", ...where, String(count));
    const output = await this.#runIn(from, probe);
    await echo.stop();
    return summary(ownResult<ProbeResult>(output));
  }

  async #send(from: Side, to: Side, address: string): Promise<Transfer> {
    const where = [address, String(OWN_PORT)];
    const receiver = await this.#startOwn(to, ["receive", ...where]);
    const send = peerCommand("send", ...where, String(TRANSFER_SECONDS));
    const output = await this.#runIn(from, send);
    if (output.code !== 0) throw ownFailed(output);
    await receiver.ended;
    const { stdout, stderr } = receiver;
    return ownResult<ReceiveResult>({
      code: 0,
      stdout: stdout.slice(READY.length),
      stderr,
    });
  }

  async #startOwn(side: Side, args: readonly string[]): Promise<Program> {
    const program = this.#startIn(side, peerCommand(...args));
    const { signal } = this.#commands;
    const started = await until(
      () => program.stdout.startsWith(READY) || !program.running,
      START_TIMEOUT_MS,
      signal,
    );
    if (started && program.running) return program;
    throw ownFailed({ code: 1, stdout: "", stderr: program.stderr });
  }

  #runIn(side: Side, argv: readonly string[]): Promise<Output> {
    return this.#commands.run(this.#stage.inside(side, argv));
  }

  #startIn(side: Side, argv: readonly string[]): Program {
    return this.#commands.start(this.#stage.inside(side, argv));
  }
}

/** Command line that runs tools/demo_peer.ts. */
function peerCommand(...args: string[]): string[] {
  return moduleCommand("tools/demo_peer.ts", args);
}

function ownResult<T>(output: Output): T {
  if (output.code !== 0) throw ownFailed(output);
  return JSON.parse(output.stdout);
}

function ownFailed(output: Output): DemoError {
  return new DemoError(`nothing goes through the tunnel: ${complaint(output)}`);
}
