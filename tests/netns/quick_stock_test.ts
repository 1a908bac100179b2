/**
 * The same files through stock wg-quick, with wgd as its daemon, and through
 * `wgd up`: the same commands in the same order, and the same addresses, MTU,
 * routes, rules and packet filter afterwards.
 *
 * What differs on purpose from wg-quick 1.0.20210914: policy rules are added
 * with the priority that the kernel gives them anyway; the IPv6 address of the
 * link itself, which the kernel's driver has not, gets no rule and is not saved;
 * PreUp runs when the interface is there; the smallest MTU counts.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { until } from "./process.ts";
import {
  comparable,
  dump,
  echoed,
  type FileOptions,
  makeSite,
  runWith,
  type Site,
  STOCK,
  succeed,
  wgd,
  writeResolvconf,
  writeSite,
  writeWgd,
} from "./quick_lab.ts";
import { wgdCommand } from "./requirements.ts";
import { generateKeys, INNER, OUTER, PORT } from "./tunnel.ts";

const BOTH = `Address = ${INNER.a.v4}/24, ${INNER.a.v6}/64`;

/** Files, each with what is special in it. */
const CONFIGS: Readonly<Record<string, FileOptions>> = {
  "routes beside and inside of an address's network": {
    allowed: "10.9.0.2/32, 10.9.0.64/26, 10.9.0.0/16, 10.200.0.0/16, " +
      "fd09::2/128, fd09::/48, fd0a::/16",
  },
  "addresses of full length": {
    interface: "Address = 10.9.0.1/32\nAddress = fd09::1/128",
    allowed: "10.9.0.1/32, 10.9.0.2/32, fd09::1/128, fd09::2/128",
  },
  "many addresses": {
    interface: "Address = 10.9.0.1/24, 10.9.0.5/24, 10.10.0.1/16\n" +
      "Address = fd09::1/64, fd09::7/64, fd0b::1/48\nAddress = 10.11.0.1/32",
  },
  "no address": { interface: "" },
  "no allowed IP": { allowed: "" },
  "an MTU": { interface: `${BOTH}\nMTU = 1333` },
  "no endpoint, and the MTU of the default route": { endpoint: null },
  "an endpoint over IPv6": { endpoint: `${OUTER.v6.b}:${PORT.b}` },
  "the MTU of a route": { endpoint: `203.0.113.9:${PORT.b}` },
  "a table": {
    interface: `${BOTH}\nTable = 1234`,
    allowed: "10.9.0.2/32, 0.0.0.0/0, ::/0, 10.200.0.0/16",
  },
  "no table": {
    interface: `${BOTH}\nTable = off`,
    allowed: "0.0.0.0/0, 10.200.0.0/16",
  },
  "a default route of IPv4": {
    interface: `${BOTH}\nTable = auto`,
    allowed: "0.0.0.0/0, 10.200.0.0/16",
  },
  "a default route of IPv6": { allowed: "::/0, 10.200.0.0/16" },
  "both default routes": { allowed: "0.0.0.0/0, ::/0" },
  "default routes and a mark": {
    interface: `${BOTH}, 10.12.0.1/30\nFwMark = 0x4d2`,
    allowed: "0.0.0.0/0, ::/0",
  },
  "name servers and a search domain": {
    interface: `${BOTH}\nDNS = 10.9.0.2, corp.example\nDNS = fd09::2`,
  },
  "a search domain without a server": {
    interface: `${BOTH}\nDNS = corp.example`,
  },
  "hooks": {
    interface: `${BOTH}
PostUp = ip -4 route add 10.99.0.0/24 dev %i metric 7; echo "%i %i" >&2
PostUp = ip -4 route add 10.98.0.0/24 dev %i
PreDown = ip -4 route delete 10.98.0.0/24 dev %i
PostDown = echo down %i >&2`,
  },
};

