/**
 * Life of one interface (kernel: `device.c`, `main.c`): TUN, arena, workers,
 * sockets, control's loop and the UAPI socket are made in this order and given
 * back in reverse, also when a step fails.
 *
 * @module
 */
import { Arena, type ArenaLimits, HEADER } from "./arena.ts";
import { Control } from "./control.ts";
import type { ObjectCounts } from "./parts.ts";
import type { TimestampFloor } from "./tai64n.ts";
import { type CounterName, readCounters } from "./counters.ts";
import type { AeadChoice } from "./crypto/aead.ts";
import { PlainDatagrams } from "./datagrams_plain.ts";
import { type NetnsWatch, watchNetns } from "./device_netns.ts";
import { DeviceSockets } from "./device_sockets.ts";
import { DeviceThreads } from "./device_threads.ts";
import { dropControlRights, hardenArena } from "./harden.ts";
import { listenUapi, serveUapiFd, type UapiServer } from "./ipc.ts";
import type { Log } from "./log.ts";
import { DEFAULT_MTU, PRIVATE_KEY_LEN } from "./messages.ts";
import { Waker } from "./queueing.ts";
import { Suspends } from "./suspends.ts";
import { descriptorsOpen } from "./sys/descriptors.ts";
import { secretRoom } from "./sys/harden.ts";
import { bootMs, libc, suspendedMs, wallMs } from "./sys/libc.ts";
import { setMtu } from "./sys/link.ts";
import { setLinkDefaults } from "./sys/link_defaults.ts";
import { enterNetns, inNetns, openNetns } from "./sys/netns.ts";
import { nextTurn, pause } from "./sys/turn.ts";
import {
  adoptTun,
  closeTun,
  createTun,
  createTunIn,
  type TunHandle,
} from "./tun.ts";
import { serveUapi, type UapiConnection } from "./uapi.ts";
import { UapiDevice } from "./uapi_device.ts";

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
  /**
   * Network namespace for the interface, by its name or path; else this
   * thread's, as for the sockets.
   */
  readonly netns?: string;
  /** Network namespace for the sockets. This thread goes into it for good. */
  readonly socketNetns?: string;
  /**
   * Whether to take its memory out of dumps and swap space, and to give up the
   * rights that it needs no more, of this thread and its own.
   */
  readonly harden?: boolean;
  /** Keeps timestamps growing over restarts. */
  readonly timestamps?: TimestampFloor;
  /** How many peers, routes and sessions there is room for. */
  readonly limits?: ArenaLimits;
  /** Where errors and events are told. */
  readonly log: Log;
}

/** Live objects of a device: all zero once it is closed. */
export interface DeviceObjects extends ObjectCounts {
  /** 1 until it is closed. */
  readonly devices: number;
  /** Slots that hold packets. */
  readonly slots: number;
  /** Chains that are filled, under way or delivered. */
  readonly chains: number;
  /** Data workers and lanes. */
  readonly workers: number;
  /** Descriptors of TUN, sockets, watches and wake-ups, of the whole process. */
  readonly descriptors: number;
}

/** Why a device ended. */
export type EndReason =
  | "closed"
  | "interface removed"
  | "namespace removed"
  | "UAPI socket removed"
  | "worker failed";

const LET_GO_TIMEOUT_MS = 2_000;
/** How long control leaves a flood's messages to gather. */
const FLOOD_NAP_MS = 5;

