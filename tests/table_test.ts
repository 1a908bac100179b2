/** The command table: help, suggestions, exit statuses, and its own form. */
import {
  assert,
  assertEquals,
  assertLessOrEqual,
  assertMatch,
  assertStringIncludes,
} from "@std/assert";
import {
  COMMANDS,
  findCommand,
  GLOBAL_OPTIONS,
} from "../lib/commands/table.ts";
import { CliError, OutputClosedError } from "../lib/commands/errors.ts";
import { main } from "../lib/commands/main.ts";
import { parseConfig } from "../lib/config.ts";
import { editDistance, nearest } from "../lib/suggest.ts";
import { UapiError } from "../lib/uapi_client.ts";
import { VERSION } from "../lib/version.ts";
import type { Command } from "../lib/commands/table.ts";
import type { CommandContext, CommandIo } from "../lib/commands/context.ts";

interface Outcome {
  code: number;
  out: string;
  err: string;
}

function testIo(outcome: { out: string; err: string }): CommandIo {
  return {
    out: (text) => void (outcome.out += text),
    err: (line) => void (outcome.err += `${line}\n`),
    readStdin: () => Promise.resolve(new Uint8Array()),
    env: () => undefined,
    isTerminal: false,
  };
}

async function wgd(...args: string[]): Promise<Outcome> {
  const outcome = { code: -1, out: "", err: "" };
  outcome.code = await main(args, testIo(outcome));
  return outcome;
}

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

Deno.test("the version is that of lib/version", async () => {
  for (const flag of ["--version", "-v"]) {
    assertEquals(await wgd(flag), {
      code: 0,
      out: `wgd ${VERSION}\n`,
      err: "",
    });
  }
});

Deno.test("help names every command and option, in 80 columns", async () => {
  const { code, out } = await wgd("--help");
  assertEquals(code, 0);
  for (const { name, summary } of COMMANDS) {
    assertStringIncludes(out, `\n  ${name.padEnd(11)}${summary}\n`);
  }
  for (const { name } of GLOBAL_OPTIONS) assertStringIncludes(out, `--${name}`);
  const texts = [out];
  for (const { name, options, examples } of COMMANDS) {
    const help = await wgd("help", name);
    assertEquals(help.code, 0);
    assertEquals(await wgd(name, "--help"), help);
    assertEquals(await wgd(name, "-h"), help);
    for (const option of options) {
      assertStringIncludes(help.out, `--${option.name}`);
    }
    for (const example of examples) assertStringIncludes(help.out, example);
    texts.push(help.out);
  }
  for (const line of texts.join("").split("\n")) {
    assertLessOrEqual(line.length, 79, line);
    assertEquals(line.trimEnd(), line);
  }
});

Deno.test("the table is in order: names, letters, choices, examples", () => {
  const names = COMMANDS.map(({ name }) => name);
  assertEquals(new Set(names).size, names.length);
  for (const { name, summary, args, options, examples } of COMMANDS) {
    assertMatch(name, /^[a-z]{2,10}$/);
    assert(!summary.endsWith("."), summary);
    assert(args.min <= args.max);
    assert(examples.length > 0 && examples.every((e) => e.includes("wgd")));
    const letters = options.flatMap(({ short }) => short ?? []);
    assertEquals(new Set([...letters, "h"]).size, letters.length + 1);
    for (const option of options) {
      assertMatch(option.name, /^[a-z]{2,12}$/);
      assert(!option.choices || option.value, `${option.name} has no value`);
    }
  }
});

Deno.test("no command at all is wrong usage, with help on stderr", async () => {
  const { code, out, err } = await wgd();
  assertEquals([code, out], [2, ""]);
  assertStringIncludes(err, "Usage: wgd COMMAND");
});

Deno.test("unknown commands and options suggest the nearest, status 2", async () => {
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
      [["up"], "an argument is missing"],
      [["genkey", "x"], 'unexpected argument "x"'],
      [["-f", "show"], "unknown option --foreground"],
    ] as const
  ) {
    const { code, out, err } = await wgd(...args);
    assertEquals([code, out], [2, ""], args.join(" "));
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
