/** Help, and the README's list of commands: both say what the table has. */
import {
  assert,
  assertEquals,
  assertLessOrEqual,
  assertMatch,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { fileURLToPath } from "node:url";
import {
  COMMAND_GROUPS,
  COMMANDS,
  GLOBAL_OPTIONS,
} from "../lib/commands/table.ts";
import { VERSION } from "../lib/version.ts";
import { commandList, withCommandList } from "../tools/readme.ts";
import { wgd } from "./commands.ts";

const ROOT = new URL("../", import.meta.url);

/** Text with all white space alike, as lines are broken to fit. */
function flat(text: string): string {
  return text.replace(/\s+/g, " ");
}

Deno.test("help names every command, group and option, in 80 columns", async () => {
  const { code, out, err } = await wgd("--help");
  assertEquals([code, err], [0, ""]);
  const width = Math.max(...COMMANDS.map(({ name }) => name.length)) + 2;
  for (const { title, commands } of COMMAND_GROUPS) {
    assertStringIncludes(out, `\n${title}:\n`);
    for (const { name, summary } of commands) {
      assertStringIncludes(out, `\n  ${name.padEnd(width)}${summary}\n`);
    }
  }
  for (const { name } of GLOBAL_OPTIONS) assertStringIncludes(out, `--${name}`);
  const texts = [out];
  for (const command of COMMANDS) {
    const { name, options, environment = [] } = command;
    const help = await wgd("help", name);
    assertEquals([help.code, help.err], [0, ""]);
    assertEquals(await wgd(name, "--help"), help);
    assertEquals(await wgd(name, "-h"), help);
    assertEquals(await wgd("--help", name), help);
    const text = flat(help.out);
    for (const option of options) {
      assertStringIncludes(text, ` --${option.name} `);
      assertStringIncludes(text, option.summary);
      for (const choice of option.choices ?? []) {
        assertStringIncludes(text, choice);
      }
    }
    for (const variable of environment) {
      assertStringIncludes(text, ` ${variable.name} ${variable.summary} `);
    }
    for (const paragraph of command.description) {
      assertStringIncludes(text, paragraph);
    }
    for (const example of command.examples) {
      assertStringIncludes(help.out, `\n  ${example}\n`);
    }
    assertStringIncludes(text, `Usage: wgd ${name} ${command.usage}`.trimEnd());
    texts.push(help.out);
  }
  for (const line of texts.join("").split("\n")) {
    assertLessOrEqual(line.length, 79, line);
    assertEquals(line.trimEnd(), line);
  }
});

Deno.test("help, in all the ways that there are to ask for it, is status 0", async () => {
  const help = await wgd("--help");
  for (const args of [["-h"], ["help"]]) assertEquals(await wgd(...args), help);
  assertEquals((await wgd("help", "help")).code, 0);
  const { code, err } = await wgd("help", "shwo");
  assertEquals(code, 2);
  assertStringIncludes(err, "did you mean show?");
});

Deno.test("the version is that of lib/version", async () => {
  for (const flag of ["--version", "-v", "version"]) {
    assertEquals(await wgd(flag), {
      code: 0,
      out: `wgd ${VERSION}\n`,
      err: "",
    });
  }
});

Deno.test("the README lists the commands of the table", () => {
  const readme = Deno.readTextFileSync(new URL("README.md", ROOT));
  assertEquals(
    readme,
    withCommandList(readme),
    "README.md is out of date: deno run -A tools/readme.ts",
  );
  for (const { name, summary } of COMMANDS) {
    assert(
      commandList().split("\n").some((row) =>
        row.startsWith(`| \`wgd ${name}`) && row.includes(`| ${summary} `)
      ),
      name,
    );
  }
  assertThrows(() => withCommandList("no markers"), Error, "README.md");
});

Deno.test("a reader who goes away early is no error", async () => {
  for (const args of ["--help", "man", "completions zsh", "help run"]) {
    const { code, stdout, stderr } = await new Deno.Command("/bin/sh", {
      args: [
        "-c",
        `{ sleep 0.1; "$@"; echo $? >&2; } | true`,
        "sh",
        Deno.execPath(),
        ...["run", "-A", fileURLToPath(new URL("cli.ts", ROOT))],
        ...args.split(" "),
      ],
      stdout: "piped",
      stderr: "piped",
    }).output();
    const decode = (bytes: Uint8Array): string =>
      new TextDecoder().decode(bytes);
    assertEquals([code, decode(stdout), decode(stderr)], [0, "", "0\n"], args);
  }
});

Deno.test({
  name: "files that cannot be read or written are one line, and no trace",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    const program = fileURLToPath(new URL("cli.ts", ROOT));
    for (
      const [shell, message] of [
        [
          '"$@" genkey > /dev/full',
          /^wgd: cannot write to standard output: No space left on device/,
        ],
        ['"$@" pubkey < /', /^wgd: Is a directory/],
        ['"$@" up /dev/null/x.conf', /^wgd: Not a directory/],
        [`"$@" strip ${"x".repeat(300)}/x.conf`, /^wgd: File name too long/],
      ] as const
    ) {
      const { code, stderr } = await new Deno.Command("/bin/sh", {
        args: [
          ...["-c", shell, "sh"],
          ...[Deno.execPath(), "run", "-A", program],
        ],
        stdout: "null",
        stderr: "piped",
      }).output();
      const text = new TextDecoder().decode(stderr);
      assertEquals(code, 1, text);
      assertMatch(text, message);
      assertEquals(text.trimEnd().split("\n").length, 1, text);
    }
  },
});
