/**
 * Everything that the handshake must refuse, with nothing changed by it, and
 * handshakes that cross.
 */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { INITIATION, RESPONSE } from "../lib/messages.ts";
import { NOISE_REASON } from "../lib/noise_reason.ts";
import { IDENTIFIER } from "../lib/noise_symmetric.ts";
import {
  HANDSHAKE_CONSUMED_INITIATION,
  HANDSHAKE_CREATED_INITIATION,
  KEYPAIR,
  PEER,
  PEER_FLAG_LOW_ORDER,
  SESSION,
} from "../lib/records.ts";
import {
  assertHandshakeWiped,
  LIMITS,
  makePair,
  randomKey,
  refused,
  shakeHands,
  STEP_MS,
  tampered,
  TestDevice,
  WALL_MS,
  warmPair,
} from "./noise_helpers.ts";
import {
  fromHex,
  referenceDh,
  referencePublicKey,
  ReferenceSymmetric,
} from "./noise_reference.ts";

const PROLOGUE = new TextEncoder().encode(IDENTIFIER);

/** Low-order points: the seven keys of the kernel's netns.sh. */
const LOW_ORDER = [
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
  "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
];

for (
  const [field, from, to, reason] of [
    [
      "ephemeral key",
      INITIATION.ephemeral,
      INITIATION.encryptedStatic,
      NOISE_REASON.NOT_AUTHENTIC,
    ],
    [
      "static key",
      INITIATION.encryptedStatic,
      INITIATION.encryptedTimestamp,
      NOISE_REASON.NOT_AUTHENTIC,
    ],
    [
      "timestamp",
      INITIATION.encryptedTimestamp,
      INITIATION.mac1,
      NOISE_REASON.NOT_AUTHENTIC,
    ],
  ] as const
) {
  Deno.test(`an initiation with one bit of its ${field} turned is refused`, () => {
    const { a, b, ab } = warmPair();
    const message = a.createInitiation(ab, WALL_MS + 5000);
    for (const offset of [from, (from + to) >> 1, to - 1]) {
      refused(
        b,
        reason,
        () =>
          b.noise.handshakeConsumeInitiation(tampered(message, offset), 5000),
      );
    }
    assertNotEquals(b.noise.handshakeConsumeInitiation(message, 5000), 0);
  });
}

for (
  const [field, from, to] of [
    ["ephemeral key", RESPONSE.ephemeral, RESPONSE.encryptedNothing],
    ["tag", RESPONSE.encryptedNothing, RESPONSE.mac1],
  ] as const
) {
  Deno.test(`a response with one bit of its ${field} turned is refused`, () => {
    const { a, b, ab, ba } = warmPair();
    const initiation = a.createInitiation(ab, WALL_MS + 5000);
    assertEquals(b.noise.handshakeConsumeInitiation(initiation, 5000), ba);
    const response = b.createResponse(ba);
    for (const offset of [from, (from + to) >> 1, to - 1]) {
      refused(
        a,
        NOISE_REASON.NOT_AUTHENTIC,
        () => a.noise.handshakeConsumeResponse(tampered(response, offset)),
      );
    }
    assertEquals(a.noise.handshakeConsumeResponse(response), ab);
  });
}

Deno.test("an initiation from a stranger is refused and costs no session", () => {
  const { b } = makePair();
  const stranger = new TestDevice(randomKey());
  const message = stranger.createInitiation(stranger.addPeer(b.publicKey));
  refused(
    b,
    NOISE_REASON.UNKNOWN_PEER,
    () => b.noise.handshakeConsumeInitiation(message, 0),
  );
});

Deno.test("an initiation to another device is refused", () => {
  const { a, b } = makePair();
  const c = new TestDevice(randomKey());
  const message = a.createInitiation(a.addPeer(c.publicKey));
  refused(
    b,
    NOISE_REASON.NOT_AUTHENTIC,
    () => b.noise.handshakeConsumeInitiation(message, 0),
  );
});

Deno.test("an initiation with the same or a lower timestamp is refused, for good", () => {
  const { a, b, ab, ba } = warmPair();
  const lower = a.createInitiation(ab, WALL_MS + 4000);
  const replay = a.createInitiation(ab, WALL_MS + 5000);
  assertEquals(b.noise.handshakeConsumeInitiation(replay, 5000), ba);
  const equal = a.createInitiation(ab, WALL_MS + 5000);
  for (const message of [replay, equal, lower]) {
    refused(
      b,
      NOISE_REASON.REPLAYED,
      () => b.noise.handshakeConsumeInitiation(message, 1_000_000),
    );
  }
  // Also when the session was given back in between.
  b.sessions.releaseSession(ba);
  refused(
    b,
    NOISE_REASON.REPLAYED,
    () => b.noise.handshakeConsumeInitiation(replay, 2_000_000),
  );
  const greater = a.createInitiation(ab, WALL_MS + 5000 + STEP_MS);
  assertEquals(b.noise.handshakeConsumeInitiation(greater, 3_000_000), ba);
});

