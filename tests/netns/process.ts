/**
 * Programs that the namespace tests start: run to their end with a time limit,
 * or kept in the background with what they say collected. Only processes
 * started here are ever signalled, by their id.
 */

/** How a program ended, and what it said. */
export interface Finished {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** How a program is started. */
export interface RunOptions {
  readonly env?: Record<string, string>;
  readonly stdin?: string;
  readonly timeoutS?: number;
}

const TIMEOUT_S = 60;
const PIPE_MS = 1_000;
const POLL_MS = 20;
const END_MS = 5_000;

/** Runs a program to its end, whatever its exit status. */
export async function attempt(
  argv: readonly string[],
  { env, stdin, timeoutS = TIMEOUT_S }: RunOptions = {},
): Promise<Finished> {
  const child = new Deno.Command("timeout", {
    args: ["-k", "2", String(timeoutS), ...argv],
    env,
    stdin: stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  if (stdin !== undefined) {
    const writer = child.stdin.getWriter();
    // A program that does not read its input has its reasons.
    await writer.write(new TextEncoder().encode(stdin)).catch(() => {});
    await writer.close().catch(() => {});
  }
  const streams = [child.stdout, child.stderr].map((s) => new Collected(s));
  const { code } = await child.status;
  // A daemon that it has started may keep its pipes.
  const [stdout, stderr] = await Promise.all(
    streams.map((stream) => stream.text(PIPE_MS)),
  );
  return { code, stdout, stderr };
}

/** What comes by a pipe. */
class Collected {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  readonly #ended: Promise<void>;
  readonly #decoder = new TextDecoder();
  #text = "";

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
    this.#ended = this.#read();
  }

  async #read(): Promise<void> {
    for (;;) {
      const { done, value } = await this.#reader.read();
      if (done) return;
      this.#text += this.#decoder.decode(value, { stream: true });
    }
  }

  /** All that came; the pipe's end is waited for this long. */
  async text(limitMs: number): Promise<string> {
    const timer = setTimeout(() => this.#reader.cancel(), limitMs);
    await this.#ended;
    clearTimeout(timer);
    return this.#text;
  }
}

/** Runs a program that must succeed. @returns its stdout */
export async function run(
  argv: readonly string[],
  options: RunOptions = {},
): Promise<string> {
  const { code, stdout, stderr } = await attempt(argv, options);
  if (code === 0) return stdout;
  throw new Error(`${argv.join(" ")}: exit ${code}\n${stdout}${stderr}`);
}

/** Waits. */
export function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Waits until `holds`. @throws Error that names `what` after `timeoutMs` */
export async function until(
  what: string,
  holds: () => boolean | Promise<boolean>,
  timeoutMs = END_MS,
): Promise<void> {
  const giveUpMs = Date.now() + timeoutMs;
  while (!(await holds())) {
    if (Date.now() > giveUpMs) {
      throw new Error(`waited ${timeoutMs} ms in vain: ${what}`);
    }
    await delay(POLL_MS);
  }
}

/** A program in the background. */
export class Process implements AsyncDisposable {
  readonly argv: readonly string[];
  readonly #child: Deno.ChildProcess;
  readonly #ended: Promise<void>;
  readonly #lines: { readonly text: string; readonly atMs: number }[] = [];
  #status: Deno.CommandStatus | undefined;

  constructor(argv: readonly string[], env: Record<string, string> = {}) {
    this.argv = argv;
    const [program, ...args] = argv;
    this.#child = new Deno.Command(program, {
      args,
      env,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#ended = this.#collect();
  }

  async #collect(): Promise<void> {
    const read = async (stream: ReadableStream<Uint8Array>): Promise<void> => {
      const decoder = new TextDecoder();
      let rest = "";
      for await (const bytes of stream) {
        rest += decoder.decode(bytes, { stream: true });
        const lines = rest.split("\n");
        rest = lines.pop() ?? "";
        const atMs = Date.now();
        for (const text of lines) this.#lines.push({ text, atMs });
      }
      if (rest !== "") this.#lines.push({ text: rest, atMs: Date.now() });
    };
    const streams = [read(this.#child.stdout), read(this.#child.stderr)];
    this.#status = await this.#child.status;
    await Promise.all(streams);
  }

  get pid(): number {
    return this.#child.pid;
  }

  /** All that it has said in whole lines, on stdout and stderr. */
  get said(): string {
    return this.#lines.map(({ text }) => text).join("\n");
  }

  /** Times at which it said a line that matches. */
  timesOf(pattern: RegExp): number[] {
    return this.#lines.filter(({ text }) => pattern.test(text))
      .map(({ atMs }) => atMs);
  }

  /** How it ended, or undefined while it runs. */
  get status(): Deno.CommandStatus | undefined {
    return this.#status;
  }

  /** Sends a signal. */
  signal(name: Deno.Signal): void {
    if (this.#status === undefined) this.#child.kill(name);
  }

  /** Waits for its end. */
  async ended(timeoutMs = END_MS): Promise<Deno.CommandStatus> {
    await until(
      `the end of ${this.argv.join(" ")}\n${this.said}`,
      () => this.#status !== undefined,
      timeoutMs,
    );
    await this.#ended;
    return this.#status as Deno.CommandStatus;
  }

  /** Ends it, by force where asking does not do. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.signal("SIGTERM");
    try {
      await this.ended();
    } catch {
      this.signal("SIGKILL");
      await this.ended();
    }
  }
}
