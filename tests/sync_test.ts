/**
 * lib/sync: applying the difference to a device in memory makes it what
 * setconf would, and touches only what differs. And syncDevice, with daemons
 * that do and do not know how to take single allowed IPs away.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { encodeKey, toHex } from "../lib/crypto/bytes.ts";
import { publicKey } from "../lib/crypto/x25519.ts";
import { formatCidr, formatSocketAddress, parseCidr } from "../lib/ip.ts";
import { isUnchanged, syncUpdate } from "../lib/sync.ts";
import { serveUapi } from "../lib/uapi.ts";
import { getDevice, syncDevice, UapiError } from "../lib/uapi_client.ts";
import { formatSet } from "../lib/uapi_state.ts";
import { UapiSetParser } from "../lib/uapi_set.ts";
import { randomSource } from "./config_helpers.ts";
import { FakeDevice, FakeServer } from "./uapi_fake.ts";
import type { Cidr, SocketAddress } from "../lib/ip.ts";
import type { DeviceTarget, PeerTarget } from "../lib/sync.ts";
import type { DeviceState, DeviceUpdate } from "../lib/uapi_state.ts";

type Random = (below: number) => number;

const PRIVATE_KEYS = [1, 2, 3].map((n) => {
  const key = new Uint8Array(32).fill(n);
  key[31] = 0x40;
  key[0] = 0x08 * n;
  return key;
});
/** Two of them are the device's own at times. */
const PEER_KEYS = [
  publicKey(PRIVATE_KEYS[0]),
  publicKey(PRIVATE_KEYS[1]),
  ...[7, 8, 9, 10].map((n) => new Uint8Array(32).fill(n)),
];
const NONE = new Uint8Array(32);
const RANDOM_CASES = 400;

function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  assert(parsed, text);
  return parsed;
}

function one<T>(random: Random, choices: readonly T[]): T {
  return choices[random(choices.length)];
}

function randomCidr(random: Random): Cidr {
  return cidr(one(random, [
    `10.0.0.${random(4)}/32`,
    `10.0.${random(3)}.${random(4)}/24`,
    "0.0.0.0/0",
    `fd00::${random(4)}/128`,
    `fd00::${random(4)}/64`,
    "::/0",
  ]));
}

function randomEndpoint(random: Random): SocketAddress {
  const address = new Uint8Array([192, 0, 2, random(2)]);
  return { address, port: 1 + random(2), scope: "" };
}

/** A configuration; the same peer may come twice, the own one, too. */
function randomTarget(random: Random): DeviceTarget {
  const peers: PeerTarget[] = [];
  for (const key of PEER_KEYS) {
    for (let times = random(3) && 1 + (random(10) === 0 ? 1 : 0); times > 0;) {
      times--;
      peers.push({
        publicKey: key,
        presharedKey: random(2)
          ? new Uint8Array(32).fill(random(3))
          : undefined,
        endpoint: random(2) ? randomEndpoint(random) : undefined,
        persistentKeepalive: random(2) ? random(3) : undefined,
        allowedIps: Array.from({ length: random(5) }, () => randomCidr(random)),
      });
    }
  }
  return {
    privateKey: one(random, [NONE, ...PRIVATE_KEYS]),
    listenPort: random(3),
    fwmark: random(3),
    peers: peers.sort(() => random(3) - 1),
  };
}

/** Applies a request to a device as a daemon does. */
async function apply(device: FakeDevice, update: DeviceUpdate): Promise<void> {
  const parser = new UapiSetParser(device);
  const text = [...formatSet(update)].join("");
  for (const line of text.split("\n").slice(1, -2)) {
    assertEquals(await parser.line(line), 0, line);
    // A device is no peer of its own.
    if (!line.startsWith("private_key")) continue;
    device.ownPublicKey = device.secret ? toHex(publicKey(device.secret)) : "";
    const own = PEER_KEYS.find((key) => toHex(key) === device.ownPublicKey);
    const peer = own ? device.findPeer(own) : 0;
    if (peer) device.removePeer(peer);
  }
  assertEquals(parser.end(), 0);
}

/** As setconf does it. */
async function setconf(
  device: FakeDevice,
  { peers, ...rest }: DeviceTarget,
): Promise<void> {
  await apply(device, {
    ...rest,
    replacePeers: true,
    peers: peers.map((peer) => ({ ...peer, replaceAllowedIps: true })),
  });
}

function stateOf(device: FakeDevice): DeviceState {
  return {
    name: "wg0",
    privateKey: device.secret,
    publicKey: device.secret && publicKey(device.secret),
    listenPort: device.port,
    fwmark: device.mark,
    peers: [...device.peersByHandle.values()].map((peer) => ({
      publicKey: peer.publicKey,
      presharedKey: peer.presharedKey.some((byte) => byte !== 0)
        ? peer.presharedKey
        : undefined,
      endpoint: peer.endpoint && { ...peer.endpoint, scope: "" },
      allowedIps: [...peer.allowedIps],
      lastHandshakeSeconds: 0,
      lastHandshakeNanoseconds: 0,
      rxBytes: 0n,
      txBytes: 0n,
      persistentKeepalive: peer.persistentKeepalive,
    })),
  };
}

