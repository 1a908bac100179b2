/**
 * Hooks as `reload` treats them: a line of PreDown or PostDown that is gone from
 * the file is run, because it undoes what hooks of the old file did, and so is a
 * line of PreUp or PostUp that is new. What stays is not run again. Pure.
 *
 * @module
 */
import type { InterfaceConfig } from "./config.ts";

const UP = ["preUp", "postUp"] as const;
const DOWN = ["preDown", "postDown"] as const;

/** When a hook is run. */
export type HookKind = (typeof UP | typeof DOWN)[number];

/** A line of a file. */
export interface Hook {
  readonly kind: HookKind;
  /** The user's own text. */
  readonly text: string;
}

/** The hooks that a reload runs. */
export interface HookChanges {
  /** Before anything else is changed. */
  readonly before: readonly Hook[];
  /** Once all is changed. */
  readonly after: readonly Hook[];
}

/** The hooks of a file. */
export function hooksOf(lines: Pick<InterfaceConfig, HookKind>): Hook[] {
  return [...UP, ...DOWN].flatMap((kind) =>
    lines[kind].map((text) => ({ kind, text }))
  );
}

function isSame(a: Hook, b: Hook): boolean {
  return a.kind === b.kind && a.text === b.text;
}

/** The first list without what the other one has, as often as it has it. */
function without(hooks: readonly Hook[], others: readonly Hook[]): Hook[] {
  const left = [...hooks];
  for (const other of others) {
    const at = left.findIndex((hook) => isSame(hook, other));
    if (at >= 0) left.splice(at, 1);
  }
  return left;
}

/** What is to be run: first what undoes, then what is new. */
export function changedHooks(
  old: readonly Hook[],
  wanted: readonly Hook[],
): HookChanges {
  const gone = without(old, wanted);
  const added = without(wanted, old);
  const of = (hooks: readonly Hook[], kind: HookKind): Hook[] =>
    hooks.filter((hook) => hook.kind === kind);
  return {
    before: [...of(gone, "preDown"), ...of(added, "preUp")],
    after: [...of(gone, "postDown"), ...of(added, "postUp")],
  };
}

/** The hooks in force once `run`, one of {@linkcode changedHooks}, was run. */
export function hooksAfter(hooks: readonly Hook[], run: Hook): Hook[] {
  const isUp = UP.some((kind) => kind === run.kind);
  return isUp ? [...hooks, run] : without(hooks, [run]);
}
