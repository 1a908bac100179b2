/** Message authentication codes and cookies, both sides. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { blake2s } from "@noble/hashes/blake2.js";
import { xchacha20poly1305 } from "@noble/ciphers/chacha.js";
import { LABEL_COOKIE, LABEL_MAC1 } from "../lib/cookie.ts";
import { COOKIE_REPLY, INITIATION, RESPONSE } from "../lib/messages.ts";
import { KEYPAIR, SESSION } from "../lib/records.ts";
import {
  MAC_STATE,
  makePair,
  type Pair,
  shakeHands,
  STEP_MS,
  tampered,
  TestDevice,
  WALL_MS,
} from "./noise_helpers.ts";

const encoder = new TextEncoder();
const V4 = [192, 0, 2, 1];
const V6 = [0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
const PORT = 0x1234;
const SECRET = new Uint8Array(32).fill(7);

function hash(...parts: Uint8Array[]): Uint8Array {
  const state = blake2s.create({ dkLen: 32 });
  for (const part of parts) state.update(part);
  return state.digest();
}

function mac(key: Uint8Array, ...parts: Uint8Array[]): Uint8Array {
  const state = blake2s.create({ key, dkLen: 16 });
  for (const part of parts) state.update(part);
  return state.digest();
}

/** Random bytes that are all 7, then all 8, and so on. */
function counted(): (lengthBytes: number) => Uint8Array {
  let next = SECRET[0];
  return (lengthBytes) => new Uint8Array(lengthBytes).fill(next++);
}

let wallMs = WALL_MS;

/** A finished initiation from a to b, with codes as of `nowMs`. */
function initiationOf({ a, ab }: Pair, nowMs: number): Uint8Array {
  const message = a.createInitiation(ab, wallMs += STEP_MS);
  a.cookies.addMacs(message, ab, nowMs);
  return message;
}

/** b answers `message` with a cookie for the source given. */
function replyTo(
  { b }: Pair,
  message: Uint8Array,
  nowMs: number,
  address = V4,
  port = PORT,
): Uint8Array {
  const reply = new Uint8Array(COOKIE_REPLY.end);
  assert(
    b.cookies.createCookieReply(reply, message, b.source(address, port), nowMs),
  );
  return reply;
}

/** b's verdict under load. */
function verdict(
  { b }: Pair,
  message: Uint8Array,
  nowMs: number,
  address = V4,
  port = PORT,
): number {
  return b.macState(message, b.source(address, port), true, nowMs);
}

Deno.test("mac1 is keyed BLAKE2s under the hash of label and receiver's key", () => {
  assertEquals([LABEL_MAC1, LABEL_COOKIE], ["mac1----", "cookie--"]);
  const pair = makePair();
  const message = initiationOf(pair, 0);
  const key = hash(encoder.encode("mac1----"), pair.b.publicKey);
  assertEquals(
    message.slice(INITIATION.mac1, INITIATION.mac2).toHex(),
    mac(key, message.slice(0, INITIATION.mac1)).toHex(),
  );
  assertEquals(message.slice(INITIATION.mac2).toHex(), "00".repeat(16));
});

Deno.test("a message with any byte up to mac1 changed is invalid, loaded or not", () => {
  const pair = makePair();
  const { b } = pair;
  const message = initiationOf(pair, 0);
  assertEquals(b.macState(message), MAC_STATE.VALID_WITHOUT_COOKIE);
  for (let offset = 0; offset < INITIATION.mac2; offset++) {
    const bad = tampered(message, offset);
    assertEquals(b.macState(bad), MAC_STATE.INVALID, `byte ${offset}`);
    assertEquals(verdict(pair, bad, 0), MAC_STATE.INVALID);
  }
});

