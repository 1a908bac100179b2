/**
 * What of the kernel's list of namespace tests no other file here walks, with
 * wgd and with wireguard-go as the far end. ARCHITECTURE.md says where the rest
 * is.
 */
import { assert, assertEquals } from "@std/assert";
import type { Daemon, Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { type Lab, Namespace } from "./lab.ts";
import { run, until } from "./process.ts";
import { assertPings, assertTcp, iperf, ping } from "./traffic.ts";
import { generateKeys, INNER, OUTER, PORT, Tunnel } from "./tunnel.ts";

const FARS: readonly Implementation[] = ["wgd", "wireguard-go"];
/** The kernel's; the link below takes it in one piece. */
const BIG_MTU = 34_816;
const LINK_MTU = 65_535;
/** As many bytes may leave for a hundred pings into a loop. */
const LOOP_BYTES_MAX = 70_000;

/** And where the routes have to be asked for first; tens of MB else. */
const KNOWN_BYTES_MAX = 1_000_000;

/** Programs that a far end takes. */
function programsOf(far: Implementation): string[] {
  return far === "wgd" ? [] : [far];
}

async function allow(
  daemon: Daemon,
  peer: string,
  ...ranges: string[]
): Promise<void> {
  await daemon.set("peer", peer, "allowed-ips", ranges.join(","));
}

/** Joins two namespaces by one more link. */
async function join(
  lab: Lab,
  [one, link, address]: readonly [Namespace, string, string],
  [other, farLink, farAddress]: readonly [Namespace, string, string],
): Promise<void> {
  await one.ip(
    ...["link", "add", link, "type", "veth"],
    ...["peer", "name", farLink, "netns", other.name],
  );
  await lab.connect(one, link, address);
  await lab.connect(other, farLink, farAddress);
}

for (const far of FARS) {
  labTest(
    `wgd and ${far}: 4, 5 and 50 streams at once`,
    { programs: ["iperf3", ...programsOf(far)] },
    async (lab) => {
      await Tunnel.make(lab, { b: far });
      for (const streams of ["4", "5", "50"]) {
        await assertTcp(lab.a, lab.b, INNER.b.v4, ["-P", streams]);
      }
      await assertTcp(lab.a, lab.b, INNER.b.v6, ["-P", "5"]);
    },
  );

  labTest(
    `wgd and ${far}: packets of an MTU of ${BIG_MTU}`,
    { programs: ["iperf3", ...programsOf(far)] },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { b: far });
      await assertPings(lab.a, INNER.b.v4);
      for (
        const [space, link, name] of [
          [lab.a, "va", tunnel.a.name],
          [lab.b, "vb", tunnel.b.name],
        ] as const
      ) {
        await space.ip("link", "set", link, "mtu", String(LINK_MTU));
        await space.ip("link", "set", name, "mtu", String(BIG_MTU));
      }
      await assertPings(lab.a, INNER.b.v4, { sizeBytes: BIG_MTU - 28 });
      await assertPings(lab.b, INNER.a.v6, { sizeBytes: BIG_MTU - 48 });
      await assertTcp(lab.a, lab.b, INNER.b.v4);
      const udp = ["-u", "-b", "20M", "-l", "30000"];
      const { end } = await iperf(lab.a, lab.b, INNER.b.v4, udp);
      assert(end.sum_received.bytes > 1_000_000);
    },
  );

  labTest(
    `wgd drops what ${far} sends from an address that a peer has more specifically`,
    { programs: programsOf(far) },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { b: far });
      const { a, keys } = tunnel;
      await allow(a, keys.b.public, "10.9.0.0/24", "fd09::/64");
      await assertPings(lab.a, INNER.b.v4);
      await assertPings(lab.b, INNER.a.v4);
      const other = (await generateKeys()).public;
      await allow(a, other, `${INNER.b.v4}/32`, `${INNER.b.v6}/128`);
      for (const address of [INNER.a.v4, INNER.a.v6]) {
        const { received } = await ping(lab.b, address, { count: 2 });
        assertEquals(received, 0, address);
      }
      await a.set("peer", other, "remove");
      await assertPings(lab.b, INNER.a.v4);
      await assertPings(lab.b, INNER.a.v6);
    },
  );

  labTest(
    `wgd with a new private key has a session with ${far} at once`,
    { programs: programsOf(far) },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { b: far });
      await assertPings(lab.a, INNER.b.v4);
      // The last handshake was a moment ago: it holds up none of another key.
      const keys = await generateKeys();
      await tunnel.b.set(
        ...["peer", tunnel.keys.a.public, "remove", "peer", keys.public],
        ...["allowed-ips", `${INNER.a.v4}/32`],
      );
      await tunnel.a.set("private-key", lab.file(keys.private));
      await lab.a.run(["ping", "-c", "1", "-W", "1", INNER.b.v4]);
    },
  );

  labTest(
    `a tunnel of wgd's inside a tunnel between wgd and ${far}`,
    { programs: ["iperf3", ...programsOf(far)] },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { b: far });
      await assertPings(lab.a, INNER.b.v4);
      const [one, two] = await Promise.all([
        lab.a.daemon("wgd"),
        lab.b.daemon(far),
      ]);
      const { keys } = tunnel;
      await one.set(
        ...["private-key", lab.file(keys.a.private), "listen-port", "1111"],
        ...["peer", keys.b.public, "allowed-ips", "10.8.0.2/32,fd08::2/128"],
        ...["endpoint", `[${INNER.b.v6}]:2222`],
      );
      await two.set(
        ...["private-key", lab.file(keys.b.private), "listen-port", "2222"],
        ...["peer", keys.a.public, "allowed-ips", "10.8.0.1/32,fd08::1/128"],
      );
      await one.up("10.8.0.1/24", "fd08::1/64");
      await two.up("10.8.0.2/24", "fd08::2/64");
      for (const [space, { name }] of [[lab.a, one], [lab.b, two]] as const) {
        await space.ip("link", "set", name, "mtu", "1340");
      }
      await assertPings(lab.a, "10.8.0.2", { sizeBytes: 1312 });
      await assertPings(lab.b, "fd08::1");
      await assertTcp(lab.a, lab.b, "10.8.0.2");
      assertEquals(tunnel.a.process.said + one.process.said, "");
    },
  );

  labTest(
    `one interface of wgd's reaches a peer through another one, ${far}`,
    { programs: programsOf(far) },
    async (lab) => {
      // Its datagrams come back by the interface once, and leave by the other.
      const tunnel = await Tunnel.make(lab, { b: far });
      const { a } = tunnel;
      const keys = await generateKeys();
      const inner = await lab.b.daemon(far);
      await inner.set(
        ...["private-key", lab.file(keys.private), "listen-port", "5"],
        ...["peer", tunnel.keys.a.public, "allowed-ips", "10.8.0.1/32"],
      );
      await inner.up("10.8.0.2/24");
      await a.set(
        ...["peer", keys.public, "allowed-ips", "10.8.0.2/32"],
        ...["endpoint", `${INNER.b.v4}:5`],
      );
      await lab.a.ip("addr", "add", "10.8.0.1/24", "dev", a.name);
      await assertPings(lab.a, "10.8.0.2", { count: 10 });
      await assertPings(lab.a, INNER.b.v4);
      assertEquals(a.process.said, "");
      // Each through the other is a loop.
      await a.set(
        ...["peer", tunnel.keys.b.public, "endpoint", `10.8.0.2:${PORT.b}`],
      );
      const sent = async (): Promise<number> =>
        (await a.peers()).reduce((sum, { txBytes }) => sum + txBytes, 0);
      const before = await sent();
      await lab.a.attempt(["ping", "-f", "-c", "100", "-W", "1", "10.8.0.2"]);
      const bytes = await sent() - before;
      // Until the system was asked about the way they go round.
      assert(bytes < KNOWN_BYTES_MAX, `${bytes} bytes`);
      await until("a word", () => /routing loop/.test(a.process.said));
    },
  );

  labTest(
    `a loop of wgd's datagrams to ${far} through another namespace is bounded`,
    { programs: programsOf(far) },
    async (lab) => {
      // The sockets are in a, the interface in c, and a has no way but by c.
      const inside = await lab.addNamespace(new Namespace(`${lab.id}c`, lab));
      const { a, keys } = await Tunnel.make(lab, { b: far });
      await lab.a.ip("link", "set", a.name, "netns", inside.name);
      await lab.connect(inside, a.name, `${INNER.a.v4}/24`);
      await assertPings(inside, INNER.b.v4);
      await join(lab, [lab.a, "vi", "10.55.0.1/24"], [
        inside,
        "vo",
        "10.55.0.2/24",
      ]);
      const forward = "echo 1 > /proc/sys/net/ipv4/ip_forward";
      await inside.run(["sh", "-c", forward]);
      const { b } = OUTER.v4;
      await allow(a, keys.b.public, `${INNER.b.v4}/32`, `${b}/32`);
      await inside.ip("route", "add", b, "dev", a.name);
      await lab.a.ip("route", "add", b, "via", "10.55.0.2");
      const before = (await a.peers())[0].txBytes;
      await inside.attempt(["ping", "-f", "-c", "100", "-W", "1", INNER.b.v4]);
      const bytes = (await a.peers())[0].txBytes - before;
      assert(bytes > 0 && bytes < LOOP_BYTES_MAX, `${bytes} bytes`);
      await until("a word", () => /routing loop/.test(a.process.said));
      await lab.a.ip("route", "del", b);
      await assertPings(inside, INNER.b.v4);
    },
  );

  labTest(
    `a program bound to wgd's interface reaches ${far} against the routes`,
    { programs: programsOf(far) },
    async (lab) => {
      const { a } = await Tunnel.make(lab, { b: far });
      await assertPings(lab.a, INNER.b.v4);
      await lab.a.ip("route", "add", "unreachable", `${INNER.b.v4}/32`);
      const one = ["ping", "-c", "1", "-W", "2"];
      const { code } = await lab.a.attempt([...one, INNER.b.v4]);
      assert(code !== 0, "the routes lead elsewhere");
      await lab.a.run([...one, "-I", a.name, INNER.b.v4]);
    },
  );
}

