/**
 * Interfaces that move while the sockets stay, namespaces that go, and that all
 * of it is given back (kernel: netns.sh's last part; reference §6, §8).
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  type Daemon,
  exists,
  type Implementation,
  socketPath,
} from "./daemon.ts";
import { labTest } from "./harness.ts";
import { type Lab, Namespace } from "./lab.ts";
import { attempt, delay, run, until } from "./process.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { generateKeys, INNER, PORT, Tunnel } from "./tunnel.ts";

const ALONE = { joined: false };

async function addNamespace(lab: Lab, letter: string): Promise<Namespace> {
  return await lab.addNamespace(new Namespace(`${lab.id}${letter}`, lab));
}

/** What `wgd show IF --stats` tells. */
async function stats(daemon: Daemon): Promise<Record<string, number>> {
  const argv = [...wgdCommand(), "show", daemon.name, "--stats", "--json"];
  return JSON.parse(await run(argv));
}

async function descriptorsAt(pid: number): Promise<string[]> {
  await Promise.resolve();
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].map(({ name }) => {
    try {
      return Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
    } catch {
      return "";
    }
  });
}

async function udpPorts(namespace: Namespace): Promise<string> {
  return await namespace.run(["ss", "-ulnH"]);
}

for (
  const [args, far] of [
    [[], "wgd"],
    [["--threads", "2"], "wgd"],
    [["--udp", "plain"], "wgd"],
    [[], "wireguard-go"],
  ] satisfies [string[], Implementation][]
) {
  labTest(
    `wgd ${
      args.join(" ")
    } to ${far}: a moved interface is followed, and its sockets stay`,
    { programs: far === "wgd" ? [] : [far] },
    async (lab) => {
      const inside = await addNamespace(lab, "c");
      const deeper = await addNamespace(lab, "d");
      const tunnel = await Tunnel.make(lab, {
        b: far,
        daemon: { args, env: { LOG_LEVEL: "verbose" } },
      });
      const { a } = tunnel;
      await assertPings(lab.a, INNER.b.v4);
      const before = await stats(a);
      let from: Namespace = lab.a;
      for (const to of [inside, deeper, lab.a, inside]) {
        await from.ip("link", "set", a.name, "netns", to.name);
        // Moving takes an interface down: the sockets close, where they were.
        await until(
          "the sockets to close",
          async () => (await udpPorts(lab.a)) === "",
        );
        await lab.connect(
          to,
          a.name,
          `${INNER.a.v4}/24`,
          `${INNER.a.v6}/64`,
        );
        await assertPings(to, INNER.b.v4);
        await assertPings(lab.b, INNER.a.v6);
        assertMatch(await udpPorts(lab.a), new RegExp(`:${PORT.a}\\b`));
        if (to !== lab.a) assertEquals(await udpPorts(to), "");
        from = to;
      }
      // The MTU, too, is followed where it is.
      await inside.ip("link", "set", a.name, "mtu", "1300");
      await assertPings(inside, INNER.b.v4, { count: 1, sizeBytes: 1272 });
      await a.set("listen-port", "4444");
      await assertPings(inside, INNER.b.v4);
      assertMatch(await udpPorts(lab.a), /:4444\b/);
      // Removal is heard of, as well, and by the same name elsewhere not.
      await lab.a.ip("link", "add", a.name, "type", "veth");
      await lab.a.ip("link", "del", a.name);
      await assertPings(inside, INNER.b.v4);
      const after = await stats(a);
      assertEquals(
        after["objects.descriptors"],
        before["objects.descriptors"],
      );
      await inside.ip("link", "del", a.name);
      const { code } = await a.process.ended();
      assertEquals(code, 0, a.process.said);
      assertMatch(a.process.said, /ending: interface removed/);
      assertBalanced(a.process.said);
    },
  );
}

/** The daemon's last words: no object is left. */
function assertBalanced(said: string): void {
  const [, json] = /objects: (\{.*\})/.exec(said) ?? [];
  const objects: Record<string, number> = JSON.parse(json ?? "{}");
  assert(Object.keys(objects).length >= 12, said);
  assertEquals(
    Object.entries(objects).filter(([, count]) => count !== 0),
    [],
  );
}

