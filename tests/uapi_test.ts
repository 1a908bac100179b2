/** lib/uapi: the daemon's side of the protocol, on a device in memory. */
import {
  assert,
  assertEquals,
  assertLess,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import {
  formatGet,
  LineSplitter,
  LineTooLongError,
  serveUapi,
  UAPI_LINE_MAX,
  UapiSetParser,
} from "../lib/uapi.ts";
import { formatSet, UapiGetParser } from "../lib/uapi_state.ts";
import { fromHex } from "../lib/crypto/bytes.ts";
import { parseIp } from "../lib/ip.ts";
import { randomSource } from "./config_helpers.ts";
import { FakeDevice } from "./uapi_fake.ts";

const KEY_A = "a".repeat(64);
const KEY_B = "b".repeat(64);

function bytesOf(hex: string): Uint8Array {
  const bytes = fromHex(hex);
  assert(bytes !== null);
  return bytes;
}

/** Sends text in pieces of `size` bytes; returns all that comes back. */
async function talk(
  device: FakeDevice,
  text: string,
  size = 1 << 16,
): Promise<string> {
  const bytes = new TextEncoder().encode(text);
  async function* input(): AsyncGenerator<Uint8Array> {
    for (let i = 0; i < bytes.length; i += size) {
      await Promise.resolve();
      yield bytes.subarray(i, i + size);
    }
  }
  let answer = "";
  const write = (piece: string): Promise<void> => {
    answer += piece;
    return Promise.resolve();
  };
  await serveUapi({ input: input(), write }, device, device);
  return answer;
}

/** The calls that the lines of one set request make, and its errno. */
async function set(
  lines: string,
  device = new FakeDevice(),
): Promise<{ errno: string; calls: string[] }> {
  device.calls.length = 0;
  const text = lines.trim().split(/\s+/).join("\n");
  const errno = await talk(device, `set=1\n${text}\n\n`);
  return { errno: errno.trim(), calls: device.calls };
}

Deno.test("a set request calls the device once a line, in order", async () => {
  const { errno, calls } = await set(`
    private_key=${KEY_A} listen_port=51820 fwmark=4294967295 replace_peers=true
    public_key=${KEY_B} preshared_key=${KEY_A} protocol_version=1
    endpoint=192.0.2.1:51820 persistent_keepalive_interval=25
    replace_allowed_ips=true allowed_ip=10.1.2.3/8 allowed_ip=fd00::1/128
    allowed_ip=-10.0.0.0/8
    public_key=${KEY_A} endpoint=[2001:db8::1]:0`);
  assertEquals(errno, "errno=0");
  assertEquals(calls, [
    `privateKey ${KEY_A}`,
    "listenPort 51820",
    "fwmark 4294967295",
    "replacePeers",
    "create bbbb",
    "presharedKey 1",
    "endpoint 1 192.0.2.1 51820 0",
    "keepalive 1 25",
    "replaceAllowedIps 1",
    "add 1 10.0.0.0/8",
    "add 1 fd00::1/128",
    "del 1 10.0.0.0/8",
    "done 1",
    "create aaaa",
    "endpoint 2 32.1.13.184.0.0.0.0.0.0.0.0.0.0.0.1 0 0",
    "done 2",
  ]);
});

Deno.test("a named peer is created even if no line follows", async () => {
  assertEquals((await set(`public_key=${KEY_A}`)).calls, [
    "create aaaa",
    "done 1",
  ]);
});

Deno.test("keys may be upper case", async () => {
  const { calls } = await set(`private_key=${"AB".repeat(32)}`);
  assertEquals(calls, [`privateKey ${"ab".repeat(32)}`]);
});

Deno.test("update_only and remove do not create a peer", async () => {
  for (const what of ["update_only", "remove"]) {
    const { errno, calls } = await set(
      `public_key=${KEY_A} ${what}=true protocol_version=1
       preshared_key=${KEY_B} endpoint=1.2.3.4:5 allowed_ip=10.0.0.0/8`,
    );
    assertEquals([errno, ...calls], ["errno=0"], what);
  }
});

Deno.test("update_only and remove work on a peer that is there", async () => {
  const device = new FakeDevice();
  await set(`public_key=${KEY_A}`, device);
  assertEquals(
    (await set(
      `public_key=${KEY_A} protocol_version=1 update_only=true
       persistent_keepalive_interval=1`,
      device,
    )).calls,
    ["keepalive 1 1", "done 1"],
  );
  const removal = await set(
    `public_key=${KEY_A} remove=true allowed_ip=::/0`,
    device,
  );
  assertEquals(removal.calls, ["remove aaaa"]);
});

Deno.test("update_only that comes late takes back the creation", async () => {
  const { errno, calls } = await set(
    `public_key=${KEY_A} persistent_keepalive_interval=1 update_only=true`,
  );
  assertEquals([errno, ...calls], [
    "errno=0",
    "create aaaa",
    "keepalive 1 1",
    "remove aaaa",
  ]);
});

Deno.test("the device's own key as a peer is ignored", async () => {
  const device = new FakeDevice();
  device.ownPublicKey = KEY_A;
  const { errno, calls } = await set(
    `public_key=${KEY_A} endpoint=1.2.3.4:5 allowed_ip=0.0.0.0/0`,
    device,
  );
  assertEquals([errno, ...calls], ["errno=0"]);
});

Deno.test("wrong lines have the errno of wireguard-go, negative", async () => {
  const peer = `public_key=${KEY_A}`;
  for (
    const bad of [
      "private_key=00",
      `private_key=${"g".repeat(64)}`,
      `private_key=${"\x10".repeat(64)}`,
      `private_key=${"o".repeat(64)}`,
      `private_key=${KEY_A}0`,
      "listen_port=65536",
      "listen_port=",
      "listen_port=-1",
      "fwmark=4294967296",
      "fwmark=0x1",
      "replace_peers=false",
      "replace_peers=",
      "unknown=1",
      "endpoint=1.2.3.4:5",
      "public_key=",
      `${peer} update_only=yes`,
      `${peer} remove=1`,
      `${peer} preshared_key=`,
      `${peer} protocol_version=2`,
      `${peer} protocol_version=`,
      `${peer} endpoint=name:1`,
      `${peer} endpoint=1.2.3.4`,
      `${peer} endpoint=1.2.3.4:65536`,
      `${peer} endpoint=::1:5`,
      `${peer} endpoint=[::1]5`,
      `${peer} endpoint=[1.2.3.4]:5`,
      `${peer} endpoint=[fe80::1%nosuch]:5`,
      `${peer} persistent_keepalive_interval=65536`,
      `${peer} replace_allowed_ips=1`,
      `${peer} allowed_ip=10.0.0.0`,
      `${peer} allowed_ip=10.0.0.0/33`,
      `${peer} allowed_ip=--10.0.0.0/8`,
      `${peer} allowed_ip=::/129`,
      `${peer} listen_port=1`,
    ]
  ) assertEquals((await set(bad)).errno, "errno=-22", bad);
  assertEquals((await set("nonsense")).errno, "errno=-71");
});

Deno.test("after an error nothing more is applied, what was stays", async () => {
  const device = new FakeDevice();
  const { errno, calls } = await set(
    `public_key=${KEY_A} persistent_keepalive_interval=7 bogus=1
     listen_port=1 public_key=${KEY_B}`,
    device,
  );
  assertEquals([errno, ...calls], [
    "errno=-22",
    "create aaaa",
    "keepalive 1 7",
    "done 1",
  ]);
  assertEquals((await set(`listen_port=2`, device)).errno, "errno=0");
});

Deno.test("errors of the device are passed on, also those that come later", async () => {
  const device = new FakeDevice();
  device.portErrno = 98;
  assertEquals((await set("listen_port=1", device)).errno, "errno=-98");
  device.portErrno = new Promise((resolve) => setTimeout(resolve, 5, 13));
  const late = await set("listen_port=1 fwmark=1", device);
  assertEquals([late.errno, ...late.calls], ["errno=-13", "listenPort 1"]);
  device.createPeer = () => -28;
  assertEquals((await set(`public_key=${KEY_A}`, device)).errno, "errno=-28");
});

Deno.test("scopes are names or numbers", async () => {
  for (const [scope, id] of [["lo", 1], ["7", 7]]) {
    const { calls } = await set(
      `public_key=${KEY_A} endpoint=[fe80::1%${scope}]:5`,
    );
    assertEquals(calls[1].split(" ").at(-1), String(id));
  }
});

Deno.test("several requests share a connection, whatever the pieces", async () => {
  const text = `get=1\n\nset=1\r\nlisten_port=9\r\n\r\nget=1\n\n`;
  for (const size of [1, 2, 7, 1000]) {
    const answer = await talk(new FakeDevice(), text, size);
    assertEquals(
      answer,
      "errno=0\n\nerrno=0\n\nlisten_port=9\nerrno=0\n\n",
      `pieces of ${size}`,
    );
  }
});

Deno.test("what is no request closes the connection without an answer", async () => {
  for (
    const text of ["put=1\n\n", "\n", "get=2\n\n", "GET / HTTP/1.1\r\n\r\n"]
  ) {
    assertEquals(await talk(new FakeDevice(), text + "get=1\n\n"), "", text);
  }
});

Deno.test("a get request with a line in it fails with a positive errno", async () => {
  assertEquals(
    await talk(new FakeDevice(), "get=1\nx=1\n\nget=1\n\n"),
    "errno=22\n\nerrno=0\n\n",
  );
});

Deno.test("the end of the input ends a set request, but not a get request", async () => {
  const device = new FakeDevice();
  assertEquals(
    await talk(device, `set=1\npublic_key=${KEY_A}\n`),
    "errno=0\n\n",
  );
  assertEquals(device.calls, ["create aaaa", "done 1"]);
  assertEquals(await talk(device, "get=1\n"), "");
});

Deno.test("a line beyond the bound is refused, also without an end", async () => {
  const long = "x".repeat(UAPI_LINE_MAX + 1);
  for (const text of [`set=1\n${long}\n\n`, `set=1\n${long}`]) {
    assertEquals(await talk(new FakeDevice(), text, 100), "errno=-71\n\n");
  }
  const splitter = new LineSplitter();
  splitter.push(new TextEncoder().encode(long));
  assertThrows(() => splitter.next(), LineTooLongError);
});

Deno.test("a peer removed by another request meanwhile is left alone", () => {
  const device = new FakeDevice();
  const parser = new UapiSetParser(device);
  parser.line(`public_key=${KEY_A}`);
  parser.line("persistent_keepalive_interval=1");
  device.replacePeers();
  parser.resume();
  assertEquals(parser.line("persistent_keepalive_interval=2"), 0);
  assertEquals(parser.end(), 0);
});

Deno.test("get tells everything in the order of wireguard-go", () => {
  const device = new FakeDevice();
  device.secret = bytesOf(KEY_A);
  device.port = 51820;
  device.mark = 0xca6c;
  const peer = device.add(bytesOf(KEY_B));
  peer.presharedKey = bytesOf(KEY_A);
  const address = parseIp("fe80::1");
  assert(address);
  peer.endpoint = { address, port: 7, scope: 1 };
  peer.lastHandshakeMs = 1_700_000_000_250;
  peer.rxBytes = 18446744073709551615n;
  peer.txBytes = 2n;
  peer.persistentKeepalive = 25;
  peer.allowedIps.push({ address: new Uint8Array(4), cidr: 0 });
  device.add(bytesOf(KEY_A));
  assertEquals(
    [...formatGet(device)].join(""),
    `private_key=${KEY_A}
listen_port=51820
fwmark=51820
public_key=${KEY_B}
preshared_key=${KEY_A}
protocol_version=1
endpoint=[fe80::1%lo]:7
last_handshake_time_sec=1700000000
last_handshake_time_nsec=250000000
tx_bytes=2
rx_bytes=18446744073709551615
persistent_keepalive_interval=25
allowed_ip=0.0.0.0/0
public_key=${KEY_A}
preshared_key=${"0".repeat(64)}
protocol_version=1
last_handshake_time_sec=0
last_handshake_time_nsec=0
tx_bytes=0
rx_bytes=0
persistent_keepalive_interval=0
errno=0

`,
  );
});

Deno.test("what get tells, set takes, and the state is the same", async () => {
  const device = new FakeDevice();
  await set(
    `private_key=${KEY_A} listen_port=9 fwmark=3
     public_key=${KEY_B} preshared_key=${KEY_A} endpoint=[fe80::1%7]:9
     persistent_keepalive_interval=3 allowed_ip=10.0.0.0/8 allowed_ip=::/0
     public_key=${KEY_A}`,
    device,
  );
  const told = await talk(device, "get=1\n\n");
  const parser = new UapiGetParser("wg0");
  const lines = told.split("\n");
  const end = lines.findIndex((line) => parser.line(line) !== undefined);
  assertEquals(end, lines.length - 2);
  const copy = new FakeDevice();
  const { peers, ...rest } = parser.device;
  assertEquals(
    await talk(copy, [...formatSet({ ...rest, peers })].join("")),
    "errno=0\n\n",
  );
  assertEquals(await talk(copy, "get=1\n\n"), told);
});

Deno.test("get comes in pieces of about 32 KiB, peers being removed in between", () => {
  const device = new FakeDevice();
  for (let i = 0; i < 1000; i++) {
    const key = new Uint8Array(32);
    new DataView(key.buffer).setUint32(0, i + 1);
    device.add(key);
  }
  const many = device.add(bytesOf(KEY_A));
  for (let i = 0; i < 5000; i++) {
    many.allowedIps.push({
      address: new Uint8Array([10, 0, i >> 8, i]),
      cidr: 32,
    });
  }
  let text = "";
  let pieces = 0;
  for (const piece of formatGet(device)) {
    assertLess(piece.length, 33 * 1024);
    text += piece;
    if (++pieces === 2) {
      const seen = text.match(/public_key/g)?.length ?? 0;
      device.removePeer(seen); // the last one told
      device.removePeer(seen + 1);
    }
  }
  assertEquals(text.match(/public_key/g)?.length, 1000);
  assertEquals(text.match(/allowed_ip/g)?.length, 5000);
  assert(text.endsWith("allowed_ip=10.0.19.135/32\nerrno=0\n\n"));
});

Deno.test("random requests neither throw nor hang, and end with one errno each", async () => {
  const random = randomSource(1);
  const values = [
    ...[KEY_A, KEY_B, "true", "1", "", "0", "65536", "10.0.0.0/8", "::/0"],
    ...["-::/0", "1.2.3.4:5", "[::1]:5", "[fe80::1%lo]:9", "é", "=", "\0"],
  ];
  const keys = [
    ...["private_key", "listen_port", "fwmark", "replace_peers", "public_key"],
    ...["update_only", "remove", "preshared_key", "endpoint", "allowed_ip"],
    ...["persistent_keepalive_interval", "replace_allowed_ips", "x", ""],
    "protocol_version",
  ];
  const device = new FakeDevice();
  device.ownPublicKey = KEY_B;
  let good = 0;
  for (let round = 0; round < 3000; round++) {
    let text = "set=1\n";
    for (let i = random(12); i > 0; i--) {
      const key = keys[random(keys.length)];
      text += `${key}=${values[random(values.length)]}\n`;
      if (random(3) > 0) text += `public_key=${KEY_A}\n`;
    }
    const answer = await talk(device, text + "\n", 1 + random(200));
    assert(/^errno=(0|-22)\n\n$/.test(answer), JSON.stringify([text, answer]));
    if (answer === "errno=0\n\n") good++;
  }
  assert(good > 100, `${good} good ones`);
  const state = await talk(device, "get=1\n\n");
  assertStringIncludes(state, "errno=0\n\n");
});

Deno.test("random bytes neither throw nor hang", async () => {
  const random = randomSource(2);
  for (let round = 0; round < 300; round++) {
    const noise = Array.from(
      { length: random(300) },
      () => String.fromCharCode(random(256)),
    ).join("");
    const answer = await talk(
      new FakeDevice(),
      (random(2) ? "set=1\n" : "") + noise,
      1 + random(64),
    );
    assert(/^(errno=-?\d+\n\n)*$/.test(answer), JSON.stringify(answer));
  }
});

Deno.test("get=stats answers with objects and counters, and takes no keys", async () => {
  const text = "get=stats\n\nget=stats\nx=1\n\n";
  assertEquals(
    await talk(new FakeDevice(), text),
    "objects.peers=0\ntx_packets=7\nerrno=0\n\nerrno=22\n\n",
  );
});

Deno.test("a request beyond the bound is refused, and several below it are not", async () => {
  const device = new FakeDevice();
  const encoder = new TextEncoder();
  let output = "";
  const write = (text: string): Promise<void> => {
    output += text;
    return Promise.resolve();
  };
  async function* input(text: string): AsyncGenerator<Uint8Array> {
    const bytes = encoder.encode(text);
    for (let i = 0; i < bytes.length; i += 10) {
      await Promise.resolve();
      yield bytes.subarray(i, i + 10);
    }
  }
  const fits = "set=1\nfwmark=1\n\n".repeat(20);
  await serveUapi({ input: input(fits), write }, device, device, 60);
  assertEquals(output, "errno=0\n\n".repeat(20));
  output = "";
  const long = "set=1\n" + "fwmark=2\n".repeat(20) + "\n";
  await serveUapi({ input: input(long), write }, device, device, 60);
  assertEquals(output, "errno=-71\n\n");
});
