/**
 * Runs plans of system commands: each is echoed first, and when one fails, or a
 * signal arrives, those before it are undone in reverse.
 *
 * @module
 */
import { type Command, echoOf, inNamespace, type Step } from "./quick_step.ts";

/** Where commands are that a user's PATH may lack. */
const SYSTEM_DIRECTORIES = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/** How long what a command has started may hold on to its stderr. */
const PIPE_MS = 200;

/** A step that failed. */
export class StepError extends Error {
  override readonly name: string = "StepError";

  /**
   * @param argv the command
   * @param cutOff whether a signal ended it, so that it may be done all the same
   */
  constructor(
    readonly argv: readonly string[],
    reason: string,
    readonly cutOff = false,
  ) {
    super(`${argv.join(" ")}: ${reason}`);
  }
}

/** PATH, with the directories of system commands at its end. */
function searchPath(): string {
  const path = Deno.env.get("PATH") ?? "/usr/bin:/bin";
  const has = new Set(path.split(":"));
  const more = SYSTEM_DIRECTORIES.filter((directory) => !has.has(directory));
  return [path, ...more].join(":");
}

/** Path of a program; undefined if it is not installed. */
export function findProgram(name: string): string | undefined {
  if (name.includes("/")) return name;
  for (const directory of searchPath().split(":")) {
    const path = `${directory || "."}/${name}`;
    try {
      const { isFile, mode } = Deno.statSync(path);
      if (isFile && ((mode ?? 0) & 0o111) !== 0) return path;
    } catch {
      // Not here.
    }
  }
  return undefined;
}

function spawn(
  argv: readonly string[],
  options: Omit<Deno.CommandOptions, "args" | "env">,
): Deno.ChildProcess {
  const [program, ...args] = argv;
  const path = findProgram(program);
  if (path === undefined) {
    throw new StepError(argv, `${program} is not installed`);
  }
  const env = { LC_ALL: "C", PATH: searchPath() };
  return new Deno.Command(path, { ...options, args, env }).spawn();
}

/**
 * What a command says on stdout, whatever its exit status; nothing if it is not
 * installed.
 *
 * @param netns network namespace to run it in; default: this one
 */
export async function capture(
  argv: readonly string[],
  netns?: string,
): Promise<string> {
  if (findProgram(argv[0]) === undefined) return "";
  const child = spawn(inNamespace(argv, netns), {
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  });
  const { stdout } = await child.output();
  return new TextDecoder().decode(stdout);
}

/** Reads what a command says, and a little longer than it runs. */
async function collect(
  stream: ReadableStream<Uint8Array>,
  ended: Promise<unknown>,
): Promise<string> {
  const reader = stream.getReader();
  let timer: ReturnType<typeof setTimeout> | undefined;
  ended.then(() => {
    timer = setTimeout(() => reader.cancel(), PIPE_MS);
  });
  const decoder = new TextDecoder();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  await ended;
  clearTimeout(timer);
  return text.trim();
}

/** What wgd does itself, by the second word of a command. */
export type OwnCommands = Readonly<
  Record<string, (argv: readonly string[]) => Promise<void>>
>;

/** How a {@linkcode Runner} speaks, and what it does itself. */
export interface RunnerOptions {
  /** Gets each command before it runs, and what commands warn of. */
  readonly say: (line: string) => void;
  readonly own?: OwnCommands;
  /** Network namespace of all but what wgd does itself; default: this one. */
  readonly netns?: string;
}

/** Runs commands one after the other. */
export class Runner {
  readonly #options: RunnerOptions;
  #child: Deno.ChildProcess | undefined;
  #interrupted = false;

  constructor(options: RunnerOptions) {
    this.#options = options;
  }

  /** Whether {@linkcode interrupt} was called. */
  get interrupted(): boolean {
    return this.#interrupted;
  }

