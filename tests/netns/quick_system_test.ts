/**
 * `wgd up` on systems that lack something or have another: no resolvconf,
 * systemd-resolved, iptables in place of nft; what `--dry-run` shows; hooks.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { until } from "./process.ts";
import {
  dump,
  makeSite,
  runWith,
  succeed,
  wgd,
  withPath,
  writeProgram,
  writeSite,
} from "./quick_lab.ts";
import { findProgram, wgdCommand } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { INNER } from "./tunnel.ts";

const BOTH = `Address = ${INNER.a.v4}/24, ${INNER.a.v6}/64`;

/** Command line with its own mounts: `script` first. */
function mounted(script: string, argv: readonly string[]): string[] {
  return ["unshare", "-m", "sh", "-c", `${script}\nexec "$@"`, "sh", ...argv];
}

labTest("DNS without a program for it is told before anything is done", {
  skip: findProgram("resolvconf") ? "there is a resolvconf here" : undefined,
}, async (lab) => {
  const site = await makeSite(lab);
  const path = writeSite(lab, site, { interface: `${BOTH}\nDNS = 10.9.0.2` });
  const before = await dump(lab);
  const up = await lab.a.attempt([...wgdCommand(), "up", path]);
  assertEquals(up.code, 1);
  assertMatch(up.stderr, /^wgd: \S+\.conf: DNS: .*install openresolv.*\n$/);
  assertEquals(await dump(lab), before);
});

labTest("DNS by resolvectl where systemd-resolved runs", {
  programs: ["unshare"],
  skip: findProgram("resolvconf") ? "there is a resolvconf here" : undefined,
}, async (lab) => {
  const site = await makeSite(lab);
  const log = `${lab.directory}/calls`;
  writeProgram(lab, "resolvectl", `#!/bin/sh\necho "$*" >>${log}\n`);
  const path = writeSite(lab, site, {
    interface: `${BOTH}\nDNS = 10.9.0.2, corp.example, fd09::2`,
  });
  const up = withPath(lab, [...wgdCommand(), "up", path]);
  const resolved = "mount -t tmpfs none /run/systemd\n" +
    "mkdir /run/systemd/resolve";
  await lab.a.run(["mkdir", "-p", "/run/systemd"]);
  await lab.a.run(mounted(resolved, up));
  assertEquals(
    Deno.readTextFileSync(log),
    `dns ${site.name} 10.9.0.2 fd09::2\ndomain ${site.name} corp.example ~.\n`,
  );
  await wgd(lab, "down", path);
});

labTest("without nft, iptables-restore gets the rules, and gets them back", {
  programs: ["unshare", "nft"],
}, async (lab) => {
  const site = await makeSite(lab);
  const log = `${lab.directory}/rules`;
  for (const program of ["iptables-restore", "ip6tables-restore"]) {
    const script = `#!/bin/sh\necho "${program} $*" >>${log}\ncat >>${log}\n`;
    writeProgram(lab, program, script);
  }
  const path = writeSite(lab, site, { allowed: "0.0.0.0/0, ::/0" });
  const before = await dump(lab);
  const nft = findProgram("nft") ?? "";
  const hidden = `mount --bind ${lab.file("", "no-program")} ${nft}`;
  const command = (word: string): string[] =>
    mounted(hidden, withPath(lab, [...wgdCommand(), word, path]));
  await lab.a.run(command("up"));
  const set = Deno.readTextFileSync(log);
  Deno.writeTextFileSync(log, "");
  await lab.a.run(command("down"));
  const parts = (text: string): string[] =>
    text.split(/^(?=ip6?tables-restore -n\n)/m);
  assertEquals(parts(set).length, 2);
  assertMatch(
    set,
    new RegExp(`^-I PREROUTING ! -i ${site.name} -d fd09::1`, "m"),
  );
  assertMatch(
    set,
    new RegExp(`^-I PREROUTING ! -i ${site.name} -d 10.9.0.1`, "m"),
  );
  assertEquals(
    parts(Deno.readTextFileSync(log)),
    parts(set.replaceAll("-I ", "-D ")).toReversed(),
  );
  assertEquals(await dump(lab), before);

  // Without either, it is told at once.
  for (const program of ["iptables-restore", "ip6tables-restore"]) {
    Deno.removeSync(`${lab.directory}/bin/${program}`);
  }
  if (findProgram("iptables-restore") !== undefined) return;
  const up = await lab.a.attempt(command("up"));
  assertEquals(up.code, 1);
  assertMatch(up.stderr, /^wgd: .*needs nft or iptables-restore.*\n$/);
  assertEquals(await dump(lab), before);
});

