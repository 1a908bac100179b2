/**
 * `wgd show`, byte for byte against the stock wg on the same daemon: one in
 * memory behind lib/uapi, or one with canned answers.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { parseIp } from "../lib/ip.ts";
import { SHOW_FIELDS } from "../lib/commands/show_render.ts";
import { wantsColor } from "../lib/commands/show.ts";
import { main } from "../lib/commands/main.ts";
import { randomSource } from "./config_helpers.ts";
import {
  FakeDevice,
  FakeServer,
  stockWg,
  uniqueName,
  whyNoStockWg,
  WIREGUARD_DIRECTORY,
} from "./uapi_fake.ts";

const why = whyNoStockWg();
const note = why ? ` (skipped: ${why})` : "";

async function wgd(
  args: string[],
  env: Record<string, string> = {},
): Promise<{ code: number; stdout: string; stderr: string }> {
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

/**
 * Tries again where the clock ticked in between: the stock wg's may even be
 * some milliseconds behind, since time(2) reads the coarse clock.
 */
async function assertSameAsStock(
  args: string[],
  env: Record<string, string> = {},
  command = "show",
): Promise<string> {
  for (let attempt = 0;; attempt++) {
    const theirs = await stockWg([command, ...args], env);
    const ours = await wgd([command, ...args], env);
    if (ours.stdout !== theirs.stdout && attempt < 3) {
      await new Promise((resolve) => setTimeout(resolve, 20));
      continue;
    }
    assertEquals(ours.stdout, theirs.stdout, args.join(" "));
    assertEquals(ours.code, theirs.code, args.join(" "));
    return ours.stdout;
  }
}

function address(text: string): Uint8Array {
  const bytes = parseIp(text);
  assert(bytes, text);
  return bytes;
}

/** A device with peers of every kind. */
function richDevice(nowMs: number, seed: number): FakeDevice {
  const random = randomSource(seed);
  const bytes = (length: number): Uint8Array =>
    Uint8Array.from({ length }, () => random(256));
  const device = new FakeDevice();
  device.secret = bytes(32);
  device.port = 51820;
  device.mark = 0xca6c;
  const minute = 60;
  const ages = [
    ...[0, 1, 59, minute, 61, 3599, 3600, 3661, 86399, 86400],
    ...[90061, 365 * 86400, 400 * 86400 + 3723, -100, 2 * 365 * 86400],
  ];
  const counts = [
    ...[0n, 1n, 1023n, 1024n, 1030n, 1152n, 1048575n, 1048576n, 1n << 30n],
    ...[(1n << 40n) - 1n, 1n << 40n, 123456789012345n, (1n << 64n) - 1n],
  ];
  const v6 = ["2001:db8::1", "::ffff:192.0.2.1", "fe80::1", "::", "1::2:0:3"];
  for (let i = 0; i < 40; i++) {
    const peer = device.add(bytes(32));
    if (random(2)) peer.presharedKey = bytes(32);
    if (random(4)) {
      const isV6 = random(2) === 1;
      peer.endpoint = {
        address: isV6 ? address(v6[random(v6.length)]) : bytes(4),
        port: random(65536),
        scope: 0,
      };
    }
    const age = ages[i % ages.length];
    if (random(3)) peer.lastHandshakeMs = nowMs - age * 1000 + random(2) * 250;
    peer.rxBytes = random(2) ? counts[random(counts.length)] : 0n;
    peer.txBytes = random(2) ? BigInt(random(1 << 30)) * 11n : 0n;
    if (random(2)) peer.persistentKeepalive = 1 + random(65535);
    for (let n = random(4); n > 0; n--) {
      const isV6 = random(2) === 1;
      peer.allowedIps.push({
        address: isV6 ? address(v6[random(v6.length)]) : bytes(4),
        cidr: random(isV6 ? 129 : 33),
      });
    }
  }
  return device;
}

/**
 * A bug of wg 1.0.20210914 that later versions and wgd repair: `show all
 * endpoints` names the interface once, not on each line.
 */
