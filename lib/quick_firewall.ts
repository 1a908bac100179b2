/**
 * What a default route through the tunnel needs of the packet filter
 * (reference §9.3): nobody on another link reaches the tunnel's addresses, and
 * answers to the tunnel's own packets carry its mark, so that a strict rp_filter
 * lets them in. Tables and comments are named as wg-quick(8) names them, so that
 * its `down` finds them. Pure.
 *
 * @module
 */
import type { Command, Step } from "./quick_step.ts";

/** An address family, as `ip` names it. */
export type Family = "-4" | "-6";

/** The program that filters packets here. */
export type FirewallTool = "nft" | "iptables";

/** What rules are made of. */
export interface FirewallOptions {
  readonly tool: FirewallTool;
  /** The interface. */
  readonly name: string;
  readonly family: Family;
  /** The tunnel's addresses of that family. */
  readonly addresses: readonly string[];
  /** Mark of the tunnel's own packets. */
  readonly mark: number;
}

/** The rules as one step; changed in place, in one transaction by nft. */
export function firewallStep(options: FirewallOptions): Step {
  return options.tool === "nft" ? nftStep(options) : iptablesStep(options);
}

/**
 * Name of the nft table of an interface. nft takes no `+` and `=` in names
 * (wg-quick's rules for such interfaces fail); interfaces have no `/`.
 */
export function nftTable(name: string): string {
  return `wg-quick-${name.replaceAll("+", "/p").replaceAll("=", "/e")}`;
}

/** Comment of the iptables rules of an interface. */
export function iptablesComment(name: string): string {
  return `wg-quick(8) rule for ${name}`;
}

function nftStep({ name, family, addresses, mark }: FirewallOptions): Step {
  const protocol = family === "-4" ? "ip" : "ip6";
  const table = `${protocol} ${nftTable(name)}`;
  const spoofed = addresses.map((address) =>
    `    iifname != "${name}" ${protocol} daddr ${address} ` +
    "fib saddr type != local drop\n"
  );
  // Made to be there, so that what may be left of it can be deleted.
  const text = `table ${table}
delete table ${table}
table ${table} {
  chain preraw {
    type filter hook prerouting priority -300
${spoofed.join("")}  }
  chain premangle {
    type filter hook prerouting priority -150
    meta l4proto udp meta mark set ct mark
  }
  chain postmangle {
    type filter hook postrouting priority -150
    meta l4proto udp meta mark ${mark} ct mark set meta mark
  }
}
`;
  return {
    slot: `firewall ${family}`,
    do: { argv: ["nft", "-f", "-"], stdin: text },
    undo: [{ argv: ["nft", "delete", "table", protocol, nftTable(name)] }],
    change: "overwrite",
  };
}

function iptablesStep(options: FirewallOptions): Step {
  const { name, family, addresses, mark } = options;
  const program = iptablesRestore(family);
  const comment = `-m comment --comment "${iptablesComment(name)}"`;
  const text = (action: "-I" | "-D"): string => {
    const line = (rule: string): string => `${action} ${rule} ${comment}\n`;
    const spoofed = addresses.map((address) =>
      line(
        `PREROUTING ! -i ${name} -d ${address} ` +
          "-m addrtype ! --src-type LOCAL -j DROP",
      )
    );
    const marks = line(
      `POSTROUTING -p udp -m mark --mark ${mark} -j CONNMARK --save-mark`,
    ) +
      line("PREROUTING -p udp -j CONNMARK --restore-mark");
    return `*raw\n${spoofed.join("")}COMMIT\n*mangle\n${marks}COMMIT\n`;
  };
  const command = (stdin: string): Command => ({
    argv: [program, "-n"],
    stdin,
  });
  return {
    slot: `firewall ${family}`,
    do: command(text("-I")),
    undo: [command(text("-D"))],
    change: "undo-first",
  };
}

/** The program that loads iptables rules of a family. */
export function iptablesRestore(family: Family): string {
  return family === "-4" ? "iptables-restore" : "ip6tables-restore";
}

/**
 * Input of iptables-restore that deletes an interface's rules, from what
 * iptables-save shows; null if there are none.
 */
export function iptablesRemoval(saved: string, name: string): string | null {
  const mine = `--comment "${iptablesComment(name)}"`;
  let found = false;
  let text = "";
  for (const line of saved.split("\n")) {
    if (line.startsWith("-A ") && line.includes(mine)) {
      text += `-D ${line.slice("-A ".length)}\n`;
      found = true;
    } else if (line.startsWith("*") || line === "COMMIT") text += `${line}\n`;
  }
  return found ? text : null;
}
