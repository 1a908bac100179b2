/**
 * The data workers' loop: outbound, inbound or both, driven by `poll` on the
 * TUN, the sockets, the link watch and an eventfd. It sleeps only when nothing
 * is left to do, and says so first, so that control signals at most once a
 * sleep.
 *
 * @module
 */
import { AllowedIpsReader } from "./allowedips.ts";
import {
  Arena,
  type ArenaLimits,
  HEADER,
  THREAD_INBOUND,
  THREAD_OUTBOUND,
  WORK_BYTES,
} from "./arena.ts";
import { bug } from "./assert.ts";
import { LaneWaker } from "./crypt.ts";
import { type ChosenAead, createDataAead } from "./aead_choice.ts";
import type { Aead } from "./crypto/aead.ts";
import { AEAD_WORK_BYTES } from "./crypto/aead.ts";
import { createChecksum } from "./crypto/checksum.ts";
import {
  BatchedReceiver,
  BatchedSender,
  DATAGRAMS_SCRATCH_BYTES,
} from "./datagrams.ts";
import type { DatagramReceiver, DatagramSender } from "./io.ts";
import { IndexReader } from "./peerlookup.ts";
import { turnsWord } from "./pulse.ts";
import { controlWaker } from "./queueing.ts";
import { Inbound } from "./receive.ts";
import { Outbound } from "./send.ts";
import { bootMs, ERRNO, errno, libc, SysError } from "./sys/libc.ts";
import { nextTurn } from "./sys/turn.ts";
import { Tun, type TunHandle } from "./tun.ts";

/** Sides that one loop drives. */
export type Role = "outbound" | "inbound" | "both";

/** What a data worker is started with; can be posted to it. */
export interface LoopOptions {
  readonly limits: ArenaLimits;
  readonly memory: WebAssembly.Memory;
  readonly role: Role;
  readonly tun: Pick<TunHandle, "fds" | "offloads">;
  /** Wakes this loop. */
  readonly eventFd: number;
  /** Readable when the state of some link changed; -1 where not watched. */
  readonly linkFd: number;
  /** Readable when addresses, routes or rules changed; -1 where not watched. */
  readonly routesFd: number;
  readonly crypto: ChosenAead;
  /** Whether to send and receive many datagrams in one message. */
  readonly segments: boolean;
  /** Lanes that help to seal and open. */
  readonly lanes: number;
  /** Whether a thread of its own gives up its rights. */
  readonly harden?: boolean;
}

/** Where the datagrams go, if not by system calls in batches. */
export interface Datagrams {
  readonly sender: DatagramSender;
  readonly receiver: DatagramReceiver;
}

/** Places in a thread's scratch area, in bytes; the AEAD's own comes first. */
const DATAGRAMS_AT = AEAD_WORK_BYTES;
const TUN_AT = DATAGRAMS_AT + DATAGRAMS_SCRATCH_BYTES;
bug(TUN_AT + Tun.SCRATCH_BYTES <= WORK_BYTES, "scratch areas fit");

const POLLIN = 1;
const POLLERR = 8;
const POLLFD_WORDS = 2;
const REVENTS_SHIFT = 16;
const EVENT = 0;
const LINK = 1;
const ROUTES = 2;
const SOCKET = 3;
/** The TUN's queues come last. */
const TUN = SOCKET + HEADER.SOCKET_FD_COUNT;

/** Batches before control, on the same thread, has its turn. */
const BATCHES_A_TURN = 4;

/** One data thread's work. */
export class Loop {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #options: LoopOptions;
  readonly #outbound: Outbound | undefined;
  readonly #inbound: Inbound | undefined;
  readonly #control;
  readonly #pollfds: Int32Array<ArrayBuffer>;
  readonly #drain = new Uint8Array(8192);
  readonly #plain: boolean;
  readonly #turns: number;
  readonly #aeads: Aead[] = [];
  #generation = -1;
  /** -1 once the interface is gone. */
  readonly #tunFds: number[];

