/** Transfers that outlive a session: the new one is made without a stall. */
import { assert, assertEquals } from "@std/assert";
import type { Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { Lab } from "./lab.ts";
import { delay } from "./process.ts";
import { assertPings, iperf, Pinger } from "./traffic.ts";
import { INNER, Tunnel } from "./tunnel.ts";

const TRANSFER_S = 130;
const REKEY_AFTER_S = 120;
const SLACK_S = 6;
const STALL_MAX_MS = 1_000;

const ROLES: readonly (readonly [Implementation, Implementation])[] = [
  ["wgd", "wgd"],
  ["wgd", "wireguard-go"],
  ["wireguard-go", "wgd"],
];

for (const [a, b] of ROLES) {
  labTest(
    `${a} to ${b}: a transfer of ${TRANSFER_S} s meets one rekey and does not stall`,
    {
      slow: true,
      programs: ["iperf3", ...[a, b].filter((p) => p !== "wgd")],
    },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { a, b });
      await assertPings(lab.a, INNER.b.v4);
      const [first] = await tunnel.a.peers();
      const pinger = new Pinger(lab.a, INNER.b.v6, 0.2);
      const transfer = iperf(
        lab.a,
        lab.b,
        INNER.b.v4,
        ["-t", String(TRANSFER_S), "-i", "1"],
        TRANSFER_S + 30,
      );
      await delay((TRANSFER_S - 1) * 1000);
      const [last] = await tunnel.a.peers();
      const { intervals } = await transfer;
      const betweenS = last.latestHandshakeS - first.latestHandshakeS;
      assert(
        betweenS >= REKEY_AFTER_S - 1 && betweenS <= REKEY_AFTER_S + SLACK_S,
        `${betweenS} s between the handshakes`,
      );
      for (const { sum } of intervals) {
        assert(sum.bytes > 0, `nothing passed in the second at ${sum.start}`);
      }
      const { repliesMs } = pinger;
      const pauses = repliesMs.slice(1).map((ms, i) => ms - repliesMs[i]);
      const longest = Math.max(...pauses);
      assert(longest <= STALL_MAX_MS, `no answer for ${longest} ms`);
    },
  );
}

labTest(
  `UDP of ${TRANSFER_S} s loses nothing at the rekey`,
  { slow: true, programs: ["iperf3", "wireguard-go"], joined: false },
  async () => {
    const outcomes = ROLES.map(async ([a, b]) => {
      await using lab = await Lab.make();
      await Tunnel.make(lab, { a, b });
      await assertPings(lab.a, INNER.b.v4);
      const { end } = await iperf(
        lab.a,
        lab.b,
        INNER.b.v4,
        ["-u", "-b", "5M", "-t", String(TRANSFER_S)],
        TRANSFER_S + 30,
      );
      assertEquals(end.sum?.lost_packets, 0, `${a} to ${b}`);
    });
    await Promise.all(outcomes);
  },
);
