/**
 * What a plan needs to know of this system, found out by ip(8), /proc and the
 * programs that are installed. Nothing is changed.
 *
 * @module
 */
import type { Config } from "./config.ts";
import type { DnsTool } from "./dns.ts";
import { recordPrefix, splitDns } from "./dns.ts";
import { type Cidr, formatCidr, formatIp, type SocketAddress } from "./ip.ts";
import {
  type Family,
  type FirewallTool,
  iptablesRemoval,
  iptablesRestore,
} from "./quick_firewall.ts";
import {
  hasRuleFor,
  nextPriority,
  parseAddresses,
  parseLinkMtu,
  parseRanges,
  parseRoute,
  traceCommands,
} from "./quick_parse.ts";
import { type Facts, hasDefaultRoute } from "./quick_plan.ts";
import { capture, findProgram } from "./quick_run.ts";
import { isLinkLocal } from "./quick_save.ts";
import { isSystemPath, readSystemFile } from "./sys/files.ts";
import { inNetns } from "./sys/netns.ts";
import type { Command } from "./quick_step.ts";

/** The first table that is tried for default routes, and their mark. */
export const TABLE_FIRST = 51820;

const SRC_VALID_MARK = "/proc/sys/net/ipv4/conf/all/src_valid_mark";
const INTERFACE_ORDER = "/etc/resolvconf/interface-order";
const RESOLVED = "/run/systemd/resolve";
const FAMILIES: readonly Family[] = ["-4", "-6"];

/** What the facts are about. */
export interface FactsOptions {
  readonly name: string;
  readonly config: Config;
  /** Where the peers are. */
  readonly endpoints: readonly SocketAddress[];
  /** Whether the interface is there, with what PreUp or `up` has given it. */
  readonly exists: boolean;
  /** The mark that the interface has; 0: none. */
  readonly mark: number;
  /** Network namespace of the interface; default: this one. */
  readonly netns?: string;
  /** Network namespace of the sockets; default: this one. */
  readonly socketNetns?: string;
}

/** Finds out the facts. */
export async function gatherFacts(options: FactsOptions): Promise<Facts> {
  const { name, config, exists, mark, netns } = options;
  const isApart = netns !== options.socketNetns;
  const [mtus, priority, device] = await Promise.all([
    config.interface.mtu === undefined ? routeMtus(options) : NO_MTUS,
    priorities(netns),
    exists ? deviceState(name, netns) : NO_DEVICE,
  ]);
  const searches = hasDefaultRoute(config, isApart) &&
    !config.interface.fwmark;
  return {
    ...mtus,
    ...device,
    priority,
    isApart,
    deviceMark: mark,
    freeTable: searches ? await freeTable(netns) : TABLE_FIRST,
    srcValidMark: srcValidMark(netns),
    firewall: firewallTool(),
    dns: netns === undefined ? dnsTool() : null,
    dnsPrefix: recordPrefix(readText(INTERFACE_ORDER)),
    shell: findProgram("bash") === undefined ? "sh" : "bash",
  };
}

/**
 * What of a configuration cannot be done on this system, in words.
 *
 * @returns one line each
 */
export function lacking(
  config: Config,
  facts: Facts,
  netns?: string,
): string[] {
  const problems: string[] = [];
  const { servers } = splitDns(config.interface.dns);
  if (servers.length > 0 && facts.dns === null && netns === undefined) {
    const stopped = findProgram("resolvectl") !== undefined
      ? "systemd-resolved does not run, and resolvconf is not installed"
      : "neither resolvconf nor systemd-resolved is here";
    problems.push(
      `DNS: ${stopped}; install openresolv, or take DNS out of the file`,
    );
  }
  if (hasDefaultRoute(config, facts.isApart) && facts.firewall === null) {
    problems.push(
      "AllowedIPs: a default route needs nft or iptables-restore, and neither " +
        "is installed; install nftables, or say Table = off",
    );
  }
  return problems;
}

/** What a configuration says that has no effect, in words. */
export function withoutEffect(config: Config, netns?: string): string[] {
  const { servers, search } = splitDns(config.interface.dns);
  if (netns !== undefined && servers.length > 0) {
    return [
      `DNS: not set in another network namespace: /etc/netns/${netns}/` +
      "resolv.conf is what programs in there read",
    ];
  }
  return servers.length === 0 && search.length > 0
    ? ["DNS: search domains alone are not set: no server is named"]
    : [];
}

/** The text of a file, or nothing. */
function readText(path: string): string {
  try {
    return isSystemPath(path)
      ? new TextDecoder().decode(readSystemFile(path).bytes)
      : Deno.readTextFileSync(path);
  } catch {
    return ""; // not there, or not for us
  }
}

