/**
 * The file of `deno task compile --suite`: all namespace tests, the programs
 * that they start, and the demo, to be run where there is neither Deno nor a
 * checkout. The program under test is the one in WGD_PROGRAM.
 *
 *     wgd-suite test [--filter TEXT] [FILE...]   the tests; FILE: ecn_test
 *     wgd-suite demo [OPTION...]                 tools/demo.ts
 *     wgd-suite module PATH [ARGUMENT...]        what both of them start
 *
 * A module that is a program either runs when it is loaded, with Deno.args, or
 * exports `main`, which takes the arguments and may return an exit status.
 */
import { parseArgs } from "@std/cli/parse-args";
import { FULL_VERSION } from "../../lib/version.ts";
import { MODULE } from "../../tools/modules.ts";
import { Runner } from "./runner.ts";

const ROOT = new URL("../../", import.meta.url);
const TESTS = "tests/netns/";
/** `.js` in the bundle. */
const SUFFIX = import.meta.url.replace(/^.*\./, ".");
const WRONG_USAGE = 2;
const USAGE = `usage: wgd-suite test [--filter TEXT] [FILE]...
       wgd-suite demo [OPTION]...
       wgd-suite module PATH [ARGUMENT]...

WGD_PROGRAM names the wgd that is tested and shown.
`;

function write(text: string, stream = Deno.stdout): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) {
    at += stream.writeSync(bytes.subarray(at));
  }
}

function load(path: string): Promise<Record<string, unknown>> {
  return import(new URL(path.replace(/\.ts$/, SUFFIX), ROOT).href);
}

/** Runs a module with these arguments, as if it were the program. */
async function runModule(path: string, args: readonly string[]): Promise<void> {
  Object.defineProperty(Deno, "args", { value: args });
  const { main } = await load(path);
  if (typeof main !== "function") return;
  const status = await main(args);
  if (typeof status === "number") Deno.exit(status);
}

async function test(args: readonly string[]): Promise<number> {
  const unknown: string[] = [];
  const { filter, _: wanted } = parseArgs([...args], {
    string: ["filter"],
    unknown: (arg) => !arg.startsWith("-") || unknown.push(arg) === 0,
  });
  if (unknown.length > 0) return refuse(`${unknown[0]} is not known`);
  const files = [...Deno.readDirSync(new URL(TESTS, ROOT))]
    .map(({ name }) => name).filter((name) => name.endsWith(`_test${SUFFIX}`))
    .filter((name) =>
      wanted.length === 0 || wanted.some((part) => name.includes(String(part)))
    )
    .sort();
  const runner = new Runner({ filter, say: write });
  const take = (event: Event, error: unknown): void => {
    event.preventDefault();
    runner.uncaught(error);
  };
  addEventListener("error", (event) => take(event, event.error));
  addEventListener("unhandledrejection", (event) => take(event, event.reason));
  Object.defineProperty(Deno, "test", {
    value: (first: unknown, second?: unknown) => runner.declare(first, second),
  });
  for (const name of files) {
    const path = TESTS + name.replace(SUFFIX, ".ts");
    await runner.runFile(path, () => load(path));
  }
  write(runner.summary());
  return runner.ok ? 0 : 1;
}

function refuse(why: string): number {
  write(`wgd-suite: ${why}\n${USAGE}`, Deno.stderr);
  return WRONG_USAGE;
}

if (import.meta.main) {
  const [what, ...args] = Deno.args;
  if (what === MODULE && args.length > 0) {
    await runModule(args[0], args.slice(1));
  } else if (what !== "test" && what !== "demo") {
    Deno.exit(refuse(`version ${FULL_VERSION}`));
  } else if (!Deno.env.get("WGD_PROGRAM")) {
    Deno.exit(refuse("WGD_PROGRAM is not set"));
  } else if (what === "demo") await runModule("tools/demo.ts", args);
  else Deno.exit(await test(args));
}
