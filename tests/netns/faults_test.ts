/**
 * What the system, the operator and the machine do to a running daemon: system
 * calls that fail, links and routes that go and come, full disks, clocks that
 * are wrong, and kills. For ends at any moment see sigterm_test.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { type Daemon, exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { Capture } from "./pcap.ts";
import { delay, Process, run, until } from "./process.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings, iperf, ping, Pinger } from "./traffic.ts";
import { generateKeys, INNER, PORT, Tunnel } from "./tunnel.ts";

/** A worker's end is seen by then, but for what a busy machine adds. */
const WORKER_DEATH_MS = 1_000;
const MACHINE_MS = 500;

async function stats(daemon: Daemon): Promise<Record<string, number>> {
  const argv = [...wgdCommand(), "show", daemon.name, "--stats", "--json"];
  return JSON.parse(await run(argv));
}

/** Lets system calls of a process fail, by strace, until it is ended. */
async function inject(
  lab: Lab,
  pid: number,
  fault: string,
): Promise<Process> {
  const [call] = fault.split(":");
  const strace = lab.own(
    new Process([
      ...["strace", "-f", "-p", String(pid), "-o", "/dev/null"],
      ...["-e", `trace=${call}`, "-e", `inject=${fault}`],
    ]),
  );
  await until("strace", () => /attached/.test(strace.said));
  return strace;
}

async function endStrace(strace: Process): Promise<void> {
  strace.signal("SIGINT");
  await strace.ended();
}

// ---- system calls ----------------------------------------------------------

const SEND_ERRORS = [
  "ENOBUFS",
  "EAGAIN",
  "EMSGSIZE",
  "ENETUNREACH",
  "EHOSTUNREACH",
  "EPERM",
  "EINVAL",
  "EIO",
  "ENOMEM",
];

for (const offload of ["auto", "none"]) {
  labTest(
    `wgd --offload ${offload}: every error of sendmmsg costs packets at most, and is counted`,
    { programs: ["strace", "iperf3"] },
    async (lab) => {
      const daemon = { args: ["--offload", offload] };
      const tunnel = await Tunnel.make(lab, { daemon });
      await assertPings(lab.a, INNER.b.v4);
      for (const error of SEND_ERRORS) {
        const before = await stats(tunnel.a);
        const fault = `sendmmsg:error=${error}:when=1+2`;
        const strace = await inject(lab, tunnel.a.process.pid, fault);
        // Every other call fails: what is not tried again is lost.
        const options = { count: 6, patient: true };
        const { received } = await ping(lab.a, INNER.b.v4, options);
        await endStrace(strace);
        await assertPings(lab.a, INNER.b.v4);
        const after = await stats(tunnel.a);
        const [lost, again] = ["tx_send_failed", "tx_source_forgotten"]
          .map((name) => after[name] - before[name]);
        if (error === "EAGAIN") assertEquals([lost, received], [0, 6], error);
        // What may be the sticky source's fault is sent once more without.
        else assert(lost + again >= 1 && received >= 2, `${error}: ${lost}`);
      }
      assertEquals(tunnel.a.process.said, "");
      await iperf(lab.a, lab.b, INNER.b.v4, ["-n", "2M"]);
    },
  );
}

labTest(
  "errors of recvmmsg, readv and writev are counted, and pass",
  { programs: ["strace"] },
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    await assertPings(lab.a, INNER.b.v4);
    const faults = [
      ["recvmmsg:error=ENOMEM:when=1+3", "rx_receive_failed"],
      ["recvmmsg:error=EHOSTUNREACH:when=1+3", "rx_receive_failed"],
      ["writev:error=ENOBUFS:when=1+2", "rx_tun_write_failed"],
      ["writev:error=EIO:when=1+2", "rx_tun_write_failed"],
    ];
    for (const [fault, counter] of faults) {
      const before = await stats(tunnel.a);
      const strace = await inject(lab, tunnel.a.process.pid, fault);
      await ping(lab.a, INNER.b.v4, { count: 6 });
      await endStrace(strace);
      await assertPings(lab.a, INNER.b.v4);
      const after = await stats(tunnel.a);
      assert(after[counter] > before[counter], `${fault}: not counted`);
    }
    assertEquals(tunnel.a.process.said, "");
  },
);

/** What becomes of a data worker, what is told of it, and how it comes about. */
const DEATHS = [
  {
    what: "dies",
    reason: /the \w+ worker failed: .*poll/,
    fault: "poll:error=EFAULT",
  },
  {
    what: "hangs",
    reason: /the \w+ worker is stuck/,
    fault: "writev:delay_enter=4000000",
  },
];

