/** Programs that are ended by signals, and how long they usually take. */
import { delay } from "./process.ts";

/** What has not ended by then is a finding, also on a busy machine. */
export const END_MS = 60_000;

/** A program whose stderr goes to a file, so that nobody waits for it. */
export class Program {
  readonly child: Deno.ChildProcess;
  readonly startMs = performance.now();
  status: Deno.CommandStatus | undefined;

  constructor(argv: readonly string[], readonly log: string) {
    this.child = new Deno.Command("sh", {
      args: ["-c", 'exec "$@" 2>"$0"', log, ...argv],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.child.status.then((status) => this.status = status);
  }

  /** Sends a signal; false: it has ended. */
  signal(name: Deno.Signal): boolean {
    if (this.status !== undefined) return false;
    try {
      this.child.kill(name);
      return true;
    } catch {
      return false;
    }
  }

  /** Waits for its end. @returns undefined if it does not come */
  async ended(limitMs = END_MS): Promise<Deno.CommandStatus | undefined> {
    const giveUpMs = performance.now() + limitMs;
    while (this.status === undefined && performance.now() < giveUpMs) {
      await delay(1);
    }
    return this.status;
  }

  /** What it has said on stderr. */
  get said(): string {
    return Deno.readTextFileSync(this.log);
  }
}

/** How long things take here, as they were seen. */
export class Pace {
  #ms: number;

  constructor(ms: number) {
    this.#ms = ms;
  }

  /** Takes up how long it took this time. */
  saw(ms: number): void {
    this.#ms += (ms - this.#ms) / 8;
  }

  /** How long it takes. */
  get ms(): number {
    return this.#ms;
  }
}

/** How a program ended, in a word. */
export function describe(status: Deno.CommandStatus | undefined): string {
  return status === undefined
    ? "nothing"
    : String(status.signal ?? status.code);
}

/** Whether a signal ended it that it did not handle. */
export function isSignalled(
  status: Deno.CommandStatus | undefined,
): status is Deno.CommandStatus {
  return status !== undefined && status.signal !== null;
}