async function addRoutes(lab: Lab): Promise<void> {
  const via = ["via", OUTER.v4.b];
  await lab.a.ip("route", "add", "default", ...via, "mtu", "1444");
  await lab.a.ip("route", "add", "203.0.113.0/24", ...via, "mtu", "1400");
}

const names = Object.keys(CONFIGS);
for (const [i, group] of [names.slice(0, 9), names.slice(9)].entries()) {
  labTest(
    `wgd up does to the system what stock wg-quick does (${i + 1} of 2)`,
    STOCK,
    async (lab) => {
      const site = await makeSite(lab);
      const { calls } = writeResolvconf(lab);
      writeWgd(lab);
      await addRoutes(lab);
      for (const what of group) {
        const path = writeSite(lab, site, CONFIGS[what]);
        const before = await dump(lab);
        const start = calls().length;
        const stock = await succeed(runWith(lab, ["wg-quick", "up", path]));
        const device = await deviceState(lab, site);
        const expected = await dump(lab);
        const down = await succeed(runWith(lab, ["wg-quick", "down", path]));
        await until("the daemon to end", () => !exists(socketPath(site.name)));
        // wg-quick leaves this one.
        const valid = "net.ipv4.conf.all.src_valid_mark=0";
        await lab.a.run(["sysctl", "-q", valid]);
        assertEquals(await dump(lab), before, what);
        const stockCalls = calls().slice(start);

        const up = await wgd(lab, "up", path);
        assertEquals(echoed(up), echoed(stock.stderr), what);
        assertEquals(comparable(await dump(lab)), comparable(expected), what);
        assertEquals(await deviceState(lab, site), device, what);
        const own = await wgd(lab, "down", path);
        assertEquals(
          echoed(own).filter((line) => /route|echo/.test(line)),
          echoed(down.stderr).filter((line) => /route|echo/.test(line)),
          what,
        );
        assertEquals(await dump(lab), before, what);
        const ownCalls = calls().slice(start + stockCalls.length);
        assertEquals(ownCalls, stockCalls, what);
        assertEquals(ownCalls.length > 0, what.startsWith("name servers"));
      }
    },
  );
}

function deviceState(lab: Lab, { name }: Site): Promise<string> {
  return lab.a.run(["wg", "showconf", name]);
}

labTest(
  "what one has set up, the other takes down: wgd up and wg-quick down, wg-quick up and wgd down",
  STOCK,
  async (lab) => {
    const site = await makeSite(lab);
    writeResolvconf(lab);
    writeWgd(lab);
    await addRoutes(lab);
    const path = writeSite(lab, site, {
      interface: `${BOTH}\nDNS = 10.9.0.2`,
      allowed: "0.0.0.0/0, ::/0",
    });
    await lab.a.run(["sysctl", "-q", "net.ipv4.conf.all.src_valid_mark=1"]);
    const before = await dump(lab);
    await succeed(runWith(lab, ["wg-quick", "up", path]));
    await wgd(lab, "down", path);
    assertEquals(await dump(lab), before);

    await wgd(lab, "up", path);
    await succeed(runWith(lab, ["wg-quick", "down", path]));
    await until("the daemon to end", () => !exists(socketPath(site.name)));
    assertEquals(await dump(lab), before);
    // wgd's notes are left; they do no harm.
    await wgd(lab, "down", path);
    assertEquals(await dump(lab), before);
    const again = await runWith(lab, [...wgdCommand(), "down", path]);
    assertEquals(again.code, 1);
    assertMatch(again.stderr, /is not a WireGuard interface/);
  },
);

