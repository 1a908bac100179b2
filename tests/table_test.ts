/** The command table: its form, parsing, suggestions, exit statuses. */
import {
  assert,
  assertEquals,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { COMMANDS, findCommand } from "../lib/commands/table.ts";
import { parseArguments } from "../lib/commands/arguments.ts";
import { CliError, OutputClosedError } from "../lib/commands/errors.ts";
import { parseSet } from "../lib/commands/set_grammar.ts";
import { SHOW_FIELDS } from "../lib/commands/show_render.ts";
import { parseConfig } from "../lib/config.ts";
import { editDistance, nearest } from "../lib/suggest.ts";
import { UapiError } from "../lib/uapi_client.ts";
import { type Outcome, wgd } from "./commands.ts";
import type { Command } from "../lib/commands/table.ts";
import type { CommandContext } from "../lib/commands/context.ts";

/** Runs wgd with a command's function replaced; tells what it was given. */
async function given(
  args: string[],
  run: Command["run"] = () => Promise.resolve(0),
  name = "run",
): Promise<Outcome & { ctx?: CommandContext }> {
  const command = findCommand(name);
  assert(command);
  const mutable = command as { run: Command["run"] };
  const original = mutable.run;
  let ctx: CommandContext | undefined;
  mutable.run = (context) => {
    ctx = context;
    return run(context);
  };
  try {
    return { ...await wgd(...args), ...(ctx && { ctx }) };
  } finally {
    mutable.run = original;
  }
}

Deno.test("the table is in order: names, letters, choices, examples", () => {
  const names = COMMANDS.map(({ name }) => name);
  assertEquals(new Set(names).size, names.length);
  for (const command of COMMANDS) {
    const { name, summary, args, options, examples, words = [] } = command;
    assertMatch(name, /^[a-z]{2,11}$/);
    assertMatch(summary, /^[A-Z].*[^.]$/);
    assert(args.min <= args.max);
    assert(examples.length > 0 && examples.every((e) => e.includes("wgd")));
    // Completion knows of each positional argument.
    const repeats = words.at(-1)?.repeats === true;
    assertEquals(repeats ? Infinity : words.length, args.max, name);
    for (const { choices = [], then = {} } of words) {
      for (const key of Object.keys(then)) assert(choices.includes(key), key);
    }
    for (const variable of command.environment ?? []) {
      assertMatch(variable.name, /^[A-Z][A-Z_]+$/);
      assert(!variable.summary.endsWith("."), variable.summary);
    }
    const letters = options.flatMap(({ short }) => short ?? []);
    assertEquals(new Set([...letters, "h"]).size, letters.length + 1);
    for (const option of options) {
      assertMatch(option.name, /^[a-z][a-z-]{1,12}$/);
      assertMatch(option.summary, /^[A-Z].*[^.]$/);
      const { choices, kind, value } = option;
      assert(!(choices || kind) || value, `${option.name} has no value`);
    }
  }
});

Deno.test("examples are of commands and options that exist", () => {
  const examples = COMMANDS.flatMap((command) => command.examples);
  for (const example of examples) {
    if (example.includes("wg-quick ")) continue; // wgd is its daemon there
    const line = example.replace(/ # .*/, "").replace(/<\((.*)\)/, "FILE; $1");
    for (const [, words] of line.matchAll(/\bwgd ([^|<>();]*)/g)) {
      const [name, ...rest] = words.trim().split(/\s+/);
      const command = findCommand(name);
      assert(command, example);
      parseArguments(command, rest);
    }
  }
});

Deno.test("completion offers the words that show and set know", () => {
  const choices = (name: string): readonly string[] =>
    findCommand(name)?.words?.at(-1)?.choices ?? [];
  assertEquals([...choices("show")].sort(), [...SHOW_FIELDS].sort());
  assert(choices("set").length > 5);
  const error = assertThrows(() => parseSet(["xyzzy"], () => null), CliError);
  for (const word of choices("set")) {
    if (word !== "remove") assertStringIncludes(error.message, word);
  }
});

Deno.test("each command's code can be loaded", async () => {
  for (const { name, run } of COMMANDS) {
    const [, file] = /import\("\.\/([a-z_]+)\.ts"\)/.exec(`${run}`) ?? [];
    assert(file !== undefined, name);
    await import(`../lib/commands/${file}.ts`);
  }
});

Deno.test("no command at all is wrong usage, with help on stderr", async () => {
  const { code, out, err } = await wgd();
  assertEquals([code, out], [2, ""]);
  assertStringIncludes(err, "Usage: wgd COMMAND");
});

Deno.test("unknown commands and options suggest the nearest, status 2, or wg's 1", async () => {
  for (
    const [args, text] of [
      [["shwo"], "did you mean show?"],
      [["shwo", "wg0"], "did you mean show?"],
      [["help", "genkye"], "did you mean genkey?"],
      [["xyzzy", "a", "b"], 'unknown command "xyzzy"'],
      [["a/b"], 'unknown command "a/b"'],
      [["sixteen-letters-"], "unknown command"],
      [["show", "--jsn"], "unknown option --jsn; did you mean --json?"],
      [["run", "--thread=1", "wg0"], "did you mean --threads?"],
      [["genkey", "-x"], "unknown option -x"],
      [["--colour"], "unknown option --colour"],
      [["run", "--threads", "9", "wg0"], "expected one of 0, 1, 2"],
      [["run", "wg0", "--threads"], "no value"],
      [["run", "--udp", "plian", "wg0"], "did you mean plain?"],
      [["run", "--foreground=no", "wg0"], "--foreground takes no value"],
      [["up"], "an argument is missing"],
      [["up", "a", "b"], 'unexpected argument "b"'],
      [["set", "wg0"], "an argument is missing"],
      [["completion"], "did you mean completions?"],
      [["completions", "bas"], "did you mean bash?"],
      [["relaod", "wg0"], "did you mean reload?"],
      [["stirp", "wg0"], "did you mean strip?"],
      [["sycnconf", "wg0", "x"], "did you mean syncconf?"],
      [["genkey", "x"], 'unexpected argument "x"'],
      [["-f", "show"], "unknown option --foreground"],
    ] as const
  ) {
    const { code, out, err } = await wgd(...args);
    const isWg = args.some((arg) => findCommand(arg)?.wgStatus);
    assertEquals([code, out], [isWg ? 1 : 2, ""], args.join(" "));
    assertStringIncludes(err, text);
    assertMatch(err, /^wgd: [^\n]*\n$/);
  }
});

Deno.test("a bare interface name means run, as wireguard-go takes it", async () => {
  for (
    const [args, foreground] of [
      [["wg0"], undefined],
      [["tun"], undefined],
      [["-f", "wg0"], true],
      [["--foreground", "wg0"], true],
      [["wg0", "-f"], true],
      [["run", "wg0"], undefined],
      [["run", "-f", "wg0"], true],
      [["-f", "run", "wg0"], true],
    ] as const
  ) {
    const { code, ctx, err } = await given([...args]);
    assertEquals([code, err], [0, ""], args.join(" "));
    assertEquals(ctx?.args.length, 1);
    assertEquals(ctx?.options.foreground, foreground, args.join(" "));
  }
  const { ctx } = await given(["run", "0123", "--threads", "2", "--udp=plain"]);
  assertEquals(ctx?.args, ["0123"]);
  assertEquals([ctx?.options.threads, ctx?.options.udp], ["2", "plain"]);
  assertEquals(ctx?.options.crypto, undefined);
});

Deno.test("what has a grammar of its own gets its words as they are", async () => {
  for (
    const [args, words] of [
      [["wg0", "peer", "x", "allowed-ips", "-::/0"], undefined],
      [["wg0", "-f", "--json", "--"], undefined],
      [["--", "wg0", "peer"], ["wg0", "peer"]],
    ] as const
  ) {
    const { ctx, code } = await given(["set", ...args], undefined, "set");
    assertEquals([code, ctx?.args], [0, [...words ?? args]]);
  }
  for (const args of [["--help"], ["-h"], ["wg0", "peer", "--help"]]) {
    const { out, code, ctx } = await given(["set", ...args], undefined, "set");
    assertEquals([code, ctx], [0, undefined]);
    assertStringIncludes(out, "Usage: wgd set IF");
  }
  const { err } = await wgd("set", "--jsn", "wg0", "peer");
  assertStringIncludes(err, "set: unknown option --jsn");
});

Deno.test("what comes after -- is no option", async () => {
  const { ctx } = await given(["run", "--", "--help"]);
  assertEquals(ctx?.args, ["--help"]);
});

Deno.test("errors become one line and the right exit status", async () => {
  const outcome = async (error: unknown): Promise<[number, string]> => {
    const { code, err } = await given(
      ["run", "wg0"],
      () => Promise.reject(error),
    );
    return [code, err];
  };
  class SysError extends Error {
    override readonly name = "SysError";
    constructor(readonly errno: number) {
      super(`ioctl: ${errno}`);
    }
  }
  assertEquals(await outcome(new CliError("no", 1)), [1, "wgd: no\n"]);
  assertEquals(await outcome(new CliError("no", 3)), [3, "wgd: no\n"]);
  assertEquals(await outcome(new SysError(1)), [3, "wgd: ioctl: 1\n"]);
  assertEquals(await outcome(new SysError(98)), [1, "wgd: ioctl: 98\n"]);
  assertEquals(await outcome(new UapiError(98, "set")), [
    1,
    "wgd: set: Address already in use (EADDRINUSE)\n",
  ]);
  assertEquals((await outcome(new Deno.errors.NotCapable("x")))[0], 3);
  assertEquals(await outcome(new OutputClosedError("x")), [0, ""]);
  const bug = await outcome(new TypeError("oops"));
  assertEquals(bug[0], 1);
  assertStringIncludes(bug[1], "this is a bug in wgd: TypeError: oops");
  try {
    parseConfig("a=b\nc=d", { file: "wg0.conf" });
  } catch (error) {
    const [code, text] = await outcome(error);
    assertEquals(code, 1);
    assertMatch(text, /^wg0\.conf:1:1: [^\n]+\nwg0\.conf:2:1: [^\n]+\n$/);
  }
});

Deno.test("distance counts insertions, deletions, replacements and swaps", () => {
  for (
    const [a, b, distance] of [
      ["", "", 0],
      ["show", "show", 0],
      ["shwo", "show", 1],
      ["sho", "show", 1],
      ["showx", "show", 1],
      ["shop", "show", 1],
      ["", "up", 2],
      ["kitten", "sitting", 3],
    ] as const
  ) {
    assertEquals(editDistance(a, b), distance, `${a} ${b}`);
    assertEquals(editDistance(b, a), distance, `${b} ${a}`);
  }
  assertEquals(nearest("ALLOWEDIP", ["Address", "AllowedIPs"]), "AllowedIPs");
  assertEquals(nearest("zzz", ["Address", "AllowedIPs"]), undefined);
});
