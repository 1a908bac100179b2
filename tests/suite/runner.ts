/**
 * What stands in for `deno test` in the suite's file: a compiled program has
 * `Deno.test`, but it does nothing there. Takes the two forms of declaring a
 * test that the namespace tests use, runs them one after the other, and ends
 * with the closing line of `deno test`, which .ci/run counts by. What cannot be
 * had here are the sanitizers of operations and resources: they are in `deno
 * test` alone, which runs the same tests, on the checkout.
 */

type Body = () => void | Promise<void>;

interface Test {
  readonly name: string;
  readonly ignore: boolean;
  readonly fn: Body;
}

/** What of the tests is run, and where it is told. */
export interface RunnerOptions {
  /** Part of a name, or a regular expression between slashes. */
  readonly filter?: string;
  readonly say: (text: string) => void;
}

/** Tests that are declared, run and counted. */
export class Runner {
  readonly #say: (text: string) => void;
  readonly #isWanted: (name: string) => boolean;
  readonly #startMs = performance.now();
  #declared: Test[] = [];
  /** Errors that nobody caught, since the last test. */
  #uncaught: unknown[] = [];
  readonly #failures: string[] = [];
  #passed = 0;
  #ignored = 0;
  #filteredOut = 0;

  constructor({ filter, say }: RunnerOptions) {
    this.#say = say;
    this.#isWanted = wants(filter);
  }

  /** `Deno.test` in one of its forms: `(name, fn)` or `({ name, ignore, fn })`. */
  declare(first: unknown, second?: unknown): void {
    const test = typeof first === "string"
      ? { name: first, fn: second }
      : first as Partial<Test>;
    const { name, fn } = test;
    if (typeof name !== "string" || typeof fn !== "function" || fn.length > 0) {
      throw new TypeError("this form of Deno.test is not known here");
    }
    const ignore = "ignore" in test && test.ignore === true;
    this.#declared.push({ name, ignore, fn: fn as Body });
  }

  /** Called with what nobody caught: it fails the test that runs. */
  uncaught(error: unknown): void {
    this.#uncaught.push(error);
  }

  /** Loads a file, then runs what it declares. */
  async runFile(path: string, load: () => Promise<unknown>): Promise<void> {
    this.#declared = [];
    await this.#attempt(`${path} (loading)`, async () => void await load());
    const wanted = this.#declared.filter(({ name }) => this.#isWanted(name));
    this.#filteredOut += this.#declared.length - wanted.length;
    if (wanted.length === 0) return;
    const count = wanted.length === 1 ? "1 test" : `${wanted.length} tests`;
    this.#say(`running ${count} from ${path}\n`);
    for (const { name, ignore, fn } of wanted) {
      this.#say(`${name} ... `);
      if (ignore) {
        this.#ignored++;
        this.#say("ignored\n");
        continue;
      }
      const startMs = performance.now();
      if (!await this.#attempt(`${name} => ${path}`, fn)) continue;
      this.#passed++;
      this.#say(`ok (${formatMs(performance.now() - startMs)})\n`);
    }
  }

  /** Whether it went well; tells why not. */
  async #attempt(what: string, fn: Body): Promise<boolean> {
    this.#uncaught = [];
    const errors: unknown[] = [];
    try {
      await fn();
    } catch (error) {
      errors.push(error);
    }
    // What nobody caught is told in the event loop's next turn.
    await new Promise((resolve) => setTimeout(resolve));
    errors.push(...this.#uncaught.map((error) => ({ uncaught: error })));
    if (errors.length === 0) return true;
    this.#failures.push(what);
    this.#say(`FAILED\n${what}\n`);
    for (const error of errors) this.#say(`${describe(error)}\n`);
    return false;
  }

  /** Whether something ran, and none of it failed. */
  get ok(): boolean {
    return this.#failures.length === 0 && this.#passed + this.#ignored > 0;
  }

  /** What failed, and the line of all counts. */
  summary(): string {
    const failed = this.#failures.length;
    const names = failed === 0
      ? ""
      : `\n FAILURES\n\n${this.#failures.join("\n")}\n`;
    const counts = [
      this.ok ? "ok" : "FAILED",
      `${this.#passed} passed`,
      `${failed} failed`,
      ...this.#ignored > 0 ? [`${this.#ignored} ignored`] : [],
      ...this.#filteredOut > 0 ? [`${this.#filteredOut} filtered out`] : [],
    ].join(" | ");
    const took = formatMs(performance.now() - this.#startMs);
    return `${names}\n${counts} (${took})\n`;
  }
}

function wants(filter: string | undefined): (name: string) => boolean {
  if (filter === undefined) return () => true;
  const expression = /^\/(.*)\/$/s.exec(filter)?.[1];
  if (expression === undefined) return (name) => name.includes(filter);
  const wanted = new RegExp(expression);
  return (name) => wanted.test(name);
}

function describe(error: unknown): string {
  if (error instanceof Error) return error.stack ?? String(error);
  if (typeof error === "object" && error !== null && "uncaught" in error) {
    return `(uncaught) ${describe(error.uncaught)}`;
  }
  return String(error);
}

function formatMs(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)}ms`;
  const s = Math.floor(ms / 1_000);
  return s < 60 ? `${s}s` : `${Math.floor(s / 60)}m${s % 60}s`;
}
