/**
 * What the kernel's driver does with packets that have nowhere to go, and what
 * its datagrams look like outside (kernel: netns.sh's parts 4, 6 and 9).
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { type Lab, Namespace } from "./lab.ts";
import { Capture, type Datagram } from "./pcap.ts";
import { until } from "./process.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings, assertTcp, ping } from "./traffic.ts";
import { generateKeys, INNER, PORT, Tunnel } from "./tunnel.ts";

const NOWHERE = { v4: "10.9.0.77", v6: "fd09::77" };
const UNREACHABLE_4 =
  `From ${NOWHERE.v4} icmp_seq=1 Destination Host Unreachable`;
const UNREACHABLE_6 =
  `From ${NOWHERE.v6} icmp_seq=1 Destination unreachable: Address unreachable`;
/** A connection that is refused by ICMP fails long before this. */
const CONNECT_S = 20;

async function setting(
  namespace: Namespace,
  path: string,
  value: number,
): Promise<void> {
  await namespace.run(["sh", "-c", `echo ${value} > /proc/sys/net/${path}`]);
}

for (const filter of [0, 1]) {
  labTest(
    `wgd answers for an address that no peer has, with rp_filter ${filter}`,
    {},
    async (lab) => {
      const tunnel = await Tunnel.make(lab);
      for (const link of ["all", tunnel.a.name]) {
        await setting(lab.a, `ipv4/conf/${link}/rp_filter`, filter);
      }
      const lost = await ping(lab.a, NOWHERE.v4, { count: 2 });
      assertEquals(lost.received, 0);
      assert(lost.output.includes(UNREACHABLE_4), lost.output);
      const lost6 = await ping(lab.a, NOWHERE.v6, { count: 2 });
      assert(lost6.output.includes(UNREACHABLE_6), lost6.output);
      for (const address of Object.values(NOWHERE)) {
        const connect = `exec 3<>/dev/tcp/${address}/9`;
        const { stderr } = await lab.a.attempt(
          ["bash", "-c", connect],
          { timeoutS: CONNECT_S },
        );
        assertMatch(stderr, /No route to host/, address);
      }
      await assertPings(lab.a, INNER.b.v4);
    },
  );
}

labTest(
  "wgd answers for a peer whose endpoint is not known, until it is",
  {},
  async (lab) => {
    await Tunnel.make(lab);
    // Only a knows where the other is.
    const lost = await ping(lab.b, INNER.a.v4, { count: 1 });
    assertMatch(lost.output, /From 10\.9\.0\.1 .*Destination Host Unreachable/);
    const lost6 = await ping(lab.b, INNER.a.v6, { count: 1 });
    assertMatch(lost6.output, /Destination unreachable: Address unreachable/);
    await assertPings(lab.a, INNER.b.v4);
    await assertPings(lab.b, INNER.a.v4);
    await assertPings(lab.b, INNER.a.v6);
  },
);

labTest(
  "wireguard-go says nothing about addresses that no peer has",
  { programs: ["wireguard-go"] },
  async (lab) => {
    await Tunnel.make(lab, { a: "wireguard-go" });
    const { received, output } = await ping(lab.a, NOWHERE.v4, { count: 1 });
    assertEquals(received, 0);
    assert(!output.includes("Unreachable"), output);
  },
);

labTest(
  "an error finds its way back to a host behind NAT",
  { programs: ["nft"] },
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    const client = await lab.addNamespace(new Namespace(`${lab.id}c`, lab));
    await lab.a.ip(
      ...["link", "add", "vc", "type", "veth"],
      ...["peer", "name", "vca", "netns", client.name],
    );
    await lab.connect(lab.a, "vc", "10.66.0.1/24");
    await lab.connect(client, "vca", "10.66.0.2/24");
    await client.ip("route", "add", "default", "via", "10.66.0.1");
    await setting(lab.a, "ipv4/ip_forward", 1);
    await lab.a.run(["nft", "-f", "-"], {
      stdin: `table ip nat { chain c { type nat hook postrouting priority 100;
        oifname ${tunnel.a.name} masquerade; }; }`,
    });
    await assertPings(client, INNER.b.v4);
    const { output } = await ping(client, NOWHERE.v4, { count: 1 });
    assert(output.includes(UNREACHABLE_4), output);
  },
);