Deno.test("a second initiation within 20 ms is refused, after 20 ms accepted", () => {
  const { a, b, ab, ba } = warmPair();
  const message = (i: number): Uint8Array =>
    a.createInitiation(ab, WALL_MS + 5000 + i * STEP_MS);
  assertEquals(b.noise.handshakeConsumeInitiation(message(0), 5000), ba);
  refused(
    b,
    NOISE_REASON.FLOODED,
    () => b.noise.handshakeConsumeInitiation(message(1), 5019.9),
  );
  assertEquals(b.noise.handshakeConsumeInitiation(message(1), 5020), ba);
  // What was refused did not count as an initiation.
  assertEquals(
    b.sessionTime(ba, SESSION.LAST_INITIATION_CONSUMPTION_F64),
    5020,
  );
});

Deno.test("a wrong preshared key shows at the response and not before", () => {
  const { a, b, ab, ba } = makePair(randomKey());
  b.arena.u8[(b.arena.peer(ba) + PEER.PRESHARED_KEY) * 4] ^= 1;
  const initiation = a.createInitiation(ab);
  assertEquals(b.noise.handshakeConsumeInitiation(initiation, 0), ba);
  const response = b.createResponse(ba);
  refused(
    a,
    NOISE_REASON.NOT_AUTHENTIC,
    () => a.noise.handshakeConsumeResponse(response),
  );
  assertEquals(
    a.sessionField(ab, SESSION.STATE),
    HANDSHAKE_CREATED_INITIATION,
  );
});

for (const point of LOW_ORDER) {
  const name = `${point.slice(0, 8)}…${point.slice(-2)}`;
  Deno.test(`low-order point ${name} is refused as static and as ephemeral key`, () => {
    const { a, b, ab, ba } = warmPair();
    const low = fromHex(point);
    const bad = a.addPeer(low);
    const before = a.sessionPool.used;
    for (let i = 0; i < 2; i++) {
      assert(
        !a.noise.handshakeCreateInitiation(bad, new Uint8Array(148), WALL_MS),
      );
      assertEquals(a.noise.reason, NOISE_REASON.LOW_ORDER);
      assert(a.peerField(bad, PEER.FLAGS) & PEER_FLAG_LOW_ORDER);
    }
    assertEquals(a.sessionPool.used, before, "it got no session");

    // Somebody claims the point as its static key.
    const state = new ReferenceSymmetric(PROLOGUE);
    const ephemeral = randomKey();
    const claim = new Uint8Array(INITIATION.end);
    state.mixHash(a.publicKey);
    state.mixHash(referencePublicKey(ephemeral));
    state.mixKey(referencePublicKey(ephemeral));
    state.mixKey(referenceDh(ephemeral, a.publicKey));
    claim.set(referencePublicKey(ephemeral), INITIATION.ephemeral);
    claim.set(state.encryptAndHash(low), INITIATION.encryptedStatic);
    refused(
      a,
      NOISE_REASON.LOW_ORDER,
      () => a.noise.handshakeConsumeInitiation(claim, 9000),
    );

    // Somebody uses it as ephemeral key, in either message.
    const initiation = a.createInitiation(ab, WALL_MS + 5000);
    const forged = initiation.slice();
    forged.set(low, INITIATION.ephemeral);
    refused(
      b,
      NOISE_REASON.LOW_ORDER,
      () => b.noise.handshakeConsumeInitiation(forged, 5000),
    );
    assertEquals(b.noise.handshakeConsumeInitiation(initiation, 5000), ba);
    const response = b.createResponse(ba);
    response.set(low, RESPONSE.ephemeral);
    refused(
      a,
      NOISE_REASON.LOW_ORDER,
      () => a.noise.handshakeConsumeResponse(response),
    );
  });
}

