/**
 * `wgd up` and `wgd down`, and stock wg-quick with wgd as its userspace
 * implementation.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { makeSite, type Site, STOCK } from "./quick_lab.ts";
import { until } from "./process.ts";
import { moduleCommand, wgdCommand } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { generateKeys, INNER, OUTER, PORT } from "./tunnel.ts";

interface ConfigOptions {
  readonly endpoint?: string;
  /** More allowed IPs. */
  readonly allowed?: string;
}

/** Writes the configuration. @returns its path */
function writeConfig(
  lab: Lab,
  { name, keys }: Site,
  { endpoint = OUTER.v4.b, allowed = "" }: ConfigOptions = {},
): string {
  return lab.file(
    `[Interface]
PrivateKey = ${keys.a.private}
ListenPort = ${PORT.a}
Address = ${INNER.a.v4}/24, ${INNER.a.v6}/64
MTU = 1380

[Peer]
PublicKey = ${keys.b.public}
AllowedIPs = ${INNER.b.v4}/32, ${INNER.b.v6}/128${allowed}
Endpoint = ${endpoint}:${PORT.b}
`,
    `${name}.conf`,
  );
}

for (const outer of ["v4", "v6"] as const) {
  labTest(
    `wgd up and down over IP${outer}: a tunnel comes and goes`,
    {},
    async (lab) => {
      const site = await makeSite(lab);
      const path = writeConfig(lab, site, {
        endpoint: OUTER[outer].b,
        allowed: ", 10.200.0.0/16",
      });
      const before = await lab.a.state();
      const log = `${lab.directory}/log`;
      const script = `"$@" 2>${log}`;
      for (let round = 0; round < 2; round++) {
        await lab.a.run([
          "sh",
          "-c",
          script,
          "sh",
          ...wgdCommand(),
          "up",
          path,
        ]);
        await assertPings(lab.a, INNER.b.v4, { count: 1 });
        await assertPings(lab.a, INNER.b.v6, { count: 1 });
        await assertPings(lab.a, "10.200.0.1", { count: 1 });
        assertMatch(await lab.a.ip("link", "show", site.name), / mtu 1380 /);
        const echoed = Deno.readTextFileSync(log).trimEnd().split("\n");
        assert(
          echoed.every((line) => line.startsWith("[#] ")),
          echoed.join("\n"),
        );
        const during = await lab.a.state();
        const again = await lab.a.attempt([...wgdCommand(), "up", path]);
        assertEquals(again.code, 1);
        assertMatch(again.stderr, /^wgd: \S+ exists already; wgd down .*\n$/);
        assertEquals(await lab.a.state(), during);
        await lab.a.run([...wgdCommand(), "down", path]);
        assert(!exists(socketPath(site.name)));
        assertEquals(await lab.a.state(), before);
        const twice = await lab.a.attempt([...wgdCommand(), "down", path]);
        assertEquals(twice.code, 1);
        assertEquals(twice.stderr.trimEnd().split("\n").length, 1);
      }
    },
  );
}

interface Failure {
  readonly config?: ConfigOptions;
  readonly prepare?: (lab: Lab) => Promise<unknown>;
  readonly says: RegExp;
}

const FAILURES: Readonly<Record<string, Failure>> = {
  "an address that ip refuses": {
    prepare: (lab) =>
      lab.a.run([
        "sh",
        "-c",
        "echo 1 >/proc/sys/net/ipv6/conf/default/disable_ipv6",
      ]),
    says: /ip -6 address add/,
  },
  "a route that exists": {
    config: { allowed: ", 10.77.0.0/24" },
    prepare: (lab) => lab.a.ip("route", "add", "10.77.0.0/24", "dev", "va"),
    says: /ip -4 route add/,
  },
  "a port in use": {
    prepare: async (lab) => {
      const holder = lab.a.spawn(moduleCommand("hold_port.ts", String(PORT.a)));
      await until("the port to be held", () => holder.said.includes("held"));
    },
    says: /in use/,
  },
};

for (const [what, { config, prepare, says }] of Object.entries(FAILURES)) {
  labTest(`wgd up undoes all when it meets ${what}`, {}, async (lab) => {
    const site = await makeSite(lab);
    if (what === "a route that exists") {
      await lab.a.ip("addr", "del", "10.77.0.1/24", "dev", "va");
      await lab.a.ip("addr", "add", "10.77.0.1/32", "dev", "va");
    }
    await prepare?.(lab);
    const before = await lab.a.state();
    const path = writeConfig(lab, site, config);
    const { code, stderr } = await lab.a.attempt([...wgdCommand(), "up", path]);
    assertEquals(code, 1, stderr);
    assertMatch(stderr, says);
    const own = stderr.trimEnd().split("\n").filter((l) =>
      !l.startsWith("[#]")
    );
    assertEquals(own.length, 1, stderr);
    assertMatch(own[0], /^wgd: /);
    assert(!own[0].includes("deno"), own[0]);
    await until("the daemon to end", () => !exists(socketPath(site.name)));
    assertEquals(await lab.a.state(), before);
  });
}

