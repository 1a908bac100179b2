/**
 * Which AEAD seals and opens the data packets: `--crypto`. Control chooses once,
 * by self-tests against noble, and hands the choice to the workers, which then
 * test nothing; best done while they start. With "auto", where libcrypto is here
 * and right, each worker finds out on its own packets whether it is also faster
 * (lib/crypto/aead_trial).
 *
 * @module
 */
import { LibcryptoAead } from "./aead_libcrypto.ts";
import {
  type Aead,
  type AeadChoice,
  testAead,
  testWasmAead,
} from "./crypto/aead.ts";
import { createNobleAead } from "./crypto/aead_noble.ts";
import { TrialAead } from "./crypto/aead_trial.ts";
import { createWasmAead } from "./crypto/aead_wasm.ts";
import { libcrypto } from "./sys/libcrypto.ts";

/** What was chosen; can be posted to a worker. */
export interface ChosenAead {
  /** With "wasm+libcrypto" the packets decide. */
  readonly name: "wasm" | "wasm+libcrypto" | "libcrypto" | "noble";
  /** Why, for the log. */
  readonly reason: string;
}

/** An AEAD that was asked for and cannot work here. */
export class AeadError extends Error {
  override readonly name = "AeadError";

  constructor(choice: AeadChoice, problem: string) {
    super(`--crypto ${choice} is impossible here: ${problem}`);
  }
}

/** Why libcrypto cannot be used, null if it can; undefined until tested. */
let libcryptoProblem: string | null | undefined;
/** The same of the wasm kernel. */
let wasmProblem: string | null | undefined;

/** @returns Why libcrypto is not here or does not open, or null if it does. */
export function missingLibcrypto(): string | null {
  try {
    libcrypto();
    return null;
  } catch (error) {
    return error instanceof Error ? error.message : String(error);
  }
}

/** @returns Why libcrypto cannot be used here, or null if it can. */
export function testLibcryptoAead(): string | null {
  return testAead((memory) => new LibcryptoAead(memory));
}

/**
 * Chooses. Tests a provider once in a thread.
 *
 * @throws {AeadError} If "wasm" or "libcrypto" was asked for and cannot work.
 */
export function chooseAead(choice: AeadChoice): ChosenAead {
  if (choice === "noble") return { name: choice, reason: "asked for" };
  if (choice !== "libcrypto" && wasmProblem === undefined) {
    wasmProblem = testWasmAead();
  }
  if (choice !== "wasm" && libcryptoProblem === undefined) {
    libcryptoProblem = testLibcryptoAead();
  }
  if (choice !== "auto") {
    const problem = choice === "wasm" ? wasmProblem : libcryptoProblem;
    if (typeof problem === "string") throw new AeadError(choice, problem);
    return { name: choice, reason: "asked for" };
  }
  if (typeof wasmProblem === "string") {
    return libcryptoProblem === null
      ? { name: "libcrypto", reason: wasmProblem }
      : { name: "noble", reason: `${wasmProblem}; ${libcryptoProblem}` };
  }
  return typeof libcryptoProblem === "string"
    ? { name: "wasm", reason: libcryptoProblem }
    : { name: "wasm+libcrypto", reason: "both agree with noble" };
}

/**
 * Makes the AEAD that was chosen, in the thread that is to use it.
 *
 * @param memory The arena.
 * @param workOffset As for `createAead`.
 */
export function createDataAead(
  memory: WebAssembly.Memory,
  workOffset: number,
  chosen: ChosenAead,
): Aead {
  switch (chosen.name) {
    case "noble":
      return createNobleAead(memory);
    case "wasm":
      return createWasmAead(memory, workOffset);
    case "libcrypto":
      return new LibcryptoAead(memory);
    case "wasm+libcrypto":
      return new TrialAead(
        memory,
        createWasmAead(memory, workOffset),
        new LibcryptoAead(memory),
      );
  }
}
