/**
 * A device's handshake half for tests: a small arena with everything that
 * lib/noise, lib/keypairs and lib/cookie need, and shorthands to look into it.
 */
import { assert, assertEquals } from "@std/assert";
import { Arena, type ArenaLimits, HEADER, Pool } from "../lib/arena.ts";
import { Cookies } from "../lib/cookie.ts";
import { fillEndpoint } from "../lib/endpoint.ts";
import { Grace } from "../lib/epoch.ts";
import { Keypairs } from "../lib/keypairs.ts";
import { INITIATION, RESPONSE } from "../lib/messages.ts";
import { Noise } from "../lib/noise.ts";
import { Sessions } from "../lib/noise_sessions.ts";
import { IndexTable, PublicKeyTable } from "../lib/peerlookup.ts";
import {
  HANDSHAKE_ZEROED,
  KEYPAIR,
  PEER,
  PEER_ALIVE,
  PEER_FLAG_PRESHARED_KEY,
  SESSION,
} from "../lib/records.ts";

export const LIMITS: ArenaLimits = {
  peers: 8,
  allowedIpNodes: 1,
  sessions: 4,
  txSlots: 1,
};

/** What the codes of a message say. */
export const MAC_STATE = {
  /** Drop the message. */
  INVALID: 0,
  /** Whoever sent it knows our public key. */
  VALID_WITHOUT_COOKIE: 1,
  /** And receives at the address that it sends from. */
  VALID_WITH_COOKIE: 2,
} as const;
/** A value of {@link MAC_STATE}. */
export type MacState = typeof MAC_STATE[keyof typeof MAC_STATE];

/** A wall clock time for timestamps, and a step that makes a greater one. */
export const WALL_MS = 1_700_000_000_000;
export const STEP_MS = 100;

/** Word of a block in the scratch area, for the source of a message. */
const SOURCE_WORD = HEADER.WORDS - 16;

export interface TestOptions {
  ephemerals?: Uint8Array[];
  randomBytes?: (lengthBytes: number) => Uint8Array;
}

/** One side. */
export class TestDevice {
  readonly arena = new Arena(LIMITS);
  readonly grace = new Grace(this.arena);
  readonly indices = new IndexTable(
    this.arena,
    (bytes) => crypto.getRandomValues(bytes),
  );
  readonly publicKeys = new PublicKeyTable(this.arena, new Uint8Array(16));
  readonly keypairPool = new Pool(
    this.arena,
    this.arena.keypair(0),
    KEYPAIR.WORDS,
    this.arena.layout.keypairCount,
  );
  readonly keypairs = new Keypairs({
    arena: this.arena,
    pool: this.keypairPool,
    grace: this.grace,
    indices: this.indices,
  });
  readonly sessionPool = new Pool(
    this.arena,
    this.arena.session(0),
    SESSION.WORDS,
    LIMITS.sessions,
  );
  readonly sessions = new Sessions({
    arena: this.arena,
    pool: this.sessionPool,
    grace: this.grace,
    indices: this.indices,
  });
  readonly noise: Noise;
  readonly cookies: Cookies;
  #peers = 0;

  constructor(privateKey: Uint8Array | null, options: TestOptions = {}) {
    const ephemerals = options.ephemerals;
    this.noise = new Noise({
      arena: this.arena,
      sessions: this.sessions,
      indices: this.indices,
      publicKeys: this.publicKeys,
      keypairs: this.keypairs,
      generatePrivateKey: ephemerals && (() => {
        const next = ephemerals.shift();
        assert(next, "an ephemeral key is left");
        return next.slice();
      }),
    });
    this.cookies = new Cookies({
      arena: this.arena,
      indices: this.indices,
      randomBytes: options.randomBytes,
    });
    this.setIdentity(privateKey);
  }

