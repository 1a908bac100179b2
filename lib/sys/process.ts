/**
 * Other processes of ours: who listens on a socket, what a process was started
 * with, its end, and copies of its descriptors.
 *
 * @module
 */
import { readSystemFile, systemNames } from "./files.ts";
import { check, libc } from "./libc.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0x80000;
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SOCKADDR_UN_BYTES = 110;
const FAMILY_BYTES = 2;
/** The same on x86-64 and arm64. */
const SYS_PIDFD_OPEN = 434n;
const SYS_PIDFD_GETFD = 438n;
const F_SETFD = 2;
const STDERR = 2;
const POLLIN = 1;

const decoder = new TextDecoder();

/** The process that listens on a unix socket. @throws SysError */
export function listenerOf(path: string): number {
  const c = libc();
  const name = new TextEncoder().encode(path);
  const address = new Uint8Array(SOCKADDR_UN_BYTES);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name.subarray(0, SOCKADDR_UN_BYTES - FAMILY_BYTES - 1), 2);
  const fd = check(c.socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket");
  try {
    check(c.connect(fd, address, address.length), path);
    const credentials = new Int32Array(3);
    const length = new Uint32Array([credentials.byteLength]);
    check(
      c.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, credentials, length),
      path,
    );
    return credentials[0];
  } finally {
    c.close(fd);
  }
}

/** What a process was started with. */
export interface ProcessStart {
  readonly args: readonly string[];
  readonly env: ReadonlyMap<string, string>;
}

/** @throws SysError also where it may not be looked at */
export function startOf(pid: number): ProcessStart {
  const words = (name: string): string[] => {
    const { bytes } = readSystemFile(`/proc/${pid}/${name}`);
    return decoder.decode(bytes).split("\0").slice(0, -1);
  };
  const env = words("environ").map((text): [string, string] => {
    const at = text.indexOf("=");
    return [text.slice(0, at), text.slice(at + 1)];
  });
  return { args: words("cmdline"), env: new Map(env) };
}

/**
 * Directories of the control groups that a process is in, wherever systems have
 * the unified hierarchy: alone, or beside those of version 1.
 */
export function groupsOf(pid: number | "self"): string[] {
  const text = decoder.decode(readSystemFile(`/proc/${pid}/cgroup`).bytes);
  return text.trimEnd().split("\n").flatMap((line) => {
    const [, controllers, path] = /^\d+:([^:]*):(.*)$/.exec(line) ?? [];
    const names = controllers === ""
      ? ["", "unified"]
      : [controllers.replace(/^name=/, "")];
    return names.map((name) =>
      `/sys/fs/cgroup/${name}${path}`.replace(/\/+/g, "/")
    );
  });
}

/** Descriptors by which a process holds the TUN interface `name`. */
export function tunDescriptors(pid: number, name: string): number[] {
  const line = new RegExp(`^iff:\\s*${RegExp.escape(name)}$`, "m");
  return systemNames(`/proc/${pid}/fdinfo`).filter((fd) => {
    try {
      const { bytes } = readSystemFile(`/proc/${pid}/fdinfo/${fd}`);
      return line.test(decoder.decode(bytes));
    } catch {
      return false; // closed meanwhile
    }
  }).map(Number);
}

/** Makes a descriptor this process's stderr. @throws SysError */
export function becomeStderr(fd: number): void {
  const c = libc();
  check(c.dup2(fd, STDERR), "dup2");
  c.close(fd);
}

/** A process, held by a descriptor: its number cannot become another's. */
export class OtherProcess implements Disposable {
  readonly #fd: number;

  /** @throws SysError where there is none, or the system is older than 5.3 */
  constructor(readonly pid: number) {
    const fd = libc().syscall(SYS_PIDFD_OPEN, BigInt(pid), 0n, 0n);
    this.#fd = check(Number(fd), `process ${pid}`);
  }

  /**
   * A copy of its descriptor `fd`, which programs that this one starts get, too.
   *
   * @throws SysError where that is not allowed, or the system is older than 5.6
   */
  takeDescriptor(fd: number): number {
    const c = libc();
    const own = check(
      Number(c.syscall(SYS_PIDFD_GETFD, BigInt(this.#fd), BigInt(fd), 0n)),
      `descriptor ${fd} of process ${this.pid}`,
    );
    check(c.fcntl(own, F_SETFD, 0), "fcntl");
    return own;
  }

  /** Waits for its end. @returns whether it came in time */
  async ended(timeoutMs: number): Promise<boolean> {
    const pollfd = new Int32Array([this.#fd, POLLIN]);
    const ready = await libc().pollAsync(pollfd, 1, timeoutMs);
    return check(ready, "poll") > 0;
  }

  [Symbol.dispose](): void {
    libc().close(this.#fd);
  }
}
