/**
 * What stands in a daemon's way: one clear line, the right exit status, and
 * nothing left behind.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Namespace } from "./lab.ts";
import { attempt, delay, type Finished, until } from "./process.ts";
import { moduleCommand, wgdCommand } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { INNER, PORT, Tunnel } from "./tunnel.ts";

const ALONE = { joined: false };
const FAILED = 1;
const USAGE = 2;
const NOT_PERMITTED = 3;

/** Both ways of starting: each must tell the same. */
const WAYS = [["run", "-f"], ["run"], []];

async function assertRefused(
  namespace: Namespace,
  name: string,
  finished: Finished,
  code: number,
  line: RegExp,
): Promise<void> {
  assertEquals(
    finished.stderr.trimEnd().split("\n").length,
    1,
    finished.stderr,
  );
  assertMatch(finished.stderr, line);
  assertEquals(finished.code, code, finished.stderr);
  assertEquals(finished.stdout, "");
  assert(!exists(socketPath(name)), "the socket is left");
  const pids = await attempt(["ip", "netns", "pids", namespace.name]);
  assertEquals(pids.stdout, "", "a process is left");
}

async function assertNoInterface(
  namespace: Namespace,
  name: string,
): Promise<void> {
  assert(!(await namespace.ip("-o", "link")).includes(name));
}

for (const words of WAYS) {
  const how = ["wgd", ...words, "IF"].join(" ");

  labTest(
    `${how}: a name in use is one line and status 1`,
    ALONE,
    async (lab) => {
      const name = await lab.interfaceName();
      await lab.a.ip("link", "add", name, "type", "veth");
      const finished = await lab.a.attempt([...wgdCommand(), ...words, name]);
      await assertRefused(lab.a, name, finished, FAILED, /name is in use/);
      assertMatch(await lab.a.ip("-d", "link", "show", name), /veth/);
    },
  );

  labTest(
    `${how}: missing rights are one line and status 3`,
    { ...ALONE, programs: ["setpriv"] },
    async (lab) => {
      const name = await lab.interfaceName();
      const finished = await lab.a.attempt([
        ...["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        ...[...wgdCommand(), ...words, name],
      ]);
      const line = /[Nn]o permission .*run as root/;
      await assertRefused(lab.a, name, finished, NOT_PERMITTED, line);
      await assertNoInterface(lab.a, name);
    },
  );

  labTest(
    `${how}: a missing /dev/net/tun is one line and status 1`,
    { ...ALONE, programs: ["unshare"] },
    async (lab) => {
      const name = await lab.interfaceName();
      const script = 'mount -t tmpfs none /dev/net && exec "$@"';
      const finished = await lab.a.attempt([
        ...["unshare", "-m", "sh", "-c", script, "sh"],
        ...[...wgdCommand(), ...words, name],
      ]);
      const line = /\/dev\/net\/tun is missing: load the driver/;
      await assertRefused(lab.a, name, finished, FAILED, line);
      await assertNoInterface(lab.a, name);
    },
  );
}

labTest("bad usage is status 2", ALONE, async (lab) => {
  const bad = [
    ["run"],
    ["run", "sixteen-letters0"],
    ["run", "a/b"],
    ["run", "-f", "--threads", "9", "x"],
    ["run", "-f", "x", "y"],
    ["run", "--nonsense", "x"],
    ["up"],
    ["down"],
    ["up", "./no-configuration"],
  ];
  const outcomes = await Promise.all(
    bad.map((words) => lab.a.attempt([...wgdCommand(), ...words])),
  );
  for (const [i, { code, stderr }] of outcomes.entries()) {
    assertEquals(code, USAGE, `wgd ${bad[i].join(" ")}: ${stderr}`);
    assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
  }
  const variable = await lab.a.attempt([...wgdCommand(), "run", "-f", "x"], {
    env: { WG_TUN_FD: "three" },
  });
  assertEquals(variable.code, USAGE, variable.stderr);
  const closed = await lab.a.attempt([...wgdCommand(), "run", "-f", "x"], {
    env: { WG_TUN_FD: "999" },
  });
  assertEquals(closed.code, FAILED, closed.stderr);
  assertEquals(closed.stderr.trimEnd().split("\n").length, 1, closed.stderr);
});

for (const udp of ["batched", "plain"]) {
  labTest(
    `wgd --udp ${udp}: a port in use at link up is one line, and is taken once it is free`,
    {},
    async (lab) => {
      const args = ["--udp", udp];
      const tunnel = await Tunnel.make(lab, { daemon: { args } });
      const { a } = tunnel;
      await lab.a.ip("link", "set", a.name, "down");
      await until(
        "the port to be free",
        async () => (await lab.a.run(["ss", "-ulnH"])) === "",
      );
      const holder = lab.a.spawn(
        moduleCommand("hold_port.ts", String(PORT.a)),
      );
      await until("the port to be held", () => holder.said.includes("held"));
      await lab.a.ip("link", "set", a.name, "up");
      await until("a line", () => a.process.said !== "");
      assertMatch(
        a.process.said,
        new RegExp(`^wgd: ${a.name}: .*${PORT.a}.*in use[^\n]*$`),
      );
      assertEquals((await a.peers()).length, 1, "it still answers");
      await delay(2_500);
      holder.signal("SIGTERM");
      await holder.ended();
      // Tried again each second, and told of once.
      await until(
        "the port to be taken",
        async () => (await lab.a.run(["ss", "-ulnH"])).includes(`:${PORT.a} `),
      );
      assertEquals(a.process.said.split("\n").length, 1, a.process.said);
      await lab.a.ip("link", "set", a.name, "down");
      await lab.connect(lab.a, a.name, `${INNER.a.v6}/64`);
      await assertPings(lab.a, INNER.b.v4);
      assertEquals(await a.show("listen-port"), String(PORT.a));
    },
  );
}

labTest(
  "a port that changes while the link goes down and up is opened once",
  {},
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    const { a } = tunnel;
    for (let port = 4000; port < 4040; port++) {
      const link = async (): Promise<void> => {
        await lab.a.ip("link", "set", a.name, "down");
        await lab.a.ip("link", "set", a.name, "up");
      };
      const ports = [port + 100, port + 200, port];
      await Promise.all([
        link(),
        ...ports.map((it) => a.set("listen-port", String(it))),
      ]);
    }
    await a.set("listen-port", "4444");
    assertEquals(a.process.said, "");
    await lab.connect(lab.a, a.name, `${INNER.a.v6}/64`);
    await assertPings(lab.a, INNER.b.v4);
    const bound = await lab.a.run(["ss", "-ulnH"]);
    // One for both families, or one for each.
    assertEquals([...bound.matchAll(/:(?!4444\b)\d+ /g)].length, 0, bound);
    assertMatch(bound, /:4444\b/);
  },
);