Deno.test("a response carries the codes of the initiator's key", () => {
  const pair = makePair();
  const { a, b, ba } = pair;
  b.noise.handshakeConsumeInitiation(initiationOf(pair, 0), 0);
  const response = b.createResponse(ba);
  b.cookies.addMacs(response, ba, 0);
  assertEquals(a.macState(response), MAC_STATE.VALID_WITHOUT_COOKIE);
  assertEquals(b.macState(response), MAC_STATE.INVALID);
  for (const offset of [0, 4, 8, RESPONSE.mac1]) {
    assertEquals(a.macState(tampered(response, offset)), MAC_STATE.INVALID);
  }
});

Deno.test("a message for another key, or to a device without one, is invalid", () => {
  const pair = makePair();
  const message = initiationOf(pair, 0);
  assertEquals(pair.a.macState(message), MAC_STATE.INVALID);
  const none = new TestDevice(null);
  assertEquals(none.macState(message), MAC_STATE.INVALID);
  const reply = new Uint8Array(COOKIE_REPLY.end);
  const source = none.source(V4, PORT);
  assert(!none.cookies.createCookieReply(reply, message, source, 0));
});

for (const [family, address] of [["IPv4", V4], ["IPv6", V6]] as const) {
  Deno.test(`a cookie for an ${family} source makes the next message valid from there only`, () => {
    const pair = makePair();
    const { a, b } = pair;
    const first = initiationOf(pair, 1000);
    assertEquals(
      verdict(pair, first, 1000, address),
      MAC_STATE.VALID_WITHOUT_COOKIE,
    );
    const reply = replyTo(pair, first, 1000, address);
    assert(a.cookies.consumeCookieReply(reply, 1001));
    const second = initiationOf(pair, 6000);
    assertNotEquals(second.slice(INITIATION.mac2).toHex(), "00".repeat(16));
    assertEquals(
      verdict(pair, second, 6000, address),
      MAC_STATE.VALID_WITH_COOKIE,
    );
    assertEquals(
      verdict(pair, second, 6000, address, PORT + 1),
      MAC_STATE.VALID_WITHOUT_COOKIE,
      "another port",
    );
    assertEquals(
      verdict(pair, second, 6000, address, PORT + 0x100),
      MAC_STATE.VALID_WITHOUT_COOKIE,
      "another port",
    );
    for (let i = 0; i < address.length; i++) {
      const other = [...address];
      other[i] ^= 1;
      assertEquals(
        verdict(pair, second, 6000, other),
        MAC_STATE.VALID_WITHOUT_COOKIE,
        "another address",
      );
    }
    for (let offset = INITIATION.mac2; offset < INITIATION.end; offset++) {
      assertEquals(
        verdict(pair, tampered(second, offset), 6000, address),
        MAC_STATE.VALID_WITHOUT_COOKIE,
      );
    }
    // Without load mac2 is not looked at.
    assertEquals(
      b.macState(second, b.source(address, PORT), false, 6000),
      MAC_STATE.VALID_WITHOUT_COOKIE,
    );
  });

  Deno.test(`the cookie of an ${family} source is a mac over address and big-endian port`, () => {
    const pair = makePair(undefined, {}, {
      randomBytes: counted(),
    });
    const message = initiationOf(pair, 0);
    const reply = replyTo(pair, message, 0, address);
    const nonce = reply.slice(COOKIE_REPLY.nonce, COOKIE_REPLY.encryptedCookie);
    const mac1 = message.slice(INITIATION.mac1, INITIATION.mac2);
    const key = hash(encoder.encode("cookie--"), pair.b.publicKey);
    const cookie = xchacha20poly1305(key, nonce, mac1)
      .decrypt(reply.slice(COOKIE_REPLY.encryptedCookie));
    const secret = nonce[0] === 7 ? SECRET.map(() => 8) : SECRET;
    assertEquals(
      cookie.toHex(),
      mac(secret, new Uint8Array(address), new Uint8Array([0x12, 0x34]))
        .toHex(),
    );
    assertEquals(reply.slice(0, 4), new Uint8Array([3, 0, 0, 0]));
    assertEquals(
      reply.slice(4, 8),
      message.slice(INITIATION.sender, INITIATION.ephemeral),
    );
  });
}

