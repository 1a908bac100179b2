/**
 * The work of `wgd up`. The file is read, checked and its names looked up, and
 * the whole plan made, before anything is touched.
 *
 * @module
 */
import type { HeldDaemon } from "../daemon.ts";
import { notify } from "../notify.ts";
import {
  type FactsOptions,
  gatherFacts,
  lacking,
  withoutEffect,
} from "../quick_facts.ts";
import { hooksOf } from "../quick_hooks.ts";
import { type Facts, type Job, type Plan, planUp } from "../quick_plan.ts";
import { PlanRun, Runner, StepError, undoAll } from "../quick_run.ts";
import {
  handOver,
  ownNamespace,
  type QuickState,
  readState,
  removeState,
  writeState,
} from "../quick_state.ts";
import { formatPlan, undoCommands } from "../quick_step.ts";
import { closeSockets, openSockets } from "../socket.ts";
import { cString, ERRNO, libc, SysError } from "../sys/libc.ts";
import { inNetns, isNetns } from "../sys/netns.ts";
import { getDevice, listDevices, setDevice } from "../uapi_client.ts";
import { formatSet } from "../uapi_state.ts";
import type { ConfigFile } from "./config_file.ts";
import type { CommandContext } from "./context.ts";
import { daemonEnded } from "./down.ts";
import { CliError, EXIT } from "./errors.ts";
import {
  asCliError,
  readConfig,
  type ResolvedPeers,
  resolvePeers,
  sendNames,
  throwProblems,
  withSignals,
} from "./quick_file.ts";

/** What {@link runUp} is given. */
export interface UpOptions {
  readonly file: ConfigFile;
  /** The daemon's command line after `run`, without the name. */
  readonly daemonOptions: readonly string[];
  /** The daemon; undefined: the plan is shown and not run. */
  readonly daemon: HeldDaemon | undefined;
}

/** @returns the exit status */
export async function runUp(
  ctx: CommandContext,
  { file: { path, name }, daemonOptions, daemon }: UpOptions,
): Promise<number> {
  const config = readConfig(path, ctx);
  const isDryRun = daemon === undefined;
  const netns = namespaceOption(ctx, "netns");
  const socketNetns = namespaceOption(ctx, "socket-netns");
  if (!isDryRun) await assertAbsent(name, netns, ctx);
  const peers = await resolvePeers(path, config, ctx);
  if (!isDryRun) {
    within(
      socketNetns,
      () => probePort(path, config.interface.listenPort ?? 0),
    );
  }
  const about: FactsOptions = {
    name,
    config,
    endpoints: peers.endpoints,
    exists: false,
    mark: config.interface.fwmark ?? 0,
    netns,
    socketNetns,
  };
  const facts = await gatherFacts(about);
  const problems = lacking(config, facts, netns);
  if (problems.length > 0) {
    throw new CliError(problems.map((text) => `${path}: ${text}`).join("\n"));
  }
  for (const text of withoutEffect(config, netns)) ctx.err(`${path}: ${text}`);
  const job: Job = { name, path, config, daemonOptions };
  const plan = planUp(job, withoutMark(facts));
  if (isDryRun) ctx.out(formatPlan([...plan.start, ...plan.rest], netns));
  else return await new Up(ctx, job, peers, about, daemon).run(plan);
  return EXIT.OK;
}

/** A namespace that ip(8) knows by name: commands are run in it. */
function namespaceOption(
  ctx: CommandContext,
  option: "netns" | "socket-netns",
): string | undefined {
  const name = ctx.options[option];
  if (typeof name !== "string") return undefined;
  if (/^[^/]+$/.test(name) && isNetns(name)) return name;
  throw new CliError(
    `--${option}: ${name} is no network namespace that ip netns knows`,
  );
}

/** Does something in a network namespace; default: this one. */
function within<T>(netns: string | undefined, action: () => T): T {
  return netns === undefined ? action() : inNetns(netns, action);
}

/** The file's mark is the plan's own doing. */
function withoutMark(facts: Facts): Facts {
  return { ...facts, deviceMark: 0 };
}

/** The daemon did not start; `status` is what it ended with. */
class DaemonError extends StepError {
  constructor(argv: readonly string[], readonly status: number) {
    super(argv, "the daemon did not start");
  }
}

/** One run of `up`. */
class Up {
  readonly #ctx: CommandContext;
  readonly #job: Job;
  readonly #peers: ResolvedPeers;
  readonly #about: FactsOptions;
  readonly #daemon: HeldDaemon;
  readonly #runner: Runner;
  readonly #plan: PlanRun;

