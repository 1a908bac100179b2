/** The manual page: it has what the table has, and is roff without faults. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { INTERFACE_KEYS, PEER_KEYS } from "../lib/config_keys.ts";
import { COMMANDS, GLOBAL_OPTIONS } from "../lib/commands/table.ts";
import { usageLine } from "../lib/commands/usage.ts";
import { VERSION } from "../lib/version.ts";
import { wgd } from "./commands.ts";

/** Runs groff on a page; null without groff. */
async function groff(
  page: string,
): Promise<{ text: string; warnings: string } | null> {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("groff", {
      // -P-c: no escape sequences; -rLL: lines long enough not to be broken
      args: ["-man", "-Tutf8", "-wall", "-P-cbou", "-rLL=500n"],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(page));
  await writer.close();
  const { stdout, stderr } = await output;
  const decode = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { text: decode(stdout), warnings: decode(stderr) };
}

const { code, out: page, err } = await wgd("man");
const rendered = await groff(page);
const why = rendered ? "" : " (skipped: needs groff, apt-get install groff)";

Deno.test("man prints a page of man(7) macros for section 8", () => {
  assertEquals([code, err], [0, ""]);
  assert(page.startsWith(`.TH WGD 8 "" "wgd ${VERSION}"`));
  const macros = new Set(page.match(/^[.'].*/gm)?.map((l) => l.split(" ")[0]));
  assertEquals([...macros].sort(), [
    ...[".EE", ".EX", ".PP", ".RE", ".RS", ".SH", ".SS", ".TH", ".TP"],
    ...[".ad", ".br", ".nh"],
  ]);
});

Deno.test({
  name: `groff has nothing to warn of${why}`,
  ignore: rendered === null,
  fn(): void {
    assertEquals(rendered?.warnings, "");
  },
});

Deno.test({
  name:
    `the page tells of every command, option, example, key and variable${why}`,
  ignore: rendered === null,
  fn(): void {
    const lines = rendered?.text.split("\n").map((line) =>
      line.trim().replace(/ +/g, " ")
    ) ?? [];
    const has = (line: string): void => {
      const flat = line.replace(/ +/g, " ");
      assert(lines.includes(flat), `${flat}\n\n${rendered?.text}`);
    };
    const text = lines.join(" ");
    for (const command of COMMANDS) {
      has(usageLine(command));
      has(`${command.summary}.`);
      for (const paragraph of command.description) {
        has(paragraph);
      }
      for (const example of command.examples) {
        has(example);
      }
      for (const { name, summary } of command.environment ?? []) {
        assertStringIncludes(text, name);
        assertStringIncludes(text, summary);
      }
    }
    const options = COMMANDS.flatMap((command) =>
      command.options
    );
    for (const option of [...GLOBAL_OPTIONS, ...options]) {
      const short = option.short ? `-${option.short}, ` : "";
      assertStringIncludes(text, `${short}--${option.name}`);
      assertStringIncludes(text, option.summary);
    }
    for (const { name, summary } of [...INTERFACE_KEYS, ...PEER_KEYS]) {
      assertStringIncludes(text, `${name} ${summary}.`);
    }
  },
});
