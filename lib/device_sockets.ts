/**
 * What of a device follows the system: its sockets, which are open while the
 * link is up, port and mark, the link's state wherever the interface is, and
 * sticky sources when routes change (kernel: `socket.c`, `wg_open`, `wg_stop`,
 * `wg_netns_pre_exit`).
 *
 * The sockets stay in the namespace in which the device was made. When that
 * namespace is gone, they are closed, and the interface has no carrier any more.
 *
 * @module
 */
import { type Arena, HEADER } from "./arena.ts";
import type { Control } from "./control.ts";
import type { PlainDatagrams } from "./datagrams_plain.ts";
import { setFloodFilter } from "./flood_filter.ts";
import type { FloodLevels } from "./handshake.ts";
import { formatIp } from "./ip.ts";
import type { Log } from "./log.ts";
import {
  closeSockets,
  openSockets,
  setMark,
  type UdpSockets,
} from "./socket.ts";
import { RouteAnswers } from "./routes.ts";
import { Sources } from "./sources.ts";
import { closeDescriptor } from "./sys/descriptors.ts";
import { bootMs, cString, ERRNO, libc, SysError } from "./sys/libc.ts";
import { LinkWatch } from "./sys/link.ts";
import { openNotices, RTMGRP } from "./sys/netlink.ts";
import type { NetnsId } from "./sys/netns.ts";
import { pause } from "./sys/turn.ts";
import { Routes } from "./sys/route.ts";
import { setCarrier, tunName } from "./tun.ts";
import type { SocketSettings } from "./uapi_device.ts";

const SWITCH_TIMEOUT_MS = 2_000;
/** When the link is up and its sockets could not be opened: after so long again. */
const LINK_RETRY_MS = 1_000;
/** A routing loop is told of at most this often. */
const LOOP_TOLD_MS = 10_000;
const FLOOD_TOLD_MS = 60_000;
const ROUTE_GROUPS = RTMGRP.IPV4_ADDRESS | RTMGRP.IPV4_ROUTE |
  RTMGRP.IPV4_RULE | RTMGRP.IPV6_ADDRESS | RTMGRP.IPV6_ROUTE |
  RTMGRP.IPV6_RULE;

/** What {@link DeviceSockets} works with. */
export interface DeviceSocketsOptions {
  readonly arena: Arena;
  readonly tunFd: number;
  readonly plain: PlainDatagrams | undefined;
  /** Whether to send and receive many datagrams in one message. */
  readonly segments: boolean;
  readonly log: Log;
  /** Wakes the data workers. */
  readonly wakeWorkers: () => void;
  /** Called when the interface is seen in another namespace. */
  readonly moved: () => void;
  /** Wakes control. */
  readonly wakeControl: () => void;
}

/** The sockets and the link of one device. */
export class DeviceSockets implements SocketSettings {
  /** Readable when some link changed. */
  readonly linkFd: number;
  /** Readable when addresses, routes or rules changed. */
  readonly routesFd: number;
  readonly #o: DeviceSocketsOptions;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #links: LinkWatch;
  readonly #routes: Routes;
  readonly #answers: RouteAnswers;
  #loopToldMs = -Infinity;
  #linkTold: string | undefined;
  #linkRetry: ReturnType<typeof setTimeout> | undefined;
  /** What the sockets' filter was made for; none: they have no filter. */
  #floodLevels: FloodLevels | undefined;
  #floodToldMs = -Infinity;
  readonly #cleanup: DisposableStack;
  #control: Control | undefined;
  #sources: Sources | undefined;
  #sockets: UdpSockets | undefined;
  #changing: Promise<void> = Promise.resolve();
  #port = 0;
  #fwmark = 0;
  #closing = false;
  #abandoned = false;
  #netns: NetnsId;

  /** Watches the namespace that the calling thread is in. @throws SysError */
  constructor(options: DeviceSocketsOptions) {
    this.#o = options;
    this.#i32 = options.arena.i32;
    using undo = new DisposableStack();
    this.#links = new LinkWatch(options.tunFd);
    undo.defer(() => this.#links.close());
    this.#netns = this.#links.home;
    this.linkFd = this.#links.fd;
    this.#routes = new Routes();
    undo.defer(() => this.#routes.close());
    this.#answers = new RouteAnswers(options.arena, {
      mtu: (destination) =>
        this.#routes.mtuBy(destination, this.#interfaceIndex()),
      isLoop: (destination, source) => this.#isLoop(destination, source),
    });
    this.routesFd = openNotices(ROUTE_GROUPS);
    undo.defer(() => closeDescriptor(this.routesFd));
    this.#cleanup = undo.move();
  }

