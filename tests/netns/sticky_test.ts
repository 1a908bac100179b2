/**
 * Sticky sources, marks and ports on machines with more than one address and
 * more than one way (kernel: netns.sh's last part but two; reference §6).
 */
import { assert, assertEquals } from "@std/assert";
import type { Daemon, Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { Capture } from "./pcap.ts";
import { delay, until } from "./process.ts";
import { assertPings, iperf, Pinger } from "./traffic.ts";
import { INNER, PORT, Tunnel } from "./tunnel.ts";

/** A family of addresses outside the tunnel. */
interface Outer {
  readonly name: "v4" | "v6";
  /** Second address of b on the same link. */
  readonly second: string;
  /** Address of b on another link. */
  readonly elsewhere: string;
  readonly bits: string;
  /** As in an endpoint. */
  text(address: string): string;
}

const V4: Outer = {
  name: "v4",
  second: "10.77.0.77",
  elsewhere: "10.50.0.1",
  bits: "24",
  text: (address) => address,
};
const V6: Outer = {
  name: "v6",
  second: "fd77::77",
  elsewhere: "fd50::1",
  bits: "64",
  text: (address) => `[${address}]`,
};
const MARKED_ONLY = "table inet marks { chain out { " +
  "type filter hook output priority 0; " +
  `udp dport ${PORT.b} meta mark != 0x51 drop; }\n}\n`;
/** Ways of wgd's, and who speaks to it. */
const WAYS: readonly (readonly [readonly string[], Implementation])[] = [
  [[], "wgd"],
  [["--offload", "none"], "wgd"],
  [["--threads", "2"], "wgd"],
  [[], "wireguard-go"],
];
const FARS: readonly Implementation[] = ["wgd", "wireguard-go"];

/** Programs that a far end takes. */
function programsOf(far: Implementation): string[] {
  return far === "wgd" ? [] : [far];
}

async function endpointOf(daemon: Daemon): Promise<string> {
  return (await daemon.peers())[0].endpoint;
}

/** Points a at an address of b, and lets it speak there. */
async function speakTo(
  tunnel: Tunnel,
  outer: Outer,
  address: string,
): Promise<string> {
  const endpoint = `${outer.text(address)}:${PORT.b}`;
  await tunnel.a.set("peer", tunnel.keys.b.public, "endpoint", endpoint);
  await assertPings(tunnel.lab.a, INNER.b.v4);
  return endpoint;
}

/** Second address of b, and one on another link that a has a route to. */
async function addAddresses(lab: Lab, outer: Outer): Promise<void> {
  // Deprecated: the system never chooses it by itself.
  const lifetime = outer === V6 ? ["nodad", "preferred_lft", "0"] : [];
  await lab.b.ip(
    ...["addr", "add", `${outer.second}/${outer.bits}`, "dev", "vb"],
    ...lifetime,
  );
  await lab.b.ip(
    ...["link", "add", "elsewhere", "type", "veth"],
    ...["peer", "name", "nobody"],
  );
  await lab.b.ip("link", "set", "nobody", "up");
  await lab.connect(lab.b, "elsewhere", `${outer.elsewhere}/${outer.bits}`);
  const via = outer === V4 ? "10.77.0.2" : "fd77::2";
  await lab.a.ip("route", "add", outer.elsewhere, "via", via, "dev", "va");
}

for (const outer of [V4, V6]) {
  for (const [args, far] of WAYS) {
    const how = ["wgd", ...args].join(" ");

    labTest(
      `${how} over IP${outer.name}: whole streams are answered from the address that ${far} spoke to`,
      { programs: ["tcpdump", "iperf3", ...programsOf(far)] },
      async (lab) => {
        const options = { a: far, outer: outer.name, daemon: { args } };
        const tunnel = await Tunnel.make(lab, options);
        await addAddresses(lab, outer);
        for (const address of [outer.second, outer.elsewhere]) {
          const endpoint = await speakTo(tunnel, outer, address);
          const capture = await Capture.start(lab.a, "va");
          await iperf(lab.a, lab.b, INNER.b.v4, ["-n", "2M"]);
          await iperf(lab.a, lab.b, INNER.b.v4, ["-n", "2M", "-R"]);
          const ofB = (await capture.stop()).filter(({ sourcePort }) =>
            sourcePort === PORT.b
          );
          assert(ofB.length > 20, `${ofB.length} frames`);
          // What has left as one message is one frame on this link.
          const merged = ofB.some(({ payload }) => payload.length > 2_000);
          assertEquals(merged, !args.includes("none"));
          assertEquals([...new Set(ofB.map(({ source }) => source))], [
            address,
          ]);
          assertEquals(await endpointOf(tunnel.a), endpoint);
        }
      },
    );
  }

  for (const far of FARS) {
    labTest(
      `wgd over IP${outer.name}: an address that goes away in a stream to ${far} is not kept`,
      { programs: ["tcpdump", "iperf3", ...programsOf(far)] },
      async (lab) => {
        const tunnel = await Tunnel.make(lab, { a: far, outer: outer.name });
        await addAddresses(lab, outer);
        await speakTo(tunnel, outer, outer.second);
        const before = (await tunnel.b.peers())[0].latestHandshakeS;
        const stream = iperf(lab.b, lab.a, INNER.a.v4, ["-t", "2"]);
        await delay(1_000);
        const address = `${outer.second}/${outer.bits}`;
        await lab.b.ip("addr", "del", address, "dev", "vb");
        const { end } = await stream;
        assert(end.sum_received.bytes > 1_000_000);
        const first = outer === V4 ? "10.77.0.2" : "fd77::2";
        assertEquals(
          await endpointOf(tunnel.a),
          `${outer.text(first)}:${PORT.b}`,
        );
        assertEquals((await tunnel.b.peers())[0].latestHandshakeS, before);
      },
    );
  }

  labTest(
    `wgd over IP${outer.name}: port and mark forget the source, and keep the session`,
    {},
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { outer: outer.name });
      await addAddresses(lab, outer);
      const first = outer.text(outer === V4 ? "10.77.0.2" : "fd77::2");
      for (const change of [["fwmark", "0x51"], ["listen-port", "5353"]]) {
        const endpoint = await speakTo(tunnel, outer, outer.second);
        const before = (await tunnel.b.peers())[0].latestHandshakeS;
        await delay(1_100);
        assertEquals(await endpointOf(tunnel.a), endpoint);
        await tunnel.b.set(...change);
        // b speaks first: nobody can have told it a source again.
        await assertPings(lab.b, INNER.a.v4);
        const port = await tunnel.b.show("listen-port");
        assertEquals(await endpointOf(tunnel.a), `${first}:${port}`);
        assertEquals((await tunnel.b.peers())[0].latestHandshakeS, before);
      }
    },
  );

  labTest(
    `wgd over IP${outer.name}: all that leaves has the mark`,
    { programs: ["nft"] },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { outer: outer.name });
      await lab.a.run(["nft", MARKED_ONLY]);
      const answered = async (): Promise<boolean> =>
        (await lab.a.attempt(["ping", "-c", "1", "-W", "1", INNER.b.v4]))
          .code === 0;
      assert(!await answered(), "nothing leaves without the mark");
      await tunnel.a.set("fwmark", "0x51");
      await until("an answer", answered, 15_000);
      await tunnel.a.set("listen-port", "5454");
      await assertPings(lab.a, INNER.b.v4);
      await tunnel.a.set("fwmark", "0");
      assert(!await answered(), "the mark is taken away again");
    },
  );
}