/** Peers of as many allowed IPs of IPv6, as a file. */
async function peersOf(counts: readonly number[]): Promise<string> {
  const peers = await Promise.all(counts.map(async (count, i) => {
    const key = (await run(["wg", "genpsk"])).trim();
    const ips = Array.from(
      { length: count },
      (_, j) => `fd00:${i}::${j.toString(16)}/128`,
    );
    return `[Peer]\nPublicKey = ${key}\nAllowedIPs = ${ips.join(", ")}\n`;
  }));
  return peers.join("\n");
}

labTest(
  "130,560 allowed IPs of one peer, 197 of IPv6, and 30 peers are read back",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const key = (await generateKeys()).public;
    const many = Array.from({ length: 255 * 256 }, (_, i) => [
      `10.${i >> 8}.${i & 255}.0/24`,
      `fd00::${(i >> 8).toString(16)}:${(i & 255).toString(16)}/128`,
    ]).flat();
    const text = `[Peer]\nPublicKey = ${key}\n` +
      many.map((range) => `AllowedIPs = ${range}\n`).join("");
    await daemon.wg("setconf", daemon.name, lab.file(text));
    const [{ allowedIps }] = await daemon.peers();
    assertEquals(allowedIps.length, 2 * 255 * 256);
    // As a set: 0:1 and 1 are written otherwise.
    const v4 = (all: readonly string[]): string[] =>
      all.filter((range) => range.includes(".")).toSorted();
    assertEquals(v4(allowedIps), v4(many));
    for (const counts of [[197], Array.from({ length: 30 }, () => 20)]) {
      await daemon.wg("setconf", daemon.name, lab.file(await peersOf(counts)));
      const peers = await daemon.peers();
      assertEquals(peers.map((peer) => peer.allowedIps.length), counts);
    }
    const unknown = await daemon.attempt("show", "doesnotexist");
    assertEquals(unknown.code, 1);
  },
);
