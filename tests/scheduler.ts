/**
 * All interleavings of threads that share 32-bit words, at the granularity of
 * single accesses, of the real code and on one thread.
 *
 * Each access to {@link scheduledWords}, atomic or plain, is a step. A thread is
 * a row of operations; to take one step more, its present operation is run from
 * the start, is given again what its earlier steps gave, does the new step, and
 * is stopped by an exception at the one behind it. States (memory, and how far
 * each thread is) that were seen before are not explored again, so the search is
 * exhaustive and ends.
 *
 * Steps are sequentially consistent. That is what ECMAScript promises for
 * Atomics; of plain accesses it holds only where no other thread writes the word
 * meanwhile, so a word that one thread alone uses, or that an atomic store
 * publishes.
 */
import {
  type Machine,
  RUNS,
  type Scenario,
  type State,
  withMachine,
} from "./scheduler_machine.ts";

export {
  aside,
  poke,
  type Scenario,
  scheduledArena,
  scheduledWords,
  type Thread,
  type View,
} from "./scheduler_machine.ts";

/** What was explored. */
export interface Explored {
  readonly states: number;
  readonly steps: number;
  /** States in which no thread could go on. */
  readonly ends: number;
  /** Different ways from the start to such a state, without circles. */
  readonly interleavings: number;
}

/** Explores all interleavings. @throws with the steps that led to what is wrong */
export function explore(scenario: Scenario): Explored {
  return withMachine(
    scenario,
    (machine) => new Search(scenario, machine).run(),
  );
}

interface Step {
  readonly thread: number;
  name: string;
  at: number;
  result: number;
}

/** Depth-first search through the states. */
class Search {
  readonly #scenario: Scenario;
  readonly #machine: Machine;
  /** Ways from each state to an end; those of a state on the path count 0. */
  readonly #ways = new Map<string, number>();
  readonly #path: Step[] = [];
  #steps = 0;
  #ends = 0;

  constructor(scenario: Scenario, machine: Machine) {
    this.#scenario = scenario;
    this.#machine = machine;
  }

  run(): Explored {
    try {
      const interleavings = this.#visit(this.#machine.start);
      return {
        states: this.#ways.size,
        steps: this.#steps,
        ends: this.#ends,
        interleavings,
      };
    } catch (error) {
      if (!(error instanceof Error)) throw error;
      throw new Error(`${error.message}\n${this.#trace()}`, { cause: error });
    }
  }

  /** @returns ways from this state to an end */
  #visit(state: State): number {
    const key = this.#machine.key(state);
    const known = this.#ways.get(key);
    if (known !== undefined) return known;
    this.#ways.set(key, 0);
    let ways = 0;
    let canGoOn = false;
    for (let thread = 0; thread < state.threads.length; thread++) {
      if (state.threads[thread].status !== RUNS) continue;
      canGoOn = true;
      ways += this.#visitBehind(state, thread);
    }
    if (!canGoOn) {
      this.#ends++;
      this.#scenario.end(this.#machine.view(state));
      ways = 1;
    }
    this.#ways.set(key, ways);
    return ways;
  }

  #visitBehind(state: State, thread: number): number {
    const step: Step = { thread, name: "", at: 0, result: 0 };
    this.#path.push(step);
    this.#steps++;
    const next = this.#machine.step(state, thread, (name, at, result) => {
      step.name = name;
      step.at = at;
      step.result = result;
    });
    const view = this.#machine.view(next);
    next.past = this.#scenario.check?.(view, thread, state.past) ?? 0;
    const ways = this.#visit(next);
    // Not in a finally: where a check fails, the path is what is told.
    this.#path.pop();
    return ways;
  }

  #trace(): string {
    return this.#path.map(({ thread, name, at, result }) =>
      `${this.#scenario.threads[thread].name}: ${name} [${at}] -> ${result}`
    ).join("\n");
  }
}
