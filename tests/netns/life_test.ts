/**
 * How a daemon begins and ends: the contract of userspace implementations
 * (reference §9.2, §9.4), and that nothing is left or leaks.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { Daemon, exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab, Namespace } from "./lab.ts";
import { delay, Process, run, until } from "./process.ts";
import { findProgram, wgdCommand } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { generateKeys, INNER, PORT, Tunnel } from "./tunnel.ts";

const END_MS = 3_000;
/** Time to do what it must not. */
const HELD_MS = 500;
const ALONE = { joined: false };

async function assertEnded(daemon: Daemon): Promise<void> {
  const status = await daemon.process.ended(END_MS);
  assertEquals([status.code, status.signal], [0, null], daemon.process.said);
  assertEquals(daemon.process.said, "");
  assert(!exists(socketPath(daemon.name)), "the socket is left");
  assert(!(await daemon.hasInterface()), "the interface is left");
}

const ENDS: Readonly<Record<string, (daemon: Daemon) => unknown>> = {
  "SIGINT": (daemon) => daemon.process.signal("SIGINT"),
  "SIGTERM": (daemon) => daemon.process.signal("SIGTERM"),
  "deletion of the interface": (daemon) =>
    daemon.namespace.ip("link", "del", daemon.name),
  "deletion of the socket file": (daemon) =>
    Deno.remove(socketPath(daemon.name)),
};

for (const [how, end] of Object.entries(ENDS)) {
  for (
    const args of [["--threads", "1"], ["--threads", "2"], ["--udp", "plain"]]
  ) {
    labTest(
      `wgd ${args.join(" ")} ends cleanly by ${how}`,
      ALONE,
      async (lab) => {
        const idle = await lab.a.daemon("wgd", { args });
        await end(idle);
        await assertEnded(idle);
        const up = await lab.a.daemon("wgd", { args });
        await up.set("private-key", lab.file((await generateKeys()).private));
        await up.up("10.9.0.1/24");
        await end(up);
        await assertEnded(up);
      },
    );
  }
}

