/**
 * Two devices in memory that know each other, packets for them, and looks into
 * their records.
 *
 * @module
 */
import { assert, assertEquals } from "@std/assert";
import type { ArenaLimits } from "../../lib/arena.ts";
import { aeadEncrypt } from "../../lib/crypto/chacha.ts";
import { generatePrivateKey } from "../../lib/crypto/x25519.ts";
import { KEYPAIR, PEER, SESSION } from "../../lib/records.ts";
import {
  type Datagram,
  MemoryDevice,
  Network,
  parseAddress,
} from "./device.ts";

export const PORT = 51820;
/** Address of each device inside the tunnel. */
export const INNER_A = "10.0.0.1";
export const INNER_B = "10.0.0.2";
/** Message types by name. */
export const INITIATION = 1;
export const RESPONSE = 2;
export const COOKIE_REPLY = 3;
export const DATA = 4;
/** Bytes of a keepalive on the wire. */
export const KEEPALIVE_BYTES = 32;

/** Two devices; the first knows the second's endpoint. */
export interface Pair {
  network: Network;
  a: MemoryDevice;
  b: MemoryDevice;
  /** Peer numbers: b on a, and a on b. */
  peerOfA: number;
  peerOfB: number;
}

/** How {@link makePair} makes two devices. */
export interface PairOptions {
  presharedKey?: Uint8Array;
  generateKey?: () => Uint8Array;
  limits?: ArenaLimits;
  /** Whether b knows a's endpoint, too. */
  bothEndpoints?: boolean;
}

/** Makes two devices `192.0.2.1` and `192.0.2.2`, up. */
export function makePair(options: PairOptions = {}): Pair {
  const network = new Network();
  const { generateKey = generatePrivateKey, limits } = options;
  const a = new MemoryDevice(network, `192.0.2.1:${PORT}`, limits);
  const b = new MemoryDevice(network, `192.0.2.2:${PORT}`, limits);
  a.control.setPrivateKey(generateKey());
  b.control.setPrivateKey(generateKey());
  const peerOfA = addPeer(a, b, INNER_B, true);
  const peerOfB = addPeer(b, a, INNER_A, options.bothEndpoints ?? false);
  if (options.presharedKey) {
    a.control.setPresharedKey(peerOfA, options.presharedKey);
    b.control.setPresharedKey(peerOfB, options.presharedKey);
  }
  a.control.up();
  b.control.up();
  return { network, a, b, peerOfA, peerOfB };
}

/** Makes a pair with a session that `a` began, both directions tried. */
export function connectedPair(options: PairOptions = {}): Pair {
  const pair = makePair(options);
  exchange(pair);
  assertEquals(pair.network.types(), [INITIATION, RESPONSE, DATA, DATA]);
  pair.network.log.length = 0;
  return pair;
}

/** Sends a packet from a to b and one back, and asserts that both arrive. */
export function exchange(pair: Pair): void {
  const { network, a, b } = pair;
  for (const [from, to] of [[a, b], [b, a]]) {
    const packet = from === a
      ? ipv4Packet(INNER_A, INNER_B)
      : ipv4Packet(INNER_B, INNER_A);
    to.delivered.length = 0;
    from.toSend.push(packet);
    network.settle();
    const direction = from === a ? "from a to b" : "from b to a";
    assertEquals(to.delivered.length, 1, `one packet ${direction}`);
    assertEquals(to.delivered, [packet]);
  }
}

/** Sends one packet from a to b; does not look whether it arrives. */
export function sendAtoB({ network, a }: Pair): Uint8Array {
  const packet = ipv4Packet(INNER_A, INNER_B);
  a.toSend.push(packet);
  network.settle();
  return packet;
}

/** Sends one packet from b to a; does not look whether it arrives. */
export function sendBtoA({ network, b }: Pair): Uint8Array {
  const packet = ipv4Packet(INNER_B, INNER_A);
  b.toSend.push(packet);
  network.settle();
  return packet;
}

/** Makes `other` a peer of `device`, allowed `inner`. */
export function addPeer(
  device: MemoryDevice,
  other: MemoryDevice,
  inner: string,
  withEndpoint: boolean,
): number {
  const { control } = device;
  const key = other.control.publicKey;
  assert(key !== null, "the other device has a key");
  const peer = control.createPeer(key);
  const address = Uint8Array.from(inner.split("."), Number);
  control.allowedIps.insert(address, 32, peer);
  if (withEndpoint) setEndpoint(device, peer, other.address);
  return peer;
}

/** Sets the peer's endpoint as configuration does. */
export function setEndpoint(
  device: MemoryDevice,
  peer: number,
  text: string,
): void {
  const { address, port } = parseAddress(text);
  device.control.setEndpoint(peer, address, port, 0);
}

/** The peer's endpoint as `a.b.c.d:port`. */
export function endpointOf(device: MemoryDevice, peer: number): string {
  const endpoint = device.control.endpointOf(peer);
  return endpoint === undefined
    ? "none"
    : `${endpoint.address.join(".")}:${endpoint.port}`;
}

