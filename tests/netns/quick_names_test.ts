/**
 * Endpoints by name: one that has no address keeps nobody else from coming up,
 * gets its address later, and shows as pending until then; of several addresses
 * one that is reachable is found.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { type Finished, until } from "./process.ts";
import { makeSite, type Site, succeed, writeSite } from "./quick_lab.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings, ping } from "./traffic.ts";
import { generateKeys, INNER, PORT } from "./tunnel.ts";

const HOST = "b.example";

/** Runs `wgd ARGS` with a file in place of /etc/hosts, and no name server. */
function withHosts(
  lab: Lab,
  hosts: string,
  ...args: string[]
): Promise<Finished> {
  const script = `mount --bind ${hosts} /etc/hosts
mount --bind /dev/null /etc/resolv.conf
exec "$@"`;
  return lab.a.attempt(
    ["unshare", "-m", "sh", "-c", script, "sh", ...wgdCommand(), ...args],
  );
}

function show(lab: Lab, { name }: Site): Promise<string> {
  return lab.a.run([...wgdCommand(), "show", name]);
}

labTest(
  "a name without an address is pending, and is looked up until it has one",
  { programs: ["unshare"] },
  async (lab) => {
    const site = await makeSite(lab);
    const other = await generateKeys();
    const path = writeSite(lab, site, {
      endpoint: `${HOST}:${PORT.b}`,
      more: `
[Peer]
PublicKey = ${other.public}
AllowedIPs = 10.66.0.0/16
Endpoint = 10.77.0.9:1234
`,
    });
    const hosts = lab.file("127.0.0.1 localhost\n", "hosts", 0o644);
    const up = await succeed(withHosts(lab, hosts, "up", path));
    assertMatch(
      up.stderr,
      /conf: the endpoint b\.example:51822 has no address/,
    );
    assertMatch(up.stderr, /^\[#\] ip link set mtu 1420 up/m);
    const shown = await show(lab, site);
    assertMatch(shown, /^ {2}endpoint: .*b\.example:51822/m);
    assertMatch(shown, /pending/);
    const endpoints = ["wg", "show", site.name, "endpoints"];
    assertMatch(
      await lab.a.run(endpoints),
      new RegExp(`^${RegExp.escape(site.keys.b.public)}\t\\(none\\)$`, "m"),
    );
    assertMatch(await lab.a.run(endpoints), /\t10\.77\.0\.9:1234$/m);

    // The name survives a save.
    const before = Deno.readTextFileSync(path);
    await succeed(withHosts(lab, hosts, "save", path));
    assertMatch(
      Deno.readTextFileSync(path),
      /^Endpoint = b\.example:51822$/m,
    );
    Deno.writeTextFileSync(path, before);

    Deno.writeTextFileSync(hosts, `10.77.0.2 ${HOST}\n`);
    await until(
      "the name to be found",
      async () => (await lab.a.run(endpoints)).includes("\t10.77.0.2:51822"),
      30_000,
    );
    await assertPings(lab.a, INNER.b.v4, { count: 1 });
    assert(!/pending/.test(await show(lab, site)));
    await succeed(withHosts(lab, hosts, "down", path));
  },
);

labTest(
  "an address that the peer or wg set gives is not overruled by a pending name",
  { programs: ["unshare"] },
  async (lab) => {
    const site = await makeSite(lab);
    const path = writeSite(lab, site, { endpoint: `${HOST}:${PORT.b}` });
    const hosts = lab.file("127.0.0.1 localhost\n", "hosts", 0o644);
    await succeed(withHosts(lab, hosts, "up", path));
    const set = ["wg", "set", site.name, "peer", site.keys.b.public];
    await lab.a.run([...set, "endpoint", `10.77.0.2:${PORT.b}`]);
    Deno.writeTextFileSync(hosts, `10.77.0.99 ${HOST}\n`);
    assert(!/pending/.test(await show(lab, site)));
    await assertPings(lab.a, INNER.b.v4, { count: 1 });
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    const endpoints = ["wg", "show", site.name, "endpoints"];
    assertMatch(await lab.a.run(endpoints), /\t10\.77\.0\.2:51822$/m);
    await succeed(withHosts(lab, hosts, "down", path));
  },
);

labTest(
  "of a name's addresses, one without a route is not tried, one without an answer is given up for the next",
  { programs: ["unshare"] },
  async (lab) => {
    const site = await makeSite(lab);
    const path = writeSite(lab, site, { endpoint: `${HOST}:${PORT.b}` });
    const hosts = lab.file(
      `2001:db8:99::1 ${HOST}\n10.77.0.2 ${HOST}\n`,
      "hosts",
      0o644,
    );
    const endpoints = ["wg", "show", site.name, "endpoints"];
    await succeed(withHosts(lab, hosts, "up", path));
    assertMatch(await lab.a.run(endpoints), /\t10\.77\.0\.2:51822$/m);
    await assertPings(lab.a, INNER.b.v4, { count: 1 });
    await succeed(withHosts(lab, hosts, "down", path));

    const own = ["addr", "add", "2001:db8:99::2/64", "dev", "va", "nodad"];
    await lab.a.ip(...own);
    await succeed(withHosts(lab, hosts, "up", path));
    assertMatch(await lab.a.run(endpoints), /\t\[2001:db8:99::1\]:51822$/m);
    await ping(lab.a, INNER.b.v4, { count: 1 });
    await until(
      "the other address to be tried",
      async () => /\t10\.77\.0\.2:51822$/m.test(await lab.a.run(endpoints)),
      40_000,
    );
    await until(
      "a handshake",
      async () =>
        /\t[1-9]/.test(
          await lab.a.run(["wg", "show", site.name, "latest-handshakes"]),
        ),
      10_000,
    );
    await assertPings(lab.a, INNER.b.v4, { count: 1 });
    assertEquals((await withHosts(lab, hosts, "down", path)).code, 0);
  },
);
