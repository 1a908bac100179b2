/**
 * `wgd reload`: what differs is changed, sessions and traffic go on, and the
 * interface ends as `up` of the changed file would leave it.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import {
  dump,
  FailingPrograms,
  type FileOptions,
  makeSite,
  runWith,
  type Site,
  wgd,
  writeResolvconf,
  writeSite,
} from "./quick_lab.ts";
import { findProgram, wgdCommand } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { generateKeys, INNER, OUTER } from "./tunnel.ts";

const BOTH = `Address = ${INNER.a.v4}/24, ${INNER.a.v6}/64`;
const PROGRAMS = ["nft", "sysctl"];

/** Files that follow each other, from the second on by reload. */
const CONFIGS: readonly FileOptions[] = [
  {},
  { allowed: "10.9.0.2/32, fd09::2/128, 10.200.0.0/16, fd0a::/16" },
  {
    interface: `${BOTH}, 10.12.0.1/24, fd0c::1/64\nMTU = 1380\n` +
      "DNS = 10.9.0.2, corp.example",
    allowed: "10.9.0.2/32, fd09::2/128, 10.12.0.0/24, 10.13.0.0/16",
  },
  { allowed: "10.9.0.2/32, 0.0.0.0/0, ::/0" },
  {
    interface: `${BOTH}, 10.12.0.1/24\nDNS = fd09::2`,
    allowed: "10.9.0.2/32, 0.0.0.0/0, ::/0",
  },
  {
    interface: `${BOTH}\nFwMark = 0x77`,
    allowed: "10.9.0.2/32, 0.0.0.0/0",
  },
  { interface: `${BOTH}\nTable = 4321`, allowed: "10.9.0.2/32, 0.0.0.0/0" },
  { interface: `${BOTH}\nTable = off`, allowed: "10.9.0.2/32, 0.0.0.0/0" },
  {
    interface: `Address = ${INNER.a.v6}/64`,
    allowed: "10.9.0.2/32, fd09::/64",
  },
  { interface: BOTH, allowed: "10.9.0.2/32, fd09::2/128" },
];

/** Without what may differ: order of rules, priorities, numbers. */
function comparable(text: string): string {
  return text.split("\n").map((line) =>
    line.replace(/^\d+:\t(?=.*lookup)/, "").replace(/^\d+: /, "")
  ).filter((line) => !line.includes("promote_secondaries"))
    .join("\n").replace(
      /(\t\tiifname != .*\n)+/g,
      (rules) => rules.split("\n").sort().join("\n"),
    );
}

labTest(
  "wgd reload leaves the system as down and up of the changed file would",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeSite(lab);
    writeResolvconf(lab);
    await lab.a.ip("route", "add", "default", "via", OUTER.v4.b);
    const before = await dump(lab);
    const expected: { dump: string; device: string }[] = [];
    const seen = async (): Promise<{ dump: string; device: string }> => ({
      dump: comparable(await dump(lab)),
      device: await lab.a.run(["wg", "showconf", site.name]),
    });
    for (const config of CONFIGS) {
      const path = writeSite(lab, site, config);
      await wgd(lab, "up", path);
      expected.push(await seen());
      await wgd(lab, "down", path);
    }
    const path = writeSite(lab, site, CONFIGS[0]);
    await wgd(lab, "up", path);
    for (const [i, config] of CONFIGS.entries()) {
      writeSite(lab, site, config);
      const said = await wgd(lab, "reload", path);
      assertEquals(await seen(), expected[i], `${i}\n${said}`);
      const again = await wgd(lab, "reload", path);
      assertEquals(
        again.split("\n").filter((line) =>
          line !== "" && !line.includes("wgd syncconf")
        ),
        [],
        "nothing to do the second time",
      );
    }
    await wgd(lab, "down", path);
    assertEquals(await dump(lab), before);
  },
);

async function handshake(lab: Lab, { name, keys }: Site): Promise<string> {
  const text = await lab.a.run(["wg", "show", name, "latest-handshakes"]);
  return text.split("\n").find((line) => line.startsWith(keys.b.public)) ?? "";
}