labTest(
  "wgd run --netns makes the interface there, and keeps the sockets here",
  {},
  async (lab) => {
    const inside = await addNamespace(lab, "c");
    const tunnel = await Tunnel.make(lab);
    const args = ["--netns", inside.name];
    const a = await lab.a.daemon("wgd", { args });
    assert(!await a.hasInterface(), "none here");
    assertMatch(await inside.ip("link", "show", a.name), /mtu 1420/);
    await tunnel.a.process[Symbol.asyncDispose]();
    await connectAs(tunnel, "a", a, inside);
    await assertPings(inside, INNER.b.v4);
    assertMatch(await udpPorts(lab.a), new RegExp(`:${PORT.a}\\b`));
  },
);

labTest(
  "wgd run --socket-netns has its sockets there, and the interface here or elsewhere",
  {},
  async (lab) => {
    const inside = await addNamespace(lab, "c");
    const tunnel = await Tunnel.make(lab);
    await tunnel.a.process[Symbol.asyncDispose]();
    for (const extra of [[], ["--netns", lab.b.name]]) {
      const args = ["--socket-netns", lab.a.name, ...extra];
      const a = await inside.daemon("wgd", { args });
      const place = extra.length === 0 ? inside : lab.b;
      assertMatch(await place.ip("link", "show", a.name), /mtu 1420/);
      if (place === inside) {
        await connectAs(tunnel, "a", a, place);
        await assertPings(place, INNER.b.v4);
        await a.set("listen-port", "4444");
        await assertPings(place, INNER.b.v4);
        assertMatch(await udpPorts(lab.a), /:4444\b/);
        assertEquals(await udpPorts(inside), "");
      }
      a.process.signal("SIGTERM");
      assertEquals((await a.process.ended()).code, 0, a.process.said);
    }
  },
);

/** Configures a daemon as one side of a tunnel, its interface being elsewhere. */
async function connectAs(
  tunnel: Tunnel,
  side: "a" | "b",
  daemon: Daemon,
  place: Namespace,
): Promise<void> {
  const other = side === "a" ? "b" : "a";
  await daemon.set(
    ...["private-key", tunnel.lab.file(tunnel.keys[side].private)],
    ...["listen-port", String(PORT[side])],
    ...["peer", tunnel.keys[other].public],
    ...["endpoint", `10.77.0.${other === "a" ? 1 : 2}:${PORT[other]}`],
    ...["allowed-ips", `${INNER[other].v4}/32,${INNER[other].v6}/128`],
  );
  const own = INNER[side];
  await tunnel.lab.connect(
    place,
    daemon.name,
    `${own.v4}/24`,
    `${own.v6}/64`,
  );
}

labTest(
  "an unknown namespace is one line and status 1, and leaves nothing",
  ALONE,
  async (lab) => {
    for (const option of ["--netns", "--socket-netns"]) {
      const name = await lab.interfaceName();
      const finished = await lab.a.attempt(
        [...wgdCommand(), "run", "-f", option, "no-such-space", name],
      );
      assertEquals(finished.code, 1);
      assertMatch(
        finished.stderr,
        /^wgd: .*no-such-space.*No such file or directory.*\n$/,
      );
      assert(!exists(socketPath(name)));
      assert(!(await lab.a.ip("-o", "link")).includes(name));
    }
  },
);

