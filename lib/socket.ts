/**
 * The device's UDP sockets (kernel: `socket.c`): opened by
 * `Deno.listenDatagram`, then taken over by descriptor, because that API knows
 * no marks, packet info or batches. Deno's own handle is closed after the
 * descriptor was duplicated: else Deno's event loop would be woken for every
 * datagram that the inbound worker reads.
 *
 * @module
 */
import { AF_INET, AF_INET6 } from "./endpoint.ts";
import { closeDescriptor, opened } from "./sys/descriptors.ts";
import { check, ERRNO, errno, libc, SysError } from "./sys/libc.ts";

const F_DUPFD_CLOEXEC = 1030;
const FIRST_FD = 3;
const SOL_SOCKET = 1;
const SO_MARK = 36;
const SO_SNDBUFFORCE = 32;
const SO_RCVBUFFORCE = 33;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const IPPROTO_IP = 0;
const IP_PKTINFO = 8;
const IP_MTU_DISCOVER = 10;
const IP_RECVTOS = 13;
const IPPROTO_IPV6 = 41;
const IPV6_MTU_DISCOVER = 23;
const IPV6_V6ONLY = 26;
const IPV6_RECVPKTINFO = 49;
const IPV6_RECVTCLASS = 66;
const PMTUDISC_DONT = 0;
const SOL_UDP = 17;
const UDP_GRO = 104;
/** wireguard-go's size; the kernel's own driver sets no limit. */
const SOCKET_BUFFER_BYTES = 7 << 20;
const RANDOM_PORT_TRIES = 100;

/** The sockets of a device: one dual-stack, or one for each family that there is. */
export interface UdpSockets {
  /** Descriptor of the IPv6 socket, -1: none. */
  readonly v6: number;
  /** Descriptor of the IPv4 socket, -1: the IPv6 socket serves both families. */
  readonly v4: number;
  readonly port: number;
}

/**
 * Opens the sockets in the network namespace of the calling thread.
 *
 * @param port 0: any
 * @param fwmark 0: none
 * @param offload whether datagrams may come in many to a message
 * @throws SysError EADDRINUSE and others
 */
export function openSockets(
  port: number,
  fwmark: number,
  offload: boolean,
): UdpSockets {
  for (let attempt = 1;; attempt++) {
    const first = openFamily("::", port, AF_INET6);
    if (first === undefined) {
      const v4 = openFamily("0.0.0.0", port, AF_INET);
      if (v4 === undefined) {
        throw new SysError("open a UDP socket", ERRNO.EAFNOSUPPORT);
      }
      return configured({ v6: -1, v4: v4.fd, port: v4.port }, fwmark, offload);
    }
    if (getOption(first.fd, IPPROTO_IPV6, IPV6_V6ONLY) === 0) {
      return configured(
        { v6: first.fd, v4: -1, port: first.port },
        fwmark,
        offload,
      );
    }
    try {
      const second = openFamily("0.0.0.0", first.port, AF_INET);
      return configured(
        {
          v6: first.fd,
          v4: second?.fd ?? -1,
          port: first.port,
        },
        fwmark,
        offload,
      );
    } catch (error) {
      closeDescriptor(first.fd);
      const inUse = error instanceof SysError &&
        error.errno === ERRNO.EADDRINUSE;
      if (!inUse || port !== 0 || attempt === RANDOM_PORT_TRIES) throw error;
    }
  }
}

/** Closes the sockets. */
export function closeSockets(sockets: UdpSockets): void {
  for (const fd of [sockets.v6, sockets.v4]) if (fd >= 0) closeDescriptor(fd);
}

/** Marks the datagrams that leave by the sockets; 0: no mark. */
export function setMark(sockets: UdpSockets, fwmark: number): void {
  for (const fd of [sockets.v6, sockets.v4]) {
    if (fd < 0) continue;
    // Without CAP_NET_ADMIN no mark can be set, but then none is set either.
    if (fwmark === 0 && getOption(fd, SOL_SOCKET, SO_MARK) === 0) continue;
    setOption(fd, SOL_SOCKET, SO_MARK, fwmark);
  }
}