/** Pings and TCP that make datagrams longer than the link takes. */
async function capturedFragments(
  lab: Lab,
  outer: "v4" | "v6",
): Promise<Datagram[]> {
  await Tunnel.make(lab, { outer });
  await lab.a.ip("link", "set", "va", "mtu", "1400");
  await lab.b.ip("link", "set", "vb", "mtu", "1400");
  await assertPings(lab.a, INNER.b.v4);
  const capture = await Capture.start(lab.a, "va");
  await assertPings(lab.a, INNER.b.v4, { sizeBytes: 1392 });
  await assertPings(lab.b, INNER.a.v6, { sizeBytes: 1372 });
  await assertPings(lab.a, INNER.b.v4, { sizeBytes: 4000 });
  await assertTcp(lab.a, lab.b, INNER.b.v4);
  return await capture.stop();
}

for (const outer of ["v4", "v6"] as const) {
  labTest(
    `over IP${outer} datagrams longer than the link's MTU go in fragments, without DF`,
    { programs: ["tcpdump", "iperf3"] },
    async (lab) => {
      const datagrams = await capturedFragments(lab, outer);
      const ours = datagrams.filter(({ destinationPort }) =>
        destinationPort === PORT.a || destinationPort === PORT.b
      );
      // Over IPv6 a fragment does not show itself as UDP.
      assert(ours.length > 100, `${ours.length} datagrams`);
      assertEquals(ours.filter(({ dontFragment }) => dontFragment), []);
    },
  );
}

labTest(
  "padding goes up to the interface's MTU and not beyond",
  { programs: ["tcpdump"] },
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    await assertPings(lab.a, INNER.b.v4);
    const sizes = [1391, 1390, 1377, 1376, 1375, 100];
    for (const mtu of [1420, 1419, 1413]) {
      await lab.a.ip("link", "set", tunnel.a.name, "mtu", String(mtu));
      await lab.b.ip("link", "set", tunnel.b.name, "mtu", String(mtu));
      const capture = await Capture.start(lab.a, "va");
      for (const size of sizes) {
        await assertPings(lab.a, INNER.b.v4, { count: 1, sizeBytes: size });
      }
      const sent = (await capture.stop()).filter(({ payload }) =>
        payload[0] === 4 && payload.length > 32
      );
      // Each goes two ways, and again where the machine is slow.
      const once = (lengths: number[]): number[] =>
        lengths.filter((length, i) => length !== lengths[i - 1]);
      const lengths = once(
        sizes.filter((size) => size + 28 <= mtu).map((size) =>
          Math.min(mtu, Math.ceil((size + 28) / 16) * 16) + 32
        ),
      );
      const whole = once(sent.map(({ payload }) => payload.length));
      assertEquals(whole.slice(-lengths.length), lengths, `MTU ${mtu}`);
    }
  },
);

for (const b of ["wgd", "wireguard-go"] as const) {
  labTest(
    `${b} drops packets from addresses that their peer is not allowed`,
    { programs: b === "wgd" ? [] : [b] },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { b });
      await assertPings(lab.a, INNER.b.v4);
      await lab.a.ip("addr", "add", "10.9.0.201/32", "dev", tunnel.a.name);
      const from = ["ping", "-n", "-c", "3", "-i", "0.1", "-W", "1"];
      const { stdout } = await lab.a.attempt(
        [...from, "-I", "10.9.0.201", INNER.b.v4],
      );
      assertMatch(stdout, / 0 received/);
      await tunnel.b.set(
        ...["peer", tunnel.keys.a.public, "allowed-ips"],
        `${INNER.a.v4}/32,10.9.0.201/32,${INNER.a.v6}/128`,
      );
      const { stdout: then } = await lab.a.attempt(
        [...from, "-I", "10.9.0.201", INNER.b.v4],
      );
      assertMatch(then, / 3 received/);
    },
  );
}

async function assertPaddingFollows(
  lab: Lab,
  b: Implementation,
): Promise<void> {
  const tunnel = await Tunnel.make(lab, { b });
  const inner = { v4: `${INNER.b.v4}/32`, v6: `${INNER.b.v6}/128` };
  for (const [family, headers] of [["v4", 28], ["v6", 48]] as const) {
    await assertPings(lab.a, INNER.b[family]);
    // 1297 bytes, which 16 does not divide: 1312, or what the route takes.
    for (const [mtu, padded] of [[1300, 1300], [1299, 1299], [0, 1312]]) {
      const only = mtu === 0 ? [] : ["mtu", String(mtu)];
      await lab.a.ip(
        ...["route", "replace", inner[family], "dev", tunnel.a.name, ...only],
      );
      const lengthsOf = async (): Promise<number[]> => {
        const capture = await Capture.start(lab.a, "va");
        await assertPings(lab.a, INNER.b[family], {
          sizeBytes: 1297 - headers,
        });
        return (await capture.stop())
          .filter(({ destinationPort }) => destinationPort === PORT.b)
          .map(({ payload }) => payload.length - 32);
      };
      // The change is known in time. Then the first packet asks about the
      // route again, as tcpdump's start changes the link, and goes by none.
      let lengths: number[] = [];
      await until(
        `padding to ${padded} by IP${family}`,
        async () => {
          lengths = await lengthsOf();
          return lengths.slice(1).every((length) => length === padded);
        },
        10_000,
      );
      assertEquals(lengths.length, 3, `${family} ${mtu}`);
      assert([padded, 1312].includes(lengths[0]), `${family} ${mtu}`);
    }
  }
}

