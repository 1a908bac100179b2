/**
 * The plan of `up` (reference §9.3): a configuration and what is known of the
 * system go in, steps come out. Where a step depends on the system, it depends
 * on {@linkcode Facts} alone, so that `--dry-run` shows what would be run and
 * tests need no root. Pure.
 *
 * What differs from wg-quick 1.0.20210914, on purpose: PreUp runs when the
 * interface is there, and the smallest MTU counts, as in later versions; policy
 * rules get the priorities that the kernel would give them, spelt out, so that
 * `down` removes these and no others; all addresses and routes are known before
 * the first command.
 *
 * @module
 */
import type { Config } from "./config.ts";
import { dnsSteps, type DnsTool } from "./dns.ts";
import {
  type Cidr,
  formatCidr,
  formatIp,
  IPV4_LENGTH,
  maskAddress,
} from "./ip.ts";
import {
  type Family,
  firewallStep,
  type FirewallTool,
} from "./quick_firewall.ts";
import type { Command, Step } from "./quick_step.ts";

/** What a tunnel packet has more than the packet in it, at most. */
const OVERHEAD_BYTES = 80;
const MTU_DEFAULT = 1500;

/** What a plan needs to know of the system. */
export interface Facts {
  /** MTU of the routes to the endpoints, as far as known. */
  readonly endpointMtus: readonly number[];
  /** MTU of the default route. */
  readonly defaultMtu?: number;
  /** Addresses that the interface has already, by PreUp. */
  readonly deviceAddresses: readonly Cidr[];
  /** Ranges that are routed to the interface already, by PreUp. */
  readonly deviceRanges: readonly Cidr[];
  /**
   * Whether the sockets are in another network namespace than the interface: the
   * tunnel's own packets do not come by its routes then.
   */
  readonly isApart: boolean;
  /** The mark that the interface has already, by PreUp; 0: none. */
  readonly deviceMark: number;
  /** A table that is free, for default routes. */
  readonly freeTable: number;
  /** The priority of the next policy rule. */
  readonly priority: Readonly<Record<Family, number | undefined>>;
  /** net.ipv4.conf.all.src_valid_mark. */
  readonly srcValidMark: string;
  /** Null: there is none. */
  readonly firewall: FirewallTool | null;
  /** Null: there is none. */
  readonly dns: DnsTool | null;
  /** See recordPrefix of lib/dns. */
  readonly dnsPrefix: string;
  /** The shell of hooks. */
  readonly shell: "bash" | "sh";
}

/** What is to be set up. */
export interface Job {
  /** The interface. */
  readonly name: string;
  /** The configuration's path. */
  readonly path: string;
  readonly config: Config;
  /** Options for the daemon. */
  readonly daemonOptions: readonly string[];
}

/** A plan in two parts, because PreUp may change what the second depends on. */
export interface Plan {
  /** The interface, PreUp. */
  readonly start: readonly Step[];
  /** The rest. */
  readonly rest: readonly Step[];
}

const SRC_VALID_MARK = "net.ipv4.conf.all.src_valid_mark";
/** Slot of the step that {@linkcode SRC_VALID_MARK} belongs to. */
export const SYSCTL_SLOT = "sysctl src_valid_mark";

/** The plan of `up`. */
export function planUp(job: Job, facts: Facts): Plan {
  const { name, path, config } = job;
  const { preUp, postUp } = config.interface;
  const hooks = (texts: readonly string[]): Step[] =>
    texts.map((text) => ({
      slot: "hook",
      do: hookCommand(text, name, facts.shell),
    }));
  return {
    start: [
      {
        slot: "interface",
        do: { argv: ["wgd", "run", ...job.daemonOptions, name], own: true },
        undo: [{ argv: ["ip", "link", "delete", "dev", name] }],
      },
      ...hooks(preUp),
    ],
    rest: [
      {
        slot: "configuration",
        do: {
          argv: ["wgd", "setconf", name, `<(wgd strip ${path})`],
          own: true,
        },
      },
      ...networkSteps(job, facts),
      ...hooks(postUp),
    ],
  };
}

