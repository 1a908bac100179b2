/**
 * What a running daemon gives up, and where its keys are not: rights of its
 * threads, dumps, logs, arguments, its socket's permissions.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { attempt, Process, until } from "./process.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { generateKeys, INNER, Tunnel } from "./tunnel.ts";

const ALONE = { joined: false };
/** CAP_NET_BIND_SERVICE and CAP_NET_ADMIN. */
const CONTROL_RIGHTS = "0000000000001400";
const NO_RIGHTS = "0000000000000000";

/** A field of /proc/PID/task/TID/status. */
function field(pid: number, task: string, name: string): string {
  const text = Deno.readTextFileSync(`/proc/${pid}/task/${task}/status`);
  return new RegExp(`^${name}:\\s*(.*)$`, "m").exec(text)?.[1] ?? "";
}

/** Tasks of a process by their names. */
function tasks(pid: number): { id: string; name: string }[] {
  return [...Deno.readDirSync(`/proc/${pid}/task`)].map(({ name: id }) => ({
    id,
    name: field(pid, id, "Name"),
  }));
}

/** Text forms of a key that must not be told. */
function formsOf(secret: string): string[] {
  const bytes = Uint8Array.from(atob(secret), (c) => c.charCodeAt(0));
  return [secret, bytes.toHex(), bytes.join(","), bytes.join(", ")];
}

function assertNoKeys(text: string, secrets: readonly string[]): void {
  const lower = text.toLowerCase();
  for (const form of secrets.flatMap(formsOf)) {
    assert(!lower.includes(form.toLowerCase()), "a key is told");
  }
}

labTest(
  "threads that see packets have no rights, control has two, and still changes ports and marks",
  {},
  async (lab) => {
    const args = ["--threads", "2", "--lanes", "2"];
    const tunnel = await Tunnel.make(lab, { daemon: { args } });
    await assertPings(lab.a, INNER.b.v4);
    const { pid } = tunnel.a.process;
    const workers = tasks(pid).filter(({ name }) => /^worker-/.test(name));
    assertEquals(workers.length, 4);
    // Nobody waits for lanes: they may still load their code.
    await until(
      "the lanes",
      () => workers.every(({ id }) => field(pid, id, "CapEff") === NO_RIGHTS),
    );
    for (const { id } of workers) {
      for (const set of ["CapEff", "CapPrm", "CapInh", "CapAmb"]) {
        assertEquals(field(pid, id, set), NO_RIGHTS, set);
      }
      assertEquals(field(pid, id, "NoNewPrivs"), "1");
    }
    const control = String(pid);
    assertEquals(field(pid, control, "CapEff"), CONTROL_RIGHTS);
    assertEquals(field(pid, control, "CapPrm"), CONTROL_RIGHTS);
    assertEquals(field(pid, control, "NoNewPrivs"), "1");
    await tunnel.a.set("listen-port", "53", "fwmark", "0x7");
    assertEquals(await tunnel.a.show("listen-port"), "53");
    await assertPings(lab.a, INNER.b.v4);
    await lab.a.ip("link", "set", tunnel.a.name, "down");
    await lab.connect(lab.a, tunnel.a.name, `${INNER.a.v6}/64`);
    await assertPings(lab.a, INNER.b.v4);
  },
);

labTest(
  "in the background no thread at all has more rights than a start takes",
  ALONE,
  async (lab) => {
    const name = await lab.interfaceName();
    const script = `"$@" 2>${lab.directory}/log`;
    await lab.a.run(["sh", "-c", script, "sh", ...wgdCommand(), name]);
    const pids = await attempt(["ip", "netns", "pids", lab.a.name]);
    const pid = Number(pids.stdout.trim());
    // DAC_OVERRIDE and _READ_SEARCH, those of control, NET_BROADCAST, IPC_LOCK.
    const most = (1n << 1n) | (1n << 2n) | (1n << 10n) | (1n << 11n) |
      (1n << 12n) | (1n << 14n);
    const all = tasks(pid);
    assert(all.length >= 4);
    for (const task of all) {
      const rights = BigInt(`0x${field(pid, task.id, "CapPrm")}`);
      assertEquals(rights & ~most, 0n, `${task.name} ${rights.toString(16)}`);
      assertEquals(field(pid, task.id, "NoNewPrivs"), "1", task.name);
    }
    Deno.kill(pid, "SIGTERM");
    await until(
      "its end",
      async () =>
        (await attempt(["ip", "netns", "pids", lab.a.name])).stdout === "",
    );
    assertEquals(Deno.readTextFileSync(`${lab.directory}/log`), "");
  },
);