Deno.test("a response to an index that is nobody's, or a keypair's, is refused", () => {
  const pair = makePair();
  const { a, b, ab, ba } = pair;
  const [atA] = shakeHands(pair, 0);
  const initiation = a.createInitiation(ab, WALL_MS + 5000);
  assertEquals(b.noise.handshakeConsumeInitiation(initiation, 5000), ba);
  const response = b.createResponse(ba);
  const view = new DataView(response.buffer);
  for (
    const index of [
      0,
      a.sessionField(ab, SESSION.LOCAL_INDEX) ^ 1,
      a.keypairField(atA, KEYPAIR.LOCAL_INDEX),
    ]
  ) {
    view.setUint32(RESPONSE.receiver, index, true);
    refused(
      a,
      NOISE_REASON.UNKNOWN_INDEX,
      () => a.noise.handshakeConsumeResponse(response),
    );
  }
});

Deno.test("a response is good once", () => {
  const { a, b, ab, ba } = makePair();
  assertEquals(
    b.noise.handshakeConsumeInitiation(a.createInitiation(ab), 0),
    ba,
  );
  const response = b.createResponse(ba);
  assertEquals(a.noise.handshakeConsumeResponse(response), ab);
  refused(
    a,
    NOISE_REASON.WRONG_STATE,
    () => a.noise.handshakeConsumeResponse(response),
  );
  assertNotEquals(a.noise.handshakeBeginSession(ab, 0), 0);
  refused(
    a,
    NOISE_REASON.UNKNOWN_INDEX,
    () => a.noise.handshakeConsumeResponse(response),
  );
});

Deno.test("a response to an initiation that a newer one replaced is refused", () => {
  const { a, b, ab, ba } = makePair();
  const first = a.createInitiation(ab);
  assertEquals(b.noise.handshakeConsumeInitiation(first, 0), ba);
  const response = b.createResponse(ba);
  a.createInitiation(ab, WALL_MS + STEP_MS);
  refused(
    a,
    NOISE_REASON.UNKNOWN_INDEX,
    () => a.noise.handshakeConsumeResponse(response),
  );
});

Deno.test("steps out of order are refused", () => {
  const { a, b, ab, ba } = makePair();
  const createResponse = (): boolean =>
    b.noise.handshakeCreateResponse(ba, new Uint8Array(RESPONSE.end));
  const begin = (): number => b.noise.handshakeBeginSession(ba, 0);
  refused(b, NOISE_REASON.WRONG_STATE, createResponse);
  refused(b, NOISE_REASON.WRONG_STATE, begin);
  b.createInitiation(ba);
  refused(b, NOISE_REASON.WRONG_STATE, createResponse);
  refused(b, NOISE_REASON.WRONG_STATE, begin);
  assertEquals(
    b.noise.handshakeConsumeInitiation(a.createInitiation(ab), 0),
    ba,
  );
  refused(b, NOISE_REASON.WRONG_STATE, begin);
  assert(createResponse());
  refused(b, NOISE_REASON.WRONG_STATE, createResponse);
  assertNotEquals(begin(), 0);
  refused(b, NOISE_REASON.WRONG_STATE, begin);
  refused(b, NOISE_REASON.WRONG_STATE, createResponse);
});

Deno.test("a received initiation takes the place of an own pending one", () => {
  const { a, b, ab, ba } = makePair();
  const fromB = b.createInitiation(ba);
  a.createInitiation(ab);
  const pending = a.sessionField(ab, SESSION.LOCAL_INDEX);
  assertEquals(a.noise.handshakeConsumeInitiation(fromB, 0), ab);
  assertEquals(
    a.sessionField(ab, SESSION.STATE),
    HANDSHAKE_CONSUMED_INITIATION,
  );
  const at = a.arena.session(a.session(ab)) + SESSION.EPHEMERAL_PRIVATE;
  assertEquals(a.arena.bytes(at, 32).toHex(), "00".repeat(32));
  const response = a.createResponse(ab);
  assertEquals(a.indices.findSession(pending), 0);
  assertNotEquals(a.noise.handshakeBeginSession(ab, 0), 0);
  assertEquals(b.noise.handshakeConsumeResponse(response), ba);
  assertNotEquals(b.noise.handshakeBeginSession(ba, 0), 0);
});

Deno.test("when both initiate at once neither response is used and the next try works", () => {
  const pair = makePair();
  const { a, b, ab, ba } = pair;
  const fromA = a.createInitiation(ab);
  const fromB = b.createInitiation(ba);
  assertEquals(a.noise.handshakeConsumeInitiation(fromB, 0), ab);
  assertEquals(b.noise.handshakeConsumeInitiation(fromA, 0), ba);
  const responseA = a.createResponse(ab);
  const responseB = b.createResponse(ba);
  const nextA = a.noise.handshakeBeginSession(ab, 0);
  const nextB = b.noise.handshakeBeginSession(ba, 0);
  refused(
    a,
    NOISE_REASON.UNKNOWN_INDEX,
    () => a.noise.handshakeConsumeResponse(responseB),
  );
  refused(
    b,
    NOISE_REASON.UNKNOWN_INDEX,
    () => b.noise.handshakeConsumeResponse(responseA),
  );
  assertEquals(a.slots(ab), [0, 0, nextA]);
  assertEquals(b.slots(ba), [0, 0, nextB]);
  const [atA, atB] = shakeHands(pair, 5000);
  assertEquals(a.slots(ab), [atA, nextA, 0]);
  assertEquals(b.slots(ba), [0, 0, atB]);
  assert(b.keypairs.promoteNext(ba, atB));
});

