/**
 * What goes over the wire, as tcpdump sees it: sizes, reserved bytes, DS field,
 * no DF, and nothing at all to peers with a useless key.
 */
import { assert, assertEquals } from "@std/assert";
import type { Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { Capture, type Datagram } from "./pcap.ts";
import { delay, until } from "./process.ts";
import { assertPings } from "./traffic.ts";
import { INNER, PORT, Tunnel } from "./tunnel.ts";

const HANDSHAKE_DS = 0x88;
const DATA = 4;
const DSCP_MASK = 0xfc;
/** Public keys of low order: each agreement with them is all zeros. */
const LOW_ORDER_KEYS = [
  "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
  "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
  "4Ot6fDtBuK4WVuP68Z/EatoJjeucMrH9hmIFFl9JuAA=",
  "X5yVvKNQjCSx0LFVnIPvWwREXMRYHI6G2CJO3dCfEVc=",
  "7P///////////////////////////////////////38=",
  "7f///////////////////////////////////////38=",
  "7v///////////////////////////////////////38=",
];

function summary({ payload, sourcePort }: Datagram): string {
  const from = sourcePort === PORT.a ? "a" : "b";
  return `${from}: type ${payload[0]}, ${payload.length} bytes`;
}

function assertWireFormat(datagrams: readonly Datagram[]): void {
  for (const datagram of datagrams) {
    const { payload, ds, dontFragment } = datagram;
    const what = summary(datagram);
    assertEquals([...payload.subarray(1, 4)], [0, 0, 0], `${what}: reserved`);
    assertEquals(dontFragment, false, `${what}: DF`);
    if (payload[0] !== DATA) assertEquals(ds, HANDSHAKE_DS, `${what}: DS`);
  }
}

const PEERS: readonly Implementation[] = ["wgd", "wireguard-go"];

for (const b of PEERS) {
  for (const outer of ["v4", "v6"] as const) {
    labTest(
      `wgd to ${b} over IP${outer}: a captured handshake has the exact form`,
      { programs: ["tcpdump", ...b === "wgd" ? [] : [b]] },
      async (lab) => {
        const tunnel = await Tunnel.make(lab, { b, outer });
        const capture = await Capture.start(lab.a, "va");
        await tunnel.a.set(
          ...["peer", tunnel.keys.b.public, "persistent-keepalive", "25"],
        );
        await until(
          "a handshake",
          async () => (await tunnel.b.peers())[0].rxBytes === 148 + 32,
        );
        await assertPings(lab.a, INNER.b.v4, { count: 1 });
        await assertPings(lab.a, INNER.b.v4, { count: 1, sizeBytes: 1392 });
        const datagrams = await capture.stop();
        assertEquals(datagrams.map(summary), [
          "a: type 1, 148 bytes",
          "b: type 2, 92 bytes",
          "a: type 4, 32 bytes",
          // 84 bytes are padded to 96, 1420 not beyond the MTU.
          "a: type 4, 128 bytes",
          "b: type 4, 128 bytes",
          "a: type 4, 1452 bytes",
          "b: type 4, 1452 bytes",
        ]);
        const version = outer === "v4" ? 4 : 6;
        assert(datagrams.every((datagram) => datagram.version === version));
        assertWireFormat(
          datagrams.filter(({ sourcePort }) =>
            b === "wgd" || sourcePort === PORT.a
          ),
        );
      },
    );
  }
}

for (const udp of ["batched", "plain"] as const) {
  labTest(
    `wgd --udp ${udp}: data shows nothing of the inner DSCP`,
    { programs: ["tcpdump"] },
    async (lab) => {
      await Tunnel.make(lab, { daemon: { args: ["--udp", udp] } });
      await assertPings(lab.a, INNER.b.v4, { count: 1 });
      const capture = await Capture.start(lab.a, "va");
      for (const tos of [0, 0x88, 0xb9, 0x02, 0xfe]) {
        await assertPings(lab.a, INNER.b.v4, { count: 1, tos });
      }
      const datagrams = await capture.stop();
      const ofA = datagrams.filter(({ sourcePort }) => sourcePort === PORT.a);
      assert(ofA.every(({ payload }) => payload[0] === DATA));
      assertEquals(ofA.map(({ ds }) => ds & DSCP_MASK), [0, 0, 0, 0, 0]);
    },
  );
}

labTest(
  "peers with a public key of low order are configured but sent nothing",
  { programs: ["tcpdump"] },
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    const capture = await Capture.start(lab.a, "va");
    const peers = LOW_ORDER_KEYS.flatMap((key, i) => [
      ...["peer", key, "persistent-keepalive", "1"],
      ...["endpoint", "10.77.0.2:1111", "allowed-ips", `10.8.0.${i}/32`],
    ]);
    await tunnel.a.set(...peers);
    for (const i of LOW_ORDER_KEYS.keys()) {
      await lab.a.attempt(["ping", "-c", "1", "-W", "0.1", `10.8.0.${i}`]);
    }
    await delay(2_000);
    const datagrams = await capture.stop();
    assertEquals(datagrams.map(summary), []);
    const dump = await tunnel.a.peers();
    assertEquals(dump.length, 1 + LOW_ORDER_KEYS.length);
    assertEquals(dump.map(({ txBytes }) => txBytes), dump.map(() => 0));
    await assertPings(lab.a, INNER.b.v4);
  },
);
