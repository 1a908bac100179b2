/** What `wgd show` and `wgd showconf` print, as text and as JSON. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { encodeKey, fromHex } from "../lib/crypto/bytes.ts";
import { publicKey } from "../lib/crypto/x25519.ts";
import { renderConfigJson, renderJson } from "../lib/commands/show_json.ts";
import {
  FieldRows,
  renderConfig,
  renderPretty,
  SHOW_FIELDS,
} from "../lib/commands/show_render.ts";
import { UapiGetParser } from "../lib/uapi_state.ts";
import type { DeviceState } from "../lib/uapi_state.ts";

/** A state as the daemon's codec and the client's parser make it. */
function sampleState(): DeviceState {
  const parser = new UapiGetParser("wg0");
  const lines = `private_key=${"40".repeat(32)}
listen_port=51820
fwmark=51820
public_key=${"01".repeat(32)}
preshared_key=${"02".repeat(32)}
endpoint=192.0.2.1:51820
last_handshake_time_sec=1700000000
rx_bytes=1152
tx_bytes=1
persistent_keepalive_interval=25
allowed_ip=10.0.0.0/8
allowed_ip=::/0
public_key=${"03".repeat(32)}
preshared_key=${"00".repeat(32)}
errno=0
`;
  for (const line of lines.split("\n")) parser.line(line);
  assertEquals(parser.device.peers.length, 2);
  const { device } = parser;
  assert(device.privateKey);
  device.publicKey = publicKey(device.privateKey);
  return device;
}

function renderField(
  device: DeviceState,
  field: string,
  withInterface: boolean,
): string {
  const rows = new FieldRows(field, withInterface);
  const ofPeers = device.peers.map((peer) => rows.ofPeer(peer, device));
  return rows.ofDevice(device) + ofPeers.join("");
}

Deno.test("the pretty output, as a golden text", () => {
  const device = sampleState();
  assert(device.privateKey && device.publicKey);
  assertEquals(
    renderPretty(device, {
      color: false,
      showKeys: false,
      nowMs: 1_700_000_064_000,
    }),
    `interface: wg0
  public key: ${encodeKey(device.publicKey)}
  private key: (hidden)
  listening port: 51820
  fwmark: 0xca6c

peer: AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
  preshared key: (hidden)
  endpoint: 192.0.2.1:51820
  allowed ips: 10.0.0.0/8, ::/0
  latest handshake: 1 minute, 4 seconds ago
  transfer: 1.12 KiB received, 1 B sent
  persistent keepalive: every 25 seconds

peer: AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=
  allowed ips: (none)
`,
  );
});

Deno.test("an endpoint that is being looked up is shown to people and in JSON", () => {
  const device = sampleState();
  device.peers[1].endpointName = "vpn.example.com:51820";
  const options = { color: false, showKeys: false, nowMs: 0 };
  assertStringIncludes(
    renderPretty(device, options),
    `  endpoint: vpn.example.com:51820 (pending)
  allowed ips: (none)
`,
  );
  const three = encodeKey(new Uint8Array(32).fill(3));
  assertEquals(JSON.parse(renderJson([device])).wg0.peers[three], {
    pendingEndpoint: "vpn.example.com:51820",
    allowedIps: [],
  });
  assertStringIncludes(
    renderField(device, "endpoints", false),
    `${three}\t(none)\n`,
  );
});

Deno.test("fields with an interface put its name first on each line", () => {
  const device = sampleState();
  for (const field of SHOW_FIELDS) {
    const plain = renderField(device, field, false);
    assertEquals(
      renderField(device, field, true),
      plain.replace(/^(?=.)/gm, "wg0\t"),
    );
  }
});

Deno.test("JSON has the keys of wg-json, and what is unset is left out", () => {
  const device = sampleState();
  assert(device.privateKey && device.publicKey);
  const one = encodeKey(fromHex("01".repeat(32)) ?? new Uint8Array());
  const three = encodeKey(fromHex("03".repeat(32)) ?? new Uint8Array());
  assertEquals(JSON.parse(renderJson([device])), {
    wg0: {
      privateKey: encodeKey(device.privateKey),
      publicKey: encodeKey(device.publicKey),
      listenPort: 51820,
      fwmark: 51820,
      peers: {
        [one]: {
          presharedKey: encodeKey(fromHex("02".repeat(32)) ?? new Uint8Array()),
          endpoint: "192.0.2.1:51820",
          latestHandshake: 1700000000,
          transferRx: 1152,
          transferTx: 1,
          persistentKeepalive: 25,
          allowedIps: ["10.0.0.0/8", "::/0"],
        },
        [three]: { allowedIps: [] },
      },
    },
  });
  assertEquals(renderJson([]), "{}\n");
});

Deno.test("JSON of a field has its keys alone, that of showconf no state", () => {
  const device = sampleState();
  assert(device.privateKey && device.publicKey);
  const one = encodeKey(new Uint8Array(32).fill(1));
  const three = encodeKey(new Uint8Array(32).fill(3));
  const json = (field: string): unknown =>
    JSON.parse(renderJson([device], field)).wg0;
  const publicKey = encodeKey(device.publicKey);
  assertEquals(json("public-key"), { publicKey });
  assertEquals(json("listen-port"), { listenPort: 51820 });
  assertEquals(json("peers"), { peers: { [one]: {}, [three]: {} } });
  assertEquals(json("endpoints"), {
    peers: { [one]: { endpoint: "192.0.2.1:51820" }, [three]: {} },
  });
  assertEquals(json("transfer"), {
    peers: { [one]: { transferRx: 1152, transferTx: 1 }, [three]: {} },
  });
  assertEquals(renderJson([device], "dump"), renderJson([device]));
  // Each field has its own keys, and together they are all.
  const seen = SHOW_FIELDS.filter((field) => field !== "dump").map(json);
  const keys = (value: unknown): string[] =>
    [...JSON.stringify(value).matchAll(/"([a-zA-Z]+)":/g)].map(([, k]) => k);
  assertEquals(
    new Set(seen.flatMap(keys)),
    new Set(keys(JSON.parse(renderJson([device])))),
  );
  assertEquals(JSON.parse(renderConfigJson(device)).wg0, {
    privateKey: encodeKey(device.privateKey),
    listenPort: 51820,
    fwmark: 51820,
    peers: {
      [one]: {
        presharedKey: encodeKey(new Uint8Array(32).fill(2)),
        endpoint: "192.0.2.1:51820",
        persistentKeepalive: 25,
        allowedIps: ["10.0.0.0/8", "::/0"],
      },
      [three]: { allowedIps: [] },
    },
  });
});

Deno.test("showconf, as a golden text, with and without peers", () => {
  const device = sampleState();
  assert(device.privateKey);
  const top = `[Interface]
ListenPort = 51820
FwMark = 0xca6c
PrivateKey = ${encodeKey(device.privateKey)}

`;
  assertEquals(
    renderConfig(device),
    `${top}[Peer]
PublicKey = AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=
PresharedKey = AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=
AllowedIPs = 10.0.0.0/8, ::/0
Endpoint = 192.0.2.1:51820
PersistentKeepalive = 25

[Peer]
PublicKey = AwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwM=
`,
  );
  assertEquals(renderConfig({ ...device, peers: [] }), top);
});
