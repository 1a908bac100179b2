/**
 * A device in memory behind the UAPI codec, and its unix socket: what the
 * tests configure in place of a real device.
 */
import { toHex } from "../lib/crypto/bytes.ts";
import { serveUapi } from "../lib/uapi.ts";
import { formatCidr, maskAddress } from "../lib/ip.ts";
import type {
  UapiEndpoint,
  UapiPeerWalk,
  UapiSink,
  UapiSource,
} from "../lib/uapi.ts";

/** A peer of {@linkcode FakeDevice}. */
export interface FakePeer {
  publicKey: Uint8Array;
  presharedKey: Uint8Array;
  endpoint?: UapiEndpoint;
  lastHandshakeMs: number;
  txBytes: bigint;
  rxBytes: bigint;
  persistentKeepalive: number;
  allowedIps: { address: Uint8Array; cidr: number }[];
}

/** Keeps what it is told; logs each call as one line in `calls`. */
export class FakeDevice implements UapiSink, UapiSource {
  readonly calls: string[] = [];
  readonly peersByHandle = new Map<number, FakePeer>();
  secret: Uint8Array | undefined;
  ownPublicKey = "";
  port = 0;
  mark = 0;
  /** What setListenPort answers. */
  portErrno: number | Promise<number> = 0;
  #handle = 0;
  readonly #handles = new Map<string, number>();
  /** The peer that an allowed IP was last given to. */
  readonly #owners = new Map<string, FakePeer>();

  add(publicKey: Uint8Array): FakePeer {
    const handle = this.createPeer(publicKey);
    return this.#peer(handle);
  }

  #peer(handle: number): FakePeer {
    const peer = this.peersByHandle.get(handle);
    if (!peer) throw new Error(`no peer ${handle}`);
    return peer;
  }

  setPrivateKey(key: Uint8Array): number {
    this.calls.push(`privateKey ${toHex(key)}`);
    this.secret = key.some((byte) => byte !== 0) ? key.slice() : undefined;
    return 0;
  }
  setListenPort(port: number): number | Promise<number> {
    this.calls.push(`listenPort ${port}`);
    this.port = port;
    return this.portErrno;
  }
  setFwmark(mark: number): number {
    this.calls.push(`fwmark ${mark}`);
    this.mark = mark;
    return 0;
  }
  settled(): undefined {}
  replacePeers(): undefined {
    this.calls.push("replacePeers");
    this.peersByHandle.clear();
    this.#handles.clear();
  }
  findPeer(publicKey: Uint8Array): number {
    return this.#handles.get(toHex(publicKey)) ?? 0;
  }
  createPeer(publicKey: Uint8Array): number {
    const key = toHex(publicKey);
    if (key === this.ownPublicKey) return 0;
    this.calls.push(`create ${key.slice(0, 4)}`);
    this.#handle++;
    this.#handles.set(key, this.#handle);
    this.peersByHandle.set(this.#handle, {
      publicKey: publicKey.slice(),
      presharedKey: new Uint8Array(32),
      lastHandshakeMs: 0,
      txBytes: 0n,
      rxBytes: 0n,
      persistentKeepalive: 0,
      allowedIps: [],
    });
    return this.#handle;
  }
  removePeer(peer: number): undefined {
    const key = toHex(this.#peer(peer).publicKey);
    this.calls.push(`remove ${key.slice(0, 4)}`);
    this.#handles.delete(key);
    this.peersByHandle.delete(peer);
  }
  setPresharedKey(peer: number, key: Uint8Array): void {
    this.calls.push(`presharedKey ${peer}`);
    this.#peer(peer).presharedKey = key.slice();
  }
  setEndpoint(
    peer: number,
    address: Uint8Array,
    port: number,
    scope: number,
  ): number {
    this.calls.push(`endpoint ${peer} ${address.join(".")} ${port} ${scope}`);
    this.#peer(peer).endpoint = { address: address.slice(), port, scope };
    return 0;
  }
  setPersistentKeepalive(peer: number, seconds: number): void {
    this.calls.push(`keepalive ${peer} ${seconds}`);
    this.#peer(peer).persistentKeepalive = seconds;
  }
  replaceAllowedIps(peer: number): undefined {
    this.calls.push(`replaceAllowedIps ${peer}`);
    this.#peer(peer).allowedIps = [];
  }
  addAllowedIp(peer: number, address: Uint8Array, cidr: number): number {
    const masked = address.slice();
    maskAddress(masked, cidr);
    const text = formatCidr({ address: masked, cidr });
    this.calls.push(`add ${peer} ${text}`);
    const owner = this.#owners.get(text);
    if (owner) {
      owner.allowedIps = owner.allowedIps.filter((ip) =>
        formatCidr(ip) !== text
      );
    }
    this.#owners.set(text, this.#peer(peer));
    this.#peer(peer).allowedIps.push({ address: masked, cidr });
    return 0;
  }
  removeAllowedIp(peer: number, address: Uint8Array, cidr: number): void {
    const text = formatCidr({ address, cidr });
    this.calls.push(`del ${peer} ${text}`);
    const entry = this.#peer(peer);
    entry.allowedIps = entry.allowedIps.filter((ip) => formatCidr(ip) !== text);
  }
  peerDone(peer: number): void {
    this.calls.push(`done ${peer}`);
  }
  scopeId(name: string): number {
    return name === "lo" ? 1 : 0;
  }

  privateKey(): Uint8Array | undefined {
    return this.secret;
  }
  listenPort(): number {
    return this.port;
  }
  fwmark(): number {
    return this.mark;
  }
  walk(): UapiPeerWalk {
    const handleAfter = (after: number): number => {
      for (let handle = after; handle <= this.#handle; handle++) {
        if (this.peersByHandle.has(handle)) return handle;
      }
      return 0;
    };
    let at = 1;
    return {
      get peer(): number {
        return handleAfter(at);
      },
      advance(): void {
        at = handleAfter(at) + 1;
      },
      [Symbol.dispose](): void {},
    };
  }
  publicKey(peer: number): Uint8Array {
    return this.#peer(peer).publicKey;
  }
  presharedKey(peer: number): Uint8Array {
    return this.#peer(peer).presharedKey;
  }
  endpoint(peer: number): UapiEndpoint | undefined {
    return this.#peer(peer).endpoint;
  }
  lastHandshakeMs(peer: number): number {
    return this.#peer(peer).lastHandshakeMs;
  }
  txBytes(peer: number): bigint {
    return this.#peer(peer).txBytes;
  }
  rxBytes(peer: number): bigint {
    return this.#peer(peer).rxBytes;
  }
  persistentKeepalive(peer: number): number {
    return this.#peer(peer).persistentKeepalive;
  }
  allowedIps(
    peer: number,
    visit: (address: Uint8Array, cidr: number) => void,
  ): void {
    for (const { address, cidr } of this.#peer(peer).allowedIps) {
      visit(address, cidr);
    }
  }
  stats(): Iterable<readonly [string, number]> {
    return [["objects.peers", this.peersByHandle.size], ["tx_packets", 7]];
  }

  scopeName(id: number): string {
    return id === 1 ? "lo" : String(id);
  }
}

