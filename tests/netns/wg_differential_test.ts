/**
 * The commands of wg(8) by the stock wg and by wgd, on the same daemon: the same
 * bytes on stdout, the same exit status, the same device afterwards. wgd's
 * commands run in this process, which is what makes hundreds of them quick, but
 * for those of an executable in WGD_PROGRAM, which are fewer; the stock wg's in
 * processes of their own.
 *
 * Where wgd differs on purpose, because wg 1.0.20210914 is in error or what it
 * does helps nobody; each has its test below, or in the file that it names:
 *
 * - `show all endpoints` names the interface once only (tests/show_test.ts).
 * - `syncconf` of a file without ListenPort moves the socket to another port.
 * - `syncconf` keeps a preshared key and a keepalive that are gone from the
 *   file; later versions of wg drop them, too.
 * - Ports are taken modulo 65536, port 0 as an endpoint's, addresses as
 *   inet_aton takes them, `[1.2.3.4]`, and IPv6 without brackets
 *   (tests/config_stock_test.ts).
 * - An endpoint whose port is a word that is no service is tried again for
 *   minutes.
 * - `setconf` takes a directory for an empty file, and empties the device.
 * - `--help` after a command other than show is an argument like others.
 *
 * And `+` and `-` before allowed IPs, which came with a later wg.
 */
import {
  assert,
  assertEquals,
  assertNotEquals,
  assertStringIncludes,
} from "@std/assert";
import { main } from "../../lib/commands/main.ts";
import { SHOW_FIELDS } from "../../lib/commands/show_render.ts";
import { servicePort } from "../../lib/sys/getaddrinfo.ts";
import { libc } from "../../lib/sys/libc.ts";
import { setDevice } from "../../lib/uapi_client.ts";
import type { Daemon, Implementation } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { attempt, type Finished, run } from "./process.ts";
import { wgdCommand } from "./requirements.ts";
import { Tunnel } from "./tunnel.ts";
import { OTHER, PEER, RIGHT, SECRET, WRONG } from "./wg_invocations.ts";
import { ConfigSource, normalConfig, normalDump } from "./uapi_configs.ts";

// Opens the C library's resolver before any test counts what is open.
servicePort("7");
libc();

const EXECUTABLE = Deno.env.get("WGD_PROGRAM");
/** A process for each command takes ten times as long. */
const ROUNDS =
  (EXECUTABLE
    ? { "wgd": 15, "wireguard-go": 8 }
    : { "wgd": 150, "wireguard-go": 40 }) satisfies Partial<
      Record<Implementation, number>
    >;
const SEEDS = [11, 12];

const NO_KEY = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

type Env = Readonly<Record<string, string>>;

/** The stock wg. */
function wg(args: readonly string[], env: Env = {}): Promise<Finished> {
  return finished("wg", args, env);
}

