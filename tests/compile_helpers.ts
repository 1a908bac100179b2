/** Copies of the checkout and programs of tests, for the tests of what is built from it. */
import { fileURLToPath } from "node:url";
import "./bind_libc.ts";

/** The checkout. */
export const ROOT = fileURLToPath(new URL("../", import.meta.url));

/** How a program ended, and what it said. */
export interface Outcome {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** Runs a program to its end. */
export async function runProgram(
  argv: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; stdin?: string } = {},
): Promise<Outcome> {
  const { stdin, ...rest } = options;
  const [program, ...args] = argv;
  const child = new Deno.Command(program, {
    args,
    ...rest,
    stdin: stdin === undefined ? "null" : "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  if (stdin !== undefined) {
    const writer = child.stdin.getWriter();
    await writer.write(new TextEncoder().encode(stdin));
    await writer.close();
  }
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { code, out: text(stdout), err: text(stderr) };
}

/** Runs a program that must succeed. @returns its stdout */
export async function must(
  argv: readonly string[],
  options: { cwd?: string; env?: Record<string, string>; stdin?: string } = {},
): Promise<string> {
  const { code, out, err } = await runProgram(argv, options);
  if (code !== 0) {
    throw new Error(`${argv.join(" ")}: exit ${code}\n${out}${err}`);
  }
  return out;
}

/** Path of an installed program, or undefined. */
export function findProgram(name: string): string | undefined {
  const path = `${Deno.env.get("PATH") ?? ""}:/usr/sbin:/sbin`;
  return path.split(":").map((directory) => `${directory}/${name}`).find(
    (file) => {
      try {
        return Deno.statSync(file).isFile;
      } catch {
        return false;
      }
    },
  );
}

/** Says on stderr that a test is skipped. */
export function saySkipped(name: string, why: string): void {
  Deno.stderr.writeSync(
    new TextEncoder().encode(`skipped: ${name}: ${why}\n`),
  );
}

/** Declares a test that says why it is skipped, if it is. */
export function testUnless(
  why: string | undefined,
  name: string,
  fn: (directory: string) => Promise<void>,
): void {
  if (why !== undefined) saySkipped(name, why);
  Deno.test({
    name,
    ignore: why !== undefined,
    sanitizeOps: true,
    sanitizeResources: true,
    async fn(): Promise<void> {
      const directory = Deno.makeTempDirSync({ prefix: "wgd-test-" });
      try {
        await fn(directory);
      } finally {
        Deno.removeSync(directory, { recursive: true });
      }
    },
  });
}

/** Copies what the program is made from to `directory`. */
export async function copySources(directory: string): Promise<void> {
  const parts = ["cli.ts", "mod.ts", "deno.json", "deno.lock", "lib"];
  await must([
    ...["cp", "-R", ...parts, "packages", "packaging", "tools", directory],
  ], { cwd: ROOT });
}
