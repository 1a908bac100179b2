/**
 * `wgd set IF …`: changes a device as `wg set` does.
 *
 * @module
 */
import { decodeKey, KEY_BYTES, wipe } from "../crypto/bytes.ts";
import { servicePort } from "../sys/getaddrinfo.ts";
import { setDevice } from "../uapi_client.ts";
import { formatSet } from "../uapi_state.ts";
import { readSecretFile, resolveEndpoints } from "./configure.ts";
import { CliError, EXIT } from "./errors.ts";
import { parseSet } from "./set_grammar.ts";
import type { PeerUpdate } from "../uapi_state.ts";
import type { CommandContext } from "./context.ts";

const KEY_TEXT_LENGTH = 44;

/**
 * The key in a file: 44 characters, then white space alone. An empty file, or
 * /dev/null, is no key, which zeros stand for; but not an empty pipe, which
 * rather is the output of a command that failed.
 */
function readKeyFile(
  option: string,
  path: string,
  ctx: CommandContext,
): Uint8Array {
  const what = `set: ${option}`;
  const { bytes, isSeekable } = readSecretFile(path, what, ctx);
  if (bytes.length === 0 && isSeekable) return new Uint8Array(KEY_BYTES);
  const text = new TextDecoder("latin1").decode(bytes);
  wipe(bytes);
  const key = decodeKey(text.slice(0, KEY_TEXT_LENGTH));
  if (key === null) {
    throw new CliError(
      `${what}: ${path}: not a key; expected 44 base64 characters, or an ` +
        "empty file for none",
    );
  }
  if (!/^[\t-\r ]*$/.test(text.slice(KEY_TEXT_LENGTH))) {
    wipe(key);
    throw new CliError(`${what}: ${path}: more than a key in it`);
  }
  return key;
}

/** Runs `wgd set`. */
export async function runCommand(ctx: CommandContext): Promise<number> {
  const [name, ...words] = ctx.args;
  const request = parseSet(words, servicePort);
  for (const warning of request.warnings) ctx.err(`Warning: ${warning}`);
  const { privateKeyFile, listenPort, fwmark } = request;
  const privateKey = privateKeyFile === undefined
    ? undefined
    : readKeyFile("private-key", privateKeyFile, ctx);
  // One after the other: several may be /dev/stdin.
  const secrets = request.peers.map(({ presharedKeyFile }) =>
    presharedKeyFile === undefined
      ? undefined
      : readKeyFile("preshared-key", presharedKeyFile, ctx)
  );
  const endpoints = await resolveEndpoints(
    request.peers.map(({ endpoint }) => endpoint),
    ctx,
  );
  const peers = request.peers.map((peer, i): PeerUpdate => ({
    publicKey: peer.publicKey,
    remove: peer.remove,
    presharedKey: secrets[i],
    endpoint: endpoints[i],
    persistentKeepalive: peer.persistentKeepalive,
    replaceAllowedIps: peer.replaceAllowedIps,
    allowedIps: peer.allowedIps,
  }));
  await setDevice(
    name,
    formatSet({ privateKey, listenPort, fwmark, peers }),
  );
  return EXIT.OK;
}