/** A state in words, in one order. */
function words(state: DeviceState): unknown {
  return {
    privateKey: state.privateKey && encodeKey(state.privateKey),
    listenPort: state.listenPort,
    fwmark: state.fwmark,
    peers: Object.fromEntries(
      state.peers.map((peer) => [encodeKey(peer.publicKey), {
        presharedKey: peer.presharedKey && encodeKey(peer.presharedKey),
        endpoint: peer.endpoint && formatSocketAddress(peer.endpoint),
        keepalive: peer.persistentKeepalive,
        allowedIps: peer.allowedIps.map(formatCidr).sort(),
      }]).sort(),
    ),
  };
}

/** What a device of state `a` that is given target `b` is to be. */
async function expected(a: DeviceState, b: DeviceTarget): Promise<unknown> {
  const device = new FakeDevice();
  await setconf(device, b);
  const state = stateOf(device);
  // Endpoints that a file does not name stay, unlike with setconf.
  for (const peer of state.peers) {
    const before = a.peers.find((p) =>
      encodeKey(p.publicKey) === encodeKey(peer.publicKey)
    );
    peer.endpoint ??= before?.endpoint;
  }
  return words(state);
}

for (const incremental of [false, true]) {
  Deno.test(
    `the difference makes of any device what setconf would (${
      incremental ? "single" : "all"
    } allowed IPs)`,
    async () => {
      const random = randomSource(4711);
      let changes = 0;
      for (let i = 0; i < RANDOM_CASES; i++) {
        const device = new FakeDevice();
        await setconf(device, randomTarget(random));
        const before = stateOf(device);
        const target = randomTarget(random);
        const wanted = await expected(before, target);
        const update = syncUpdate(before, target, { incremental });
        if (!isUnchanged(update)) changes++;
        await apply(device, update);
        assertEquals(words(stateOf(device)), wanted, `case ${i}`);
        // Once it is so, nothing differs.
        const again = syncUpdate(stateOf(device), target, { incremental });
        assertEquals([...formatSet(again)], ["set=1\n\n"], `case ${i} again`);
        assert(isUnchanged(again));
      }
      assert(changes > RANDOM_CASES / 2);
    },
  );
}

/** What `words` tells of a peer. */
interface WantedPeer {
  readonly presharedKey?: string;
  readonly endpoint?: string;
  readonly keepalive: number;
  readonly allowedIps: string[];
}

Deno.test("what is equal is not touched", async () => {
  const random = randomSource(99);
  for (let i = 0; i < RANDOM_CASES; i++) {
    const device = new FakeDevice();
    await setconf(device, randomTarget(random));
    const before = stateOf(device);
    const target = randomTarget(random);
    const own = target.privateKey && target.privateKey !== NONE
      ? encodeKey(publicKey(target.privateKey))
      : "";
    const handles = new Map(
      before.peers.map((peer) => [
        encodeKey(peer.publicKey),
        device.findPeer(peer.publicKey),
      ]),
    );
    const wanted = await expected(before, target) as {
      peers: Record<string, WantedPeer>;
    };
    device.calls.length = 0;
    await apply(device, syncUpdate(before, target, { incremental: true }));
    const { calls } = device;
    const told = JSON.stringify(calls);

    assertEquals(calls.includes("replacePeers"), false, told);
    assert(
      !calls.some((call) =>
        call.startsWith("replaceAllowedIps") &&
        [...handles.values()].includes(Number(call.split(" ")[1]))
      ),
      told,
    );
    const touches = (name: string): boolean =>
      calls.some((call) => call.startsWith(`${name} `));
    assertEquals(
      touches("listenPort"),
      before.listenPort !== target.listenPort,
    );
    assertEquals(touches("fwmark"), before.fwmark !== target.fwmark);
    assertEquals(
      touches("privateKey"),
      toHex(before.privateKey ?? NONE) !== toHex(target.privateKey ?? NONE),
    );
    for (const peer of before.peers) {
      const key = encodeKey(peer.publicKey);
      const handle = handles.get(key);
      const stays = key in wanted.peers;
      const isSame = device.findPeer(peer.publicKey) === handle;
      // The peer itself stays, and with it its session.
      assertEquals(isSame, stays, `${key} ${told}`);
      if (!stays || key === own) continue;
      const count = (name: string): number =>
        calls.filter((call) =>
          call.split(" ").slice(0, 2).join(" ") ===
            `${name} ${handle}`
        ).length;
      const assertTold = (
        name: string,
        before: unknown,
        after: unknown,
      ): void =>
        assertEquals(count(name), before === after ? 0 : 1, `${name} ${told}`);
      const { presharedKey, endpoint, keepalive } = wanted.peers[key];
      assertTold(
        "presharedKey",
        peer.presharedKey && encodeKey(peer.presharedKey),
        presharedKey,
      );
      assertTold(
        "endpoint",
        peer.endpoint && formatSocketAddress(peer.endpoint),
        endpoint,
      );
      assertTold("keepalive", peer.persistentKeepalive, keepalive);
      const after = wanted.peers[key].allowedIps;
      const had = peer.allowedIps.map(formatCidr);
      const added = after.filter((ip) => !had.includes(ip));
      assertEquals(count("add"), added.length, told);
      assert(
        count("del") <= had.filter((ip) => !after.includes(ip)).length,
        told,
      );
    }
  }
});

