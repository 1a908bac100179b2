/**
 * Keys that are dead: none of their bytes is left anywhere in the arena, and
 * none outlives a suspension of the machine.
 */
import { assert, assertEquals } from "@std/assert";
import { KEYPAIR, PEER, SESSION } from "../lib/records.ts";
import {
  closeAll,
  connectedPair,
  DATA,
  exchange,
  INITIATION,
  keypairWord,
  makePair,
  type MemoryDevice,
  type Pair,
  RESPONSE,
  sealedBy,
  sendAtoB,
  slotEmpty,
} from "./memory/network.ts";

const KEY_BYTES = 32;
/** As much of a key, wherever it is, tells too much of it. */
const PIECE_BYTES = 8;

/** A device small enough to be searched. */
const LIMITS = {
  peers: 16,
  allowedIpNodes: 64,
  sessions: 16,
  txSlots: 130,
};

/** Places of the arena, in bytes, that hold a piece of the key. */
function find({ arena }: MemoryDevice, key: Uint8Array): number[] {
  const places: number[] = [];
  const { u8 } = arena;
  for (let from = 0; from + PIECE_BYTES <= KEY_BYTES; from += PIECE_BYTES) {
    const piece = key.subarray(from, from + PIECE_BYTES);
    for (let at = u8.indexOf(piece[0]); at >= 0;) {
      if (piece.every((byte, i) => u8[at + i] === byte)) places.push(at);
      at = u8.indexOf(piece[0], at + 1);
    }
  }
  return places;
}

function bytes(device: MemoryDevice, word: number): Uint8Array {
  return device.arena.bytes(word, KEY_BYTES).slice();
}

/** Transport keys of the current keypair. */
function transportKeys(device: MemoryDevice, peer: number): Uint8Array[] {
  const at = keypairWord(device, peer);
  return [
    bytes(device, at + KEYPAIR.SEND_KEY),
    bytes(device, at + KEYPAIR.RECEIVE_KEY),
  ];
}

function assertGone(
  device: MemoryDevice,
  keys: readonly Uint8Array[],
  what: string,
): void {
  for (const key of keys) {
    assert(key.some((byte) => byte !== 0), `${what}: it was a key`);
    assertEquals(find(device, key), [], what);
  }
}

function assertThere(device: MemoryDevice, keys: readonly Uint8Array[]): void {
  for (const key of keys) assert(find(device, key).length >= 4);
}

/** Lets workers go on until retired records are freed. */
function settle({ network }: Pair): void {
  network.advance(100);
}

Deno.test("transport keys are gone from the arena once two more have come", () => {
  const pair = connectedPair({ limits: LIMITS });
  const { a, b, peerOfA, peerOfB, network } = pair;
  const ofA = transportKeys(a, peerOfA);
  const ofB = transportKeys(b, peerOfB);
  assertThere(a, ofA);
  for (let round = 0; round < 2; round++) {
    network.advance(121_000);
    exchange(pair);
  }
  settle(pair);
  assertGone(a, ofA, "of the initiator");
  assertGone(b, ofB, "of the responder");
  closeAll(a, b);
});

Deno.test("a removed peer leaves no key, preshared and static products included", () => {
  const presharedKey = crypto.getRandomValues(new Uint8Array(KEY_BYTES));
  const pair = connectedPair({ limits: LIMITS, presharedKey });
  const { a, b, peerOfA } = pair;
  const at = a.arena.peer(peerOfA);
  const keys = [
    ...transportKeys(a, peerOfA),
    presharedKey,
    bytes(a, at + PEER.STATIC_STATIC),
  ];
  assertThere(a, keys);
  a.control.removePeer(peerOfA);
  settle(pair);
  assertGone(a, keys, "after the removal");
  closeAll(a, b);
});

/** Secrets of the handshake that a device is in. */
function handshakeKeys(device: MemoryDevice, peer: number): Uint8Array[] {
  const { arena } = device;
  const at = arena.session(arena.i32[arena.peer(peer) + PEER.SESSION]);
  return [SESSION.EPHEMERAL_PRIVATE, SESSION.CHAINING_KEY].map((word) =>
    bytes(device, at + word)
  );
}

Deno.test("ephemeral keys and chaining keys are gone once their handshake is done", () => {
  const pair = makePair({ limits: LIMITS });
  const { a, b, peerOfA, peerOfB, network } = pair;
  network.wire = (datagram) => datagram.bytes[0] === RESPONSE ? [] : [datagram];
  sendAtoB(pair);
  const keys = handshakeKeys(a, peerOfA);
  assertThere(a, keys);
  const response = network.log.find(({ bytes }) => bytes[0] === RESPONSE);
  assert(response !== undefined);
  network.wire = (datagram) => [datagram];
  network.inject(response);
  network.settle();
  assert(!slotEmpty(a, peerOfA, PEER.CURRENT), "this very handshake");
  assertGone(a, keys, "of the initiator");
  const zeros = new Uint8Array(KEY_BYTES);
  assertEquals(handshakeKeys(b, peerOfB), [zeros, zeros]);
  closeAll(a, b);
});

Deno.test("ephemeral keys and chaining keys are gone once their handshake is given up", () => {
  const pair = makePair({ limits: LIMITS });
  const { a, b, peerOfA, network } = pair;
  network.wire = () => [];
  sendAtoB(pair);
  const first = handshakeKeys(a, peerOfA);
  network.advance(85_000, 1_000);
  const last = handshakeKeys(a, peerOfA);
  assertThere(a, last);
  assertGone(a, first, "of the first try");
  // REJECT_AFTER_TIME times three after the last one.
  network.advance(640_000, 5_000);
  assertGone(a, last, "of the last try");
  closeAll(a, b);
});

Deno.test("an interface that goes down, and a device that is closed, leave no keys", () => {
  for (const end of ["down", "close", "suspended"] as const) {
    const pair = connectedPair({ limits: LIMITS });
    const { a, b, peerOfA } = pair;
    const keys = transportKeys(a, peerOfA);
    if (end === "down") a.control.down();
    else if (end === "suspended") a.control.suspended();
    else closeAll(a);
    settle(pair);
    assertGone(a, keys, end);
    closeAll(b);
    if (end !== "close") closeAll(a);
  }
});

Deno.test("the private key is never in the arena", () => {
  const pair = connectedPair({ limits: LIMITS });
  const { a, b } = pair;
  const key = a.control.privateKey?.slice();
  assert(key !== undefined);
  assertEquals(find(a, key), []);
  closeAll(a, b);
});

Deno.test("after a suspension old keys neither seal nor open, and new ones come at once", () => {
  const pair = connectedPair({ bothEndpoints: true });
  const { network, a, b, peerOfA, peerOfB } = pair;
  const late = sealedBy(b, peerOfB, new Uint8Array(0), 50n);
  network.advance(10_000);
  a.control.suspended();
  network.log.length = 0;
  for (const slot of [PEER.CURRENT, PEER.PREVIOUS, PEER.NEXT]) {
    assert(slotEmpty(a, peerOfA, slot));
  }
  const { address: from } = b;
  const { address: to } = a;
  network.inject({ from, to, bytes: late, ds: 0, sticky: false });
  network.settle();
  assertEquals(a.counters().rx_unknown_index, 1);
  const packet = sendAtoB(pair);
  assertEquals(network.types(), [DATA, INITIATION, RESPONSE, DATA].slice(1));
  assertEquals(b.delivered.pop(), packet);
  closeAll(a, b);
});
