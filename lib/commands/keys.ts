/**
 * `wgd genkey`, `wgd genpsk` and `wgd pubkey`: keys on standard output and
 * input, never in arguments, with wg(8)'s messages and exit statuses.
 *
 * @module
 */
import { fstatSync } from "node:fs";
import {
  decodeKey,
  encodeKey,
  KEY_BYTES,
  randomBytes,
  wipe,
} from "../crypto/bytes.ts";
import { generatePrivateKey, publicKey } from "../crypto/x25519.ts";
import { CliError, EXIT } from "./errors.ts";
import type { CommandContext } from "./context.ts";

const KEY_TEXT_LENGTH = 44;
/** A key and white space; far more than anybody writes. */
const STDIN_BYTES_MAX = 64 * 1024;
const STDOUT_FD = 1;
const OTHERS_MASK = 0o007;

const WORLD_ACCESSIBLE_WARNING =
  "Warning: writing to world accessible file.\n" +
  "Consider setting the umask to 077 and trying again.";

/** Whether stdout is a regular file that others may read, write or execute. */
function isStdoutWorldAccessible(): boolean {
  try {
    const stat = fstatSync(STDOUT_FD);
    return stat.isFile() && (stat.mode & OTHERS_MASK) !== 0;
  } catch {
    return false; // stdout is closed: writing to it will tell
  }
}

function printSecret(ctx: CommandContext, key: Uint8Array): number {
  if (isStdoutWorldAccessible()) ctx.err(WORLD_ACCESSIBLE_WARNING);
  ctx.out(`${encodeKey(key)}\n`);
  wipe(key);
  return EXIT.OK;
}

/** Prints a new private key. */
export function genkeyCommand(ctx: CommandContext): Promise<number> {
  return Promise.resolve(printSecret(ctx, generatePrivateKey()));
}

/** Prints a new preshared key. */
export function genpskCommand(ctx: CommandContext): Promise<number> {
  return Promise.resolve(printSecret(ctx, randomBytes(KEY_BYTES)));
}

/** Prints the public key of the private key on stdin. */
export async function pubkeyCommand(ctx: CommandContext): Promise<number> {
  const input = await ctx.readStdin(STDIN_BYTES_MAX);
  const text = new TextDecoder("latin1").decode(input);
  wipe(input);
  // wg passes over NUL, too
  if (!/^[\s\0]*$/.test(text.slice(KEY_TEXT_LENGTH))) {
    throw new CliError("Trailing characters found after key");
  }
  const key = decodeKey(text.slice(0, KEY_TEXT_LENGTH));
  if (key === null) {
    throw new CliError("Key is not the correct length or format");
  }
  ctx.out(`${encodeKey(publicKey(key))}\n`);
  wipe(key);
  return EXIT.OK;
}