async function finished(
  program: string,
  args: readonly string[],
  env: Env,
): Promise<Finished> {
  const { code, stdout, stderr } = await new Deno.Command(program, {
    args: [...args],
    env,
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

/** wgd in this process, or the executable. */
async function wgd(args: readonly string[], env: Env = {}): Promise<Finished> {
  if (EXECUTABLE) return await finished(EXECUTABLE, args, env);
  let stdout = "";
  let stderr = "";
  const code = await main(args, {
    out: (text) => void (stdout += text),
    err: (line) => void (stderr += `${line}\n`),
    readStdin: () => Promise.resolve(new Uint8Array()),
    env: (name) => env[name],
    isTerminal: false,
  });
  return { code, stdout, stderr };
}

/** wireguard-go lists peers and allowed IPs in another order each time. */
function inOrder(text: string): string {
  return text.split(/[\n\t, ]+/).sort().join("\n");
}

/** Reads the device by all commands and compares what both print. */
async function assertSameOutput(
  daemon: Daemon,
  round: number,
  what: string,
): Promise<void> {
  const { name, implementation } = daemon;
  const isOrdered = implementation === "wgd";
  // All fields in turn.
  const fields = SHOW_FIELDS.filter((_, i) => i % 4 === round % 4);
  const commands = [
    ["show", name],
    ["showconf", name],
    ["show", name, "dump"],
    ...fields.map((field) => ["show", name, field]),
  ];
  await Promise.all(commands.map(async (args) => {
    const env: Record<string, string> = {};
    if (round % 2 === 0) env.WG_COLOR_MODE = "always";
    if (round % 3 === 0) env.WG_HIDE_KEYS = "never";
    const [theirs, ours] = await Promise.all([wg(args, env), wgd(args, env)]);
    const where = `wg ${args.join(" ")} after ${what}`;
    assertEquals([ours.code, ours.stderr], [0, ""], where);
    assertEquals(theirs.code, 0, where);
    if (isOrdered) assertEquals(ours.stdout, theirs.stdout, where);
    else assertEquals(inOrder(ours.stdout), inOrder(theirs.stdout), where);
  }));
}

/** The device as the stock wg tells it. */
async function stateOf(daemon: Daemon, sorted: boolean): Promise<unknown> {
  const dump = (await wg(["show", daemon.name, "dump"])).stdout;
  const config = (await wg(["showconf", daemon.name])).stdout;
  if (sorted) return { dump: normalDump(dump), config: normalConfig(config) };
  // Only a port that was asked for is the same twice.
  const [first] = normalDump(dump);
  return { dump: dump.replace(/^.*/, first) };
}

async function reset(daemon: Daemon, base: string): Promise<void> {
  await setDevice(
    daemon.name,
    `set=1\nprivate_key=${"00".repeat(32)}\nfwmark=0\nlisten_port=0\n` +
      "replace_peers=true\n\n",
  );
  const { code, stderr } = await wg(["setconf", daemon.name, base]);
  assertEquals(code, 0, stderr);
}

const VERBS = ["setconf", "addconf", "syncconf", "syncconf", "set"] as const;

/** A file that the stock wg takes. */
async function baseFile(
  lab: Lab,
  name: string,
  source: ConfigSource,
): Promise<string> {
  for (;;) {
    const file = lab.file(source.file(), "base");
    if ((await wg(["setconf", name, file])).code === 0) return file;
  }
}

for (const implementation of ["wgd", "wireguard-go"] as const) {
  for (const seed of SEEDS) {
    labTest(
      `random operations by wg and by wgd end alike on ${implementation} ` +
        `(seed ${seed})`,
      {
        programs: implementation === "wgd" ? [] : [implementation],
        joined: false,
      },
      async (lab) => {
        const daemon = await lab.a.daemon(implementation);
        // No route leads anywhere: nothing is sent, nothing counted.
        await daemon.up();
        const source = new ConfigSource(seed, { odd: true });
        let changed = 0;
        for (let round = 0; round < ROUNDS[implementation]; round++) {
          const base = await baseFile(lab, daemon.name, source);
          const verb = VERBS[source.random(VERBS.length)];
          const text = fileText(verb, source);
          const args = verb === "set"
            ? source.set((key) => lab.file(key))
            : [lab.file(text, "config")];
          const what = `round ${round}: wg ${verb} IF ${args.join(" ")}\n` +
            (verb === "set" ? "" : text);
          // syncconf moves what moves, in place of starting anew.
          const sorted = implementation !== "wgd" || verb === "syncconf";
          const outcomes = [];
          for (const command of [wg, wgd]) {
            await reset(daemon, base);
            const before = await stateOf(daemon, sorted);
            const { code, stdout } = await command([
              ...[verb, daemon.name],
              ...args,
            ]);
            const after = await stateOf(daemon, sorted);
            outcomes.push({ before, code, stdout, after });
          }
          const [theirs, ours] = outcomes;
          assertEquals(ours, theirs, what);
          if (JSON.stringify(ours.before) !== JSON.stringify(ours.after)) {
            changed++;
          }
          await assertSameOutput(daemon, round, what);
        }
        // The rest is refused, by both.
        assert(changed > ROUNDS[implementation] / 3, `${changed} changed`);
      },
    );
  }
}

/**
 * A file for a command. One for syncconf says all that wg's would leave as it
 * is, and each peer once: what wg makes of a peer's second section depends on
 * how its sort falls out.
 */
function fileText(verb: string, source: ConfigSource): string {
  if (verb !== "syncconf") return source.file(true);
  const [first, ...peers] = source.file().trimEnd().split("\n\n");
  const completed = (section: string, line: string): string =>
    section.includes(line.split(" ")[0]) ? section : `${section}\n${line}`;
  const sections = peers.map((peer) =>
    completed(
      completed(peer, `PresharedKey = ${NO_KEY}`),
      "PersistentKeepalive = off",
    )
  );
  return [completed(first, "ListenPort = 20001"), ...sections].join("\n\n") +
    "\n";
}

labTest(
  "a directory is no configuration, though wg takes it for an empty one",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    await daemon.set("peer", PEER);
    const { code, stderr } = await wgd(["setconf", daemon.name, "/"]);
    assertEquals(code, 1);
    assertStringIncludes(stderr, "Is a directory");
    assertEquals((await daemon.peers()).length, 1);
    assertEquals((await wg(["setconf", daemon.name, "/"])).code, 0);
    assertEquals(await daemon.show("peers"), "");
  },
);

labTest(
  "syncconf drops a preshared key and a keepalive that the file lacks",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const file = lab.file(`[Interface]\nListenPort = 20007\n
[Peer]\nPublicKey = ${PEER}\n`);
    const secret = lab.file(SECRET);
    const settings = ["preshared-key", secret, "persistent-keepalive", "25"];
    const shown = async (command: typeof wg): Promise<unknown> => {
      await daemon.set("peer", PEER, ...settings);
      assertEquals((await command(["syncconf", daemon.name, file])).code, 0);
      const [{ presharedKey, keepalive }] = await daemon.peers();
      return [presharedKey, keepalive];
    };
    assertEquals(await shown(wgd), ["(none)", "off"]);
    if ((await wg(["--version"])).stdout.includes("v1.0.20210914 ")) {
      assertEquals(await shown(wg), [SECRET, "25"]);
    }
  },
);

labTest(
  "syncconf of a file without ListenPort keeps the port, where wg moves it",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    await daemon.up();
    const file = lab.file(`[Interface]\nPrivateKey = ${SECRET}\n
[Peer]\nPublicKey = ${PEER}\nAllowedIPs = 10.0.0.0/24\n`);
    await daemon.set("listen-port", "20007", "peer", OTHER, "peer", PEER);
    assertEquals((await wgd(["syncconf", daemon.name, file])).code, 0);
    assertEquals(await daemon.show("listen-port"), "20007");
    assertEquals((await daemon.peers()).length, 1);
    await daemon.set("peer", OTHER);
    assertEquals((await wg(["syncconf", daemon.name, file])).code, 0);
    assertNotEquals(await daemon.show("listen-port"), "20007");
  },
);

