/**
 * Handshakes and cookies with wireguard-go over real UDP, run by
 * noise_interop_test.ts inside a namespace of its own:
 *
 *   this script  127.0.0.1:own ──────── 127.0.0.1:far  wireguard-go
 *   (10.77.0.2, no TUN)                                TUN, 10.77.0.1
 *
 * The argument names the interface that wireguard-go serves. The script plays
 * the peer packet by packet, prints a line for each thing that worked, and fails
 * at the first that did not.
 */
import { assert, assertEquals } from "@std/assert";
import { aeadDecrypt, aeadEncrypt } from "../../lib/crypto/chacha.ts";
import { COOKIE_REPLY, DATA, INITIATION } from "../../lib/messages.ts";
import { KEYPAIR, SESSION } from "../../lib/records.ts";
import { MAC_STATE, randomKey, TestDevice } from "../noise_helpers.ts";
import { referencePublicKey } from "../noise_reference.ts";

const INTERFACE = Deno.args[0];
const EMPTY = new Uint8Array(0);
const FLOOD = 4000;
const DRAIN_MS = 400;

const socket = Deno.listenDatagram({
  transport: "udp",
  hostname: "127.0.0.1",
  port: 0,
});
const ownPort = (socket.addr as Deno.NetAddr).port;
const inbox: Uint8Array[] = [];
let wake: () => void = () => {};

async function listen(): Promise<void> {
  for await (const [datagram] of socket) {
    inbox.push(datagram.slice());
    wake();
  }
}

/** The next message of this type; others are left out. */
async function receive(type: number, timeoutMs: number): Promise<Uint8Array> {
  const deadline = performance.now() + timeoutMs;
  for (;;) {
    const message = inbox.shift();
    if (message?.[0] === type) return message;
    if (message !== undefined) continue;
    const left = deadline - performance.now();
    assert(left > 0, `no message of type ${type} in ${timeoutMs} ms`);
    let timer: ReturnType<typeof setTimeout> | undefined;
    await new Promise<void>((resolve) => {
      wake = resolve;
      timer = setTimeout(resolve, left);
    });
    clearTimeout(timer);
  }
}

/** One UAPI request; the answer's keys and values. */
async function uapi(lines: string[]): Promise<Map<string, string>> {
  using conn = await Deno.connect({
    transport: "unix",
    path: `/var/run/wireguard/${INTERFACE}.sock`,
  });
  const request = new TextEncoder().encode(lines.join("\n") + "\n\n");
  await conn.write(request);
  const buffer = new Uint8Array(65_536);
  let text = "";
  while (!text.endsWith("\n\n")) {
    const n = await conn.read(buffer);
    if (n === null) break;
    text += new TextDecoder().decode(buffer.subarray(0, n));
  }
  const values = new Map(
    text.trim().split("\n").map((line) =>
      line.split("=", 2) as [string, string]
    ),
  );
  assertEquals(values.get("errno"), "0", text);
  return values;
}

function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i] << 8 | bytes[i + 1];
  }
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

/** An ICMP echo request from 10.77.0.2 to 10.77.0.1, 32 bytes. */
function ping(id: number): Uint8Array {
  const packet = new Uint8Array(32);
  const view = new DataView(packet.buffer);
  packet.set([0x45, 0, 0, 32, 0, 0, 0, 0, 64, 1, 0, 0]);
  packet.set([10, 77, 0, 2, 10, 77, 0, 1], 12);
  view.setUint16(10, checksum(packet.subarray(0, 20)));
  packet[20] = 8;
  view.setUint16(24, id);
  view.setUint16(22, checksum(packet.subarray(20)));
  return packet;
}

/** One tunnel between a fresh identity of ours and wireguard-go. */
class Session {
  readonly device: TestDevice;
  readonly peer: number;
  readonly far: Deno.NetAddr;
  readonly #source: number[];
  #counter = 0n;

