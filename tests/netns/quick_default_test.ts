/**
 * `wgd up` with default routes, and that nothing of it is left: after `down`,
 * after a failure of each of its commands, after a signal, after a kill.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, type Implementation, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { until } from "./process.ts";
import {
  dump,
  FailingPrograms,
  makeSite,
  runWith,
  type Site,
  wgd,
  withPath,
  writeProgram,
  writeResolvconf,
  writeSite,
} from "./quick_lab.ts";
import { findProgram, wgdCommand } from "./requirements.ts";
import { processesOf } from "./sigterm_left.ts";
import { assertPings } from "./traffic.ts";
import { INNER, OUTER, PORT } from "./tunnel.ts";

/** Addresses of the far side that are reached by default routes alone. */
const FAR = { outer: "203.0.113.1", v4: "198.51.100.1", v6: "2001:db8::1" };
const PROGRAMS = ["nft", "sysctl"];

/** A dump without the indices of links, which grow. */
function withoutNumbers(dump: string): string {
  return dump.replace(/^\d+: /gm, "").replace(/\bw\d+-\S+/g, "");
}

/** A site whose peer and all else is behind default routes. */
async function makeDefaultSite(
  lab: Lab,
  far: Implementation = "wgd",
): Promise<Site> {
  const site = await makeSite(lab, far);
  for (const address of [FAR.outer, FAR.v4]) {
    await lab.b.ip("addr", "add", `${address}/32`, "dev", "lo");
  }
  await lab.b.ip("addr", "add", `${FAR.v6}/128`, "dev", "lo", "nodad");
  await lab.a.ip("route", "add", "default", "via", OUTER.v4.b);
  await lab.a.ip("-6", "route", "add", "default", "via", "fd77::2");
  for (const which of ["all", "default", "va"]) {
    const key = `net.ipv4.conf.${which}.rp_filter=1`;
    await lab.a.run(["sysctl", "-q", key]);
  }
  // What the kernel's driver would leave at 0.
  await lab.a.run(["sysctl", "-q", "net.ipv4.conf.all.send_redirects=1"]);
  return site;
}

function writeEverything(lab: Lab, site: Site, more = ""): string {
  return writeSite(lab, site, {
    interface: `Address = ${INNER.a.v4}/24, ${INNER.a.v6}/64
DNS = 10.9.0.2, fd09::2, corp.example
${more}`,
    allowed: "0.0.0.0/0, ::/0, 10.200.0.0/16",
    endpoint: `${FAR.outer}:${PORT.b}`,
  });
}

/** Counts echo requests that reach the far side outside of the tunnel. */
async function countOutside(lab: Lab): Promise<() => Promise<number>> {
  const rules = `table inet count {
  chain input {
    type filter hook input priority 0
    iifname "vb" icmp type echo-request counter
    iifname "vb" icmpv6 type echo-request counter
  }
}`;
  await lab.b.run(["nft", "-f", "-"], { stdin: rules });
  return async () => {
    const text = await lab.b.run(["nft", "list", "table", "inet", "count"]);
    return [...text.matchAll(/counter packets (\d+)/g)]
      .reduce((sum, [, count]) => sum + Number(count), 0);
  };
}

