/** lib/uapi_client: against the codec of the daemon, and against bad daemons. */
import {
  assert,
  assertEquals,
  assertRejects,
  assertStringIncludes,
} from "@std/assert";
import { publicKey } from "../lib/crypto/x25519.ts";
import { formatCidr, formatSocketAddress, parseCidr } from "../lib/ip.ts";
import {
  getDevice,
  listDevices,
  setDevice,
  UapiError,
} from "../lib/uapi_client.ts";
import { formatSet } from "../lib/uapi_state.ts";
import { FakeDevice, FakeServer } from "./uapi_fake.ts";
import type { Cidr } from "../lib/ip.ts";
import type { PeerUpdate } from "../lib/uapi_state.ts";

/** Calls `use` with a directory for sockets. */
async function withDirectory(
  use: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await use(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

function cidr(text: string): Cidr {
  const parsed = parseCidr(text);
  assert(parsed);
  return parsed;
}

Deno.test("what is set is what is got, in many pieces too", async () => {
  await withDirectory(async (directory) => {
    const device = new FakeDevice();
    await using _server = FakeServer.of(`${directory}/wg0.sock`, device);
    const privateKey = new Uint8Array(32).fill(0x48);
    const peers: PeerUpdate[] = [];
    for (let i = 0; i < 2000; i++) {
      const key = new Uint8Array(32);
      new DataView(key.buffer).setUint32(0, i + 1);
      peers.push({
        publicKey: key,
        presharedKey: new Uint8Array(32).fill(i & 1),
        endpoint: {
          address: new Uint8Array([192, 0, 2, i]),
          port: i,
          scope: "",
        },
        persistentKeepalive: i,
        replaceAllowedIps: true,
        allowedIps: [
          cidr(`10.0.${i >> 8}.${i & 255}/32`),
          cidr(`fd00::${i.toString(16)}/128`),
        ],
      });
    }
    await setDevice(
      "wg0",
      formatSet({ privateKey, listenPort: 1, fwmark: 2, peers }),
      { directory },
    );
    const state = await getDevice("wg0", { directory });
    assertEquals(state.name, "wg0");
    assertEquals(state.privateKey, privateKey);
    assertEquals(state.publicKey, publicKey(privateKey));
    assertEquals([state.listenPort, state.fwmark], [1, 2]);
    assertEquals(state.peers.length, 2000);
    state.peers.forEach((peer, i) => {
      const wanted = peers[i];
      assertEquals(peer.publicKey, wanted.publicKey);
      assertEquals(peer.presharedKey, i & 1 ? wanted.presharedKey : undefined);
      assert(peer.endpoint && wanted.endpoint);
      assertEquals(
        formatSocketAddress(peer.endpoint),
        formatSocketAddress(wanted.endpoint),
      );
      assertEquals(peer.persistentKeepalive, i);
      assertEquals(
        peer.allowedIps.map(formatCidr),
        wanted.allowedIps?.map(formatCidr),
      );
    });
    await setDevice(
      "wg0",
      formatSet({
        peers: [
          { publicKey: peers[0].publicKey, remove: true },
          { publicKey: new Uint8Array(32).fill(9), updateOnly: true },
        ],
      }),
      { directory },
    );
    assertEquals(device.peersByHandle.size, 1999);
    await setDevice("wg0", formatSet({ replacePeers: true }), { directory });
    assertEquals(device.peersByHandle.size, 0);
  });
});

Deno.test("a refused change is an error with errno, name and a clear line", async () => {
  await withDirectory(async (directory) => {
    const device = new FakeDevice();
    device.portErrno = 98;
    await using _server = FakeServer.of(`${directory}/wg0.sock`, device);
    const error = await assertRejects(
      () => setDevice("wg0", "set=1\nlisten_port=1\n\n", { directory }),
      UapiError,
    );
    assertEquals(
      [error.errno, error.code, error.message],
      [
        98,
        "EADDRINUSE",
        "Unable to configure interface wg0: Address already in use " +
        "(EADDRINUSE)",
      ],
    );
    await assertRejects(
      () => setDevice("wg0", "set=1\nbogus=1\n\n", { directory }),
      UapiError,
      "EINVAL",
    );
  });
});

Deno.test("peers are given one by one, with the device's own lines before them", async () => {
  await withDirectory(async (directory) => {
    const peers = [1, 2, 3].map((byte) =>
      `public_key=${`0${byte}`.repeat(32)}\nrx_bytes=5\n`
    );
    const answer = `listen_port=7\n${peers.join("")}errno=0\n\n`;
    await using _server = FakeServer.canned(
      `${directory}/wg0.sock`,
      answer,
    );
    const seen: unknown[] = [];
    const device = await getDevice("wg0", {
      directory,
      eachPeer: ({ publicKey, rxBytes }, { listenPort, peers }) =>
        seen.push([publicKey[0], rxBytes, listenPort, peers.length]),
    });
    assertEquals(seen, [[1, 5n, 7, 0], [2, 5n, 7, 0], [3, 5n, 7, 0]]);
    assertEquals(device.peers, []);
  });
});

Deno.test("daemons that make no sense are protocol errors", async () => {
  await withDirectory(async (directory) => {
    for (
      const answer of [
        "",
        "x",
        "errno=zero\n\n",
        "x".repeat(9000),
        "errno=\n\n",
      ]
    ) {
      const path = `${directory}/wg0.sock`;
      await using _server = FakeServer.canned(path, answer);
      for (
        const call of [
          (): Promise<unknown> => getDevice("wg0", { directory }),
          (): Promise<unknown> => setDevice("wg0", "set=1\n\n", { directory }),
        ]
      ) {
        const error = await assertRejects(call, UapiError);
        assertEquals(error.code, "EPROTO", answer.slice(0, 9));
      }
    }
  });
});

Deno.test("only sockets that answer are listed", async () => {
  await withDirectory(async (directory) => {
    assertEquals(await listDevices({ directory: `${directory}/none` }), []);
    assertEquals(await listDevices({ directory }), []);
    await Deno.writeTextFile(`${directory}/file.sock`, "");
    await Deno.mkdir(`${directory}/dir.sock`);
    const listener = Deno.listen({
      transport: "unix",
      path: `${directory}/new`,
    });
    await Deno.rename(`${directory}/new`, `${directory}/stale.sock`);
    listener.close();
    await using _server = FakeServer.of(
      `${directory}/wg0.sock`,
      new FakeDevice(),
    );
    assertEquals(await listDevices({ directory }), ["wg0"]);
    assert(Deno.lstatSync(`${directory}/stale.sock`).isSocket);
    const error = await assertRejects(
      () => getDevice("stale", { directory }),
      UapiError,
    );
    assertEquals(error.code, "ECONNREFUSED");
  });
});

Deno.test("a device that is not there is ENODEV, and names cannot leave the directory", async () => {
  await withDirectory(async (directory) => {
    for (const name of ["nosuch", "", "../wg0", "a/b"]) {
      const error = await assertRejects(
        () => getDevice(name, { directory }),
        UapiError,
      );
      assertEquals(error.code, "ENODEV");
      assertStringIncludes(error.message, "No such device");
    }
  });
});
