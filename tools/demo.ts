/**
 * `deno task demo`: a WireGuard tunnel between two wgd daemons on this machine,
 * made, measured and removed.
 *
 *     demo.ts [--builtin] [--verbose]
 *
 * Everything is made in network namespaces of its own and removed at the end,
 * also after a failure, SIGINT, SIGTERM or SIGHUP. Exit status 0: the tunnel
 * worked both ways.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { ownCommand } from "../lib/daemon.ts";
import { VERSION } from "../lib/version.ts";
import { perform } from "./demo_act.ts";
import { decide, lookAround } from "./demo_checks.ts";
import { Commands, complaint, DemoError, run } from "./demo_process.ts";
import { formatMs, Report } from "./demo_report.ts";
import { INSIDE, runInside, takeRun } from "./demo_user.ts";

const USAGE = `Makes a WireGuard tunnel between two wgd daemons, each in a \
network namespace of
its own, pings through it, measures its throughput, and removes everything.

Usage: deno task demo [--builtin] [--verbose]

  --builtin   measure without ping and iperf3, also where they are installed
  --verbose   show each command on stderr

WGD_PROGRAM names an executable whose daemons are shown, in place of this
checkout's.
`;
const OPTIONS = ["--builtin", "--verbose"];
/** Several times what the demo takes. */
const LIMIT_SECONDS = 90;
const FAILED = 1;
const WRONG_USAGE = 2;
const SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGTERM: 15 } as const;
const SIGNAL_STATUS = 128;
/** Programs of the system's administrator, for users whose PATH omits them. */
const SYSTEM_PATH = "/usr/local/sbin:/usr/sbin:/sbin";

/** The user's wish to end. */
class Interrupted extends Error {
  override readonly name = "Interrupted";

  constructor(readonly signal: keyof typeof SIGNALS) {
    super(`interrupted by ${signal}`);
  }
}

/** Runs the demo. @returns its exit status */
export async function main(args: readonly string[]): Promise<number> {
  const report = new Report();
  if (args.includes("--help")) {
    report.text(USAGE);
    return 0;
  }
  const inside = args.at(-1) === INSIDE;
  const options = inside ? args.slice(0, -1) : args;
  const unknown = options.find((option) => !OPTIONS.includes(option));
  if (unknown !== undefined) {
    const expected = OPTIONS.join(" or ");
    report.error(`${JSON.stringify(unknown)}: expected ${expected}`);
    return WRONG_USAGE;
  }
  const interrupt = new AbortController();
  let passOn = (_signal: Deno.Signal): void => {};
  for (const signal of Object.keys(SIGNALS) as (keyof typeof SIGNALS)[]) {
    Deno.addSignalListener(signal, () => {
      interrupt.abort(new Interrupted(signal));
      passOn(signal);
    });
  }
  // Its daemons keep nothing on this machine.
  Deno.env.set("STATE_DIRECTORY", "/dev/null");
  Deno.env.set("PATH", `${Deno.env.get("PATH") ?? ""}:${SYSTEM_PATH}`);
  try {
    if (!inside) {
      const way = decide(await lookAround(options));
      if (typeof way !== "string") {
        for (const line of way) report.error(line);
        return FAILED;
      }
      await fetchPackages(interrupt.signal);
      if (way === "user namespace") {
        return await runInside(options, (kill) => passOn = kill);
      }
    } else await takeRun();
    return await demonstrate(report, options, inside, interrupt);
  } catch (error) {
    return explain(report, error);
  }
}

async function demonstrate(
  report: Report,
  options: readonly string[],
  inside: boolean,
  interrupt: AbortController,
): Promise<number> {
  const startMs = performance.now();
  const verbose = options.includes("--verbose");
  const commands = new Commands(
    interrupt.signal,
    (argv) => verbose && report.command(argv),
  );
  const limit = setTimeout(() => {
    const text = `not done after ${LIMIT_SECONDS} s: the tunnel hangs`;
    interrupt.abort(new DemoError(text));
  }, LIMIT_SECONDS * 1000);
  report.title(`wgd ${VERSION} demo: a tunnel between two namespaces`);
  try {
    await perform(report, commands, {
      way: inside ? "user namespace" : "namespaces",
      builtin: options.includes("--builtin"),
    });
  } catch (error) {
    const status = explain(report, error);
    report.verdict(false, "The demo did not come to its end.");
    return status;
  } finally {
    clearTimeout(limit);
  }
  const took = formatMs(performance.now() - startMs);
  report.verdict(true, `The tunnel works both ways. Took ${took}.`);
  return 0;
}

/** There is no network inside a namespace to fetch a daemon's packages from. */
async function fetchPackages(signal: AbortSignal): Promise<void> {
  if (Deno.build.standalone) return; // which has them
  const [, args] = ownCommand([]);
  const config = args[args.indexOf("--config") + 1];
  const modules = ["../cli.ts", "../lib/worker.ts", "./demo_peer.ts"];
  const paths = modules.map((path) =>
    fileURLToPath(new URL(path, import.meta.url))
  );
  const cache = ["cache", "--quiet", "--config", config, ...paths];
  const output = await run([Deno.execPath(), ...cache], signal);
  if (output.code === 0) return;
  throw new DemoError(`cannot fetch wgd's packages: ${complaint(output)}`);
}

/** Says what went wrong. @returns the exit status */
function explain(report: Report, error: unknown): number {
  if (error instanceof Interrupted) {
    report.error(error.message);
    return SIGNAL_STATUS + SIGNALS[error.signal];
  }
  const isExpected = error instanceof DemoError ||
    (error instanceof Error && ["SysError", "UapiError"].includes(error.name));
  if (isExpected) report.error(error.message);
  else {
    const trace = error instanceof Error ? error.stack : String(error);
    report.error(`this is a bug in the demo: ${trace}`);
  }
  return FAILED;
}

if (import.meta.main) Deno.exit(await main(Deno.args));
