/**
 * State of network links: flags and MTU by ioctl, changes by an rtnetlink
 * socket, both of the network namespace in which they were opened.
 *
 * @module
 */
import { check, cString, libc } from "./libc.ts";

const AF_INET = 2;
const AF_NETLINK = 16;
const SOCK_DGRAM = 2;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const NETLINK_ROUTE = 0;
const RTMGRP_LINK = 1;
const SOCKADDR_NL_BYTES = 12;
const SIOCGIFFLAGS = 0x8913;
const SIOCGIFMTU = 0x8921;
const SIOCSIFMTU = 0x8922;
const IFREQ_BYTES = 40;
const IFREQ_DATA = 16;
const IFF_UP = 1;

/** Watches and asks for links of one network namespace. */
export class LinkWatch {
  /** Readable when some link changed. */
  readonly fd: number;
  readonly #query: number;
  readonly #ifreq = new Uint8Array(IFREQ_BYTES);

  /** @throws SysError when the system gives no sockets */
  constructor() {
    const c = libc();
    const flags = SOCK_NONBLOCK | SOCK_CLOEXEC;
    this.#query = check(
      c.socket(AF_INET, SOCK_DGRAM | flags, 0),
      "open a socket for the link's state",
    );
    this.fd = check(
      c.socket(AF_NETLINK, SOCK_RAW | flags, NETLINK_ROUTE),
      "open an rtnetlink socket",
    );
    const address = new Uint8Array(SOCKADDR_NL_BYTES);
    const view = new DataView(address.buffer);
    view.setUint16(0, AF_NETLINK, true);
    view.setUint32(8, RTMGRP_LINK, true);
    check(c.bind(this.fd, address, address.length), "bind rtnetlink");
  }

  /** Flags and MTU of the link, or undefined where there is none of this name. */
  state(name: string): { up: boolean; mtu: number } | undefined {
    const flags = this.#ioctl(name, SIOCGIFFLAGS);
    if (flags === undefined) return undefined;
    const up = (flags.getInt16(IFREQ_DATA, true) & IFF_UP) !== 0;
    const mtu = this.#ioctl(name, SIOCGIFMTU);
    if (mtu === undefined) return undefined;
    return { up, mtu: mtu.getInt32(IFREQ_DATA, true) };
  }

  /** Sets the MTU. @throws SysError */
  setMtu(name: string, mtu: number): void {
    this.#name(name);
    new DataView(this.#ifreq.buffer).setInt32(IFREQ_DATA, mtu, true);
    check(
      libc().ioctl(this.#query, SIOCSIFMTU, this.#ifreq),
      `set the MTU of ${name}`,
    );
  }

  /** Closes both sockets. */
  close(): void {
    libc().close(this.fd);
    libc().close(this.#query);
  }

  #ioctl(name: string, request: number): DataView | undefined {
    this.#name(name);
    if (libc().ioctl(this.#query, request, this.#ifreq) < 0) return undefined;
    return new DataView(this.#ifreq.buffer);
  }

  #name(name: string): void {
    this.#ifreq.fill(0);
    this.#ifreq.set(cString(name).subarray(0, IFREQ_DATA - 1));
  }
}