/** What `up` sets of the system's network, and what `reload` compares. */
export function networkSteps(job: Job, facts: Facts): Step[] {
  const { name, config } = job;
  const { dns } = config.interface;
  return [
    ...addressSteps(name, config, facts),
    linkStep(name, config, facts),
    ...facts.dns === null
      ? []
      : dnsSteps(name, dns, { tool: facts.dns, prefix: facts.dnsPrefix }),
    ...routeSteps(name, config, facts),
  ];
}

/** A hook, to be run by the shell that wg-quick(8) would run it in. */
export function hookCommand(
  text: string,
  name: string,
  shell: "bash" | "sh",
): Command {
  const hook = text.replaceAll("%i", name);
  const options = shell === "bash" ? ["-e", "-o", "pipefail"] : ["-e"];
  return { argv: [shell, ...options, "-c", hook], hook };
}

/** Whether a default route is to go through policy routing. */
export function hasDefaultRoute(config: Config, isApart: boolean): boolean {
  const { table = "auto" } = config.interface;
  return table === "auto" && !isApart &&
    ranges(config).some(({ cidr }) => cidr === 0);
}

/** The mark of default routes, which is also their table's number. */
export function markOf(config: Config, facts: Facts): number {
  return config.interface.fwmark || facts.deviceMark || facts.freeTable;
}

function familyOf({ address }: Cidr): Family {
  return address.length === IPV4_LENGTH ? "-4" : "-6";
}

function addressSteps(name: string, config: Config, facts: Facts): Step[] {
  const there = new Set(facts.deviceAddresses.map(formatCidr));
  const wanted = new Map(
    config.interface.addresses.map((cidr) => [formatCidr(cidr), cidr]),
  );
  return [...wanted].filter(([text]) => !there.has(text))
    .map(([text, cidr]) => ({
      slot: `address ${text}`,
      do: {
        argv: ["ip", familyOf(cidr), "address", "add", text, "dev", name],
      },
      undo: [{
        argv: ["ip", familyOf(cidr), "address", "delete", text, "dev", name],
      }],
      linked: true,
    }));
}

/** The MTU of the interface where the file names none. */
export function automaticMtu(
  facts: Pick<Facts, "endpointMtus" | "defaultMtu">,
): number {
  const { endpointMtus, defaultMtu } = facts;
  const outer = endpointMtus.length > 0
    ? Math.min(...endpointMtus)
    : defaultMtu ?? MTU_DEFAULT;
  return outer - OVERHEAD_BYTES;
}

function linkStep(name: string, config: Config, facts: Facts): Step {
  const mtu = String(config.interface.mtu ?? automaticMtu(facts));
  return {
    slot: "link",
    do: { argv: ["ip", "link", "set", "mtu", mtu, "up", "dev", name] },
    linked: true,
    change: "overwrite",
  };
}

/** What peers may use, each once; of sections of one key, the last counts. */
function ranges(config: Config): Cidr[] {
  const peers = new Map(
    config.peers.map((peer) => [peer.publicKey.join(), peer.allowedIps]),
  );
  const unique = new Map(
    [...peers.values()].flat().map((cidr) => [formatCidr(cidr), cidr]),
  );
  return [...unique.values()];
}

/** Longest prefix first, then by text from the end, as `sort -nr` has them. */
function byLength(a: Cidr, b: Cidr): number {
  return b.cidr - a.cidr || (formatCidr(a) < formatCidr(b) ? 1 : -1);
}

function routeSteps(name: string, config: Config, facts: Facts): Step[] {
  const { table = "auto", addresses } = config.interface;
  if (table === "off") return [];
  const sorted = ranges(config).sort(byLength);
  if (table !== "auto") {
    return sorted.map((cidr) => routeStep(name, cidr, table));
  }
  const covering = [...connectedRanges(addresses), ...facts.deviceRanges];
  const steps: Step[] = [];
  let marked = false;
  for (const cidr of sorted) {
    if (cidr.cidr === 0 && !facts.isApart) {
      steps.push(...defaultSteps(name, cidr, config, facts, !marked));
      marked = true;
    } else if (!covering.some((range) => contains(range, cidr))) {
      steps.push(routeStep(name, cidr));
    }
  }
  return steps;
}