for (const far of ["wgd", "wireguard-go"] as const) {
  labTest(
    `wgd up with default routes to ${far} and a strict rp_filter: all but the tunnel's own packets goes through it, and down restores everything`,
    { programs: [...PROGRAMS, ...far === "wgd" ? [] : [far]] },
    async (lab) => {
      const site = await makeDefaultSite(lab, far);
      const { calls } = writeResolvconf(lab);
      const path = writeEverything(lab, site);
      const outside = await countOutside(lab);
      await assertPings(lab.a, FAR.v4, { count: 1 });
      await assertPings(lab.a, FAR.v6, { count: 1 });
      const direct = await outside(); // some twice, while neighbours are looked up
      assert(direct >= 2, "without the tunnel");
      const before = await dump(lab);

      await wgd(lab, "up", path);
      for (const to of [FAR.v4, FAR.v6, INNER.b.v4, INNER.b.v6, "10.200.0.1"]) {
        await assertPings(lab.a, to, { count: 1 });
      }
      assertEquals(await outside(), direct, "all through the tunnel");
      const routeOf = (...to: string[]): Promise<string> =>
        lab.a.ip("route", "get", ...to);
      assertMatch(await routeOf("192.0.2.1"), new RegExp(` dev ${site.name} `));
      assertMatch(
        await routeOf("2001:db8::9"),
        new RegExp(`dev ${site.name} `),
      );
      assertMatch(await routeOf(OUTER.v4.b), / dev va /); // the link's own
      assertMatch(await routeOf("192.0.2.1", "mark", "51820"), / dev va /);
      assertEquals(calls(), [`-a ${site.name} -m 0 -x`]);

      // Nobody on the link reaches the tunnel's addresses.
      const ping = ["ping", "-c1", "-W1", "-I", "vb", INNER.a.v4];
      const table = ["table", "ip", `wg-quick-${site.name}`];
      assertEquals((await lab.b.attempt(ping)).code, 1);
      await lab.a.run(["nft", "delete", ...table]);
      await lab.a.run(["sysctl", "-q", "net.ipv4.conf.va.rp_filter=0"]);
      await lab.a.run(["sysctl", "-q", "net.ipv4.conf.all.rp_filter=0"]);
      await lab.b.run(ping); // it was the rule that kept it out
      await lab.a.run(["sysctl", "-q", "net.ipv4.conf.va.rp_filter=1"]);
      await lab.a.run(["sysctl", "-q", "net.ipv4.conf.all.rp_filter=1"]);

      await wgd(lab, "down", path); // although the table is gone already
      assertEquals(await dump(lab), before);
      assertEquals(calls().slice(1), [`-d ${site.name} -f`]);
      await assertPings(lab.a, FAR.v4, { count: 1 });
    },
  );
}

labTest(
  "two tunnels with default routes: each down removes its own rules, and the last one the sysctl",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeDefaultSite(lab);
    const other = { ...site, name: await lab.interfaceName() };
    writeResolvconf(lab);
    const path = writeEverything(lab, site);
    const before = await dump(lab);
    await wgd(lab, "up", path);
    const rules = await lab.a.ip("rule");
    const text = Deno.readTextFileSync(path)
      .replace(`ListenPort = ${PORT.a}\n`, "")
      .replace(", 10.200.0.0/16", "");
    const second = lab.file(text, `${other.name}.conf`);
    await wgd(lab, "up", second);
    await wgd(lab, "down", path);
    const valid = ["sysctl", "-n", "net.ipv4.conf.all.src_valid_mark"];
    assertEquals((await lab.a.run(valid)).trim(), "1");
    assertMatch(await lab.a.ip("rule"), /fwmark 0xca6d lookup 51821/);
    assertMatch(
      await lab.a.ip("rule"),
      /suppress_prefixlength 0\n\d+:\tnot from all fwmark 0xca6d/,
    );
    await wgd(lab, "down", second);
    assertEquals(await dump(lab), before);
    assertMatch(rules, /fwmark 0xca6c lookup 51820/);
  },
);

labTest(
  "a failure of each command of wgd up leaves everything as it was",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeDefaultSite(lab);
    writeResolvconf(lab);
    const resolvconf = `${lab.directory}/real-resolvconf`;
    Deno.renameSync(`${lab.directory}/bin/resolvconf`, resolvconf);
    const failing = new FailingPrograms(lab, {
      ip: findProgram("ip") ?? "",
      nft: findProgram("nft") ?? "",
      sysctl: findProgram("sysctl") ?? "",
      resolvconf,
    });
    const path = writeEverything(lab, site);
    const before = await dump(lab);
    await wgd(lab, "up", path);
    const { calls } = failing;
    // 2 addresses, link, DNS, 3 routes, 4 rules, sysctl, 2 nft.
    assertEquals(calls, 14);
    await wgd(lab, "down", path);
    assertEquals(await dump(lab), before);
    for (let at = 1; at <= calls; at++) {
      failing.arm(at);
      const up = await runWith(lab, [...wgdCommand(), "up", path]);
      assertEquals(up.code, 1, up.stderr);
      assertMatch(up.stderr, /^wgd: .*: made to fail$/m);
      assertEquals(await dump(lab), before, `call ${at}\n${up.stderr}`);
      assert(!exists(socketPath(site.name)));
    }
  },
);