for (const args of [["--threads", "1"], ["--threads", "2"]]) {
  for (const { what, reason, fault } of DEATHS) {
    labTest(
      `wgd ${
        args.join(" ")
      }: a data worker that ${what} is seen within a second, and ends the device with the reason`,
      { programs: ["strace"] },
      async (lab) => {
        const tunnel = await Tunnel.make(lab, {
          daemon: { args, env: { LOG_LEVEL: "verbose" } },
        });
        await assertPings(lab.a, INNER.b.v4);
        const { a } = tunnel;
        const strace = await inject(lab, a.process.pid, fault);
        // The next packet is the worker's last.
        const pinger = new Pinger(lab.a, INNER.b.v4, 0.02);
        const fromMs = Date.now();
        // A thread that strace holds keeps its process from ending.
        const { code } = await a.process.ended(10_000);
        await strace.ended();
        assertEquals(code, 1);
        const [seenMs] = a.process.timesOf(reason);
        assert(seenMs !== undefined, a.process.said);
        const tookMs = seenMs - fromMs;
        assert(tookMs < WORKER_DEATH_MS + MACHINE_MS, `${tookMs} ms`);
        assertMatch(a.process.said, /ending: worker failed/);
        assert(!exists(socketPath(a.name)), "the socket is left");
        assert(!await a.hasInterface(), "the interface is left");
        // And it can be started again at once.
        const again = await lab.a.daemon("wgd", { name: a.name });
        await tunnel.configure("a", again);
        await pinger.replies(3, 20_000);
      },
    );
  }
}

labTest(
  "wgd that stands still as a whole, or has nothing to do, is not taken for stuck",
  {},
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    await assertPings(lab.a, INNER.b.v4);
    const flood = lab.a.spawn(["ping", "-f", "-q", INNER.b.v4]);
    for (let i = 0; i < 3; i++) {
      tunnel.a.process.signal("SIGSTOP");
      await delay(1_500);
      tunnel.a.process.signal("SIGCONT");
      await delay(300);
    }
    flood.signal("SIGINT");
    await flood.ended();
    await delay(2_000);
    assertEquals(tunnel.a.process.said, "");
    await assertPings(lab.a, INNER.b.v4);
  },
);

// ---- links, addresses, routes ----------------------------------------------

labTest(
  "links and routes that go and come are survived without new handshakes",
  {},
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    const pinger = new Pinger(lab.a, INNER.b.v4);
    await pinger.replies(3, 10_000);
    const [before] = await tunnel.a.peers();
    const changes: Readonly<Record<string, () => Promise<void>>> = {
      "outer link": async () => {
        await lab.a.ip("link", "set", "va", "down");
        await delay(300);
        await lab.a.ip("link", "set", "va", "up");
      },
      "far link": async () => {
        await lab.b.ip("link", "set", "vb", "down");
        await delay(300);
        await lab.b.ip("link", "set", "vb", "up");
      },
      "unreachable route": async () => {
        await lab.a.ip("route", "add", "unreachable", "10.77.0.2/32");
        await delay(300);
        await lab.a.ip("route", "del", "unreachable", "10.77.0.2/32");
      },
      "address of another network": async () => {
        await lab.connect(lab.a, "va", "10.88.0.1/24");
        await lab.a.ip("addr", "del", "10.88.0.1/24", "dev", "va");
      },
      "MTU of the interface": async () => {
        await lab.a.ip("link", "set", tunnel.a.name, "mtu", "1280");
        await lab.a.ip("link", "set", tunnel.a.name, "mtu", "1420");
      },
      "a hundred addresses at once": async () => {
        const lines = Array.from(
          { length: 100 },
          (_, i) => `addr add 10.66.0.${i + 1}/32 dev va`,
        );
        const path = lab.file(lines.join("\n") + "\n");
        await lab.a.run(["ip", "-batch", path]);
        await lab.a.ip("addr", "flush", "dev", "va", "to", "10.66.0.0/24");
      },
    };
    for (const [what, change] of Object.entries(changes)) {
      await change();
      await pinger.replies(3, 4_000).catch((error) => {
        throw new Error(`${what}: ${error.message}`);
      });
    }
    const [after] = await tunnel.a.peers();
    assertEquals(after.latestHandshakeS, before.latestHandshakeS);
    assertEquals(tunnel.a.process.said, "");
  },
);