labTest(
  "wgd reload keeps sessions and loses no packet of peers that stay",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeSite(lab);
    writeResolvconf(lab);
    const other = await generateKeys();
    const path = writeSite(lab, site, {
      interface: `${BOTH}\nPostUp = touch ${lab.directory}/ran`,
    });
    await wgd(lab, "up", path);
    await assertPings(lab.a, INNER.b.v4, { count: 1 });
    Deno.removeSync(`${lab.directory}/ran`);
    const first = await handshake(lab, site);
    assertMatch(first, /\t[1-9]\d+$/);
    const pings = lab.a.run(
      ["ping", "-n", "-i", "0.05", "-c", "150", INNER.b.v4],
    );
    // Another primary address of the same network, and another peer.
    writeSite(lab, site, {
      interface: `Address = 10.9.0.77/24, 10.9.0.1/24, ${INNER.a.v6}/64
MTU = 1300
DNS = 10.9.0.2
PostUp = touch ${lab.directory}/ran`,
      allowed: `${INNER.b.v4}/32, ${INNER.b.v6}/128, 10.200.0.0/16`,
      more: `
[Peer]
PublicKey = ${other.public}
AllowedIPs = 10.66.0.0/16
`,
    });
    await wgd(lab, "reload", path);
    writeSite(lab, site, {
      interface: `Address = 10.9.0.1/24, ${INNER.a.v6}/64`,
    });
    await wgd(lab, "reload", path);
    assertMatch(await pings, /^150 packets transmitted, 150 received, 0%/m);
    assertEquals(await handshake(lab, site), first, "the session is kept");
    assertEquals(
      (await lab.a.attempt(["ls", `${lab.directory}/ran`])).code,
      2,
      "hooks that stay are not run",
    );
    await wgd(lab, "down", path);
  },
);

labTest(
  "a failure of each command of wgd reload leaves the interface as it was",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeSite(lab);
    writeResolvconf(lab);
    const resolvconf = `${lab.directory}/real-resolvconf`;
    Deno.renameSync(`${lab.directory}/bin/resolvconf`, resolvconf);
    const failing = new FailingPrograms(lab, {
      ip: findProgram("ip") ?? "",
      nft: findProgram("nft") ?? "",
      sysctl: findProgram("sysctl") ?? "",
      resolvconf,
    });
    const path = writeSite(lab, site);
    const before = await dump(lab);
    await wgd(lab, "up", path);
    const during = comparable(await dump(lab));
    const wanted: FileOptions = {
      interface: `${BOTH}, 10.12.0.1/24\nMTU = 1300\nDNS = 10.9.0.2`,
      allowed: "10.9.0.2/32, 10.200.0.0/16, 0.0.0.0/0",
    };
    writeSite(lab, site, wanted);
    failing.arm(0);
    await wgd(lab, "reload", path);
    const { calls } = failing;
    assert(calls > 5, String(calls));
    writeSite(lab, site);
    await wgd(lab, "reload", path);
    assertEquals(comparable(await dump(lab)), during);
    writeSite(lab, site, wanted);
    for (let at = 1; at <= calls; at++) {
      failing.arm(at);
      const reload = await runWith(lab, [...wgdCommand(), "reload", path]);
      assertEquals(reload.code, 1, reload.stderr);
      assertMatch(reload.stderr, /^wgd: .*: made to fail$/m);
      assertEquals(comparable(await dump(lab)), during, reload.stderr);
    }
    failing.arm(0);
    await wgd(lab, "reload", path);

    // What could not be removed is left to `down`.
    for (const program of ["ip", "nft", "sysctl"]) {
      writeSite(lab, site);
      const shown = await lab.a.run(
        [...wgdCommand(), "reload", "--dry-run", path],
      );
      const commands = shown.split("\n")
        .filter((line) => /^(ip|nft|sysctl|resolvconf) /.test(line));
      const at = commands.findLastIndex((line) => line.startsWith(program));
      failing.arm(at + 1);
      const reload = await runWith(lab, [...wgdCommand(), "reload", path]);
      assertEquals(reload.code, 1, reload.stderr);
      assertMatch(
        reload.stderr,
        new RegExp(`: ${program} .*: made to fail\\n$`),
      );
      failing.arm(0);
      await wgd(lab, "down", path);
      assertEquals(await dump(lab), before, program);
      writeSite(lab, site, wanted);
      await wgd(lab, "up", path);
    }
    await wgd(lab, "down", path);
    assertEquals(await dump(lab), before);
  },
);