Deno.test("one initiates, both cross, and the response to the later one wins", () => {
  const { a, b, ab, ba } = makePair();
  a.createInitiation(ab);
  const fromB = b.createInitiation(ba);
  assertEquals(a.noise.handshakeConsumeInitiation(fromB, 0), ab);
  const response = a.createResponse(ab);
  const next = a.noise.handshakeBeginSession(ab, 0);
  // a's retransmission is made before data confirms `next`.
  const again = a.createInitiation(ab, WALL_MS + 5000);
  assertEquals(b.noise.handshakeConsumeResponse(response), ba);
  b.noise.handshakeBeginSession(ba, 0);
  assertEquals(b.noise.handshakeConsumeInitiation(again, 5000), ba);
  const second = b.createResponse(ba);
  b.noise.handshakeBeginSession(ba, 5000);
  assertEquals(a.noise.handshakeConsumeResponse(second), ab);
  const current = a.noise.handshakeBeginSession(ab, 5000);
  assertEquals(a.slots(ab), [current, next, 0]);
});

Deno.test("when there is no session or keypair left nothing is half done", () => {
  const pairs = Array.from({ length: LIMITS.sessions }, () => randomKey());
  const { a, b, ab, ba } = makePair();
  for (const key of pairs) {
    b.sessions.sessionOf(b.addPeer(referencePublicKey(key)), true);
  }
  const initiation = a.createInitiation(ab);
  const probe = (): number => b.noise.handshakeConsumeInitiation(initiation, 0);
  assertEquals(probe(), 0); // Fills the static-static cache, and nothing else.
  refused(b, NOISE_REASON.NO_ROOM, probe);
  refused(
    b,
    NOISE_REASON.NO_ROOM,
    () => b.noise.handshakeCreateInitiation(ba, new Uint8Array(148), WALL_MS),
  );
  b.sessions.releaseSession(2);
  assertEquals(probe(), ba);

  b.createResponse(ba);
  const made: number[] = [];
  for (let keypair = 0;;) {
    keypair = b.keypairs.create({
      peer: 3,
      remoteIndex: 0,
      initiator: true,
      sendKey: new Uint8Array(32),
      receiveKey: new Uint8Array(32),
      birthMs: 0,
    });
    if (keypair === 0) break;
    made.push(keypair);
  }
  const begin = (): number => b.noise.handshakeBeginSession(ba, 0);
  refused(b, NOISE_REASON.NO_ROOM, begin);
  for (const keypair of made) b.keypairs.discard(keypair);
  assertNotEquals(begin(), 0);
});

Deno.test("a handshake whose index is gone begins no session and leaks no keypair", () => {
  const { a, b, ab, ba } = makePair();
  assertEquals(
    b.noise.handshakeConsumeInitiation(a.createInitiation(ab), 0),
    ba,
  );
  b.createResponse(ba);
  b.indices.removeSession(b.session(ba));
  assertEquals(b.noise.handshakeBeginSession(ba, 0), 0);
  assertEquals(b.noise.reason, NOISE_REASON.UNKNOWN_INDEX);
  assertEquals([b.keypairs.live, b.keypairs.used], [0, 0]);
  assertEquals(b.slots(ba), [0, 0, 0]);
  assertHandshakeWiped(b, ba);
});

Deno.test("only a pending initiation awaits a response, and only with its own index", () => {
  const { a, ab } = makePair();
  const session = a.sessions.sessionOf(ab, true);
  const index = (): number => a.sessionField(ab, SESSION.LOCAL_INDEX);
  assertEquals(a.sessions.awaitsResponse(session, index()), false);
  a.createInitiation(ab);
  const first = index();
  assertEquals(a.sessions.awaitsResponse(session, first), true);
  a.createInitiation(ab, WALL_MS + STEP_MS);
  assertEquals(a.sessions.awaitsResponse(session, first), false);
  assertEquals(a.sessions.awaitsResponse(session, index()), true);
});
