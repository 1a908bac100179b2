/**
 * Changes under way: keys, ports, addresses, and daemons that end and come back
 * (kernel: netns.sh's parts on roaming, private keys and sticky sources).
 */
import { assert, assertEquals } from "@std/assert";
import { type Daemon, exists, socketPath } from "./daemon.ts";
import type { Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { Lab } from "./lab.ts";
import { delay, until } from "./process.ts";
import { missing } from "./requirements.ts";
import { assertPings, Pinger } from "./traffic.ts";
import { generateKeys, INNER, PORT, Tunnel } from "./tunnel.ts";

/** KEEPALIVE_TIMEOUT + REKEY_TIMEOUT, and time for handshakes. */
const RECOVERY_MS = 20_000;

const PAIRS: readonly (readonly [Implementation, Implementation])[] = [
  ["wgd", "wgd"],
  ["wgd", "wireguard-go"],
  ["wireguard-go", "wgd"],
];

async function endpointOf(daemon: Daemon): Promise<string> {
  return (await daemon.peers())[0].endpoint;
}

for (const [a, b] of PAIRS) {
  const programs = [a, b].filter((p) => p !== "wgd");

  labTest(
    `${a} to ${b}: a changed private key on either side recovers`,
    { programs },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { a, b });
      await assertPings(lab.a, INNER.b.v4);
      const inner = `${INNER.a.v4}/32,${INNER.a.v6}/128`;
      const keysOfA = await generateKeys();
      await tunnel.a.set("private-key", lab.file(keysOfA.private));
      await tunnel.b.set(
        ...["peer", keysOfA.public, "allowed-ips", inner],
        ...["peer", tunnel.keys.a.public, "remove"],
      );
      await assertPings(lab.a, INNER.b.v4, { intervalS: 0.2 });
      await assertPings(lab.b, INNER.a.v6);
      const keysOfB = await generateKeys();
      await tunnel.b.set("private-key", lab.file(keysOfB.private));
      await tunnel.a.set(
        ...["peer", tunnel.keys.b.public, "remove", "peer", keysOfB.public],
        ...["endpoint", `10.77.0.2:${PORT.b}`],
        ...["allowed-ips", `${INNER.b.v4}/32,${INNER.b.v6}/128`],
      );
      await assertPings(lab.a, INNER.b.v4, { intervalS: 0.2 });
      await assertPings(lab.b, INNER.a.v6);
    },
  );

  for (const outer of ["v4", "v6"] as const) {
    labTest(
      `${a} to ${b} over IP${outer}: the peer follows a changed port and address`,
      { programs },
      async (lab) => {
        const tunnel = await Tunnel.make(lab, { a, b, outer });
        const host = (text: string): string =>
          outer === "v4" ? `10.77.0.${text}` : `[fd77::${text}]`;
        const pinger = new Pinger(lab.a, INNER.b.v4);
        await pinger.replies(3, 5_000);
        await tunnel.a.set("listen-port", "4444");
        await pinger.replies(3, 2_000);
        assertEquals(await endpointOf(tunnel.b), `${host("1")}:4444`);
        await tunnel.b.set("listen-port", "5555");
        // a still sends to the old port: b has to say something first.
        await lab.b.attempt(["ping", "-c", "1", "-W", "1", INNER.a.v4]);
        await pinger.replies(3, 2_000);
        assertEquals(await endpointOf(tunnel.a), `${host("2")}:5555`);
        // wireguard-go 2022 does not notice that its source is gone.
        if (a === "wireguard-go") return;
        const [first, third] = outer === "v4"
          ? ["10.77.0.1/24", "10.77.0.3/24"]
          : ["fd77::1/64", "fd77::3/64"];
        await lab.a.ip("addr", "del", first, "dev", "va");
        await lab.connect(lab.a, "va", third);
        await pinger.replies(3, 3_000);
        assertEquals(await endpointOf(tunnel.b), `${host("3")}:4444`);
        await assertPings(lab.b, INNER.a.v4);
      },
    );
  }
}

for (const outer of ["v4", "v6"] as const) {
  labTest(
    `wgd over IP${outer} answers from the address that it was spoken to`,
    {},
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { outer });
      const second = outer === "v4" ? "10.77.0.77" : "fd77::77";
      const size = outer === "v4" ? "24" : "64";
      await lab.connect(lab.b, "vb", `${second}/${size}`);
      const shown = outer === "v4" ? second : `[${second}]`;
      for (const to of [shown, outer === "v4" ? "10.77.0.2" : "[fd77::2]"]) {
        const endpoint = `${to}:${PORT.b}`;
        await tunnel.a.set("peer", tunnel.keys.b.public, "endpoint", endpoint);
        await assertPings(lab.a, INNER.b.v4);
        await assertPings(lab.b, INNER.a.v4);
        assertEquals(await endpointOf(tunnel.a), endpoint);
      }
      // An address that is gone is not kept as a source.
      const gone = `${shown}:${PORT.b}`;
      await tunnel.a.set("peer", tunnel.keys.b.public, "endpoint", gone);
      await assertPings(lab.a, INNER.b.v4);
      await lab.b.ip("addr", "del", `${second}/${size}`, "dev", "vb");
      await assertPings(lab.b, INNER.a.v4, { intervalS: 0.2 });
      assert(await endpointOf(tunnel.a) !== gone);
    },
  );
}

/** One side of a tunnel ends in the middle of traffic, and comes back. */
async function restart(
  a: Implementation,
  b: Implementation,
  side: "a" | "b",
  signal: "SIGKILL" | "SIGTERM",
): Promise<void> {
  await using lab = await Lab.make();
  const tunnel = await Tunnel.make(lab, { a, b });
  const pinger = new Pinger(lab.a, INNER.b.v4);
  await pinger.replies(3, 10_000);
  const old = tunnel[side];
  old.process.signal(signal);
  await old.process.ended();
  if (signal === "SIGTERM") assert(!exists(socketPath(old.name)));
  else if (old.implementation === "wgd") assert(exists(socketPath(old.name)));
  // The interface lives as long as somebody holds its descriptor.
  await until("the interface to go", async () => !(await old.hasInterface()));
  const namespace = lab[side];
  const again = await namespace.daemon(old.implementation, { name: old.name });
  await tunnel.configure(side, again);
  await delay(100);
  await pinger.replies(3, RECOVERY_MS);
}

const restarts = PAIRS.flatMap(([a, b]) =>
  (["a", "b"] as const).flatMap((side) =>
    ([side === "a" ? a : b].includes("wgd")
      ? ["SIGKILL", "SIGTERM"] as const
      : ["SIGKILL"] as const).map((signal) => ({ a, b, side, signal }))
  )
);

labTest(
  "a daemon killed or ended during traffic comes back within the timers",
  {
    joined: false,
    skip: missing(["wireguard-go"]),
  },
  async () => {
    const outcomes = await Promise.allSettled(
      restarts.map(({ a, b, side, signal }) => restart(a, b, side, signal)),
    );
    const failures = outcomes.flatMap((outcome, i) =>
      outcome.status === "rejected"
        ? [`${JSON.stringify(restarts[i])}: ${outcome.reason}`]
        : []
    );
    assertEquals(failures, []);
  },
);
