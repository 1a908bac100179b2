/**
 * A userspace daemon, wgd or wireguard-go, in the foreground in a namespace,
 * and the stock wg that configures it.
 */
import type { Namespace } from "./lab.ts";
import { attempt, type Finished, Process, run, until } from "./process.ts";
import { otherCommand, wgdCommand } from "./requirements.ts";

/** Whose daemon; boringtun is for benchmarks alone. */
export type Implementation = "wgd" | "wireguard-go" | "boringtun";

/** How a daemon is started. */
export interface DaemonOptions {
  /** Options of `wgd run`; nothing for others. */
  readonly args?: readonly string[];
  readonly env?: Record<string, string>;
  /** Name of the interface; a new one unless given. */
  readonly name?: string;
  /** Command line of wgd; the one under test unless given. */
  readonly command?: readonly string[];
  /** How long it may take to answer. */
  readonly readyMs?: number;
}

/** One peer as `wg show IF dump` tells it. */
export interface PeerDump {
  readonly publicKey: string;
  readonly presharedKey: string;
  readonly endpoint: string;
  readonly allowedIps: readonly string[];
  readonly latestHandshakeS: number;
  readonly rxBytes: number;
  readonly txBytes: number;
  readonly keepalive: string;
}

const READY_MS = 20_000;

/** Path of an interface's UAPI socket. */
export function socketPath(name: string): string {
  return `/var/run/wireguard/${name}.sock`;
}

/** Whether there is something at `path`. */
export function exists(path: string): boolean {
  try {
    Deno.lstatSync(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** A running daemon. */
export class Daemon implements AsyncDisposable {
  readonly name: string;
  readonly process: Process;
  readonly #readyMs: number;

  constructor(
    readonly namespace: Namespace,
    readonly implementation: Implementation,
    options: DaemonOptions & { readonly name: string },
  ) {
    this.name = options.name;
    this.#readyMs = options.readyMs ?? READY_MS;
    const wgd = options.command ?? wgdCommand();
    const argv = implementation === "wgd"
      ? [...wgd, "run", "-f", ...options.args ?? [], this.name]
      : [...otherCommand(implementation), "-f", this.name];
    this.process = new Process(namespace.argv(argv), {
      LOG_LEVEL: "error",
      WG_SUDO: "1",
      ...options.env,
    });
  }

  /** Waits until stock wg gets an answer. */
  async ready(): Promise<void> {
    await until(
      `${this.implementation} to answer`,
      async () => {
        if (this.process.status !== undefined) {
          throw new Error(`the daemon has ended: ${this.process.said}`);
        }
        return exists(socketPath(this.name)) &&
          (await this.attempt("show", this.name)).code === 0;
      },
      this.#readyMs,
    );
  }

  /** Runs `wg ARGS`, which must succeed. */
  wg(...args: string[]): Promise<string> {
    return run(this.namespace.argv(["wg", ...args]));
  }

  /** Runs `wg ARGS`, whatever its exit status. */
  attempt(...args: string[]): Promise<Finished> {
    return attempt(this.namespace.argv(["wg", ...args]));
  }

  /** `wg set` of this interface. */
  async set(...args: string[]): Promise<void> {
    await this.wg("set", this.name, ...args);
  }

  /** `wg show IF FIELD`. */
  async show(field: string): Promise<string> {
    return (await this.wg("show", this.name, field)).trim();
  }

  /** The peers by `wg show IF dump`. */
  async peers(): Promise<PeerDump[]> {
    const [, ...lines] = (await this.show("dump")).split("\n");
    return lines.map((line) => {
      const words = line.split("\t");
      return {
        publicKey: words[0],
        presharedKey: words[1],
        endpoint: words[2],
        allowedIps: words[3].split(","),
        latestHandshakeS: Number(words[4]),
        rxBytes: Number(words[5]),
        txBytes: Number(words[6]),
        keepalive: words[7],
      };
    });
  }

  /** Gives the interface addresses and brings it up. */
  async up(...addresses: string[]): Promise<void> {
    await this.namespace.lab.connect(this.namespace, this.name, ...addresses);
  }

  /** Number of its open descriptors. */
  descriptors(): number {
    return [...Deno.readDirSync(`/proc/${this.process.pid}/fd`)].length;
  }

  /** Its resident memory. */
  residentBytes(): number {
    const status = Deno.readTextFileSync(`/proc/${this.process.pid}/status`);
    return Number(/VmRSS:\s*(\d+)/.exec(status)?.[1]) * 1024;
  }

  /** Whether the interface is there. */
  async hasInterface(): Promise<boolean> {
    const { code } = await attempt(
      ["ip", "-n", this.namespace.name, "link", "show", this.name],
    );
    return code === 0;
  }

  /** Ends it. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.process[Symbol.asyncDispose]();
  }
}
