/**
 * The only `Deno.dlopen`: functions of the C library under their own names, each
 * parameter with its C declaration, and errno. Each is bound at its first use:
 * Deno compiles a trampoline for each function that it binds, which for all of
 * them takes each thread 5 to 10 ms.
 *
 * Call forms (measured, shared/design.md §5): `i32`/`u32` and a kept pointer
 * object are cheap; a JavaScript number for a 64-bit parameter costs 200 ns and
 * more, so lengths are declared 32 bits wide where the register is the same.
 *
 * @module
 */

const SYMBOLS = {
  open: { parameters: ["buffer", "i32", "i32"], result: "i32" }, // const char *, int, mode_t
  close: { parameters: ["i32"], result: "i32" },
  dup2: { parameters: ["i32", "i32"], result: "i32" }, // int, int
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" }, // int, int, long
  ioctl: { parameters: ["i32", "u32", "buffer"], result: "i32" }, // int, unsigned long, void *
  ioctlValue: {
    name: "ioctl",
    parameters: ["i32", "u32", "u32"],
    result: "i32",
  },
  read: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int, void *, size_t
  write: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int, const void *, size_t
  readv: { parameters: ["i32", "pointer", "i32"], result: "i32" }, // int, iovec *, int
  writev: { parameters: ["i32", "pointer", "i32"], result: "i32" }, // int, iovec *, int
  poll: { parameters: ["buffer", "u32", "i32"], result: "i32" }, // pollfd *, nfds_t, int
  pollAsync: {
    name: "poll",
    parameters: ["buffer", "u32", "i32"],
    result: "i32",
    nonblocking: true,
  },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  accept4: {
    parameters: ["i32", "pointer", "pointer", "i32"],
    result: "i32",
  }, // int, sockaddr *, socklen_t *, int
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int, sockaddr *, socklen_t
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" }, // int, sockaddr *, socklen_t
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: {
    parameters: ["i32", "i32", "i32", "buffer", "buffer"],
    result: "i32",
  },
  setsockopt: {
    parameters: ["i32", "i32", "i32", "buffer", "u32"],
    result: "i32",
  },
  recv: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" }, // int, void *, size_t, int
  send: { parameters: ["i32", "buffer", "u32", "i32"], result: "i32" },
  recvmmsg: {
    parameters: ["i32", "pointer", "u32", "i32", "pointer"],
    result: "i32",
  },
  sendmmsg: { parameters: ["i32", "pointer", "u32", "i32"], result: "i32" },
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" }, // clockid_t, timespec *
  if_indextoname: { parameters: ["u32", "buffer"], result: "pointer" },
  if_nametoindex: { parameters: ["buffer"], result: "u32" },
  setns: { parameters: ["i32", "i32"], result: "i32" }, // int fd, int nstype
  prctl: { parameters: ["i32", "u32", "u32", "u32", "u32"], result: "i32" }, // int, unsigned long ...
  setrlimit: { parameters: ["i32", "buffer"], result: "i32" }, // int, const rlimit *
  capget: { parameters: ["buffer", "buffer"], result: "i32" }, // cap_user_header_t, cap_user_data_t
  capset: { parameters: ["buffer", "buffer"], result: "i32" },
  mmap: {
    parameters: ["u64", "u64", "i32", "i32", "i32", "i64"],
    result: "u64",
  }, // void *, size_t, int, int, int, off_t
  madvise: { parameters: ["u64", "u64", "i32"], result: "i32" }, // void *, size_t, int
  mlock2: { parameters: ["u64", "u64", "u32"], result: "i32", optional: true }, // const void *, size_t, unsigned
  syscall: { parameters: ["i64", "i64", "i64", "i64"], result: "i64" }, // long, …
  getpagesize: { parameters: [], result: "i32" },
  lseek: { parameters: ["i32", "i64", "i32"], result: "i64" }, // int, off_t, int
  readlink: { parameters: ["buffer", "buffer", "u32"], result: "i32" }, // const char *, char *, size_t
  statx: {
    parameters: ["i32", "buffer", "i32", "u32", "buffer"],
    result: "i32",
    optional: true,
  }, // int, const char *, int, unsigned, struct statx *
  opendir: { parameters: ["buffer"], result: "pointer" }, // const char *
  readdir: { parameters: ["pointer"], result: "pointer" }, // DIR *
  closedir: { parameters: ["pointer"], result: "i32" }, // DIR *
  umask: { parameters: ["u32"], result: "u32" },
  setsid: { parameters: [], result: "i32" },
  strerror: { parameters: ["i32"], result: "pointer" },
  __errno_location: { parameters: [], result: "pointer" },
} as const satisfies Deno.ForeignLibraryInterface;

type Libc = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

let loaded: Libc | undefined;
let errnoView: Int32Array | undefined;