labTest(
  "allowed IPs are added and removed one by one with + and -",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    for (
      const [list, wanted] of [
        ["10.0.0.0/8,fd00::/8", "10.0.0.0/8 fd00::/8"],
        ["+10.1.0.0/16,-fd00::/8", "10.0.0.0/8 10.1.0.0/16"],
        ["-10.0.0.0/9", "10.0.0.0/8 10.1.0.0/16"],
        ["+1.2.3.4,-1.2.3.4", "10.0.0.0/8 10.1.0.0/16"],
        ["-1.2.3.4,+1.2.3.4", "1.2.3.4/32 10.0.0.0/8 10.1.0.0/16"],
        ["::/0", "::/0"],
        ["", "(none)"],
      ]
    ) {
      const { code, stderr } = await wgd([
        ...["set", daemon.name, "peer", PEER, "allowed-ips", list],
      ]);
      assertEquals([code, stderr], [0, ""], list);
      const [, shown] = (await daemon.show("allowed-ips")).split("\t");
      assertEquals(shown.split(" ").sort().join(" "), wanted, list);
    }
  },
);

labTest(
  "wrong and strange invocations have the same exit status and effect",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const words: Record<string, string> = {
      IF: daemon.name,
      FILE: lab.file(
        `[Interface]\nListenPort = 20003\n[Peer]\nPublicKey = ${PEER}\n`,
      ),
      BAD: lab.file("[Interface]\nNonsense = 1\n"),
      EMPTY: lab.file(""),
      SHORT: lab.file(SECRET.slice(1)),
      TRAILING: lab.file(`${SECRET}x`),
      SPACES: lab.file(`${SECRET} \t\r\n\v\f\n`),
    };
    const outcome = async (
      command: typeof wg,
      args: readonly string[],
    ): Promise<unknown> => {
      await reset(daemon, words.EMPTY);
      const env = { WG_ENDPOINT_RESOLUTION_RETRIES: "0" };
      const given = args.map((word) => words[word] ?? word);
      const { code, stdout } = await command(given, env);
      return { code, stdout, state: await stateOf(daemon, false) };
    };
    for (const [list, status] of [[WRONG, 1], [RIGHT, 0]] as const) {
      for (const args of list) {
        const what = `wg ${args.join(" ")}`;
        const theirs = await outcome(wg, args);
        const ours = await outcome(wgd, args);
        assertEquals(ours, theirs, what);
        assertEquals((ours as Finished).code, status, what);
      }
    }
  },
);

