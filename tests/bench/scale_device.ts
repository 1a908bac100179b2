/**
 * A device in this process with a meter on its control thread, for
 * scale_bench.ts: the longest time for which one turn of the event loop kept
 * everybody else waiting. Reads words from stdin and answers each with a line of
 * JSON: `reset`, `report`, `end`.
 *
 *     deno run -A tests/bench/scale_device.ts NAME
 *
 * @module
 */

// deno-lint-ignore-file no-console

import { setImmediate } from "node:timers";
import { createLog, Device } from "../../mod.ts";
import { threadCpuMs } from "./thread_clock.ts";

const LONG_MS = 5;

/** The worst turn since the last reset. */
interface Stalls {
  /** Longest time between two turns. */
  wallMs: number;
  /** CPU time that this thread used between two turns: the machine's noise not. */
  cpuMs: number;
  /** Turns that used more than 5 ms of CPU. */
  above5Ms: number;
}

let stalls: Stalls = { wallMs: 0, cpuMs: 0, above5Ms: 0 };
let [lastMs, lastCpuMs] = [performance.now(), threadCpuMs()];

/** Looks at the clocks in each turn of the event loop. */
function look(): void {
  const [nowMs, cpuMs] = [performance.now(), threadCpuMs()];
  stalls.wallMs = Math.max(stalls.wallMs, nowMs - lastMs);
  stalls.cpuMs = Math.max(stalls.cpuMs, cpuMs - lastCpuMs);
  if (cpuMs - lastCpuMs > LONG_MS) stalls.above5Ms++;
  [lastMs, lastCpuMs] = [nowMs, cpuMs];
  setImmediate(look);
}
look();

const [name] = Deno.args;
const device = await Device.start({ name, log: createLog("error", name) });
const decoder = new TextDecoder();
console.log(JSON.stringify({ pid: Deno.pid }));
for await (const bytes of Deno.stdin.readable) {
  for (const word of decoder.decode(bytes).trim().split(/\s+/)) {
    if (word === "end") {
      await device.close();
      console.log(JSON.stringify(device.objects()));
      Deno.exit();
    }
    console.log(JSON.stringify({ ...stalls, ...device.objects() }));
    if (word === "reset") stalls = { wallMs: 0, cpuMs: 0, above5Ms: 0 };
  }
}