function srcValidMark(netns: string | undefined): string {
  const read = (): string => readText(SRC_VALID_MARK).trim() || "0";
  return netns === undefined ? read() : inNetns(netns, read);
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function firewallTool(): FirewallTool | null {
  if (findProgram("nft") !== undefined) return "nft";
  const both = FAMILIES.every((family) =>
    findProgram(iptablesRestore(family)) !== undefined
  );
  return both ? "iptables" : null;
}

function dnsTool(): DnsTool | null {
  if (findProgram("resolvconf") !== undefined) return "resolvconf";
  const runs = exists(RESOLVED) && findProgram("resolvectl") !== undefined;
  return runs ? "resolvectl" : null;
}

async function priorities(netns?: string): Promise<Facts["priority"]> {
  const [v4, v6] = await Promise.all(
    FAMILIES.map((family) => capture(["ip", family, "rule", "show"], netns)),
  );
  return { "-4": nextPriority(v4), "-6": nextPriority(v6) };
}

const NO_MTUS: Pick<Facts, "endpointMtus" | "defaultMtu"> = {
  endpointMtus: [],
};

/** MTUs of the routes to the endpoints, by routes that the mark may change. */
async function routeMtus(
  { name, endpoints, mark, netns, socketNetns }: FactsOptions,
): Promise<typeof NO_MTUS> {
  const mtuOf = async (text: string): Promise<number[]> => {
    const { dev, mtu } = parseRoute(text);
    const isOwn = dev === name && netns === socketNetns;
    if (dev === undefined || isOwn) return [];
    if (mtu !== undefined) return [mtu];
    const link = parseLinkMtu(
      await capture(["ip", "link", "show", "dev", dev], socketNetns),
    );
    return link === undefined ? [] : [link];
  };
  const addresses = new Set(
    endpoints.filter(({ scope }) => scope === "")
      .map(({ address }) => formatIp(address)),
  );
  const marked = mark === 0 ? [] : ["mark", String(mark)];
  const endpointMtus: number[] = [];
  for (const address of addresses) {
    const text = await capture(
      ["ip", "route", "get", address, ...marked],
      socketNetns,
    );
    endpointMtus.push(...await mtuOf(text));
  }
  if (endpointMtus.length > 0) return { endpointMtus };
  for (const family of FAMILIES) {
    const text = await capture(
      ["ip", family, "route", "show", "default"],
      socketNetns,
    );
    const [defaultMtu] = await mtuOf(text);
    if (defaultMtu !== undefined) return { endpointMtus, defaultMtu };
  }
  return { endpointMtus };
}

const NO_DEVICE: Pick<Facts, "deviceAddresses" | "deviceRanges"> = {
  deviceAddresses: [],
  deviceRanges: [],
};

/** What the interface has, but for the link's own IPv6 address and route. */
async function deviceState(
  name: string,
  netns: string | undefined,
): Promise<typeof NO_DEVICE> {
  const ranges: Cidr[] = [];
  for (const family of FAMILIES) {
    const text = await capture(
      ["ip", family, "route", "show", "dev", name],
      netns,
    );
    ranges.push(...parseRanges(text, family));
  }
  return {
    deviceAddresses: (await liveAddresses(name, netns)).filter(({ address }) =>
      !isLinkLocal(address)
    ),
    deviceRanges: ranges.filter(({ address, cidr }) =>
      cidr > 0 && !isLinkLocal(address)
    ),
  };
}

/** The addresses of the interface. */
export async function liveAddresses(
  name: string,
  netns: string | undefined,
): Promise<Cidr[]> {
  const text = await capture(
    ["ip", "-o", "address", "show", "dev", name],
    netns,
  );
  const unique = new Map(
    parseAddresses(text).map((cidr) => [formatCidr(cidr), cidr]),
  );
  return [...unique.values()];
}

/** The MTU of the interface. */
export async function liveMtu(
  name: string,
  netns: string | undefined,
): Promise<number | undefined> {
  const argv = ["ip", "link", "show", "dev", name];
  return parseLinkMtu(await capture(argv, netns));
}

/** The first table that has no route and that no rule looks up. */
async function freeTable(netns: string | undefined): Promise<number> {
  const rules = await Promise.all(
    FAMILIES.map((family) => capture(["ip", family, "rule", "show"], netns)),
  );
  for (let table = TABLE_FIRST;; table++) {
    if (rules.some((text) => hasRuleFor(text, table))) continue;
    const routes = await Promise.all(
      FAMILIES.map((family) =>
        capture(["ip", family, "route", "show", "table", String(table)], netns)
      ),
    );
    if (routes.every((text) => text.trim() === "")) return table;
  }
}

/** What is left of an interface whose notes are not there, as its undoing. */
export async function findTraces(
  name: string,
  table: number | undefined,
): Promise<Command[]> {
  const [nftTables, v4, v6] = await Promise.all([
    capture(["nft", "list", "tables"]),
    ...FAMILIES.map((family) => capture(["ip", family, "rule", "show"])),
  ]);
  const commands = traceCommands(name, {
    nftTables,
    rules: { "-4": v4, "-6": v6 },
    table,
  });
  for (const family of FAMILIES) {
    const restore = iptablesRestore(family);
    const saved = await capture([restore.replace("restore", "save")]);
    const stdin = iptablesRemoval(saved, name);
    if (stdin !== null) commands.push({ argv: [restore, "-n"], stdin });
  }
  return commands;
}
