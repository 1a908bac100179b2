/**
 * Builds the wasm kernels: compiles lib/crypto/wasm/assembly with the
 * AssemblyScript compiler and writes the result, in base64, to
 * lib/crypto/wasm/kernel.ts, so that `deno compile` bundles it and workers need
 * no file access. The output is checked in and the same on every machine.
 *
 *     deno run -A --config tools/wasm/deno.json tools/wasm/build.ts [--check]
 *
 * --check writes nothing and fails if the checked-in file differs.
 *
 * @module
 */

import asc from "assemblyscript/asc";

const SOURCE = new URL("../../lib/crypto/wasm/assembly/", import.meta.url);
const OUTPUT = new URL("../../lib/crypto/wasm/kernel.ts", import.meta.url);
const ENTRY = "kernel.ts";
const BINARY = "kernel.wasm";

const OPTIONS = [
  // Binaryen's passes move computations to their first use, which undoes the
  // side-by-side order of the sources and costs up to 40 %. V8 optimises.
  "-O0",
  // No heap, no stack, no static data: workers share one memory.
  ...["--runtime", "stub", "--noAssert", "--use", "abort="],
  // Any shared memory fits; the module itself needs none.
  ...["--importMemory", "--sharedMemory", "--noExportMemory"],
  ...["--initialMemory", "1", "--maximumMemory", "65536"],
  ...["--enable", "simd,threads,bulk-memory"],
];

const MODULE_HEADER = `/**
 * The wasm kernels in base64. Written by tools/wasm/build.ts from
 * lib/crypto/wasm/assembly; do not edit.
 *
 * @module
 */

/** The binary module: imports env.memory, exports see wasm/instance.ts. */
`;

function readSource(name: string): string | null {
  try {
    return Deno.readTextFileSync(new URL(name, SOURCE));
  } catch (error) {
    // The compiler probes for files; null says that there is none.
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

async function compile(): Promise<Uint8Array> {
  let binary: Uint8Array | undefined;
  const result = await asc.main([ENTRY, "--outFile", BINARY, ...OPTIONS], {
    readFile: readSource,
    writeFile(name: string, contents: string | Uint8Array): void {
      if (name === BINARY && typeof contents !== "string") binary = contents;
    },
    listFiles: () => null,
  });
  if (result.error !== null || binary === undefined) {
    throw new Error(`Cannot compile the kernels: ${result.stderr.toString()}`);
  }
  return binary;
}

const module = await compile();
const text =
  `${MODULE_HEADER}export const KERNEL_BASE64 =\n  "${module.toBase64()}";\n`;

if (Deno.args.includes("--check")) {
  if (Deno.readTextFileSync(OUTPUT) !== text) {
    throw new Error(`${OUTPUT.pathname} is stale: run deno task build:wasm`);
  }
} else {
  Deno.writeTextFileSync(OUTPUT, text);
}
