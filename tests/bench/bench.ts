/**
 * All benchmarks: AEAD by provider and size beside noble; queues and wake-ups;
 * lanes; whole tunnels beside wireguard-go and boringtun.
 *
 *     deno task bench [--json] [--only crypto|queue|tunnel]
 *                     [--rounds N] [--seconds N]
 *                     [--wgd-args="OPTIONS"] [--variant NAME="OPTIONS"]...
 *
 * OPTIONS are those of `wgd run`; each variant is one more contender among the
 * tunnels. WGD_WIREGUARD_GO and WGD_BORINGTUN name other programs than those in
 * the PATH, WGD_PROGRAM a compiled wgd. Tunnels need root, iproute2, iperf3,
 * ping and wireguard-tools.
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { parseArgs } from "@std/cli/parse-args";
import { type AeadTime, benchAeads, benchTrial } from "./crypto_bench.ts";
import { benchLanes, lanesTable } from "./lanes_bench.ts";
import { benchQueues, queueTable } from "./queue_bench.ts";
import { digits, table } from "./report.ts";
import {
  benchTunnels,
  type Contender,
  missingForTunnels,
  otherContenders,
  tunnelTable,
} from "./tunnel_bench.ts";

const PARTS = ["crypto", "queue", "tunnel"] as const;
type Part = (typeof PARTS)[number];

/** What was asked for. */
interface Options {
  readonly json: boolean;
  readonly parts: readonly Part[];
  readonly rounds: number;
  readonly seconds: number;
  readonly contenders: readonly Contender[];
}

function usage(problem: string): never {
  console.error(`wgd bench: ${problem}`);
  Deno.exit(2);
}

function positive(text: string, option: string): number {
  const number = Number(text);
  if (!(number > 0)) usage(`--${option} ${text} is not a positive number`);
  return number;
}

function words(text: string): string[] {
  return text.split(" ").filter((word) => word !== "");
}

function parse(args: string[]): Options {
  const options = parseArgs(args, {
    boolean: ["json"],
    string: ["rounds", "seconds", "only", "wgd-args", "variant"],
    collect: ["variant"],
    default: { rounds: "3", seconds: "5", "wgd-args": "" },
    unknown: (option) => usage(`unknown argument ${option}`),
  });
  const { only } = options;
  if (only !== undefined && !PARTS.some((part) => part === only)) {
    usage(`--only ${only} is none of ${PARTS.join(", ")}`);
  }
  const wgd = (name: string, text: string): Contender => ({
    name,
    implementation: "wgd",
    args: words(text),
  });
  const variants = options.variant.map((variant: unknown) => {
    const [name, ...rest] = String(variant).split("=");
    if (rest.length === 0) usage(`--variant ${variant} is not NAME=OPTIONS`);
    return wgd(name, rest.join("="));
  });
  const contenders = [
    wgd("wgd", options["wgd-args"]),
    ...variants,
    ...otherContenders(),
  ];
  if (new Set(contenders.map(({ name }) => name)).size < contenders.length) {
    usage("two contenders have one name");
  }
  return {
    json: options.json,
    parts: PARTS.filter((part) => only === undefined || part === only),
    rounds: positive(options.rounds, "rounds"),
    seconds: positive(options.seconds, "seconds"),
    contenders,
  };
}

function progress(text: string): void {
  console.error(`wgd bench: ${text}`);
}

function aeadTable(times: readonly AeadTime[]): string {
  const noble = (bytes: number, way: "seal" | "open"): number =>
    times.find((time) => time.provider === "noble" && time.bytes === bytes)
      ?.[way] ?? NaN;
  return table([
    ["AEAD, ns a packet", "bytes", "seal", "open", "seal MB/s", "to noble"],
    ...times.map(({ provider, bytes, seal, open }) => [
      provider,
      String(bytes),
      digits(seal),
      digits(open),
      digits(bytes / seal * 1e3),
      `${digits(noble(bytes, "seal") / seal)} times`,
    ]),
  ]);
}

/** Runs a part. @returns its figures by name, and as text */
async function run(
  part: Part,
  { rounds, seconds, contenders }: Options,
): Promise<{ figures: Record<string, unknown>; text: string }> {
  if (part === "crypto") {
    progress("AEAD");
    const aead = benchAeads();
    const trial = benchTrial();
    const auto = trial === null
      ? "auto: no libcrypto to try"
      : `auto: ${trial.name} after ${trial.packets} full packets, ${
        digits(trial.ms)
      } ms`;
    return { figures: { aead, trial }, text: `${aeadTable(aead)}\n${auto}` };
  }
  if (part === "queue") {
    progress("queues and wake-ups");
    const queues = await benchQueues();
    progress("lanes");
    const lanes = await benchLanes();
    const text = `${queueTable(queues)}\n\n${lanesTable(lanes)}`;
    return { figures: { queues, lanes }, text };
  }
  const tunnels = await benchTunnels({ rounds, seconds, contenders, progress });
  return { figures: { tunnels }, text: tunnelTable(tunnels) };
}

const options = parse(Deno.args);
const report: Record<string, unknown> = {
  time: new Date().toISOString(),
  cores: navigator.hardwareConcurrency,
};
for (const part of options.parts) {
  const problem = part === "tunnel" ? missingForTunnels() : undefined;
  if (problem !== undefined) {
    progress(`no tunnels: ${problem}`);
    if (options.parts.length === 1) Deno.exit(1);
    continue;
  }
  const { figures, text } = await run(part, options);
  Object.assign(report, figures);
  if (!options.json) console.log(`${text}\n`);
}
if (options.json) console.log(JSON.stringify(report));
