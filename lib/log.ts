/**
 * The daemon's log: lines on stderr by level, as wireguard-go's LOG_LEVEL.
 * Never a key, never a packet's content.
 *
 * @module
 */

/** Levels: each includes those before it. */
export type LogLevel = "silent" | "error" | "verbose";

/** Writes lines. */
export interface Log {
  /** What went wrong. */
  error(text: string): void;
  /** What happened. */
  verbose(text: string): void;
}

/** Level by the name that LOG_LEVEL gives; `error` unless it names another. */
export function parseLogLevel(text: string | undefined): LogLevel {
  switch (text) {
    case "silent":
      return "silent";
    case "verbose":
    case "debug":
      return "verbose";
    default:
      return "error";
  }
}

/** A log that starts each line with the interface's name. */
export function createLog(level: LogLevel, name: string): Log {
  const encoder = new TextEncoder();
  const write = (text: string): void => {
    try {
      Deno.stderr.writeSync(encoder.encode(`wgd: ${name}: ${text}\n`));
    } catch {
      // Whoever read the log is gone or its disk is full; packets go on.
    }
  };
  const silent = (): void => {};
  return {
    error: level === "silent" ? silent : write,
    verbose: level === "verbose" ? write : silent,
  };
}
