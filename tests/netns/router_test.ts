/**
 * Small machines: a memory limit that the kernel enforces, one core, slow
 * cryptography, and a network that comes later than the tunnel.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { delay, run, until } from "./process.ts";
import { makeSite, writeSite } from "./quick_lab.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings, assertTcp, iperf, Pinger } from "./traffic.ts";
import { generateKeys, INNER, OUTER, PORT, Tunnel } from "./tunnel.ts";

const MB = 1e6;

/** A memory cgroup: of version 2, or of version 1. */
class MemoryGroup implements AsyncDisposable {
  readonly directory: string;
  readonly #v2: boolean;

  constructor(lab: Lab, limitBytes: number) {
    const root = "/sys/fs/cgroup";
    this.#v2 = exists(`${root}/cgroup.subtree_control`);
    this.directory = `${root}${this.#v2 ? "" : "/memory"}/${lab.id}`;
    Deno.mkdirSync(this.directory);
    this.#write(this.#v2 ? "memory.max" : "memory.limit_in_bytes", limitBytes);
  }

  #write(name: string, value: number): void {
    Deno.writeTextFileSync(`${this.directory}/${name}`, String(value));
  }

  #read(name: string): string {
    return Deno.readTextFileSync(`${this.directory}/${name}`);
  }

  /** Command line that runs another one in here. */
  argv(argv: readonly string[]): string[] {
    const script = `echo $$ > ${this.directory}/cgroup.procs; exec "$@"`;
    return ["sh", "-c", script, "sh", ...argv];
  }

  /** Bytes that it has taken at most. */
  peak(): number {
    const name = this.#v2 ? "memory.peak" : "memory.max_usage_in_bytes";
    return Number(this.#read(name));
  }

  /** Processes that the kernel has killed in it. */
  kills(): number {
    const text = this.#read(this.#v2 ? "memory.events" : "memory.oom_control");
    return Number(/^oom_kill (\d+)/m.exec(text)?.[1]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await until("the group to be empty", () => {
      try {
        Deno.removeSync(this.directory);
        return true;
      } catch {
        return false;
      }
    });
  }
}

/** Why memory cannot be limited here. */
function noMemoryGroups(): string | undefined {
  const v2 = "/sys/fs/cgroup/cgroup.subtree_control";
  if (exists("/sys/fs/cgroup/memory/memory.limit_in_bytes")) return undefined;
  if (exists(v2) && Deno.readTextFileSync(v2).includes("memory")) {
    return undefined;
  }
  return "needs a cgroup with the controller memory";
}

interface Near {
  readonly name: string;
  readonly path: string;
}

/** A far side that is up, and the near one's configuration. */
async function prepare(lab: Lab, endpoint = OUTER.v4.b): Promise<Near> {
  const site = await makeSite(lab);
  const path = writeSite(lab, site, {
    interface: `Address = ${INNER.a.v4}/24`,
    allowed: `${INNER.b.v4}/32`,
    endpoint: `${endpoint}:${PORT.b}`,
    more: "PersistentKeepalive = 5\n",
  });
  return { name: site.name, path };
}

/** Runs wgd without keeping the pipe that its daemon inherits. */
function wgd(
  lab: Lab,
  wrap: (argv: string[]) => string[],
  ...args: string[]
): Promise<string> {
  const script = `exec "$@" 2> ${lab.directory}/log`;
  return lab.a.run(wrap(["sh", "-c", script, "sh", ...wgdCommand(), ...args]));
}

labTest("a tunnel under a limit of 128 MB: traffic, floods and questions", {
  programs: ["iperf3"],
  skip: noMemoryGroups() ??
    (Deno.env.has("WGD_PROGRAM")
      ? undefined
      : "for the executable: a checkout needs more, for its compiler"),
}, async (lab) => {
  const site = await prepare(lab);
  await using group = new MemoryGroup(lab, 128 * MB);
  await wgd(
    lab,
    (argv) => group.argv(argv),
    "up",
    "--memory",
    "128",
    site.path,
  );
  try {
    await assertPings(lab.a, INNER.b.v4);
    await assertTcp(lab.a, lab.b, INNER.b.v4);
    await assertTcp(lab.a, lab.b, INNER.b.v4, ["-P", "4"]);
    await iperf(lab.a, lab.b, INNER.b.v4, [
      "-u",
      "-b",
      "0",
      "-l",
      "64",
      "-t",
      "3",
    ]);
    for (let i = 0; i < 200; i++) await lab.a.run(["wg", "show", site.name]);
    await assertPings(lab.a, INNER.b.v4);
    assertEquals(group.kills(), 0);
    assert(group.peak() <= 128 * MB, `${group.peak()} bytes`);
  } finally {
    await lab.a.run([...wgdCommand(), "down", site.path]);
  }
});

labTest("--memory refuses what is too little, and says what is enough", {
  joined: false,
}, async (lab) => {
  const name = await lab.interfaceName();
  const before = await lab.a.state();
  const { private: key } = await generateKeys();
  const path = lab.file(`[Interface]\nPrivateKey = ${key}\n`, `${name}.conf`);
  const up = (memory: string) =>
    lab.a.attempt([...wgdCommand(), "up", "--memory", memory, path]);
  const { code, stderr } = await up("64");
  assertEquals(code, 1);
  const says = /^wgd: --memory 64 is too little: wgd needs (\d+) MB here$/m;
  assertMatch(stderr, says);
  assertEquals(await lab.a.state(), before);
  const needed = says.exec(stderr)?.[1] ?? "";
  assert(Number(needed) <= 128, needed);
  await wgd(lab, (argv) => argv, "up", "--memory", needed, path);
  await lab.a.run([...wgdCommand(), "down", path]);
  assertEquals((await up("many")).code, 2);
});

labTest("more peers than --memory has room for are refused, and none is lost", {
  joined: false,
}, async (lab) => {
  const daemon = await lab.a.daemon("wgd", { args: ["--memory", "128"] });
  const keys = Array.from(
    { length: 3_000 },
    () => crypto.getRandomValues(new Uint8Array(32)).toBase64(),
  );
  const text = keys.map((key) => `[Peer]\nPublicKey = ${key}\n`).join("");
  const { code } = await daemon.attempt(
    ...["addconf", daemon.name, lab.file(text)],
  );
  assertEquals(code, 1);
  const peers = (await daemon.peers()).length;
  assert(peers > 500 && peers < 3_000, `${peers} peers`);
});

labTest(
  "a machine of one core",
  { programs: ["iperf3", "taskset"] },
  async (lab) => {
    const site = await prepare(lab);
    await wgd(lab, (argv) => ["taskset", "-c", "0", ...argv], "up", site.path);
    await assertPings(lab.a, INNER.b.v4);
    await assertTcp(lab.a, lab.b, INNER.b.v4);
    await lab.a.run([...wgdCommand(), "down", site.path]);
  },
);

/** Command line that runs wgd where no libcrypto can be opened. */
async function withoutLibcrypto(): Promise<string[]> {
  const libraries = await run(["ldconfig", "-p"]);
  const paths = [...libraries.matchAll(/libcrypto.* => (.*)/g)]
    .map(([, path]) => path);
  // Each program in a namespace has mounts of its own.
  const hide = 'mount --bind /dev/null "$1"; shift';
  const script = `while [ "$1" != -- ]; do ${hide}; done; shift; exec "$@"`;
  return ["sh", "-c", script, "sh", ...paths, "--", ...wgdCommand()];
}

labTest("a machine without SIMD and libcrypto", {
  programs: ["iperf3", "ldconfig"],
  skip: Deno.env.has("WGD_PROGRAM")
    ? "for a checkout: an executable takes no flags of V8"
    : Deno.build.arch === "x86_64"
    ? undefined
    : "for x86-64: arm64 always has SIMD",
}, async (lab) => {
  const tunnel = await Tunnel.make(lab, {
    daemon: {
      command: await withoutLibcrypto(),
      // V8 has no SIMD without SSE 4.1.
      env: { DENO_V8_FLAGS: "--no-enable-sse4-1", LOG_LEVEL: "verbose" },
    },
  });
  const found =
    /AEAD noble: Cannot use the wasm kernel: .*SIMD.*; Cannot open libcrypto/;
  assertMatch(tunnel.a.process.said, found);
  assertMatch(tunnel.b.process.said, found);
  await assertPings(lab.a, INNER.b.v4);
  await assertPings(lab.a, INNER.b.v6);
  await assertTcp(lab.a, lab.b, INNER.b.v4);
});

labTest("a network that comes after the tunnel, in its own time", {
  joined: false,
}, async (lab) => {
  const site = await prepare(lab);
  await wgd(lab, (argv) => argv, "up", site.path);
  const pinger = new Pinger(lab.a, INNER.b.v4, 0.2);
  await delay(2_000);
  assertEquals(pinger.repliesMs, []);
  await run([
    ...["ip", "-n", lab.a.name, "link", "add", "va", "type", "veth"],
    ...["peer", "name", "vb", "netns", lab.b.name],
  ]);
  await lab.connect(lab.b, "vb", "10.77.0.2/24");
  await delay(500);
  await lab.connect(lab.a, "va", "10.77.0.1/24");
  // A handshake is tried again after 5 s, with a third of a second of chance.
  await pinger.replies(3, 8_000);
  assert(exists(socketPath(site.name)));
  await lab.a.run([...wgdCommand(), "down", site.path]);
});
