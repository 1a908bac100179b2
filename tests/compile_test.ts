/**
 * `deno task compile`: the same bytes wherever it runs, permissions that fit
 * what lib/ does, and the script form's header, with a small program in place
 * of deno.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  copySources,
  findProgram,
  must,
  type Outcome,
  ROOT,
  runProgram,
  testUnless,
} from "./compile_helpers.ts";
import { VERSION } from "../lib/version.ts";
import { PERMISSIONS, VARIABLES } from "../tools/permissions.ts";

/** A deno that can compile, in words: .ci/run names it, with DENORT_BIN. */
const compiler = Deno.env.get("WGD_COMPILER")?.split(" ");
const noCompiler = compiler
  ? undefined
  : "deno compile downloads a base binary: set WGD_COMPILER to a deno that " +
    "can have it, or that fits DENORT_BIN";
const noPacker = ["tar", "xz"].every(findProgram)
  ? undefined
  : "needs tar and xz: apt-get install tar xz-utils";
const COMMIT = "0123456789ab";

function compile(
  deno: readonly string[],
  directory: string,
  ...args: string[]
): Promise<Outcome> {
  return runProgram([...deno, "task", "--quiet", "compile", ...args], {
    cwd: directory,
    env: { WGD_COMMIT: COMMIT, NO_COLOR: "1" },
  });
}

async function compiled(
  deno: readonly string[],
  directory: string,
  ...args: string[]
): Promise<void> {
  const { code, out, err } = await compile(deno, directory, ...args);
  assertEquals(code, 0, out + err);
}

testUnless(
  noCompiler,
  "an executable is the same byte for byte wherever it is made",
  async (directory) => {
    const files: Uint8Array[] = [];
    for (const name of ["one", "another"]) {
      const copy = `${directory}/${name}`;
      Deno.mkdirSync(copy);
      await copySources(copy);
      await compiled(compiler ?? [], copy);
      const output = `${copy}/dist/wgd-linux-${Deno.build.arch}`;
      files.push(Deno.readFileSync(output));
      await must(["sha256sum", "-c", `${output}.sha256`], {
        cwd: `${copy}/dist`,
      });
      assertEquals(
        await must([output, "--version"]),
        `wgd ${VERSION} (${COMMIT})\n`,
      );
    }
    assertEquals(files[0].length, files[1].length);
    assert(files[0].every((byte, i) => byte === files[1][i]), "they differ");
  },
);

testUnless(
  noCompiler,
  "an executable is not made from a base for another machine",
  async (directory) => {
    await copySources(directory);
    const other = Deno.build.arch === "x86_64" ? "aarch64" : "x86_64";
    const base = Deno.env.get("DENORT_BIN") ?? Deno.execPath();
    const { code, err } = await runProgram([
      ...compiler ?? [],
      ...["task", "--quiet", "compile"],
      ...["--target", `${other}-unknown-linux-gnu`],
    ], { cwd: directory, env: { WGD_COMMIT: COMMIT, DENORT_BIN: base } });
    assertEquals(code, 1);
    assertMatch(err, /DENORT_BIN=\S+ is not for \w+-unknown-linux-gnu/);
  },
);

Deno.test("compile refuses what it does not know", async () => {
  for (
    const [args, says] of [
      [["--target", "riscv64-unknown-linux-gnu"], /x86-64 and arm64 alone/],
      [["--form", "quickjs"], /expected executable or script/],
      [["--fast"], /unknown argument --fast/],
      [["--suite", "--form", "script"], /--suite is an executable/],
    ] as const
  ) {
    const { code, err } = await compile([Deno.execPath()], ROOT, ...args);
    assertEquals(code, 1);
    assertMatch(err, says);
    assertMatch(err, /usage: deno task compile/);
  }
});