  setIdentity(privateKey: Uint8Array | null): void {
    const peers = Array.from({ length: this.#peers }, (_, i) => i + 1);
    this.noise.setStaticIdentity(privateKey);
    for (const peer of peers) this.noise.followIdentity(peer);
    this.cookies.setStaticIdentity(this.publicKeyOrNull());
  }

  publicKeyOrNull(): Uint8Array | null {
    return this.noise.identity.publicKey;
  }

  get publicKey(): Uint8Array {
    const key = this.publicKeyOrNull();
    assert(key);
    return key;
  }

  addPeer(publicKey: Uint8Array, presharedKey?: Uint8Array): number {
    const peer = ++this.#peers;
    const at = this.arena.peer(peer);
    this.arena.u8.set(publicKey, (at + PEER.PUBLIC_KEY) * 4);
    this.arena.u32[at + PEER.FLAGS] = PEER_ALIVE;
    if (presharedKey) {
      this.arena.u8.set(presharedKey, (at + PEER.PRESHARED_KEY) * 4);
      this.arena.u32[at + PEER.FLAGS] |= PEER_FLAG_PRESHARED_KEY;
    }
    this.publicKeys.insert(peer);
    return peer;
  }

  peerField(peer: number, field: number): number {
    return this.arena.u32[this.arena.peer(peer) + field];
  }

  session(peer: number): number {
    return this.peerField(peer, PEER.SESSION);
  }

  sessionField(peer: number, field: number): number {
    return this.arena.u32[this.arena.session(this.session(peer)) + field];
  }

  sessionTime(peer: number, field: number): number {
    return this.arena.getF64(this.arena.session(this.session(peer)) + field);
  }

  keypairField(keypair: number, field: number): number {
    return this.arena.u32[this.arena.keypair(keypair) + field];
  }

  keypairBytes(keypair: number, field: number): string {
    return this.arena.bytes(this.arena.keypair(keypair) + field, 32).toHex();
  }

  /** [current, previous, next]. */
  slots(peer: number): number[] {
    return [PEER.CURRENT, PEER.PREVIOUS, PEER.NEXT].map((slot) =>
      this.peerField(peer, slot)
    );
  }

  /** All records, as text: equal before and after what must change nothing. */
  snapshot(): string {
    const { arena } = this;
    const { layout, limits } = arena;
    const part = (from: number, words: number): string =>
      arena.bytes(from, words * 4).toHex();
    return [
      part(layout.peers, (limits.peers + 1) * PEER.WORDS),
      part(layout.sessions, (limits.sessions + 1) * SESSION.WORDS),
      part(layout.keypairs, 8 * KEYPAIR.WORDS),
      `${this.indices.entries} ${this.keypairPool.used} ${this.sessionPool.used}`,
    ].join("\n");
  }

  /** Word of an ENDPOINT block with this source. */
  source(address: number[], port: number): number {
    fillEndpoint(
      this.arena,
      SOURCE_WORD,
      new Uint8Array(address),
      port,
      0,
    );
    return SOURCE_WORD;
  }

  createInitiation(
    peer: number,
    wallMs = WALL_MS,
  ): Uint8Array<ArrayBuffer> {
    const message = new Uint8Array(INITIATION.end);
    assert(
      this.noise.handshakeCreateInitiation(peer, message, wallMs),
      `reason ${this.noise.reason}`,
    );
    return message;
  }

  createResponse(peer: number): Uint8Array<ArrayBuffer> {
    const message = new Uint8Array(RESPONSE.end);
    assert(
      this.noise.handshakeCreateResponse(peer, message),
      `reason ${this.noise.reason}`,
    );
    return message;
  }

  macState(
    message: Uint8Array,
    source = this.source([192, 0, 2, 1], 51820),
    underLoad = false,
    nowMs = 0,
  ): number {
    if (!this.cookies.hasValidMac1(message)) return MAC_STATE.INVALID;
    return underLoad && this.cookies.hasValidMac2(message, source, nowMs)
      ? MAC_STATE.VALID_WITH_COOKIE
      : MAC_STATE.VALID_WITHOUT_COOKIE;
  }
}

/** Two devices that know each other. */
export interface Pair {
  a: TestDevice;
  b: TestDevice;
  /** Peer number of b at a, and of a at b. */
  ab: number;
  ba: number;
}

export function randomKey(): Uint8Array<ArrayBuffer> {
  return crypto.getRandomValues(new Uint8Array(32));
}

export function makePair(
  presharedKey?: Uint8Array,
  optionsA: TestOptions = {},
  optionsB: TestOptions = {},
): Pair {
  const a = new TestDevice(randomKey(), optionsA);
  const b = new TestDevice(randomKey(), optionsB);
  const ab = a.addPeer(b.publicKey, presharedKey);
  const ba = b.addPeer(a.publicKey, presharedKey);
  return { a, b, ab, ba };
}

/** A whole handshake that must succeed; keypair numbers at a and b. */
export function shakeHands(
  { a, b, ab, ba }: Pair,
  nowMs: number,
): [number, number] {
  const initiation = a.createInitiation(ab, WALL_MS + nowMs);
  a.cookies.addMacs(initiation, ab, nowMs);
  assertEquals(b.macState(initiation), MAC_STATE.VALID_WITHOUT_COOKIE);
  assertEquals(b.noise.handshakeConsumeInitiation(initiation, nowMs), ba);
  const response = b.createResponse(ba);
  b.cookies.addMacs(response, ba, nowMs);
  const atB = b.noise.handshakeBeginSession(ba, nowMs);
  assertEquals(a.macState(response), MAC_STATE.VALID_WITHOUT_COOKIE);
  assertEquals(a.noise.handshakeConsumeResponse(response), ab);
  const atA = a.noise.handshakeBeginSession(ab, nowMs);
  assert(atA !== 0 && atB !== 0);
  return [atA, atB];
}

/** A copy with one bit of byte `offset` turned. */
export function tampered(
  message: Uint8Array,
  offset: number,
): Uint8Array<ArrayBuffer> {
  const copy = new Uint8Array(message);
  copy[offset] ^= 1;
  return copy;
}

/** `call` must return 0 or false for `reason`, and leave every record as it was. */
export function refused(
  device: TestDevice,
  reason: number,
  call: () => number | boolean,
): void {
  const before = device.snapshot();
  assert(!call(), "it is refused");
  assertEquals(device.noise.reason, reason);
  assertEquals(device.snapshot(), before, "nothing changed");
}

/** Nothing of the peer's handshake is left. */
export function assertHandshakeWiped(device: TestDevice, peer: number): void {
  const at = device.arena.session(device.session(peer));
  assertEquals(device.sessionField(peer, SESSION.STATE), HANDSHAKE_ZEROED);
  assertEquals(device.sessionField(peer, SESSION.LOCAL_INDEX), 0);
  assertEquals(device.sessionField(peer, SESSION.REMOTE_INDEX), 0);
  for (
    const field of [
      SESSION.EPHEMERAL_PRIVATE,
      SESSION.REMOTE_EPHEMERAL,
      SESSION.HASH,
      SESSION.CHAINING_KEY,
    ]
  ) {
    assertEquals(device.arena.bytes(at + field, 32).toHex(), "00".repeat(32));
  }
}

/** A pair whose responder has consumed and answered once: its caches are warm. */
export function warmPair(): Pair {
  const pair = makePair();
  shakeHands(pair, 0);
  return pair;
}
