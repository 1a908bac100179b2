/**
 * The TUN interface: creation by /dev/net/tun, and reading and writing of
 * packets on the arena (kernel: `device.c`).
 *
 * @module
 */
import { type Arena, HEADER } from "./arena.ts";
import { MERGE_MAX } from "./coalesce.ts";
import type { TunOffloads, TunPort, VectorWriter } from "./io.ts";
import { VNET_HEADER } from "./segments.ts";
import { closeDescriptor, opened } from "./sys/descriptors.ts";
import { check, cString, ERRNO, errno, libc, SysError } from "./sys/libc.ts";
import { moveLink } from "./sys/link_move.ts";
import { ArenaMemory, IOVEC_BYTES } from "./sys/memory.ts";

const O_RDWR = 2;
const O_NONBLOCK = 0x800;
const O_CLOEXEC = 0x80000;
const F_GETFL = 3;
const F_SETFL = 4;
const TUNSETIFF = 0x400454ca;
const TUNGETIFF = 0x800454d2;
const TUNSETOFFLOAD = 0x400454d0;
const TUNSETCARRIER = 0x400454e2;
const TUNSETVNETHDRSZ = 0x400454d8;
const IFF_TUN = 0x0001;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
const IFF_MULTI_QUEUE = 0x0100;
const TUN_F_CSUM = 1;
const TUN_F_TSO4 = 2;
const TUN_F_TSO6 = 4;
const TUN_F_USO4 = 32;
const TUN_F_USO6 = 64;
const TUN_F_TSO = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6;
const TUN_F_USO = TUN_F_USO4 | TUN_F_USO6;
const IFREQ_BYTES = 40;
const IFNAMSIZ = 16;
/** The kernel puts a number that is free in place of `%d`. */
const PASSING_NAME = "wgd-new%d";

/** A TUN interface of this process. */
export interface TunHandle {
  /** One descriptor a queue. */
  readonly fds: readonly number[];
  readonly name: string;
  /** Undefined where packets come without vnet headers. */
  readonly offloads: TunOffloads | undefined;
}

/** Why an interface cannot be created, in words for its user. */
export class TunError extends Error {
  override readonly name = "TunError";

  /** @param permission whether rights are missing, rather than something else */
  constructor(message: string, readonly permission: boolean) {
    super(message);
  }
}

/**
 * Creates the TUN interface `name`.
 *
 * @param offload whether to ask for super-packets
 * @param queues how many queues it has, at most QUEUES_MAX
 * @throws TunError when there is no /dev/net/tun, no right, or the name is in use
 */
export function createTun(
  name: string,
  offload: boolean,
  queues: number,
): TunHandle {
  const tun = openQueues(name, offload ? IFF_VNET_HDR : 0, queues);
  if (!offload) return { ...tun, offloads: undefined };
  // What is set for one queue holds for all.
  const offloads = enableOffloads(tun.fds[0], true);
  if (offloads !== undefined) return { ...tun, offloads };
  // Vnet headers cannot be had, and not be given back either.
  closeTun(tun);
  return { ...openQueues(name, 0, queues), offloads: undefined };
}

/**
 * Creates the interface `name` in another network namespace. It is made here,
 * and moved there: a descriptor holds the namespace that it was opened in, and
 * that one shall not live on for ours.
 *
 * @throws TunError, SysError
 */
export function createTunIn(
  netns: string,
  name: string,
  offload: boolean,
  queues: number,
): TunHandle {
  const tun = createTun(PASSING_NAME, offload, queues);
  try {
    moveLink(tun.name, netns, name);
    return { ...tun, name: tunName(tun.fds[0]) ?? name };
  } catch (error) {
    closeTun(tun);
    const inUse = error instanceof SysError && error.errno === ERRNO.EEXIST;
    throw inUse ? createError(name, error.errno) : error;
  }
}

/** Closes all queues; the interface goes with the last. */
export function closeTun({ fds }: Pick<TunHandle, "fds">): void {
  for (const fd of fds) closeDescriptor(fd);
}

function openQueues(
  name: string,
  flags: number,
  queues: number,
): { fds: number[]; name: string } {
  const kind = queues > 1 ? flags | IFF_MULTI_QUEUE : flags;
  const first = openTun(name, kind);
  const fds = [first.fd];
  try {
    while (fds.length < queues) fds.push(openTun(first.name, kind).fd);
  } catch (error) {
    closeTun({ fds });
    throw error;
  }
  return { fds, name: first.name };
}