/** Whether a process's namespace has a socket at a UDP port; not once it has ended. */
function hasPort(pid: number, port: number): boolean {
  const hex = port.toString(16).toUpperCase().padStart(4, "0");
  try {
    return ["udp", "udp6"].some((table) =>
      Deno.readTextFileSync(`/proc/${pid}/net/${table}`).includes(`:${hex} `)
    );
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

labTest(
  "once its socket's file is gone, nothing holds the daemon's port",
  ALONE,
  async (lab) => {
    for (let round = 0; round < 3; round++) {
      const daemon = await lab.a.daemon("wgd", { args: ["--threads", "2"] });
      const { pid } = daemon.process;
      await daemon.set("listen-port", String(PORT.a));
      await daemon.up("10.9.0.1/24");
      await until("the port", () => hasPort(pid, PORT.a));
      daemon.process.signal("SIGTERM");
      const giveUpMs = Date.now() + END_MS;
      while (exists(socketPath(daemon.name)) && Date.now() < giveUpMs);
      assert(!hasPort(pid, PORT.a));
      await assertEnded(daemon);
    }
  },
);

async function daemonPids(namespace: Namespace): Promise<number[]> {
  const text = await run(["ip", "netns", "pids", namespace.name]);
  return text.trim().split("\n").filter((word) => word !== "").map(Number);
}

labTest(
  "wgd IF goes into the background, and answers once it returns",
  ALONE,
  async (lab) => {
    for (const words of [[], ["run"]]) {
      const name = await lab.interfaceName();
      // The daemon keeps a file that is its stderr; pipes it lets go of.
      const script = `"$@" 2>${lab.directory}/log`;
      await lab.a.run([
        "sh",
        "-c",
        script,
        "sh",
        ...wgdCommand(),
        ...words,
        name,
      ]);
      assertMatch(await lab.a.run(["wg", "show", name]), /interface: /);
      const [pid, ...more] = await daemonPids(lab.a);
      assertEquals(more, []);
      const session = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1];
      assertEquals(Number(session.split(" ")[3]), pid, "leads its session");
      assertEquals(Deno.readLinkSync(`/proc/${pid}/cwd`), "/");
      Deno.kill(pid, "SIGTERM");
      await until(
        "its end",
        async () => (await daemonPids(lab.a)).length === 0,
      );
      assert(!exists(socketPath(name)));
      assertEquals(Deno.readTextFileSync(`${lab.directory}/log`), "");
    }
  },
);

labTest(
  "who reads what wgd says to its end does not wait for the daemon's, unless LOG_LEVEL is set",
  ALONE,
  async (lab) => {
    const programs = findProgram("wireguard-go") === undefined
      ? [wgdCommand()]
      : [wgdCommand(), ["wireguard-go"]];
    for (const program of programs) {
      const read = async (
        env: Record<string, string>,
        timeoutS: number,
      ): Promise<number> => {
        const name = await lab.interfaceName();
        const script = 'said=$("$@" 2>&1)';
        const { code } = await lab.a.attempt(
          ["sh", "-c", script, "sh", ...program, name],
          { env, timeoutS },
        );
        // wireguard-go may have got the signal of timeout(1), too.
        await lab.a.attempt(["ip", "link", "delete", "dev", name]);
        return code;
      };
      const what = program.join(" ");
      assertEquals(await read({}, 30), 0, what);
      assertEquals(await read({ LOG_LEVEL: "error" }, 5), 124, what);
    }
  },
);

/** The daemon of an interface once it has loaded its code. */
async function loadedDaemon(
  namespace: Namespace,
  name: string,
): Promise<number> {
  let found: number | undefined;
  await until("a daemon that is loaded", async () => {
    found = (await daemonPids(namespace)).find((pid) =>
      Deno.readTextFileSync(`/proc/${pid}/cmdline`)
        .endsWith(`\0run\0${name}\0`) &&
      [...Deno.readDirSync(`/proc/${pid}/task`)].some((task) =>
        /^worker-/.test(
          Deno.readTextFileSync(`/proc/${pid}/task/${task.name}/comm`),
        )
      )
    );
    return found !== undefined;
  });
  return found ?? 0;
}

for (
  const [how, end] of Object.entries({
    "is refused": (_: Process, path: string) =>
      Deno.writeTextFile(path, "Address = 10.0.0.1/24\n"),
    "is killed": (up: Process) => up.signal("SIGKILL"),
  })
) {
  labTest(
    `the daemon that up has started touches nothing, and ends if up ${how}`,
    ALONE,
    async (lab) => {
      const name = await lab.interfaceName();
      const path = `${lab.directory}/${name}.conf`;
      await run(["mkfifo", path]);
      const before = await lab.a.state();
      // A daemon that stays must not hold a pipe of ours.
      const log = `${lab.directory}/log`;
      const script = `exec "$@" 2>${log}`;
      const up = lab.a.spawn(
        ["sh", "-c", script, "sh", ...wgdCommand(), "up", path],
      );
      const pid = await loadedDaemon(lab.a, name);
      await delay(HELD_MS);
      assert((await daemonPids(lab.a)).includes(pid));
      assertEquals(await lab.a.state(), before);
      assert(!exists(socketPath(name)));
      assertEquals(Deno.readTextFileSync(log), "");
      await end(up, path);
      await up.ended(END_MS);
      await until(
        "its end",
        async () => (await daemonPids(lab.a)).length === 0,
      );
      assertEquals(await lab.a.state(), before);
      assert(!exists(socketPath(name)));
      assert(!Deno.readTextFileSync(log).includes("[#]"));
    },
  );
}

const OPEN_TUN = `use Fcntl; use Socket;
$^F = 100;
sysopen(my $tun, "/dev/net/tun", O_RDWR) or die "tun: $!";
my $ifreq = pack("a16 s x22", $ARGV[0], 0x1001);
ioctl($tun, 0x400454ca, $ifreq) or die "TUNSETIFF: $!";
$ENV{WG_TUN_FD} = fileno $tun;
my $uapi;
if ($ARGV[1] ne "") {
  socket($uapi, AF_UNIX, SOCK_STREAM, 0) or die "socket: $!";
  bind($uapi, pack_sockaddr_un("$ARGV[1].new")) or die "bind: $!";
  listen($uapi, 5) or die "listen: $!";
  # wg removes sockets that refuse connections.
  rename("$ARGV[1].new", $ARGV[1]) or die "rename: $!";
  $ENV{WG_UAPI_FD} = fileno $uapi;
}
splice @ARGV, 1, 1;
shift @ARGV;
exec @ARGV or die "exec: $!";`;

for (const withSocket of [false, true]) {
  labTest(
    `a TUN${
      withSocket ? " and a UAPI socket" : ""
    } opened by another program ` +
      "are served",
    { programs: ["perl"] },
    async (lab) => {
      const tunnel = await Tunnel.make(lab);
      const name = await lab.interfaceName();
      const socket = withSocket ? socketPath(name) : "";
      const process = lab.own(
        new Process(lab.a.argv([
          ...["perl", "-e", OPEN_TUN, name, socket],
          ...[...wgdCommand(), "run", "-f", name],
        ])),
      );
      await until("an answer", async () => {
        assertEquals(process.status, undefined, process.said);
        return exists(socketPath(name)) &&
          (await lab.a.attempt(["wg", "show", name], { timeoutS: 5 })).code ===
            0;
      });
      // It takes the place of the tunnel's first side.
      await lab.a.ip("link", "del", tunnel.a.name);
      await tunnel.a.process.ended();
      const keys = tunnel.keys;
      await lab.a.run([
        ...["wg", "set", name, "private-key", lab.file(keys.a.private)],
        ...["peer", keys.b.public, "endpoint", "10.77.0.2:51822"],
        ...["allowed-ips", `${INNER.b.v4}/32`],
      ]);
      await lab.connect(lab.a, name, `${INNER.a.v4}/24`);
      await assertPings(lab.a, INNER.b.v4);
      process.signal("SIGTERM");
      assertEquals((await process.ended()).code, 0, process.said);
      assertEquals(process.said, "");
      if (withSocket) Deno.removeSync(socket);
    },
  );
}

labTest(
  "the verbose log tells of the interface, and of no keys",
  {},
  async (lab) => {
    const tunnel = await Tunnel.make(lab, {
      psk: true,
      daemon: { env: { LOG_LEVEL: "verbose" } },
    });
    await assertPings(lab.a, INNER.b.v4);
    const { a } = tunnel;
    await a.set("private-key", lab.file(tunnel.keys.a.private));
    await a.namespace.ip("link", "del", a.name);
    await a.process.ended();
    const { said } = a.process;
    assertMatch(said, new RegExp(`^wgd: ${a.name}: `));
    assertMatch(said, /interface up/);
    const secrets = [tunnel.keys.a.private, tunnel.psk ?? ""];
    for (const secret of secrets.map((text) => text.trim())) {
      const bytes = Uint8Array.from(atob(secret), (c) => c.charCodeAt(0));
      for (const form of [secret, bytes.toHex(), bytes.join(",")]) {
        assert(!said.toLowerCase().includes(form.toLowerCase()), said);
      }
    }
  },
);

function threads(daemon: Daemon): number {
  const status = Deno.readTextFileSync(`/proc/${daemon.process.pid}/status`);
  return Number(/Threads:\s*(\d+)/.exec(status)?.[1]);
}

async function churn(lab: Lab, daemon: Daemon, rounds: number): Promise<void> {
  for (let i = 0; i < rounds; i++) {
    await daemon.set("listen-port", String(20_000 + i));
  }
  for (let i = 0; i < rounds / 5; i++) {
    await lab.a.ip("link", "set", daemon.name, "down");
    await lab.a.ip("link", "set", daemon.name, "up");
  }
  // The last sockets are closed once the workers have let go of them.
  await delay(300);
}

for (const udp of ["batched", "plain"]) {
  labTest(
    `wgd --udp ${udp} has as many descriptors after 50 changes of its port as before`,
    {},
    async (lab) => {
      const args = ["--udp", udp];
      const tunnel = await Tunnel.make(lab, { daemon: { args } });
      await assertPings(lab.a, INNER.b.v4);
      await churn(lab, tunnel.a, 5);
      const before = tunnel.a.descriptors();
      const threadsBefore = threads(tunnel.a);
      await churn(lab, tunnel.a, 50);
      assertEquals(tunnel.a.descriptors(), before);
      assert(threads(tunnel.a) <= threadsBefore + 1, "threads");
      await assertPings(lab.a, INNER.b.v4);
    },
  );
}

labTest(
  "a stale socket of a killed daemon is replaced, a live one is not",
  ALONE,
  async (lab) => {
    const first = await lab.a.daemon("wgd");
    first.process.signal("SIGKILL");
    await first.process.ended();
    assert(exists(socketPath(first.name)));
    const second = await lab.a.daemon("wgd", { name: first.name });
    // The same name in another namespace: the interface is free, the socket not.
    const third = new Daemon(lab.b, "wgd", { name: first.name });
    lab.own(third);
    const { code } = await third.process.ended();
    assertEquals(code, 1);
    assertMatch(third.process.said, /^wgd: .*another daemon.*$/);
    assert(!(await third.hasInterface()));
    assertMatch(await second.wg("show", second.name), /interface/);
  },
);
