/** Malformed and random datagrams do not disturb a tunnel. */
import { assert, assertMatch } from "@std/assert";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { moduleCommand } from "./requirements.ts";
import { assertPings, Pinger } from "./traffic.ts";
import { INNER, PORT, Tunnel } from "./tunnel.ts";

const COUNT = 10_000;
const GROWTH_MAX_BYTES = 24 << 20;
const RESIDENT_MAX_BYTES = 300 << 20;

/** Floods port `a`. @returns how long it took, in ms */
async function flood(lab: Lab, target: string): Promise<number> {
  const startMs = Date.now();
  const said = await lab.b.run(
    moduleCommand("flood.ts", target, String(PORT.a), String(COUNT)),
  );
  assertMatch(said, new RegExp(`sent ${COUNT}`));
  return Date.now() - startMs;
}

for (const outer of ["v4", "v6"] as const) {
  for (const udp of ["batched", "plain"] as const) {
    labTest(
      `wgd --udp ${udp} answers pings while ${
        3 * COUNT
      } bad datagrams come over IP${outer}`,
      {},
      async (lab) => {
        const args = ["--udp", udp];
        const tunnel = await Tunnel.make(lab, { outer, daemon: { args } });
        await assertPings(lab.a, INNER.b.v4);
        const pinger = new Pinger(lab.a, INNER.b.v4, 0.05);
        const target = outer === "v4" ? "10.77.0.1" : "fd77::1";
        const startMs = Date.now();
        // After two of them a heap is as large as it gets.
        const firstMs = await flood(lab, target) + await flood(lab, target);
        const before = tunnel.a.residentBytes();
        const floodMs = firstMs + await flood(lab, target);
        const after = tunnel.a.residentBytes();
        const during = pinger.repliesMs.filter((ms) => ms > startMs).length;
        assert(
          during > floodMs / 50 / 2,
          `${during} pings answered in ${floodMs} ms`,
        );
        await assertPings(lab.a, INNER.b.v4, { count: 10 });
        await assertPings(lab.b, INNER.a.v6, { count: 10 });
        assert(
          after < RESIDENT_MAX_BYTES && after - before < GROWTH_MAX_BYTES,
          `grown from ${before} to ${after} bytes`,
        );
      },
    );
  }
}
