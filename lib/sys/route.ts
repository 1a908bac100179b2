/**
 * Routes as the kernel's driver looks at them before it sends from a sticky
 * source (reference §6): by RTM_GETROUTE, in the namespace of the sockets.
 *
 * @module
 */
import type { SourceRoutes } from "../sources.ts";
import { ERRNO } from "./libc.ts";
import { findAttribute, NetlinkRequests, u32 } from "./netlink.ts";

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
const ATTRIBUTE_BYTES = 4;
const AF_INET = 2;
const AF_INET6 = 10;

/** Asks for routes. */
export class Routes implements SourceRoutes {
  readonly #requests = new NetlinkRequests();

  /** See {@link SourceRoutes.isLocal}. */
  isLocal(address: Uint8Array): boolean {
    const { error, body } = this.#ask(address, [[RTA_DST, address]]);
    return error === 0 && body.getUint8(RTMSG_TYPE) === RTN_LOCAL;
  }

  /** See {@link SourceRoutes.leavesBy}. */
  leavesBy(
    destination: Uint8Array,
    source: Uint8Array,
    fwmark: number,
  ): number | undefined {
    const { error, body } = this.#ask(destination, [
      [RTA_DST, destination],
      [RTA_SRC, source],
      [RTA_MARK, fwmark === 0 ? undefined : u32(fwmark)],
    ]);
    if (error === ERRNO.EINVAL) return 0;
    if (error !== 0) return undefined;
    const at = findAttribute(body, RTMSG_BYTES, RTA_OIF);
    return at < 0 ? undefined : body.getUint32(at, true);
  }

  /**
   * MTU that the route to `destination` has of its own, if it leads out by the
   * interface; else 0.
   */
  mtuBy(destination: Uint8Array, interfaceIndex: number): number {
    const { error, body } = this.#ask(destination, [[RTA_DST, destination]]);
    if (error !== 0) return 0;
    const by = findAttribute(body, RTMSG_BYTES, RTA_OIF);
    if (by < 0 || body.getUint32(by, true) !== interfaceIndex) return 0;
    const metrics = findAttribute(body, RTMSG_BYTES, RTA_METRICS);
    if (metrics < 0) return 0;
    const bytes = body.getUint16(metrics - ATTRIBUTE_BYTES, true) -
      ATTRIBUTE_BYTES;
    const nested = new DataView(body.buffer, body.byteOffset + metrics, bytes);
    const mtu = findAttribute(nested, 0, RTAX_MTU);
    return mtu < 0 ? 0 : nested.getUint32(mtu, true);
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
