/**
 * Fuzz target: what a client sends to the UAPI socket, in pieces of any length.
 * The device is asked for nothing that is out of range, keys lent to it are
 * wiped, and what `get` says of it makes the same device when it is set.
 *
 * @module
 */
import {
  type LineSplitter,
  LineTooLongError,
  type serveUapi,
  UAPI_LINE_MAX,
} from "../../lib/uapi.ts";
import { FakeDevice } from "../uapi_fake.ts";
import type { Target } from "./engine.ts";
import { check } from "./memory.ts";

const LENGTH_MAX = 5000;
const KEY_A =
  "b85996fecc9c7f1fc6d2572a76eda11d59bcd20be8e543b15ce4bd85a8e75a33";
const KEY_B =
  "58402e695ba1772b1cc9309755f043251ea77fdcf10fbe63989ceb7e19321376";

const WORDS = [
  "set=1\n",
  "get=1\n\n",
  "\n\n",
  `private_key=${KEY_A}\n`,
  `public_key=${KEY_A}\n`,
  `public_key=${KEY_B}\n`,
  `preshared_key=${KEY_B}\n`,
  "listen_port=51820\n",
  "fwmark=0\n",
  "replace_peers=true\n",
  "update_only=true\n",
  "remove=true\n",
  "protocol_version=1\n",
  "replace_allowed_ips=true\n",
  "allowed_ip=10.0.0.0/8\n",
  "allowed_ip=-10.0.0.0/8\n",
  "allowed_ip=fd00::/64\n",
  "endpoint=1.2.3.4:5\n",
  "endpoint=[::1]:65535\n",
  "endpoint=[fe80::1%lo]:1\n",
  "persistent_keepalive_interval=25\n",
  "0".repeat(64),
  "f",
  "-",
  "%",
  "=",
  "\r\n",
  "\0",
  "\u00ff",
  "x".repeat(UAPI_LINE_MAX),
];

/** What is tested. */
export interface UapiCode {
  readonly serveUapi: typeof serveUapi;
  readonly LineSplitter: typeof LineSplitter;
}

/** Fuzzes the UAPI of the daemon's side. */
export class UapiTarget implements Target {
  readonly name = "uapi";
  readonly lengthMax = LENGTH_MAX;
  readonly words = WORDS.map((word) => new TextEncoder().encode(word));
  readonly #code: UapiCode;

  constructor(code: UapiCode) {
    this.#code = code;
  }

  async run(input: Uint8Array): Promise<string> {
    const pieces = inPieces(input);
    const lines = this.#lines(input, pieces);
    const device = new StrictDevice();
    const output = await this.#serve(device, pieces);
    device.checkClosed();
    checkOutput(output);
    if (device.kinds !== "") await this.#again(device);
    const errors = [...new Set(output.match(/errno=-?\d+/g))].sort();
    return `${lines} ${errors} ${device.kinds}`;
  }

  async #serve(
    device: StrictDevice,
    pieces: readonly Uint8Array[],
  ): Promise<string> {
    let output = "";
    await this.#code.serveUapi(
      {
        input: checkedInput(device, pieces),
        write: (text) => {
          output += text;
          return Promise.resolve();
        },
      },
      device,
      device,
    );
    device.checkWiped();
    return output;
  }

  /** Lines do not depend on the pieces in which they come. */
  #lines(input: Uint8Array, pieces: readonly Uint8Array[]): string {
    const all = new TextDecoder().decode(input).split("\n");
    const expected: string[] = [];
    let tooLong = false;
    for (const [i, line] of all.entries()) {
      tooLong = line.length > UAPI_LINE_MAX;
      if (tooLong) break;
      if (i < all.length - 1) expected.push(line.replace(/\r$/, ""));
    }
    const splitter = new this.#code.LineSplitter();
    const got: string[] = [];
    let thrown = false;
    try {
      for (const piece of pieces) {
        splitter.push(piece);
        for (let line; (line = splitter.next()) !== null;) got.push(line);
      }
    } catch (error) {
      if (!(error instanceof LineTooLongError)) throw error;
      thrown = true;
    }
    // Bytes of a letter whose rest did not come are not a letter yet.
    const rest = all[all.length - 1].length - UAPI_LINE_MAX;
    const unsure = rest > 0 && rest <= 3;
    check(thrown === tooLong || unsure, `a line too long: ${tooLong}`);
    check(got.join("\n") === expected.join("\n"), "lines are not the same");
    return thrown ? "too long" : "lines";
  }

  /** What `get` says, given to another device, makes that the same. */
  async #again(device: StrictDevice): Promise<void> {
    const state = await this.#serve(device, [encode("get=1\n\n")]);
    const lines = state.split("\n").filter((line) =>
      line !== "" && !/^(last_|tx_|rx_|errno)/.test(line)
    );
    const other = new StrictDevice();
    const answer = await this.#serve(other, [
      encode(`set=1\n${lines.join("\n")}\n\n`),
    ]);
    check(answer === "errno=0\n\n", `its own state is refused: ${answer}`);
    const again = await this.#serve(other, [encode("get=1\n\n")]);
    check(again === state, `${state} is set to ${again}`);
  }
}

