/** Traffic through a tunnel: ping and iperf3, with what they measured. */
import { assert, assertEquals } from "@std/assert";
import type { Namespace } from "./lab.ts";
import { attempt, type Process, run, until } from "./process.ts";

/** How to ping. */
export interface PingOptions {
  readonly count?: number;
  readonly sizeBytes?: number;
  readonly intervalS?: number;
  /** DS field of the packets. */
  readonly tos?: number;
  /**
   * Whether to wait for the last answer: ping itself gives it no more than twice
   * the longest time so far, which is little on a busy machine. It sends more
   * than `count` meanwhile.
   */
  readonly patient?: boolean;
}

const PATIENCE_S = 5;

/** What became of pings. */
export interface PingResult {
  readonly sent: number;
  readonly received: number;
  readonly output: string;
}

/** Pings and tells how many answers came. */
export async function ping(
  from: Namespace,
  to: string,
  { count = 3, sizeBytes = 56, intervalS = 0.05, tos = 0, patient = false }:
    PingOptions = {},
): Promise<PingResult> {
  const { stdout, stderr } = await attempt(from.argv([
    ...["ping", "-n", "-c", String(count), "-i", String(intervalS)],
    ...patient ? ["-w", String(PATIENCE_S)] : [],
    ...["-W", "3", "-s", String(sizeBytes), "-Q", String(tos), to],
  ]));
  const match = /(\d+) packets transmitted, (\d+) received/.exec(stdout);
  const [, sent = "0", received = "0"] = match ?? [];
  return {
    sent: Number(sent),
    received: Number(received),
    output: stdout + stderr,
  };
}

/** Pings, and every ping must be answered. */
export async function assertPings(
  from: Namespace,
  to: string,
  options: PingOptions = {},
): Promise<void> {
  const { output } = await ping(from, to, { ...options, patient: true });
  const what = `ping ${to} in ${from.name} ${JSON.stringify(options)}`;
  const answered = [...output.matchAll(/bytes from .* icmp_seq=(\d+) /g)]
    .map(([, number]) => Number(number));
  const count = options.count ?? 3;
  const wanted = Array.from({ length: count }, (_, i) => i + 1);
  assertEquals(answered.slice(0, count), wanted, `${what}\n${output}`);
}

/** A ping that goes on until the lab ends. */
export class Pinger {
  readonly #process: Process;

  constructor(from: Namespace, to: string, intervalS = 0.1) {
    this.#process = from.spawn(
      ["ping", "-n", "-O", "-i", String(intervalS), to],
    );
  }

  /** When answers came. */
  get repliesMs(): number[] {
    return this.#process.timesOf(/bytes from/);
  }

  /** Waits for `count` answers later than now. @returns ms until the last */
  async replies(count: number, timeoutMs: number): Promise<number> {
    const sinceMs = Date.now();
    await until(
      `${count} answers to ${this.#process.argv.join(" ")}`,
      () => this.repliesMs.filter((ms) => ms > sinceMs).length >= count,
      timeoutMs,
    );
    return Date.now() - sinceMs;
  }
}

interface IperfSum {
  readonly bytes: number;
  readonly "bits_per_second": number;
}

/** What of iperf3's report is looked at. */
export interface IperfResult {
  readonly error?: string;
  readonly end: {
    readonly sum?: {
      readonly "lost_packets": number;
      readonly packets: number;
    };
    readonly "sum_received": IperfSum;
    readonly "sum_received_bidir_reverse"?: IperfSum;
    readonly "sum_sent": IperfSum;
  };
  readonly intervals: readonly {
    readonly sum: { bytes: number; start: number };
  }[];
}

let ports = 0;

/** Runs iperf3 between two namespaces. */
export async function iperf(
  client: Namespace,
  server: Namespace,
  address: string,
  args: readonly string[],
  timeoutS = 60,
): Promise<IperfResult> {
  const port = String(5201 + ports++ % 1000);
  const listening = server.spawn(["iperf3", "-s", "-1", "-p", port]);
  await until(
    "iperf3 to listen",
    async () => (await run(server.argv(["ss", "-tlnH"]))).includes(`:${port} `),
  );
  const { stdout, stderr } = await attempt(
    client.argv(["iperf3", "-c", address, "-p", port, "-J", ...args]),
    { timeoutS },
  );
  assert(stdout.startsWith("{"), `iperf3 ${args.join(" ")}: ${stderr}`);
  const result: IperfResult = JSON.parse(stdout);
  assertEquals(result.error, undefined, `iperf3 ${args.join(" ")}`);
  await listening.ended();
  return result;
}

/** A TCP transfer both ways, one after the other or at once. */
export async function assertTcp(
  client: Namespace,
  server: Namespace,
  address: string,
  args: readonly string[] = [],
  together = false,
): Promise<void> {
  for (const direction of together ? ["--bidir"] : ["-b0", "-R"]) {
    const all = ["-t", "1", ...args, direction];
    const { end } = await iperf(client, server, address, all);
    const sums = together
      ? [end.sum_received, end.sum_received_bidir_reverse]
      : [end.sum_received];
    for (const sum of sums) {
      const mbit = (sum?.bits_per_second ?? 0) / 1e6;
      assert(mbit > 5, `iperf3 ${all.join(" ")}: ${mbit} Mbit/s`);
    }
  }
}

/** 20 Mbit/s of UDP both ways, one after the other; nothing may be lost. */
export async function assertUdp(
  client: Namespace,
  server: Namespace,
  address: string,
): Promise<void> {
  for (const direction of ["-i1", "-R"]) {
    const args = ["-u", "-b", "20M", "-t", "1", direction];
    const { end } = await iperf(client, server, address, args);
    const what = `iperf3 ${args.join(" ")} in ${client.name}`;
    assert((end.sum?.packets ?? 0) > 1000, what);
    assertEquals(end.sum?.lost_packets, 0, `${what}: packets lost`);
  }
}
