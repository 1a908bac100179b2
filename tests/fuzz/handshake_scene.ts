/**
 * Two devices of the `handshake` target, one of them in a certain state of its
 * handshake, and messages that the other one really sent it. A scene can be set
 * up again without a new device.
 *
 * @module
 */
import { HEADER } from "../../lib/arena.ts";
import { hash, mac16 } from "../../lib/crypto/blake2s.ts";
import { xaeadDecrypt, xaeadEncrypt } from "../../lib/crypto/chacha.ts";
import {
  generatePrivateKey,
  publicKey,
  sharedSecret,
} from "../../lib/crypto/x25519.ts";
import { SymmetricState } from "../../lib/noise_symmetric.ts";
import { KEYPAIR, PEER } from "../../lib/records.ts";
import type { Datagram, MemoryDevice, Network } from "../memory/device.ts";
import {
  addPeer,
  COOKIE_REPLY,
  DATA,
  exchange,
  INITIATION,
  INNER_A,
  INNER_B,
  makePair,
  type Pair,
  RESPONSE,
  sendAtoB,
} from "../memory/pair.ts";
import { check } from "./memory.ts";

const INITIATION_BYTES = 148;
const RESPONSE_BYTES = 92;
const COOKIE_REPLY_BYTES = 64;
const MAC_BYTES = 16;
const LOAD = 600;
const encoder = new TextEncoder();
/** Where datagrams come from. */
export const SOURCES = [
  "192.0.2.1:51820",
  "198.51.100.7:4242",
  "198.51.100.8:1",
  "203.0.113.255:65535",
];

/** A message that is authentic, and whether the device has taken it. */
export interface Captured {
  readonly bytes: Uint8Array;
  /** The device knows it already: it must not take it again. */
  readonly spent: boolean;
}

/** Has messages like these in every state. */
type Catch = (type: number, spent: boolean) => Captured[];

/** States: what happened, and which side is looked at. */
const STATES: readonly {
  readonly name: string;
  readonly looksAt: "a" | "b";
  readonly load: boolean;
  prepare(pair: Pair, caught: Catch): Captured[];
}[] = [
  {
    name: "new",
    looksAt: "b",
    load: false,
    prepare: (pair, caught) => {
      pair.network.wire = () => [];
      sendAtoB(pair);
      return caught(INITIATION, false);
    },
  },
  {
    name: "initiation sent",
    looksAt: "a",
    load: false,
    prepare: (pair, caught) => {
      hold(pair.network, RESPONSE);
      sendAtoB(pair);
      return caught(RESPONSE, false);
    },
  },
  {
    name: "response sent",
    looksAt: "b",
    load: false,
    prepare: (pair, caught) => {
      hold(pair.network, DATA);
      sendAtoB(pair);
      return [...caught(INITIATION, true), ...caught(DATA, false)];
    },
  },
  {
    name: "session",
    looksAt: "b",
    load: false,
    prepare: establish,
  },
  {
    name: "new, under load",
    looksAt: "b",
    load: true,
    prepare: (pair, caught) => {
      pair.network.wire = () => [];
      sendAtoB(pair);
      return caught(INITIATION, false);
    },
  },
  {
    name: "session, under load",
    looksAt: "b",
    load: true,
    prepare: establish,
  },
];
export const STATE_COUNT = STATES.length;

function establish(pair: Pair, caught: Catch): Captured[] {
  exchange(pair);
  const spent = [...caught(INITIATION, true), ...caught(DATA, true)]
    // What b itself sent is nothing that it would be sent.
    .filter(({ bytes }) =>
      pair.network.log.find((datagram) => datagram.bytes === bytes)?.from ===
        pair.a.address
    );
  pair.network.log.length = 0;
  hold(pair.network, DATA);
  for (let i = 0; i < 3; i++) sendAtoB(pair);
  return [...spent, ...caught(DATA, false)];
}

/** Messages of this type are caught, and do not arrive. */
function hold(network: Network, type: number): void {
  network.wire = (datagram) => datagram.bytes[0] === type ? [] : [datagram];
}

/** One state of a device. */
export class Scene {
  readonly name: string;
  readonly load: boolean;
  readonly #state: (typeof STATES)[number];
  readonly #pair = makePair();
  readonly #cookies = new Map<string, Uint8Array>();
  #captured: Captured[] = [];
  /** Numbers of data messages that the device has taken. */
  readonly received = new Set<bigint>();
  /** The device's number for the other one. */
  peer = 0;

  constructor(state: number) {
    this.#state = STATES[state];
    this.name = this.#state.name;
    this.load = this.#state.load;
    this.reset();
  }

  /** The device that is looked at. */
  get device(): MemoryDevice {
    return this.#state.looksAt === "a" ? this.#pair.a : this.#pair.b;
  }

