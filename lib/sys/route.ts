/**
 * Routes as the kernel's driver looks at them before it sends from a sticky
 * source (reference §6): by RTM_GETROUTE, in the namespace of the sockets.
 *
 * @module
 */
import type { SourceRoutes } from "../sources.ts";
import { ERRNO } from "./libc.ts";
import { findAttribute, findU32, NetlinkRequests, u32 } from "./netlink.ts";

const RTM_GETROUTE = 26;
const RTMSG_BYTES = 12;
const RTMSG_TYPE = 7;
const RTN_LOCAL = 2;
const RTA_DST = 1;
const RTA_SRC = 2;
const RTA_OIF = 4;
const RTA_METRICS = 8;
const RTAX_MTU = 2;
const RTA_MARK = 16;
const AF_INET = 2;
const AF_INET6 = 10;

/** Whether an answer to RTM_GETROUTE is a route to an address of our own. */
export function readsLocal(body: DataView<ArrayBuffer>): boolean {
  return body.byteLength >= RTMSG_BYTES &&
    body.getUint8(RTMSG_TYPE) === RTN_LOCAL;
}

/** The interface that a route leads out by, or undefined. */
export function readInterface(
  body: DataView<ArrayBuffer>,
): number | undefined {
  return findU32(body, RTMSG_BYTES, RTA_OIF);
}

/** A route's own MTU if it leads out by an interface; else 0. */
export function readMtu(
  body: DataView<ArrayBuffer>,
  interfaceIndex: number,
): number {
  if (readInterface(body) !== interfaceIndex) return 0;
  const metrics = findAttribute(body, RTMSG_BYTES, RTA_METRICS);
  return metrics === undefined ? 0 : findU32(metrics, 0, RTAX_MTU) ?? 0;
}

/** Asks for routes. */
export class Routes implements SourceRoutes {
  readonly #requests = new NetlinkRequests();

  /** See {@link SourceRoutes.isLocal}. */
  isLocal(address: Uint8Array): boolean {
    const { error, body } = this.#ask(address, [[RTA_DST, address]]);
    return error === 0 && readsLocal(body);
  }

  /** See {@link SourceRoutes.leavesBy}. */
  leavesBy(
    destination: Uint8Array,
    source: Uint8Array | undefined,
    fwmark: number,
  ): number | undefined {
    const { error, body } = this.#ask(destination, [
      [RTA_DST, destination],
      [RTA_SRC, source],
      [RTA_MARK, fwmark === 0 ? undefined : u32(fwmark)],
    ]);
    if (error === ERRNO.EINVAL) return 0;
    if (error !== 0) return undefined;
    return readInterface(body);
  }

  /**
   * MTU that the route to `destination` has of its own, if it leads out by the
   * interface; else 0.
   */
  mtuBy(destination: Uint8Array, interfaceIndex: number): number {
    const { error, body } = this.#ask(destination, [[RTA_DST, destination]]);
    return error === 0 ? readMtu(body, interfaceIndex) : 0;
  }

  #ask(
    address: Uint8Array,
    attributes: readonly (readonly [number, Uint8Array | undefined])[],
  ): ReturnType<NetlinkRequests["request"]> {
    const header = new Uint8Array(RTMSG_BYTES);
    const bits = address.length * 8;
    header[0] = address.length === 4 ? AF_INET : AF_INET6;
    header[1] = bits;
    if (attributes.some(([type]) => type === RTA_SRC)) header[2] = bits;
    return this.#requests.request(RTM_GETROUTE, header, attributes);
  }

  /** Closes the socket. */
  close(): void {
    this.#requests.close();
  }
}
