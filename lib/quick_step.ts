/**
 * What `up`, `down` and `reload` do, as data: steps made of commands, each with
 * what undoes it. Commands are argument lists, never a shell's, so that a plan
 * can be shown, run, undone in reverse, stored and compared. Pure.
 *
 * @module
 */

/** One command. */
export interface Command {
  readonly argv: readonly string[];
  /** What it reads. */
  readonly stdin?: string;
  /** Whether wgd does it itself rather than start a program; by `argv[1]`. */
  readonly own?: boolean;
  /** The user's own text, which `argv` gives to a shell. */
  readonly hook?: string;
}

/** What becomes of a step whose slot stays, but with something else in it. */
export type ChangeOrder =
  /** The new command replaces what the old one did. */
  | "overwrite"
  /** The old one is undone first. */
  | "undo-first"
  /** The old one is undone when the new one is in force. */
  | "undo-last";

/** One step of a plan. */
export interface Step {
  /** What it sets; unique in a plan, but for hooks. */
  readonly slot: string;
  /** Absent: it is so already, and relied upon. */
  readonly do?: Command;
  readonly undo?: readonly Command[];
  /** Whether deleting the interface undoes it, too. */
  readonly linked?: boolean;
  /** Whether it is undone also when it fails. */
  readonly half?: boolean;
  /** Equal keys: the same thing is set; default: equal commands. */
  readonly key?: string;
  /** Default: `undo-last`. */
  readonly change?: ChangeOrder;
}

/** Whether two steps of one slot set the same. */
export function isSameStep(a: Step, b: Step): boolean {
  const key = (step: Step): string => step.key ?? JSON.stringify(step.do);
  return a.slot === b.slot && key(a) === key(b);
}

/** What undoes the steps once the interface is deleted, last step first. */
export function undoCommands(steps: readonly Step[]): Command[] {
  return steps.toReversed()
    .flatMap((step) => step.linked ? [] : step.undo ?? []);
}

/** A word as a shell takes it. */
function shellWord(word: string): string {
  if (/^[a-zA-Z0-9_@%+=:,./-]+$/.test(word)) return word;
  return `'${word.replaceAll("'", `'\\''`)}'`;
}

/**
 * A command line, in a network namespace if one is named.
 *
 * @param netns as `ip netns` knows it
 */
export function inNamespace(
  argv: readonly string[],
  netns: string | undefined,
): readonly string[] {
  return netns === undefined ? argv : ["ip", "netns", "exec", netns, ...argv];
}

/** How a command is echoed before it runs, as wg-quick(8) does. */
export function echoOf({ argv, hook }: Command): string {
  return `[#] ${hook ?? argv.join(" ")}`;
}

/** The steps as lines that a shell would run, with what commands read. */
export function formatPlan(steps: readonly Step[], netns?: string): string {
  let text = "";
  for (const { do: command } of steps) {
    if (command === undefined) continue;
    const { stdin } = command;
    const argv = command.own ? command.argv : inNamespace(command.argv, netns);
    // What wgd does itself is written as a user would, `<(…)` included.
    text += argv.map(command.own ? (word): string => word : shellWord)
      .join(" ");
    text += stdin === undefined ? "\n" : ` <<'EOF'\n${stdin}EOF\n`;
  }
  return text;
}
