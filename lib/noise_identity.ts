/**
 * The device's own static keys, and the product of its private key with each
 * peer's public key: the kernel's `noise_static_identity` and
 * `wg_noise_precompute_static_static`. Unlike the kernel this computes a product
 * when it is first needed, so that loading half a million peers costs none.
 *
 * The private key stays out of the arena: no data worker sees it.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { constantTimeEqual, wipe } from "./crypto/bytes.ts";
import { clamp, publicKey, sharedSecret } from "./crypto/x25519.ts";
import {
  PRIVATE_KEY_LEN,
  PUBLIC_KEY_LEN,
  SYMMETRIC_KEY_LEN,
} from "./messages.ts";
import {
  PEER,
  PEER_FLAG_IDENTITY,
  PEER_FLAG_LOW_ORDER,
  PEER_FLAG_STATIC_STATIC,
} from "./records.ts";

/** Static keys of one device. Control only. */
export class StaticIdentity {
  readonly #arena: Arena;
  /** Where the private key is kept. */
  readonly #room: Uint8Array;
  #privateKey: Uint8Array | null = null;
  #publicKey: Uint8Array | null = null;
  /** What PEER_FLAG_IDENTITY is for peers that know of the present keys. */
  #flag = 0;

  /** @param room 32 bytes for the private key: memory that is not swapped out */
  constructor(arena: Arena, room?: Uint8Array) {
    this.#arena = arena;
    this.#room = room ?? new Uint8Array(PRIVATE_KEY_LEN);
  }

  /** Private key, clamped, or null. Not a copy. */
  get privateKey(): Uint8Array | null {
    return this.#privateKey;
  }

  /** Public key, or null. Not a copy. */
  get publicKey(): Uint8Array | null {
    return this.#publicKey;
  }

  /** Whether `key`, clamped or not, is the present private key; null: none. */
  isPrivateKey(key: Uint8Array | null): boolean {
    if (key === null || this.#privateKey === null) {
      return key === this.#privateKey;
    }
    const clamped = clamp(key.slice());
    const same = constantTimeEqual(clamped, this.#privateKey);
    wipe(clamped);
    return same;
  }

  /**
   * Changes the keys; the caller calls `forgetStaticStatic` for each peer, by and
   * by, but before a peer's next handshake and before the next change.
   */
  set(privateKey: Uint8Array | null): void {
    this.#flag ^= PEER_FLAG_IDENTITY;
    if (privateKey === null) {
      this.#privateKey = this.#publicKey = null;
      return wipe(this.#room);
    }
    this.#room.set(privateKey);
    this.#privateKey = clamp(this.#room);
    this.#publicKey = publicKey(this.#privateKey);
  }

  /** Whether the peer may have keys that were derived from a private key before. */
  outdated(peer: number): boolean {
    const flags = this.#arena.u32[this.#arena.peer(peer) + PEER.FLAGS];
    return (flags & PEER_FLAG_IDENTITY) !== this.#flag;
  }

  /** Wipes what was derived from the peer's public key and the private key before. */
  forgetStaticStatic(peer: number): void {
    const at = this.#arena.peer(peer);
    const flags = this.#arena.u32[at + PEER.FLAGS] & ~(PEER_FLAG_STATIC_STATIC |
      PEER_FLAG_LOW_ORDER | PEER_FLAG_IDENTITY);
    this.#arena.u32[at + PEER.FLAGS] = flags | this.#flag;
    this.#arena.zero(at + PEER.STATIC_STATIC, SYMMETRIC_KEY_LEN / 4);
  }

  /**
   * DH(own static, the peer's) as a copy that the caller wipes, or null for a
   * low-order point or without an identity.
   */
  staticStatic(peer: number): Uint8Array | null {
    const arena = this.#arena;
    const at = arena.peer(peer);
    const flags = arena.u32[at + PEER.FLAGS];
    if (this.#privateKey === null || (flags & PEER_FLAG_LOW_ORDER) !== 0) {
      return null;
    }
    if ((flags & PEER_FLAG_STATIC_STATIC) !== 0) {
      return arena.bytes(at + PEER.STATIC_STATIC, SYMMETRIC_KEY_LEN).slice();
    }
    const secret = sharedSecret(
      this.#privateKey,
      arena.bytes(at + PEER.PUBLIC_KEY, PUBLIC_KEY_LEN).slice(),
    );
    if (secret === null) {
      arena.u32[at + PEER.FLAGS] = flags | PEER_FLAG_LOW_ORDER;
      return null;
    }
    arena.u8.set(secret, (at + PEER.STATIC_STATIC) * 4);
    arena.u32[at + PEER.FLAGS] = flags | PEER_FLAG_STATIC_STATIC;
    return secret;
  }
}
