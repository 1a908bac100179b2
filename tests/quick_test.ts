/**
 * `wgd up` and `down` without a system: plans from configurations and facts, and
 * what is made of what ip(8) prints.
 */
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { dnsSteps, recordPrefix } from "../lib/dns.ts";
import { parseCidr } from "../lib/ip.ts";
import {
  firewallStep,
  iptablesRemoval,
  nftTable,
} from "../lib/quick_firewall.ts";
import {
  hasRuleFor,
  nextPriority,
  parseAddresses,
  parseLinkMtu,
  parseRanges,
  parseRoute,
  traceCommands,
} from "../lib/quick_parse.ts";
import {
  automaticMtu,
  type Facts,
  hookCommand,
  type Job,
  networkSteps,
  planUp,
} from "../lib/quick_plan.ts";
import { ConfigErrors } from "../lib/config_error.ts";
import { stripConfig } from "../lib/quick_save.ts";
import { formatPlan, type Step, undoCommands } from "../lib/quick_step.ts";
import { FACTS, job, KEY } from "./quick_plan_data.ts";

/** The commands of the second part, without the packet filter's input. */
function commands(what: Job, facts: Partial<Facts> = {}): string[] {
  return planUp(what, { ...FACTS, ...facts }).rest
    .flatMap((step) => step.do === undefined ? [] : step.do.argv.join(" "));
}

/** The system commands for the peer's allowed IPs. */
function routes(
  allowed: string,
  lines = "Address = 10.0.0.1/24, fd00::1/64",
  facts: Partial<Facts> = {},
): string[] {
  return commands(job(lines, `AllowedIPs = ${allowed}`), facts)
    .filter((line) => !/ address add | link set |setconf/.test(line));
}

Deno.test("a plan: interface, PreUp, configuration, addresses, link, DNS, routes, PostUp", () => {
  const what = job(
    `Address = 10.0.0.1/24
Address = fd00::1/64
MTU = 1400
DNS = 1.1.1.1, corp.example
PreUp = echo %i%i
PostUp = true # 1
PostUp = true 2`,
    "AllowedIPs = 10.0.0.2/32, 10.1.0.0/16",
  );
  const plan = planUp({ ...what, daemonOptions: ["--threads", "1"] }, FACTS);
  assertEquals(
    formatPlan([...plan.start, ...plan.rest]),
    `wgd run --threads 1 wg0
bash -e -o pipefail -c 'echo wg0wg0'
wgd setconf wg0 <(wgd strip /etc/wireguard/wg0.conf)
ip -4 address add 10.0.0.1/24 dev wg0
ip -6 address add fd00::1/64 dev wg0
ip link set mtu 1400 up dev wg0
resolvconf -a wg0 -m 0 -x <<'EOF'
nameserver 1.1.1.1
search corp.example
EOF
ip -4 route add 10.1.0.0/16 dev wg0
bash -e -o pipefail -c 'true # 1'
bash -e -o pipefail -c 'true 2'
`,
  );
});

Deno.test("a default route: mark, route, rules, sysctl and packet filter, IPv6 first", () => {
  assertEquals(routes("0.0.0.0/0, ::/0"), [
    "wgd set wg0 fwmark 51820",
    "ip -6 route add ::/0 dev wg0 table 51820",
    "ip -6 rule add not fwmark 51820 table 51820 priority 32765",
    "ip -6 rule add table main suppress_prefixlength 0 priority 32764",
    "nft -f -",
    "ip -4 route add 0.0.0.0/0 dev wg0 table 51820",
    "ip -4 rule add not fwmark 51820 table 51820 priority 32765",
    "ip -4 rule add table main suppress_prefixlength 0 priority 32764",
    "sysctl -q net.ipv4.conf.all.src_valid_mark=1",
    "nft -f -",
  ]);
});

Deno.test("a default route takes the file's mark, PreUp's, or a free table", () => {
  const first = (lines: string, facts: Partial<Facts> = {}): string =>
    routes("0.0.0.0/0", lines, facts)[0];
  assertEquals(
    first("FwMark = 0x10"),
    "ip -4 route add 0.0.0.0/0 dev wg0 table 16",
  );
  assertEquals(
    first("", { deviceMark: 7 }),
    "ip -4 route add 0.0.0.0/0 dev wg0 table 7",
  );
  assertEquals(first("", { freeTable: 51822 }), "wgd set wg0 fwmark 51822");
});