function routeStep(name: string, cidr: Cidr, table?: string): Step {
  const text = formatCidr(cidr);
  const words = [text, "dev", name, ...table ? ["table", table] : []];
  const family = familyOf(cidr);
  return {
    slot: `route ${text}${table ? ` table ${table}` : ""}`,
    do: { argv: ["ip", family, "route", "add", ...words] },
    // The kernel's own route to an address's network stays.
    undo: [{
      argv: ["ip", family, "route", "delete", ...words, "proto", "boot"],
    }],
    linked: true,
  };
}

/**
 * A default route for all but the tunnel's own packets, which carry a mark: in
 * a table that packets without the mark look up, after the main one without its
 * own default routes.
 */
function defaultSteps(
  name: string,
  cidr: Cidr,
  config: Config,
  facts: Facts,
  isFirst: boolean,
): Step[] {
  const family = familyOf(cidr);
  const mark = markOf(config, facts);
  const table = String(mark);
  const steps: Step[] = [];
  if (isFirst && !config.interface.fwmark && !facts.deviceMark) {
    steps.push({
      slot: "mark",
      do: { argv: ["wgd", "set", name, "fwmark", table], own: true },
      linked: true,
      change: "overwrite",
    });
  }
  const first = facts.priority[family];
  const ruleStep = (key: string, words: string[], after: number): Step => {
    const rule = first === undefined
      ? words
      : [...words, "priority", String(first - after)];
    return {
      slot: `rule ${family} ${key}`,
      key: table,
      do: { argv: ["ip", family, "rule", "add", ...rule] },
      undo: [{ argv: ["ip", family, "rule", "delete", ...rule] }],
    };
  };
  steps.push(
    routeStep(name, cidr, table),
    ruleStep("mark", ["not", "fwmark", table, "table", table], 0),
    ruleStep("main", ["table", "main", "suppress_prefixlength", "0"], 1),
  );
  if (family === "-4") steps.push(sysctlStep(facts.srcValidMark));
  if (facts.firewall !== null) {
    const own = config.interface.addresses.filter((address) =>
      familyOf(address) === family
    );
    const more = facts.deviceAddresses.filter((address) =>
      familyOf(address) === family
    );
    const addresses = new Set(
      [...own, ...more].map(({ address }) => formatIp(address)),
    );
    steps.push(firewallStep({
      tool: facts.firewall,
      name,
      family,
      addresses: [...addresses],
      mark,
    }));
  }
  return steps;
}

/** The mark of a packet counts when its source is checked against routes. */
function sysctlStep(value: string): Step {
  const set = (to: string): Command => ({
    argv: ["sysctl", "-q", `${SRC_VALID_MARK}=${to}`],
  });
  return {
    slot: SYSCTL_SLOT,
    key: "",
    ...value !== "1" && { do: set("1"), undo: [set(value)] },
  };
}

/** The routes that the kernel makes of addresses, on a link that is up. */
export function connectedRanges(addresses: readonly Cidr[]): Cidr[] {
  return addresses.flatMap(({ address, cidr }) => {
    const bits = address.length * 8;
    if (bits === IPV4_LENGTH * 8 && cidr === bits) return [];
    const network = address.slice();
    maskAddress(network, cidr);
    return [{ address: network, cidr }];
  });
}

/** Whether a range contains another one. */
export function contains(range: Cidr, inner: Cidr): boolean {
  if (range.address.length !== inner.address.length) return false;
  if (range.cidr > inner.cidr) return false;
  const [outer, other] = [range.address.slice(), inner.address.slice()];
  maskAddress(outer, range.cidr);
  maskAddress(other, range.cidr);
  return outer.every((byte, i) => byte === other[i]);
}
