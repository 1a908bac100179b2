/**
 * A daemon from its start to its end: what `wgd run` does in the process that
 * stays.
 *
 * @module
 */
import { AeadError, chooseAead } from "../aead_choice.ts";
import type { AeadChoice } from "../crypto/aead.ts";
import { mayGoOn, reportReady } from "../daemon.ts";
import { type DatagramChoice, Device, type OffloadChoice } from "../device.ts";
import { createLog, parseLogLevel } from "../log.ts";
import {
  MemoryError,
  type MemoryPlan,
  planMemory,
  watchHeap,
} from "../memory.ts";
import { notify, startWatchdog } from "../notify.ts";
import { dropProgramPages } from "../sys/program_pages.ts";
import { endPredecessor } from "../takeover.ts";
import { stateDirectory, TimestampStore } from "../timestamp_store.ts";
import { TunError } from "../tun.ts";
import type { CommandContext, OptionValues } from "./context.ts";
import { CliError, EXIT } from "./errors.ts";

const SIGNALS = ["SIGINT", "SIGTERM"] as const;
/** When a start, and what configures the device after it, is surely over. */
const START_OVER_MS = 1_000;

/**
 * Runs the interface.
 *
 * @param missing what of the process could not be hardened
 * @returns the exit status
 */
export async function serve(
  name: string,
  ctx: CommandContext,
  { daemon, missing }: { daemon: boolean; missing: readonly string[] },
): Promise<number> {
  testCrypto(ctx.options.crypto as AeadChoice | undefined);
  if (daemon && !(await mayGoOn())) return EXIT.OK;
  const { queues, crypto, udp, offload, netns } = ctx.options;
  const plan = memoryPlan(ctx.options);
  // Few threads, unless they are asked for, where memory is little.
  const threads = ctx.options.threads ?? (plan && "1");
  const lanes = ctx.options.lanes ?? (plan && "0");
  const log = createLog(parseLogLevel(ctx.env("LOG_LEVEL")), name);
  const stopped = Promise.withResolvers<string>();
  const listeners = SIGNALS.map((signal) => {
    const listener = (): void => stopped.resolve(signal);
    Deno.addSignalListener(signal, listener);
    return { signal, listener };
  });
  for (const what of missing) log.verbose(what);
  const directory = stateDirectory(ctx.env);
  const timestamps = directory === undefined
    ? undefined
    : new TimestampStore(directory, name, Date.now(), log);
  let device: Device;
  try {
    await endPredecessor(ctx.env);
    device = await Device.start({
      name,
      tunFd: descriptor(ctx, "WG_TUN_FD"),
      uapiFd: descriptor(ctx, "WG_UAPI_FD"),
      threads: threads === undefined ? undefined : Number(threads),
      lanes: lanes === undefined ? undefined : Number(lanes),
      queues: queues === undefined ? undefined : Math.max(1, Number(queues)),
      crypto: crypto as AeadChoice | undefined,
      offload: offload as OffloadChoice | undefined,
      datagrams: udp as DatagramChoice | undefined,
      limits: plan?.limits,
      timestamps,
      harden: true,
      netns: netns as string | undefined,
      socketNetns: ctx.options["socket-netns"] as string | undefined,
      log,
    });
  } catch (error) {
    if (error instanceof AeadError) {
      throw new CliError(error.message, EXIT.FAILED, { cause: error });
    }
    if (!(error instanceof TunError)) throw error;
    const code = error.permission ? EXIT.NOT_PERMITTED : EXIT.FAILED;
    throw new CliError(error.message, code, { cause: error });
  }
  const report = (error: unknown): void =>
    log.error(error instanceof Error ? error.message : String(error));
  const stopWatchdog = startWatchdog([Deno.pid, Deno.ppid], report);
  const stopHeapWatch = plan ? watchHeap(plan.heapMb) : (): void => {};
  const tidying = setTimeout(() => {
    try {
      if (!dropProgramPages()) log.verbose("pages of the program are locked");
    } catch (error) {
      report(error);
    }
  }, START_OVER_MS);
  if (daemon) reportReady(ctx.env);
  else tell("READY=1", report);
  const reason = await Promise.race([device.ended, stopped.promise]);
  log.verbose(`ending: ${reason}`);
  clearTimeout(tidying);
  // Not told: that it ends. It may end because another takes its place.
  stopWatchdog();
  stopHeapWatch();
  await device.close();
  await timestamps?.close();
  // For reports and tests: whether all is given back, and what was dropped.
  log.verbose(`objects: ${JSON.stringify(device.objects())}`);
  log.verbose(`counters: ${JSON.stringify(device.counters())}`);
  for (const { signal, listener } of listeners) {
    Deno.removeSignalListener(signal, listener);
  }
  return reason === "worker failed" ? EXIT.FAILED : EXIT.OK;
}

/**
 * Does the self-tests while the worker starts, and before a daemon that is held
 * may go on: their outcome is known when the device asks.
 */
function testCrypto(choice: AeadChoice = "auto"): void {
  try {
    chooseAead(choice);
  } catch {
    // The device tells of it.
  }
}

/** What `--memory` comes to. @throws CliError for too little */
function memoryPlan(options: OptionValues): MemoryPlan | undefined {
  if (options.memory === undefined) return undefined;
  const threads = Number(options.threads ?? 1);
  const lanes = Number(options.lanes ?? 0);
  try {
    return planMemory(Number(options.memory), threads + lanes);
  } catch (error) {
    if (!(error instanceof MemoryError)) throw error;
    throw new CliError(error.message, EXIT.FAILED, { cause: error });
  }
}

/** Tells the service manager; that it does not listen is no reason to end. */
function tell(state: string, report: (error: unknown) => void): void {
  try {
    notify(state);
  } catch (error) {
    report(error);
  }
}

/** A descriptor by an environment variable. */
function descriptor(ctx: CommandContext, variable: string): number | undefined {
  const text = ctx.env(variable);
  if (text === undefined || text === "") return undefined;
  if (!/^\d{1,6}$/.test(text)) {
    throw new CliError(
      `${variable}=${text}: expected the number of an open descriptor`,
      EXIT.USAGE,
    );
  }
  return Number(text);
}