async function assertEndpointsRepaired(): Promise<void> {
  const theirs = await stockWg(["show", "all", "endpoints"]);
  const ours = await wgd(["show", "all", "endpoints"]);
  const names = (await wgd(["show", "interfaces"])).stdout.trim().split(" ");
  const asOldWg = names.map((name) => {
    const mine = ours.stdout.split("\n").filter((line) =>
      line.startsWith(`${name}\t`)
    );
    const rest = mine.map((line) => `${line.slice(name.length + 1)}\n`);
    return `${name}\t${rest.join("")}`;
  }).join("");
  const same = theirs.stdout === ours.stdout || theirs.stdout === asOldWg;
  assert(same, "all endpoints");
}

/** Serves a device under a fresh name while `use` runs. */
async function withDevice(
  device: FakeDevice,
  use: (name: string) => Promise<void>,
): Promise<void> {
  const name = uniqueName("wgdt");
  await using _server = FakeServer.of(
    `${WIREGUARD_DIRECTORY}/${name}.sock`,
    device,
  );
  await use(name);
}

Deno.test({
  name: `every field and the pretty output are those of the stock wg${note}`,
  ignore: why !== null,
  async fn(): Promise<void> {
    for (const seed of [1, 2, 3]) {
      await withDevice(richDevice(Date.now(), seed), async (name) => {
        for (const field of SHOW_FIELDS) await assertSameAsStock([name, field]);
        await assertSameAsStock([name], {}, "showconf");
        const text = await assertSameAsStock([name]);
        assertStringIncludes(text, "latest handshake");
        assertStringIncludes(text, "wound backward");
        for (const WG_COLOR_MODE of ["always", "never", "auto", ""]) {
          for (const WG_HIDE_KEYS of ["always", "never", ""]) {
            await assertSameAsStock([name], { WG_COLOR_MODE, WG_HIDE_KEYS });
          }
        }
      });
    }
  },
});

Deno.test({
  name:
    `a device without keys, port or peers is shown as by the stock wg${note}`,
  ignore: why !== null,
  async fn(): Promise<void> {
    await withDevice(new FakeDevice(), async (name) => {
      for (const field of SHOW_FIELDS) await assertSameAsStock([name, field]);
      await assertSameAsStock([name]);
      await assertSameAsStock([name], { WG_COLOR_MODE: "always" });
      await assertSameAsStock([name], {}, "showconf");
    });
  },
});

Deno.test({
  name: `link-local endpoints keep their scope as by the stock wg${note}`,
  ignore: why !== null,
  async fn(): Promise<void> {
    const device = new FakeDevice();
    device.add(new Uint8Array(32).fill(1)).endpoint = {
      address: address("fe80::1"),
      port: 9,
      scope: 1,
    };
    await withDevice(device, async (name) => {
      const text = await assertSameAsStock([name, "endpoints"]);
      assertStringIncludes(text, "[fe80::1%lo]:9");
    });
  },
});

Deno.test({
  name: `all, interfaces and no argument are those of the stock wg${note}`,
  ignore: why !== null,
  async fn(): Promise<void> {
    await withDevice(richDevice(Date.now(), 4), async (first) => {
      await withDevice(new FakeDevice(), async (second) => {
        // Whatever else runs on this machine may come and go: try again then.
        for (let attempt = 0;; attempt++) {
          try {
            const names = await assertSameAsStock(["interfaces"]);
            assertStringIncludes(names, first);
            assertStringIncludes(names, second);
            await assertSameAsStock([]);
            await assertSameAsStock(["all"]);
            for (const field of SHOW_FIELDS) {
              if (field === "endpoints") await assertEndpointsRepaired();
              else await assertSameAsStock(["all", field]);
            }
            return;
          } catch (error) {
            if (attempt === 10) throw error;
            await new Promise((resolve) => setTimeout(resolve, 100));
          }
        }
      });
    });
  },
});

