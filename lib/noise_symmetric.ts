/**
 * The running state of one Noise handshake while a message is made or read: the
 * SymmetricState of the Noise specification (§5.2), the `mix_*` and `message_*`
 * helpers of the kernel's `noise.c`, whitepaper 5.4. It lives for one call, on
 * copies; the caller keeps or forgets the result.
 *
 * Every array made here is wiped when it is replaced and by `wipe`. What no
 * program in JavaScript can wipe: the numbers inside the primitives, and copies
 * that the garbage collector leaves behind when it moves a small array.
 *
 * @module
 */
import { wipe } from "./crypto/bytes.ts";
import { hash, kdf1, kdf2, kdf3 } from "./crypto/blake2s.ts";
import { aeadDecrypt, aeadEncrypt } from "./crypto/chacha.ts";
import { sharedSecret } from "./crypto/x25519.ts";

const encoder = new TextEncoder();

/** Name of the Noise protocol, whitepaper 5.4. */
export const CONSTRUCTION = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";
/** Prologue of every handshake, whitepaper 5.4. */
export const IDENTIFIER = "WireGuard v1 zx2c4 Jason@zx2c4.com";

/** HASH(CONSTRUCTION). */
export const INITIAL_CHAINING_KEY: Uint8Array = hash(
  encoder.encode(CONSTRUCTION),
);
/** HASH(chaining key || IDENTIFIER). */
export const INITIAL_HASH: Uint8Array = hash(
  INITIAL_CHAINING_KEY,
  encoder.encode(IDENTIFIER),
);

/** Each key of a handshake seals one message only, so its nonce is always 0. */
const NONCE = 0n;

/** Chaining key, hash and current key of a handshake in progress. */
export class SymmetricState {
  #chainingKey: Uint8Array;
  #hash: Uint8Array;
  #key: Uint8Array = new Uint8Array(0);

  /** Takes copies of what a handshake was left with after its last message. */
  constructor(chainingKey: Uint8Array, hash: Uint8Array) {
    this.#chainingKey = chainingKey.slice();
    this.#hash = hash.slice();
  }

  /** State before the first message to the owner of `responderStatic`. */
  static initial(responderStatic: Uint8Array): SymmetricState {
    const state = new SymmetricState(INITIAL_CHAINING_KEY, INITIAL_HASH);
    state.mixHash(responderStatic);
    return state;
  }

  /** Chaining key so far; wiped with the state. */
  get chainingKey(): Uint8Array {
    return this.#chainingKey;
  }

  /** Hash so far; wiped with the state. */
  get hash(): Uint8Array {
    return this.#hash;
  }

  /** Noise MixHash. */
  mixHash(data: Uint8Array): void {
    const previous = this.#hash;
    this.#hash = hash(previous, data);
    wipe(previous);
  }

  /** Noise token "e": the sender's ephemeral, which psk handshakes mix twice. */
  mixEphemeral(ephemeralPublic: Uint8Array): void {
    this.mixHash(ephemeralPublic);
    this.#setChainingKey(kdf1(this.#chainingKey, ephemeralPublic));
  }

  /** Noise MixKey with a shared secret computed before; whoever gave it wipes it. */
  mixSecret(secret: Uint8Array): void {
    const [chainingKey, key] = kdf2(this.#chainingKey, secret);
    this.#setChainingKey(chainingKey);
    this.#setKey(key);
  }

  /** Noise MixKey(DH(…)); false, and nothing mixed, for a low-order point. */
  mixDh(privateKey: Uint8Array, publicKey: Uint8Array): boolean {
    const secret = sharedSecret(privateKey, publicKey);
    if (secret === null) return false;
    this.mixSecret(secret);
    wipe(secret);
    return true;
  }

  /** Noise MixKeyAndHash: token "psk". */
  mixPresharedKey(presharedKey: Uint8Array): void {
    const [chainingKey, tau, key] = kdf3(this.#chainingKey, presharedKey);
    this.#setChainingKey(chainingKey);
    this.#setKey(key);
    this.mixHash(tau);
    wipe(tau);
  }

  /** Noise EncryptAndHash into `dst` at `offset`: plaintext and tag. */
  encryptAndHash(dst: Uint8Array, offset: number, plaintext: Uint8Array): void {
    const sealed = aeadEncrypt(this.#key, NONCE, plaintext, this.#hash);
    dst.set(sealed, offset);
    this.mixHash(sealed);
  }

  /** Noise DecryptAndHash; null, and nothing mixed, when `sealed` is not authentic. */
  decryptAndHash(sealed: Uint8Array): Uint8Array | null {
    const plaintext = aeadDecrypt(this.#key, NONCE, sealed, this.#hash);
    if (plaintext !== null) this.mixHash(sealed);
    return plaintext;
  }

  /** Forgets everything. */
  wipe(): void {
    wipe(this.#chainingKey, this.#hash, this.#key);
  }

  #setChainingKey(chainingKey: Uint8Array): void {
    wipe(this.#chainingKey);
    this.#chainingKey = chainingKey;
  }

  #setKey(key: Uint8Array): void {
    wipe(this.#key);
    this.#key = key;
  }
}
