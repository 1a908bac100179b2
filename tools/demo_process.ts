/**
 * Programs that the demo runs: to their end, or in the background until they
 * are stopped. Each gets a session of its own, so that Ctrl-C reaches the demo
 * alone and the commands that clean up are not cut short.
 *
 * @module
 */

/** Ends the demo with its message and without a trace. */
export class DemoError extends Error {
  override readonly name = "DemoError";
}

/** What a program left. */
export interface Output {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Called with each command line before it runs. */
export type Echo = (argv: readonly string[]) => void;

const STOP_MS = 3_000;
const KEPT_CHARACTERS = 4_096;
const WAIT_STEP_MS = 10;

function spawn(
  argv: readonly string[],
  signal?: AbortSignal,
): Deno.ChildProcess {
  const [program, ...args] = argv;
  try {
    return new Deno.Command(program, {
      args,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
      detached: true,
      signal,
    }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) {
      throw new DemoError(`${program} is not installed`, { cause: error });
    }
    throw error;
  }
}

/** Runs a program to its end; `signal` kills it. */
export async function run(
  argv: readonly string[],
  signal?: AbortSignal,
): Promise<Output> {
  signal?.throwIfAborted();
  const output = await spawn(argv, signal).output();
  signal?.throwIfAborted();
  const decoder = new TextDecoder();
  return {
    code: output.code,
    stdout: decoder.decode(output.stdout),
    stderr: decoder.decode(output.stderr),
  };
}

/** What a program said about its failure, in one line. */
export function complaint({ code, stderr }: Output): string {
  return stderr.trim().split("\n").at(-1) || `exit ${code}`;
}

/** Whether a program of this name can be started. */
export function isInstalled(program: string): boolean {
  const directories = (Deno.env.get("PATH") ?? "").split(":");
  return directories.some((directory) => {
    try {
      const { isFile, mode } = Deno.statSync(`${directory}/${program}`);
      return isFile && ((mode ?? 0) & 0o111) !== 0;
    } catch {
      return false;
    }
  });
}

/** A pause that `signal` ends. */
export async function pause(ms: number, signal?: AbortSignal): Promise<void> {
  signal?.throwIfAborted();
  const { promise, resolve } = Promise.withResolvers<void>();
  const timer = setTimeout(resolve, ms);
  const onAbort = (): void => resolve();
  signal?.addEventListener("abort", onAbort);
  await promise;
  signal?.removeEventListener("abort", onAbort);
  clearTimeout(timer);
  signal?.throwIfAborted();
}

/** Asks until `done` says yes. @returns whether it did so in time */
export async function until(
  done: () => Promise<boolean> | boolean,
  timeoutMs: number,
  signal?: AbortSignal,
): Promise<boolean> {
  const giveUpMs = performance.now() + timeoutMs;
  while (!await done()) {
    if (performance.now() > giveUpMs) return false;
    await pause(WAIT_STEP_MS, signal);
  }
  return true;
}

/** A program in the background. */
export class Program {
  /** Resolves when it has ended and its output was read. */
  readonly ended: Promise<void>;
  readonly #child: Deno.ChildProcess;
  #running = true;
  #stdout = "";
  #stderr = "";

  /** Starts it. */
  constructor(argv: readonly string[]) {
    const child = spawn(argv);
    const reading = [
      follow(child.stdout, (text) => this.#stdout = text),
      follow(child.stderr, (text) => this.#stderr = text),
    ];
    this.#child = child;
    this.ended = (async (): Promise<void> => {
      await child.status;
      this.#running = false;
      await Promise.all(reading);
    })();
  }

  /** Whether it has not ended. */
  get running(): boolean {
    return this.#running;
  }

  /** The process's number. */
  get pid(): number {
    return this.#child.pid;
  }

  /** The end of what it wrote to stdout. */
  get stdout(): string {
    return this.#stdout;
  }

  /** The end of what it wrote to stderr. */
  get stderr(): string {
    return this.#stderr;
  }

  /** Asks it to end, and makes it end if it does not. */
  async stop(): Promise<void> {
    if (!this.#running) return;
    this.#child.kill("SIGTERM");
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), STOP_MS);
    await this.ended;
    clearTimeout(timer);
  }
}

/** Reads a stream to its end and gives the end of its text each time it grows. */
async function follow(
  stream: ReadableStream<Uint8Array>,
  tell: (text: string) => void,
): Promise<void> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of stream) {
    text += decoder.decode(bytes, { stream: true });
    text = text.slice(-KEPT_CHARACTERS);
    tell(text);
  }
}

/** The programs of one demo: echoed, ended by its signal, and stopped with it. */
export class Commands {
  readonly #programs: Program[] = [];

  /** @param signal ends what runs @param echo gets each command line */
  constructor(readonly signal: AbortSignal, readonly echo: Echo) {}

  /** Runs a program to its end, or until the signal. */
  async run(argv: readonly string[]): Promise<Output> {
    this.signal.throwIfAborted();
    this.echo(argv);
    return await run(argv, this.signal);
  }

  /**
   * Runs a short program that the signal does not cut short.
   *
   * @throws DemoError when it fails
   */
  async must(argv: readonly string[]): Promise<void> {
    this.signal.throwIfAborted();
    this.echo(argv);
    const output = await run(argv);
    if (output.code === 0) return;
    throw new DemoError(`${argv.join(" ")}: ${complaint(output)}`);
  }

  /** Starts a program in the background. */
  start(argv: readonly string[]): Program {
    this.signal.throwIfAborted();
    this.echo(argv);
    const program = new Program(argv);
    this.#programs.push(program);
    return program;
  }

  /** Stops what is still in the background. */
  async stopAll(): Promise<void> {
    await Promise.all(this.#programs.map((program) => program.stop()));
  }
}
