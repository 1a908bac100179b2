/**
 * The handshake: Noise_IKpsk2 as WireGuard uses it. Mirrors the kernel's
 * `noise.c`; whitepaper 5.4.2 to 5.4.5, reference §3. Bytes in, bytes out: clock,
 * ephemeral keys, tables and pools are passed in, and the codes at the end of a
 * message are lib/cookie's.
 *
 * Control alone calls this. The handshake of a peer lives in its SESSION record,
 * which it gets when it first needs one. A message that is refused leaves every
 * record as it was. Secrets in records and arrays are wiped when they are dead;
 * lib/noise_symmetric says what cannot be.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { bug } from "./assert.ts";
import { kdf2 } from "./crypto/blake2s.ts";
import { wipe } from "./crypto/bytes.ts";
import { generatePrivateKey, publicKey } from "./crypto/x25519.ts";
import type { Keypairs } from "./keypairs.ts";
import {
  INITIATION,
  MESSAGE_INITIATION,
  MESSAGE_RESPONSE,
  RESPONSE,
  TIMESTAMP_LEN,
} from "./messages.ts";
import { StaticIdentity } from "./noise_identity.ts";
import { NOISE_REASON, type NoiseReason } from "./noise_reason.ts";
import type { Sessions } from "./noise_sessions.ts";
import { SymmetricState } from "./noise_symmetric.ts";
import type { IndexTable, PublicKeyTable } from "./peerlookup.ts";
import {
  HANDSHAKE_CONSUMED_INITIATION,
  HANDSHAKE_CONSUMED_RESPONSE,
  HANDSHAKE_CREATED_INITIATION,
  HANDSHAKE_CREATED_RESPONSE,
  PEER,
  SESSION,
} from "./records.ts";
import { compare, stamp } from "./tai64n.ts";

const EMPTY = new Uint8Array(0);

/** What {@link Noise} works on. */
export interface NoiseOptions {
  readonly arena: Arena;
  readonly sessions: Sessions;
  readonly indices: Pick<
    IndexTable,
    "insertSession" | "replaceWithKeypair" | "findSession"
  >;
  readonly publicKeys: Pick<PublicKeyTable, "find">;
  readonly keypairs: Keypairs;
  /** Source of ephemeral keys; the operating system's unless given. */
  readonly generatePrivateKey?: () => Uint8Array;
  /** 32 bytes where the own private key is kept. */
  readonly privateKeyRoom?: Uint8Array;
}

/** The handshakes of a device's peers. */
export class Noise {
  /** The device's own keys; changed by `setStaticIdentity` alone. */
  readonly identity: StaticIdentity;
  readonly #arena: Arena;
  readonly #options: NoiseOptions;
  readonly #sessions: Sessions;
  readonly #generatePrivateKey: () => Uint8Array;
  #reason: NoiseReason = NOISE_REASON.OK;

  constructor(options: NoiseOptions) {
    this.#arena = options.arena;
    this.#options = options;
    this.#sessions = options.sessions;
    this.identity = new StaticIdentity(options.arena, options.privateKeyRoom);
    this.#generatePrivateKey = options.generatePrivateKey ?? generatePrivateKey;
  }

  /** Outcome of the last handshake function called. */
  get reason(): NoiseReason {
    return this.#reason;
  }

  /**
   * Changes the private key, or forgets it (null). The caller has removed a peer
   * with the new public key before, tells lib/cookie, and calls
   * `followIdentity` for each peer before the next change.
   */
  setStaticIdentity(privateKey: Uint8Array | null): void {
    this.identity.set(privateKey);
  }

  /**
   * Forgets what the peer derived from a private key before the present one: see
   * `expireCurrentPeerKeypairs`. Handshakes do it, too, when they come first.
   */
  followIdentity(peer: number): void {
    if (!this.identity.outdated(peer)) return;
    this.identity.forgetStaticStatic(peer);
    this.expireCurrentPeerKeypairs(peer);
  }

  /**
   * Ends the peer's handshake and sending with its keys, so that a new handshake
   * may start at once; what comes in on the old keys is still read.
   */
  expireCurrentPeerKeypairs(peer: number): void {
    const session = this.#sessions.sessionOf(peer, false);
    if (session !== 0) {
      this.#sessions.handshakeClear(peer);
      const at = this.#arena.session(session);
      this.#arena.setF64(at + SESSION.LAST_SENT_HANDSHAKE_F64, -Infinity);
    }
    this.#options.keypairs.expireCurrent(peer);
  }