/** A running device. */
export class Device {
  /** Name that the interface was made with. */
  readonly name: string;
  readonly #control: Control;
  readonly #arena: Arena;
  readonly #options: DeviceOptions;
  readonly #log: Log;
  readonly #tun: TunHandle;
  readonly #sockets: DeviceSockets;
  readonly #threads: DeviceThreads;
  readonly #plain: PlainDatagrams | undefined;
  readonly #suspends = new Suspends(suspendedMs);
  readonly #cleanup = new AsyncDisposableStack();
  readonly #ended = Promise.withResolvers<EndReason>();
  #netnsWatch: NetnsWatch | undefined;
  #server: UapiServer | undefined;
  #failed = false;
  #closing = false;
  #closed = false;

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
    const segments = offload === "auto" || offload === "udp";
    using undo = new DisposableStack();
    this.#tun = makeTun(options);
    undo.defer(() => closeTun(this.#tun));
    this.name = this.#tun.name;
    if (options.socketNetns !== undefined) enterForGood(options.socketNetns);
    this.#arena = Arena.reserve(options.limits);
    this.#arena.i32.fill(
      -1,
      HEADER.SOCKET_FD,
      HEADER.SOCKET_FD + HEADER.SOCKET_FD_COUNT,
    );
    if (options.harden) this.#tellMissing(hardenArena(this.#arena));
    this.#arena.i32[HEADER.MTU] = DEFAULT_MTU;
    this.#arena.i32[HEADER.RUNNING] = 1;
    this.#plain = options.datagrams === "plain"
      ? new PlainDatagrams(this.#arena, () => this.#threads.wakeOutbound())
      : undefined;
    this.#threads = new DeviceThreads({
      arena: this.#arena,
      tun: this.#tun,
      threads: options.threads,
      lanes: options.lanes,
      crypto: options.crypto,
      segments,
      harden: options.harden ?? false,
      log: this.#log,
      failed: (reason) => this.#workerFailed(reason),
    }, this.#plain !== undefined);
    undo.defer(() => this.#threads.close());
    this.#sockets = new DeviceSockets({
      arena: this.#arena,
      tunFd: this.#tun.fds[0],
      plain: this.#plain,
      segments,
      log: this.#log,
      wakeWorkers: () => this.#threads.wake(),
      moved: () => this.#netnsWatch?.look(),
      wakeControl: () => this.#wakeControl(),
    });
    this.#control = new Control({
      arena: this.#arena,
      fillRandom: (bytes) => crypto.getRandomValues(bytes),
      wallMs,
      nowMs: bootMs,
      timestamps: options.timestamps,
      privateKeyRoom: options.harden ? secretRoom(PRIVATE_KEY_LEN) : undefined,
      outbound: new Waker(
        this.#arena,
        HEADER.OUTBOUND_SLEEPS,
        () => this.#threads.wakeOutbound(),
      ),
      more: () => this.#wakeControl(),
    });
    this.#sockets.attach(this.#control);
    this.#cleanup.defer(() => this.#server?.remove());
    this.#cleanup.adopt(undo.move(), (stack) => stack.dispose());
    this.#cleanup.defer(() => this.#sockets.close());
  }

  /** Resolves with the reason when the device ends by itself or is closed. */
  get ended(): Promise<EndReason> {
    return this.#ended.promise;
  }

  /** Live objects. */
  objects(): DeviceObjects {
    return {
      devices: this.#closed ? 0 : 1,
      ...this.#packetObjects(),
      workers: this.#threads.count,
      descriptors: descriptorsOpen(),
    };
  }

  /** Those that workers and control let go of. */
  #packetObjects(): ObjectCounts & { slots: number; chains: number } {
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
    this.#cleanup.defer(() => this.#stopThreads());
    const threads = this.#threads.start({
      linkFd: this.#sockets.linkFd,
      routesFd: this.#sockets.routesFd,
      plain: this.#plain,
    });
    // What fails first is told; this is waited for below.
    threads.catch(() => {});
    this.#runControl();
    await this.#sockets.followLink();
    this.#watchNetns();
    await threads;
    const server = await this.#listen();
    this.#server = server;
    this.#cleanup.defer(() => server.stop());
    server.removed.then(() => this.#ended.resolve("UAPI socket removed"));
    if (this.#options.harden) this.#tellMissing(dropControlRights());
    this.#log.verbose("interface created");
  }

  /** What of the hardening this system does not do. */
  #tellMissing(missing: readonly string[]): void {
    for (const what of missing) this.#log.verbose(what);
  }

  #listen(): Promise<UapiServer> {
    const uapi = new UapiDevice(this.#control, this.#sockets, {
      objects: () => this.objects(),
      counters: () => this.counters(),
    }, {
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

  /** Follows the life of the namespaces of sockets and interface. */
  #watchNetns(): void {
    const watch = watchNetns({
      home: this.#sockets.home,
      interfaceNetns: () => this.#sockets.interfaceNetns,
      abandoned: async (): Promise<void> => {
        this.#log.error(
          "the sockets' network namespace is gone: sockets closed",
        );
        await this.#sockets.abandon();
      },
      unreachable: () => this.#ended.resolve("namespace removed"),
      report: (error) => this.#log.error(error.message),
    });
    this.#netnsWatch = watch;
    this.#cleanup.defer(() => watch.close());
  }

  // ---- threads ------------------------------------------------------------

  #workerFailed(reason: string): void {
    this.#failed = true;
    this.#log.error(reason);
    this.#ended.resolve("worker failed");
  }

  async #stopThreads(): Promise<void> {
    Atomics.store(this.#arena.i32, HEADER.RUNNING, 0);
    this.#wakeControl();
    await this.#threads.stop();
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
        // Nobody wakes it meanwhile: a flood's messages are handled together.
        await (this.#control.flooded ? pause(FLOOD_NAP_MS) : nextTurn());
        continue;
      }
      const wait = Atomics.waitAsync(
        i32,
        HEADER.CONTROL_WAKE,
        wake,
        Math.min(this.#control.sleepMs(), this.#sockets.sleepMs()),
      );
      if (wait.async) await wait.value;
    }
  }

  #controlTurn(): boolean {
    if (this.#arena.i32[HEADER.TUN_GONE] === 1) {
      this.#ended.resolve("interface removed");
    }
    if (this.#suspends.happened()) {
      this.#log.verbose("the machine was suspended: keys wiped");
      this.#control.suspended();
    }
    const more = this.#sockets.step();
    return this.#control.pump() || more;
  }

  /** Ends control's sleep: something changed that it decides on. */
  #wakeControl(): void {
    Atomics.add(this.#arena.i32, HEADER.CONTROL_WAKE, 1);
    Atomics.notify(this.#arena.i32, HEADER.CONTROL_WAKE);
  }

  // ---- the end ------------------------------------------------------------

  /** Ends the device; the interface goes with its descriptor. */
  async close(): Promise<void> {
    if (this.#closing) return;
    this.#closing = true;
    this.#ended.resolve("closed");
    this.#sockets.stop();
    this.#control.close();
    // A worker that failed will never let go of anything.
    if (!this.#failed) await this.#letGo();
    await this.#cleanup.disposeAsync();
    this.#closed = true;
    this.#log.verbose("interface closed");
  }

  /** Waits until the workers hold nothing of the device and all keys are wiped. */
  async #letGo(): Promise<void> {
    const isEmpty = (): boolean =>
      Object.values(this.#packetObjects()).every((count) => count === 0);
    const giveUpMs = bootMs() + LET_GO_TIMEOUT_MS;
    while (!isEmpty() && !this.#failed && bootMs() < giveUpMs) {
      this.#control.pump();
      await pause(1);
    }
    const left = JSON.stringify(this.#packetObjects());
    if (!isEmpty()) this.#log.error(`objects left: ${left}`);
  }
}

/** Opens the TUN, in the namespace that is asked for. */
function makeTun(options: DeviceOptions): TunHandle {
  const { name, tunFd, netns, offload = "auto" } = options;
  const whole = offload === "auto" || offload === "tun";
  if (tunFd !== undefined) return adoptTun(tunFd, whole);
  const queues = options.queues ?? 1;
  const tun = netns === undefined
    ? createTun(name, whole, queues)
    : createTunIn(netns, name, whole, queues);
  const setUp = (): void => {
    setMtu(tun.name, DEFAULT_MTU);
    for (const what of setLinkDefaults(tun.name)) options.log.verbose(what);
  };
  try {
    if (netns === undefined) setUp();
    else inNetns(netns, setUp);
    return tun;
  } catch (error) {
    closeTun(tun);
    throw error;
  }
}

function enterForGood(netns: string): void {
  const fd = openNetns(netns);
  try {
    enterNetns(fd, netns);
  } finally {
    libc().close(fd);
  }
}