labTest(
  "an interface that vanishes at any command of wgd up leaves nothing behind",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeDefaultSite(lab);
    writeResolvconf(lab);
    const resolvconf = `${lab.directory}/real-resolvconf`;
    Deno.renameSync(`${lab.directory}/bin/resolvconf`, resolvconf);
    const ip = findProgram("ip") ?? "";
    const failing = new FailingPrograms(
      lab,
      {
        ip,
        nft: findProgram("nft") ?? "",
        sysctl: findProgram("sysctl") ?? "",
        resolvconf,
      },
      `${ip} link delete dev ${site.name}`,
    );
    const before = await dump(lab);
    let failed = 0;
    for (const hook of ["", `PreUp = ip link delete dev ${site.name}`]) {
      const path = writeEverything(lab, site, hook);
      failing.arm(0);
      for (let at = 1; at === 1 || (hook === "" && at <= 14); at++) {
        failing.arm(at);
        const up = await runWith(lab, [...wgdCommand(), "up", path]);
        if (up.code === 0) await wgd(lab, "down", path);
        else failed++;
        assertEquals(await dump(lab), before, `${hook} ${at}\n${up.stderr}`);
        assert(!/bug in wgd|not be undone/.test(up.stderr), up.stderr);
        await until("the socket to go", () => !exists(socketPath(site.name)));
      }
    }
    assert(failed > 7, `${failed} failed`);
  },
);

labTest(
  "a failing hook, and signals, leave everything as it was",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeDefaultSite(lab);
    writeResolvconf(lab);
    const before = await dump(lab);
    for (const hook of ["PreUp = false; true", "PostUp = true | false"]) {
      const path = writeEverything(lab, site, hook);
      const up = await runWith(lab, [...wgdCommand(), "up", path]);
      assertEquals(up.code, 1, up.stderr);
      assertMatch(up.stderr, /^wgd: .*(false|true).*: exit 1$/m);
      assertEquals(await dump(lab), before, hook);
    }
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      const mark = `${lab.directory}/${signal}`;
      const path = writeEverything(lab, site, `PostUp = >${mark}; sleep 60`);
      const up = lab.a.spawn(withPath(lab, [...wgdCommand(), "up", path]));
      await until("the hook to run", () => exists(mark), 20_000);
      up.signal(signal);
      const { code } = await up.ended();
      assertEquals(code, 1, up.said);
      assertEquals(await dump(lab), before, signal);
      assert(!exists(socketPath(site.name)));
    }
  },
);

labTest(
  "what a killed wgd up has left is told by the next one, and what a killed daemon has left is removed",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeDefaultSite(lab);
    writeResolvconf(lab);
    const before = await dump(lab);
    const hung = `${lab.directory}/hung`;
    writeProgram(lab, "nft", `#!/bin/sh\n>${hung}\nsleep 60\n`);
    const path = writeEverything(lab, site);
    // Its daemon lives on, and would keep a pipe.
    const script = `exec "$@" 2>${lab.directory}/log`;
    const argv = ["sh", "-c", script, "sh", ...wgdCommand(), "up", path];
    const up = lab.a.spawn(withPath(lab, argv));
    await until("nft to hang", () => exists(hung), 20_000);
    up.signal("SIGKILL");
    await up.ended();
    Deno.removeSync(`${lab.directory}/bin/nft`);
    const again = await runWith(lab, [...wgdCommand(), "up", path]);
    assertEquals(again.code, 1);
    assertMatch(
      again.stderr,
      /^wgd: \S+ is half up: .*rule -6 mark.*; wgd down/,
    );
    assert(!again.stderr.includes("[#]"), again.stderr);
    await wgd(lab, "down", path);
    assertEquals(await dump(lab), before);

    // Nothing of a daemon that was killed stands in the way: up removes it.
    await wgd(lab, "up", path);
    const up1 = await dump(lab);
    for (const pid of processesOf(site.name)) Deno.kill(pid, "SIGKILL");
    await until(
      "the interface to go",
      async () => !(await lab.a.ip("-o", "link")).includes(site.name),
    );
    const third = await runWith(lab, [...wgdCommand(), "up", path]);
    assertEquals(third.code, 0, third.stderr);
    assertMatch(third.stderr, /^\[#\] (ip|nft) .*del[^]*\[#\] wgd run/);
    assertEquals(withoutNumbers(await dump(lab)), withoutNumbers(up1));
    await assertPings(lab.a, FAR.v4, { count: 1 });
    await wgd(lab, "down", path);
    assertEquals(await dump(lab), before);
  },
);