  /**
   * Writes an initiation to `peer` into `dst` (148 bytes), all but the codes;
   * whitepaper 5.4.2. Replaces whatever handshake the peer had.
   *
   * @returns false when there is no identity, no room, or no way to reach the key
   */
  handshakeCreateInitiation(
    peer: number,
    dst: Uint8Array,
    wallMs: number,
  ): boolean {
    bug(dst.length === INITIATION.end, "an initiation is 148 bytes");
    const ownStatic = this.identity.publicKey;
    if (ownStatic === null) return this.#fail(NOISE_REASON.NO_IDENTITY);
    this.followIdentity(peer);
    const staticStatic = this.identity.staticStatic(peer);
    if (staticStatic === null) return this.#fail(NOISE_REASON.LOW_ORDER);
    const session = this.#sessions.sessionOf(peer, true);
    if (session === 0) {
      wipe(staticStatic);
      return this.#fail(NOISE_REASON.NO_ROOM);
    }
    const remoteStatic = this.#field(this.#arena.peer(peer) + PEER.PUBLIC_KEY);
    const ephemeral = this.#generatePrivateKey();
    const noise = SymmetricState.initial(remoteStatic);
    try {
      const ephemeralPublic = publicKey(ephemeral);
      noise.mixEphemeral(ephemeralPublic);
      if (!noise.mixDh(ephemeral, remoteStatic)) {
        return this.#fail(NOISE_REASON.LOW_ORDER);
      }
      dst.fill(0);
      dst[INITIATION.header] = MESSAGE_INITIATION;
      dst.set(ephemeralPublic, INITIATION.ephemeral);
      noise.encryptAndHash(dst, INITIATION.encryptedStatic, ownStatic);
      noise.mixSecret(staticStatic);
      noise.encryptAndHash(dst, INITIATION.encryptedTimestamp, stamp(wallMs));
      this.#sessions.save(session, HANDSHAKE_CREATED_INITIATION, noise);
      this.#setField(session, SESSION.EPHEMERAL_PRIVATE, ephemeral);
      this.#newIndex(session, dst, INITIATION.sender);
      this.#reason = NOISE_REASON.OK;
      return true;
    } finally {
      wipe(staticStatic, ephemeral);
      noise.wipe();
    }
  }

  /**
   * Reads an initiation whose mac1 is valid; whitepaper 5.4.2. What the peer's
   * handshake was at, even an own initiation, gives way to it.
   *
   * @returns the peer, whose next step is `handshakeCreateResponse`, or 0
   */
  handshakeConsumeInitiation(message: Uint8Array, nowMs: number): number {
    const arena = this.#arena;
    const ownPrivate = this.identity.privateKey;
    const ownStatic = this.identity.publicKey;
    if (ownPrivate === null || ownStatic === null) {
      return this.#refuse(NOISE_REASON.NO_IDENTITY);
    }
    const noise = SymmetricState.initial(ownStatic);
    try {
      const ephemeral = message.slice(
        INITIATION.ephemeral,
        INITIATION.encryptedStatic,
      );
      noise.mixEphemeral(ephemeral);
      if (!noise.mixDh(ownPrivate, ephemeral)) {
        return this.#refuse(NOISE_REASON.LOW_ORDER);
      }
      const remoteStatic = noise.decryptAndHash(
        message.slice(
          INITIATION.encryptedStatic,
          INITIATION.encryptedTimestamp,
        ),
      );
      if (remoteStatic === null) {
        return this.#refuse(NOISE_REASON.NOT_AUTHENTIC);
      }
      const peer = this.#options.publicKeys.find(remoteStatic);
      if (peer === 0) return this.#refuse(NOISE_REASON.UNKNOWN_PEER);
      this.followIdentity(peer);
      const staticStatic = this.identity.staticStatic(peer);
      if (staticStatic === null) return this.#refuse(NOISE_REASON.LOW_ORDER);
      noise.mixSecret(staticStatic);
      wipe(staticStatic);
      const timestamp = noise.decryptAndHash(
        message.slice(INITIATION.encryptedTimestamp, INITIATION.mac1),
      );
      if (timestamp === null) return this.#refuse(NOISE_REASON.NOT_AUTHENTIC);

      const latest = arena.bytes(
        arena.peer(peer) + PEER.LATEST_TIMESTAMP,
        TIMESTAMP_LEN,
      );
      if (compare(timestamp, latest) <= 0) {
        return this.#refuse(NOISE_REASON.REPLAYED);
      }
      let session = this.#sessions.sessionOf(peer, false);
      if (session !== 0 && this.#sessions.flooded(session, nowMs)) {
        return this.#refuse(NOISE_REASON.FLOODED);
      }
      // Only now: strangers cannot make us use up the pool.
      session = this.#sessions.sessionOf(peer, true);
      if (session === 0) return this.#refuse(NOISE_REASON.NO_ROOM);
      latest.set(timestamp);
      this.#sessions.save(session, HANDSHAKE_CONSUMED_INITIATION, noise);
      this.#setField(session, SESSION.REMOTE_EPHEMERAL, ephemeral);
      const word = arena.session(session);
      arena.u32[word + SESSION.REMOTE_INDEX] = readIndex(
        message,
        INITIATION.sender,
      );
      arena.setF64(word + SESSION.LAST_INITIATION_CONSUMPTION_F64, nowMs);
      this.#reason = NOISE_REASON.OK;
      return peer;
    } finally {
      noise.wipe();
    }
  }

