/**
 * House rules that a machine can check: the import order of ARCHITECTURE.md's
 * code map, where `Deno.`, `Deno.dlopen` and `@noble/*` may be named, and that
 * versions agree.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import { VERSION } from "../lib/version.ts";

const ROOT = new URL("../", import.meta.url);
const LINES_MAX = 500;
const SYSTEM_ROW = "_system_";

function read(path: string): string {
  return Deno.readTextFileSync(new URL(path, ROOT));
}

function* sources(directory: string): Generator<string> {
  for (
    const { name, isDirectory } of Deno.readDirSync(new URL(directory, ROOT))
  ) {
    if (isDirectory && name !== "assembly") {
      yield* sources(`${directory}${name}/`);
    } else if (name.endsWith(".ts")) yield `${directory}${name}`;
  }
}

/** Rows of the code map, in order. */
const rows = [
  ...read("ARCHITECTURE.md").matchAll(/^\| (?:`([^`]+)`|(_system_))\s*\|/gm),
].map((match) => match[1] ?? match[2]);
const files = [...sources("lib/"), "mod.ts", "cli.ts"];

/** Index of the row that a file belongs to; -1 without one. */
function rowOf(file: string): number {
  return rows.findIndex((row) =>
    row.endsWith("/") ? file.startsWith(row) : file.replace(/\.ts$/, "") ===
      row.replace(/\.ts$/, "")
  );
}

/** Modules that a file imports for more than types, from the root. */
function imports(file: string): string[] {
  const found = read(file).matchAll(
    /^(?:import|export)\s+(?!type\b)(?:[^;"]*?\sfrom\s+)?"([^"]+)"/gm,
  );
  return [...found].map(([, specifier]) =>
    specifier.startsWith(".")
      ? new URL(specifier, new URL(file, ROOT)).pathname.slice(
        ROOT.pathname.length,
      )
      : specifier
  );
}

Deno.test("every module has a row in the code map, and every row a module", () => {
  assertEquals(files.filter((file) => rowOf(file) < 0), []);
  const used = new Set(files.map(rowOf));
  assertEquals(
    rows.filter((row, i) => row !== SYSTEM_ROW && !used.has(i)),
    [],
  );
});

Deno.test("a module imports only from rows above its own", () => {
  const wrong = files.flatMap((file) =>
    imports(file)
      .filter((to) => files.includes(to))
      .filter((to) => rowOf(to) > rowOf(file))
      .map((to) => `${file} imports ${to}`)
  );
  assertEquals(wrong, []);
});

Deno.test("modules of one row do not import each other in a circle", () => {
  const visit = (file: string, path: string[]): string[] => {
    if (path.includes(file)) return [[...path, file].join(" > ")];
    return imports(file)
      .filter((to) => files.includes(to) && rowOf(to) === rowOf(file))
      .flatMap((to) => visit(to, [...path, file]));
  };
  assertEquals(files.flatMap((file) => visit(file, [])), []);
});

Deno.test("the test of the import order sees imports", () => {
  assert(imports("lib/parts.ts").includes("lib/allowedips.ts"));
  assert(
    !imports("lib/receive.ts").includes("lib/io.ts"),
    "type imports are exempt",
  );
});

Deno.test("modules above the system row do not name Deno", () => {
  const system = rows.indexOf(SYSTEM_ROW);
  assert(system > 0);
  const pure = files.filter((file) => rowOf(file) < system);
  assert(pure.length > 30);
  assertEquals(pure.filter((file) => /\bDeno\./.test(code(file))), []);
});

Deno.test("only lib/sys opens libraries and only lib/crypto imports noble", () => {
  assertEquals(
    files.filter((file) =>
      !file.startsWith("lib/sys/") && /\bdlopen\b/.test(code(file))
    ),
    [],
  );
  assertEquals(
    files.filter((file) =>
      !file.startsWith("lib/crypto/") &&
      imports(file).some((to) => to.startsWith("@noble/"))
    ),
    [],
  );
});

Deno.test("every file opens with what it is, and stays readable in length", () => {
  const generated = "lib/crypto/wasm/kernel.ts";
  assertEquals(files.filter((file) => !read(file).startsWith("/**")), []);
  assertEquals(
    files.filter((file) =>
      file !== generated && read(file).split("\n").length > LINES_MAX
    ),
    [],
  );
});

Deno.test("deno.json, the program and the changelog name the same version", () => {
  assertEquals(JSON.parse(read("deno.json")).version, VERSION);
  assert(read("CHANGELOG.md").includes(`## ${VERSION}`));
});

/** A file's text without comments. */
function code(file: string): string {
  return read(file).replace(/\/\*[\s\S]*?\*\//g, "").replace(
    /^\s*\/\/.*$/gm,
    "",
  );
}