  /** The one that it talks to. */
  get far(): MemoryDevice {
    return this.#state.looksAt === "a" ? this.#pair.b : this.#pair.a;
  }

  get network(): Network {
    return this.#pair.network;
  }

  get captured(): readonly Captured[] {
    return this.#captured;
  }

  /** Brings both devices to the state again. */
  reset(): void {
    const pair = this.#pair;
    const { network, a, b } = pair;
    network.wire = (datagram) => [datagram];
    a.control.removeAllPeers();
    b.control.removeAllPeers();
    network.advance(6_000, 2_000);
    a.incoming.length = b.incoming.length = 0;
    pair.peerOfA = addPeer(a, b, INNER_B, true);
    pair.peerOfB = addPeer(b, a, INNER_A, false);
    for (
      const [device, peer] of [[a, pair.peerOfA], [b, pair.peerOfB]] as const
    ) {
      const six = new Uint8Array(16);
      six[0] = 0xfd;
      device.control.allowedIps.insert(six, 16, peer);
    }
    network.log.length = 0;
    const before = this.device.delivered.length;
    this.#captured = this.#state.prepare(
      pair,
      (type, spent) =>
        network.log.filter(({ bytes }) => bytes[0] === type)
          .map(({ bytes }) => ({ bytes, spent })),
    );
    check(this.#captured.length > 0, `no messages for ${this.name}`);
    this.peer = this.#state.looksAt === "a" ? pair.peerOfA : pair.peerOfB;
    this.received.clear();
    for (const { bytes, spent } of this.#captured) {
      if (spent && bytes[0] === DATA) this.received.add(counterOf(bytes));
    }
    check(this.device.delivered.length >= before, "packets are gone");
    if (this.name === "initiation sent") {
      this.#captured.push({ bytes: this.#cookieReply(), spent: false });
    }
    // From now on nothing that is sent arrives.
    network.wire = () => [];
    this.#cookies.clear();
    if (this.load) this.#putUnderLoad();
    network.log.length = 0;
    this.device.delivered.length = 0;
  }

