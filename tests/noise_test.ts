/**
 * The handshake: against a second implementation and against itself, the
 * identity, and the life of its records. What it refuses is in
 * noise_refusal_test.ts.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { COOKIE_REPLY, INITIATION, RESPONSE } from "../lib/messages.ts";
import { NOISE_REASON } from "../lib/noise_reason.ts";
import {
  CONSTRUCTION,
  IDENTIFIER,
  INITIAL_CHAINING_KEY,
  INITIAL_HASH,
} from "../lib/noise_symmetric.ts";
import {
  KEYPAIR,
  PEER,
  PEER_FLAG_STATIC_STATIC,
  SESSION,
} from "../lib/records.ts";
import { stamp } from "../lib/tai64n.ts";
import {
  assertHandshakeWiped,
  MAC_STATE,
  makePair,
  randomKey,
  refused,
  shakeHands,
  STEP_MS,
  TestDevice,
  WALL_MS,
} from "./noise_helpers.ts";
import {
  fromHex,
  referenceDh,
  ReferenceInitiator,
  type ReferenceKeys,
  referencePublicKey,
  ReferenceResponder,
} from "./noise_reference.ts";
import vector from "./vectors/noise_ikpsk2.json" with { type: "json" };

const PROLOGUE = new TextEncoder().encode(IDENTIFIER);
const NO_PSK = new Uint8Array(32);

Deno.test("the initial chaining key and hash are those of the whitepaper's labels", () => {
  assertEquals(CONSTRUCTION.length, 37);
  assertEquals(IDENTIFIER.length, 34);
  assertEquals(
    INITIAL_CHAINING_KEY.toHex(),
    "60e26daef327efc02ec335e2a025d2d016eb4206f87277f52d38d1988b78cd36",
  );
  assertEquals(
    INITIAL_HASH.toHex(),
    "2211b361081ac566691243db458ad5322d9c6c662293e8b70ee19c65ba079ef3",
  );
});

Deno.test("the reference for these tests reproduces the cacophony vector", () => {
  const keys = (staticKey: string, ephemeralKey: string): ReferenceKeys => ({
    prologue: fromHex(vector.init_prologue),
    presharedKey: fromHex(vector.init_psk),
    staticKey: fromHex(staticKey),
    ephemeralKey: fromHex(ephemeralKey),
  });
  const initiator = new ReferenceInitiator(
    keys(vector.init_static, vector.init_ephemeral),
    fromHex(vector.init_remote_static),
  );
  const responder = new ReferenceResponder(
    keys(vector.resp_static, vector.resp_ephemeral),
  );
  const [first, second, ...transport] = vector.messages;
  const payload = (message: { payload: string }): Uint8Array =>
    fromHex(message.payload);
  assertEquals(initiator.write(payload(first)).toHex(), first.ciphertext);
  assertEquals(
    responder.read(fromHex(first.ciphertext)).toHex(),
    first.payload,
  );
  assertEquals(responder.write(payload(second)).toHex(), second.ciphertext);
  assertEquals(
    initiator.read(fromHex(second.ciphertext)).toHex(),
    second.payload,
  );
  const ciphers = initiator.state.split();
  transport.forEach((message, i) => {
    const sealed = ciphers[i % 2].encrypt(
      new Uint8Array(0),
      payload(message),
    );
    assertEquals(sealed.toHex(), message.ciphertext);
  });
});

for (const presharedKey of [undefined, randomKey()]) {
  const how = presharedKey ? "with" : "without";

  Deno.test(`as initiator, ${how} a preshared key, every byte is the reference's`, () => {
    const staticKey = randomKey();
    const ephemeralKey = randomKey();
    const far: ReferenceKeys = {
      prologue: PROLOGUE,
      presharedKey: presharedKey ?? NO_PSK,
      staticKey: randomKey(),
      ephemeralKey: randomKey(),
    };
    const device = new TestDevice(staticKey, { ephemerals: [ephemeralKey] });
    const peer = device.addPeer(
      referencePublicKey(far.staticKey),
      presharedKey,
    );
    const reference = new ReferenceInitiator(
      { ...far, staticKey, ephemeralKey },
      referencePublicKey(far.staticKey),
    );
    const responder = new ReferenceResponder(far);

    const initiation = device.createInitiation(peer);
    const index = device.sessionField(peer, SESSION.LOCAL_INDEX);
    const expected = new Uint8Array(INITIATION.end);
    expected[0] = 1;
    new DataView(expected.buffer).setUint32(INITIATION.sender, index, true);
    expected.set(reference.write(stamp(WALL_MS)), INITIATION.ephemeral);
    assertEquals(initiation.toHex(), expected.toHex());

    responder.read(initiation.slice(INITIATION.ephemeral, INITIATION.mac1));
    assertEquals(responder.remoteStatic.toHex(), device.publicKey.toHex());
    const response = new Uint8Array(RESPONSE.end);
    response[0] = 2;
    new DataView(response.buffer).setUint32(RESPONSE.sender, 0xfedc_ba98, true);
    new DataView(response.buffer).setUint32(RESPONSE.receiver, index, true);
    response.set(responder.write(new Uint8Array(0)), RESPONSE.ephemeral);
    assertEquals(device.noise.handshakeConsumeResponse(response), peer);
    const keypair = device.noise.handshakeBeginSession(peer, 5);
    const [first, second] = responder.state.split();
    assertEquals(
      device.keypairBytes(keypair, KEYPAIR.SEND_KEY),
      first.key.toHex(),
    );
    assertEquals(
      device.keypairBytes(keypair, KEYPAIR.RECEIVE_KEY),
      second.key.toHex(),
    );
    assertEquals(
      device.keypairField(keypair, KEYPAIR.REMOTE_INDEX),
      0xfedc_ba98,
    );
    assertEquals(device.keypairField(keypair, KEYPAIR.LOCAL_INDEX), index);
  });

  Deno.test(`as responder, ${how} a preshared key, every byte is the reference's`, () => {
    const staticKey = randomKey();
    const ephemeralKey = randomKey();
    const far: ReferenceKeys = {
      prologue: PROLOGUE,
      presharedKey: presharedKey ?? NO_PSK,
      staticKey: randomKey(),
      ephemeralKey: randomKey(),
    };
    const device = new TestDevice(staticKey, { ephemerals: [ephemeralKey] });
    const peer = device.addPeer(
      referencePublicKey(far.staticKey),
      presharedKey,
    );
    const initiator = new ReferenceInitiator(far, device.publicKey);
    const reference = new ReferenceResponder({
      ...far,
      staticKey,
      ephemeralKey,
    });

    const body = initiator.write(stamp(WALL_MS));
    const initiation = new Uint8Array(INITIATION.end);
    initiation[0] = 1;
    initiation.set([0x21, 0x43, 0x65, 0x87], INITIATION.sender);
    initiation.set(body, INITIATION.ephemeral);
    assertEquals(device.noise.handshakeConsumeInitiation(initiation, 0), peer);
    reference.read(body);
    const response = device.createResponse(peer);
    const expected = new Uint8Array(RESPONSE.end);
    expected[0] = 2;
    new DataView(expected.buffer).setUint32(
      RESPONSE.sender,
      device.sessionField(peer, SESSION.LOCAL_INDEX),
      true,
    );
    expected.set([0x21, 0x43, 0x65, 0x87], RESPONSE.receiver);
    expected.set(reference.write(new Uint8Array(0)), RESPONSE.ephemeral);
    assertEquals(response.toHex(), expected.toHex());

    const keypair = device.noise.handshakeBeginSession(peer, 5);
    initiator.read(response.slice(RESPONSE.ephemeral, RESPONSE.mac1));
    const [first, second] = initiator.state.split();
    assertEquals(
      device.keypairBytes(keypair, KEYPAIR.RECEIVE_KEY),
      first.key.toHex(),
    );
    assertEquals(
      device.keypairBytes(keypair, KEYPAIR.SEND_KEY),
      second.key.toHex(),
    );
    assertEquals(
      device.keypairField(keypair, KEYPAIR.REMOTE_INDEX),
      0x8765_4321,
    );
  });

  Deno.test(`two devices ${how} a preshared key end up with each other's keys`, () => {
    const pair = makePair(presharedKey);
    const { a, b, ab, ba } = pair;
    const [atA, atB] = shakeHands(pair, 1000);
    for (
      const [mine, theirs] of [
        [KEYPAIR.SEND_KEY, KEYPAIR.RECEIVE_KEY],
        [KEYPAIR.RECEIVE_KEY, KEYPAIR.SEND_KEY],
      ]
    ) {
      assertEquals(a.keypairBytes(atA, mine), b.keypairBytes(atB, theirs));
      assertNotEquals(a.keypairBytes(atA, mine), "00".repeat(32));
    }
    assertNotEquals(
      a.keypairBytes(atA, KEYPAIR.SEND_KEY),
      a.keypairBytes(atA, KEYPAIR.RECEIVE_KEY),
    );
    assertEquals(
      a.keypairField(atA, KEYPAIR.REMOTE_INDEX),
      b.keypairField(atB, KEYPAIR.LOCAL_INDEX),
    );
    assertEquals(
      b.keypairField(atB, KEYPAIR.REMOTE_INDEX),
      a.keypairField(atA, KEYPAIR.LOCAL_INDEX),
    );
    assertEquals(a.keypairField(atA, KEYPAIR.INITIATOR), 1);
    assertEquals(b.keypairField(atB, KEYPAIR.INITIATOR), 0);
    assertEquals(
      a.arena.getF64(a.arena.keypair(atA) + KEYPAIR.BIRTH_F64),
      1000,
    );
    assertEquals(a.slots(ab), [atA, 0, 0]);
    assertEquals(b.slots(ba), [0, 0, atB]);
    assertEquals(
      a.indices.findKeypair(a.keypairField(atA, KEYPAIR.LOCAL_INDEX)),
      atA,
    );
    assertHandshakeWiped(a, ab);
    assertHandshakeWiped(b, ba);
  });
}

Deno.test("a new handshake has new indices and keys, and the old ones step back", () => {
  const pair = makePair();
  const { a, b, ab, ba } = pair;
  const [first] = shakeHands(pair, 0);
  b.keypairs.promoteNext(ba, b.slots(ba)[2]);
  const [second, secondAtB] = shakeHands(pair, 5000);
  for (const field of [KEYPAIR.LOCAL_INDEX, KEYPAIR.REMOTE_INDEX]) {
    assertNotEquals(
      a.keypairField(first, field),
      a.keypairField(second, field),
    );
  }
  assertNotEquals(
    a.keypairBytes(first, KEYPAIR.SEND_KEY),
    a.keypairBytes(second, KEYPAIR.SEND_KEY),
  );
  assertEquals(a.slots(ab), [second, first, 0]);
  assertEquals(b.slots(ba)[2], secondAtB);
  assertNotEquals(b.slots(ba)[0], 0);
});

Deno.test("each initiation has an index and an ephemeral key of its own", () => {
  const { a, ab } = makePair();
  const first = a.createInitiation(ab);
  const second = a.createInitiation(ab, WALL_MS + STEP_MS);
  const part = (message: Uint8Array, from: number, to: number): string =>
    message.slice(from, to).toHex();
  for (const [from, to] of [[4, 8], [8, 40], [40, 88]]) {
    assertNotEquals(part(first, from, to), part(second, from, to));
  }
  assertEquals(a.indices.entries, 1);
  const view = new DataView(first.buffer);
  assertEquals(a.indices.findSession(view.getUint32(4, true)), 0);
});

Deno.test("without an identity nothing is made and nothing is consumed", () => {
  const { a, b, ab, ba } = makePair();
  const initiation = a.createInitiation(ab);
  assertEquals(b.noise.handshakeConsumeInitiation(initiation, 0), ba);
  const response = b.createResponse(ba);
  const index = a.sessionField(ab, SESSION.LOCAL_INDEX);
  a.setIdentity(null);
  assertEquals(a.noise.identity.privateKey, null);
  assertEquals(a.indices.findSession(index), 0);
  refused(
    a,
    NOISE_REASON.NO_IDENTITY,
    () => a.noise.handshakeCreateInitiation(ab, new Uint8Array(148), WALL_MS),
  );
  refused(
    a,
    NOISE_REASON.NO_IDENTITY,
    () => a.noise.handshakeConsumeInitiation(initiation, 0),
  );
  refused(
    a,
    NOISE_REASON.NO_IDENTITY,
    () => a.noise.handshakeConsumeResponse(response),
  );
});

Deno.test("the private key is kept clamped", () => {
  const device = new TestDevice(new Uint8Array(32).fill(255));
  assertEquals(
    device.noise.identity.privateKey?.toHex(),
    "f8" + "ff".repeat(30) + "7f",
  );
  const key = new Uint8Array(32).fill(255);
  device.setIdentity(key);
  assertEquals(key.toHex(), "ff".repeat(32), "the caller's copy is its own");
});

Deno.test("a new private key forgets the products with the old one and the handshake", () => {
  const pair = makePair();
  const { a, b, ab, ba } = pair;
  const [atA] = shakeHands(pair, 0);
  assert(a.peerField(ab, PEER.FLAGS) & PEER_FLAG_STATIC_STATIC);
  a.createInitiation(ab, WALL_MS + 5000);
  a.arena.setF64(
    a.arena.session(a.session(ab)) + SESSION.LAST_SENT_HANDSHAKE_F64,
    4711,
  );
  const key = randomKey();
  a.setIdentity(key);
  const at = a.arena.peer(ab);
  assertEquals(a.peerField(ab, PEER.FLAGS) & PEER_FLAG_STATIC_STATIC, 0);
  assertEquals(
    a.arena.bytes(at + PEER.STATIC_STATIC, 32).toHex(),
    "00".repeat(32),
  );
  assertHandshakeWiped(a, ab);
  assertEquals(a.sessionTime(ab, SESSION.LAST_SENT_HANDSHAKE_F64), -Infinity);
  assertEquals(a.keypairField(atA, KEYPAIR.SENDING_VALID), 0);
  assertEquals(a.keypairField(atA, KEYPAIR.RECEIVING_VALID), 1);

  // b does not know the new key; once it does, they understand each other.
  const initiation = a.createInitiation(ab, WALL_MS + 6000);
  refused(
    b,
    NOISE_REASON.UNKNOWN_PEER,
    () => b.noise.handshakeConsumeInitiation(initiation, 6000),
  );
  const again = b.addPeer(referencePublicKey(key));
  assertEquals(b.noise.handshakeConsumeInitiation(initiation, 6000), again);
  assertNotEquals(again, ba);
});

Deno.test("the static-static product is computed once, at its first use", () => {
  const { a, b, ab } = makePair();
  const at = a.arena.peer(ab);
  assertEquals(a.peerField(ab, PEER.FLAGS) & PEER_FLAG_STATIC_STATIC, 0);
  a.createInitiation(ab);
  const product = a.arena.bytes(at + PEER.STATIC_STATIC, 32).toHex();
  const { privateKey } = a.noise.identity;
  assert(privateKey);
  assertEquals(product, referenceDh(privateKey, b.publicKey).toHex());
  // What is kept is what is used: a wrong one makes a message nobody can read.
  a.arena.u8[(at + PEER.STATIC_STATIC) * 4] ^= 1;
  const message = a.createInitiation(ab, WALL_MS + STEP_MS);
  assertEquals(b.noise.handshakeConsumeInitiation(message, 0), 0);
  assertEquals(b.noise.reason, NOISE_REASON.NOT_AUTHENTIC);
});

Deno.test("messages may lie in the shared arena on both sides", () => {
  const { a, b, ab, ba } = makePair(randomKey());
  const place = (device: TestDevice, lengthBytes: number): Uint8Array =>
    device.arena.bytes(device.arena.layout.handshakesRing, lengthBytes);
  const initiation = place(a, INITIATION.end);
  const atB = place(b, INITIATION.end);
  assert(a.noise.handshakeCreateInitiation(ab, initiation, WALL_MS));
  a.cookies.addMacs(initiation, ab, 0);
  atB.set(initiation);
  assertEquals(b.macState(atB), MAC_STATE.VALID_WITHOUT_COOKIE);
  assertEquals(b.noise.handshakeConsumeInitiation(atB, 0), ba);
  const reply = place(a, COOKIE_REPLY.end);
  const source = b.source([192, 0, 2, 1], 1);
  assert(b.cookies.createCookieReply(reply, atB, source, 0));
  assert(a.cookies.consumeCookieReply(reply, 0));
  const response = place(b, RESPONSE.end);
  assert(b.noise.handshakeCreateResponse(ba, response));
  b.cookies.addMacs(response, ba, 0);
  const atA = place(a, RESPONSE.end);
  atA.set(response);
  assertEquals(a.macState(atA), MAC_STATE.VALID_WITHOUT_COOKIE);
  assertEquals(a.noise.handshakeConsumeResponse(atA), ab);
});

Deno.test("a fresh session has no times, and is the same until it is released", () => {
  const { a, ab } = makePair();
  assertEquals(a.sessions.sessionOf(ab, false), 0);
  const session = a.sessions.sessionOf(ab, true);
  assertEquals(a.sessions.sessionOf(ab, true), session);
  assertEquals(a.sessionField(ab, SESSION.PEER), ab);
  for (
    const field of [
      SESSION.COOKIE_BIRTH_F64,
      SESSION.LAST_INITIATION_CONSUMPTION_F64,
      SESSION.LAST_SENT_HANDSHAKE_F64,
    ]
  ) {
    assertEquals(a.sessionTime(ab, field), -Infinity);
  }
});

Deno.test("clearing a handshake wipes it and frees its index", () => {
  const { a, b, ab, ba } = makePair();
  const initiation = a.createInitiation(ab);
  a.sessions.handshakeClear(ab);
  assertHandshakeWiped(a, ab);
  assertEquals(a.indices.entries, 0);
  assertEquals(b.noise.handshakeConsumeInitiation(initiation, 0), ba);
  refused(
    a,
    NOISE_REASON.UNKNOWN_INDEX,
    () => a.noise.handshakeConsumeResponse(b.createResponse(ba)),
  );
  new TestDevice(null).sessions.handshakeClear(1);
});

Deno.test("after everything is given back no record is in use and none holds a byte", () => {
  const pair = makePair(randomKey());
  const { a, b, ab, ba } = pair;
  shakeHands(pair, 0);
  b.keypairs.promoteNext(ba, b.slots(ba)[2]);
  shakeHands(pair, 5000);
  a.createInitiation(ab, WALL_MS + 10_000);
  for (const [device, peer] of [[a, ab], [b, ba]] as const) {
    device.keypairs.removeAll(peer);
    device.sessions.releaseSession(peer);
    device.sessions.releaseSession(peer);
    device.grace.collect();
    assertEquals(
      [
        device.keypairs.live,
        device.keypairs.used,
        device.sessions.used,
        device.indices.entries,
        device.grace.waiting,
      ],
      [0, 0, 0, 0, 0],
    );
    const { arena } = device;
    // The first word of a free record is the pool's.
    for (let i = 1; i <= 4; i++) {
      for (
        const [at, words] of [
          [arena.session(i), SESSION.WORDS],
          [arena.keypair(i), KEYPAIR.WORDS],
        ]
      ) {
        const rest = arena.u32.subarray(at + 1, at + words);
        assert(rest.every((word) => word === 0), "a record is all zero");
      }
    }
  }
});