  /** Called once, when there is control. */
  attach(control: Control): void {
    this.#control = control;
    this.#sources = new Sources(
      this.#o.arena,
      control.peers,
      this.#routes,
      HEADER.SCRATCH_ENDPOINT,
    );
  }

  get #attached(): Control {
    if (this.#control === undefined) throw new Error("no control yet");
    return this.#control;
  }

  /** The namespace that the sockets are in. */
  get home(): NetnsId {
    return this.#links.home;
  }

  /** The namespace that the interface was seen in last. */
  get interfaceNetns(): NetnsId {
    return this.#netns;
  }

  // ---- changes of the system ----------------------------------------------

  /** Part of control's turn. @returns whether there is more to do now */
  step(): boolean {
    if (Atomics.exchange(this.#i32, HEADER.LINK_CHANGED, 0) === 1) {
      this.#linkChanged();
    }
    if (Atomics.exchange(this.#i32, HEADER.ROUTES_CHANGED, 0) === 1) {
      this.#sources?.changed();
      this.#answers.forget();
    }
    this.#followFlood();
    const looped = this.#answers.step();
    if (looped !== undefined) this.#tellLoop(looped);
    return this.#sources?.step(bootMs(), this.#fwmark) ?? false;
  }

  /** Has the sockets drop as much of a flood as control cannot check. */
  #followFlood(): void {
    const sockets = this.#sockets;
    const levels = this.#control?.floodLevels;
    if (sockets === undefined || levels === undefined) return;
    const [first, held] = this.#floodLevels ?? [0, 0];
    if (levels[0] === first && levels[1] === held) return;
    const before = first + held;
    const after = levels[0] + levels[1];
    this.#floodLevels = levels;
    if (before === 0 && bootMs() - this.#floodToldMs >= FLOOD_TOLD_MS) {
      this.#floodToldMs = bootMs();
      this.#o.log.error(
        "a flood of handshake messages: some of them are dropped unread",
      );
    } else if (after === 0) {
      this.#o.log.verbose("the flood of handshake messages is over");
    }
    if (this.#o.plain !== undefined) return;
    try {
      setFloodFilter(sockets, levels);
    } catch (error) {
      this.#o.log.error(error instanceof Error ? error.message : `${error}`);
    }
  }

  /** The interface's number where the sockets are; 0: it is elsewhere. */
  #interfaceIndex(): number {
    if (this.#netns !== this.#links.home) return 0;
    const name = tunName(this.#o.tunFd);
    return name === undefined ? 0 : libc().if_nametoindex(cString(name));
  }

  /** Whether what our socket sends there goes into the interface itself. */
  #isLoop(destination: Uint8Array, source: Uint8Array): boolean {
    const index = this.#interfaceIndex();
    if (index === 0 || !this.#routes.isLocal(source)) return false;
    const from = source.length === destination.length ? source : undefined;
    return this.#routes.leavesBy(destination, from, this.#fwmark) === index;
  }

  #tellLoop(destination: Uint8Array): void {
    const nowMs = bootMs();
    if (nowMs - this.#loopToldMs < LOOP_TOLD_MS) return;
    this.#loopToldMs = nowMs;
    this.#o.log.error(
      `routing loop: the route to the endpoint ${formatIp(destination)} ` +
        "leads into the interface itself; what goes there is dropped",
    );
  }

  /** Milliseconds until `step` has something to do. */
  sleepMs(): number {
    return this.#sources?.sleepMs(bootMs()) ?? Infinity;
  }

  #linkChanged(): void {
    // One that fails tries again: there is never more than one that waits.
    clearTimeout(this.#linkRetry);
    this.followLink().then(
      () => this.#linkTold = undefined,
      (error: Error) => this.#linkFailed(error.message),
    );
  }

  /** As a rule another program has the port: it is told of once. */
  #linkFailed(reason: string): void {
    if (reason !== this.#linkTold) this.#o.log.error(reason);
    this.#linkTold = reason;
    if (this.#closing) return;
    clearTimeout(this.#linkRetry);
    this.#linkRetry = setTimeout(() => this.#linkChanged(), LINK_RETRY_MS);
  }

  /** Takes up the link's state, one change at a time. */
  followLink(): Promise<void> {
    clearTimeout(this.#linkRetry);
    return this.#inTurn(() => this.#takeLinkState());
  }

  /** MTU, and sockets while the link is up. */
  async #takeLinkState(): Promise<void> {
    const name = tunName(this.#o.tunFd);
    if (name === undefined || this.#closing) return;
    // None of this name: it is being moved or renamed, and a notice will come.
    const state = this.#links.state(name);
    if (state === undefined) return;
    this.#i32[HEADER.MTU] = state.mtu;
    if (state.netns !== this.#netns) {
      this.#netns = state.netns;
      const home = state.netns === this.#links.home;
      this.#o.log.verbose(
        home
          ? "interface moved back to the sockets' namespace"
          : "interface moved to another namespace",
      );
      this.#o.moved();
    }
    if (this.#abandoned) return;
    if (state.up === (this.#i32[HEADER.UP] === 1)) return;
    if (state.up) {
      await this.#attached.settled();
      const sockets = this.#openSockets(this.#port);
      // Up in the same turn: what comes in at once must find control awake.
      await this.#replaceSockets(sockets, () => this.#attached.up());
    } else {
      this.#attached.down();
      await this.#replaceSockets(undefined);
    }
    this.#o.log.verbose(state.up ? "interface up" : "interface down");
    this.#o.wakeControl();
  }

  /** Called when the sockets' namespace is gone. */
  abandon(): Promise<void> {
    return this.#inTurn(async () => {
      if (this.#abandoned || this.#closing) return;
      this.#abandoned = true;
      setCarrier(this.#o.tunFd, false);
      this.#attached.down();
      await this.#replaceSockets(undefined);
      this.#attached.clearSources();
      this.#o.wakeControl();
    });
  }

  // ---- settings -----------------------------------------------------------

  /** Port listened on, or to be when the interface comes up. 0: any. */
  get listenPort(): number {
    return this.#port;
  }

  /** See {@link SocketSettings}. */
  get fwmark(): number {
    return this.#fwmark;
  }

  /** See {@link SocketSettings}. */
  async setListenPort(port: number): Promise<void> {
    if (port === this.#port && port !== 0) return;
    this.#refuseAbandoned("listen port");
    // The link may go down before it is this change's turn.
    await this.#inTurn(async () => {
      if (this.#closing) return;
      if (this.#i32[HEADER.UP] === 0) {
        this.#port = port;
        // It may be up already, and only the port before was in use.
        return await this.#takeLinkState();
      }
      await this.#replaceSockets(this.#openSockets(port));
      this.#attached.clearSources();
    });
  }

  /** See {@link SocketSettings}. */
  setFwmark(mark: number): void {
    if (mark !== this.#fwmark) this.#refuseAbandoned("fwmark");
    if (mark !== 0 && this.#o.plain !== undefined) {
      throw new SysError("fwmark with plain datagrams", ERRNO.EOPNOTSUPP);
    }
    if (this.#sockets !== undefined) setMark(this.#sockets, mark);
    if (mark !== this.#fwmark) this.#attached.clearSources();
    this.#fwmark = mark;
    this.#answers.forget();
  }

  /** As the kernel's driver, whose rights end with the namespace. */
  #refuseAbandoned(what: string): void {
    if (!this.#abandoned) return;
    throw new SysError(`${what}: the sockets' namespace is gone`, ERRNO.EPERM);
  }

  #openSockets(port: number): UdpSockets {
    if (this.#o.plain !== undefined) {
      return { v6: -1, v4: -1, port: this.#o.plain.open(port) };
    }
    return openSockets(port, this.#fwmark, this.#o.segments);
  }

  /** Runs changes of link and sockets one after the other. */
  #inTurn(change: () => Promise<void>): Promise<void> {
    const next = this.#changing.then(change);
    this.#changing = next.catch(() => {});
    return next;
  }

  /**
   * Puts new sockets, or none, in place of the present ones, which are closed
   * once no worker uses them.
   *
   * @param published called in the same turn, before the workers are told
   */
  async #replaceSockets(
    sockets: UdpSockets | undefined,
    published: () => void = () => {},
  ): Promise<void> {
    const i32 = this.#i32;
    const old = this.#sockets;
    this.#sockets = sockets;
    this.#floodLevels = undefined;
    if (sockets !== undefined) this.#port = sockets.port;
    else this.#o.plain?.close();
    i32[HEADER.SOCKET_FD] = sockets?.v6 ?? -1;
    i32[HEADER.SOCKET_FD + 1] = sockets?.v4 ?? -1;
    i32[HEADER.LISTEN_PORT] = sockets?.port ?? 0;
    this.#answers.forget();
    published();
    const generation = Atomics.add(i32, HEADER.SOCKETS_GENERATION, 1) + 1;
    this.#o.wakeWorkers();
    const taken = (): boolean =>
      Atomics.load(i32, HEADER.OUTBOUND_SOCKETS) === generation &&
      Atomics.load(i32, HEADER.INBOUND_SOCKETS) === generation;
    const giveUpMs = bootMs() + SWITCH_TIMEOUT_MS;
    while (!taken() && !this.#closing && bootMs() < giveUpMs) {
      await pause(1);
    }
    if (old !== undefined) closeSockets(old);
    await this.#o.plain?.settled();
  }

  // ---- the end ------------------------------------------------------------

  /** Called first at the end: nothing is followed any more. */
  stop(): void {
    this.#closing = true;
    clearTimeout(this.#linkRetry);
    this.#sources?.close();
  }

  /** Closes all once no worker uses it, and no change is under way. */
  async close(): Promise<void> {
    await this.#changing;
    if (this.#sockets !== undefined) closeSockets(this.#sockets);
    this.#sockets = undefined;
    this.#o.plain?.close();
    this.#cleanup.dispose();
  }
}