Deno.test("src_valid_mark is left alone where it is set, and is undone where it was not", () => {
  assertEquals(
    routes("0.0.0.0/0", "", { srcValidMark: "1" })
      .filter((line) => line.startsWith("sysctl")),
    [],
  );
  const steps = networkSteps(job("", "AllowedIPs = 0.0.0.0/0"), FACTS);
  assertEquals(undoCommands(steps).map(({ argv }) => argv.join(" ")), [
    "nft delete table ip wg-quick-wg0",
    "sysctl -q net.ipv4.conf.all.src_valid_mark=0",
    "ip -4 rule delete table main suppress_prefixlength 0 priority 32764",
    "ip -4 rule delete not fwmark 51820 table 51820 priority 32765",
  ]);
});

Deno.test("routes: longest prefix first, none that the interface has already", () => {
  const add = (range: string): string =>
    `ip ${range.includes(":") ? "-6" : "-4"} route add ${range} dev wg0`;
  assertEquals(
    routes(
      "10.9.0.0/16, 10.0.0.9/32, 10.0.0.0/8, 10.9.0.0/16, fd00::9/128, " +
        "fd00::/48, 192.168.1.1/32, 9.9.0.0/16, fd01::/16",
    ),
    [
      "fd00::/48",
      "192.168.1.1/32",
      "fd01::/16",
      "9.9.0.0/16",
      "10.9.0.0/16",
      "10.0.0.0/8",
    ].sort((a, b) => length(b) - length(a)).map(add),
  );
  // The kernel makes no route of an IPv4 address alone, but of an IPv6 one.
  assertEquals(
    routes("10.0.0.1/32, fd00::1/128", "Address = 10.0.0.1/32, fd00::1/128"),
    [add("10.0.0.1/32")],
  );
  assertEquals(
    routes("10.4.4.0/24", "", { deviceRanges: cidrs("10.4.0.0/16") }),
    [],
    "a route that PreUp has added",
  );
});

function length(range: string): number {
  return Number(range.split("/")[1]);
}

function cidrs(
  ...texts: string[]
): NonNullable<ReturnType<typeof parseCidr>>[] {
  return texts.flatMap((text) => parseCidr(text) ?? []);
}

Deno.test("Table: off adds none, a table gets all, default routes too", () => {
  assertEquals(routes("10.1.0.0/16, 0.0.0.0/0", "Table = off"), []);
  assertEquals(
    routes("10.0.0.9/32, ::/0, 0.0.0.0/0", "Address = 10.0.0.1/24\nTable = 99"),
    [
      "ip -4 route add 10.0.0.9/32 dev wg0 table 99",
      "ip -6 route add ::/0 dev wg0 table 99",
      "ip -4 route add 0.0.0.0/0 dev wg0 table 99",
    ],
  );
});

Deno.test("of sections of one key, the last one's allowed IPs are routed", () => {
  const what = job(
    "Table = auto",
    `AllowedIPs = 10.1.0.0/16\n[Peer]\nPublicKey = ${KEY}\n` +
      "AllowedIPs = 10.2.0.0/16",
  );
  assertEquals(
    commands(what).filter((line) => line.includes("route")),
    ["ip -4 route add 10.2.0.0/16 dev wg0"],
  );
});

Deno.test("an address that PreUp has added is not added again, but protected", () => {
  const facts = { deviceAddresses: cidrs("10.0.0.1/24", "10.5.0.1/24") };
  const what = job(
    "Address = 10.0.0.1/24, 10.0.1.1/24",
    "AllowedIPs = 0.0.0.0/0",
  );
  assertEquals(
    commands(what, facts).filter((line) => line.includes("address")),
    ["ip -4 address add 10.0.1.1/24 dev wg0"],
  );
  const filter = networkSteps(what, { ...FACTS, ...facts })
    .find(({ slot }) => slot === "firewall -4")?.do?.stdin ?? "";
  for (const address of ["10.0.0.1", "10.0.1.1", "10.5.0.1"]) {
    assertMatch(filter, new RegExp(`iifname != "wg0" ip daddr ${address} `));
  }
});