labTest(
  "the number of tries comes from the environment, and must be one",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const args = ["set", daemon.name, "peer", PEER, "endpoint", "1.2.3.4:5"];
    for (const [retries, code] of [["x", 1], ["-1", 1], ["7", 0]] as const) {
      const env = { WG_ENDPOINT_RESOLUTION_RETRIES: retries };
      assertEquals((await wg(args, env)).code, code, retries);
      assertEquals((await wgd(args, env)).code, code, retries);
    }
    // wg tries again what can never work: its default would be 15 times.
    const bad = [
      "set",
      daemon.name,
      "peer",
      PEER,
      "endpoint",
      "1.2.3.4:nosuch",
    ];
    const env = { WG_ENDPOINT_RESOLUTION_RETRIES: "1" };
    assertStringIncludes((await wg(bad, env)).stderr, "Trying again in 1.00");
    const ours = await wgd(bad, env);
    assertEquals(ours.code, 1);
    assert(!ours.stderr.includes("Trying again"), ours.stderr);
  },
);

labTest(
  "keys and files come from standard input and pipes as with wg",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const file = `[Interface]\nListenPort = 20004\nPrivateKey = ${SECRET}\n`;
    const { name } = daemon;
    const cases: [args: string[], stdin: string][] = [
      [["set", name, "private-key", "/dev/stdin"], `${SECRET}\n`],
      [["set", name, "private-key", "/dev/stdin"], ""],
      [["set", name, "private-key", "/dev/stdin"], SECRET.slice(1)],
      [["setconf", name, "/dev/stdin"], file],
      [["syncconf", name, "/dev/stdin"], file],
      [["pubkey"], `${SECRET}\n`],
      [["pubkey"], SECRET.slice(2)],
    ];
    const empty = lab.file("");
    for (const [args, stdin] of cases) {
      const outcomes = [];
      for (const program of [["wg"], wgdCommand()]) {
        await reset(daemon, empty);
        const { code, stdout } = await attempt([...program, ...args], {
          stdin,
        });
        outcomes.push({ code, stdout, state: await stateOf(daemon, false) });
      }
      assertEquals(outcomes[1], outcomes[0], `${args.join(" ")} < ${stdin}`);
    }
    const script = `"$@" setconf ${name} <(printf '%s' '${file}')`;
    await run(["bash", "-c", script, "bash", ...wgdCommand()]);
    assertEquals(await daemon.show("listen-port"), "20004");
  },
);

labTest(
  "syncconf keeps sessions and traffic of peers that do not change",
  { programs: ["ping"] },
  async (lab) => {
    const tunnel = await Tunnel.make(lab);
    const { a, b } = tunnel;
    const far = "10.9.0.2";
    await run(lab.a.argv(["ping", "-c", "1", "-W", "5", far]));
    const handshake = await a.show("latest-handshakes");
    const config = await a.wg("showconf", a.name);
    const more = `\n[Peer]\nPublicKey = ${OTHER}\nAllowedIPs = 10.44.0.0/24\n`;
    const ping = run(
      lab.a.argv(["ping", "-q", "-i", "0.01", "-c", "200", "-W", "5", far]),
    );
    // Every address of the peer's but the one in use comes and goes, too.
    for (let i = 0; i < 10; i++) {
      const text = i % 2 === 0
        ? config.replace(/(AllowedIPs = .*)/, "$1, 10.45.0.0/24") + more
        : config;
      const { code, stderr } = await wgd([
        ...["syncconf", a.name, lab.file(text, "sync")],
      ]);
      assertEquals([code, stderr], [0, ""]);
      assertEquals((await a.peers()).length, i % 2 === 0 ? 2 : 1);
    }
    assertStringIncludes(await ping, " 0% packet loss");
    assertEquals(await a.show("latest-handshakes"), handshake);
    assert((await b.peers())[0].rxBytes > 0);
  },
);