  /**
   * Writes the response to the initiation that was consumed last into `dst`
   * (92 bytes), all but the codes; whitepaper 5.4.3.
   */
  handshakeCreateResponse(peer: number, dst: Uint8Array): boolean {
    bug(dst.length === RESPONSE.end, "a response is 92 bytes");
    const arena = this.#arena;
    const session = this.#sessions.sessionOf(peer, false);
    const at = arena.session(session);
    if (
      session === 0 ||
      arena.u32[at + SESSION.STATE] !== HANDSHAKE_CONSUMED_INITIATION
    ) {
      return this.#fail(NOISE_REASON.WRONG_STATE);
    }
    const peerAt = arena.peer(peer);
    const presharedKey = this.#field(peerAt + PEER.PRESHARED_KEY);
    const ephemeral = this.#generatePrivateKey();
    const noise = this.#sessions.load(session);
    try {
      const ephemeralPublic = publicKey(ephemeral);
      noise.mixEphemeral(ephemeralPublic);
      if (
        !noise.mixDh(ephemeral, this.#field(at + SESSION.REMOTE_EPHEMERAL)) ||
        !noise.mixDh(ephemeral, this.#field(peerAt + PEER.PUBLIC_KEY))
      ) {
        return this.#fail(NOISE_REASON.LOW_ORDER);
      }
      noise.mixPresharedKey(presharedKey);
      dst.fill(0);
      dst[RESPONSE.header] = MESSAGE_RESPONSE;
      dst.set(ephemeralPublic, RESPONSE.ephemeral);
      noise.encryptAndHash(dst, RESPONSE.encryptedNothing, EMPTY);
      writeIndex(
        dst,
        RESPONSE.receiver,
        arena.u32[at + SESSION.REMOTE_INDEX],
      );
      this.#sessions.save(session, HANDSHAKE_CREATED_RESPONSE, noise);
      this.#newIndex(session, dst, RESPONSE.sender);
      this.#reason = NOISE_REASON.OK;
      return true;
    } finally {
      wipe(presharedKey, ephemeral);
      noise.wipe();
    }
  }

  /**
   * Reads a response whose mac1 is valid; whitepaper 5.4.3.
   *
   * @returns the peer, whose next step is `handshakeBeginSession`, or 0
   */
  handshakeConsumeResponse(message: Uint8Array): number {
    const arena = this.#arena;
    const ownPrivate = this.identity.privateKey;
    if (ownPrivate === null) return this.#refuse(NOISE_REASON.NO_IDENTITY);
    const index = readIndex(message, RESPONSE.receiver);
    const session = this.#options.indices.findSession(index);
    if (session === 0) return this.#refuse(NOISE_REASON.UNKNOWN_INDEX);
    if (!this.#sessions.awaitsResponse(session, index)) {
      return this.#refuse(NOISE_REASON.WRONG_STATE);
    }
    const at = arena.session(session);
    const peer = arena.u32[at + SESSION.PEER];
    const presharedKey = this.#field(arena.peer(peer) + PEER.PRESHARED_KEY);
    const ephemeralPrivate = this.#field(at + SESSION.EPHEMERAL_PRIVATE);
    const noise = this.#sessions.load(session);
    try {
      const ephemeral = message.slice(
        RESPONSE.ephemeral,
        RESPONSE.encryptedNothing,
      );
      noise.mixEphemeral(ephemeral);
      if (
        !noise.mixDh(ephemeralPrivate, ephemeral) ||
        !noise.mixDh(ownPrivate, ephemeral)
      ) {
        return this.#refuse(NOISE_REASON.LOW_ORDER);
      }
      noise.mixPresharedKey(presharedKey);
      const nothing = noise.decryptAndHash(
        message.slice(RESPONSE.encryptedNothing, RESPONSE.mac1),
      );
      if (nothing === null) return this.#refuse(NOISE_REASON.NOT_AUTHENTIC);
      // Again: once the products above are computed elsewhere, the handshake may
      // have moved on meanwhile.
      if (!this.#sessions.awaitsResponse(session, index)) {
        return this.#refuse(NOISE_REASON.WRONG_STATE);
      }
      this.#sessions.save(session, HANDSHAKE_CONSUMED_RESPONSE, noise);
      this.#setField(session, SESSION.REMOTE_EPHEMERAL, ephemeral);
      arena.u32[at + SESSION.REMOTE_INDEX] = readIndex(
        message,
        RESPONSE.sender,
      );
      this.#reason = NOISE_REASON.OK;
      return peer;
    } finally {
      wipe(presharedKey, ephemeralPrivate);
      noise.wipe();
    }
  }

  /**
   * Derives the transport keys after a response was created or consumed, puts
   * them into the peer's slots and wipes the handshake; whitepaper 5.4.5.
   *
   * @returns the new KEYPAIR, or 0
   */
  handshakeBeginSession(peer: number, nowMs: number): number {
    const arena = this.#arena;
    const { keypairs, indices } = this.#options;
    const session = this.#sessions.sessionOf(peer, false);
    const at = arena.session(session);
    const state = session && arena.u32[at + SESSION.STATE];
    const initiator = state === HANDSHAKE_CONSUMED_RESPONSE;
    if (!initiator && state !== HANDSHAKE_CREATED_RESPONSE) {
      return this.#refuse(NOISE_REASON.WRONG_STATE);
    }
    const chainingKey = this.#field(at + SESSION.CHAINING_KEY);
    const [first, second] = kdf2(chainingKey, EMPTY);
    const keypair = keypairs.create({
      peer,
      remoteIndex: arena.u32[at + SESSION.REMOTE_INDEX],
      initiator,
      sendKey: initiator ? first : second,
      receiveKey: initiator ? second : first,
      birthMs: nowMs,
    });
    wipe(chainingKey, first, second);
    if (keypair === 0) return this.#refuse(NOISE_REASON.NO_ROOM);
    this.#sessions.zeroHandshake(session);
    if (!indices.replaceWithKeypair(session, keypair)) {
      keypairs.discard(keypair);
      return this.#refuse(NOISE_REASON.UNKNOWN_INDEX);
    }
    keypairs.insert(keypair);
    this.#reason = NOISE_REASON.OK;
    return keypair;
  }

  /** Draws the session's new index and writes it into the message. */
  #newIndex(session: number, dst: Uint8Array, offset: number): void {
    writeIndex(dst, offset, this.#options.indices.insertSession(session));
  }

  /** A private copy of a field of 32 bytes. */
  #field(word: number): Uint8Array {
    return this.#arena.bytes(word, 32).slice();
  }

  #setField(session: number, field: number, bytes: Uint8Array): void {
    this.#arena.u8.set(bytes, (this.#arena.session(session) + field) * 4);
  }

  #refuse(reason: NoiseReason): 0 {
    this.#reason = reason;
    return 0;
  }

  #fail(reason: NoiseReason): false {
    this.#reason = reason;
    return false;
  }
}

function writeIndex(message: Uint8Array, offset: number, index: number): void {
  new DataView(message.buffer, message.byteOffset)
    .setUint32(offset, index, true);
}

function readIndex(message: Uint8Array, offset: number): number {
  return new DataView(message.buffer, message.byteOffset)
    .getUint32(offset, true);
}
