/**
 * Mixed traffic through a tunnel, every byte of it checked: many TCP streams and
 * UDP flows, IPv4 and IPv6, of many sizes, both ways at once.
 *
 *     mixer.ts server
 *     mixer.ts client SECONDS SEED ADDRESS4 ADDRESS6
 *
 * The client prints what both sides sent and received, as JSON. The server ends
 * with its one client. What is checked is in mixer_tcp.ts and mixer_udp.ts.
 */
import { protocolErrors, Random } from "./mixer_content.ts";
import { Streams, type TcpReport, writeAll } from "./mixer_tcp.ts";
import { BACKWARD, Flows, listen, type UdpReport } from "./mixer_udp.ts";

/** What one side has seen. */
export interface SideReport {
  readonly tcp: TcpReport;
  readonly udp: UdpReport;
  /** New errors of the namespace's protocols: checksums, headers. */
  readonly errors: Record<string, number>;
}

/** What the client prints. */
export interface MixerReport {
  readonly client: SideReport;
  readonly server: SideReport;
}

/** Where the server waits to be told. */
export const CONTROL_PORT = 7000;
const TCP_PORT = 7001;
const UDP_PORT = 7002;
const CONNECTIONS = 64;
const FLOWS = 12;
/**
 * How long TCP may take to make up for losses: on each side, as what one has
 * written the other may still wait for.
 */
const PATIENCE_MS = 60_000;
/** What is still on its way by UDP. */
const SETTLE_MS = 500;
const FAMILIES = ["v4", "v6"] as const;

/** One side's traffic. */
class Side {
  readonly streams = new Streams();
  readonly flows = new Flows();
  readonly #errorsBefore = protocolErrors();
  readonly #sockets: Deno.DatagramConn[] = [];
  readonly #readers: Promise<void>[] = [];

