/**
 * A device as lib/uapi sees it: get and set of its settings, on control and the
 * parts of the device that are not control's.
 *
 * @module
 */
import type { Control } from "./control.ts";
import { fromHex, toHex } from "./crypto/bytes.ts";
import { formatSocketAddress, parseEndpoint } from "./ip.ts";
import type { SocketAddress } from "./ip.ts";
import { REJECT_AFTER_TIME_MS } from "./messages.ts";
import { type PeerProgress, PendingEndpoints } from "./pending.ts";
import { resolveAddresses } from "./resolve.ts";
import { cString, ERRNO, errno, libc, SysError, wallMs } from "./sys/libc.ts";
import type {
  UapiEndpoint,
  UapiPeerWalk,
  UapiSink,
  UapiSource,
} from "./uapi.ts";

const IF_NAMESIZE = 16;

/** The settings that belong to the sockets. */
export interface SocketSettings {
  /** Port listened on, or to be; 0: any. */
  readonly listenPort: number;
  /** Mark of what leaves; 0: none. */
  readonly fwmark: number;
  /** Listens on another port. @throws SysError EADDRINUSE and others */
  setListenPort(port: number): Promise<void>;
  /** Marks what leaves. @throws SysError EPERM and others */
  setFwmark(mark: number): void;
}

/** What looking up names of endpoints needs of the device. */
export interface NameOptions {
  /** Called when a peer got an endpoint: control has work. */
  readonly wake: () => void;
  /** Gets a line about a name that has no address, or at last has one. */
  readonly log: (line: string) => void;
}

/** What a device counts. */
export interface StatsSource {
  /** Live objects, by kind. */
  objects(): object;
  /** What was dropped, by reason. */
  counters(): Readonly<Record<string, number>>;
}

/** Both directions of the configuration protocol for one device. */
export class UapiDevice implements UapiSink, UapiSource {
  readonly #control: Control;
  readonly #sockets: SocketSettings;
  readonly #names: PendingEndpoints;
  readonly #stats: StatsSource;

