/**
 * What the kernel's driver sets on its interfaces (`wg_open`): a tunnel sends no
 * redirects, because it forwards out of the interface that packets came in by,
 * and gets no IPv6 address that nobody gave it. The setting for all interfaces,
 * which turns redirects on here, too, is left as it is: outbound drops them
 * (lib/icmp).
 *
 * @module
 */
import { cString, errnoName } from "./libc.ts";
import { NetlinkRequests, u32 } from "./netlink.ts";

const RTM_SETLINK = 19;
const IFINFOMSG_BYTES = 16;
const IFLA_IFNAME = 3;
const IFLA_AF_SPEC = 26;
const AF_INET = 2;
const AF_INET6 = 10;
const IFLA_INET_CONF = 1;
const IPV4_DEVCONF_SEND_REDIRECTS = 6;
const IFLA_INET6_ADDR_GEN_MODE = 8;
const IN6_ADDR_GEN_MODE_NONE = 1;
const ATTRIBUTE_BYTES = 4;
const EAFNOSUPPORT = 97;

function attribute(type: number, value: Uint8Array): Uint8Array {
  const length = ATTRIBUTE_BYTES + value.length;
  const bytes = new Uint8Array(Math.ceil(length / 4) * 4);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, length, true);
  view.setUint16(2, type, true);
  bytes.set(value, ATTRIBUTE_BYTES);
  return bytes;
}

/**
 * Sets them on the interface `name`, in this thread's network namespace.
 *
 * @returns what could not be set, in words
 * @throws SysError when the system cannot be asked at all
 */
export function setLinkDefaults(name: string): string[] {
  const missing: string[] = [];
  const requests = new NetlinkRequests();
  const set = (family: number, value: Uint8Array, what: string): void => {
    const spec: [number, Uint8Array] = [IFLA_AF_SPEC, attribute(family, value)];
    const { error } = requests.request(
      RTM_SETLINK,
      new Uint8Array(IFINFOMSG_BYTES),
      [[IFLA_IFNAME, cString(name)], spec],
      true,
    );
    // A family that is not there has nothing to be set.
    if (error === 0 || error === EAFNOSUPPORT) return;
    missing.push(`${name}: cannot ${what}: ${errnoName(error)}`);
  };
  try {
    const redirects = attribute(IPV4_DEVCONF_SEND_REDIRECTS, u32(0));
    set(AF_INET, attribute(IFLA_INET_CONF, redirects), "turn redirects off");
    const none = Uint8Array.of(IN6_ADDR_GEN_MODE_NONE);
    const mode = attribute(IFLA_INET6_ADDR_GEN_MODE, none);
    set(AF_INET6, mode, "keep the system from making IPv6 addresses");
  } finally {
    requests.close();
  }
  return missing;
}
