/**
 * Message authentication codes and cookies of the handshake: the kernel's
 * `cookie.c`, whitepaper 5.3 and 5.4.4, reference §4. One side checks what comes
 * in (mac1, mac2) and answers with cookies when it is busy; the other adds the
 * codes to what goes out and keeps the cookies it was given.
 *
 * Control alone calls this. The far side's cookies live in SESSION records, the
 * own secret in this object, where no data worker sees it.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { bug } from "./assert.ts";
import { hash, isMac16, mac16 } from "./crypto/blake2s.ts";
import { randomBytes, wipe } from "./crypto/bytes.ts";
import { xaeadDecrypt } from "./crypto/chacha.ts";
import { sealCookie } from "./crypto/cookie_seal.ts";
import { isMapped } from "./endpoint.ts";
import {
  COOKIE_LEN,
  COOKIE_NONCE_LEN,
  COOKIE_REPLY,
  COOKIE_SECRET_LATENCY_MS,
  COOKIE_SECRET_MAX_AGE_MS,
  HASH_LEN,
  INITIATION,
  MAC_LEN,
  MESSAGE_COOKIE_REPLY,
  PUBLIC_KEY_LEN,
} from "./messages.ts";
import type { IndexTable } from "./peerlookup.ts";
import { ENDPOINT, PEER, SESSION } from "./records.ts";

const encoder = new TextEncoder();
/** Label of the key of mac1, whitepaper 5.4.4. */
export const LABEL_MAC1 = "mac1----";
/** Label of the key of cookie replies, whitepaper 5.4.7. */
export const LABEL_COOKIE = "cookie--";
const labelMac1 = encoder.encode(LABEL_MAC1);
const labelCookie = encoder.encode(LABEL_COOKIE);

/** Age at which a cookie is not sent any more: the far side may drop it on the way. */
const COOKIE_MAX_AGE_MS = COOKIE_SECRET_MAX_AGE_MS - COOKIE_SECRET_LATENCY_MS;

/** Bytes of an IPv4-mapped address before the IPv4 address. */
const MAPPED_PREFIX_LEN = 12;
/** Offset of the big-endian port in a `sockaddr_in6`, after the family. */
const SOCKADDR_PORT = 2;
const ADDRESS_LEN = 16;
const PORT_LEN = 2;

/** Nonces of cookie replies that are made together. */
const NONCES_AT_ONCE = 64;

/** What {@link Cookies} works on. */
export interface CookiesOptions {
  readonly arena: Arena;
  readonly indices: Pick<IndexTable, "findByIndexForCookie">;
  /** Source of secrets and nonces; the operating system's unless given. */
  readonly randomBytes?: (lengthBytes: number) => Uint8Array;
}

/** Both sides' codes and cookies of a device. */
export class Cookies {
  readonly #arena: Arena;
  readonly #indices: Pick<IndexTable, "findByIndexForCookie">;
  readonly #randomBytes: (lengthBytes: number) => Uint8Array;
  #secret: Uint8Array = new Uint8Array(HASH_LEN);
  #secretBirthMs = -Infinity;
  /** Nonces for replies, and how many of them are used. */
  readonly #nonces: Uint8Array[] = [];
  #noncesUsed = NONCES_AT_ONCE;
  /** Address and port that a cookie is made of; those of IPv4 are its end. */
  readonly #source = new Uint8Array(ADDRESS_LEN + PORT_LEN);
  readonly #source4 = this.#source.subarray(MAPPED_PREFIX_LEN);
  #mac1Key: Uint8Array | null = null;
  #cookieKey: Uint8Array | null = null;

  constructor(options: CookiesOptions) {
    this.#arena = options.arena;
    this.#indices = options.indices;
    this.#randomBytes = options.randomBytes ?? randomBytes;
  }

  /** Called whenever the device's public key changes; null: it has none. */
  setStaticIdentity(publicKey: Uint8Array | null): void {
    this.#mac1Key = publicKey && hash(labelMac1, publicKey);
    this.#cookieKey = publicKey && hash(labelCookie, publicKey);
  }