for (const far of FARS) {
  labTest(
    `a better route to ${far} by another link forgets the source, and a worse one does not`,
    { programs: programsOf(far) },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { b: far });
      const { a, b } = lab;
      await a.ip(
        ...["link", "add", "va2", "type", "veth"],
        ...["peer", "name", "vb2", "netns", b.name],
      );
      await lab.connect(a, "va2", "10.77.0.3/24");
      await lab.connect(b, "vb2");
      for (const [space, link] of [[a, "va2"], [b, "vb2"]] as const) {
        // Both links have the same network: answers come where they may.
        const base = `/proc/sys/net/ipv4/conf`;
        await space.run(["sh", "-c", `echo 2 >${base}/${link}/rp_filter`]);
        await space.run(["sh", "-c", `echo 2 >${base}/all/rp_filter`]);
      }
      await a.ip("route", "del", "10.77.0.0/24", "dev", "va2");
      await a.ip("route", "del", "10.77.0.0/24", "dev", "va");
      const network = ["10.77.0.0/24", "dev"];
      await a.ip("route", "add", ...network, "va", "src", "10.77.0.1");
      await a.ip(
        ...["route", "add", ...network, "va2", "src", "10.77.0.3"],
        ...["metric", "9"],
      );
      await b.ip("route", "add", "10.77.0.3", "dev", "vb2");
      const pinger = new Pinger(a, INNER.b.v4);
      await pinger.replies(3, 10_000);
      const endpoints = (): Promise<string> => endpointOf(tunnel.b);
      assertEquals(await endpoints(), `10.77.0.1:${PORT.a}`);
      // A route to somewhere else changes nothing.
      await a.ip("route", "add", "10.99.0.0/24", "dev", "va2");
      await delay(600);
      assertEquals(await endpoints(), `10.77.0.1:${PORT.a}`);
      await a.ip(
        ...["route", "add", "10.77.0.2/32", "dev", "va2", "src", "10.77.0.3"],
      );
      await until(
        "the better way to be taken",
        async () => await endpoints() === `10.77.0.3:${PORT.a}`,
      );
      await pinger.replies(3, 5_000);
    },
  );
}

labTest(
  "a rule for one mark alone is minded when sources are looked at",
  {},
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    const { a, b } = lab;
    await a.ip(
      ...["link", "add", "va2", "type", "veth"],
      ...["peer", "name", "vb2", "netns", b.name],
    );
    await lab.connect(a, "va2", "10.78.0.1/24");
    await lab.connect(b, "vb2", "10.78.0.2/24");
    await tunnel.a.set("fwmark", "0x51");
    const pinger = new Pinger(a, INNER.b.v4);
    await pinger.replies(3, 10_000);
    assertEquals(await endpointOf(tunnel.b), `10.77.0.1:${PORT.a}`);
    await a.ip(
      ...["route", "add", "10.77.0.2/32", "via", "10.78.0.2", "dev", "va2"],
      ...["src", "10.78.0.1", "table", "51"],
    );
    await a.ip("rule", "add", "fwmark", "0x51", "table", "51");
    await until(
      "the way of the rule to be taken",
      async () => await endpointOf(tunnel.b) === `10.78.0.1:${PORT.a}`,
    );
    await pinger.replies(3, 5_000);
  },
);
