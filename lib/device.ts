/**
 * Life of one interface (kernel: `device.c`, `main.c`): TUN, arena, workers,
 * sockets, control's loop and the UAPI socket are made in this order and given
 * back in reverse, also when a step fails.
 *
 * @module
 */
import { Arena, type ArenaLimits, HEADER } from "./arena.ts";
import { Control, type ObjectCounts } from "./control.ts";
import { type CounterName, readCounters } from "./counters.ts";
import { chooseAead, type ChosenAead } from "./aead_choice.ts";
import type { AeadChoice } from "./crypto/aead.ts";
import { PlainDatagrams } from "./datagrams_plain.ts";
import { listenUapi, serveUapiFd, type UapiServer } from "./ipc.ts";
import type { Log } from "./log.ts";
import { Loop, type LoopOptions, type Role } from "./loop.ts";
import { DEFAULT_MTU } from "./messages.ts";
import { Waker } from "./queueing.ts";
import {
  closeSockets,
  openSockets,
  setMark,
  type UdpSockets,
} from "./socket.ts";
import {
  bootMs,
  check,
  ERRNO,
  libc,
  signalEvent,
  SysError,
  wallMs,
} from "./sys/libc.ts";
import { LinkWatch } from "./sys/link.ts";
import { nextTurn } from "./sys/turn.ts";
import {
  adoptTun,
  closeTun,
  createTun,
  type TunHandle,
  tunName,
} from "./tun.ts";
import { serveUapi, type UapiConnection } from "./uapi.ts";
import { type SocketSettings, UapiDevice } from "./uapi_device.ts";
import { Lanes, startWorker, within } from "./workers.ts";

/** How datagrams are moved. */
export type DatagramChoice = "batched" | "plain";

/** Which super-packets are used: of the TUN (TSO, USO), of UDP (GSO, GRO). */
export type OffloadChoice = "auto" | "tun" | "udp" | "none";

/** How a device is made. */
export interface DeviceOptions {
  /** Name of the interface to create; ignored with `tunFd`. */
  readonly name: string;
  /** TUN descriptor opened by somebody else. */
  readonly tunFd?: number;
  /** Listening UAPI descriptor opened by somebody else. */
  readonly uapiFd?: number;
  /** Data threads: 0 works on this one, 1 one for both directions, 2 one each. */
  readonly threads?: number;
  /** Workers that help the data threads to seal and open; 0: none. */
  readonly lanes?: number;
  /** Queues of the TUN; ignored with `tunFd`. One unless told otherwise. */
  readonly queues?: number;
  /** What seals and opens packets. */
  readonly crypto?: AeadChoice;
  /** How datagrams are moved. */
  readonly datagrams?: DatagramChoice;
  /** Which super-packets are used. */
  readonly offload?: OffloadChoice;
  /** How many peers, routes and sessions there is room for. */
  readonly limits?: ArenaLimits;
  /** Where errors and events are told. */
  readonly log: Log;
}

/** Live objects of a device: all zero once it is closed. */
export interface DeviceObjects extends ObjectCounts {
  /** Slots that hold packets. */
  readonly slots: number;
  /** Chains that are filled, under way or delivered. */
  readonly chains: number;
}

/** Why a device ended. */
export type EndReason =
  | "closed"
  | "interface removed"
  | "UAPI socket removed"
  | "worker failed";

const EFD_NONBLOCK = 0x800;
const EFD_CLOEXEC = 0x80000;
const SWITCH_TIMEOUT_MS = 2_000;
const STOP_TIMEOUT_MS = 2_000;
const CORES_FOR_TWO_THREADS = 4;
/** Cores that are left to the data threads, and most lanes of a device by itself. */
const CORES_WITHOUT_LANES = 2;
const LANES_DEFAULT_MAX = 8;

