/**
 * Network namespaces: which one a thread or an interface is in, under which
 * names iproute2 knows it, who else is in it, and going into another.
 *
 * @module
 */
import { statSystem, systemNames } from "./files.ts";
import { check, cString, errno, libc, SysError } from "./libc.ts";

const O_RDONLY = 0;
const O_CLOEXEC = 0x80000;
const CLONE_NEWNET = 0x4000_0000;
const TUNGETDEVNETNS = 0x54e3;

/** Where iproute2 keeps namespaces by name. */
export const NETNS_DIRECTORY = "/run/netns";
const OWN = "/proc/thread-self/ns/net";

/** A network namespace, the same for as long as it lives. */
export type NetnsId = number;

/** The namespace of this thread. */
export function currentNetns(): NetnsId {
  return idOf(OWN);
}

/** The namespace of a file that stands for one. @throws SysError */
export function idOfNetns(path: string): NetnsId {
  return idOf(path);
}

function idOf(path: string): NetnsId {
  const inode = inodeOf(path);
  if (inode === undefined) throw new SysError(path, errno());
  return inode;
}

/**
 * The namespace that the interface of a TUN descriptor is in, as a descriptor
 * to be closed; -1 where the system does not tell.
 */
export function openTunNetns(tunFd: number): number {
  return libc().ioctlValue(tunFd, TUNGETDEVNETNS, 0);
}

/** The namespace of a descriptor. */
export function netnsOf(fd: number): NetnsId {
  return idOf(`/proc/self/fd/${fd}`);
}

/** Whether iproute2 has a name for the namespace. */
export function isNamed(id: NetnsId): boolean {
  try {
    for (const { name } of Deno.readDirSync(NETNS_DIRECTORY)) {
      if (sameId(`${NETNS_DIRECTORY}/${name}`, id)) return true;
    }
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
  return false;
}

function sameId(path: string, id: NetnsId): boolean {
  try {
    return idOf(path) === id;
  } catch {
    // It is gone meanwhile.
    return false;
  }
}

/**
 * Whether another process is in this thread's namespace. Asked by the number of
 * a file in /proc/PID/net, which each namespace has of its own: the link ns/net
 * is not for everybody to read.
 */
export function isShared(): boolean {
  const own = inodeOf("/proc/thread-self/net/dev");
  for (const name of systemNames("/proc")) {
    if (!/^\d+$/.test(name) || Number(name) === Deno.pid) continue;
    if (inodeOf(`/proc/${name}/net/dev`) === own) return true;
  }
  return false;
}

function inodeOf(path: string): number | undefined {
  return statSystem(path)?.inode; // or the process has ended
}

/**
 * Opens a namespace by the name that iproute2 gave it, or by path.
 *
 * @throws SysError
 */
export function openNetns(name: string): number {
  const path = name.includes("/") ? name : `${NETNS_DIRECTORY}/${name}`;
  const flags = O_RDONLY | O_CLOEXEC;
  const fd = libc().open(cString(path), flags, 0);
  if (fd < 0) throw new SysError(`network namespace ${name}`, errno());
  return fd;
}

/** Whether there is a namespace by this name, or path. */
export function isNetns(name: string): boolean {
  try {
    libc().close(openNetns(name));
    return true;
  } catch {
    return false; // not there, or not for us
  }
}

/** Takes this thread into a namespace. @throws SysError */
export function enterNetns(fd: number, name: string): void {
  check(libc().setns(fd, CLONE_NEWNET), `enter the network namespace ${name}`);
}

/** Does something in a namespace, and comes back. @throws SysError */
export function inNetns<T>(name: string, action: () => T): T {
  using opened = new DisposableStack();
  const own = openNetns(OWN);
  opened.defer(() => void libc().close(own));
  const other = openNetns(name);
  opened.defer(() => void libc().close(other));
  enterNetns(other, name);
  try {
    return action();
  } finally {
    enterNetns(own, "before");
  }
}
