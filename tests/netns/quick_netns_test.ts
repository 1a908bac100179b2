/** `wgd up` with the interface in one network namespace and the sockets in another. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { type Lab, Namespace } from "./lab.ts";
import { until } from "./process.ts";
import {
  dump,
  makeSite,
  runWith,
  type Site,
  wgd,
  writeSite,
} from "./quick_lab.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings } from "./traffic.ts";
import { INNER, PORT } from "./tunnel.ts";

const PROGRAMS = ["nft", "sysctl"];

/** A namespace with nothing in it. */
function makeInside(lab: Lab): Promise<Namespace> {
  return lab.addNamespace(new Namespace(`${lab.id}c`, lab));
}

function writeDefault(lab: Lab, site: Site, more = ""): string {
  return writeSite(lab, site, {
    interface: `Address = ${INNER.a.v4}/24, ${INNER.a.v6}/64\n${more}`,
    allowed: "0.0.0.0/0, ::/0",
  });
}

async function socketsIn(namespace: Namespace): Promise<string> {
  return await namespace.run(["ss", "-Huln"]);
}

labTest(
  "wgd up --netns: the interface, its routes and hooks are in there, the sockets here, and down leaves nothing",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeSite(lab);
    const inside = await makeInside(lab);
    await lab.a.ip("link", "set", "va", "mtu", "1400");
    const seen = `${lab.directory}/seen`;
    const path = writeDefault(
      lab,
      site,
      ["PostUp", "PostDown"]
        .map((key) => `${key} = ip -o link show >> ${seen}`).join("\n"),
    );
    const before = [await dump(lab), await dump(lab, inside)];
    await wgd(lab, "up", "--netns", inside.name, path);
    await assertPings(inside, INNER.b.v4);
    await assertPings(inside, INNER.b.v6);
    await assertPings(inside, "10.200.0.1"); // by the default route
    assertEquals(await dump(lab), before[0], "here nothing is set");
    assertMatch(await socketsIn(lab.a), new RegExp(`:${PORT.a} `));
    assertEquals(await socketsIn(inside), "");
    const link = await inside.ip("-o", "link", "show", "dev", site.name);
    assertMatch(link, / mtu 1320 /); // by the route that the sockets take
    // The tunnel's own packets do not come by here, so none is let pass.
    assertEquals((await inside.ip("rule")).match(/fwmark/), null);
    assertMatch(Deno.readTextFileSync(seen), new RegExp(`: ${site.name}: `));
    assert(!Deno.readTextFileSync(seen).includes(": va@"));

    const again = await runWith(lab, [...wgdCommand(), "up", path]);
    assertEquals(again.code, 1);
    assertMatch(again.stderr, /exists already; wgd down/);
    const text = Deno.readTextFileSync(path);
    Deno.writeTextFileSync(
      path,
      text.replace("Address = ", "Address = 10.9.1.1/24, "),
    );
    await wgd(lab, "reload", path);
    assertMatch(await inside.ip("-o", "address"), / 10\.9\.1\.1\/24 /);
    await assertPings(inside, INNER.b.v4, { count: 1 });
    await wgd(lab, "save", path);
    assertMatch(Deno.readTextFileSync(path), /Address = 10\.9\.1\.1\/24/);

    await wgd(lab, "down", path);
    assertEquals([await dump(lab), await dump(lab, inside)], before);
    assert(!exists(socketPath(site.name)));
    assertEquals(Deno.readTextFileSync(seen).match(/: lo: /g)?.length, 2);
  },
);

labTest(
  "wgd up --socket-netns: the sockets are in there, the interface here",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeSite(lab);
    const inside = await makeInside(lab);
    const path = writeDefault(lab, site);
    const before = [await dump(lab), await dump(lab, inside)];
    const run = (...args: string[]): Promise<string> =>
      inside.run([...wgdCommand(), ...args]);
    await run("up", "--socket-netns", lab.a.name, path);
    await assertPings(inside, "10.200.0.1");
    assertEquals(await dump(lab), before[0]);
    assertMatch(await socketsIn(lab.a), new RegExp(`:${PORT.a} `));
    assertEquals(await socketsIn(inside), "");
    await run("down", path);
    assertEquals([await dump(lab), await dump(lab, inside)], before);
  },
);

labTest(
  "wgd up --netns: a namespace that is not there is refused, and one that goes takes the interface with it",
  { programs: PROGRAMS },
  async (lab) => {
    const site = await makeSite(lab);
    const inside = await makeInside(lab);
    const path = writeDefault(lab, site);
    for (const option of ["--netns", "--socket-netns"]) {
      const name = `${lab.id}none`;
      const argv = [...wgdCommand(), "up", option, name, path];
      const { code, stderr } = await runWith(lab, argv);
      assertEquals(code, 1);
      assertEquals(
        stderr,
        `wgd: ${option}: ${name} is no network namespace that ip netns knows\n`,
      );
    }
    const before = await dump(lab);
    await wgd(lab, "up", "--netns", inside.name, path);
    await lab.a.run(["ip", "netns", "delete", inside.name]);
    await until("the daemon ends", () => !exists(socketPath(site.name)));
    assertEquals(await dump(lab), before);
    // What is noted of it is in nobody's way.
    const other = await lab.addNamespace(inside);
    await wgd(lab, "up", "--netns", other.name, path);
    await assertPings(other, INNER.b.v4, { count: 1 });
    await wgd(lab, "down", path);
  },
);