  /**
   * Whether who sent this initiation or response, of the right length, knows our
   * public key; else it is dropped.
   */
  hasValidMac1(message: Uint8Array): boolean {
    if (this.#mac1Key === null) return false;
    return isMac16(this.#mac1Key, message, mac1Offset(message));
  }

  /**
   * Whether it receives at the address that it sends from. Looked at only under
   * load.
   *
   * @param endpointWord ENDPOINT block that it came from
   */
  hasValidMac2(
    message: Uint8Array,
    endpointWord: number,
    nowMs: number,
  ): boolean {
    // In a flood most have no cookie: none is made to compare with zeros.
    if (!hasMac2(message)) return false;
    const cookie = this.#makeCookie(endpointWord, nowMs);
    const isValid = isMac16(cookie, message, mac1Offset(message) + MAC_LEN);
    wipe(cookie);
    return isValid;
  }

  /**
   * Writes the reply to a message whose mac1 is valid and that shall prove its
   * source address: the message's mac1 is its authenticated data, so only who
   * saw the message can use it.
   *
   * @param dst 64 bytes
   * @returns false when the device has no identity
   */
  createCookieReply(
    dst: Uint8Array,
    message: Uint8Array,
    endpointWord: number,
    nowMs: number,
  ): boolean {
    bug(dst.length === COOKIE_REPLY.end, "a cookie reply is 64 bytes");
    if (this.#cookieKey === null) return false;
    const mac1At = mac1Offset(message);
    const mac1 = message.subarray(mac1At, mac1At + MAC_LEN);
    const nonce = this.#nextNonce();
    const cookie = this.#makeCookie(endpointWord, nowMs);
    const sealed = sealCookie(this.#cookieKey, nonce, cookie, mac1);
    wipe(cookie);
    dst.fill(0, 0, COOKIE_REPLY.receiver);
    dst[COOKIE_REPLY.header] = MESSAGE_COOKIE_REPLY;
    dst.set(
      message.subarray(INITIATION.sender, INITIATION.ephemeral),
      COOKIE_REPLY.receiver,
    );
    dst.set(nonce, COOKIE_REPLY.nonce);
    dst.set(sealed, COOKIE_REPLY.encryptedCookie);
    return true;
  }

  /** A nonce that was not used yet. */
  #nextNonce(): Uint8Array {
    if (this.#noncesUsed === NONCES_AT_ONCE) {
      const random = this.#randomBytes(NONCES_AT_ONCE * COOKIE_NONCE_LEN);
      for (let i = 0; i < NONCES_AT_ONCE; i++) {
        const at = i * COOKIE_NONCE_LEN;
        this.#nonces[i] = random.subarray(at, at + COOKIE_NONCE_LEN);
      }
      this.#noncesUsed = 0;
    }
    return this.#nonces[this.#noncesUsed++];
  }

  /**
   * Fills the codes of a finished initiation or response to `peer`, which has a
   * session record: mac1, and mac2 while there is a fresh cookie.
   */
  addMacs(message: Uint8Array, peer: number, nowMs: number): void {
    const arena = this.#arena;
    const peerWord = arena.peer(peer);
    const session = arena.u32[peerWord + PEER.SESSION];
    bug(session !== 0, "who sends a handshake message has a session");
    const at = arena.session(session);
    const mac1At = mac1Offset(message);
    const mac2At = mac1At + MAC_LEN;
    const mac1 = mac16(
      hash(labelMac1, this.#publicKey(peerWord)),
      message.subarray(0, mac1At),
    );
    message.set(mac1, mac1At);
    arena.u8.set(mac1, (at + SESSION.LAST_MAC1) * 4);
    arena.u32[at + SESSION.HAVE_SENT_MAC1] = 1;
    const birthMs = arena.getF64(at + SESSION.COOKIE_BIRTH_F64);
    if (birthMs + COOKIE_MAX_AGE_MS > nowMs) {
      const cookie = arena.bytes(at + SESSION.COOKIE, COOKIE_LEN).slice();
      message.set(mac16(cookie, message.subarray(0, mac2At)), mac2At);
      wipe(cookie);
    } else {
      message.fill(0, mac2At);
    }
  }

  /**
   * Keeps the cookie of a reply to the last message sent, once for each message.
   * Nothing goes out because of it, and it counts for nothing else: anyone who
   * sees our messages can make one.
   *
   * @returns whether it was authentic
   */
  consumeCookieReply(message: Uint8Array, nowMs: number): boolean {
    const arena = this.#arena;
    const view = new DataView(message.buffer, message.byteOffset);
    const peer = this.#indices.findByIndexForCookie(
      view.getUint32(COOKIE_REPLY.receiver, true),
    );
    if (peer === 0) return false;
    const session = arena.u32[arena.peer(peer) + PEER.SESSION];
    if (session === 0) return false;
    const at = arena.session(session);
    if (arena.u32[at + SESSION.HAVE_SENT_MAC1] === 0) return false;
    const cookie = xaeadDecrypt(
      hash(labelCookie, this.#publicKey(arena.peer(peer))),
      message.slice(COOKIE_REPLY.nonce, COOKIE_REPLY.encryptedCookie),
      message.slice(COOKIE_REPLY.encryptedCookie),
      arena.bytes(at + SESSION.LAST_MAC1, MAC_LEN).slice(),
    );
    if (cookie === null) return false;
    arena.u8.set(cookie, (at + SESSION.COOKIE) * 4);
    wipe(cookie);
    arena.setF64(at + SESSION.COOKIE_BIRTH_F64, nowMs);
    arena.u32[at + SESSION.HAVE_SENT_MAC1] = 0;
    return true;
  }

  #publicKey(peerWord: number): Uint8Array {
    return this.#arena.bytes(peerWord + PEER.PUBLIC_KEY, PUBLIC_KEY_LEN)
      .slice();
  }

  /** Cookie of a source address and port, whitepaper 5.4.7. */
  #makeCookie(endpointWord: number, nowMs: number): Uint8Array {
    const arena = this.#arena;
    if (this.#secretBirthMs + COOKIE_SECRET_MAX_AGE_MS <= nowMs) {
      wipe(this.#secret);
      this.#secret = this.#randomBytes(HASH_LEN);
      this.#secretBirthMs = nowMs;
    }
    const mapped = isMapped(arena, endpointWord + ENDPOINT.ADDRESS);
    const address = (endpointWord + ENDPOINT.ADDRESS) * 4;
    const port = (endpointWord + ENDPOINT.SOCKADDR) * 4 + SOCKADDR_PORT;
    const source = this.#source;
    for (let i = 0; i < ADDRESS_LEN; i++) source[i] = arena.u8[address + i];
    for (let i = 0; i < PORT_LEN; i++) {
      source[ADDRESS_LEN + i] = arena.u8[port + i];
    }
    return mac16(this.#secret, mapped ? this.#source4 : source);
  }
}

/** Whether an initiation or response has anything where its mac2 goes. */
export function hasMac2(message: Uint8Array): boolean {
  for (let i = message.length - MAC_LEN; i < message.length; i++) {
    if (message[i] !== 0) return true;
  }
  return false;
}

/** Offset of mac1: both messages end with mac1 and mac2. */
function mac1Offset(message: Uint8Array): number {
  return message.length - 2 * MAC_LEN;
}