labTest(
  "an interface that goes down says nothing and forgets its keys, and comes back",
  { programs: ["tcpdump"] },
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    await tunnel.a.set(
      "peer",
      tunnel.keys.b.public,
      "persistent-keepalive",
      "1",
    );
    await assertPings(lab.a, INNER.b.v4);
    for (let round = 0; round < 3; round++) {
      await lab.a.ip("link", "set", tunnel.a.name, "down");
      await until(
        "the keys to go",
        async () => (await stats(tunnel.a))["objects.keypairs"] === 0,
      );
      const capture = await Capture.start(lab.a, "va");
      await lab.b.attempt([
        "ping",
        "-c",
        "3",
        "-i",
        "0.5",
        "-W",
        "1",
        INNER.a.v4,
      ]);
      const said = (await capture.stop()).filter(({ sourcePort }) =>
        sourcePort === PORT.a
      );
      assertEquals(said.length, 0, "silent while it is down");
      const { rxBytes } = (await tunnel.b.peers())[0];
      await lab.a.ip("link", "set", tunnel.a.name, "up");
      await until(
        "a keepalive by itself",
        async () => (await tunnel.b.peers())[0].rxBytes > rxBytes,
      );
      await lab.connect(lab.a, tunnel.a.name, `${INNER.a.v6}/64`);
      await assertPings(lab.a, INNER.b.v4);
    }
  },
);

labTest(
  "nothing is sent without a private key or with the link down; keepalives start when both are there",
  { programs: ["tcpdump"] },
  async (lab) => {
    const daemons = await Promise.all([
      lab.a.daemon("wgd"),
      lab.b.daemon("wgd"),
    ]);
    const keys = await Promise.all([generateKeys(), generateKeys()]);
    const [a, b] = daemons;
    await b.set(
      ...["private-key", lab.file(keys[1].private)],
      ...["listen-port", String(PORT.b)],
      ...["peer", keys[0].public, "allowed-ips", `${INNER.a.v4}/32`],
    );
    await b.up(`${INNER.b.v4}/24`);
    for (const first of ["link", "key"] as const) {
      const capture = await Capture.start(lab.a, "va");
      const setKey = (): Promise<void> =>
        a.set("private-key", lab.file(keys[0].private));
      await a.set(
        ...["listen-port", String(PORT.a)],
        ...["peer", keys[1].public, "allowed-ips", `${INNER.b.v4}/32`],
        ...["endpoint", `10.77.0.2:${PORT.b}`, "persistent-keepalive", "1"],
      );
      if (first === "link") await a.up(`${INNER.a.v4}/24`);
      else await setKey();
      await delay(2_500);
      if (first === "link") {
        await lab.a.attempt(["ping", "-c", "2", "-W", "1", INNER.b.v4]);
      }
      assertEquals((await capture.stop()).length, 0, `${first} alone`);
      if (first === "link") await setKey();
      else await lab.a.ip("link", "set", a.name, "up");
      await until(
        "a session",
        async () => (await b.peers())[0].rxBytes >= 148 + 32,
        3_000,
      );
      await a.set("private-key", "/dev/null", "peer", keys[1].public, "remove");
      await lab.a.ip("link", "set", a.name, "down");
      await b.set("peer", keys[0].public, "remove");
      await b.set("peer", keys[0].public, "allowed-ips", `${INNER.a.v4}/32`);
    }
  },
);

labTest(
  "an interface that is removed under load ends the daemon cleanly",
  {},
  async (lab) => {
    for (
      const args of [["--threads", "1"], ["--threads", "2", "--lanes", "2"]]
    ) {
      const tunnel = await Tunnel.make(lab, { daemon: { args } });
      await assertPings(lab.a, INNER.b.v4);
      const flood = lab.a.spawn(["ping", "-f", "-s", "1000", INNER.b.v4]);
      await delay(500);
      await lab.a.ip("link", "del", tunnel.a.name);
      assertEquals((await tunnel.a.process.ended()).code, 0);
      assertEquals(tunnel.a.process.said, "");
      assert(!exists(socketPath(tunnel.a.name)));
      flood.signal("SIGINT");
      await flood.ended();
      tunnel.b.process.signal("SIGTERM");
      await tunnel.b.process.ended();
    }
  },
);

// ---- disks, clocks, ends ---------------------------------------------------

/** A disk of 64 KiB that is full, for what daemons write. */
const FULL_DISK = `mount -t tmpfs -o size=64k none "$0" || exit 9
dd if=/dev/zero of="$0/fill" bs=4k 2>/dev/null
echo x > "$0/more" 2>/dev/null && exit 9
exec "$@" 2>>"$0/log"`;