function configured(
  sockets: UdpSockets,
  fwmark: number,
  offload: boolean,
): UdpSockets {
  try {
    if (sockets.v6 >= 0) {
      setOption(sockets.v6, IPPROTO_IPV6, IPV6_RECVPKTINFO, 1);
      setOption(sockets.v6, IPPROTO_IPV6, IPV6_MTU_DISCOVER, PMTUDISC_DONT);
      setOption(sockets.v6, IPPROTO_IPV6, IPV6_RECVTCLASS, 1);
    }
    for (const fd of [sockets.v6, sockets.v4]) {
      if (fd < 0) continue;
      // Like the kernel's driver: no DF outside, fragments are better than loss.
      setOption(fd, IPPROTO_IP, IP_MTU_DISCOVER, PMTUDISC_DONT);
      setOption(fd, IPPROTO_IP, IP_RECVTOS, 1);
      bufferSize(fd, SO_RCVBUFFORCE, SO_RCVBUF);
      bufferSize(fd, SO_SNDBUFFORCE, SO_SNDBUF);
      // Linux before 5.0 does not know it; then each message is one datagram.
      optionValue[0] = 1;
      if (offload) libc().setsockopt(fd, SOL_UDP, UDP_GRO, optionValue, 4);
    }
    if (sockets.v4 >= 0) setOption(sockets.v4, IPPROTO_IP, IP_PKTINFO, 1);
    if (fwmark !== 0) setMark(sockets, fwmark);
    return sockets;
  } catch (error) {
    closeSockets(sockets);
    throw error;
  }
}

/** Descriptor and port of a new socket, or undefined where the family is absent. */
function openFamily(
  hostname: string,
  port: number,
  family: number,
): { fd: number; port: number } | undefined {
  let listener: Deno.DatagramConn;
  try {
    listener = Deno.listenDatagram({ transport: "udp", hostname, port });
  } catch (error) {
    if (error instanceof Deno.errors.AddrInUse) {
      throw new SysError(`UDP port ${port}`, ERRNO.EADDRINUSE);
    }
    if (error instanceof Deno.errors.PermissionDenied) {
      throw new SysError(`UDP port ${port}`, ERRNO.EACCES);
    }
    if (isFamilyAbsent(error)) return undefined;
    throw error;
  }
  try {
    const bound = (listener.addr as Deno.NetAddr).port;
    const own = findDescriptor(family, bound);
    const fd = opened(
      libc().fcntl(own, F_DUPFD_CLOEXEC, FIRST_FD),
      "duplicate the UDP socket",
    );
    return { fd, port: bound };
  } finally {
    listener.close();
  }
}

/** EAFNOSUPPORT or EADDRNOTAVAIL, which Deno reports by text or class. */
function isFamilyAbsent(error: unknown): boolean {
  if (error instanceof Deno.errors.AddrNotAvailable) return true;
  return error instanceof Error &&
    new RegExp(`os error (${ERRNO.EAFNOSUPPORT}|${ERRNO.EADDRNOTAVAIL})`).test(
      error.message,
    );
}

/** Descriptor of this process's UDP socket bound to `port`. */
function findDescriptor(family: number, port: number): number {
  const c = libc();
  const address = new Uint8Array(28);
  const length = new Uint32Array(1);
  // Descriptors are given out lowest first: a new one is below the number of open ones.
  for (let fd = FIRST_FD; fd < DESCRIPTORS_MAX; fd++) {
    length[0] = address.length;
    if (c.getsockname(fd, address, length) !== 0) continue;
    if (
      address[0] === family && ((address[2] << 8) | address[3]) === port &&
      isDatagram(fd)
    ) {
      return fd;
    }
  }
  throw new SysError("find the UDP socket's descriptor", ERRNO.EBADF);
}

const DESCRIPTORS_MAX = 65_536;
const SO_TYPE = 3;
const SOCK_DGRAM = 2;

function isDatagram(fd: number): boolean {
  return getOption(fd, SOL_SOCKET, SO_TYPE) === SOCK_DGRAM;
}

const optionValue = new Int32Array(1);

function setOption(
  fd: number,
  level: number,
  name: number,
  value: number,
): void {
  optionValue[0] = value;
  check(
    libc().setsockopt(fd, level, name, optionValue, 4),
    `setsockopt ${level}/${name}`,
  );
}

function getOption(fd: number, level: number, name: number): number {
  check(
    libc().getsockopt(fd, level, name, optionValue, new Uint32Array([4])),
    "getsockopt",
  );
  return optionValue[0];
}

/** As large as the system lets it: the forced option needs CAP_NET_ADMIN. */
function bufferSize(fd: number, forced: number, plain: number): void {
  optionValue[0] = SOCKET_BUFFER_BYTES;
  const c = libc();
  if (c.setsockopt(fd, SOL_SOCKET, forced, optionValue, 4) === 0) return;
  if (c.setsockopt(fd, SOL_SOCKET, plain, optionValue, 4) !== 0) {
    throw new SysError("set the UDP socket's buffer", errno());
  }
}