function openTun(name: string, flags: number): { fd: number; name: string } {
  const c = libc();
  const fd = c.open(
    cString("/dev/net/tun"),
    O_RDWR | O_NONBLOCK | O_CLOEXEC,
    0,
  );
  if (fd < 0) throw openError(errno());
  opened(fd, "open /dev/net/tun");
  const ifreq = new Uint8Array(IFREQ_BYTES);
  ifreq.set(new TextEncoder().encode(name).subarray(0, IFNAMSIZ - 1));
  new DataView(ifreq.buffer).setInt16(
    IFNAMSIZ,
    IFF_TUN | IFF_NO_PI | flags,
    true,
  );
  if (c.ioctl(fd, TUNSETIFF, ifreq) < 0) {
    const number = errno();
    closeDescriptor(fd);
    throw createError(name, number);
  }
  return { fd, name: ifName(ifreq) };
}

/**
 * Takes over a TUN descriptor that another program opened (WG_TUN_FD).
 *
 * @param offload whether to ask for super-packets, where it has vnet headers
 * @throws SysError when `fd` is none, or its vnet headers are of another kind
 */
export function adoptTun(fd: number, offload = true): TunHandle {
  const c = libc();
  const ifreq = new Uint8Array(IFREQ_BYTES);
  check(c.ioctl(fd, TUNGETIFF, ifreq), `descriptor ${fd} is no TUN interface`);
  opened(fd, "WG_TUN_FD");
  const flags = check(c.fcntl(fd, F_GETFL, 0), "fcntl");
  check(c.fcntl(fd, F_SETFL, flags | O_NONBLOCK), "fcntl");
  const kind = new DataView(ifreq.buffer).getInt16(IFNAMSIZ, true);
  if ((kind & IFF_VNET_HDR) === 0) {
    return { fds: [fd], name: ifName(ifreq), offloads: undefined };
  }
  const offloads = enableOffloads(fd, offload);
  if (offloads === undefined) {
    throw new SysError("set the size of the TUN's vnet header", errno());
  }
  return { fds: [fd], name: ifName(ifreq), offloads };
}

/** @returns undefined when vnet headers cannot be set up */
function enableOffloads(fd: number, wanted: boolean): TunOffloads | undefined {
  const c = libc();
  const size = new Int32Array([VNET_HEADER]);
  if (c.ioctl(fd, TUNSETVNETHDRSZ, size) < 0) return undefined;
  const set = (flags: number): boolean =>
    c.ioctlValue(fd, TUNSETOFFLOAD, flags) === 0;
  if (wanted) return probeOffloads(set);
  set(0);
  return { tcp: false, udp: false };
}

/**
 * Asks for all that the kernel may have, and for less when it refuses: USO came
 * with Linux 6.2. TSO for one of IPv4 and IPv6 alone is no use to us, and no
 * kernel has but that.
 *
 * @param set asks for TUN_F_… flags; false when they are refused
 */
export function probeOffloads(set: (flags: number) => boolean): TunOffloads {
  if (set(TUN_F_TSO | TUN_F_USO)) return { tcp: true, udp: true };
  if (set(TUN_F_TSO)) return { tcp: true, udp: false };
  // What an earlier owner of the descriptor asked for must not stay on.
  set(0);
  return { tcp: false, udp: false };
}

/** Says whether the interface has a carrier; without one nothing is sent to it. */
export function setCarrier(fd: number, carrier: boolean): void {
  const value = new Int32Array([carrier ? 1 : 0]);
  check(libc().ioctl(fd, TUNSETCARRIER, value), "set the interface's carrier");
}

/** The interface's present name, or undefined when it is gone. */
export function tunName(fd: number): string | undefined {
  const ifreq = new Uint8Array(IFREQ_BYTES);
  return libc().ioctl(fd, TUNGETIFF, ifreq) < 0 ? undefined : ifName(ifreq);
}

function ifName(ifreq: Uint8Array): string {
  return new TextDecoder().decode(ifreq.subarray(0, ifreq.indexOf(0)));
}