Deno.test("a cookie reply is bound to the message that it answers", () => {
  const pair = makePair();
  const { a } = pair;
  const first = initiationOf(pair, 0);
  const reply = replyTo(pair, first, 0);
  // The index is still right, but another mac1 was sent last.
  const index = a.sessionField(pair.ab, SESSION.LOCAL_INDEX);
  const second = initiationOf(pair, 100);
  new DataView(reply.buffer).setUint32(
    COOKIE_REPLY.receiver,
    a.sessionField(pair.ab, SESSION.LOCAL_INDEX),
    true,
  );
  assertNotEquals(a.sessionField(pair.ab, SESSION.LOCAL_INDEX), index);
  assert(!a.cookies.consumeCookieReply(reply, 100));
  assert(a.cookies.consumeCookieReply(replyTo(pair, second, 100), 101));
});

Deno.test("a changed or foreign cookie reply is refused and changes nothing", () => {
  const pair = makePair();
  const { a, ab } = pair;
  const message = initiationOf(pair, 0);
  const reply = replyTo(pair, message, 0);
  const before = a.snapshot();
  for (let offset = COOKIE_REPLY.receiver; offset < reply.length; offset++) {
    assert(
      !a.cookies.consumeCookieReply(tampered(reply, offset), 0),
      `byte ${offset}`,
    );
  }
  // Sealed by a third device with its own key.
  const other = makePair();
  const foreign = new Uint8Array(COOKIE_REPLY.end);
  other.b.cookies.createCookieReply(
    foreign,
    message,
    other.b.source(V4, PORT),
    0,
  );
  assert(!a.cookies.consumeCookieReply(foreign, 0));
  assertEquals(a.snapshot(), before);
  assertEquals(a.sessionTime(ab, SESSION.COOKIE_BIRTH_F64), -Infinity);
  assert(a.cookies.consumeCookieReply(reply, 0));
});

Deno.test("one cookie reply for each message sent, and none if none was sent", () => {
  const pair = makePair();
  const { a, ab } = pair;
  const message = initiationOf(pair, 0);
  const reply = replyTo(pair, message, 0);
  assert(a.cookies.consumeCookieReply(reply, 50));
  const before = a.snapshot();
  assert(!a.cookies.consumeCookieReply(reply, 60), "the same again");
  assert(!a.cookies.consumeCookieReply(replyTo(pair, message, 60), 60));
  assertEquals(a.snapshot(), before);
  const quiet = makePair();
  const unsent = quiet.a.createInitiation(quiet.ab);
  assert(!quiet.a.cookies.consumeCookieReply(replyTo(quiet, unsent, 0), 0));
  assertEquals(a.sessionTime(ab, SESSION.COOKIE_BIRTH_F64), 50);
});

Deno.test("a cookie reply touches the cookie and nothing else", () => {
  const pair = makePair();
  const { a, ab } = pair;
  const reply = replyTo(pair, initiationOf(pair, 0), 0);
  const at = a.arena.session(a.session(ab));
  const peerAt = a.arena.peer(ab);
  const session = a.arena.u32.slice(at, at + SESSION.WORDS);
  const peer = a.arena.u32.slice(peerAt, peerAt + 84);
  assert(a.cookies.consumeCookieReply(reply, 77));
  const changed: number[] = [];
  session.forEach((word, i) => {
    if (a.arena.u32[at + i] !== word) changed.push(i);
  });
  for (const field of changed) {
    assert(
      field === SESSION.HAVE_SENT_MAC1 ||
        field >= SESSION.COOKIE && field < SESSION.COOKIE_BIRTH_F64 + 2,
      `word ${field}`,
    );
  }
  assertEquals(a.arena.u32.slice(peerAt, peerAt + 84), peer);
});

