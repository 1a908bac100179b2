/**
 * The threads of a device: data workers, or the loop on control's own thread,
 * and lanes; what wakes them, and what becomes of a device when one fails.
 *
 * @module
 */
import { type Arena, HEADER } from "./arena.ts";
import { chooseAead, type ChosenAead } from "./aead_choice.ts";
import type { AeadChoice } from "./crypto/aead.ts";
import type { PlainDatagrams } from "./datagrams_plain.ts";
import type { Log } from "./log.ts";
import type { LoopOptions, Role } from "./loop.ts";
import { Pulse, PULSE_LOOK_MS, type PulseThread, turnsOf } from "./pulse.ts";
import { closeDescriptor, opened } from "./sys/descriptors.ts";
import { libc, signalEvent } from "./sys/libc.ts";
import type { TunHandle } from "./tun.ts";
import { Lanes, startWorker } from "./workers.ts";

const EFD_NONBLOCK = 0x800;
const EFD_CLOEXEC = 0x80000;
const STOP_TIMEOUT_MS = 2_000;
const CORES_FOR_TWO_THREADS = 4;
/** Cores that are left to the data threads, and most lanes of a device by itself. */
const CORES_WITHOUT_LANES = 2;
const LANES_DEFAULT_MAX = 8;

/** What {@link DeviceThreads} works with. */
export interface DeviceThreadsOptions {
  readonly arena: Arena;
  readonly tun: TunHandle;
  /** Data threads: 0 works on this one, 1 one for both directions, 2 one each. */
  readonly threads?: number;
  readonly lanes?: number;
  readonly crypto?: AeadChoice;
  /** Whether to send and receive many datagrams in one message. */
  readonly segments: boolean;
  /** Whether the threads give up their rights. */
  readonly harden: boolean;
  readonly log: Log;
  /** Called when a data worker failed, or a thread hangs, with the reason. */
  readonly failed: (reason: string) => void;
}

/** Descriptors whose notices outbound takes, and where datagrams go. */
export interface DeviceThreadsParts {
  readonly linkFd: number;
  readonly routesFd: number;
  readonly plain: PlainDatagrams | undefined;
}

/** The threads of one device. */
export class DeviceThreads {
  readonly #o: DeviceThreadsOptions;
  readonly #events: number[] = [];
  readonly #workers: Promise<void>[] = [];
  readonly #lanes: Lanes;
  readonly #count: number;
  #running = 0;
  #looking: ReturnType<typeof setInterval> | undefined;
  #chosen: ChosenAead | undefined;

  /** @throws SysError */
  constructor(options: DeviceThreadsOptions, plain: boolean) {
    this.#o = options;
    this.#count = plain ? 0 : options.threads ?? defaultThreads();
    for (let i = 0; i < 2; i++) {
      this.#events.push(
        opened(libc().eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC), "eventfd"),
      );
    }
    this.#lanes = new Lanes(options.arena, () => ({
      crypto: this.#crypto,
      harden: options.harden,
      outboundFd: this.#events[0],
      inboundFd: this.#events[this.#count === 2 ? 1 : 0],
    }), options.log);
  }

  /** Workers that run, lanes included. */
  get count(): number {
    return this.#running + this.#lanes.count;
  }

  /** Wakes outbound. */
  wakeOutbound(): void {
    signalEvent(this.#events[0]);
  }

  /** Wakes both directions. */
  wake(): void {
    for (const fd of this.#events) signalEvent(fd);
  }

  /** Chosen once, while the first worker starts. */
  get #crypto(): ChosenAead {
    if (this.#chosen === undefined) {
      this.#chosen = chooseAead(this.#o.crypto ?? "auto");
      const { name, reason } = this.#chosen;
      this.#o.log.verbose(`AEAD ${name}: ${reason}`);
    }
    return this.#chosen;
  }

  /** Resolves when the data workers run. */
  async start(parts: DeviceThreadsParts): Promise<void> {
    const { arena, tun, segments } = this.#o;
    const lanes = this.#o.lanes ?? defaultLanes();
    const roles: Role[] = this.#count === 2
      ? ["outbound", "inbound"]
      : ["both"];
    const watched: PulseThread[] = [];
    const all: Promise<void>[] = [];
    for (const [i, role] of roles.entries()) {
      const options = (): LoopOptions => ({
        limits: arena.limits,
        memory: arena.memory,
        role,
        tun: { fds: tun.fds, offloads: tun.offloads },
        eventFd: this.#events[i],
        linkFd: parts.linkFd,
        routesFd: parts.routesFd,
        crypto: this.#crypto,
        segments,
        lanes,
        harden: this.#o.harden,
      });
      if (this.#count === 0) {
        // Else the code of the loop is the workers' alone.
        const { Loop } = await import("./loop.ts");
        const loop = new Loop(options(), parts.plain);
        this.#workers.push(loop.runAsync());
        continue;
      }
      const life = startWorker(
        role,
        options,
        (reason) => this.#o.failed(`the ${role} worker failed: ${reason}`),
      );
      this.#running++;
      this.#workers.push(life.ended.then(() => void this.#running--));
      all.push(life.started);
      watched.push({
        name: `${role} worker`,
        turn: () => turnsOf(arena, role),
        state: () => life.state(),
      });
    }
    await Promise.all(all);
    this.#lanes.start(lanes);
    this.#look([...watched, ...this.#lanes.pulse()]);
  }

  /** Looks at the threads from now on. */
  #look(threads: readonly PulseThread[]): void {
    const pulse = new Pulse(threads);
    this.#looking = setInterval(() => {
      const stuck = pulse.look(performance.now());
      if (stuck === undefined) return;
      clearInterval(this.#looking);
      this.#o.failed(`the ${stuck} is stuck`);
    }, PULSE_LOOK_MS);
  }

  /** Ends all threads; HEADER.RUNNING is cleared. */
  async stop(): Promise<void> {
    clearInterval(this.#looking);
    Atomics.store(this.#o.arena.i32, HEADER.RUNNING, 0);
    this.wake();
    const ended = Promise.all([...this.#workers, this.#lanes.stop()]);
    await within(ended, STOP_TIMEOUT_MS);
  }

  /** Closes what wakes them. */
  close(): void {
    for (const fd of this.#events) closeDescriptor(fd);
  }
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

/** Waits for `promise`, but not for ever. */
async function within(promise: Promise<unknown>, ms: number): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms);
  });
  await Promise.race([promise, timeout]);
  clearTimeout(timer);
}