Deno.test("an executable may read the variables that lib/ names", () => {
  const names = new Set<string>();
  const visit = (directory: string): void => {
    for (const { name, isDirectory } of Deno.readDirSync(directory)) {
      if (isDirectory) visit(`${directory}/${name}`);
      else if (name.endsWith(".ts")) {
        const text = Deno.readTextFileSync(`${directory}/${name}`);
        const found = text.matchAll(
          /\benv(?:\.(?:get|set|delete|has))?\(\s*"(\w+)"|\b(?:descriptor|variable)\(\w+, "(\w+)"|_ENV = "(\w+)"/g,
        );
        for (const [, a, b, c] of found) names.add(a ?? b ?? c);
      }
    }
  };
  visit(`${ROOT}lib`);
  assert(names.has("LOG_LEVEL") && names.has("WG_TUN_FD"), [...names].join());
  const allowed = (name: string): boolean =>
    VARIABLES.some((pattern) =>
      pattern.endsWith("*")
        ? name.startsWith(pattern.slice(0, -1))
        : name === pattern
    );
  assertEquals([...names].filter((name) => !allowed(name)), []);
});

Deno.test("an executable is not given all permissions", () => {
  const all = PERMISSIONS.filter((option) =>
    /^(-A|--allow-all|--allow-(sys|import|env)$)/.test(option)
  );
  assertEquals(all, []);
});

/** Stands for deno in a script: says what it is given. */
const FAKE_DENO = `#!/bin/sh
for word; do main=$word; case $word in */cli.js) break ;; esac; done
[ -f "$main" ] || exit 9
shift $(($# - 2))
echo "$WGD_LAUNCHER|$DENO_DIR|$*"
`;

/** Makes a script with {@link FAKE_DENO}. @returns its path */
async function makeScript(directory: string): Promise<string> {
  const copy = `${directory}/copy`;
  Deno.mkdirSync(copy);
  await copySources(copy);
  const deno = `${directory}/deno`;
  Deno.writeTextFileSync(deno, FAKE_DENO, { mode: 0o755 });
  const output = `${directory}/wgd.run`;
  await compiled(
    [Deno.execPath()],
    copy,
    ...["--form", "script", "--deno", deno, "--output", output],
  );
  return output;
}

testUnless(
  noPacker,
  "a script is the same byte for byte, and extracts itself once",
  async (directory) => {
    const outputs: Uint8Array[] = [];
    for (const name of ["one", "another"]) {
      Deno.mkdirSync(`${directory}/${name}`);
      const path = await makeScript(`${directory}/${name}`);
      outputs.push(Deno.readFileSync(path));
    }
    assertEquals(outputs[0], outputs[1]);
    const script = `${directory}/one/wgd.run`;
    const cache = `${directory}/deep/cache`;
    const env = { WGD_CACHE: cache };
    const says = `${script}|${cache}/deno|a b\n`;
    assertEquals(await must([script, "a", "b"], { env }), says);
    const [{ name }] = [...Deno.readDirSync(cache)];
    assertEquals((Deno.statSync(cache).mode ?? 0) & 0o777, 0o700);
    const { mtime } = Deno.statSync(`${cache}/${name}`);
    assertEquals(await must([script, "a", "b"], { env }), says);
    assertEquals(Deno.statSync(`${cache}/${name}`).mtime, mtime);
    assertEquals([...Deno.readDirSync(cache)].length, 1);
  },
);

testUnless(
  noPacker,
  "a script runs nothing from a directory that others can write to",
  async (directory) => {
    const script = await makeScript(directory);
    const cache = `${directory}/cache`;
    const refused = async (): Promise<void> => {
      const { code, err } = await runProgram([script, "a", "b"], {
        env: { WGD_CACHE: cache },
      });
      assertEquals(code, 1);
      assertMatch(err, /^wgd: .* must be a directory of yours with mode 0700/);
    };
    for (const mode of [0o770, 0o707, 0o750, 0o777]) {
      Deno.mkdirSync(cache);
      Deno.chmodSync(cache, mode);
      await refused();
      Deno.removeSync(cache);
    }
    Deno.mkdirSync(`${directory}/else`, { mode: 0o700 });
    Deno.symlinkSync(`${directory}/else`, cache);
    await refused();
    Deno.removeSync(cache);
    if (Deno.uid() !== 0) return;
    Deno.mkdirSync(cache, { mode: 0o700 });
    Deno.chownSync(cache, 65534, 65534);
    await refused();
  },
);

testUnless(
  noPacker,
  "a script that is cut off or damaged says so, and leaves nothing behind",
  async (directory) => {
    const script = await makeScript(directory);
    const whole = Deno.readFileSync(script);
    const damaged = whole.slice();
    damaged.fill(0, whole.length - 2000, whole.length - 1000);
    for (
      const [bytes, says] of [
        [whole.subarray(0, whole.length - 1), /is not whole: copy it again/],
        [damaged, /cannot unpack|is damaged/],
      ] as const
    ) {
      Deno.writeFileSync(script, bytes, { mode: 0o755 });
      const cache = `${directory}/cache`;
      const { code, err } = await runProgram([script], {
        env: { WGD_CACHE: cache },
      });
      assertEquals(code, 1, err);
      assertMatch(err, says);
      const left = await runProgram(["ls", "-A", cache]);
      assertEquals(left.out, "");
    }
  },
);

testUnless(
  noPacker,
  "many first runs of a script at a time get along",
  async (directory) => {
    const script = await makeScript(directory);
    const cache = `${directory}/cache`;
    const says = `${script}|${cache}/deno|a b\n`;
    const runs = Array.from(
      { length: 8 },
      () => must([script, "a", "b"], { env: { WGD_CACHE: cache } }),
    );
    assertEquals(await Promise.all(runs), runs.map(() => says));
    const [{ name }, ...more] = [...Deno.readDirSync(cache)];
    assertEquals(more, []);
    const inside = [...Deno.readDirSync(`${cache}/${name}`)];
    assertEquals(inside.filter((entry) => entry.name.startsWith("new.")), []);
  },
);
