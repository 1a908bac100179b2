/**
 * What a command gets to see of the outside: its arguments, standard streams
 * and environment. Tests pass their own.
 *
 * @module
 */
import { CliError, EXIT, OutputClosedError } from "./errors.ts";

/** Values of a command's options by their long name. */
export type OptionValues = Readonly<
  Record<string, string | boolean | undefined>
>;

/** The streams and the environment. */
export interface CommandIo {
  /** Writes data to stdout. @throws {OutputClosedError} or CliError */
  out(text: string): void;
  /** Writes a message to stderr, with an end of line. */
  err(line: string): void;
  /** All of stdin, or its first `limitBytes`. */
  readStdin(limitBytes: number): Promise<Uint8Array>;
  /** An environment variable. */
  env(name: string): string | undefined;
  /** Whether stdout is a terminal. */
  readonly isTerminal: boolean;
}

/** What a command runs in. */
export interface CommandContext extends CommandIo {
  /** Positional arguments; the table has checked how many. */
  readonly args: readonly string[];
  /**
   * A flag is true or absent; an option with a value is its text, checked
   * against its choices, or absent.
   */
  readonly options: OptionValues;
}

/** How long to wait before trying a full pipe again. */
const RETRY_MS = 1;
const pause = new Int32Array(new SharedArrayBuffer(4));

function writeAll(
  stream: { writeSync(bytes: Uint8Array): number },
  text: string,
): void {
  let rest = new TextEncoder().encode(text);
  while (rest.length > 0) {
    try {
      rest = rest.subarray(stream.writeSync(rest));
    } catch (error) {
      // The other end may have made the pipe non-blocking.
      if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      Atomics.wait(pause, 0, 0, RETRY_MS);
    }
  }
}

/** The streams and the environment of this process. */
export function processIo(): CommandIo {
  return {
    out(text: string): void {
      try {
        writeAll(Deno.stdout, text);
      } catch (error) {
        if (error instanceof Deno.errors.BrokenPipe) {
          throw new OutputClosedError("stdout is closed", { cause: error });
        }
        // A full disk, say: what is there is not the whole.
        const reason = error instanceof Error ? error.message : String(error);
        throw new CliError(
          `cannot write to standard output: ${reason}`,
          EXIT.FAILED,
          { cause: error },
        );
      }
    },
    err(line: string): void {
      try {
        writeAll(Deno.stderr, `${line}\n`);
      } catch {
        // Nobody reads messages; the exit status still tells.
      }
    },
    async readStdin(limitBytes: number): Promise<Uint8Array> {
      const bytes = new Uint8Array(limitBytes);
      let length = 0;
      while (length < limitBytes) {
        const read = await Deno.stdin.read(bytes.subarray(length));
        if (read === null) break;
        length += read;
      }
      return bytes.subarray(0, length);
    },
    env: (name: string): string | undefined => Deno.env.get(name),
    isTerminal: Deno.stdout.isTerminal(),
  };
}