/** Writes all of a text to a connection. */
async function writeAll(conn: Deno.Conn, text: string): Promise<void> {
  let rest = new TextEncoder().encode(text);
  while (rest.length > 0) rest = rest.subarray(await conn.write(rest));
}

/** A unix socket that a {@linkcode FakeDevice} is served on until disposed. */
export class FakeServer implements AsyncDisposable {
  readonly #listener: Deno.UnixListener;
  readonly #path: string;
  readonly #connections = new Set<Promise<void>>();
  readonly #accepting: Promise<void>;

  constructor(
    path: string,
    serve: (conn: Deno.UnixConn) => Promise<void>,
  ) {
    this.#path = path;
    this.#listener = Deno.listen({ transport: "unix", path });
    this.#accepting = this.#accept(serve);
  }

  /** Serves `device` by the codec under test. */
  static of(path: string, device: FakeDevice): FakeServer {
    return new FakeServer(path, async (conn) => {
      const write = (text: string): Promise<void> => writeAll(conn, text);
      await serveUapi({ input: conn.readable, write }, device, device);
    });
  }

  /** Answers everything with the same text. */
  static canned(path: string, answer: string): FakeServer {
    return new FakeServer(path, async (conn) => {
      if (await conn.read(new Uint8Array(4096))) await writeAll(conn, answer);
    });
  }

  async #accept(serve: (conn: Deno.UnixConn) => Promise<void>): Promise<void> {
    for await (const conn of this.#listener) {
      const served = serve(conn).catch((error) => {
        if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      }).finally(() => {
        try {
          conn.close();
        } catch {
          // closed by the end of its stream
        }
        this.#connections.delete(served);
      });
      this.#connections.add(served);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    await this.#accepting;
    await Promise.all(this.#connections);
    try {
      Deno.removeSync(this.#path);
    } catch (error) {
      // Newer versions of Deno remove the socket when they close it.
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** The directory in which the stock tools look for sockets. */
export const WIREGUARD_DIRECTORY = "/var/run/wireguard";

/**
 * Why the stock `wg` cannot be compared with here; null if it can. Makes the
 * directory of the sockets.
 */
export function whyNoStockWg(): string | null {
  if (Deno.uid() !== 0) return "needs root for /var/run/wireguard";
  try {
    const { success } = new Deno.Command("wg", {
      args: ["--version"],
      stdout: "null",
    }).outputSync();
    if (!success) return "wg does not run";
  } catch {
    return "needs the stock wg (apt-get install wireguard-tools)";
  }
  Deno.mkdirSync(WIREGUARD_DIRECTORY, { recursive: true, mode: 0o755 });
  return null;
}

/** A name for an interface that no other test or device uses. */
export function uniqueName(prefix: string): string {
  const random = toHex(crypto.getRandomValues(new Uint8Array(3)));
  return `${prefix}${random}`;
}

/** Output of the stock `wg`. */
export async function stockWg(
  args: string[],
  env: Record<string, string> = {},
  stdin = "",
): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = new Deno.Command("wg", {
    args,
    env,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  try {
    await writer.write(new TextEncoder().encode(stdin));
    await writer.close();
  } catch {
    // it did not want to read all
  }
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return {
    code,
    stdout: decoder.decode(stdout),
    stderr: decoder.decode(stderr),
  };
}