labTest(
  "wgd reload runs hooks that are new, and those that undo what is gone",
  {},
  async (lab) => {
    const site = await makeSite(lab);
    const ran = `${lab.directory}/ran`;
    const hooks = (port: number, more = ""): string =>
      writeSite(lab, site, {
        interface: `${BOTH}
PreUp = echo stays >> ${ran}
PostUp = echo add ${port} %i >> ${ran}; ip route add 10.${port}.0.0/16 dev %i
PreDown = ip route delete 10.${port}.0.0/16 dev %i
PostDown = echo delete ${port} %i >> ${ran}
${more}`,
      });
    const said = (): string[] => {
      const lines = Deno.readTextFileSync(ran).trimEnd().split("\n");
      Deno.writeTextFileSync(ran, "");
      return lines;
    };
    const path = hooks(1);
    const before = await dump(lab);
    await wgd(lab, "up", path);
    const { name } = site;
    assertEquals(said(), ["stays", `add 1 ${name}`]);
    await wgd(lab, "reload", path);
    assertEquals(said(), [""]);
    hooks(2);
    const plan = await lab.a.run(
      [...wgdCommand(), "reload", "--dry-run", path],
    );
    assertMatch(plan, /delete 10.1.0.0[^]*syncconf[^]*delete 1[^]*add 2/);
    assertEquals(said(), [""]);
    await wgd(lab, "reload", path);
    assertEquals(said(), [`delete 1 ${name}`, `add 2 ${name}`]);
    const routes = await lab.a.ip("route");
    assert(routes.includes("10.2.0.0/16") && !routes.includes("10.1.0.0"));

    // One that fails is told, and run the next time; the others are not.
    const flag = `${lab.directory}/flag`;
    hooks(2, `PostUp = echo try >> ${ran}; test -e ${flag}`);
    const failed = await runWith(lab, [...wgdCommand(), "reload", path]);
    assertEquals(failed.code, 1);
    assertMatch(failed.stderr, /^wgd: .*test -e .*: exit 1$/m);
    assertEquals(said(), ["try"]);
    Deno.writeTextFileSync(flag, "");
    await wgd(lab, "reload", path);
    await wgd(lab, "reload", path);
    assertEquals(said(), ["try"]);

    // Before anything is changed, one that fails changes nothing.
    const during = await dump(lab);
    hooks(2, "Address = 10.77.7.7/24\nPreUp = false");
    const refused = await runWith(lab, [...wgdCommand(), "reload", path]);
    assertEquals(refused.code, 1);
    assertEquals(await dump(lab), during);
    hooks(2);
    await wgd(lab, "down", path);
    assertEquals(said(), [`delete 2 ${name}`]);
    assertEquals(await dump(lab), before);
  },
);

labTest(
  "wgd reload of what is not up, or was set up by others, changes nothing",
  {},
  async (lab) => {
    const site = await makeSite(lab);
    const path = writeSite(lab, site);
    const reload = (): ReturnType<typeof runWith> =>
      runWith(lab, [...wgdCommand(), "reload", path]);
    const absent = await reload();
    assertEquals(absent.code, 1);
    assertMatch(absent.stderr, /^wgd: \S+ was not set up by wgd up; /);
    await wgd(lab, "up", path);
    Deno.writeTextFileSync(path, "[Interface]\nAddress = nonsense\n");
    const during = await dump(lab);
    const broken = await reload();
    assertEquals(broken.code, 1);
    assertMatch(broken.stderr, /conf:2:11: /);
    writeSite(lab, site, { allowed: "10.200.0.0/16" });
    const shown = await lab.a.run(
      [...wgdCommand(), "reload", "--dry-run", path],
    );
    assertMatch(shown, /^ip -4 route add 10.200.0.0\/16 dev \S+$/m);
    assertMatch(shown, /^wgd syncconf /m);
    assertEquals(await dump(lab), during);
    await wgd(lab, "down", path);
  },
);