Deno.test("the MTU: the file's, the smallest to an endpoint, the default route's, 1500", () => {
  assertEquals(automaticMtu({ endpointMtus: [1500, 1400] }), 1320);
  assertEquals(automaticMtu({ endpointMtus: [], defaultMtu: 9000 }), 8920);
  assertEquals(automaticMtu({ endpointMtus: [] }), 1420);
  const link = (lines: string): string =>
    commands(job(lines), { endpointMtus: [1400] })
      .filter((line) => line.includes("link"))[0];
  assertEquals(link("MTU = 1280"), "ip link set mtu 1280 up dev wg0");
  assertEquals(link(""), "ip link set mtu 1320 up dev wg0");
});

Deno.test("hooks: every %i is the interface, by bash as wg-quick sets it, else by sh", () => {
  assertEquals(hookCommand("a %i 'b' %i", "wg0", "bash"), {
    argv: ["bash", "-e", "-o", "pipefail", "-c", "a wg0 'b' wg0"],
    hook: "a wg0 'b' wg0",
  });
  assertEquals(hookCommand("a", "wg0", "sh").argv, ["sh", "-e", "-c", "a"]);
});

Deno.test("DNS: by resolvconf with its prefix, or by resolvectl", () => {
  const words = (steps: readonly Step[]): string[] =>
    steps.flatMap(({ do: command }) => command?.argv.join(" ") ?? []);
  const dns = ["1.1.1.1", "corp.example", "fd00::53", "b.example"];
  const [step] = dnsSteps("wg0", dns, { tool: "resolvconf", prefix: "tun." });
  assertEquals(step.do?.argv.join(" "), "resolvconf -a tun.wg0 -m 0 -x");
  assertEquals(
    step.do?.stdin,
    "nameserver 1.1.1.1\nnameserver fd00::53\nsearch corp.example b.example\n",
  );
  assertEquals(step.undo?.[0].argv.join(" "), "resolvconf -d tun.wg0 -f");
  const resolvectl = dnsSteps("wg0", dns, { tool: "resolvectl", prefix: "" });
  assertEquals(words(resolvectl), [
    "resolvectl dns wg0 1.1.1.1 fd00::53",
    "resolvectl domain wg0 corp.example b.example ~.",
  ]);
  const searchOnly = ["corp.example"];
  for (const tool of ["resolvconf", "resolvectl"] as const) {
    assertEquals(dnsSteps("wg0", searchOnly, { tool, prefix: "" }), []);
  }
  assertEquals(recordPrefix("# order\nlo.*\nlo*\ntun*\neth*\n"), "lo.");
  assertEquals(recordPrefix("lo.*\ntap[0-9]*\n"), "");
});

Deno.test("iptables rules are undone by the same rules, changed by undoing them first", () => {
  const options = {
    tool: "iptables",
    name: "wg0",
    addresses: ["fd00::1"],
    mark: 7,
  } as const;
  const { do: add, undo, change } = firewallStep({ ...options, family: "-6" });
  assertEquals(add?.argv, ["ip6tables-restore", "-n"]);
  const comment = '-m comment --comment "wg-quick(8) rule for wg0"';
  assertEquals(
    add?.stdin,
    `*raw
-I PREROUTING ! -i wg0 -d fd00::1 -m addrtype ! --src-type LOCAL -j DROP ${comment}
COMMIT
*mangle
-I POSTROUTING -p udp -m mark --mark 7 -j CONNMARK --save-mark ${comment}
-I PREROUTING -p udp -j CONNMARK --restore-mark ${comment}
COMMIT
`,
  );
  assertEquals(undo?.[0].stdin, add?.stdin?.replaceAll("-I ", "-D "));
  assertEquals(change, "undo-first");
});

Deno.test("the nft table of an interface has a name that nft takes", () => {
  assertEquals(nftTable("wg0"), "wg-quick-wg0");
  assertEquals(nftTable("a.b_c-d"), "wg-quick-a.b_c-d");
  assertEquals(nftTable("a+b=c"), "wg-quick-a/pb/ec");
});