  private constructor(
    farKey: Uint8Array,
    farPort: number,
    presharedKey: Uint8Array | undefined,
  ) {
    this.device = new TestDevice(randomKey());
    this.peer = this.device.addPeer(farKey, presharedKey);
    this.far = { transport: "udp", hostname: "127.0.0.1", port: farPort };
    this.#source = [127, 0, 0, 1];
  }

  static async start(
    presharedKey: Uint8Array | undefined,
    extra: string[],
  ): Promise<Session> {
    const farPrivate = randomKey();
    await uapi([
      "set=1",
      `private_key=${farPrivate.toHex()}`,
      "replace_peers=true",
    ]);
    const port = Number((await uapi(["get=1"])).get("listen_port"));
    const session = new Session(
      referencePublicKey(farPrivate),
      port,
      presharedKey,
    );
    // Before the peer is known: its initiation may come at once.
    inbox.length = 0;
    await uapi([
      "set=1",
      `public_key=${session.device.publicKey.toHex()}`,
      ...(presharedKey ? [`preshared_key=${presharedKey.toHex()}`] : []),
      "allowed_ip=10.77.0.2/32",
      ...extra,
    ]);
    return session;
  }

  send(message: Uint8Array): Promise<number> {
    return socket.send(message, this.far);
  }

  initiation(): Uint8Array {
    const message = this.device.createInitiation(this.peer, Date.now());
    this.device.cookies.addMacs(message, this.peer, performance.now());
    return message;
  }

