/**
 * Peers in great numbers for scale_bench.ts: requests of the configuration
 * protocol made as they are sent, and answers that nobody keeps.
 *
 * @module
 */
import { SeededRandom } from "../../lib/selftest/random.ts";

const PIECE = 64 * 1024;
const SEED = 1;

/** Path of an interface's socket. */
function socketPath(name: string): string {
  return `/var/run/wireguard/${name}.sock`;
}

/** Address of peer `i`: 10.128.0.0/9 in order. */
export function addressOf(i: number): string {
  return `10.${128 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
}

/** A `set=1` request that adds peers `from` to `count - 1`, one address each. */
export function* setRequest(count: number): Generator<string> {
  const random = new SeededRandom(SEED);
  const key = new Uint8Array(32);
  let text = "set=1\n";
  for (let i = 0; i < count; i++) {
    random.fill(key);
    text += `public_key=${key.toHex()}\nreplace_allowed_ips=true\n` +
      `allowed_ip=${addressOf(i)}/32\n`;
    if (text.length < PIECE) continue;
    yield text;
    text = "";
  }
  yield text + "\n";
}

/** The same peers as a file for `wg`; `changed` has another address. */
export function* configFile(count: number, changed = -1): Generator<string> {
  const random = new SeededRandom(SEED);
  const key = new Uint8Array(32);
  for (let i = 0; i < count; i++) {
    random.fill(key);
    const address = i === changed ? "10.7.7.7" : addressOf(i);
    yield `[Peer]\nPublicKey = ${key.toBase64()}\nAllowedIPs = ${address}/32\n`;
  }
}

/** What came of a request. */
export interface Answer {
  readonly errno: number;
  readonly bytes: number;
  readonly seconds: number;
}

/** Sends a request and reads the answer to its end, keeping none of it. */
export async function ask(
  name: string,
  request: Iterable<string>,
): Promise<Answer> {
  const startMs = performance.now();
  using connection = await Deno.connect({
    transport: "unix",
    path: socketPath(name),
  });
  const encoder = new TextEncoder();
  for (const text of request) {
    let rest = encoder.encode(text);
    while (rest.length > 0) rest = rest.subarray(await connection.write(rest));
  }
  const decoder = new TextDecoder();
  const buffer = new Uint8Array(PIECE);
  let [bytes, end] = [0, ""];
  while (!end.endsWith("\n\n")) {
    const n = await connection.read(buffer);
    if (n === null) break;
    bytes += n;
    end = (end + decoder.decode(buffer.subarray(0, n))).slice(-32);
  }
  const errno = Number(/errno=(-?\d+)\n\n$/.exec(end)?.[1] ?? NaN);
  return { errno, bytes, seconds: (performance.now() - startMs) / 1000 };
}
