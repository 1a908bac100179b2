/**
 * What the demo measures with where ping or iperf3 is missing: a UDP echo with
 * its probe, and a TCP sender with its receiver, each a process inside one
 * namespace. The result is one line of JSON on stdout.
 *
 *     demo_peer.ts echo ADDRESS PORT
 *     demo_peer.ts probe ADDRESS PORT COUNT
 *     demo_peer.ts receive ADDRESS PORT
 *     demo_peer.ts send ADDRESS PORT SECONDS
 *
 * @module
 */

/** What `echo` and `receive` print when they listen. */
export const READY = "ready\n";

/** What `probe` prints. */
export interface ProbeResult {
  readonly sent: number;
  /** Round trips of the probes that were answered. */
  readonly roundTripsMs: number[];
}

/** What `receive` prints. */
export interface ReceiveResult {
  readonly bytes: number;
  readonly seconds: number;
}

const PROBE_BYTES = 56;
const PROBE_INTERVAL_MS = 100;
const PROBE_TIMEOUT_MS = 1_000;
const TCP_BUFFER_BYTES = 256 * 1024;

function print(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(text));
}

function anyAddress(like: string): string {
  return like.includes(":") ? "::" : "0.0.0.0";
}

/** Sends each datagram back, until it is killed. */
async function echo(hostname: string, port: number): Promise<void> {
  const socket = Deno.listenDatagram({ transport: "udp", hostname, port });
  print(READY);
  for await (const [bytes, from] of socket) await socket.send(bytes, from);
}

/** Sends probes one after the other and takes the time of their echoes. */
async function probe(
  hostname: string,
  port: number,
  count: number,
): Promise<void> {
  const socket = Deno.listenDatagram({
    transport: "udp",
    hostname: anyAddress(hostname),
    port: 0,
  });
  const answers = new Map<number, () => void>();
  const receiving = (async (): Promise<void> => {
    for await (const [bytes] of socket) answers.get(bytes[0])?.();
  })();
  receiving.catch(() => {});
  const roundTripsMs: number[] = [];
  for (let i = 0; i < count; i++) {
    const answered = Promise.withResolvers<boolean>();
    answers.set(i, () => answered.resolve(true));
    const timer = setTimeout(() => answered.resolve(false), PROBE_TIMEOUT_MS);
    const bytes = new Uint8Array(PROBE_BYTES).fill(i);
    const sentMs = performance.now();
    await socket.send(bytes, { transport: "udp", hostname, port });
    if (await answered.promise) roundTripsMs.push(performance.now() - sentMs);
    clearTimeout(timer);
    await new Promise((resolve) => setTimeout(resolve, PROBE_INTERVAL_MS));
  }
  socket.close();
  const result: ProbeResult = { sent: count, roundTripsMs };
  print(`${JSON.stringify(result)}\n`);
}

/** Takes one connection and counts what comes. */
async function receive(hostname: string, port: number): Promise<void> {
  using listener = Deno.listen({ hostname, port });
  print(READY);
  using connection = await listener.accept();
  const buffer = new Uint8Array(TCP_BUFFER_BYTES);
  const startMs = performance.now();
  let bytes = 0;
  for (;;) {
    const n = await connection.read(buffer);
    if (n === null) break;
    bytes += n;
  }
  const seconds = (performance.now() - startMs) / 1000;
  const result: ReceiveResult = { bytes, seconds };
  print(`${JSON.stringify(result)}\n`);
}

/** Sends for so many seconds. */
async function send(
  hostname: string,
  port: number,
  seconds: number,
): Promise<void> {
  using connection = await Deno.connect({ hostname, port });
  const buffer = crypto.getRandomValues(new Uint8Array(64 * 1024));
  const endMs = performance.now() + seconds * 1000;
  while (performance.now() < endMs) await connection.write(buffer);
}

async function act(args: readonly string[]): Promise<void> {
  const [what, address, portText, numberText] = args;
  const port = Number(portText);
  if (what === "echo") await echo(address, port);
  else if (what === "probe") await probe(address, port, Number(numberText));
  else if (what === "receive") await receive(address, port);
  else if (what === "send") await send(address, port, Number(numberText));
  else throw new Error(`${what}: expected echo, probe, receive or send`);
}

/** Does what the arguments say. @returns its exit status */
export async function main(args: readonly string[]): Promise<number> {
  try {
    await act(args);
    return 0;
  } catch (error) {
    const text = error instanceof Error ? error.message : String(error);
    Deno.stderr.writeSync(new TextEncoder().encode(`${text}\n`));
    return 1;
  }
}

if (import.meta.main) Deno.exit(await main(Deno.args));