labTest(
  "the end of the sockets' namespace closes them, lowers the carrier and leaves a working interface",
  {},
  async (lab) => {
    const first = await addNamespace(lab, "c");
    const place = await addNamespace(lab, "d");
    const a = await first.daemon("wgd", {
      env: { LOG_LEVEL: "verbose" },
    });
    await a.set("private-key", lab.file((await generateKeys()).private));
    await a.set("listen-port", "4444");
    await first.ip("link", "set", a.name, "netns", place.name);
    await lab.connect(place, a.name, "10.9.0.1/24");
    await until(
      "the sockets",
      async () => /:4444\b/.test(await udpPorts(first)),
    );
    const other = first.spawn(["sleep", "1000"]);
    await until("sleep", async () => {
      const pids = await run(["ip", "netns", "pids", first.name]);
      return pids.split("\n").includes(String(other.pid));
    });
    const before = await stats(a);
    assertMatch(await place.ip("link", "show", a.name), /LOWER_UP/);
    // As long as another process is in it, the namespace lives.
    await run(["ip", "netns", "delete", first.name]);
    await delay(1_500);
    assertEquals(
      (await stats(a))["objects.descriptors"],
      before["objects.descriptors"],
    );
    assertMatch(await place.ip("link", "show", a.name), /LOWER_UP/);
    other.signal("SIGTERM");
    await other.ended();
    await until(
      "the carrier to go",
      async () => /NO-CARRIER/.test(await place.ip("link", "show", a.name)),
    );
    assertMatch(a.process.said, /namespace is gone: sockets closed/);
    const after = await stats(a);
    assertEquals(
      after["objects.descriptors"],
      before["objects.descriptors"] - 1,
    );
    const links = await descriptorsAt(a.process.pid);
    assert(!links.some((link) => link === "udp"), "no sockets");
    // It still answers and can be configured, but for what is the sockets'.
    const wg = (...words: string[]) => attempt(["wg", "set", a.name, ...words]);
    const key = (await generateKeys()).public;
    assertEquals((await wg("peer", key, "allowed-ips", "10.9.0.9/32")).code, 0);
    assertMatch((await wg("listen-port", "5555")).stderr, /not permitted/);
    assertMatch((await wg("fwmark", "5")).stderr, /not permitted/);
    await place.ip("link", "set", a.name, "down");
    await place.ip("link", "set", a.name, "up");
    await delay(300);
    assertEquals(
      (await stats(a))["objects.descriptors"],
      after["objects.descriptors"],
    );
    await place.ip("link", "del", a.name);
    assertEquals((await a.process.ended()).code, 0);
    assertBalanced(a.process.said);
  },
);

labTest(
  "two devices that swapped namespaces both end with these, and nothing is left",
  ALONE,
  async (lab) => {
    const one = await addNamespace(lab, "c");
    const two = await addNamespace(lab, "d");
    const env = { LOG_LEVEL: "verbose" };
    const [a, b] = await Promise.all([
      one.daemon("wgd", { env }),
      two.daemon("wgd", { env }),
    ]);
    await one.ip("link", "set", a.name, "netns", two.name);
    await two.ip("link", "set", b.name, "netns", one.name);
    await lab.connect(two, a.name, "10.9.0.1/24");
    await lab.connect(one, b.name, "10.9.0.2/24");
    await until(
      "the move to be seen",
      () =>
        [a, b].every(({ process }) => /another namespace/.test(process.said)),
    );
    await run(["ip", "netns", "delete", one.name]);
    await run(["ip", "netns", "delete", two.name]);
    for (const { process } of [a, b]) {
      assertEquals((await process.ended()).code, 0, process.said);
      assertMatch(process.said, /ending: (namespace|interface) removed/);
      assertBalanced(process.said);
    }
  },
);

labTest(
  "all counts are zero after tunnels were made, used, changed and closed",
  {},
  async (lab) => {
    for (
      const args of [[], ["--threads", "2", "--lanes", "2"], ["--udp", "plain"]]
    ) {
      const env = { LOG_LEVEL: "verbose" };
      const tunnel = await Tunnel.make(lab, { daemon: { args, env } });
      await assertPings(lab.a, INNER.b.v4);
      const during = await stats(tunnel.a);
      assertEquals(during["objects.devices"], 1);
      assertEquals(during["objects.peers"], 1);
      assertEquals(during["objects.keypairs"], 1);
      assertEquals(
        during["objects.workers"],
        args.length === 0 ? 1 : args[0] === "--udp" ? 0 : 4,
      );
      assert(during["objects.descriptors"] >= 7, JSON.stringify(during));
      assert(during.tx_packets >= 3 && during.rx_packets >= 4);
      await tunnel.a.set("listen-port", "7777");
      await tunnel.a.set("peer", tunnel.keys.b.public, "remove");
      for (const daemon of [tunnel.a, tunnel.b]) {
        daemon.process.signal("SIGTERM");
        assertEquals((await daemon.process.ended()).code, 0);
        assertBalanced(daemon.process.said);
      }
    }
  },
);

labTest("wgd show --stats says what it does not know", ALONE, async (lab) => {
  const daemon = await lab.a.daemon("wgd");
  const show = (...words: string[]) =>
    attempt([...wgdCommand(), "show", ...words]);
  const text = await show(daemon.name, "--stats");
  assertMatch(text.stdout, /^objects\.devices: 1\n/);
  assertEquals((await show("--stats")).code, 1);
  assertEquals((await show(daemon.name, "peers", "--stats")).code, 1);
  assertEquals((await show("nosuch", "--stats")).code, 1);
});
