/**
 * What ip(8) and nft(8) print, read as far as `up`, `down` and `reload` need
 * it: the text form, which busybox's ip has, too. Pure.
 *
 * @module
 */
import { type Cidr, parseCidr } from "./ip.ts";
import { type Family, nftTable } from "./quick_firewall.ts";
import type { Command } from "./quick_step.ts";

/** A route of the main table, as far as it goes to a link. */
export interface RouteLine {
  /** Undefined where the line tells none. */
  readonly dev?: string;
  /** MTU of the route itself. */
  readonly mtu?: number;
}

/** Reads the first route of `ip route get` or `ip route show`. */
export function parseRoute(text: string): RouteLine {
  const dev = /\bdev (\S+)/.exec(text)?.[1];
  const mtu = /\bmtu (?:lock )?(\d+)/.exec(text)?.[1];
  return { dev, ...(mtu !== undefined && { mtu: Number(mtu) }) };
}

/** The MTU of a link by `ip link show dev`. */
export function parseLinkMtu(text: string): number | undefined {
  const mtu = /\bmtu (\d+)/.exec(text)?.[1];
  return mtu === undefined ? undefined : Number(mtu);
}

/** The addresses of a link by `ip -o address show dev`. */
export function parseAddresses(text: string): Cidr[] {
  return text.split("\n").flatMap((line) => {
    const match = /\binet6? (\S+)(?: peer (\S+))?/.exec(line);
    const cidr = match && parseCidr(match[1]);
    return cidr ? [cidr] : [];
  });
}

/** The ranges that `ip -4|-6 route show dev` routes, but for special routes. */
export function parseRanges(text: string, family: Family): Cidr[] {
  const all = family === "-4" ? "0.0.0.0/0" : "::/0";
  return text.split("\n").flatMap((line) => {
    const [range] = line.split(" ");
    const cidr = parseCidr(range === "default" ? all : range);
    return cidr ? [cidr] : [];
  });
}

/** Whether `ip rule show` tells of a rule that looks this table up. */
export function hasRuleFor(text: string, table: number): boolean {
  return new RegExp(`\\blookup ${table}\\b`).test(text);
}

/**
 * The priority that the kernel gives a rule that comes without one: just before
 * the second one of `ip rule show`. Undefined where there is no room.
 */
export function nextPriority(text: string): number | undefined {
  const [, second] = text.split("\n");
  const match = /^(\d+):/.exec(second ?? "");
  const priority = match ? Number(match[1]) - 1 : 0;
  return priority > 1 ? priority : undefined;
}

/** What `nft list tables` and `ip rule show` may tell of an interface's rules. */
export interface Traces {
  /** `nft list tables`. */
  readonly nftTables: string;
  /** `ip -4 rule show` and `ip -6 rule show`. */
  readonly rules: Readonly<Record<Family, string>>;
  /** Table of the default routes; undefined: none. */
  readonly table?: number;
}

const SUPPRESS = "from all lookup main suppress_prefixlength 0";

/**
 * What undoes the rules of an interface that stock wg-quick has set up, or a
 * wgd whose notes are lost: rules by its table, the suppressing rule that comes
 * right before one, and nft's tables by name.
 */
export function traceCommands(name: string, traces: Traces): Command[] {
  const commands: Command[] = [];
  for (const line of traces.nftTables.split("\n")) {
    const [, family, table] = line.trim().split(" ");
    if (table === nftTable(name)) {
      commands.push({ argv: ["nft", "delete", "table", family, table] });
    }
  }
  const { table } = traces;
  if (table === undefined) return commands;
  for (const family of ["-4", "-6"] as const) {
    let before = "";
    for (const line of traces.rules[family].split("\n")) {
      const remove = (text: string, ...what: string[]): void => {
        const [priority] = text.split(":");
        const argv = ["ip", family, "rule", "delete", ...what];
        commands.push({ argv: [...argv, "priority", priority] });
      };
      if (hasRuleFor(line, table)) {
        if (before.includes(SUPPRESS)) {
          remove(before, "table", "main", "suppress_prefixlength", "0");
        }
        remove(line, "table", String(table));
      }
      before = line;
    }
  }
  return commands;
}
