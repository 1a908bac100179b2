/**
 * State of the interface: up, MTU and namespace, by rtnetlink, wherever it is.
 *
 * The sockets stay in the namespace in which the watch was made. Another one is
 * asked about by the number that the system gives it here, so that following an
 * interface takes CAP_NET_ADMIN and nothing more: no thread changes its
 * namespace.
 *
 * @module
 */
import { closeDescriptor } from "./descriptors.ts";
import { check, cString, libc, SysError } from "./libc.ts";
import {
  findU32,
  NetlinkRequests,
  openNotices,
  RTMGRP,
  u32,
} from "./netlink.ts";
import { currentNetns, type NetnsId, netnsOf, openTunNetns } from "./netns.ts";

const RTM_GETLINK = 18;
const RTM_NEWNSID = 88;
const RTM_GETNSID = 90;
const IFINFOMSG_BYTES = 16;
const IFINFOMSG_FLAGS = 8;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_TARGET_NETNSID = 46;
const RTGENMSG_BYTES = 4;
const NETNSA_NSID = 1;
const NETNSA_FD = 3;
const IFF_UP = 1;

const AF_INET = 2;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0x80000;
const SIOCSIFMTU = 0x8922;
const IFREQ_BYTES = 40;
const IFREQ_DATA = 16;

/** Sets the MTU of an interface in this thread's namespace. @throws SysError */
export function setMtu(name: string, mtu: number): void {
  const c = libc();
  const ifreq = new Uint8Array(IFREQ_BYTES);
  ifreq.set(cString(name).subarray(0, IFREQ_DATA - 1));
  new DataView(ifreq.buffer).setInt32(IFREQ_DATA, mtu, true);
  const call = `set the MTU of ${name}`;
  const fd = check(c.socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), call);
  try {
    check(c.ioctl(fd, SIOCSIFMTU, ifreq), call);
  } finally {
    c.close(fd);
  }
}

/** State of an interface. */
export interface LinkState {
  readonly up: boolean;
  readonly mtu: number;
  /** Where it is. */
  readonly netns: NetnsId;
}

/** What an answer to RTM_GETLINK says, or undefined. */
export function readLink(
  body: DataView<ArrayBuffer>,
): Pick<LinkState, "up" | "mtu"> | undefined {
  const mtu = findU32(body, IFINFOMSG_BYTES, IFLA_MTU);
  if (mtu === undefined) return undefined;
  return { up: (body.getUint32(IFINFOMSG_FLAGS, true) & IFF_UP) !== 0, mtu };
}

/** A namespace's number in an answer to RTM_GETNSID; negative: it has none. */
export function readNetnsNumber(body: DataView<ArrayBuffer>): number {
  return (findU32(body, RTGENMSG_BYTES, NETNSA_NSID) ?? -1) | 0;
}

/** Watches links, and asks for the state of one TUN. */
export class LinkWatch {
  /** Readable when some link changed. */
  readonly fd: number;
  /** The namespace that the watch is in. */
  readonly home: NetnsId;
  readonly #tunFd: number;
  readonly #requests: NetlinkRequests;

  /** @throws SysError when the system gives no sockets */
  constructor(tunFd: number) {
    this.#tunFd = tunFd;
    this.home = currentNetns();
    this.#requests = new NetlinkRequests();
    try {
      this.fd = openNotices(RTMGRP.LINK, true);
    } catch (error) {
      this.#requests.close();
      throw error;
    }
  }

  /** State of the interface, or undefined where there is none of this name. */
  state(name: string): LinkState | undefined {
    const place = this.#place();
    const answer = this.#requests.request(
      RTM_GETLINK,
      new Uint8Array(IFINFOMSG_BYTES),
      [
        [IFLA_IFNAME, cString(name)],
        [IFLA_TARGET_NETNSID, place.number],
      ],
    );
    if (answer.error !== 0) return undefined;
    const link = readLink(answer.body);
    return link === undefined ? undefined : { ...link, netns: place.netns };
  }

  /** Where the interface is; `number` is undefined at home. */
  #place(): { netns: NetnsId; number: Uint8Array | undefined } {
    const fd = openTunNetns(this.#tunFd);
    // Linux before 5.0 does not tell: then it is looked for at home.
    if (fd < 0) return { netns: this.home, number: undefined };
    try {
      const netns = netnsOf(fd);
      if (netns === this.home) return { netns, number: undefined };
      return { netns, number: u32(this.#numberOf(fd)) };
    } finally {
      libc().close(fd);
    }
  }

  /** Number of a namespace here; it is given one, so that its notices come. */
  #numberOf(fd: number): number {
    let number = this.#askNumber(fd);
    if (number < 0) {
      const { error } = this.#requests.request(
        RTM_NEWNSID,
        new Uint8Array(RTGENMSG_BYTES),
        [[NETNSA_NSID, u32(-1)], [NETNSA_FD, u32(fd)]],
        true,
      );
      if (error !== 0) {
        throw new SysError("number the interface's namespace", error);
      }
      number = this.#askNumber(fd);
    }
    return number;
  }

  #askNumber(fd: number): number {
    const { error, body } = this.#requests.request(
      RTM_GETNSID,
      new Uint8Array(RTGENMSG_BYTES),
      [[NETNSA_FD, u32(fd)]],
    );
    if (error !== 0) {
      throw new SysError("ask for the number of a namespace", error);
    }
    return readNetnsNumber(body);
  }

  /** Closes both sockets. */
  close(): void {
    closeDescriptor(this.fd);
    this.#requests.close();
  }
}
