/**
 * `wgd upgrade`: a daemon takes the place of another one, and hardly anybody
 * notices.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { delay, until } from "./process.ts";
import { makeSite, writeSite } from "./quick_lab.ts";
import { wgdCommand } from "./requirements.ts";
import { assertPings, Pinger } from "./traffic.ts";
import { INNER } from "./tunnel.ts";

/** Far more than it takes, which is printed: other work slows the machine down. */
const GAP_MAX_MS = 5_000;
const PING_S = 0.02;

interface Near {
  readonly name: string;
  readonly path: string;
}

/** `a` is set up by a file, `b` answers; each can be pinged. */
async function setUp(lab: Lab, more = ""): Promise<Near> {
  const site = await makeSite(lab);
  const path = writeSite(lab, site, {
    interface: `Address = ${INNER.a.v4}/24\nMTU = 1380`,
    allowed: `${INNER.b.v4}/32, 10.200.0.0/16`,
    more,
  });
  await wgd(lab, "up", path);
  return { name: site.name, path };
}

/** Runs wgd without keeping the pipe that its daemon inherits. */
function wgd(lab: Lab, ...args: string[]): Promise<string> {
  const script = `exec "$@" 2>> ${lab.directory}/log`;
  return lab.a.run(["sh", "-c", script, "sh", ...wgdCommand(), ...args]);
}

async function daemonPid(lab: Lab, name: string): Promise<number> {
  const text = await lab.a.run(["ip", "netns", "pids", lab.a.name]);
  const pids = text.trim().split("\n").map(Number).filter((pid) => {
    let words: string;
    try {
      words = Deno.readTextFileSync(`/proc/${pid}/cmdline`);
    } catch {
      return false; // it has ended
    }
    return words.includes(`\0${name}\0`) && words.includes("\0run\0");
  });
  assertEquals(pids.length, 1, text);
  return pids[0];
}

/** The longest time without an answer. */
function longestGapMs({ repliesMs }: Pinger): number {
  return Math.max(
    ...repliesMs.slice(1).map((atMs, i) => atMs - repliesMs[i]),
  );
}

/** What `wg` tells of the device, but for what a new session changes. */
async function configuration(lab: Lab, name: string): Promise<string> {
  return await lab.a.run(["wg", "showconf", name]);
}

for (const keepalive of ["", "PersistentKeepalive = 5\n"]) {
  labTest(
    `wgd upgrade interrupts traffic shortly${
      keepalive && ", with a keepalive"
    }`,
    {},
    async (lab) => {
      const { name, path } = await setUp(lab, keepalive);
      await assertPings(lab.a, INNER.b.v4);
      const before = await lab.a.state();
      const configured = await configuration(lab, name);
      for (
        const [from, to] of [[lab.a, INNER.b.v4], [lab.b, INNER.a.v4]] as const
      ) {
        const pinger = new Pinger(from, to, PING_S);
        await pinger.replies(10, 5_000);
        const old = await daemonPid(lab, name);
        await wgd(lab, "upgrade", name);
        await pinger.replies(10, 5_000);
        const gapMs = longestGapMs(pinger);
        Deno.stderr.writeSync(
          new TextEncoder().encode(`interrupted for ${gapMs} ms\n`),
        );
        assert(gapMs < GAP_MAX_MS, `${gapMs} ms`);
        assert(await daemonPid(lab, name) !== old);
        assertEquals(await lab.a.state(), before);
        assertEquals(await configuration(lab, name), configured);
      }
      await wgd(lab, "down", path);
      const log = Deno.readTextFileSync(`${lab.directory}/log`);
      assert(!/bug|left/.test(log), log);
    },
  );
}

labTest(
  "after wgd upgrade a peer that only sends is heard at once",
  {},
  async (lab) => {
    const { name } = await setUp(lab);
    await assertPings(lab.a, INNER.b.v4);
    // Nothing of ours is under way: the old session is of no use to the new
    // daemon, and b does not know.
    await delay(500);
    await wgd(lab, "upgrade", name);
    await until(
      "a handshake",
      async () => {
        const text = await lab.a.run(["wg", "show", name, "latest-handshakes"]);
        return Number(text.trim().split("\t")[1]) > 0;
      },
      2_000,
    );
    const keepalive = await lab.a.run(
      ["wg", "show", name, "persistent-keepalive"],
    );
    assertMatch(keepalive, /\toff\n$/);
    await assertPings(lab.b, INNER.a.v4, { count: 1 });
    await wgd(lab, "down", name).catch(() => lab.a.ip("link", "del", name));
  },
);

labTest("wgd upgrade keeps options, log level and stderr of the daemon", {
  joined: false,
}, async (lab) => {
  const name = await lab.interfaceName();
  const log = `${lab.directory}/daemon`;
  const script = `export LOG_LEVEL=verbose; exec "$@" 2> ${log}`;
  await lab.a.run([
    ...["sh", "-c", script, "sh", ...wgdCommand()],
    ...["run", "--threads", "2", "--crypto", "wasm", name],
  ]);
  await wgd(lab, "upgrade", name);
  const pid = await daemonPid(lab, name);
  const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`);
  assert(words.includes("\0--threads\x002\0--crypto\0wasm\0"), words);
  const text = Deno.readTextFileSync(log);
  assertEquals(text.match(/interface created/g)?.length, 2, text);
  assertEquals(text.match(/interface closed/g)?.length, 1, text);
  await lab.a.ip("link", "del", name);
  await until("the end", () => !exists(socketPath(name)));
});

labTest("wgd upgrade refuses what is no interface of wgd", {
  programs: ["wireguard-go"],
  joined: false,
}, async (lab) => {
  const absent = await lab.a.attempt([...wgdCommand(), "upgrade", "absent0"]);
  assertEquals([absent.code, absent.stderr], [
    1,
    "wgd: absent0 is not a WireGuard interface\n",
  ]);
  const other = await lab.a.daemon("wireguard-go");
  const { code, stderr } = await lab.a.attempt(
    [...wgdCommand(), "upgrade", other.name],
  );
  assertEquals(code, 1);
  assertMatch(stderr, /^wgd: the daemon of \S+ is not wgd: .*wireguard-go/);
  const here = await lab.a.daemon("wgd");
  const elsewhere = await lab.b.attempt(
    [...wgdCommand(), "upgrade", here.name],
  );
  assertEquals(elsewhere.code, 1);
  assertMatch(elsewhere.stderr, /is up in another network namespace/);
  assertEquals(here.process.status, undefined);
});
