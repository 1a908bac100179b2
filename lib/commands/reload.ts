/**
 * `wgd reload FILE|IF`: a changed file applied to the running interface: peers
 * as `wgd syncconf` does, and of addresses, MTU, name servers, routes, rules and
 * hooks what differs. Peers that stay keep their sessions.
 *
 * @module
 */
import { formatCidr, parseCidr } from "../ip.ts";
import { planReload } from "../quick_diff.ts";
import { gatherFacts, lacking, withoutEffect } from "../quick_facts.ts";
import {
  changedHooks,
  type Hook,
  hooksAfter,
  hooksOf,
} from "../quick_hooks.ts";
import {
  connectedRanges,
  type Facts,
  hasDefaultRoute,
  hookCommand,
  markOf,
  networkSteps,
  SYSCTL_SLOT,
} from "../quick_plan.ts";
import { PlanRun, Runner, StepError, undoAll } from "../quick_run.ts";
import {
  handOver,
  ownNamespace,
  type QuickState,
  readState,
  writeState,
} from "../quick_state.ts";
import { echoOf, formatPlan, type Step } from "../quick_step.ts";
import { getDevice, setDevice, syncDevice } from "../uapi_client.ts";
import { formatSet } from "../uapi_state.ts";
import { configFileOf } from "./config_file.ts";
import type { CommandContext } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";
import {
  asCliError,
  readConfig,
  resolvePeers,
  sendNames,
  throwProblems,
  withSignals,
} from "./quick_file.ts";

/** Runs `wgd reload`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const { path, name } = configFileOf(ctx.args[0]);
  const config = readConfig(path, ctx);
  const state = stateOf(name);
  const device = await getDevice(name);
  const peers = await resolvePeers(path, config, ctx);
  const old = state.steps.filter(({ slot }) => slot !== "interface");
  const { netns, socketNetns } = state;
  const gather = async (): Promise<Facts> =>
    withoutOwn(
      await gatherFacts({
        name,
        config,
        endpoints: peers.endpoints,
        exists: true,
        mark: device.fwmark,
        netns,
        socketNetns,
      }),
      old,
    );
  let facts = await gather();
  throwProblems(path, lacking(config, facts, netns));
  for (const text of withoutEffect(config, netns)) ctx.err(`${path}: ${text}`);
  const job = { name, path, config, daemonOptions: [] };
  let wanted = networkSteps(job, facts);
  let plan = planReload(name, old, wanted);
  const wantedHooks = hooksOf(config.interface);
  let hooks: readonly Hook[] = state.hooks ?? wantedHooks;
  const { before, after } = changedHooks(hooks, wantedHooks);
  const hookStep = ({ text }: Hook): Step => ({
    slot: "hook",
    do: hookCommand(text, name, facts.shell),
  });
  const sync = {
    argv: ["wgd", "syncconf", name, `<(wgd strip ${path})`],
    own: true,
  };
  if (ctx.options["dry-run"] === true) {
    const middle = { slot: "configuration", do: sync };
    ctx.out(formatPlan([
      ...before.map(hookStep),
      ...plan.add,
      middle,
      ...plan.remove,
      ...after.map(hookStep),
    ], netns));
    return EXIT.OK;
  }

  const kept = state.steps.filter(({ slot }) => slot === "interface");
  const note = (steps: readonly Step[]): void =>
    writeState({ ...state, path, steps: [...kept, ...steps], hooks });
  const runner = new Runner({
    say: ctx.err,
    netns,
    own: {
      set: ([, , , , mark]) =>
        setDevice(name, formatSet({ fwmark: Number(mark) })),
    },
  });
  const runHooks = async (
    list: readonly Hook[],
    steps: readonly Step[],
  ): Promise<void> => {
    for (const hook of list) {
      if (runner.interrupted) throw new StepError([hook.text], "interrupted");
      const { do: command } = hookStep(hook);
      if (command !== undefined) await runner.run(command);
      hooks = hooksAfter(hooks, hook);
      note(steps);
    }
  };
  const left: Step[] = [];
  const problems: string[] = [];
  await withSignals(runner, async () => {
    const run = new PlanRun(runner, (begun) => note([...old, ...begun]));
    try {
      await runHooks(before, old);
      if (before.length > 0) {
        // They may have changed routes, and the interface.
        facts = await gather();
        wanted = networkSteps(job, facts);
        plan = planReload(name, old, wanted);
      }
      await run.run(plan.add);
      ctx.err(echoOf(sync));
      const { privateKey, listenPort, fwmark = 0 } = config.interface;
      const mark = hasDefaultRoute(config, facts.isApart)
        ? markOf(config, facts)
        : fwmark;
      await syncDevice(name, {
        privateKey,
        listenPort,
        fwmark: mark,
        peers: peers.targets,
      });
      await sendNames(name, peers.named, ctx);
    } catch (error) {
      for (const problem of await run.unwind()) {
        ctx.err(`wgd: could not be undone: ${problem}`);
      }
      note(old);
      throw asCliError(error);
    }
    for (
      const step of removable(plan.remove, { ...state, steps: old }, wanted)
    ) {
      const undo = step.do === undefined ? [] : [step.do];
      const failed = await undoAll(runner, undo);
      if (failed.length > 0) left.push({ slot: `left ${step.slot}`, undo });
      problems.push(...failed);
    }
    const steps = [...left, ...plan.result];
    note(steps);
    try {
      await runHooks(after, steps);
      hooks = wantedHooks;
      note(steps);
    } catch (error) {
      if (!(error instanceof StepError)) throw error;
      problems.push(error.message);
    }
  });
  throwProblems(name, problems);
  return EXIT.OK;
}

/** What `up` has noted. @throws CliError where it is not known, or not all */
function stateOf(name: string): QuickState {
  const state = readState(name);
  if (state === undefined) {
    throw new CliError(
      `${name} was not set up by wgd up; wgd syncconf changes its peers, and ` +
        "wgd down and wgd up the rest",
    );
  }
  if (state.namespace !== ownNamespace()) {
    throw new CliError(`${name} is up in another network namespace`);
  }
  if (!state.complete) {
    throw new CliError(`${name} is half up; wgd down ${name} removes it`);
  }
  return state;
}

