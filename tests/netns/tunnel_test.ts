/**
 * Traffic through tunnels between wgd and itself, and wgd and wireguard-go in
 * both roles (kernel: netns.sh's first and third parts).
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { assertPings, assertTcp, assertUdp, ping } from "./traffic.ts";
import { INNER, Tunnel, type TunnelOptions } from "./tunnel.ts";

/** Pings, TCP and UDP, inside both families. */
async function basics(lab: Lab, options: TunnelOptions): Promise<void> {
  const tunnel = await Tunnel.make(lab, options);
  const { a, b } = lab;
  for (const family of ["v4", "v6"] as const) {
    await assertPings(a, INNER.b[family], { count: 5 });
    await assertPings(b, INNER.a[family], { count: 5 });
    await assertPings(a, INNER.b[family], { sizeBytes: 1372 });
    await assertPings(a, INNER.b[family], { sizeBytes: 8000 });
    await assertPings(b, INNER.a[family], { sizeBytes: 8000 });
  }
  await assertUdp(a, b, INNER.b.v4);
  await assertUdp(b, a, INNER.a.v6);
  const [[peerOfA], [peerOfB]] = await Promise.all([
    tunnel.a.peers(),
    tunnel.b.peers(),
  ]);
  assert(peerOfA.latestHandshakeS > 0 && peerOfB.latestHandshakeS > 0);
  assertEquals(peerOfA.publicKey, tunnel.keys.b.public);
  assertMatch(
    peerOfB.endpoint,
    options.outer === "v6" ? /^\[fd77::1\]:51821$/ : /^10\.77\.0\.1:51821$/,
  );
  // Nothing was lost on the way: what one has sent, the other has received.
  assertEquals(peerOfA.txBytes, peerOfB.rxBytes);
  assertEquals(peerOfB.txBytes, peerOfA.rxBytes);
  await assertTcp(a, b, INNER.b.v4);
  await assertTcp(a, b, INNER.b.v6, ["-P", "4"], true);
}

const PAIRS: readonly (readonly [Implementation, Implementation])[] = [
  ["wgd", "wgd"],
  ["wgd", "wireguard-go"],
  ["wireguard-go", "wgd"],
];

for (const [a, b] of PAIRS) {
  for (const outer of ["v4", "v6"] as const) {
    const programs = ["iperf3", ...new Set([a, b])].filter((p) => p !== "wgd");
    labTest(
      `${a} initiates to ${b} over IP${outer}: pings, TCP and UDP pass both ways`,
      { programs },
      (lab) => basics(lab, { a, b, outer, psk: outer === "v6" }),
    );
  }
}

const PATHS: readonly (readonly string[])[] = [
  ["--udp", "plain"],
  ["--threads", "0"],
  ["--threads", "1"],
  ["--threads", "2"],
  ["--lanes", "1"],
  ["--lanes", "3", "--threads", "2"],
  ["--queues", "3"],
  ["--offload", "none"],
  ["--crypto", "noble"],
];

for (const args of PATHS) {
  labTest(
    `wgd ${args.join(" ")}: pings, TCP and UDP pass both ways`,
    { programs: ["iperf3"] },
    (lab) => basics(lab, { daemon: { args } }),
  );
}

for (const [a, b] of PAIRS) {
  const programs = [a, b].filter((p) => p !== "wgd");
  labTest(
    `${a} to ${b}: nothing passes with preshared keys that differ`,
    { programs },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { a, b, psk: true });
      await assertPings(lab.a, INNER.b.v4);
      const other = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
      await tunnel.b.set(
        ...["peer", tunnel.keys.a.public, "remove"],
      );
      await tunnel.b.set(
        ...["peer", tunnel.keys.a.public, "preshared-key", lab.file(other)],
        ...["allowed-ips", `${INNER.a.v4}/32`],
      );
      const { received } = await ping(
        lab.a,
        INNER.b.v4,
        { count: 2 },
      );
      assertEquals(received, 0);
    },
  );
}