labTest(
  "wgd up refuses a broken file whole, by line and column",
  {},
  async (lab) => {
    const name = await lab.interfaceName();
    const { private: key } = await generateKeys();
    const good = `[Interface]\nPrivateKey = ${key}\n`;
    const broken = {
      [`${good}Adress = 10.0.0.1/24\n`]: ":3:1:",
      [`${good}Address = 10.0.0.1/33\n`]: ":3:",
      [`${good}MTU = many\n`]: ":3:7:",
      [`[Interface]\nPrivateKey = short\n`]: ":2:14:",
      [`${good}[Peer]\nAllowedIPs = 10.0.0.0/8\n`]: ":3:",
      [`${good}[Peers]\n`]: ":3:1:",
      [`PrivateKey = ${key}\n`]: ":1:1:",
    };
    const before = await lab.a.state();
    for (const [text, where] of Object.entries(broken)) {
      const path = lab.file(text, `${name}.conf`);
      const { code, stderr } = await lab.a.attempt([
        ...wgdCommand(),
        "up",
        path,
      ]);
      assertEquals(code, 1, text);
      assert(stderr.startsWith(path + where), `${text}\n${stderr}`);
      assert(!stderr.includes("[#]"), stderr);
      assert(!stderr.includes(key), "no key is shown");
    }
    assertEquals(await lab.a.state(), before);
    const absent = await lab.a.attempt(
      [...wgdCommand(), "up", `${lab.directory}/${name}x.conf`],
    );
    assertEquals(absent.code, 1);
    assertMatch(absent.stderr, /no such file/);
  },
);

labTest("wgd up without rights is one line, status 3, and changes nothing", {
  programs: ["setpriv"],
}, async (lab) => {
  const site = await makeSite(lab);
  const path = writeConfig(lab, site);
  const before = await lab.a.state();
  const { code, stderr } = await lab.a.attempt([
    ...["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
    ...[...wgdCommand(), "up", path],
  ]);
  assertEquals(code, 3, stderr);
  const own = stderr.trimEnd().split("\n").filter((l) => !l.startsWith("[#]"));
  assertEquals(own.length, 1, stderr);
  assertMatch(own[0], /^wgd: No permission .*run as root/);
  assertEquals(await lab.a.state(), before);

  // The same where the file is not for everybody; wg's commands know 1 alone.
  Deno.chmodSync(path, 0);
  for (
    const [words, status] of [
      [["up"], 3],
      [["strip"], 3],
      [["setconf", site.name], 1],
    ] as const
  ) {
    const { code, stderr } = await lab.a.attempt([
      ...["setpriv", "--bounding-set=-all", "--inh-caps=-all"],
      ...[...wgdCommand(), ...words, path],
    ]);
    assertEquals(code, status, stderr);
    assertMatch(stderr, /^wgd: configuration: ".*": Permission denied\n$/);
  }
});

for (const everything of [false, true]) {
  labTest(
    `stock wg-quick with wgd: up and down ${
      everything ? "with a default route and a mark" : "with routes"
    }`,
    {
      programs: ["wg-quick", ...everything ? ["nft"] : []],
      skip: STOCK.skip,
    },
    async (lab) => {
      const site = await makeSite(lab);
      const path = writeConfig(lab, site, {
        allowed: everything ? ", 0.0.0.0/0" : ", 10.200.0.0/16",
      });
      const words = wgdCommand().map((word) => `'${word}'`).join(" ");
      const bin = `${lab.directory}/bin`;
      Deno.mkdirSync(bin);
      Deno.writeTextFileSync(
        `${bin}/wgd`,
        `#!/bin/sh\nexec ${words} "$@"\n`,
        { mode: 0o755 },
      );
      const env = {
        WG_QUICK_USERSPACE_IMPLEMENTATION: "wgd",
        PATH: `${bin}:${Deno.env.get("PATH")}`,
      };
      const before = await lab.a.state();
      const log = `${lab.directory}/log`;
      const script = `"$@" 2>${log}`;
      await lab.a.run(["sh", "-c", script, "sh", "wg-quick", "up", path], {
        env,
      });
      const echoed = Deno.readTextFileSync(log);
      assertMatch(echoed, /^\[#\] wgd /m);
      await assertPings(lab.a, INNER.b.v4);
      await assertPings(lab.a, INNER.b.v6);
      await assertPings(lab.a, "10.200.0.1");
      if (everything) {
        const mark = await lab.a.run(["wg", "show", site.name, "fwmark"]);
        assertEquals(mark.trim(), "0xca6c");
      }
      await lab.a.run(["wg-quick", "down", path], { env });
      await until("the daemon to end", () => !exists(socketPath(site.name)));
      assertEquals(await lab.a.state(), before);
    },
  );
}