Deno.test("an allowed IP that moves is added first, and peers go last", () => {
  const [a, b] = [PEER_KEYS[2], PEER_KEYS[3]];
  const device = new FakeDevice();
  device.add(a).allowedIps.push(cidr("10.0.0.0/24"));
  const target = {
    peers: [{ publicKey: b, allowedIps: [cidr("10.0.0.0/24")] }],
  };
  assertEquals(
    [...formatSet(syncUpdate(stateOf(device), target))].join(""),
    `set=1
public_key=${toHex(b)}
persistent_keepalive_interval=0
replace_allowed_ips=true
allowed_ip=10.0.0.0/24
public_key=${toHex(a)}
remove=true

`,
  );
});

Deno.test("a name for the daemon to look up is told once", () => {
  const [key, other] = [PEER_KEYS[2], PEER_KEYS[3]];
  const device = new FakeDevice();
  device.add(key);
  const state = stateOf(device);
  const target: DeviceTarget = {
    peers: [key, other].map((publicKey) => ({
      publicKey,
      allowedIps: [],
      endpointName: "vpn.example.com:51820",
    })),
  };
  const text = [...formatSet(syncUpdate(state, target))].join("");
  assertEquals(text.match(/endpoint_name=vpn.example.com:51820/g)?.length, 2);
  state.peers[0].endpointName = "vpn.example.com:51820";
  const { peers } = syncUpdate(state, target);
  assertEquals(peers.map((peer) => toHex(peer.publicKey)), [toHex(other)]);
  state.peers[0].endpointName = "old.example.com:51820";
  assertEquals(syncUpdate(state, target).peers.length, 2);
});

Deno.test("what is undefined of the interface stays as it is", () => {
  const device = new FakeDevice();
  device.secret = PRIVATE_KEYS[0];
  device.port = 51820;
  device.mark = 7;
  const update = syncUpdate(stateOf(device), { peers: [] });
  assert(isUnchanged(update));
  assertEquals(
    [...formatSet(
      syncUpdate(stateOf(device), { privateKey: NONE, fwmark: 0, peers: [] }),
    )].join(""),
    `set=1\nprivate_key=${"00".repeat(32)}\nfwmark=0\n\n`,
  );
});

/** Serves a device as a daemon of before 2025, which refuses `allowed_ip=-…`. */
function oldServer(path: string, device: FakeDevice): FakeServer {
  return new FakeServer(path, async (conn) => {
    const input = async function* (): AsyncGenerator<Uint8Array> {
      for await (const bytes of conn.readable) {
        const text = new TextDecoder().decode(bytes);
        yield new TextEncoder().encode(text.replaceAll("allowed_ip=-", "bad="));
      }
    };
    const write = async (text: string): Promise<void> => {
      await conn.write(new TextEncoder().encode(text));
    };
    await serveUapi({ input: input(), write }, device, device);
  });
}

Deno.test("syncDevice tells an older daemon in its own words", async () => {
  const directory = await Deno.makeTempDir();
  try {
    for (const isOld of [false, true]) {
      const device = new FakeDevice();
      device.add(PEER_KEYS[2]).allowedIps.push(
        cidr("10.0.0.0/24"),
        cidr("10.0.1.0/24"),
      );
      const target: DeviceTarget = {
        fwmark: 5,
        peers: [{ publicKey: PEER_KEYS[2], allowedIps: [cidr("10.0.1.0/24")] }],
      };
      const path = `${directory}/wg0.sock`;
      await using _server = isOld
        ? oldServer(path, device)
        : FakeServer.of(path, device);
      await syncDevice("wg0", target, { directory });
      const state = await getDevice("wg0", { directory });
      assertEquals(state.fwmark, 5);
      assertEquals(state.peers[0].allowedIps.map(formatCidr), ["10.0.1.0/24"]);
      const replaced = device.calls.some((c) => c.startsWith("replaceAllowed"));
      assertEquals(replaced, isOld);
      device.calls.length = 0;
      await syncDevice("wg0", target, { directory });
      assertEquals(device.calls, []);
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("syncDevice does not hide what a daemon refuses", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const device = new FakeDevice();
    device.portErrno = 98;
    await using _server = FakeServer.of(`${directory}/wg0.sock`, device);
    const error = await assertRejects(
      () => syncDevice("wg0", { listenPort: 9, peers: [] }, { directory }),
      UapiError,
    );
    assertEquals(error.code, "EADDRINUSE");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