  constructor(
    ctx: CommandContext,
    job: Job,
    peers: ResolvedPeers,
    about: FactsOptions,
    daemon: HeldDaemon,
  ) {
    this.#ctx = ctx;
    this.#daemon = daemon;
    this.#job = job;
    this.#peers = peers;
    this.#about = about;
    this.#runner = new Runner({
      say: ctx.err,
      netns: about.netns,
      own: {
        run: (argv) => this.#start(argv),
        setconf: () => this.#configure(),
        set: ([, , , , mark]) =>
          setDevice(job.name, formatSet({ fwmark: Number(mark) })),
      },
    });
    this.#plan = new PlanRun(this.#runner, (steps) => this.#note(steps, false));
  }

  /** @returns the exit status */
  async run(plan: Plan): Promise<number> {
    return await withSignals(this.#runner, async () => {
      try {
        await this.#runAll(plan);
        notify("READY=1");
        return EXIT.OK;
      } catch (error) {
        await this.#unwind();
        // The daemon has told why on stderr.
        if (error instanceof DaemonError) return error.status;
        throw asCliError(error);
      }
    });
  }

  async #runAll({ start, rest }: Plan): Promise<void> {
    await this.#plan.run(start);
    const { config, name } = this.#job;
    let steps = rest;
    if (config.interface.preUp.length > 0) {
      // They may have changed routes, and the interface.
      const { fwmark } = await getDevice(name);
      const facts = await gatherFacts({
        ...this.#about,
        exists: true,
        mark: config.interface.fwmark || fwmark,
      });
      steps = planUp(this.#job, facts).rest;
    }
    await this.#plan.run(steps);
    if (this.#runner.interrupted) throw new StepError(["up"], "interrupted");
    this.#note(this.#plan.done, true);
  }

  #note(steps: PlanRun["done"], complete: boolean): void {
    const { name, path, config } = this.#job;
    const { netns, socketNetns } = this.#about;
    const namespace = ownNamespace();
    const hooks = hooksOf(config.interface);
    writeState({
      ...{ name, path, namespace, netns, socketNetns, complete },
      steps,
      hooks,
    });
  }

  async #unwind(): Promise<void> {
    const { name } = this.#job;
    const started = this.#plan.done.length > 0;
    const problems = await this.#plan.unwind();
    for (const problem of problems) {
      this.#ctx.err(`wgd: could not be undone: ${problem}`);
    }
    if (problems.length > 0) return; // the notes tell `down` of it
    if (started) await daemonEnded(name);
    removeState(name);
  }

  async #start(argv: readonly string[]): Promise<void> {
    const status = await this.#daemon.goOn();
    if (status !== 0) throw new DaemonError(argv, status);
  }

  async #configure(): Promise<void> {
    const { name, config } = this.#job;
    const { privateKey, listenPort, fwmark } = config.interface;
    const peers = this.#peers.targets.map((peer) => ({
      ...peer,
      replaceAllowedIps: true,
    }));
    const text = formatSet({ privateKey, listenPort, fwmark, peers });
    await setDevice(name, text);
    await sendNames(name, this.#peers.named, this.#ctx);
  }
}

/**
 * Undoes what is left of an interface whose daemon was killed.
 *
 * @throws CliError that says what is there, and what to do about it
 */
async function assertAbsent(
  name: string,
  netns: string | undefined,
  ctx: CommandContext,
): Promise<void> {
  const state = readState(name);
  const isOurs = state?.namespace === ownNamespace();
  const exists = linkExists(name, isOurs ? state.netns : netns);
  if (!isOurs) {
    if ((await listDevices()).includes(name) && !exists) {
      throw new CliError(`${name} is up in another network namespace`);
    }
    if (exists) {
      throw new CliError(`${name} exists already; ${await remedy(name)}`);
    }
    return;
  }
  if (exists && state.complete) {
    throw new CliError(`${name} exists already; wgd down ${name} removes it`);
  }
  // Its daemon has ended, and took the interface with it, but for what is left.
  if (state.complete) return await undoRest(state, ctx);
  const left = state.steps.filter(({ slot, linked }) =>
    exists || !(linked || slot === "interface")
  );
  const what = left.map(({ slot }) => slot).join(", ") || "nothing yet";
  throw new CliError(
    `${name} is half up: an earlier wgd up was killed, or is still at work ` +
      `(${what}); wgd down ${name} removes it`,
  );
}

async function undoRest(state: QuickState, ctx: CommandContext): Promise<void> {
  const steps = handOver(state).filter(({ slot }) => slot !== "interface");
  const runner = new Runner({ say: ctx.err, netns: state.netns });
  const problems = await undoAll(runner, undoCommands(steps));
  throwProblems(`what is left of ${state.name} could not be undone`, problems);
  removeState(state.name);
}

async function remedy(name: string): Promise<string> {
  try {
    await getDevice(name);
    return `wgd down ${name} removes it`;
  } catch {
    return "it is no WireGuard interface, or its daemon does not answer; " +
      `ip link delete dev ${name} removes it`;
  }
}

/** Fails while nothing is touched yet if the port cannot be listened on. */
function probePort(path: string, port: number): void {
  if (port === 0) return;
  try {
    closeSockets(openSockets(port, 0, false));
  } catch (error) {
    if (!(error instanceof SysError) || error.errno !== ERRNO.EADDRINUSE) {
      throw error;
    }
    throw new CliError(`${path}: ListenPort: UDP port ${port} is in use`);
  }
}

/** By a system call: /sys may show another namespace. */
function linkExists(name: string, netns: string | undefined): boolean {
  if (netns !== undefined && !isNetns(netns)) return false; // gone with it
  return within(netns, () => libc().if_nametoindex(cString(name)) !== 0);
}
