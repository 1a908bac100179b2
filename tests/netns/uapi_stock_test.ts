/**
 * The stock wg makes of wgd what it makes of wireguard-go (kernel: netns.sh's
 * part on configuration).
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { Daemon } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { moduleCommand } from "./requirements.ts";
import { generateKeys } from "./tunnel.ts";
import { ConfigSource, normalConfig, normalDump } from "./uapi_configs.ts";
import { run, until } from "./process.ts";

const SEEDS = [1, 2, 3];
const ROUNDS = 25;
const PUBLIC_KEY = "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=";
const OTHER_KEY = "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=";
const NEEDS = { programs: ["wireguard-go"], joined: false };

/** wgd and wireguard-go, to be told the same. */
async function both(lab: Lab): Promise<[Daemon, Daemon]> {
  const daemons = await Promise.all([
    lab.a.daemon("wgd"),
    lab.b.daemon("wireguard-go"),
  ]);
  // No route leads anywhere: nothing is sent, nothing counted.
  await Promise.all(daemons.map((daemon) => daemon.up()));
  return daemons;
}

/** Outcome of a wg command on a daemon, with its name made IF. */
async function outcome(
  daemon: Daemon,
  command: string,
  ...args: string[]
): Promise<unknown> {
  const { code, stdout, stderr } = await daemon.attempt(
    ...[command, daemon.name, ...args],
  );
  const said = (stdout + stderr).replaceAll(daemon.name, "IF");
  return { code, said };
}

async function assertSameState(
  [ours, theirs]: readonly [Daemon, Daemon],
  what: string,
): Promise<void> {
  const dumps = await Promise.all(
    [ours, theirs].map(async (d) => normalDump(await d.show("dump"))),
  );
  assertEquals(dumps[0], dumps[1], `show dump after ${what}`);
  const configs = await Promise.all(
    [ours, theirs].map(async (d) =>
      normalConfig(await d.wg("showconf", d.name))
    ),
  );
  assertEquals(configs[0], configs[1], `showconf after ${what}`);
}

for (const seed of SEEDS) {
  labTest(
    `random configurations by stock wg end as with wireguard-go (seed ${seed})`,
    NEEDS,
    async (lab) => {
      const daemons = await both(lab);
      const source = new ConfigSource(seed);
      for (let round = 0; round < ROUNDS; round++) {
        const verbs = ["setconf", "addconf", "syncconf", "set", "set"] as const;
        const verb = verbs[source.random(verbs.length)];
        const text = source.file();
        const args = verb === "set"
          ? source.set((key) => lab.file(key))
          : [lab.file(text, "config")];
        const what = `round ${round}: wg ${verb} IF ${args.join(" ")}\n` +
          (verb === "set" ? "" : text);
        const [ours, theirs] = await Promise.all(
          daemons.map((daemon) => outcome(daemon, verb, ...args)),
        );
        assertEquals(ours, theirs, what);
        await assertSameState(daemons, what);
      }
    },
  );
}

labTest(
  "keys, own key and clamping are as with wireguard-go",
  NEEDS,
  async (lab) => {
    const daemons = await both(lab);
    const keys = await generateKeys();
    // 31 bytes of ones and bits set that clamping clears.
    const unclamped = "//////////////////////////////////////////8=";
    const steps: string[][] = [
      ["private-key", lab.file(keys.private)],
      ["peer", keys.public, "allowed-ips", "10.0.0.1/32"],
      ["peer", PUBLIC_KEY, "preshared-key", lab.file(keys.private)],
      ["peer", PUBLIC_KEY, "preshared-key", "/dev/null"],
      ["private-key", "/dev/null"],
      ["peer", keys.public, "allowed-ips", "10.0.0.1/32"],
      ["private-key", lab.file(keys.private)],
      ["private-key", lab.file(unclamped)],
      ["listen-port", "20001", "fwmark", "0x10"],
      ["listen-port", "0", "fwmark", "0"],
    ];
    for (const args of steps) {
      const what = `wg set IF ${args.join(" ")}`;
      const [ours, theirs] = await Promise.all(
        daemons.map((daemon) => outcome(daemon, "set", ...args)),
      );
      assertEquals(ours, theirs, what);
      await assertSameState(daemons, what);
    }
    const [ours] = daemons;
    const clamped = "+P///////////////////////////////////////38=";
    assertEquals(await ours.show("private-key"), clamped);
    const shown = (await ours.peers()).map(({ publicKey }) => publicKey);
    assertEquals(shown, [PUBLIC_KEY]);
  },
);