labTest(
  "memory is not dumped, and pages of keys are locked",
  { programs: ["setpriv"] },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const { pid } = daemon.process;
    const limits = Deno.readTextFileSync(`/proc/${pid}/limits`);
    assertMatch(limits, /Max core file size\s+0\s+0\s/);
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const lockedKb = Number(/VmLck:\s*(\d+) kB/.exec(status)?.[1]);
    assert(lockedKb > 100_000, `${lockedKb} kB of key pages`);
    // Only what is used is in memory: locking has not touched the rest.
    assert(daemon.residentBytes() < 200 << 20);
    // The arena and the page of the private key: neither is dumped (dd).
    const maps = Deno.readTextFileSync(`/proc/${pid}/smaps`);
    const flags = maps.split("VmFlags:").slice(1).map((text) =>
      text.split("\n")[0].trim().split(" ")
    );
    const locked = flags.filter((words) => words.includes("lo"));
    assert(locked.length >= 2);
    assert(locked.every((words) => words.includes("dd")), String(locked));
    // Without CAP_SYS_PTRACE not even root reads it; a process that may be
    // dumped would let it.
    const read = (target: number): Promise<{ code: number }> =>
      attempt([
        ...["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        ...["cat", `/proc/${target}/environ`],
      ]);
    assert((await read(pid)).code !== 0);
    const sleep = lab.own(
      new Process([
        ...["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
        ...["sleep", "60"],
      ]),
    );
    await until(
      "sleep",
      () => Deno.readTextFileSync(`/proc/${sleep.pid}/comm`) === "sleep\n",
    );
    assertEquals((await read(sleep.pid)).code, 0);
  },
);

labTest(
  "keys are in no argument, no environment, no log and no crash trace",
  { programs: ["strace"] },
  async (lab) => {
    const tunnel = await Tunnel.make(lab, {
      psk: true,
      daemon: { env: { LOG_LEVEL: "verbose" } },
    });
    await assertPings(lab.a, INNER.b.v4);
    const { a } = tunnel;
    const secrets = [tunnel.keys.a.private, (tunnel.psk ?? "").trim()];
    assert(secrets.every((secret) => secret.length === 44));
    const { pid } = a.process;
    for (const file of ["cmdline", "environ"]) {
      assertNoKeys(Deno.readTextFileSync(`/proc/${pid}/${file}`), secrets);
    }
    // Bad requests, with a key in them, and the death of a worker.
    const socket = await Deno.connect({
      transport: "unix",
      path: socketPath(a.name),
    });
    const hex = formsOf(secrets[0])[1];
    const text = `set=1\nprivate_key=${hex}0\npreshared_key=${hex}\n\n`;
    await socket.write(new TextEncoder().encode(text));
    const answer = new Uint8Array(1000);
    const length = await socket.read(answer) ?? 0;
    socket.close();
    const said = new TextDecoder().decode(answer.subarray(0, length));
    assertMatch(said, /^errno=-\d+\n/);
    assertNoKeys(said, secrets);
    const strace = lab.own(
      new Process([
        ...["strace", "-f", "-p", String(pid), "-o", "/dev/null"],
        ...["-e", "trace=poll", "-e", "inject=poll:error=EFAULT"],
      ]),
    );
    await a.process.ended(10_000);
    await strace.ended();
    assertMatch(a.process.said, /worker failed: [^]*at /);
    assertNoKeys(a.process.said, secrets);
  },
);

labTest(
  "the socket is its owner's alone, and a folder that all may write to is refused",
  { ...ALONE, programs: ["unshare"] },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const { mode, uid } = Deno.statSync(socketPath(daemon.name));
    assertEquals([(mode ?? 0) & 0o777, uid], [0o700, 0]);
    const folder = Deno.statSync("/var/run/wireguard");
    assertEquals((folder.mode ?? 0) & 0o022, 0, "nobody else may write there");
    const name = await lab.interfaceName();
    const script = "mount -t tmpfs none /run && mkdir /run/wireguard && " +
      'chmod 777 /run/wireguard && exec "$@"';
    const finished = await lab.a.attempt([
      ...["unshare", "-m", "sh", "-c", script, "sh"],
      ...[...wgdCommand(), "run", "-f", name],
    ]);
    assertEquals(finished.code, 3, finished.stderr);
    assertMatch(
      finished.stderr,
      /^wgd: \/var\/run\/wireguard: everybody may write there: [^\n]*\n$/,
    );
  },
);