  /** Word of the ENDPOINT block of whatever wireguard-go sends. */
  get source(): number {
    return this.device.source(this.#source, this.far.port);
  }

  macState(message: Uint8Array, underLoad: boolean): number {
    return this.device.macState(
      message,
      this.source,
      underLoad,
      performance.now(),
    );
  }

  /** Consumes the response to an initiation and begins the session. */
  complete(response: Uint8Array): number {
    const { device, peer } = this;
    assertEquals(
      this.macState(response, false),
      MAC_STATE.VALID_WITHOUT_COOKIE,
    );
    assertEquals(device.noise.handshakeConsumeResponse(response), peer);
    return device.noise.handshakeBeginSession(peer, performance.now());
  }

  /**
   * Consumes an initiation, answers it, and waits for the keepalive that says
   * that the far side has the keys: data before it would be dropped there.
   */
  async respond(initiation: Uint8Array): Promise<number> {
    const { device, peer } = this;
    const now = performance.now();
    assertEquals(
      device.noise.handshakeConsumeInitiation(initiation, now),
      peer,
    );
    const response = device.createResponse(peer);
    device.cookies.addMacs(response, peer, now);
    const keypair = device.noise.handshakeBeginSession(peer, now);
    await this.send(response);
    assertEquals(this.open(keypair, await receive(4, 2000)).length, 0);
    assert(device.keypairs.promoteNext(peer, keypair));
    return keypair;
  }

  /** A ping through the tunnel: our sending key there, our receiving key back. */
  async ping(keypair: number): Promise<void> {
    const { device } = this;
    const id = 0x1000 + keypair;
    const key = (field: number): Uint8Array =>
      device.arena.bytes(device.arena.keypair(keypair) + field, 32).slice();
    const counter = this.#counter++;
    const header = new Uint8Array(DATA.end);
    const view = new DataView(header.buffer);
    header[0] = 4;
    view.setUint32(4, device.keypairField(keypair, KEYPAIR.REMOTE_INDEX), true);
    view.setBigUint64(8, counter, true);
    const sealed = aeadEncrypt(
      key(KEYPAIR.SEND_KEY),
      counter,
      ping(id),
      EMPTY,
    );
    await this.send(new Uint8Array([...header, ...sealed]));
    for (;;) {
      const plaintext = this.open(keypair, await receive(4, 2000));
      if (plaintext.length === 0) continue;
      assertEquals(plaintext[20], 0, "an echo reply");
      assertEquals(new DataView(plaintext.buffer).getUint16(24), id);
      return;
    }
  }

  /** Plaintext of a data message of wireguard-go's. */
  open(keypair: number, message: Uint8Array): Uint8Array<ArrayBuffer> {
    const { device } = this;
    const view = new DataView(message.buffer);
    assertEquals(
      view.getUint32(4, true),
      device.keypairField(keypair, KEYPAIR.LOCAL_INDEX),
    );
    const at = device.arena.keypair(keypair) + KEYPAIR.RECEIVE_KEY;
    const plaintext = aeadDecrypt(
      device.arena.bytes(at, 32).slice(),
      view.getBigUint64(8, true),
      message.slice(DATA.end),
      EMPTY,
    );
    assert(plaintext, "it decrypts");
    return new Uint8Array(plaintext);
  }
}

async function weInitiate(presharedKey?: Uint8Array): Promise<void> {
  const session = await Session.start(presharedKey, []);
  await session.send(session.initiation());
  const keypair = session.complete(await receive(2, 2000));
  assertEquals(session.device.slots(session.peer), [keypair, 0, 0]);
  await session.ping(keypair);
}

async function theyInitiate(presharedKey?: Uint8Array): Promise<void> {
  const session = await Session.start(presharedKey, [
    `endpoint=127.0.0.1:${ownPort}`,
    "persistent_keepalive_interval=25",
  ]);
  const initiation = await receive(1, 7000);
  assertEquals(
    session.macState(initiation, true),
    MAC_STATE.VALID_WITHOUT_COOKIE,
  );
  await session.ping(await session.respond(initiation));
}

async function theyWantACookie(): Promise<void> {
  const session = await Session.start(undefined, []);
  const message = session.initiation();
  const flood: Promise<number>[] = [];
  for (let i = 0; i < FLOOD; i++) flood.push(session.send(message));
  await Promise.all(flood);
  const reply = await receive(3, 3000);
  assertEquals(reply.length, COOKIE_REPLY.end);
  assert(session.device.cookies.consumeCookieReply(reply, performance.now()));
  // wireguard-go works off its queue, which drops what does not fit, and stays
  // under load for a second.
  await new Promise((resolve) => setTimeout(resolve, DRAIN_MS));
  const again = session.initiation();
  assert(
    again.slice(INITIATION.mac2).some((byte) => byte !== 0),
    "it carries mac2",
  );
  inbox.length = 0;
  await session.send(again);
  // Still under load, so without a good mac2 there would be no response to the
  // new index, but another cookie reply.
  const index = session.device.sessionField(session.peer, SESSION.LOCAL_INDEX);
  for (;;) {
    const response = await receive(2, 3000);
    if (new DataView(response.buffer).getUint32(8, true) !== index) continue;
    await session.ping(session.complete(response));
    return;
  }
}

async function weWantACookie(): Promise<void> {
  const session = await Session.start(undefined, [
    `endpoint=127.0.0.1:${ownPort}`,
    "persistent_keepalive_interval=25",
  ]);
  const first = await receive(1, 7000);
  const reply = new Uint8Array(COOKIE_REPLY.end);
  assert(
    session.device.cookies.createCookieReply(
      reply,
      first,
      session.source,
      performance.now(),
    ),
  );
  await session.send(reply);
  const second = await receive(1, 7000);
  assertEquals(session.macState(second, true), MAC_STATE.VALID_WITH_COOKIE);
  await session.ping(await session.respond(second));
}

void listen();
for (
  const [name, run] of [
    ["we initiate", () => weInitiate()],
    ["we initiate, with a preshared key", () => weInitiate(randomKey())],
    ["they initiate", () => theyInitiate()],
    ["they initiate, with a preshared key", () => theyInitiate(randomKey())],
    ["we answer with a cookie", () => weWantACookie()],
    ["they answer with a cookie", () => theyWantACookie()],
  ] as const
) {
  await run();
  // deno-lint-ignore no-console
  console.log(`ok: ${name}`);
}
socket.close();
Deno.exit(0);