Deno.test("the index of a keypair that took the handshake's over is good as well", () => {
  const pair = makePair();
  const { a, b, ba } = pair;
  const [, atB] = shakeHands(pair, 0);
  // b's response was the message that a, under load, answers with a cookie.
  const at = b.arena.session(b.session(ba));
  const mac1 = b.arena.bytes(at + SESSION.LAST_MAC1, 16).slice();
  const response = new Uint8Array(RESPONSE.end);
  new DataView(response.buffer).setUint32(
    RESPONSE.sender,
    b.keypairField(atB, KEYPAIR.LOCAL_INDEX),
    true,
  );
  response.set(mac1, RESPONSE.mac1);
  const reply = new Uint8Array(COOKIE_REPLY.end);
  assert(
    a.cookies.createCookieReply(reply, response, a.source(V4, PORT), 0),
  );
  assert(b.cookies.consumeCookieReply(reply, 10));
  assertEquals(b.sessionTime(ba, SESSION.COOKIE_BIRTH_F64), 10);
});

Deno.test("a cookie is sent until it is 115 seconds old", () => {
  const pair = makePair();
  const { a } = pair;
  const reply = replyTo(pair, initiationOf(pair, 0), 0);
  assert(a.cookies.consumeCookieReply(reply, 1000));
  const mac2 = (nowMs: number): string =>
    initiationOf(pair, nowMs).slice(INITIATION.mac2).toHex();
  assertNotEquals(mac2(1000), "00".repeat(16));
  assertNotEquals(mac2(115_999), "00".repeat(16));
  assertEquals(mac2(116_000), "00".repeat(16));
  // Also over an older mac2 in the same buffer.
  const message = initiationOf(pair, 1000);
  a.cookies.addMacs(message, pair.ab, 116_000);
  assertEquals(message.slice(INITIATION.mac2).toHex(), "00".repeat(16));
});

Deno.test("the secret is replaced when it is 120 seconds old, with no overlap", () => {
  const pair = makePair();
  const { a } = pair;
  const first = initiationOf(pair, 5000);
  assert(a.cookies.consumeCookieReply(replyTo(pair, first, 5000), 60_000));
  const message = initiationOf(pair, 124_999);
  assertEquals(
    verdict(pair, message, 124_999),
    MAC_STATE.VALID_WITH_COOKIE,
  );
  assertEquals(
    verdict(pair, message, 125_000),
    MAC_STATE.VALID_WITHOUT_COOKIE,
  );
  // The new secret lives as long from when it was made.
  const again = initiationOf(pair, 125_000);
  assert(a.cookies.consumeCookieReply(replyTo(pair, again, 125_001), 125_002));
  const next = initiationOf(pair, 200_000);
  assertEquals(verdict(pair, next, 200_000), MAC_STATE.VALID_WITH_COOKIE);
});

Deno.test("each cookie reply has a nonce of its own", () => {
  const pair = makePair();
  const message = initiationOf(pair, 0);
  const nonce = (reply: Uint8Array): string =>
    reply.slice(COOKIE_REPLY.nonce, COOKIE_REPLY.encryptedCookie).toHex();
  assertNotEquals(
    nonce(replyTo(pair, message, 0)),
    nonce(replyTo(pair, message, 0)),
  );
});

Deno.test("a released session forgets its cookie", () => {
  const pair = makePair();
  const { a, ab } = pair;
  const reply = replyTo(pair, initiationOf(pair, 0), 0);
  assert(a.cookies.consumeCookieReply(reply, 0));
  const at = a.arena.session(a.session(ab)) + SESSION.COOKIE;
  assertNotEquals(a.arena.bytes(at, 16).toHex(), "00".repeat(16));
  a.sessions.releaseSession(ab);
  assertEquals(a.arena.bytes(at, 16).toHex(), "00".repeat(16));
  assertEquals(
    initiationOf(pair, 1).slice(INITIATION.mac2).toHex(),
    "00".repeat(16),
  );
});
