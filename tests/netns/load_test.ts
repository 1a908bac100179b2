/**
 * A flood of initiations from forged addresses: the tunnel that there is goes
 * on, and a new peer gets in by way of a cookie. What is left of the throughput
 * is tests/bench/load_bench.ts's to say.
 */
import { assert, assertEquals } from "@std/assert";
import { Attack } from "./attack.ts";
import type { Daemon, Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { Capture, type Datagram } from "./pcap.ts";
import { until } from "./process.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings, Pinger } from "./traffic.ts";
import { INNER, PORT } from "./tunnel.ts";

const RATE = 20_000;
const FLOOD_S = 120;
const GETS_IN_S = 100;
const INITIATION = 1;
const RESPONSE = 2;
const COOKIE_REPLY = 3;
const RESIDENT_MAX_BYTES = 300 << 20;

async function stats(daemon: Daemon): Promise<Record<string, number>> {
  const text = await daemon.namespace.run(
    [...wgdCommand(), "show", daemon.name, "--stats", "--json"],
  );
  return JSON.parse(text);
}

function hasMac2({ payload }: Datagram): boolean {
  return payload.subarray(payload.length - 16).some((byte) => byte !== 0);
}

for (const newPeer of ["wgd", "wireguard-go"] as Implementation[]) {
  labTest(
    `in a flood a tunnel goes on, and ${newPeer} gets in with a cookie`,
    { programs: ["tcpdump", ...newPeer === "wgd" ? [] : [newPeer]] },
    async (lab) => {
      const attack = await Attack.make(lab, "wgd", newPeer);
      const { tunnel, outsider } = attack;
      await assertPings(lab.a, INNER.b.v4);
      const pinger = new Pinger(lab.a, INNER.b.v4, 0.2);
      const flood = attack.flood("mac1", RATE, FLOOD_S);
      await until(
        "load",
        async () => ((await stats(tunnel.b)).handshake_under_load ?? 0) > 1_000,
        30_000,
      );
      const capture = await Capture.start(outsider, "vd");
      const tookS = await attack.getsIn(GETS_IN_S);
      assert(tookS !== undefined, "the new peer gets in");
      await pinger.replies(5, 20_000);
      const counters = await stats(tunnel.b);
      flood.signal("SIGTERM");
      await flood.ended();
      assert(counters.cookie_replies_sent > 1_000, JSON.stringify(counters));
      const shakes = (await capture.stop()).filter(({ payload }) =>
        payload[0] !== 4
      );
      const from = (type: number): Datagram[] =>
        shakes.filter(({ payload }) => payload[0] === type);
      const replies = from(COOKIE_REPLY);
      assert(replies.length > 0, "by way of a cookie");
      assertEquals(replies[0].sourcePort, PORT.b);
      assert(!hasMac2(from(INITIATION)[0]), "without one at first");
      const order = shakes.map(({ payload }) => payload[0]);
      const answered = shakes[order.indexOf(RESPONSE) - 1];
      assertEquals(answered.payload[0], INITIATION);
      assert(hasMac2(answered), "with one at last");
      // The flood leaves nothing: sources that no cookie proved are not kept.
      assert(tunnel.b.residentBytes() < RESIDENT_MAX_BYTES);
      await assertPings(lab.a, INNER.b.v4);
      await assertPings(outsider, INNER.b.v4);
    },
  );
}
