/**
 * A device whose control thread is watched (scale_device.ts), up and with a
 * private key, for scale_bench.ts.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { exists, socketPath } from "../netns/daemon.ts";
import type { Lab } from "../netns/lab.ts";
import { delay, until } from "../netns/process.ts";
import { generateKeys } from "../netns/tunnel.ts";
import { ask } from "./scale_peers.ts";

const READY_MS = 20_000;
const SETTLE_MS = 500;
const CONFIG = fileURLToPath(new URL("../../deno.json", import.meta.url));
const MODULE = fileURLToPath(new URL("scale_device.ts", import.meta.url));

/** What the device tells: see scale_device.ts. */
export type Report = Record<string, number>;

/** The watched device. */
export class Meter implements AsyncDisposable {
  readonly name: string;
  readonly #child: Deno.ChildProcess;
  readonly #orders: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #rest = "";

  private constructor(lab: Lab, name: string) {
    this.name = name;
    const [program, ...args] = lab.a.argv([
      ...[Deno.execPath(), "run", "--quiet", "--allow-all"],
      ...["--config", CONFIG, MODULE, name],
    ]);
    this.#child = new Deno.Command(program, {
      args,
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#orders = this.#child.stdin.getWriter();
    this.#lines = this.#child.stdout
      .pipeThrough(new TextDecoderStream()).getReader();
  }

  /** Starts one in the lab's first namespace. */
  static async start(lab: Lab): Promise<Meter> {
    const meter = new Meter(lab, await lab.interfaceName());
    await meter.#line();
    await until(
      "the device to listen",
      () => exists(socketPath(meter.name)),
      READY_MS,
    );
    const key = (await generateKeys()).private;
    const hex = Uint8Array.fromBase64(key).toHex();
    await ask(meter.name, [`set=1\nprivate_key=${hex}\n\n`]);
    await lab.a.ip("link", "set", meter.name, "up");
    await delay(SETTLE_MS);
    return meter;
  }

  /** What it saw since the last reset. */
  async reset(): Promise<Report> {
    await delay(SETTLE_MS);
    return await this.#ask("reset");
  }

  /** Closes the device. @returns objects that are left */
  async objects(): Promise<number> {
    const left = await this.#ask("end");
    return Object.values(left).reduce((sum, count) => sum + count, 0);
  }

  async #ask(word: string): Promise<Report> {
    await this.#orders.write(new TextEncoder().encode(`${word}\n`));
    return JSON.parse(await this.#line());
  }

  async #line(): Promise<string> {
    for (;;) {
      const end = this.#rest.indexOf("\n");
      if (end >= 0) {
        const line = this.#rest.slice(0, end);
        this.#rest = this.#rest.slice(end + 1);
        return line;
      }
      const { done, value } = await this.#lines.read();
      if (done) throw new Error("the watched device has ended");
      this.#rest += value;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#orders.close().catch(() => {});
    await this.#lines.cancel();
    await this.#child.status;
  }
}