  /** Fills the queue once; while the clock stands, the load does not end. */
  #putUnderLoad(): void {
    const junk = new Uint8Array(INITIATION_BYTES);
    junk[0] = INITIATION;
    for (let i = 0; i < LOAD; i++) this.inject(junk, SOURCES[1]);
    // Control must see all of them at once.
    const { device, network } = this;
    while (device.incoming.length > 0) device.inbound.pump(network.nowMs);
    this.network.settle();
    for (const source of SOURCES) {
      const ask = this.stranger();
      this.network.log.length = 0;
      this.inject(ask, source);
      this.network.settle();
      const [reply] = this.network.log;
      check(reply !== undefined, "no cookie under load");
      this.#cookies.set(source, this.openCookie(reply.bytes, ask));
    }
  }

  /** Gives the device a datagram. */
  inject(bytes: Uint8Array, from: string): void {
    const { address } = this.device;
    const datagram: Datagram = {
      from,
      to: address,
      ds: 0,
      sticky: false,
      bytes,
    };
    this.network.inject(datagram);
  }

  /** The cookie of a reply to `asked`. */
  openCookie(reply: Uint8Array, asked: Uint8Array): Uint8Array {
    check(reply.length === COOKIE_REPLY_BYTES, "a cookie reply's length");
    check(reply[0] === COOKIE_REPLY, "a cookie reply's type");
    for (let i = 0; i < 4; i++) {
      check(reply[4 + i] === asked[4 + i], "a cookie reply's receiver");
    }
    const at = asked.length - 2 * MAC_BYTES;
    const cookie = xaeadDecrypt(
      hash(encoder.encode("cookie--"), this.#key),
      reply.slice(8, 32),
      reply.slice(32),
      asked.slice(at, at + MAC_BYTES),
    );
    check(cookie !== null, "a cookie reply that cannot be opened");
    return cookie;
  }

  get #key(): Uint8Array {
    const key = this.device.control.publicKey;
    check(key !== null, "a device with a key");
    return key;
  }

  /** What the far side would answer under load. */
  #cookieReply(): Uint8Array {
    const [own] = this.network.log;
    const reply = new Uint8Array(COOKIE_REPLY_BYTES);
    reply[0] = COOKIE_REPLY;
    reply.set(own.bytes.subarray(4, 8), 4);
    const nonce = new Uint8Array(24).fill(7);
    reply.set(nonce, 8);
    const { publicKey } = this.far.control;
    check(publicKey !== null, "a far side with a key");
    const key = hash(encoder.encode("cookie--"), publicKey);
    const mac1At = INITIATION_BYTES - 2 * MAC_BYTES;
    const mac1 = own.bytes.slice(mac1At, mac1At + MAC_BYTES);
    reply.set(xaeadEncrypt(key, nonce, new Uint8Array(16).fill(9), mac1), 32);
    return reply;
  }

  /** The mac1 that a handshake message needs. */
  mac1(message: Uint8Array): Uint8Array {
    const key = hash(encoder.encode("mac1----"), this.#key);
    return mac16(key, message.slice(0, message.length - 2 * MAC_BYTES));
  }

  /** The mac2 that it needs besides under load. */
  mac2(message: Uint8Array, source: string): Uint8Array | undefined {
    const cookie = this.#cookies.get(source);
    if (cookie === undefined) return undefined;
    return mac16(cookie, message.slice(0, message.length - MAC_BYTES));
  }

  /** Writes both, as far as the sender can know them. */
  sign(message: Uint8Array, source: string): void {
    message.set(this.mac1(message), message.length - 2 * MAC_BYTES);
    const mac2 = this.mac2(message, source);
    if (mac2 !== undefined) message.set(mac2, message.length - MAC_BYTES);
  }

  /** An initiation of nobody whom the device knows. */
  stranger(): Uint8Array {
    const message = new Uint8Array(INITIATION_BYTES).fill(0x5a);
    message.set([INITIATION, 0, 0, 0]);
    message.fill(0, INITIATION_BYTES - MAC_BYTES);
    message.set(this.mac1(message), INITIATION_BYTES - 2 * MAC_BYTES);
    return message;
  }

  /**
   * An initiation of the far side, or of a stranger, with any timestamp and
   * any ephemeral key; without macs. Undefined if the device's key refuses.
   */
  initiation(
    known: boolean,
    timestamp: Uint8Array,
    ephemeral: Uint8Array | undefined,
  ): Uint8Array {
    const own = known ? this.far.control.privateKey : generatePrivateKey();
    check(own !== null, "a private key");
    const message = new Uint8Array(INITIATION_BYTES);
    message.set([INITIATION, 0, 0, 0, 1, 2, 3, 4]);
    const noise = SymmetricState.initial(this.#key);
    const secret = generatePrivateKey();
    const shown = ephemeral ?? publicKey(secret);
    noise.mixEphemeral(shown);
    noise.mixDh(secret, this.#key);
    message.set(shown, 8);
    noise.encryptAndHash(message, 40, publicKey(own));
    const staticStatic = sharedSecret(own, this.#key);
    check(staticStatic !== null, "a product of keys");
    noise.mixSecret(staticStatic);
    noise.encryptAndHash(message, 88, timestamp);
    return message;
  }

  /** Slot of the far side's keypair that the device receives with, or 0. */
  get farSlot(): number {
    const { arena } = this.far;
    const peer = this.device === this.#pair.a
      ? this.#pair.peerOfB
      : this.#pair.peerOfA;
    return arena.i32[arena.peer(peer) + PEER.CURRENT] === 0 ? 0 : peer;
  }

  /** Whether a data message with this index finds a keypair. */
  knowsIndex(index: number): boolean {
    const { arena } = this.device;
    return [PEER.CURRENT, PEER.PREVIOUS, PEER.NEXT].some((slot) => {
      const keypair = arena.u32[arena.peer(this.peer) + slot];
      return keypair !== 0 &&
        arena.u32[arena.keypair(keypair) + KEYPAIR.LOCAL_INDEX] === index;
    });
  }

  /** The timestamp that the device took last from the other side, or zeros. */
  get latestTimestamp(): Uint8Array {
    const { arena } = this.device;
    const word = arena.peer(this.peer) + PEER.LATEST_TIMESTAMP;
    return arena.bytes(word, 12).slice();
  }

  /** All that a message that is refused must leave as it is. */
  look(): string {
    const { device, peer } = this;
    const { control, arena } = device;
    const objects = control.objects();
    return [
      ...arena.i32.subarray(
        arena.peer(peer) + PEER.ENDPOINT,
        arena.peer(peer) + PEER.TX_BYTES_F64,
      ),
      arena.i32[arena.peer(peer) + PEER.CURRENT],
      arena.i32[arena.peer(peer) + PEER.NEXT],
      arena.i32[arena.peer(peer) + PEER.SESSION],
      control.rxBytes(peer),
      control.txBytes(peer),
      objects.keypairs,
      objects.sessions,
      objects.indices,
      objects.retired,
      device.delivered.length,
      device.outbound.slotsUsed,
      device.inbound.slotsUsed,
      arena.i32[HEADER.INBOUND_CHAINS],
    ].join();
  }
}

/** The nonce of a data message. */
export function counterOf(message: Uint8Array): bigint {
  return new DataView(message.buffer, message.byteOffset)
    .getBigUint64(8, true);
}

/** Whether a message has the length of an initiation or a response. */
export function isHandshake({ length }: Uint8Array): boolean {
  return length === INITIATION_BYTES || length === RESPONSE_BYTES;
}