  /** Ends the command that runs; steps that follow are not begun. */
  interrupt(signal: Deno.Signal): void {
    this.#interrupted = true;
    try {
      this.#child?.kill(signal);
    } catch {
      // It has ended just now.
    }
  }

  /** Runs a command. @throws StepError with what it said on stderr */
  async run(command: Command): Promise<void> {
    const { own, hook, stdin } = command;
    const { say, netns } = this.#options;
    const argv = own ? command.argv : inNamespace(command.argv, netns);
    say(echoOf({ argv, hook }));
    if (own) {
      const act = this.#options.own?.[argv[1]];
      if (act === undefined) throw new StepError(argv, "unknown here");
      return await act(argv);
    }
    const child = spawn(argv, {
      stdin: hook !== undefined ? "inherit" : stdin ? "piped" : "null",
      stdout: hook !== undefined ? "inherit" : "null",
      stderr: hook !== undefined ? "inherit" : "piped",
    });
    this.#child = child;
    try {
      if (hook === undefined && stdin) await feed(child, stdin);
      const said = hook === undefined
        ? await collect(child.stderr, child.status)
        : "";
      const { success, code, signal } = await child.status;
      if (success) {
        if (said !== "") say(said);
        return;
      }
      const words = hook === undefined ? argv : [hook];
      const how = signal === null ? `exit ${code}` : `ended by ${signal}`;
      throw new StepError(words, said === "" ? how : said, signal !== null);
    } finally {
      this.#child = undefined;
    }
  }
}

async function feed(child: Deno.ChildProcess, text: string): Promise<void> {
  const writer = child.stdin.getWriter();
  try {
    await writer.write(new TextEncoder().encode(text));
    await writer.close();
  } catch (error) {
    // A command that does not read its input tells by its exit status.
    if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
  }
}

/** Whether a command failed because what it removes is not there. */
export function isAlreadyGone(error: unknown): boolean {
  return error instanceof StepError &&
    /No such (file|process|device)|Cannot (find|assign)|does not exist|not found|not known/i
      .test(error.message);
}

/** Steps that are run, and can be undone. */
export class PlanRun {
  readonly #runner: Runner;
  readonly #record: (steps: readonly Step[]) => void;
  readonly #done: Step[] = [];

  /** @param record gets all steps that may have been begun, before each one */
  constructor(
    runner: Runner,
    record: (steps: readonly Step[]) => void = () => {},
  ) {
    this.#runner = runner;
    this.#record = record;
  }

  /** The steps that were run. */
  get done(): readonly Step[] {
    return this.#done;
  }

  /**
   * Runs steps. @throws what the step threw that failed; call `unwind` then
   */
  async run(steps: readonly Step[]): Promise<void> {
    for (const step of steps) {
      if (this.#runner.interrupted) {
        throw new StepError(step.do?.argv ?? [step.slot], "interrupted");
      }
      this.#record([...this.#done, step]);
      try {
        if (step.do !== undefined) await this.#runner.run(step.do);
      } catch (error) {
        const cutOff = error instanceof StepError && error.cutOff;
        if (step.half || cutOff) this.#done.push(step);
        throw error;
      }
      this.#done.push(step);
    }
  }

  /**
   * Undoes what was run, last step first, but not what goes with the interface.
   *
   * @returns what could not be undone, in words
   */
  unwind(): Promise<string[]> {
    const commands = this.#done.splice(0).toReversed().flatMap((step) =>
      step.linked ? [] : step.undo ?? []
    );
    return undoAll(this.#runner, commands);
  }
}

/**
 * Runs commands that undo something, all of them, whatever fails.
 *
 * @returns what could not be undone, in words
 */
export async function undoAll(
  runner: Pick<Runner, "run">,
  commands: readonly Command[],
): Promise<string[]> {
  const problems: string[] = [];
  for (const command of commands) {
    try {
      await runner.run(command);
    } catch (error) {
      if (isAlreadyGone(error)) continue;
      problems.push(error instanceof Error ? error.message : String(error));
    }
  }
  return problems;
}