labTest(
  "a full disk for log and state stops nothing, and the log goes on when there is room",
  { programs: ["unshare"] },
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    await tunnel.a.process[Symbol.asyncDispose]();
    const name = await lab.interfaceName();
    const disk = `${lab.directory}/disk`;
    Deno.mkdirSync(disk);
    const process = lab.a.spawn(
      [
        ...["unshare", "-m", "sh", "-c", FULL_DISK, disk],
        ...[...wgdCommand(), "run", "-f", name],
      ],
      { LOG_LEVEL: "verbose", STATE_DIRECTORY: disk },
    );
    await until(
      "an answer",
      async () => {
        assertEquals(process.status, undefined);
        return exists(socketPath(name)) &&
          (await lab.a.attempt(["wg", "show", name])).code === 0;
      },
      20_000,
    );
    await lab.a.run([
      ...["wg", "set", name, "private-key"],
      ...[lab.file(tunnel.keys.a.private), "listen-port", String(PORT.a)],
      ...["peer", tunnel.keys.b.public, "endpoint", `10.77.0.2:${PORT.b}`],
      ...["allowed-ips", `${INNER.b.v4}/32`],
    ]);
    await lab.connect(lab.a, name, `${INNER.a.v4}/24`);
    await assertPings(lab.a, INNER.b.v4);
    const seen = `/proc/${process.pid}/root${disk}`;
    const read = (file: string): string =>
      exists(`${seen}/${file}`) ? Deno.readTextFileSync(`${seen}/${file}`) : "";
    assertEquals([read("log"), read(`${name}.timestamp`)], ["", ""]);
    Deno.removeSync(`${seen}/fill`);
    await lab.a.ip("link", "set", name, "down");
    await until("a line", () => /interface down/.test(read("log")));
    process.signal("SIGTERM");
    assertEquals((await process.ended()).code, 0);
  },
);

labTest(
  "a clock that is set back over a restart does not shut the peer out, thanks to the state file",
  {},
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    await tunnel.a.process[Symbol.asyncDispose]();
    const state = `${lab.directory}/clock`;
    const { name } = tunnel.a;
    // As after a time when the clock was right: now it is a day behind.
    const ahead = Date.now() + 86_400_000;
    Deno.mkdirSync(state);
    Deno.writeTextFileSync(`${state}/${name}.timestamp`, `${ahead}\n`);
    const start = async (directory: string): Promise<Daemon> => {
      const env = { STATE_DIRECTORY: directory };
      const daemon = await lab.a.daemon("wgd", { name, env });
      await tunnel.configure("a", daemon);
      return daemon;
    };
    const refused = async (): Promise<number> =>
      (await stats(tunnel.b)).handshake_refused_initiation;
    const before = await refused();
    for (const signal of ["SIGTERM", "SIGKILL", "SIGTERM"] as const) {
      const daemon = await start(state);
      assertMatch(daemon.process.said, /clock is behind/);
      await assertPings(lab.a, INNER.b.v4);
      const file = `${state}/${name}.timestamp`;
      await until(
        "the file",
        () => Number(Deno.readTextFileSync(file)) > ahead,
      );
      daemon.process.signal(signal);
      await daemon.process.ended();
    }
    assertEquals(await refused(), before);
    // Without the file, the peer does refuse it: so the test can fail.
    const forgetful = await start(`${lab.directory}/empty`);
    assertEquals((await ping(lab.a, INNER.b.v4, { count: 2 })).received, 0);
    assert(await refused() > before);
    assertEquals(forgetful.process.said, "");
  },
);

labTest(
  "a daemon that was killed is set up again by wgd up, whatever it left",
  {},
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    await tunnel.a.process[Symbol.asyncDispose]();
    const name = await lab.interfaceName();
    const path = lab.file(
      [
        "[Interface]",
        `PrivateKey = ${tunnel.keys.a.private}`,
        `ListenPort = ${PORT.a}`,
        `Address = ${INNER.a.v4}/24`,
        "[Peer]",
        `PublicKey = ${tunnel.keys.b.public}`,
        `AllowedIPs = ${INNER.b.v4}/32, 10.123.0.0/16`,
        `Endpoint = 10.77.0.2:${PORT.b}`,
        "",
      ].join("\n"),
      `${name}.conf`,
    );
    const up = (): Promise<string> => lab.a.run([...wgdCommand(), "up", path]);
    const pidsOf = async (): Promise<number[]> =>
      (await run(["ip", "netns", "pids", lab.a.name])).trim().split("\n")
        .filter((word) => word !== "").map(Number);
    for (let round = 0; round < 2; round++) {
      await up();
      await assertPings(lab.a, INNER.b.v4);
      assertMatch(
        await lab.a.ip("route"),
        new RegExp(`10.123.0.0/16 dev ${name}`),
      );
      const [pid, ...more] = await pidsOf();
      assertEquals(more, []);
      Deno.kill(pid, "SIGKILL");
      await until("its end", async () => (await pidsOf()).length === 0);
      assert(exists(socketPath(name)), "the stale socket");
    }
    await up();
    await assertPings(lab.a, INNER.b.v4);
    await lab.a.run([...wgdCommand(), "down", path]);
    assert(!exists(socketPath(name)));
    await until("its end", async () => (await pidsOf()).length === 0);
  },
);