/** Adds a peer with a key of its own that never answers. */
export function addDeadPeer(
  device: MemoryDevice,
  inner: string,
  endpoint: string | null = "192.0.2.99:1",
): number {
  const { control } = device;
  const peer = control.createPeer(generatePrivateKey());
  const address = Uint8Array.from(inner.split("."), Number);
  control.allowedIps.insert(address, 32, peer);
  if (endpoint !== null) setEndpoint(device, peer, endpoint);
  return peer;
}

/** An IPv4 packet of `length` bytes from one address to another. */
export function ipv4Packet(from: string, to: string, length = 84): Uint8Array {
  const packet = new Uint8Array(length);
  crypto.getRandomValues(packet.subarray(20));
  packet[0] = 0x45;
  packet[2] = length >> 8;
  packet[3] = length & 0xff;
  packet.set(from.split(".").map(Number), 12);
  packet.set(to.split(".").map(Number), 16);
  return packet;
}

/** An IPv6 packet of `length` bytes between addresses of 16 bytes. */
export function ipv6Packet(
  from: Uint8Array,
  to: Uint8Array,
  length = 96,
): Uint8Array {
  const packet = new Uint8Array(length);
  packet[0] = 0x60;
  packet[4] = (length - 40) >> 8;
  packet[5] = (length - 40) & 0xff;
  packet.set(from, 8);
  packet.set(to, 24);
  return packet;
}

/** A number that was written into a packet by {@link numbered}. */
export function numberOf(packet: Uint8Array): number {
  return new DataView(packet.buffer, packet.byteOffset).getUint32(20);
}

/** The packet with a number in its payload. */
export function numbered(packet: Uint8Array, number: number): Uint8Array {
  new DataView(packet.buffer, packet.byteOffset).setUint32(20, number);
  return packet;
}

/** Word of the keypair in a key slot of the peer: PEER.CURRENT, PREVIOUS or NEXT. */
export function keypairWord(
  device: MemoryDevice,
  peer: number,
  slot: number = PEER.CURRENT,
): number {
  const { arena } = device;
  const keypair = arena.i32[arena.peer(peer) + slot];
  assert(keypair !== 0, "the slot has a keypair");
  return arena.keypair(keypair);
}

/** Whether a key slot of the peer is empty. */
export function slotEmpty(
  device: MemoryDevice,
  peer: number,
  slot: number,
): boolean {
  return device.arena.i32[device.arena.peer(peer) + slot] === 0;
}

/** Whether `device` began the session of the peer's current keypair. */
export function isInitiator(device: MemoryDevice, peer: number): boolean {
  const word = keypairWord(device, peer) + KEYPAIR.INITIATOR;
  return device.arena.i32[word] === 1;
}

/** State of the peer's handshake, or -1 when it has no session record. */
export function handshakeState(device: MemoryDevice, peer: number): number {
  const { arena } = device;
  const session = arena.i32[arena.peer(peer) + PEER.SESSION];
  return session === 0 ? -1 : arena.i32[arena.session(session) + SESSION.STATE];
}

/**
 * What device `from` would send to `peer` with `plaintext` as the whole sealed
 * content and the counter given, whatever its outbound would say to that.
 */
export function sealedBy(
  from: MemoryDevice,
  peer: number,
  plaintext: Uint8Array,
  counter: bigint,
  slot: number = PEER.CURRENT,
): Uint8Array {
  const { arena } = from;
  const at = keypairWord(from, peer, slot);
  const key = arena.bytes(at + KEYPAIR.SEND_KEY, 32).slice();
  const sealed = aeadEncrypt(key, counter, plaintext, new Uint8Array(0));
  const message = new Uint8Array(16 + sealed.length);
  const view = new DataView(message.buffer);
  message[0] = DATA;
  view.setUint32(4, arena.u32[at + KEYPAIR.REMOTE_INDEX], true);
  view.setBigUint64(8, counter, true);
  message.set(sealed, 16);
  return message;
}

/** Sets a 64-bit counter of a keypair: the low word's place, then the high one. */
export function setCounter(
  device: MemoryDevice,
  word: number,
  value: bigint,
): void {
  device.arena.u32[word] = Number(value & 0xffff_ffffn);
  device.arena.u32[word + 1] = Number(value >> 32n);
}

/** The 64-bit counter whose low word is at `word`. */
export function getCounter(device: MemoryDevice, word: number): bigint {
  const { u32 } = device.arena;
  return BigInt(u32[word]) | (BigInt(u32[word + 1]) << 32n);
}

/** Messages of `type` that `device` sent since the log was last cleared. */
export function sentBy(device: MemoryDevice, type: number): Datagram[] {
  return device.network.log.filter((datagram) =>
    datagram.from === device.address && datagram.bytes[0] === type
  );
}

/** Closes devices and asserts that nothing of them is left. */
export function closeAll(...devices: MemoryDevice[]): void {
  for (const device of devices) {
    assertEquals(device.close(), {
      peers: 0,
      keypairs: 0,
      sessions: 0,
      timers: 0,
      allowedIpNodes: 0,
      indices: 0,
      retired: 0,
      chains: 0,
      slots: 0,
    });
  }
}