/** A running device. */
export class Device implements SocketSettings {
  /** Name that the interface was made with. */
  readonly name: string;
  readonly #control: Control;
  readonly #arena: Arena;
  readonly #options: DeviceOptions;
  readonly #log: Log;
  readonly #tun: TunHandle;
  readonly #segments: boolean;
  readonly #links: LinkWatch;
  readonly #cleanup = new AsyncDisposableStack();
  readonly #events: number[] = [];
  readonly #plain: PlainDatagrams | undefined;
  readonly #lanes: Lanes;
  #chosen: ChosenAead | undefined;
  readonly #ended = Promise.withResolvers<EndReason>();
  readonly #workers: Promise<void>[] = [];
  #sockets: UdpSockets | undefined;
  #changing: Promise<void> = Promise.resolve();
  #port = 0;
  #fwmark = 0;
  #closing = false;

  /**
   * Makes the interface and starts to serve it.
   *
   * @throws TunError, SysError
   */
  static async start(options: DeviceOptions): Promise<Device> {
    const device = new Device(options);
    try {
      await device.#start();
      return device;
    } catch (error) {
      await device.close();
      throw error;
    }
  }

  private constructor(options: DeviceOptions) {
    this.#options = options;
    this.#log = options.log;
    const { offload = "auto" } = options;
    this.#segments = offload === "auto" || offload === "udp";
    using undo = new DisposableStack();
    this.#tun = options.tunFd === undefined
      ? createTun(
        options.name,
        offload === "auto" || offload === "tun",
        options.queues ?? 1,
      )
      : adoptTun(options.tunFd);
    undo.defer(() => closeTun(this.#tun));
    this.name = this.#tun.name;
    this.#links = new LinkWatch();
    undo.defer(() => this.#links.close());
    this.#arena = Arena.reserve(options.limits);
    this.#arena.i32.fill(
      -1,
      HEADER.SOCKET_FD,
      HEADER.SOCKET_FD + HEADER.SOCKET_FD_COUNT,
    );
    this.#arena.i32[HEADER.MTU] = DEFAULT_MTU;
    this.#arena.i32[HEADER.RUNNING] = 1;
    for (let i = 0; i < 2; i++) {
      const fd = check(
        libc().eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC),
        "eventfd",
      );
      undo.defer(() => void libc().close(fd));
      this.#events.push(fd);
    }
    this.#plain = options.datagrams === "plain"
      ? new PlainDatagrams(this.#arena, () => this.#signal(0))
      : undefined;
    const twoThreads = this.#threads === 2;
    this.#lanes = new Lanes(this.#arena, () => ({
      crypto: this.#crypto,
      outboundFd: this.#events[0],
      inboundFd: this.#events[twoThreads ? 1 : 0],
    }), this.#log);
    this.#control = new Control({
      arena: this.#arena,
      fillRandom: (bytes) => crypto.getRandomValues(bytes),
      wallMs,
      nowMs: bootMs,
      outbound: new Waker(
        this.#arena,
        HEADER.OUTBOUND_SLEEPS,
        () => this.#signal(0),
      ),
      more: () => this.#wakeControl(),
    });
    this.#cleanup.adopt(undo.move(), (stack) => stack.dispose());
  }

  /** Resolves with the reason when the device ends by itself or is closed. */
  get ended(): Promise<EndReason> {
    return this.#ended.promise;
  }

  /** Live objects. */
  objects(): DeviceObjects {
    const { i32 } = this.#arena;
    return {
      ...this.#control.objects(),
      slots: i32[HEADER.OUTBOUND_SLOTS] + i32[HEADER.INBOUND_SLOTS],
      chains: i32[HEADER.OUTBOUND_CHAINS] + i32[HEADER.INBOUND_CHAINS],
    };
  }

  /** What was dropped, and why. */
  counters(): Record<CounterName, number> {
    return readCounters(this.#arena);
  }

  async #start(): Promise<void> {
    if (this.#options.tunFd === undefined) {
      this.#links.setMtu(this.name, DEFAULT_MTU);
    }
    this.#cleanup.defer(() => this.#stopLoops());
    await this.#startLoops();
    this.#runControl();
    await this.#followLink();
    const server = await this.#listen();
    this.#cleanup.defer(() => server.close());
    server.removed.then(() => this.#ended.resolve("UAPI socket removed"));
    this.#log.verbose("interface created");
  }

  #listen(): Promise<UapiServer> {
    const uapi = new UapiDevice(this.#control, this, {
      wake: () => this.#wakeControl(),
      log: (line) => this.#log.verbose(line),
    });
    this.#cleanup.defer(() => uapi.close());
    const serve = async (connection: UapiConnection): Promise<void> => {
      await serveUapi(connection, uapi, uapi);
      this.#wakeControl();
    };
    const report = (error: unknown): void =>
      this.#log.error(
        `UAPI: ${error instanceof Error ? error.message : error}`,
      );
    const { uapiFd } = this.#options;
    return uapiFd === undefined
      ? listenUapi(this.name, serve, report)
      : Promise.resolve(serveUapiFd(uapiFd, serve, report));
  }

  // ---- threads ------------------------------------------------------------

  /** Chosen once, while the first worker starts. */
  get #crypto(): ChosenAead {
    if (this.#chosen === undefined) {
      this.#chosen = chooseAead(this.#options.crypto ?? "auto");
      const { name, reason } = this.#chosen;
      this.#log.verbose(`AEAD ${name}: ${reason}`);
    }
    return this.#chosen;
  }

  get #threads(): number {
    if (this.#plain !== undefined) return 0;
    return this.#options.threads ?? defaultThreads();
  }

  async #startLoops(): Promise<void> {
    const threads = this.#threads;
    const lanes = this.#options.lanes ?? defaultLanes();
    const roles: Role[] = threads === 2 ? ["outbound", "inbound"] : ["both"];
    for (const [i, role] of roles.entries()) {
      const options = (): LoopOptions => ({
        limits: this.#arena.limits,
        memory: this.#arena.memory,
        role,
        tun: { fds: this.#tun.fds, offloads: this.#tun.offloads },
        eventFd: this.#events[i],
        linkFd: this.#links.fd,
        crypto: this.#crypto,
        segments: this.#segments,
        lanes,
      });
      if (threads === 0) {
        const loop = new Loop(options(), this.#plain);
        this.#workers.push(loop.runAsync());
        continue;
      }
      const { started, ended } = startWorker(role, options, (reason) => {
        this.#log.error(`the ${role} worker failed: ${reason}`);
        this.#ended.resolve("worker failed");
      });
      this.#workers.push(ended);
      await started;
    }
    this.#lanes.start(lanes);
  }

  async #stopLoops(): Promise<void> {
    Atomics.store(this.#arena.i32, HEADER.RUNNING, 0);
    this.#wakeControl();
    for (const i of this.#events.keys()) this.#signal(i);
    const ended = Promise.all([...this.#workers, this.#lanes.stop()]);
    await within(ended, STOP_TIMEOUT_MS);
  }

  #signal(event: number): void {
    signalEvent(this.#events[event]);
  }

  // ---- control's loop -----------------------------------------------------

  async #runControl(): Promise<void> {
    const { i32 } = this.#arena;
    while (Atomics.load(i32, HEADER.RUNNING) === 1) {
      const wake = Atomics.load(i32, HEADER.CONTROL_WAKE);
      Atomics.store(i32, HEADER.CONTROL_SLEEPS, 1);
      const worked = this.#controlTurn();
      if (worked) {
        Atomics.store(i32, HEADER.CONTROL_SLEEPS, 0);
        await nextTurn();
        continue;
      }
      const ms = this.#control.sleepMs();
      const wait = Atomics.waitAsync(i32, HEADER.CONTROL_WAKE, wake, ms);
      if (wait.async) await wait.value;
    }
  }

  #controlTurn(): boolean {
    const { i32 } = this.#arena;
    if (Atomics.exchange(i32, HEADER.LINK_CHANGED, 0) === 1) {
      this.#followLink().catch((error) => this.#log.error(error.message));
    }
    if (i32[HEADER.TUN_GONE] === 1) this.#ended.resolve("interface removed");
    return this.#control.pump();
  }

  /** Ends control's sleep: something changed that it decides on. */
  #wakeControl(): void {
    Atomics.add(this.#arena.i32, HEADER.CONTROL_WAKE, 1);
    Atomics.notify(this.#arena.i32, HEADER.CONTROL_WAKE);
  }

  // ---- the interface's state ----------------------------------------------

  /** Takes up the link's state, one change at a time. */
  #followLink(): Promise<void> {
    return this.#inTurn(() => this.#takeLinkState());
  }

  /** MTU, and sockets while the link is up. */
  async #takeLinkState(): Promise<void> {
    const name = tunName(this.#tun.fds[0]);
    if (name === undefined) return;
    // Moved to another namespace: it stays as it was.
    const state = this.#links.state(name);
    if (state === undefined) return;
    this.#arena.i32[HEADER.MTU] = state.mtu;
    if (state.up === (this.#arena.i32[HEADER.UP] === 1)) return;
    if (state.up) {
      await this.#control.settled();
      const sockets = this.#openSockets(this.#port);
      // Up in the same turn: what comes in at once must find control awake.
      await this.#replaceSockets(sockets, () => this.#control.up());
    } else {
      this.#control.down();
      await this.#replaceSockets(undefined);
    }
    this.#log.verbose(state.up ? "interface up" : "interface down");
    this.#wakeControl();
  }

  // ---- sockets ------------------------------------------------------------

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
    if (this.#arena.i32[HEADER.UP] === 0) {
      this.#port = port;
      // The link may be up already, and only the port before was in use.
      return await this.#followLink();
    }
    await this.#inTurn(() => this.#replaceSockets(this.#openSockets(port)));
    this.#control.clearSources();
  }

  /** See {@link SocketSettings}. */
  setFwmark(mark: number): void {
    if (mark !== 0 && this.#plain !== undefined) {
      throw new SysError("fwmark with plain datagrams", ERRNO.EOPNOTSUPP);
    }
    if (this.#sockets !== undefined) setMark(this.#sockets, mark);
    if (mark !== this.#fwmark) this.#control.clearSources();
    this.#fwmark = mark;
  }

  #openSockets(port: number): UdpSockets {
    if (this.#plain !== undefined) {
      return { v6: -1, v4: -1, port: this.#plain.open(port) };
    }
    return openSockets(port, this.#fwmark, this.#segments);
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
    const { i32 } = this.#arena;
    const old = this.#sockets;
    this.#sockets = sockets;
    if (sockets !== undefined) this.#port = sockets.port;
    else this.#plain?.close();
    i32[HEADER.SOCKET_FD] = sockets?.v6 ?? -1;
    i32[HEADER.SOCKET_FD + 1] = sockets?.v4 ?? -1;
    published();
    const generation = Atomics.add(i32, HEADER.SOCKETS_GENERATION, 1) + 1;
    for (const i of this.#events.keys()) this.#signal(i);
    const taken = (): boolean =>
      Atomics.load(i32, HEADER.OUTBOUND_SOCKETS) === generation &&
      Atomics.load(i32, HEADER.INBOUND_SOCKETS) === generation;
    const giveUpMs = bootMs() + SWITCH_TIMEOUT_MS;
    while (!taken() && !this.#closing && bootMs() < giveUpMs) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    if (old !== undefined) closeSockets(old);
  }

  // ---- the end ------------------------------------------------------------

  /** Ends the device; the interface goes with its descriptor. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#ended.resolve("closed");
    this.#control.close();
    await this.#letGo();
    await this.#cleanup.disposeAsync();
    if (this.#sockets !== undefined) closeSockets(this.#sockets);
    this.#plain?.close();
    this.#log.verbose("interface closed");
  }

  /** Waits until the workers hold nothing of the device and all keys are wiped. */
  async #letGo(): Promise<void> {
    const giveUpMs = bootMs() + STOP_TIMEOUT_MS;
    while (!isEmpty(this.objects()) && bootMs() < giveUpMs) {
      this.#control.pump();
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    const left = JSON.stringify(this.objects());
    if (!isEmpty(this.objects())) this.#log.error(`objects left: ${left}`);
  }
}

/** Whether no object is left. */
function isEmpty(objects: DeviceObjects): boolean {
  return Object.values(objects).every((count) => count === 0);
}

/** One thread a direction only where the far ends have cores of their own. */
function defaultThreads(): number {
  return navigator.hardwareConcurrency >= CORES_FOR_TWO_THREADS ? 2 : 1;
}

/** As many as the data threads leave cores for. */
function defaultLanes(): number {
  const cores = navigator.hardwareConcurrency - CORES_WITHOUT_LANES;
  return Math.max(0, Math.min(cores, LANES_DEFAULT_MAX));
}
