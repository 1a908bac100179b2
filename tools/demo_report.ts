/**
 * The demo's report: one line a step, in columns, with colours only on a
 * terminal and where NO_COLOR does not forbid them. A closed stdout ends the
 * report, never the demo: that still has to clean up.
 *
 * @module
 */
import { type CommandIo, processIo } from "../lib/commands/context.ts";

const LABEL_WIDTH = 13;
const STATE_WIDTH = 6;
const RESET = "\x1b[0m";
const BOLD = "\x1b[1m";
const DIM = "\x1b[2m";
const RED = "\x1b[31m";
const GREEN = "\x1b[32m";
const CLEAR_LINE = "\r\x1b[K";

/** Writes the report. */
export class Report {
  readonly #io: CommandIo;
  readonly #live: boolean;
  readonly #color: boolean;
  #step = "";

  /** By default on this process's streams. */
  constructor(io: CommandIo = processIo()) {
    this.#io = io;
    this.#live = io.isTerminal && io.env("TERM") !== "dumb";
    this.#color = this.#live && !io.env("NO_COLOR");
  }

  /** The first line. */
  title(text: string): void {
    this.#write(`${this.#paint(BOLD, text)}\n`);
  }

  /** Lines as they are, set off by empty ones. */
  block(lines: readonly string[]): void {
    this.#write(`\n${lines.join("\n")}\n\n`);
  }

  /** Text as it is. */
  text(text: string): void {
    this.#write(text);
  }

  /** Starts a step; on a terminal its line waits for the result. */
  begin(label: string): void {
    this.#step = label;
    if (this.#live) this.#write(this.#line(DIM, "...", ""));
  }

  /** Ends the step with what came of it. */
  ok(text: string): void {
    this.#end(GREEN, "ok", text);
  }

  /** Ends the step: it did not work. */
  failed(text: string): void {
    this.#end(RED, "FAILED", text);
  }

  /** Ends the step, if there is one, that something else has ended. */
  abandon(text: string): void {
    if (this.#step !== "") this.failed(text);
  }

  /** A remark below a step. */
  note(text: string): void {
    const indent = " ".repeat(STATE_WIDTH + LABEL_WIDTH + 4);
    this.#write(`${indent}${this.#paint(DIM, text)}\n`);
  }

  /** The last line: whether it worked. */
  verdict(worked: boolean, text: string): void {
    this.#write(`\n${this.#paint(worked ? GREEN : RED, text)}\n`);
  }

  /** A line on stderr. */
  error(text: string): void {
    this.#interruptStep();
    for (const line of text.split("\n")) this.#io.err(`demo: ${line}`);
  }

  /** A command about to run, on stderr. */
  command(argv: readonly string[]): void {
    this.#interruptStep();
    this.#io.err(`[#] ${argv.join(" ")}`);
  }

  #interruptStep(): void {
    if (this.#live && this.#step !== "") this.#write(CLEAR_LINE);
  }

  #end(color: string, state: string, text: string): void {
    this.#interruptStep();
    this.#write(`${this.#line(color, state, text)}\n`);
    this.#step = "";
  }

  #line(color: string, state: string, text: string): string {
    const mark = this.#paint(color, state.padEnd(STATE_WIDTH));
    return `  ${mark}  ${this.#step.padEnd(LABEL_WIDTH)}${text}`.trimEnd();
  }

  #paint(color: string, text: string): string {
    return this.#color ? `${color}${text}${RESET}` : text;
  }

  #write(text: string): void {
    try {
      this.#io.out(text);
    } catch {
      // Nobody reads it; the exit status still tells.
    }
  }
}

/** A range of milliseconds. */
export function formatRangeMs(minMs: number, maxMs: number): string {
  return `${digits(minMs)} to ${digits(maxMs)} ms`;
}

/** Milliseconds, or seconds from one on, with three digits. */
export function formatMs(ms: number): string {
  return ms < 1000 ? `${digits(ms)} ms` : `${digits(ms / 1000)} s`;
}

/** A rate from bits a second. */
export function formatRate(bitsPerSecond: number): string {
  const megabits = bitsPerSecond / 1e6;
  return megabits < 1000
    ? `${digits(megabits)} Mbit/s`
    : `${digits(megabits / 1000)} Gbit/s`;
}

/** A number of bytes. */
export function formatBytes(bytes: number): string {
  const units = ["B", "kB", "MB", "GB"];
  let i = 0;
  for (; bytes >= 1000 && i < units.length - 1; i++) bytes /= 1000;
  return `${digits(bytes)} ${units[i]}`;
}

/** Three digits that count, but no fraction of hundreds. */
function digits(value: number): string {
  return value >= 100 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
}