labTest(
  "a client of UAPI that stays silent is let go after a minute, others are served",
  { ...ALONE, slow: true },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const path = socketPath(daemon.name);
    const clients: Deno.UnixConn[] = [];
    for (let i = 0; i < 40; i++) {
      const client = await Deno.connect({ transport: "unix", path });
      await client.write(new TextEncoder().encode("set=1\nfwmark="));
      clients.push(client);
    }
    const startMs = Date.now();
    assertEquals((await daemon.attempt("show", daemon.name)).code, 0);
    for (const client of clients) {
      const answer = new Uint8Array(100);
      while (await client.read(answer).catch(() => null) !== null);
      client.close();
    }
    const tookMs = Date.now() - startMs;
    assert(tookMs > 50_000 && tookMs < 80_000, `${tookMs} ms`);
    assertEquals((await daemon.attempt("show", daemon.name)).code, 0);
  },
);

labTest(
  "64 clients of UAPI are served at a time, and the next one in its turn",
  ALONE,
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const path = socketPath(daemon.name);
    const clients: Deno.UnixConn[] = [];
    for (let i = 0; i < 64; i++) {
      const client = await Deno.connect({ transport: "unix", path });
      await client.write(new TextEncoder().encode("set=1\n"));
      clients.push(client);
    }
    const show = lab.a.argv(["wg", "show", daemon.name]);
    const TIMED_OUT = 124;
    assertEquals((await attempt(show, { timeoutS: 2 })).code, TIMED_OUT);
    clients.pop()?.close();
    assertEquals((await attempt(show, { timeoutS: 10 })).code, 0);
    for (const client of clients) client.close();
    await daemon.show("dump");
  },
);

labTest(
  "a private key that is replaced or unset is on no locked page any more",
  ALONE,
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const { pid } = daemon.process;
    const first = (await generateKeys()).private;
    const second = (await generateKeys()).private;
    const bytesOf = (key: string): Uint8Array =>
      Uint8Array.from(atob(key), (c) => c.charCodeAt(0));
    await daemon.set("private-key", lab.file(first));
    assert(inLockedPages(pid, bytesOf(first)), "it is kept there");
    await daemon.set("private-key", lab.file(second));
    assert(!inLockedPages(pid, bytesOf(first)));
    assert(inLockedPages(pid, bytesOf(second)));
    await daemon.set("private-key", "/dev/null");
    assert(!inLockedPages(pid, bytesOf(second)));
  },
);

/** Whether a small locked mapping of the process holds these bytes. */
function inLockedPages(pid: number, wanted: Uint8Array): boolean {
  const maps = Deno.readTextFileSync(`/proc/${pid}/smaps`);
  using memory = Deno.openSync(`/proc/${pid}/mem`);
  const mapping =
    /^([0-9a-f]+)-([0-9a-f]+) rw.*\n(?:\w+:.*\n)*?VmFlags:(.*)$/gm;
  for (const [, from, to, flags] of maps.matchAll(mapping)) {
    const start = parseInt(from, 16);
    const length = parseInt(to, 16) - start;
    if (!flags.includes(" lo") || length > 1 << 20) continue;
    const bytes = new Uint8Array(length);
    memory.seekSync(start, Deno.SeekMode.Start);
    memory.readSync(bytes);
    for (let at = 0; at + wanted.length <= length; at++) {
      if (wanted.every((byte, i) => bytes[at + i] === byte)) return true;
    }
  }
  return false;
}