for (const b of ["wgd", "wireguard-go"] as const) {
  labTest(
    `padding to ${b} follows the MTU of the route`,
    { programs: ["tcpdump", ...b === "wgd" ? [] : [b]] },
    (lab) => assertPaddingFollows(lab, b),
  );
}

for (const outer of ["v4", "v6"] as const) {
  labTest(
    `over IP${outer} a route to the endpoint by the interface itself makes no loop`,
    { programs: ["tcpdump", "iperf3"] },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { outer });
      await assertPings(lab.a, INNER.b.v4);
      const endpoint = outer === "v4" ? "10.77.0.2" : "fd77::2";
      const bits = outer === "v4" ? 32 : 128;
      // As with 0.0.0.0/0 and a default route by the interface.
      await tunnel.a.set(
        ...["peer", tunnel.keys.b.public, "allowed-ips"],
        `${INNER.b.v4}/32,${INNER.b.v6}/128,${endpoint}/${bits}`,
      );
      const route = [`${endpoint}/${bits}`, "dev", tunnel.a.name];
      await lab.a.ip("route", "add", ...route);
      const sentBytes = async (): Promise<number> =>
        (await tunnel.a.peers())[0].txBytes;
      const before = await sentBytes();
      const lost = await ping(lab.a, INNER.b.v4, {
        count: 20,
        sizeBytes: 1300,
      });
      assertEquals(lost.received, 0);
      const sent = await sentBytes() - before;
      // One way through the tunnel each, and what went before it was known;
      // each packet would go round until it were 64 KiB long, 30 MB in all.
      assert(sent < 1_000_000, `${sent} bytes sent`);
      await until(
        "the daemon to tell of it",
        () =>
          /routing loop: .*10\.77\.0\.2|routing loop: .*fd77::2/.test(
            tunnel.a.process.said,
          ),
      );
      await lab.a.ip("route", "del", ...route);
      await assertPings(lab.a, INNER.b.v4);
      // Through the tunnel, and back out of it: no loop, though the port is ours.
      assertEquals(tunnel.a.process.said.match(/routing loop/g)?.length, 1);
    },
  );
}

labTest(
  "a tunnel inside a tunnel from the same port passes",
  {},
  async (lab) => {
    // b forwards what c sends from the port that b itself uses.
    const tunnel = await Tunnel.make(lab);
    const client = await lab.addNamespace(new Namespace(`${lab.id}c`, lab));
    await lab.b.ip(
      ...["link", "add", "vc", "type", "veth"],
      ...["peer", "name", "vca", "netns", client.name],
    );
    await lab.connect(lab.b, "vc", "10.66.0.1/24");
    await lab.connect(client, "vca", "10.66.0.2/24");
    await client.ip("route", "add", "default", "via", "10.66.0.1");
    await setting(lab.b, "ipv4/ip_forward", 1);
    await tunnel.a.set(
      ...["peer", tunnel.keys.b.public, "allowed-ips"],
      `${INNER.b.v4}/32,${INNER.b.v6}/128,10.66.0.0/24`,
    );
    await lab.a.ip("route", "add", "10.66.0.0/24", "dev", tunnel.a.name);
    await assertPings(lab.a, INNER.b.v4);
    const keys = [await generateKeys(), await generateKeys()];
    const inside = await client.daemon("wgd");
    const outside = await lab.a.daemon("wgd");
    await inside.set(
      ...["private-key", lab.file(keys[0].private)],
      ...["listen-port", String(PORT.b)],
      ...["peer", keys[1].public, "allowed-ips", "10.8.0.2/32"],
      ...["endpoint", `${INNER.a.v4}:${PORT.b}`],
    );
    await outside.set(
      ...["private-key", lab.file(keys[1].private)],
      ...["listen-port", String(PORT.b)],
      ...["peer", keys[0].public, "allowed-ips", "10.8.0.1/32"],
    );
    await inside.up("10.8.0.1/24");
    await outside.up("10.8.0.2/24");
    await assertPings(client, "10.8.0.2", { sizeBytes: 1000 });
    assert(!tunnel.b.process.said.includes("routing loop"));
  },
);