  constructor(
    control: Control,
    sockets: SocketSettings,
    stats: StatsSource,
    names: NameOptions,
  ) {
    this.#stats = stats;
    this.#control = control;
    this.#sockets = sockets;
    this.#names = new PendingEndpoints({
      resolve: (endpoint) => resolveAddresses(endpoint),
      progress: (key) => this.#progress(key),
      setEndpoint: (key, to) => {
        this.#setResolved(key, to);
        names.wake();
      },
      schedule: (then, ms) => {
        const timer = setTimeout(then, ms);
        return () => clearTimeout(timer);
      },
      log: names.log,
    });
  }

  /** Looks no names up any more. */
  close(): void {
    this.#names.close();
  }

  // ---- names of endpoints -------------------------------------------------

  setEndpointName(peer: number, name: string): number {
    const endpoint = parseEndpoint(name);
    if (endpoint === null) return ERRNO.EINVAL;
    this.#names.add(toHex(this.publicKey(peer)), endpoint);
    return 0;
  }

  endpointName(peer: number): string | undefined {
    if (this.#names.size === 0) return undefined;
    return this.#names.nameOf(toHex(this.publicKey(peer)));
  }

  #find(key: string): number {
    const publicKey = fromHex(key);
    return publicKey === null ? 0 : this.findPeer(publicKey);
  }

  #progress(key: string): PeerProgress | undefined {
    const peer = this.#find(key);
    if (peer === 0) return undefined;
    const endpoint = this.endpoint(peer);
    return {
      endpoint: endpoint && formatSocketAddress({
        ...endpoint,
        scope: endpoint.scope === 0 ? "" : String(endpoint.scope),
      }),
      isConnected: wallMs() - this.lastHandshakeMs(peer) < REJECT_AFTER_TIME_MS,
      txBytes: this.txBytes(peer),
    };
  }

  #setResolved(key: string, { address, port, scope }: SocketAddress): void {
    const peer = this.#find(key);
    if (peer === 0) return;
    this.#control.setEndpoint(peer, address, port, Number(scope));
    this.#control.peerDone(peer);
  }

  #forgetName(peer: number): void {
    if (this.#names.size > 0) this.#names.cancel(toHex(this.publicKey(peer)));
  }

  // ---- set ----------------------------------------------------------------

  setPrivateKey(key: Uint8Array): number | Promise<number> {
    const none = key.every((byte) => byte === 0);
    return this.#control.setPrivateKey(none ? null : key)?.then(() => 0) ?? 0;
  }

  async setListenPort(port: number): Promise<number> {
    try {
      await this.#sockets.setListenPort(port);
      return 0;
    } catch (error) {
      return errnoOf(error);
    }
  }

  setFwmark(mark: number): number {
    try {
      this.#sockets.setFwmark(mark);
      return 0;
    } catch (error) {
      return errnoOf(error);
    }
  }

  settled(): Promise<void> | undefined {
    return this.#control.settled();
  }

  replacePeers(): Promise<void> | undefined {
    this.#names.close();
    return this.#control.removeAllPeers();
  }

  findPeer(publicKey: Uint8Array): number {
    return this.#control.findPeer(publicKey);
  }

  createPeer(publicKey: Uint8Array): number {
    const peer = this.#control.createPeer(publicKey);
    return peer < 0 ? -ERRNO.ENOMEM : peer;
  }

  removePeer(peer: number): Promise<void> | undefined {
    this.#forgetName(peer);
    return this.#control.removePeer(peer);
  }

  setPresharedKey(peer: number, key: Uint8Array): void {
    this.#control.setPresharedKey(peer, key);
  }

  setEndpoint(
    peer: number,
    address: Uint8Array,
    port: number,
    scopeId: number,
  ): number {
    this.#forgetName(peer);
    this.#control.setEndpoint(peer, address, port, scopeId);
    return 0;
  }

  setPersistentKeepalive(peer: number, seconds: number): void {
    this.#control.setPersistentKeepalive(peer, seconds);
  }

  replaceAllowedIps(peer: number): Promise<void> | undefined {
    return this.#control.removeAllowedIps(peer);
  }

  addAllowedIp(peer: number, address: Uint8Array, cidr: number): number {
    return this.#control.allowedIps.insert(address, cidr, peer)
      ? 0
      : ERRNO.ENOMEM;
  }

  removeAllowedIp(peer: number, address: Uint8Array, cidr: number): void {
    this.#control.allowedIps.remove(address, cidr, peer);
  }

  peerDone(peer: number): void {
    this.#control.peerDone(peer);
  }

  scopeId(name: string): number {
    return libc().if_nametoindex(cString(name));
  }

  // ---- get ----------------------------------------------------------------

  privateKey(): Uint8Array | undefined {
    return this.#control.privateKey ?? undefined;
  }

  listenPort(): number {
    return this.#sockets.listenPort;
  }

  fwmark(): number {
    return this.#sockets.fwmark;
  }

  walk(): UapiPeerWalk {
    return this.#control.peers.walk();
  }

  publicKey(peer: number): Uint8Array {
    return this.#control.publicKeyOf(peer);
  }

  presharedKey(peer: number): Uint8Array {
    return this.#control.presharedKeyOf(peer);
  }

  endpoint(peer: number): UapiEndpoint | undefined {
    return this.#control.endpointOf(peer);
  }

  lastHandshakeMs(peer: number): number {
    return this.#control.lastHandshakeMs(peer);
  }

  txBytes(peer: number): number {
    return this.#control.txBytes(peer);
  }

  rxBytes(peer: number): number {
    return this.#control.rxBytes(peer);
  }

  persistentKeepalive(peer: number): number {
    return this.#control.persistentKeepaliveOf(peer);
  }

  allowedIps(
    peer: number,
    visit: (address: Uint8Array, cidr: number) => void,
  ): void {
    const { allowedIps } = this.#control;
    const prefix = new Uint8Array(16);
    for (
      let node = allowedIps.first(peer);
      node !== 0;
      node = allowedIps.next(node)
    ) {
      const length = allowedIps.prefixOf(node, prefix);
      visit(prefix.subarray(0, length), allowedIps.cidrOf(node));
    }
  }

  *stats(): Generator<readonly [string, number]> {
    for (const [name, count] of Object.entries(this.#stats.objects())) {
      yield [`objects.${name}`, count];
    }
    yield* Object.entries(this.#stats.counters());
  }

  scopeName(id: number): string {
    const name = new Uint8Array(IF_NAMESIZE);
    if (libc().if_indextoname(id, name) === null) return String(id);
    return new TextDecoder().decode(name.subarray(0, name.indexOf(0)));
  }
}

/** Error number that answers a request that failed. */
function errnoOf(error: unknown): number {
  if (error instanceof SysError) return error.errno;
  const number = errno();
  return number === 0 ? ERRNO.EIO : number;
}
