/**
 * The daemon's log: lines on stderr by level, as wireguard-go's LOG_LEVEL.
 * Never a key, never a packet's content.
 *
 * @module
 */

/** Levels: each includes those before it. */
export const LOG_LEVELS = ["silent", "error", "verbose"] as const;
/** One of {@link LOG_LEVELS}. */
export type LogLevel = (typeof LOG_LEVELS)[number];

/** Writes lines. */
export interface Log {
  error(text: string): void;
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
