/**
 * Name servers and search domains of an interface, as steps: by resolvconf,
 * whoever's it is (Debian's, openresolv, systemd's), or by resolvectl where
 * systemd-resolved runs without it. As wg-quick(8), the servers are asked for
 * all names as long as the interface is there. Pure.
 *
 * @module
 */
import { parseIp } from "./ip.ts";
import type { Step } from "./quick_step.ts";

/** How name servers are set here. */
export type DnsTool = "resolvconf" | "resolvectl";

/** `DNS =` of a file, apart. */
export interface DnsServers {
  readonly servers: readonly string[];
  /** Search domains. */
  readonly search: readonly string[];
}

/** Tells servers from search domains. */
export function splitDns(dns: readonly string[]): DnsServers {
  const isServer = (text: string): boolean =>
    parseIp(text.split("%")[0]) !== null;
  return {
    servers: dns.filter(isServer),
    search: dns.filter((text) => !isServer(text)),
  };
}

/**
 * The prefix of an interface's record in the order that resolvconf keeps: that
 * of the first entry of /etc/resolvconf/interface-order which ends with `*`.
 */
export function recordPrefix(interfaceOrder: string): string {
  for (const line of interfaceOrder.split("\n")) {
    const match = /^([A-Za-z0-9-]+)\*$/.exec(line.trim());
    if (match) return `${match[1]}.`;
  }
  return "";
}

/** Steps that set them; none without a server, as with wg-quick. */
export function dnsSteps(
  name: string,
  dns: readonly string[],
  { tool, prefix }: { readonly tool: DnsTool; readonly prefix: string },
): Step[] {
  const { servers, search } = splitDns(dns);
  if (servers.length === 0) return [];
  if (tool === "resolvconf") {
    const record = prefix + name;
    const lines = servers.map((server) => `nameserver ${server}\n`);
    if (search.length > 0) lines.push(`search ${search.join(" ")}\n`);
    return [{
      slot: "dns",
      do: {
        argv: ["resolvconf", "-a", record, "-m", "0", "-x"],
        stdin: lines.join(""),
      },
      undo: [{ argv: ["resolvconf", "-d", record, "-f"] }],
      half: true,
      change: "overwrite",
    }];
  }
  return [
    {
      slot: "dns",
      do: { argv: ["resolvectl", "dns", name, ...servers] },
      undo: [{ argv: ["resolvectl", "revert", name] }],
      linked: true,
      change: "overwrite",
    },
    {
      slot: "dns domains",
      do: { argv: ["resolvectl", "domain", name, ...search, "~."] },
      linked: true,
      change: "overwrite",
    },
  ];
}
