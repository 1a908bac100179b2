/**
 * Exit statuses, and the error that ends a command with one line on stderr.
 *
 * @module
 */

/** What wgd exits with. */
export const EXIT = {
  OK: 0,
  FAILED: 1,
  USAGE: 2,
  NOT_PERMITTED: 3,
} as const;

/** Ends the command: the message goes to stderr as one line, without a trace. */
export class CliError extends Error {
  /** The class\'s name. */
  override readonly name = "CliError";
  readonly exitCode: number;

  /** The message says what to do about it. */
  constructor(
    message: string,
    exitCode: number = EXIT.FAILED,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.exitCode = exitCode;
  }
}

/** The reader of standard output has gone away: not an error of ours. */
export class OutputClosedError extends Error {
  /** The class\'s name. */
  override readonly name = "OutputClosedError";
}