  /** @param datagrams instead of `sendmmsg` and `recvmmsg` on the arena's sockets */
  constructor(options: LoopOptions, datagrams?: Datagrams) {
    const arena = new Arena(options.limits, options.memory);
    this.#i32 = arena.i32;
    this.#options = options;
    this.#turns = turnsWord(options.role);
    this.#tunFds = [...options.tun.fds];
    this.#pollfds = new Int32Array(
      (TUN + this.#tunFds.length) * POLLFD_WORDS,
    );
    this.#plain = datagrams !== undefined;
    this.#control = controlWaker(arena);
    const allowedIps = new AllowedIpsReader(arena);
    const lanes = new LaneWaker(arena, options.lanes);
    const parts = (thread: number) => ({
      arena,
      allowedIps,
      control: this.#control,
      tun: new Tun(arena, options.tun, arena.work(thread) + TUN_AT),
      checksum: createChecksum(arena.memory),
      aead: this.#aead(arena, thread),
      lanes,
    });
    const scratch = (thread: number) => arena.work(thread) + DATAGRAMS_AT;
    if (options.role !== "inbound") {
      const sender = datagrams?.sender ??
        new BatchedSender(arena, scratch(THREAD_OUTBOUND), options.segments);
      this.#outbound = new Outbound({ ...parts(THREAD_OUTBOUND), sender });
    }
    if (options.role !== "outbound") {
      const receiver = datagrams?.receiver ??
        new BatchedReceiver(arena, scratch(THREAD_INBOUND));
      const indexTable = new IndexReader(arena);
      this.#inbound = new Inbound({
        ...parts(THREAD_INBOUND),
        receiver,
        indexTable,
      });
    }
    for (let i = 0; i < this.#pollfdCount; i++) this.#watch(i, -1);
    this.#watch(EVENT, options.eventFd);
    if (this.#outbound !== undefined) {
      this.#watch(LINK, options.linkFd);
      this.#watch(ROUTES, options.routesFd);
    }
  }

  #aead(arena: Arena, thread: number): Aead {
    const { crypto } = this.#options;
    const aead = createDataAead(arena.memory, arena.work(thread), crypto);
    this.#aeads.push(aead);
    return aead;
  }

  /** Runs until control clears HEADER.RUNNING. Blocks the thread. */
  run(): void {
    while (this.#prepare()) {
      if (this.#pump() || !this.#maySleep()) continue;
      this.#polled(libc().poll(this.#pollfds, this.#pollfdCount, -1));
    }
    this.#close();
  }

  #close(): void {
    for (const aead of this.#aeads) aead.close?.();
  }

  /** The same on a thread that has more to do. */
  async runAsync(): Promise<void> {
    while (this.#prepare()) {
      if (this.#pump()) {
        for (let n = 1; n < BATCHES_A_TURN && this.#pump(); n++);
        await nextTurn();
        continue;
      }
      if (!this.#maySleep()) continue;
      this.#polled(
        await libc().pollAsync(this.#pollfds, this.#pollfdCount, -1),
      );
    }
    this.#close();
  }

  /** Takes up new sockets; false when the loop shall end. */
  #prepare(): boolean {
    const i32 = this.#i32;
    if (Atomics.load(i32, HEADER.RUNNING) === 0) return false;
    i32[this.#turns] = (i32[this.#turns] + 1) | 0;
    const generation = Atomics.load(i32, HEADER.SOCKETS_GENERATION);
    if (generation === this.#generation) return true;
    this.#generation = generation;
    if (this.#inbound !== undefined) {
      for (let i = 0; i < HEADER.SOCKET_FD_COUNT; i++) {
        this.#watch(SOCKET + i, this.#plain ? -1 : i32[HEADER.SOCKET_FD + i]);
      }
      Atomics.store(i32, HEADER.INBOUND_SOCKETS, generation);
    }
    if (this.#outbound !== undefined) {
      this.#tunFds.forEach((fd, i) => this.#watch(TUN + i, fd));
      Atomics.store(i32, HEADER.OUTBOUND_SOCKETS, generation);
    }
    return true;
  }

  /** One batch of each side; whether there may be more at once. */
  #pump(): boolean {
    const nowMs = bootMs();
    let more = false;
    if (this.#inbound !== undefined) more = this.#inbound.pump(nowMs);
    if (this.#outbound !== undefined) {
      more = this.#outbound.pump(nowMs) || more;
      if (this.#outbound.gone) this.#tunGone();
    }
    return more;
  }

  #maySleep(): boolean {
    this.#setSleeps(1);
    // The TUN is not read while the interface is down; see Tun.read.
    const up = Atomics.load(this.#i32, HEADER.UP) === 1;
    for (let i = 0; i < this.#tunFds.length; i++) {
      this.#listen(TUN + i, up && this.#outbound?.blocked === false);
    }
    for (let i = 0; i < HEADER.SOCKET_FD_COUNT; i++) {
      this.#listen(SOCKET + i, this.#inbound?.blocked === false);
    }
    const awaited = (this.#outbound?.idle ?? true) &&
      (this.#inbound?.idle ?? true) &&
      Atomics.load(this.#i32, HEADER.RUNNING) === 1 &&
      Atomics.load(this.#i32, HEADER.SOCKETS_GENERATION) === this.#generation;
    if (!awaited) this.#setSleeps(0);
    return awaited;
  }

  get #pollfdCount(): number {
    return this.#pollfds.length / POLLFD_WORDS;
  }

  #setSleeps(value: number): void {
    const { role } = this.#options;
    if (role !== "inbound") {
      Atomics.store(this.#i32, HEADER.OUTBOUND_SLEEPS, value);
    }
    if (role !== "outbound") {
      Atomics.store(this.#i32, HEADER.INBOUND_SLEEPS, value);
    }
  }

  /** @throws SysError when waiting is not possible: else it would never sleep */
  #polled(result: number): void {
    this.#setSleeps(0);
    if (result < 0) {
      const number = errno();
      if (number === ERRNO.EINTR || number === ERRNO.ENOMEM) return;
      throw new SysError("poll", number);
    }
    if (this.#revents(EVENT) !== 0) {
      libc().read(this.#options.eventFd, this.#drain, 8);
    }
    if (this.#revents(LINK) !== 0) {
      this.#noticed(this.#options.linkFd, HEADER.LINK_CHANGED);
    }
    if (this.#revents(ROUTES) !== 0) {
      this.#noticed(this.#options.routesFd, HEADER.ROUTES_CHANGED);
    }
    for (let i = 0; i < this.#tunFds.length; i++) {
      if ((this.#revents(TUN + i) & POLLERR) !== 0) this.#tunGone();
    }
  }

  /** Reads the notices away; control asks for the state itself. */
  #noticed(fd: number, changed: number): void {
    const c = libc();
    while (c.recv(fd, this.#drain, this.#drain.length, 0) > 0);
    Atomics.store(this.#i32, changed, 1);
    this.#control.wake();
  }

  #tunGone(): void {
    this.#tunFds.fill(-1);
    for (let i = 0; i < this.#tunFds.length; i++) this.#watch(TUN + i, -1);
    Atomics.store(this.#i32, HEADER.TUN_GONE, 1);
    this.#control.wake();
  }

  #watch(i: number, fd: number): void {
    this.#pollfds[i * POLLFD_WORDS] = fd;
    this.#listen(i, true);
  }

  /** Whether to wake up when the descriptor has something; its end always does. */
  #listen(i: number, yes: boolean): void {
    this.#pollfds[i * POLLFD_WORDS + 1] = yes ? POLLIN : 0;
  }

  #revents(i: number): number {
    return this.#pollfds[i * POLLFD_WORDS + 1] >> REVENTS_SHIFT;
  }
}