/** Gives the pieces, and looks at the device between them. */
async function* checkedInput(
  device: StrictDevice,
  pieces: readonly Uint8Array[],
): AsyncGenerator<Uint8Array> {
  for (const piece of pieces) {
    // As a socket would: not before the reader waits for it.
    yield await Promise.resolve(piece);
    device.checkWiped();
  }
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** The input in pieces; of what lengths is up to the input, too. */
function inPieces(input: Uint8Array): Uint8Array[] {
  let state = input.length;
  for (const byte of input.subarray(0, 64)) {
    state = (Math.imul(state, 31) + byte) >>> 0;
  }
  const most = (input.length >> 4) + state % 3 * (state % 997);
  const pieces: Uint8Array[] = [];
  for (let at = 0; at < input.length;) {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    const end = at + 1 + (state >>> 8) % (8 + most);
    pieces.push(input.subarray(at, end));
    at = end;
  }
  return pieces;
}

function checkOutput(output: string): void {
  if (output === "") return;
  check(output.endsWith("\n\n"), "an answer that does not end");
  for (const [line] of output.matchAll(/errno=.*/g)) {
    check(/^errno=(0|-?(5|22|71|98))$/.test(line), `an answer ${line}`);
  }
}

/** A device that takes offence at what a device must not be asked. */
class StrictDevice extends FakeDevice {
  /** Kinds of things that were done. */
  readonly #kinds = new Set<string>();
  readonly #lent = new Set<Uint8Array>();
  /** Peers that lines are about and that are not done. */
  readonly #touched = new Set<number>();

  get kinds(): string {
    return [...this.#kinds].sort().join();
  }

  /** Secrets do not stay where the parser had them. */
  checkWiped(): void {
    for (const key of this.#lent) {
      check(key.every((byte) => byte === 0), "a secret is not wiped");
    }
  }

  checkClosed(): void {
    check(this.#touched.size === 0, "a peer was changed and not done");
  }

  #peerIs(peer: number, kind: string): void {
    check(this.peersByHandle.has(peer), `${kind} of a peer that is gone`);
    this.#kinds.add(kind);
    if (kind !== "done") this.#touched.add(peer);
  }

  override setPrivateKey(key: Uint8Array): number {
    check(key.length === 32, "a private key's length");
    this.#lent.add(key);
    this.#kinds.add("private");
    return super.setPrivateKey(key);
  }
  override setListenPort(port: number): number | Promise<number> {
    check(isWithin(port, 65_535), `port ${port}`);
    this.#kinds.add("port");
    // Some ports are taken, and some answers take time.
    const errno = port % 7 === 3 ? 98 : 0;
    if (errno === 0) super.setListenPort(port);
    return port % 2 === 0 ? errno : Promise.resolve(errno);
  }
  override setFwmark(mark: number): number {
    check(isWithin(mark, 0xffff_ffff), `mark ${mark}`);
    this.#kinds.add("mark");
    return super.setFwmark(mark);
  }
  override replacePeers(): undefined {
    this.#kinds.add("replace");
    this.#touched.clear();
    super.replacePeers();
  }
  override createPeer(publicKey: Uint8Array): number {
    check(publicKey.length === 32, "a public key's length");
    check(this.findPeer(publicKey) === 0, "a peer is made twice");
    const peer = super.createPeer(publicKey);
    this.#peerIs(peer, "create");
    return peer;
  }
  override removePeer(peer: number): undefined {
    this.#peerIs(peer, "remove");
    this.#touched.delete(peer);
    super.removePeer(peer);
  }
  override setPresharedKey(peer: number, key: Uint8Array): void {
    this.#peerIs(peer, "preshared");
    check(key.length === 32, "a preshared key's length");
    this.#lent.add(key);
    super.setPresharedKey(peer, key);
  }
  override setEndpoint(
    peer: number,
    address: Uint8Array,
    port: number,
    scope: number,
  ): number {
    this.#peerIs(peer, `endpoint ${address.length}`);
    check([4, 16].includes(address.length), "an endpoint's length");
    check(isWithin(port, 65_535), `endpoint's port ${port}`);
    check(isWithin(scope, 0x7fff_ffff), `endpoint's scope ${scope}`);
    return super.setEndpoint(peer, address, port, scope);
  }
  override setPersistentKeepalive(peer: number, seconds: number): void {
    this.#peerIs(peer, "keepalive");
    check(isWithin(seconds, 65_535), `keepalive ${seconds}`);
    super.setPersistentKeepalive(peer, seconds);
  }
  override replaceAllowedIps(peer: number): undefined {
    this.#peerIs(peer, "replace ips");
    super.replaceAllowedIps(peer);
  }
  override addAllowedIp(peer: number, at: Uint8Array, cidr: number): number {
    this.#peerIs(peer, `ip ${at.length}`);
    check(isWithin(cidr, at.length * 8), `prefix ${cidr} of ${at.length}`);
    return super.addAllowedIp(peer, at, cidr);
  }
  override removeAllowedIp(peer: number, at: Uint8Array, cidr: number): void {
    this.#peerIs(peer, "remove ip");
    check(isWithin(cidr, at.length * 8), `prefix ${cidr} of ${at.length}`);
    super.removeAllowedIp(peer, at, cidr);
  }
  override peerDone(peer: number): void {
    this.#peerIs(peer, "done");
    this.#touched.delete(peer);
    super.peerDone(peer);
  }
}

function isWithin(value: number, max: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= max;
}