labTest("wgd up --dry-run shows the commands that up runs, and runs none", {
  programs: ["nft", "sysctl", "setpriv"],
}, async (lab) => {
  const site = await makeSite(lab);
  const path = writeSite(lab, site, {
    interface: `${BOTH}\nPostUp = true '%i'`,
    allowed: "10.9.0.2/32, 10.200.0.0/16, 0.0.0.0/0, ::/0",
  });
  const before = await dump(lab);
  const notRoot = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"];
  const dry = await succeed(
    lab.a.attempt([...notRoot, ...wgdCommand(), "up", "--dry-run", path]),
  );
  assertEquals(await dump(lab), before);
  assert(!exists(socketPath(site.name)));
  assertEquals(dry.stderr, "");
  const up = await wgd(lab, "up", path);
  const shown = dry.stdout.replaceAll(/ <<'EOF'\n[^]*?\nEOF$/gm, "")
    .replace("bash -e -o pipefail -c ", "")
    .replace(`'true '\\''${site.name}'\\'''`, `true '${site.name}'`);
  assertEquals(
    up.replaceAll("[#] ", "").split("\n"),
    shown.split("\n"),
  );
  await wgd(lab, "down", path);

  // What it shows is a script.
  const script = dry.stdout.split("\n").filter((line) =>
    !line.startsWith("wgd ")
  ).join("\n");
  const wrapper = lab.file(
    `wgd() { ${wgdCommand().join(" ")} "$@"; }
wgd run ${site.name}
wgd strip ${path} >${lab.directory}/stripped
wgd setconf ${site.name} ${lab.directory}/stripped
wgd set ${site.name} fwmark 51820
${script}`,
    "script",
    0o700,
  );
  await lab.a.run(["bash", "-e", wrapper]);
  await assertPings(lab.a, INNER.b.v4, { count: 1 });
  await wgd(lab, "down", path);
  const valid = "net.ipv4.conf.all.src_valid_mark=0"; // nothing was noted
  await lab.a.run(["sysctl", "-q", valid]);
  assertEquals(await dump(lab), before);
});

labTest(
  "hooks run in order, with the interface's name and the terminal's streams",
  {},
  async (lab) => {
    const site = await makeSite(lab);
    const log = `${lab.directory}/hooks`;
    const note = (what: string): string =>
      `${what} = echo ${what} $(ip -o link show %i 2>&1 | grep -c %i:) >>${log}`;
    const path = writeSite(lab, site, {
      interface: `${BOTH}
${note("PreUp")}
PreUp = ip -4 address add 10.44.0.1/24 dev %i
PreUp = ip link set up dev %i && ip -4 route add 10.200.0.0/16 dev %i
${note("PostUp")}
PostUp = echo to stdout # and not a comment
${note("PreDown")}
${note("PostDown")}`,
      allowed: `${INNER.b.v4}/32, 10.200.0.0/24, 10.44.0.9/32`,
    });
    const up = await succeed(runWith(lab, [...wgdCommand(), "up", path]));
    assertEquals(up.stdout, "to stdout\n");
    assertMatch(up.stderr, /^\[#\] echo to stdout # and not a comment$/m);
    // What PreUp has routed to the interface is not routed again.
    assert(!up.stderr.includes("route add 10.200.0.0/24"), up.stderr);
    assert(!up.stderr.includes("route add 10.44.0.9/32"), up.stderr);
    await wgd(lab, "down", path);
    assertEquals(
      Deno.readTextFileSync(log),
      "PreUp 1\nPostUp 1\nPreDown 1\nPostDown 0\n",
    );
  },
);

labTest(
  "a failing PreDown leaves the interface up; a file that is gone does not",
  {},
  async (lab) => {
    const site = await makeSite(lab);
    const before = await dump(lab);
    const path = writeSite(lab, site, {
      interface: `${BOTH}\nPreDown = test -e ${lab.directory}/may`,
    });
    await wgd(lab, "up", path);
    const during = await dump(lab);
    const down = await runWith(lab, [...wgdCommand(), "down", path]);
    assertEquals(down.code, 1);
    assertMatch(down.stderr, /^wgd: test -e .*: exit 1$/m);
    assertEquals(await dump(lab), during);
    Deno.removeSync(path);
    const said = await wgd(lab, "down", path);
    assertMatch(said, /no such file; going on without its hooks/);
    assertEquals(await dump(lab), before);
  },
);

labTest(
  "after its daemon has died, an interface comes up again",
  {},
  async (lab) => {
    const site = await makeSite(lab);
    const path = writeSite(lab, site);
    const before = await dump(lab);
    await wgd(lab, "up", path);
    Deno.removeSync(socketPath(site.name));
    await until(
      "the daemon to end",
      async () =>
        (await lab.a.attempt(["ip", "link", "show", site.name])).code !== 0,
    );
    await wgd(lab, "up", path);
    await assertPings(lab.a, INNER.b.v4, { count: 1 });
    await wgd(lab, "down", path);
    assertEquals(await dump(lab), before);
  },
);