labTest("allowed IPs move from peer to peer", NEEDS, async (lab) => {
  const daemons = await both(lab);
  const steps = [
    ["peer", PUBLIC_KEY, "allowed-ips", "10.0.0.0/8,10.0.0.1/32,fd00::/8"],
    ["peer", OTHER_KEY, "allowed-ips", "10.0.0.1/32,10.1.0.0/16"],
    ["peer", PUBLIC_KEY, "allowed-ips", "10.0.0.1/32"],
    ["peer", OTHER_KEY, "allowed-ips", "0.0.0.0/0,::/0"],
    ["peer", PUBLIC_KEY, "allowed-ips", "10.1.2.3/16,fd00::1/64"],
    ["peer", OTHER_KEY, "allowed-ips", "10.1.0.0/16"],
    ["peer", PUBLIC_KEY, "allowed-ips", ""],
    ["peer", PUBLIC_KEY, "remove"],
  ];
  for (const args of steps) {
    await Promise.all(daemons.map((daemon) => daemon.set(...args)));
    await assertSameState(daemons, args.join(" "));
  }
});

labTest(
  "what wg refuses and reports is as with wireguard-go",
  NEEDS,
  async (lab) => {
    const daemons = await both(lab);
    await Promise.all(daemons.map((daemon) => daemon.up()));
    const holders = [lab.a, lab.b].map((namespace) =>
      namespace.spawn(moduleCommand("hold_port.ts", "7777"))
    );
    for (const holder of holders) {
      await until("the port to be held", () => holder.said.includes("held"));
    }
    const commands = [
      ["set", "listen-port", "7777"],
      ["set", "listen-port", "65536"],
      ["set", "private-key", lab.file("nonsense")],
      ["set", "peer", PUBLIC_KEY, "allowed-ips", "10.0.0.0/33"],
      ["set", "peer", PUBLIC_KEY, "endpoint", "10.0.0.1"],
      ["setconf", lab.file("[Interface]\nNonsense = 1\n")],
    ];
    for (const [verb, ...args] of commands) {
      const [ours, theirs] = await Promise.all(
        daemons.map((daemon) => outcome(daemon, verb, ...args)),
      );
      assertEquals(ours, theirs, `wg ${verb} IF ${args.join(" ")}`);
    }
    const [ours] = daemons;
    const { code, stderr } = await ours.attempt(
      ...["set", ours.name, "listen-port", "7777"],
    );
    assertEquals(code, 1);
    assertStringIncludes(stderr, "Address already in use");
    // The port that it had still serves.
    assert(Number(await ours.show("listen-port")) > 0);
    const unknown = await ours.attempt("show", "doesnotexist");
    assertEquals(unknown.code, 1);
  },
);

labTest(
  "one peer with 65,280 allowed IPs and 40 peers with 52 each are read back",
  { joined: false },
  async (lab) => {
    const daemon = await lab.a.daemon("wgd");
    const many = Array.from(
      { length: 255 * 256 },
      (_, i) => `10.${i >> 8}.${i & 255}.0/24`,
    );
    const big = `[Peer]\nPublicKey = ${PUBLIC_KEY}\n` +
      many.map((text) => `AllowedIPs = ${text}\n`).join("");
    await daemon.wg("setconf", daemon.name, lab.file(big));
    const [{ allowedIps }] = await daemon.peers();
    assertEquals(allowedIps.toSorted(), many.toSorted());

    const sets = await Promise.all(
      Array.from({ length: 40 }, async (_, i) => {
        const key = (await run(["wg", "genpsk"])).trim();
        const ips = Array.from({ length: 52 }, (_, j) => `fd00:${i}::${j}/128`);
        return { key, ips };
      }),
    );
    const several = sets.map(({ key, ips }) =>
      `[Peer]\nPublicKey = ${key}\nAllowedIPs = ${ips.join(", ")}\n`
    ).join("\n");
    await daemon.wg("setconf", daemon.name, lab.file(several));
    const peers = await daemon.peers();
    assertEquals(peers.length, 40);
    assertEquals(peers.flatMap((peer) => peer.allowedIps).length, 40 * 52);
    assertEquals(
      peers.map(({ publicKey }) => publicKey).toSorted(),
      sets.map(({ key }) => key).toSorted(),
    );
  },
);
