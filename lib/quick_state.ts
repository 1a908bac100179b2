/**
 * What `up` has set is noted in a file beside the interface's socket, before
 * each step: so that `down` undoes this and nothing else, `reload` knows what
 * is in force, and the next `up` sees what one that was killed has left. There
 * are no keys in it; hooks may hold secrets, so root alone reads it.
 *
 * @module
 */
import type { Hook } from "./quick_hooks.ts";
import { SYSCTL_SLOT } from "./quick_plan.ts";
import type { Step } from "./quick_step.ts";
import { readSystemLink } from "./sys/files.ts";
import { UAPI_DIRECTORY } from "./uapi_client.ts";

const VERSION = 1;
const SUFFIX = ".up.json";
const DIRECTORY_MODE = 0o755;
const FILE_MODE = 0o600;

/** The notes on an interface. */
export interface QuickState {
  readonly version: typeof VERSION;
  readonly name: string;
  /** The configuration's path. */
  readonly path: string;
  /** The network namespace, as /proc names it. */
  readonly namespace: string;
  /** Where the interface is, as `ip netns` knows it; absent: in `namespace`. */
  readonly netns?: string;
  /** Where its sockets are; absent: in `namespace`. */
  readonly socketNetns?: string;
  /** Whether `up` came to its end. */
  readonly complete: boolean;
  /** What was set, hooks and the configuration of peers left out. */
  readonly steps: readonly Step[];
  /** The hooks in force; absent where an earlier wgd has made the notes. */
  readonly hooks?: readonly Hook[];
}

/** Path of the notes on an interface. */
export function statePath(name: string): string {
  return `${UAPI_DIRECTORY}/${name}${SUFFIX}`;
}

/** This process's network namespace. */
export function ownNamespace(): string {
  try {
    return readSystemLink("/proc/self/ns/net");
  } catch {
    return ""; // no /proc: there is one namespace for all we know
  }
}

/** Whether a step is to be noted. */
export function isNoted({ slot }: Step): boolean {
  return slot !== "hook" && slot !== "configuration";
}

/** Reads the notes; undefined if there are none. @throws Error unreadable */
export function readState(name: string): QuickState | undefined {
  let text: string;
  try {
    text = Deno.readTextFileSync(statePath(name));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
  const state = parseState(text);
  if (state === null) {
    throw new Error(
      `${statePath(name)}: this is not what wgd up notes; remove it`,
    );
  }
  return state;
}

function parseState(text: string): QuickState | null {
  try {
    const state = JSON.parse(text);
    return state?.version === VERSION && Array.isArray(state.steps)
      ? state
      : null;
  } catch {
    return null;
  }
}

/** Writes the notes whole, in place of those that were there. */
export function writeState(state: Omit<QuickState, "version">): void {
  Deno.mkdirSync(UAPI_DIRECTORY, { recursive: true, mode: DIRECTORY_MODE });
  const path = statePath(state.name);
  const early = `${path}.${Deno.pid}`;
  const steps = state.steps.filter(isNoted);
  const text = JSON.stringify({ version: VERSION, ...state, steps });
  Deno.writeTextFileSync(early, `${text}\n`, { mode: FILE_MODE });
  Deno.renameSync(early, path);
}

/** Removes the notes, if there are any. */
export function removeState(name: string): void {
  try {
    Deno.removeSync(statePath(name));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/**
 * Takes from an interface's steps the undoing of a system-wide setting that
 * another interface of this namespace relies on, and gives it to that one.
 *
 * @returns the steps that are to be undone now
 */
export function handOver(state: QuickState): readonly Step[] {
  const held = state.steps.find(({ slot }) => slot === SYSCTL_SLOT);
  if (held?.undo === undefined) return state.steps;
  const heir = others(state).find(({ steps }) =>
    steps.some(({ slot }) => slot === SYSCTL_SLOT)
  );
  if (heir === undefined) return state.steps;
  writeState({
    ...heir,
    steps: heir.steps.map((step) => step.slot === SYSCTL_SLOT ? held : step),
  });
  return state.steps.filter((step) => step !== held);
}

/** The notes on other interfaces of the same namespace. */
function others({ name, namespace, netns }: QuickState): QuickState[] {
  return [...Deno.readDirSync(UAPI_DIRECTORY)].flatMap((entry) => {
    if (!entry.name.endsWith(SUFFIX)) return [];
    const other = entry.name.slice(0, -SUFFIX.length);
    if (other === name) return [];
    try {
      const state = readState(other);
      return state?.namespace === namespace && state.netns === netns
        ? [state]
        : [];
    } catch {
      return []; // not ours
    }
  });
}