/** What is to be removed, but for what another interface relies on. */
function removable(
  remove: readonly Step[],
  old: QuickState,
  wanted: readonly Step[],
): readonly Step[] {
  if (wanted.some(({ slot }) => slot === SYSCTL_SLOT)) return remove;
  const isHanded = handOver(old).length < old.steps.length;
  return remove.filter(({ slot }) => !(isHanded && slot === SYSCTL_SLOT));
}

/**
 * The facts without what `up` itself has given the interface, as it was when
 * `up` ran: what is left came by hooks and is not reload's business.
 */
function withoutOwn(
  facts: Facts,
  old: readonly Step[],
): Facts {
  const slots = new Set(old.map(({ slot }) => slot));
  const addresses = old.flatMap(({ slot }) => {
    const [kind, text = ""] = slot.split(" ");
    const cidr = kind === "address" ? parseCidr(text) : null;
    return cidr ? [cidr] : [];
  });
  const connected = new Set(connectedRanges(addresses).map(formatCidr));
  const marking = old.find(({ slot }) => slot === "mark");
  return {
    ...facts,
    deviceAddresses: facts.deviceAddresses.filter((cidr) =>
      !slots.has(`address ${formatCidr(cidr)}`)
    ),
    deviceRanges: facts.deviceRanges.filter((cidr) => {
      const text = formatCidr(cidr);
      return !slots.has(`route ${text}`) && !connected.has(text);
    }),
    // A mark that `up` chose stays; one of the old file does not count.
    freeTable: Number(marking?.do?.argv.at(-1) ?? facts.freeTable),
    deviceMark: 0,
  };
}
