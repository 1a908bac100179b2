/**
 * What happens to a daemon until it is ended: it is configured as soon as it
 * answers, gets traffic, and its configuration changes on and on.
 */
import type { SeededRandom } from "../../lib/selftest/random.ts";
import { setDevice } from "../../lib/uapi_client.ts";
import { delay } from "./process.ts";
import { hasSocket } from "./sigterm_left.ts";
import { INNER, PORT } from "./tunnel.ts";

const POLL_MS = 3;
const PAUSE_MS_MAX = 40;

/** Where the rounds take place. */
export interface Site {
  /** The interface. */
  readonly name: string;
  /** Command line of wgd. */
  readonly wgd: readonly string[];
  /** For files; the configuration is in there, too. */
  readonly directory: string;
  readonly configuration: string;
  /** Keys in hex: our private one, the far side's public one. */
  readonly privateKey: string;
  readonly peerKey: string;
  /** The same in base64. */
  readonly privateText: string;
  readonly peerText: string;
  /** Of the far side. */
  readonly endpoint: string;
}

/** What the daemon gets. */
export interface DriverOptions {
  readonly traffic: boolean;
  /** Whether it knows marks. */
  readonly marks: boolean;
}

/** How far a daemon has come. */
export type Phase = "starting" | "up" | "configuring" | "traffic";

/** Configures one daemon, until it is stopped. */
export class Driver {
  /** How far it is. */
  phase: Phase = "starting";
  /** When it answered, by performance.now(); 0: not yet. */
  answeredMs = 0;
  /** What went wrong before it was stopped. */
  readonly problems: string[] = [];
  readonly #site: Site;
  readonly #random: SeededRandom;
  readonly #options: DriverOptions;
  readonly #done: Promise<void>;
  #ping: Deno.ChildProcess | undefined;
  #stopped = false;

  constructor(site: Site, random: SeededRandom, options: DriverOptions) {
    this.#site = site;
    this.#random = random;
    this.#options = options;
    this.#done = this.#drive();
  }

  /** Called just before the signal: errors are no longer the daemon's fault. */
  stop(): void {
    this.#stopped = true;
  }

  /** Waits for all that it has started. */
  async ended(): Promise<void> {
    this.#stopped = true;
    await this.#done;
    if (this.#ping === undefined) return;
    try {
      this.#ping.kill("SIGKILL");
    } catch {
      // It has ended with the interface.
    }
    await this.#ping.status;
  }

  async #drive(): Promise<void> {
    try {
      while (!hasSocket(this.#site.name)) {
        if (this.#stopped) return;
        await delay(POLL_MS);
      }
      this.answeredMs = performance.now();
      this.phase = "up";
      await this.#pause();
      this.phase = "configuring";
      for (const step of this.#firstSteps()) {
        if (this.#stopped) return;
        await step();
      }
      if (this.#options.traffic) this.#startTraffic();
      while (!this.#stopped) {
        await this.#pause();
        if (!this.#stopped) await this.#change();
      }
    } catch (error) {
      if (this.#stopped) return;
      this.problems.push(error instanceof Error ? error.message : `${error}`);
    }
  }

  async #pause(): Promise<void> {
    await delay(this.#random.below(PAUSE_MS_MAX));
  }

  async #set(...lines: string[]): Promise<void> {
    await setDevice(this.#site.name, [["set=1", ...lines, "", ""].join("\n")]);
  }

  async #ip(...args: string[]): Promise<void> {
    const { code, stderr } = await new Deno.Command("ip", { args }).output();
    const said = new TextDecoder().decode(stderr);
    if (code !== 0) throw new Error(`ip ${args.join(" ")}: ${said}`);
  }

  #firstSteps(): (() => Promise<void>)[] {
    const { name, privateKey, peerKey, endpoint } = this.#site;
    const steps = [
      (): Promise<void> => this.#ip("link", "set", name, "up"),
      (): Promise<void> =>
        this.#set(`private_key=${privateKey}`, `listen_port=${PORT.a}`),
      (): Promise<void> =>
        this.#set(
          `public_key=${peerKey}`,
          `endpoint=${endpoint}`,
          `allowed_ip=${INNER.b.v4}/32`,
        ),
    ];
    // The interface first, or last.
    const at = this.#random.below(steps.length);
    return [
      ...steps.slice(at),
      ...steps.slice(0, at),
      () => this.#ip("addr", "add", `${INNER.a.v4}/24`, "dev", name),
    ];
  }

  #startTraffic(): void {
    const size = String(this.#random.below(1_400));
    this.#ping = new Deno.Command("ping", {
      args: ["-f", "-q", "-s", size, INNER.b.v4],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.phase = "traffic";
  }

  async #change(): Promise<void> {
    const { name, peerKey } = this.#site;
    switch (this.#random.below(5)) {
      case 0:
        return await this.#set(
          `listen_port=${PORT.a + 1 + this.#random.below(9)}`,
        );
      case 1:
        return await this.#set(
          `fwmark=${this.#options.marks ? this.#random.below(9) : 0}`,
        );
      case 2: {
        const other = this.#random.fill(new Uint8Array(32)).toHex();
        return await this.#set(
          ...[`public_key=${other}`, "allowed_ip=10.66.0.0/16"],
          ...[`public_key=${peerKey}`, "persistent_keepalive_interval=1"],
        );
      }
      case 3:
        await this.#ip("link", "set", name, "down");
        return await this.#ip("link", "set", name, "up");
      default:
        return await this.#ip("link", "set", name, "mtu", "1400");
    }
  }
}
