/**
 * What `reload` does to the system: the difference between the steps that are
 * in force and those of the changed file. What is new comes first and what is
 * gone last, so that what stays is never without its address or route. Pure.
 *
 * @module
 */
import { parseCidr } from "./ip.ts";
import { connectedRanges, contains } from "./quick_plan.ts";
import { isSameStep, type Step } from "./quick_step.ts";

const IPV4_BYTES = 4;

/** The parts of a reload, in the order in which they are run. */
export interface Reload {
  /** Run before the device is configured; each has its undo. */
  readonly add: readonly Step[];
  /** Run afterwards; `do` removes what is gone. */
  readonly remove: readonly Step[];
  /** What is in force then. */
  readonly result: readonly Step[];
}

/** Plans a reload from what is in force and what is wanted. */
export function planReload(
  name: string,
  old: readonly Step[],
  wanted: readonly Step[],
): Reload {
  const before = new Map(old.map((step) => [step.slot, step]));
  const add: Step[] = [];
  const remove: Step[] = [];
  const result: Step[] = [];
  for (const step of wanted) {
    const was = before.get(step.slot);
    before.delete(step.slot);
    if (was !== undefined && isSameStep(was, step)) {
      result.push(was);
      continue;
    }
    // Without `do` it was so, and its undo is that of the step before it.
    result.push(step.do === undefined && was !== undefined ? was : step);
    if (step.do === undefined) continue;
    // The interface stays: nothing undoes itself.
    if (was === undefined) add.push({ ...step, linked: false });
    else if (step.change === "overwrite") {
      const undo = was.do === undefined ? [] : [was.do];
      add.push({ ...step, undo, linked: false });
    } else if (step.change === "undo-first") {
      for (const command of was.undo ?? []) {
        const back = was.do === undefined ? [] : [was.do];
        add.push({ slot: was.slot, do: command, undo: back });
      }
      add.push({ ...step, linked: false });
    } else {
      add.push({ ...step, linked: false });
      before.set(was.slot, was);
    }
  }
  const gone = [...before.values()].toReversed();
  remove.push(
    ...promotion(name, gone, wanted),
    ...gone.flatMap(({ slot, undo = [] }) =>
      undo.map((command) => ({ slot, do: command }))
    ),
    ...lostRoutes(old, wanted).map(again),
  );
  return { add, remove, result };
}

function isIpv4Route({ slot, do: command }: Step): boolean {
  return slot.startsWith("route ") && command?.argv[1] === "-4";
}

function ipv4Addresses(steps: readonly Step[]): string[] {
  return steps.filter(({ slot }) => slot.startsWith("address "))
    .map(({ slot }) => slot.slice("address ".length))
    .filter((text) => !text.includes(":"));
}

/** Routes that the kernel removes along with the last IPv4 address of the link. */
function lostRoutes(
  old: readonly Step[],
  wanted: readonly Step[],
): readonly Step[] {
  const removesLast = ipv4Addresses(old).length > 0 &&
    ipv4Addresses(wanted).length === 0;
  return removesLast ? wanted.filter(isIpv4Route) : [];
}

/** Brings a route back. */
function again({ slot, do: command }: Step): Step {
  if (command === undefined) return { slot };
  const argv = command.argv.map((word) => word === "add" ? "replace" : word);
  return { slot, do: { ...command, argv } };
}

/**
 * An IPv4 address takes along those that came after it on its network, unless
 * the link is told to keep them.
 */
function promotion(
  name: string,
  gone: readonly Step[],
  wanted: readonly Step[],
): Step[] {
  const networks = ipv4Addresses(wanted).flatMap(ranges);
  const shares = ipv4Addresses(gone).flatMap(ranges).some((range) =>
    range.address.length === IPV4_BYTES &&
    networks.some((other) => contains(other, range) || contains(range, other))
  );
  if (!shares) return [];
  const key = `net/ipv4/conf/${name}/promote_secondaries`;
  return [{
    slot: "promotion",
    do: { argv: ["sysctl", "-q", `${key}=1`] },
  }];
}

function ranges(text: string): ReturnType<typeof connectedRanges> {
  const cidr = parseCidr(text);
  return cidr === null ? [] : connectedRanges([cidr]);
}