labTest("wgd save writes what wg-quick save writes", STOCK, async (lab) => {
  const site = await makeSite(lab);
  writeResolvconf(lab);
  writeWgd(lab);
  const other = await generateKeys();
  const path = writeSite(lab, site, {
    interface: `# A comment
${BOTH}, 10.9.7.1/32
DNS = 10.9.0.2
DNS = fd09::2
MTU = 1380
Table = auto
SaveConfig = true
PreUp = true %i
PostUp = true post
PreDown = true 1
PreDown = true 2
PostDown = true`,
    allowed: "10.9.0.2/32, 0.0.0.0/0",
    more: `PersistentKeepalive = 25

[Peer]
PublicKey = ${other.public}
PresharedKey = ${other.private}
`,
  });
  await wgd(lab, "up", path);
  const original = Deno.readTextFileSync(path);
  // The state differs from the file.
  const change = ["wg", "set", site.name, "peer", other.public];
  await lab.a.run([...change, "allowed-ips", "10.50.0.0/16"]);
  await lab.a.ip("address", "add", "10.60.0.1/24", "dev", site.name);
  await succeed(runWith(lab, ["wg-quick", "save", path]));
  const expected = Deno.readTextFileSync(path)
    .replace(/^Address = fe80:.*\n/m, "");
  Deno.writeTextFileSync(path, original);
  Deno.chmodSync(path, 0o644);
  await wgd(lab, "save", path);
  assertEquals(Deno.readTextFileSync(path), expected);
  assertEquals((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
  assert(expected.includes("10.60.0.1/24") && expected.includes("10.50.0.0"));

  // `down` saves, because of SaveConfig; `up` takes what was saved.
  Deno.writeTextFileSync(path, original);
  await wgd(lab, "down", path);
  assertEquals(Deno.readTextFileSync(path), expected);
  await wgd(lab, "up", path);
  await wgd(lab, "down", path);
  assertEquals(Deno.readTextFileSync(path), expected);
  assert(!exists(`${path}.tmp`));
});

labTest("wgd strip prints what wg-quick strip prints", {
  programs: ["wg-quick"],
}, async (lab) => {
  const { private: key } = await generateKeys();
  const files = [
    `[Interface]\nPrivateKey = ${key}\nAddress = 10.0.0.1/24\n\n[Peer]\n`,
    `# head\n[Interface]  # of it\n  ADDRESS=1.2.3.4\n\tListenPort = 1 # x\nmtu=1`,
    "[Interface]\r\nPrivateKey = x\r\nDNS = 1.1.1.1\r\nTable = off\r\n",
    "[Interface]\nPostUp = a # b\n#PreUp = c\n[Peer]\nMTU = 1\n[interface]\n" +
    "SaveConfig = true\nMTU\nPre Up = x\nAddress\n = y\n\n\n",
    "MTU = 1\n[Interface]MTU = 2\n",
    "",
    "[Interface]\nSaveConfig = maybe\n",
    "[Interface]\nSaveConfig = True\n",
  ];
  for (const [i, text] of files.entries()) {
    const path = lab.file(text, `f${i}.conf`);
    const [stock, own] = await Promise.all([
      lab.a.attempt(["wg-quick", "strip", path]),
      lab.a.attempt([...wgdCommand(), "strip", path]),
    ]);
    assertEquals([own.code, own.stdout], [stock.code, stock.stdout], text);
  }
});

labTest(
  "the name of an interface means its file in /etc/wireguard",
  { programs: ["unshare"] },
  async (lab) => {
    const site = await makeSite(lab);
    const path = writeSite(lab, site);
    // A file system of its own over /etc/wireguard.
    const script = `mount -t tmpfs none /etc/wireguard
cp "$0" /etc/wireguard/ && cd / && "$@" up ${site.name} &&
wg show ${site.name} listen-port && "$@" down ${site.name} &&
! "$@" up nothing`;
    const { code, stdout, stderr } = await lab.a.attempt(
      ["unshare", "-m", "sh", "-c", script, path, ...wgdCommand()],
    );
    assertEquals(code, 0, stderr);
    assertEquals(stdout, `${PORT.a}\n`);
    assertMatch(stderr, /\/etc\/wireguard\/nothing.conf: no such file\n$/);
    for (const bad of ["a/b", "an-interface-too-long.conf", "x y", ".."]) {
      const up = await lab.a.attempt([...wgdCommand(), "up", bad]);
      assertEquals(up.code, 2, up.stderr);
    }
  },
);
