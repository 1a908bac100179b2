/**
 * A client behind a router that translates addresses and forgets quickly
 * (kernel: netns.sh's part on NAT):
 *
 *      a 192.168.1.100 ── 192.168.1.1 router 10.0.0.1 ── 10.0.0.100 b
 */
import { assertEquals, assertMatch } from "@std/assert";
import type { Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { Namespace } from "./lab.ts";
import { delay } from "./process.ts";
import { assertPings, ping } from "./traffic.ts";
import { generateKeys, INNER, PORT } from "./tunnel.ts";

/** Longer than the router remembers. */
const FORGOTTEN_MS = 3_500;
const CONNTRACK = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";

for (const b of ["wgd", "wireguard-go"] satisfies Implementation[]) {
  labTest(
    `wgd behind NAT stays within reach of ${b} by persistent keepalives`,
    {
      joined: false,
      programs: ["nft", ...b === "wgd" ? [] : [b]],
    },
    async (lab) => {
      const router = await lab.addNamespace(new Namespace(`${lab.id}r`, lab));
      for (
        const [end, link, there] of [[lab.a, "va", "ra"], [
          lab.b,
          "vb",
          "rb",
        ]] as const
      ) {
        await end.ip(
          ...["link", "add", link, "type", "veth"],
          ...["peer", "name", there, "netns", router.name],
        );
      }
      await lab.connect(lab.a, "va", "192.168.1.100/24");
      await lab.connect(router, "ra", "192.168.1.1/24");
      await lab.connect(router, "rb", "10.0.0.1/24");
      await lab.connect(lab.b, "vb", "10.0.0.100/24");
      await lab.a.ip("route", "add", "default", "via", "192.168.1.1");
      const forward = `echo 1 >/proc/sys/net/ipv4/ip_forward`;
      await router.run(["sh", "-c", forward]);
      await router.run(["nft", "-f", "-"], {
        stdin: `table ip nat {
          chain out {
            type nat hook postrouting priority 100
            oifname "rb" masquerade random
          }
        }
`,
      });
      const forget = `echo 2 >${CONNTRACK}; echo 2 >${CONNTRACK}_stream`;
      await router.run(["sh", "-c", forget]);

      const [near, far, keysOfA, keysOfB] = await Promise.all([
        lab.a.daemon("wgd"),
        lab.b.daemon(b),
        generateKeys(),
        generateKeys(),
      ]);
      await far.set(
        ...["private-key", lab.file(keysOfB.private)],
        ...["listen-port", String(PORT.b), "peer", keysOfA.public],
        ...["allowed-ips", `${INNER.a.v4}/32`],
      );
      await far.up(`${INNER.b.v4}/24`);
      await near.set(
        ...["private-key", lab.file(keysOfA.private), "peer", keysOfB.public],
        ...["endpoint", `10.0.0.100:${PORT.b}`],
        ...["allowed-ips", `${INNER.b.v4}/32`],
      );
      await near.up(`${INNER.a.v4}/24`);
      await assertPings(lab.a, INNER.b.v4);
      assertMatch((await far.peers())[0].endpoint, /^10\.0\.0\.1:/);
      await delay(FORGOTTEN_MS);
      const { received } = await ping(lab.b, INNER.a.v4, { count: 1 });
      assertEquals(received, 0, "the router has not forgotten");

      await near.set("peer", keysOfB.public, "persistent-keepalive", "1");
      await delay(FORGOTTEN_MS);
      await assertPings(lab.b, INNER.a.v4);
      await near.set("peer", keysOfB.public, "persistent-keepalive", "off");
      await delay(FORGOTTEN_MS);
      const again = await ping(lab.b, INNER.a.v4, { count: 1 });
      assertEquals(again.received, 0, "keepalives go on");
      // The router gives a's datagrams another port now: b follows.
      const before = (await far.peers())[0].endpoint;
      await assertPings(lab.a, INNER.b.v4);
      assertEquals((await far.peers())[0].endpoint === before, false);
    },
  );
}
