/**
 * Thousands of peers beside a tunnel: they come, are shown, change and go, and
 * the tunnel does not notice.
 */
import { assert, assertEquals } from "@std/assert";
import { ask, configFile, setRequest } from "../bench/scale_peers.ts";
import { labTest } from "./harness.ts";
import { until } from "./process.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings, Pinger } from "./traffic.ts";
import { INNER, Tunnel } from "./tunnel.ts";

const PEERS = 20_000;
const ANSWER_MS = 5_000;

labTest(
  "20,000 peers come, are shown, change and go beside a tunnel that goes on",
  {},
  async (lab) => {
    const { a } = await Tunnel.make(lab);
    await assertPings(lab.a, INNER.b.v4);
    const only = lab.file(await a.wg("showconf", a.name));
    const [before] = await a.peers();
    const pinger = new Pinger(lab.a, INNER.b.v4, 0.02);

    assertEquals((await ask(a.name, setRequest(PEERS))).errno, 0);
    assertEquals((await a.peers()).length, PEERS + 1);
    const head = `${wgdCommand().join(" ")} show ${a.name} dump | head -n 2`;
    const { code, stdout, stderr } = await lab.a.attempt(["sh", "-c", head]);
    assertEquals([code, stderr, stdout.split("\n").length], [0, "", 3]);
    assert((await a.wg("show", a.name)).split("peer: ").length > PEERS);

    // One peer's address changes; the others stay as they are, and in order.
    const listed = (await a.peers()).map(({ publicKey }) => publicKey);
    const text = Deno.readTextFileSync(only) + "\n" +
      [...configFile(PEERS, 0)].join("");
    await a.wg("syncconf", a.name, lab.file(text));
    const now = await a.peers();
    assertEquals(now.map(({ publicKey }) => publicKey), listed);
    assertEquals(
      now.filter(({ allowedIps }) => allowedIps[0] === "10.7.7.7/32").length,
      1,
    );

    // A client that does not read holds nobody up, not even the removal.
    using idle = await Deno.connect({
      transport: "unix",
      path: `/var/run/wireguard/${a.name}.sock`,
    });
    await idle.write(new TextEncoder().encode("get=1\n\n"));
    await a.wg("syncconf", a.name, only);
    await until("the others to be gone", async () => {
      return (await a.peers()).length === 1;
    }, ANSWER_MS);
    await pinger.replies(10, ANSWER_MS);
    const [after] = await a.peers();
    assertEquals(after.publicKey, before.publicKey);
    assertEquals(after.endpoint, before.endpoint);
    assert(after.rxBytes > before.rxBytes);
  },
);