function openError(number: number): Error {
  switch (number) {
    case ERRNO.ENOENT:
    case ERRNO.ENXIO:
    case ERRNO.ENODEV:
      return new TunError(
        "/dev/net/tun is missing: load the driver (modprobe tun), or give the container " +
          "the device (--device /dev/net/tun)",
        false,
      );
    case ERRNO.EACCES:
    case ERRNO.EPERM:
      return new TunError(
        "No permission to open /dev/net/tun: run as root",
        true,
      );
    default:
      return new SysError("open /dev/net/tun", number);
  }
}

function createError(name: string, number: number): Error {
  switch (number) {
    case ERRNO.EPERM:
      return new TunError(
        `No permission to create the interface ${name}: run as root or with CAP_NET_ADMIN`,
        true,
      );
    case ERRNO.EBUSY:
    case ERRNO.EEXIST:
    case ERRNO.EINVAL:
      return new TunError(
        `Cannot create the interface ${name}: the name is in use by another interface`,
        false,
      );
    default:
      return new SysError(`create the interface ${name}`, number);
  }
}

/** One thread's port to the TUN: packets are read to and written from the arena. */
export class Tun implements TunPort {
  readonly offloads: TunOffloads | undefined;
  readonly vector: VectorWriter;
  readonly #fds: readonly number[];
  /** The queue that is read next: it is read until it is empty. */
  #queue = 0;
  readonly #memory: ArenaMemory;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #word: number;
  readonly #iovec: Deno.PointerValue;
  /** Bytes of vnet header before each packet. */
  readonly #header: number;

  /** Bytes of scratch that the port needs. */
  static readonly SCRATCH_BYTES = (MERGE_MAX + 1) * IOVEC_BYTES;

  /** @param scratch byte offset of SCRATCH_BYTES for this port alone */
  constructor(
    arena: Arena,
    { fds, offloads }: Pick<TunHandle, "fds" | "offloads">,
    scratch: number,
  ) {
    this.#fds = fds;
    this.offloads = offloads;
    this.#header = offloads === undefined ? 0 : VNET_HEADER;
    this.#memory = new ArenaMemory(arena);
    this.#i32 = arena.i32;
    this.#u8 = arena.u8;
    this.#word = scratch / 4;
    this.#iovec = this.#memory.pointer(scratch);
    this.vector = new TunVector(fds[0], this.#memory, scratch + IOVEC_BYTES);
  }

  /** See {@link TunPort.read}. */
  read(offset: number, capacity: number): number {
    // The link can be up before control knows: until then its packets wait.
    if (this.#i32[HEADER.UP] === 0) return 0;
    const header = this.#header;
    this.#memory.setIovec(this.#word, offset - header, capacity + header);
    const queues = this.#fds.length;
    for (let tries = 0; tries < queues; tries++) {
      const n = libc().readv(this.#fds[this.#queue], this.#iovec, 1);
      if (n > header) return n - header;
      if (n >= 0) return 0;
      const number = errno();
      if (number !== ERRNO.EAGAIN && number !== ERRNO.EINTR) return -1;
      this.#queue = (this.#queue + 1) % queues;
    }
    return 0;
  }

  /** See {@link TunPort.write}. */
  write(offset: number, length: number): number {
    const from = offset - this.#header;
    this.#u8.fill(0, from, offset);
    this.#memory.setIovec(this.#word, from, length + this.#header);
    return libc().writev(this.#fds[0], this.#iovec, 1) < 0 ? errno() : 0;
  }
}

/** Packets in pieces. */
class TunVector implements VectorWriter {
  readonly #fd: number;
  readonly #memory: ArenaMemory;
  readonly #word: number;
  readonly #iovecs: Deno.PointerValue;
  #count = 0;

  constructor(fd: number, memory: ArenaMemory, scratch: number) {
    this.#fd = fd;
    this.#memory = memory;
    this.#word = scratch / 4;
    this.#iovecs = memory.pointer(scratch);
  }

  append(offset: number, length: number): void {
    const word = this.#word + this.#count++ * (IOVEC_BYTES / 4);
    this.#memory.setIovec(word, offset, length);
  }

  write(): number {
    const count = this.#count;
    this.#count = 0;
    return libc().writev(this.#fd, this.#iovecs, count) < 0 ? errno() : 0;
  }
}