  /** Reads a socket to its end. @param first told of new flows */
  read(
    socket: Deno.DatagramConn,
    first: (flow: number, from: Deno.NetAddr) => void = () => {},
  ): void {
    this.#sockets.push(socket);
    const read = async (): Promise<void> => {
      const buffer = new Uint8Array(65_536);
      try {
        for (;;) {
          const [bytes, from] = await socket.receive(buffer);
          const flow = this.flows.take(bytes);
          if (flow !== undefined) first(flow, from as Deno.NetAddr);
        }
      } catch (error) {
        if (!this.#closing) throw error;
      }
    };
    this.#readers.push(read());
  }

  #closing = false;

  /** Closes the sockets. */
  async close(): Promise<void> {
    this.#closing = true;
    for (const socket of this.#sockets) socket.close();
    await Promise.all(this.#readers);
  }

  report(): SideReport {
    const before = this.#errorsBefore;
    const errors = Object.fromEntries(
      Object.entries(protocolErrors())
        .map(([name, count]) => [name, count - (before[name] ?? 0)] as const)
        .filter(([, count]) => count > 0),
    );
    for (const name of this.streams.open) {
      this.streams.fail(`${name}: has not ended`);
    }
    return { tcp: this.streams.report(), udp: this.flows.report(), errors };
  }
}

/** Reads a line of JSON. */
async function readLine<T>(connection: Deno.TcpConn): Promise<T> {
  const buffer = new Uint8Array(65_536);
  const decoder = new TextDecoder();
  let text = "";
  while (!text.includes("\n")) {
    const n = await connection.read(buffer);
    if (n === null) throw new Error("the other side of the mixer has gone");
    text += decoder.decode(buffer.subarray(0, n), { stream: true });
  }
  return JSON.parse(text);
}

async function writeLine(
  connection: Deno.TcpConn,
  value: unknown,
): Promise<void> {
  const line = `${JSON.stringify(value)}\n`;
  await writeAll(connection, new TextEncoder().encode(line));
}

function delay(ms: number): Promise<void> {
  return new Promise((done) => setTimeout(done, ms));
}

/** Waits for `promises`, but not for ever. */
async function within(
  promises: readonly Promise<unknown>[],
  ms: number,
): Promise<void> {
  await Promise.race([Promise.all(promises), delay(ms)]);
}

/** What the client tells the server. */
interface Orders {
  readonly seconds: number;
  readonly seed: number;
}

async function serve(): Promise<void> {
  const side = new Side();
  const listener = Deno.listen({ hostname: "::", port: TCP_PORT });
  const sockets = {
    v4: listen("v4", UDP_PORT),
    v6: listen("v6", UDP_PORT + 1),
  };
  const control = Deno.listen({ hostname: "::", port: CONTROL_PORT });
  const connection = await control.accept();
  const { seconds, seed } = await readLine<Orders>(connection);
  const untilMs = Date.now() + seconds * 1000;
  const random = new Random(~seed);
  const work: Promise<void>[] = [];
  for (const family of FAMILIES) {
    side.read(sockets[family], (flow, from) => {
      const back = (flow | BACKWARD) >>> 0;
      // Trains need a socket of their own; its datagrams are read, too.
      const socket = flow % 2 === 1 ? listen(family, 0) : sockets[family];
      if (socket !== sockets[family]) side.read(socket);
      work.push(
        side.flows.send(back, socket, from, new Random(random.next()), untilMs),
      );
    });
  }
  const accepting = (async (): Promise<void> => {
    for await (const accepted of listener) {
      work.push(side.streams.exchange(accepted, new Random(random.next())));
    }
  })();
  await writeLine(connection, {});
  await readLine(connection);
  await within(work, PATIENCE_MS);
  await delay(SETTLE_MS);
  await writeLine(connection, side.report());
  // The client has it when it closes.
  await connection.read(new Uint8Array(1));
  listener.close();
  await accepting;
  await side.close();
  control.close();
  Deno.exit();
}

async function runClient(
  { seconds, seed }: Orders,
  addresses: { v4: string; v6: string },
): Promise<void> {
  const side = new Side();
  const random = new Random(seed);
  const connection = await Deno.connect({
    hostname: addresses.v4,
    port: CONTROL_PORT,
  });
  await writeLine(connection, { seconds, seed });
  await readLine(connection);
  const untilMs = Date.now() + seconds * 1000;
  const work: Promise<void>[] = [];
  for (let flow = 0; flow < FLOWS; flow++) {
    // Even and odd flows of both families.
    const family = FAMILIES[(flow >> 1) % 2];
    const socket = listen(family, 0);
    side.read(socket);
    const to: Deno.NetAddr = {
      transport: "udp",
      hostname: addresses[family],
      port: family === "v4" ? UDP_PORT : UDP_PORT + 1,
    };
    const own = new Random(random.next());
    work.push(side.flows.send(flow, socket, to, own, untilMs));
  }
  const connect = async (family: "v4" | "v6", own: Random): Promise<void> => {
    const hostname = addresses[family];
    while (Date.now() < untilMs) {
      try {
        const stream = await Deno.connect({ hostname, port: TCP_PORT });
        await side.streams.exchange(stream, own);
      } catch (error) {
        side.streams.fail(`connect to ${hostname}: ${error}`);
        await delay(SETTLE_MS);
      }
    }
  };
  for (let i = 0; i < CONNECTIONS; i++) {
    work.push(connect(FAMILIES[i % 2], new Random(random.next())));
  }
  await within(work, seconds * 1000 + PATIENCE_MS);
  await writeLine(connection, {});
  const server = await readLine<SideReport>(connection);
  await delay(SETTLE_MS);
  const report: MixerReport = { client: side.report(), server };
  connection.close();
  await side.close();
  Deno.stdout.writeSync(
    new TextEncoder().encode(`${JSON.stringify(report)}\n`),
  );
  Deno.exit();
}

/** Runs it with the arguments above. */
export async function main(args: readonly string[]): Promise<void> {
  const [mode, seconds, seed, v4, v6] = args;
  if (mode === "server") await serve();
  else {
    await runClient(
      { seconds: Number(seconds), seed: Number(seed) },
      { v4, v6 },
    );
  }
}

if (import.meta.main) await main(Deno.args);