/** Names of the C library on glibc and musl systems. */
const LIBRARIES = [
  "libc.so.6",
  "libc.so",
  "libc.musl-x86_64.so.1",
  "libc.musl-aarch64.so.1",
];

/**
 * The C library's functions.
 *
 * @throws Error when no C library can be opened
 */
export function libc(): Libc {
  return loaded ??= open();
}

function open(): Libc {
  let reason: unknown;
  for (const library of LIBRARIES) {
    try {
      // Not at its first use: binding may change what it points at.
      const { __errno_location } = bind(library, "__errno_location");
      return bound(library, { __errno_location });
    } catch (error) {
      reason ??= error;
    }
  }
  throw new Error(
    `Cannot open the C library: ${
      reason instanceof Error ? reason.message : reason
    }`,
  );
}

/** One function of a library. */
function bind<Name extends keyof Libc>(
  library: string,
  name: Name,
): Pick<Libc, Name> {
  const symbols = { [name]: SYMBOLS[name] };
  return Deno.dlopen(library, symbols).symbols as Pick<Libc, Name>;
}

/** All functions; those that are not in `first` bind themselves when read. */
function bound(library: string, first: Partial<Libc>): Libc {
  const functions = Object.create(null);
  for (const name of Object.keys(SYMBOLS) as (keyof Libc)[]) {
    Object.defineProperty(functions, name, {
      configurable: true,
      get: () => {
        const value = first[name] ?? bind(library, name)[name];
        Object.defineProperty(functions, name, { value });
        return value;
      },
    });
  }
  return functions;
}

/** This thread's errno, as the last call through {@link libc} left it. */
export function errno(): number {
  if (errnoView === undefined) {
    const at = libc().__errno_location();
    if (at === null) throw new Error("no errno");
    errnoView = new Int32Array(Deno.UnsafePointerView.getArrayBuffer(at, 4));
  }
  return errnoView[0];
}

/** Error numbers of Linux that wgd names (asm-generic, the same on x86-64 and arm64). */
export const ERRNO = {
  EPERM: 1,
  ENOENT: 2,
  EINTR: 4,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  EAGAIN: 11,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  ENODEV: 19,
  EINVAL: 22,
  ENOSPC: 28,
  EPIPE: 32,
  EPROTO: 71,
  EBADFD: 77,
  EMSGSIZE: 90,
  EOPNOTSUPP: 95,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  EADDRNOTAVAIL: 99,
  ENETUNREACH: 101,
  ENOBUFS: 105,
  EHOSTUNREACH: 113,
} as const;

const ERRNO_NAMES: ReadonlyMap<number, string> = new Map(
  Object.entries(ERRNO).map(([name, number]) => [number, name]),
);

/** Name of an error number, as `EINVAL`. */
export function errnoName(number: number): string {
  return ERRNO_NAMES.get(number) ?? `errno ${number}`;
}

/** A system call that failed. */
export class SysError extends Error {
  override readonly name = "SysError";

  /** @param call the call and what it was about @param errno the error's number */
  constructor(readonly call: string, readonly errno: number) {
    super(`${call}: ${strerror(errno)} (${errnoName(errno)})`);
  }

  /** What the system says of the number. */
  get reason(): string {
    return strerror(this.errno);
  }
}

/** Gives `result` back, or throws {@link SysError} for a negative one. */
export function check(result: number, call: string): number {
  if (result < 0) throw new SysError(call, errno());
  return result;
}

function strerror(number: number): string {
  const text = libc().strerror(number);
  return text === null
    ? "unknown error"
    : new Deno.UnsafePointerView(text).getCString();
}

const encoder = new TextEncoder();

/** `text` as a C string. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  return encoder.encode(text + "\0");
}

const ONE = new Uint8Array(new BigUint64Array([1n]).buffer);

/** Makes the eventfd readable. */
export function signalEvent(fd: number): void {
  libc().write(fd, ONE, ONE.length);
}

const CLOCK_REALTIME = 0;
const CLOCK_MONOTONIC = 1;
const CLOCK_BOOTTIME = 7;
const timespec = new BigInt64Array(2);
const timespecWords = new Uint32Array(timespec.buffer);

/** Boot time in whole milliseconds: monotonic, and counts suspended time. */
export function bootMs(): number {
  libc().clock_gettime(CLOCK_BOOTTIME, timespec);
  return timespecWords[0] * 1000 + Math.floor(timespecWords[2] / 1e6);
}

/** Milliseconds that the machine has been suspended since it booted. */
export function suspendedMs(): number {
  const boot = bootMs();
  libc().clock_gettime(CLOCK_MONOTONIC, timespec);
  return boot - timespecWords[0] * 1000 - Math.floor(timespecWords[2] / 1e6);
}

/** Wall clock in milliseconds since the epoch, with a fraction. */
export function wallMs(): number {
  libc().clock_gettime(CLOCK_REALTIME, timespec);
  return Number(timespec[0]) * 1000 + timespecWords[2] / 1e6;
}