/** Counts redirects at a hook of a namespace. */
async function countRedirects(
  namespace: Namespace,
  hook: "input" | "output",
): Promise<() => Promise<number>> {
  await namespace.run(["nft", "-f", "-"], {
    stdin: `table inet redirects { chain seen {
      type filter hook ${hook} priority 0;
      icmp type redirect counter;
      icmpv6 type nd-redirect counter;
    }; }`,
  });
  return async () => {
    const list = ["nft", "list", "table", "inet", "redirects"];
    return [...(await namespace.run(list)).matchAll(/counter packets (\d+)/g)]
      .reduce((sum, [, count]) => sum + Number(count), 0);
  };
}

labTest(
  "no redirect leaves for a peer whose packets go to another peer, and the system's setting stays",
  { programs: ["nft"] },
  async (lab) => {
    const redirects = (link: string): Promise<string> =>
      lab.a.run(["cat", `/proc/sys/net/ipv4/conf/${link}/send_redirects`]);
    // A new namespace takes it over from the first one.
    await setting(lab.a, "ipv4/conf/all/send_redirects", 1);
    // a is the router between b and c.
    const { a, b } = await Tunnel.make(lab);
    assertEquals(await redirects("all"), "1\n");
    assertEquals(await redirects(a.name), "0\n");
    const c = await lab.b.daemon("wgd");
    const keys = await generateKeys();
    // Before c asks for a session, which it does as soon as it is up.
    await a.set("peer", keys.public, "allowed-ips", "10.9.0.3/32,fd09::3/128");
    await c.set(
      ...["private-key", lab.file(keys.private), "peer"],
      ...[await a.show("public-key"), "endpoint", `10.77.0.1:${PORT.a}`],
      ...["allowed-ips", "10.9.0.0/24,fd09::/64", "persistent-keepalive", "1"],
    );
    const far = await lab.addNamespace(new Namespace(`${lab.id}c`, lab));
    await lab.b.ip("link", "set", c.name, "netns", far.name);
    await lab.connect(far, c.name, "10.9.0.3/24", "fd09::3/64");
    await b.set(
      ...["peer", await a.show("public-key")],
      ...["allowed-ips", "10.9.0.0/24,fd09::/64"],
    );
    // IPv6 sends them from link-local addresses alone.
    await lab.connect(lab.a, a.name, "fe80::1/64");
    await setting(lab.a, "ipv4/ip_forward", 1);
    await setting(lab.a, "ipv6/conf/all/forwarding", 1);
    const [made, seen] = await Promise.all([
      countRedirects(lab.a, "output"),
      countRedirects(lab.b, "input"),
    ]);
    await assertPings(lab.a, INNER.b.v4);
    await assertPings(far, INNER.a.v4);
    await assertPings(lab.b, "10.9.0.3", { count: 3 });
    await assertPings(lab.b, "fd09::3", { count: 3 });
    assert(await made() >= 2, `${await made()} redirects`);
    assertEquals(await seen(), 0);
    await until("all of them to be counted", async () => {
      const argv = [...wgdCommand(), "show", a.name, "--stats"];
      const counted = /tx_redirect\D+(\d+)/.exec(await lab.a.run(argv))?.[1];
      return Number(counted) === await made();
    });
  },
);

labTest("the interface has no address of its own making", {}, async (lab) => {
  const { a } = await Tunnel.make(lab);
  const link = await lab.a.ip("-d", "link", "show", a.name);
  assertMatch(link, /addrgenmode none/);
  const addresses = await lab.a.ip("-6", "address", "show", a.name);
  assert(!addresses.includes("fe80::"), addresses);
});

labTest(
  "a system without IPv6 has nothing to set of it",
  {},
  async (lab) => {
    const path = "/proc/sys/net/ipv6/conf/default/disable_ipv6";
    await lab.a.run(["sh", "-c", `echo 1 > ${path}`]);
    const daemon = await lab.a.daemon("wgd", { env: { LOG_LEVEL: "verbose" } });
    assert(!daemon.process.said.includes("cannot"), daemon.process.said);
  },
);