Deno.test("iptables rules of an interface are found by their comment", () => {
  const rule = (name: string): string =>
    `PREROUTING -p udp -m comment --comment "wg-quick(8) rule for ${name}" -j X`;
  const saved = `*mangle
:PREROUTING ACCEPT [0:0]
-A ${rule("wg0")}
-A ${rule("wg01")}
-A PREROUTING -j OTHER
COMMIT
`;
  assertEquals(
    iptablesRemoval(saved, "wg0"),
    `*mangle\n-D ${rule("wg0")}\nCOMMIT\n`,
  );
  assertEquals(iptablesRemoval(saved, "wg2"), null);
});

Deno.test("what ip prints is read: routes, links, addresses, rules", () => {
  assertEquals(
    parseRoute("10.0.0.5 via 10.7.0.2 dev va uid 0 \n    cache mtu 1400 \n"),
    { dev: "va", mtu: 1400 },
  );
  assertEquals(parseRoute("default via 1.2.3.4 dev eth0.5 mtu lock 1300"), {
    dev: "eth0.5",
    mtu: 1300,
  });
  assertEquals(parseRoute("unreachable default"), { dev: undefined });
  assertEquals(parseLinkMtu("2: va@if2: <UP> mtu 1500 qdisc noqueue"), 1500);
  assertEquals(
    parseAddresses(
      "5: wg0    inet 10.0.0.1/24 scope global wg0\\\n" +
        "5: wg0    inet6 fd00::1/64 scope global \\\n" +
        "5: wg0    inet 10.1.1.1 peer 10.2.2.2/32\n",
    ),
    cidrs("10.0.0.1/24", "fd00::1/64", "10.1.1.1/32"),
  );
  assertEquals(
    parseRanges(
      "default scope link\n10.0.0.0/24 proto kernel\n10.1.1.1 scope link\n" +
        "unreachable 1.2.3.4\n",
      "-4",
    ),
    cidrs("0.0.0.0/0", "10.0.0.0/24", "10.1.1.1/32"),
  );
  const rules = "0:\tfrom all lookup local\n32766:\tfrom all lookup main\n";
  assertEquals(nextPriority(rules), 32765);
  assertEquals(nextPriority("0:\tfrom all lookup local\n"), undefined);
  assertEquals(nextPriority(""), undefined);
  const rule = "9:\tnot from all fwmark 0x1 lookup 5182";
  assertEquals(hasRuleFor(rule, 51820), false);
  assertEquals(hasRuleFor(`${rule}0 \n`, 51820), true);
});

Deno.test("what stock wg-quick has set up is found by its traces, and nothing else", () => {
  const rules = `0:\tfrom all lookup local
32760:\tfrom all lookup main suppress_prefixlength 0
32761:\tnot from all fwmark 0x1 lookup 99
32764:\tfrom all lookup main suppress_prefixlength 0
32765:\tnot from all fwmark 0xca6c lookup 51820
32766:\tfrom all lookup main
`;
  const nftTables = "table ip filter\ntable ip wg-quick-wg0\n" +
    "table ip6 wg-quick-wg01\n";
  const traces = { nftTables, rules: { "-4": rules, "-6": "" }, table: 51820 };
  assertEquals(
    traceCommands("wg0", traces).map(({ argv }) => argv.join(" ")),
    [
      "nft delete table ip wg-quick-wg0",
      "ip -4 rule delete table main suppress_prefixlength 0 priority 32764",
      "ip -4 rule delete table 51820 priority 32765",
    ],
  );
});

Deno.test("strip keeps all but the keys of wg-quick in [Interface]", () => {
  assertEquals(
    stripConfig(
      "# c\n[Interface]\n  Address = 1.2.3.4 # x\nListenPort=1#y\n" +
        "postup = a # b\nsaveconfig = TRUE\n[Peer]\nMTU = 1\n",
      "x.conf",
    ),
    "# c\n[Interface]\nListenPort=1#y\n[Peer]\nMTU = 1\n\n",
  );
  assertThrows(
    () => stripConfig("[Interface]\nSaveConfig = yes # x\n", "x.conf"),
    ConfigErrors,
    'x.conf:2:14: SaveConfig: "yes" is neither true nor false; expected true',
  );
});
