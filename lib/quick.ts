/**
 * wg-quick's work as a plan of system commands that is run in order and undone
 * in reverse when a step fails (reference §9.3). Commands are argument lists,
 * never a shell's, and are echoed before they run.
 *
 * @module
 */
import type { Config } from "./config.ts";
import { type Cidr, formatCidr, IPV4_LENGTH, maskAddress } from "./ip.ts";

/** One step: a system command, or a call with words for it. */
export interface Step {
  /** What is echoed. */
  readonly argv: readonly string[];
  /** Done in place of running `argv` as a command. */
  readonly run?: () => Promise<void>;
  /** Undoes it; not echoed. */
  readonly undo?: () => Promise<void>;
}

/** A step that failed. */
export class StepError extends Error {
  override readonly name = "StepError";

  /** @param argv the step */
  constructor(readonly argv: readonly string[], reason: string) {
    super(`${argv.join(" ")}: ${reason}`);
  }
}

/** Runs a system command. @throws StepError with what it said on stderr */
export async function runCommandLine(argv: readonly string[]): Promise<void> {
  const [program, ...args] = argv;
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command(program, {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "piped",
    }).output();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new StepError(argv, `${program} is not installed`);
    }
    throw error;
  }
  if (output.success) return;
  const said = new TextDecoder().decode(output.stderr).trim();
  throw new StepError(argv, said === "" ? `exit ${output.code}` : said);
}

/**
 * Runs the steps in order. When one fails, or `stopped` says that a signal came,
 * those before it are undone in reverse.
 *
 * @param echo gets each step's words before it runs
 */
export async function runPlan(
  steps: readonly Step[],
  echo: (line: string) => void,
  stopped: () => boolean = () => false,
): Promise<void> {
  const done: Step[] = [];
  try {
    for (const step of steps) {
      if (stopped()) throw new StepError(step.argv, "interrupted");
      echo(`[#] ${step.argv.join(" ")}`);
      await (step.run?.() ?? runCommandLine(step.argv));
      done.push(step);
    }
    if (stopped()) throw new StepError(["up"], "interrupted");
  } catch (error) {
    for (const step of done.reverse()) await step.undo?.();
    throw error;
  }
}

/** `ip` commands that give the interface its addresses and bring it up. */
export function addressSteps(name: string, config: Config): Step[] {
  const steps = config.interface.addresses.map((address) => ({
    argv: [
      ...ip(address),
      "address",
      "add",
      formatCidr(address),
      "dev",
      name,
    ],
  }));
  const { mtu } = config.interface;
  const size = mtu === undefined ? [] : ["mtu", String(mtu)];
  return [
    ...steps,
    { argv: ["ip", "link", "set", ...size, "up", "dev", name] },
  ];
}

/**
 * `ip` commands that route the peers' allowed IPs to the interface, longest
 * prefix first; none where `Table = off` or an address already covers them.
 */
export function routeSteps(name: string, config: Config): Step[] {
  if (config.interface.table === "off") return [];
  const { addresses } = config.interface;
  const routes = config.peers.flatMap((peer) => peer.allowedIps)
    .filter((cidr) => !addresses.some((address) => contains(address, cidr)))
    .sort((a, b) => b.cidr - a.cidr);
  const unique = new Map(routes.map((cidr) => [formatCidr(cidr), cidr]));
  const { table } = config.interface;
  const into = table === undefined || table === "auto" ? [] : ["table", table];
  return [...unique].map(([text, cidr]) => ({
    argv: [...ip(cidr), "route", "add", text, "dev", name, ...into],
  }));
}

/**
 * What of a configuration `up` cannot do yet, in words for its user.
 *
 * @returns one line each
 */
export function unsupported({ interface: i, peers }: Config): string[] {
  const problems: string[] = [];
  const key = (present: boolean, name: string): void => {
    if (present) problems.push(`${name} is not supported by wgd up yet`);
  };
  key(i.dns.length > 0, "DNS");
  key(i.preUp.length > 0, "PreUp");
  key(i.postUp.length > 0, "PostUp");
  key(i.preDown.length > 0, "PreDown");
  key(i.postDown.length > 0, "PostDown");
  key(i.saveConfig === true, "SaveConfig");
  const isDefault = (cidr: Cidr): boolean => cidr.cidr === 0;
  const auto = i.table === undefined || i.table === "auto";
  if (auto && peers.some((peer) => peer.allowedIps.some(isDefault))) {
    problems.push(
      "a default route (AllowedIPs = 0.0.0.0/0 or ::/0) needs Table = off, or " +
        "a table: wgd up sets up no policy routing yet",
    );
  }
  return problems;
}

function ip({ address }: Cidr): string[] {
  return ["ip", address.length === IPV4_LENGTH ? "-4" : "-6"];
}

/** Whether the network of an address contains a range. */
function contains(network: Cidr, range: Cidr): boolean {
  if (network.address.length !== range.address.length) return false;
  if (network.cidr > range.cidr) return false;
  const first = network.address.slice();
  const other = range.address.slice();
  maskAddress(first, network.cidr);
  maskAddress(other, network.cidr);
  return first.every((byte, i) => byte === other[i]);
}
