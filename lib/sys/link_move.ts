/**
 * An interface into another network namespace, under another name.
 *
 * @module
 */
import { check, cString, libc, SysError } from "./libc.ts";
import { NetlinkRequests, u32 } from "./netlink.ts";
import { openNetns } from "./netns.ts";

const RTM_SETLINK = 19;
const IFINFOMSG_BYTES = 16;
const IFINFOMSG_INDEX = 4;
const IFLA_IFNAME = 3;
const IFLA_NET_NS_FD = 28;

/**
 * Moves the interface `from`, which is in this thread's namespace.
 *
 * @param netns as iproute2 knows it, or a path
 * @param to its name in there
 * @throws SysError EEXIST where that name is in use
 */
export function moveLink(from: string, netns: string, to: string): void {
  const c = libc();
  const what = `move the interface into the network namespace ${netns}`;
  const header = new Uint8Array(IFINFOMSG_BYTES);
  const index = check(c.if_nametoindex(cString(from)), what);
  new DataView(header.buffer).setInt32(IFINFOMSG_INDEX, index, true);
  const fd = openNetns(netns);
  const requests = new NetlinkRequests();
  try {
    const { error } = requests.request(
      RTM_SETLINK,
      header,
      [[IFLA_NET_NS_FD, u32(fd)], [IFLA_IFNAME, cString(to)]],
      true,
    );
    if (error !== 0) throw new SysError(what, error);
  } finally {
    requests.close();
    c.close(fd);
  }
}
