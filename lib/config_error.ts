/**
 * Errors of configuration files: where, what and what was expected instead,
 * all of a file at once. Keys are secret, so no text that is or may be one is
 * ever repeated in a message. Pure.
 *
 * @module
 */

/** Errors beyond these are counted in the message but not spelled out. */
const ERRORS_SHOWN_MAX = 50;
const QUOTE_LENGTH_MAX = 60;

/** What a key must look like, in every error about one. */
export const EXPECTED_KEY = "a key of 44 base64 characters";

/** What {@linkcode ConfigError} knows. */
export interface ConfigErrorFields {
  /** Name of the file. */
  file: string;
  /** Line, from 1. */
  line: number;
  /** Column, from 1. */
  column: number;
  /** The key or section at fault; empty if there is none. */
  key: string;
  /** What is wrong, without the key and the expectation. */
  problem: string;
  /** The offending text; empty if it is or may be a secret. */
  text: string;
  /** What was expected. */
  expected: string;
}

/** One error in a configuration file. */
export class ConfigError extends SyntaxError {
  /** The class's name. */
  override readonly name = "ConfigError";
  /** Name of the file. */
  readonly file: string;
  /** Line, from 1. */
  readonly line: number;
  /** Column, from 1. */
  readonly column: number;
  /** The offending text; empty if it is or may be a secret. */
  readonly text: string;
  /** What was expected. */
  readonly expected: string;

  /** The message is made from all fields. */
  constructor(fields: ConfigErrorFields) {
    const { file, line, column, key, problem, text, expected } = fields;
    super(
      `${file}:${line}:${column}: ${key && `${key}: `}${problem}; ` +
        `expected ${expected}`,
    );
    this.file = file;
    this.line = line;
    this.column = column;
    this.text = text;
    this.expected = expected;
  }
}

/** All errors of a configuration file; the message has one line for each. */
export class ConfigErrors extends SyntaxError {
  /** The class's name. */
  override readonly name = "ConfigErrors";
  /** In the order of the file. */
  readonly errors: readonly ConfigError[];

  /** At least one error. */
  constructor(errors: readonly ConfigError[]) {
    const lines = errors.slice(0, ERRORS_SHOWN_MAX).map((e) => e.message);
    const more = errors.length - lines.length;
    if (more > 0) lines.push(`… and ${more} more errors`);
    super(lines.join("\n"));
    this.errors = errors;
  }
}

/** Whether the text may be a key, a good part of one, or one mistyped. */
function looksSecret(text: string): boolean {
  const run = /[\w+/=-]{30,}/.exec(text)?.[0] ?? "";
  return (/[A-Z]/.test(run) && /[a-z]/.test(run)) ||
    /^[0-9a-fA-F]{64}$/.test(run);
}

/** Quotes text of a file for a message: short, printable, and no secret. */
export function quote(text: string): string {
  if (looksSecret(text)) return "what looks like a key";
  const short = text.length > QUOTE_LENGTH_MAX
    ? `${text.slice(0, QUOTE_LENGTH_MAX)}…`
    : text;
  return JSON.stringify(short).replace(
    /[^\x20-\x7e…]/g,
    (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`,
  );
}