Deno.test({
  name: `answers that make no sense are refused as by the stock wg${note}`,
  ignore: why !== null,
  async fn(): Promise<void> {
    const key = "ab".repeat(32);
    const answers: [answer: string, code: number][] = [
      ["", 1],
      ["errno=0\n\n", 0],
      ["errno=5\n\n", 1],
      ["errno=-5\n\n", 1],
      ["listen_port=1\n\n", 1],
      ["listen_port=65536\nerrno=0\n\n", 1],
      ["listen_port=x\nerrno=0\n\n", 1],
      ["nonsense\nerrno=0\n\n", 1],
      ["unknown_key=1\nerrno=0\n\n", 0],
      [`private_key=${key}0\nerrno=0\n\n`, 1],
      [`own_public_key=${key}\nprivate_key=${key}\nerrno=0\n\n`, 0],
      [`public_key=${key}\nallowed_ip=10.0.0.0\nerrno=0\n\n`, 1],
      [`public_key=${key}\nallowed_ip=10.0.0.0/33\nerrno=0\n\n`, 1],
      [`public_key=${key}\nendpoint=\nerrno=0\n\n`, 1],
      [`public_key=${key}\nrx_bytes=18446744073709551615\nerrno=0\n\n`, 0],
      [`public_key=${key}\nunknown=1\nlisten_port=x\nerrno=0\n\n`, 0],
      [`public_key=${key}\nerrno=0\n\n`, 0],
    ];
    for (const [answer, code] of answers) {
      const name = uniqueName("wgdt");
      await using _server = FakeServer.canned(
        `${WIREGUARD_DIRECTORY}/${name}.sock`,
        answer,
      );
      await assertSameAsStock([name, "dump"]);
      await assertSameAsStock([name], {}, "showconf");
      assertEquals((await wgd(["show", name])).code, code, answer);
    }
  },
});

Deno.test({
  name: `a stale socket is passed over and left where it is${note}`,
  ignore: why !== null,
  async fn(): Promise<void> {
    const name = uniqueName("wgdt");
    const path = `${WIREGUARD_DIRECTORY}/${name}.sock`;
    // Under another name, Deno does not remove it when it closes the listener.
    const listener = Deno.listen({ transport: "unix", path: `${path}.new` });
    Deno.renameSync(`${path}.new`, path);
    listener.close();
    try {
      const { code, stdout } = await wgd(["show", "interfaces"]);
      assertEquals(code, 0);
      assert(!stdout.includes(name));
      const one = await wgd(["show", name]);
      assertEquals(one.code, 1);
      assertStringIncludes(one.stderr, "Connection refused (ECONNREFUSED)");
      assert(Deno.lstatSync(path).isSocket);
    } finally {
      Deno.removeSync(path);
    }
  },
});

const WG_JSON = "/usr/share/doc/wireguard-tools/examples/json/wg-json";
const noWgJson = why ?? (exists(WG_JSON) ? null : `needs ${WG_JSON}`);

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

Deno.test({
  name: `JSON is that of wg-json${noWgJson ? ` (skipped: ${noWgJson})` : ""}`,
  ignore: noWgJson !== null,
  async fn(): Promise<void> {
    await withDevice(richDevice(Date.now(), 5), async (name) => {
      const { success, stdout } = await new Deno.Command("bash", {
        args: [WG_JSON],
      }).output();
      assert(success);
      // printf's %u and JSON differ above 2^53 in how they lose digits.
      const whole = (text: string): string =>
        text.replace(/(\d{15})\d+/g, "$1");
      const theirs = JSON.parse(whole(new TextDecoder().decode(stdout)));
      const ours = await wgd(["show", name, "--json"]);
      assertEquals(JSON.parse(whole(ours.stdout))[name], theirs[name]);
      const all = await wgd(["show", "all", "--json"]);
      assertEquals(JSON.parse(whole(all.stdout))[name], theirs[name]);
    });
  },
});

Deno.test("colour: WG_COLOR_MODE decides, then NO_COLOR, then the terminal", () => {
  const color = (env: Record<string, string>, isTerminal: boolean): boolean =>
    wantsColor({ env: (name) => env[name], isTerminal });
  assertEquals(color({}, true), true);
  assertEquals(color({}, false), false);
  assertEquals(color({ NO_COLOR: "1" }, true), false);
  assertEquals(color({ NO_COLOR: "" }, true), true);
  assertEquals(color({ NO_COLOR: "1", WG_COLOR_MODE: "always" }, false), true);
  assertEquals(color({ WG_COLOR_MODE: "never" }, true), false);
  assertEquals(color({ WG_COLOR_MODE: "auto" }, true), true);
});

Deno.test("an unknown field is refused before anything is asked", async () => {
  const { code, stderr } = await wgd(["show", "nosuch0", "endpoint"]);
  assertEquals(code, 1);
  assertEquals(
    stderr,
    'wgd: show: "endpoint" is not a field; did you mean endpoints?\n',
  );
  assertEquals((await wgd(["show", "interfaces", "peers"])).code, 1);
});
