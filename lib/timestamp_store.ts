/**
 * Where timestamps of handshakes go on from after a restart: a small file for
 * each interface with the time last used. A machine without a battery for its
 * clock starts with an old time, and its peers refuse timestamps that are not
 * greater than the last that they saw (reference §3).
 *
 * The file is written when the first initiation goes out, then every ten minutes
 * at most, so as not to wear out flash memory, and at the end. So the time in it
 * may be ten minutes older than the last one used.
 *
 * @module
 */
import type { TimestampFloor } from "./tai64n.ts";
import type { Log } from "./log.ts";

/** A time used is not written sooner than this after the one before. */
export const SAVE_INTERVAL_MS = 10 * 60_000;

const DEFAULT_DIRECTORY = "/var/lib/wgd";
const DIRECTORY_MODE = 0o700;
const SUFFIX = ".timestamp";
/** Past the year 9999 it is no time. */
const TIME_MAX_MS = 253_402_300_800_000;

/**
 * The directory: systemd's STATE_DIRECTORY, or wgd's own; undefined for
 * /dev/null, where nothing is to be kept.
 */
export function stateDirectory(
  env: (name: string) => string | undefined,
): string | undefined {
  const directory = env("STATE_DIRECTORY")?.split(":")[0];
  return directory === "/dev/null" ? undefined : directory || DEFAULT_DIRECTORY;
}

/** The last time used by any interface of this machine, or undefined. */
function readLast(directory: string): number | undefined {
  let last: number | undefined;
  try {
    for (const { name } of Deno.readDirSync(directory)) {
      if (!name.endsWith(SUFFIX)) continue;
      const text = Deno.readTextFileSync(`${directory}/${name}`);
      const ms = /^\d{1,15}\n$/.test(text) ? Number(text) : NaN;
      if (ms < TIME_MAX_MS) last = Math.max(last ?? 0, ms);
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return last;
}

/** The file of one interface. */
export class TimestampStore implements TimestampFloor {
  readonly floorMs: number;
  readonly #directory: string;
  readonly #path: string;
  readonly #log: Log;
  #lastMs = -Infinity;
  #savedMs = -Infinity;
  #saving: Promise<void> = Promise.resolve();
  #told = false;

  /** @param wallMs the wall clock, which is believed unless it is behind */
  constructor(directory: string, name: string, wallMs: number, log: Log) {
    this.#directory = directory;
    this.#path = `${directory}/${name}${SUFFIX}`;
    this.#log = log;
    let last: number | undefined;
    try {
      last = readLast(directory);
    } catch (error) {
      this.#failed("read", error);
    }
    const behind = last !== undefined && wallMs < last;
    this.floorMs = behind && last !== undefined
      ? last + SAVE_INTERVAL_MS
      : -Infinity;
    if (behind) {
      log.error(
        "the wall clock is behind the last timestamp used: " +
          "timestamps go on from that one",
      );
    }
  }

  /** See {@link TimestampFloor.used}. */
  used(ms: number): void {
    this.#lastMs = ms;
    if (ms < this.#savedMs + SAVE_INTERVAL_MS) return;
    this.#savedMs = ms;
    this.#saving = this.#saving.then(() => this.#save(ms));
  }

  /** Resolves when what was to be written is. */
  async settled(): Promise<void> {
    await this.#saving;
  }

  /** Writes the last time used. */
  async close(): Promise<void> {
    await this.settled();
    if (this.#lastMs > this.#savedMs) await this.#save(this.#lastMs);
  }

  async #save(ms: number): Promise<void> {
    const next = `${this.#path}.new`;
    try {
      await Deno.mkdir(this.#directory, {
        recursive: true,
        mode: DIRECTORY_MODE,
      });
      const file = await Deno.open(next, {
        write: true,
        create: true,
        truncate: true,
        mode: 0o600,
      });
      try {
        await file.write(new TextEncoder().encode(`${Math.ceil(ms)}\n`));
        await file.syncData();
      } finally {
        file.close();
      }
      await Deno.rename(next, this.#path);
    } catch (error) {
      this.#failed("write", error);
    }
  }

  /** Told once: without the file wgd works, as long as the clock is right. */
  #failed(what: string, error: unknown): void {
    if (this.#told) return;
    this.#told = true;
    const reason = error instanceof Error ? error.message : String(error);
    this.#log.error(`cannot ${what} ${this.#path}: ${reason}`);
  }
}
