/**
 * A second implementation of Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s, for tests:
 * straight from the Noise specification (revision 34, §5), over node:crypto, with
 * nothing of WireGuard and nothing of lib/ in it. noise_test.ts first holds it
 * against the cacophony vector, then wgd against it.
 */
import { Buffer } from "node:buffer";
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createPrivateKey,
  createPublicKey,
  diffieHellman,
} from "node:crypto";

const PKCS8 = fromHex("302e020100300506032b656e04220420");
const SPKI = fromHex("302a300506032b656e032100");
const PROTOCOL = "Noise_IKpsk2_25519_ChaChaPoly_BLAKE2s";

export function fromHex(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.fromHex(hex);
}

export function concat(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}

function privateKeyObject(
  key: Uint8Array,
): ReturnType<typeof createPrivateKey> {
  const der = concat(PKCS8, key);
  return createPrivateKey({
    key: Buffer.from(der),
    format: "der",
    type: "pkcs8",
  });
}

export function referencePublicKey(privateKey: Uint8Array): Uint8Array {
  const spki = createPublicKey(privateKeyObject(privateKey))
    .export({ format: "der", type: "spki" });
  return new Uint8Array(spki).slice(-32);
}

export function referenceDh(
  privateKey: Uint8Array,
  publicKey: Uint8Array,
): Uint8Array {
  const der = concat(SPKI, publicKey);
  return new Uint8Array(diffieHellman({
    privateKey: privateKeyObject(privateKey),
    publicKey: createPublicKey({
      key: Buffer.from(der),
      format: "der",
      type: "spki",
    }),
  }));
}

function hash(data: Uint8Array): Uint8Array {
  return new Uint8Array(createHash("blake2s256").update(data).digest());
}

function hmac(key: Uint8Array, data: Uint8Array): Uint8Array {
  return new Uint8Array(createHmac("blake2s256", key).update(data).digest());
}

function hkdf(
  chainingKey: Uint8Array,
  material: Uint8Array,
  outputs: number,
): Uint8Array[] {
  const temp = hmac(chainingKey, material);
  const results: Uint8Array[] = [];
  for (let i = 1; i <= outputs; i++) {
    const previous = results.at(-1) ?? new Uint8Array(0);
    results.push(hmac(temp, concat(previous, new Uint8Array([i]))));
  }
  return results;
}

/** Noise §5.1. */
export class CipherState {
  constructor(readonly key: Uint8Array, public nonce = 0n) {}

  #nonceBytes(): Uint8Array {
    const bytes = new Uint8Array(12);
    new DataView(bytes.buffer).setBigUint64(4, this.nonce++, true);
    return bytes;
  }

  encrypt(ad: Uint8Array, plaintext: Uint8Array): Uint8Array {
    const cipher = createCipheriv(
      "chacha20-poly1305",
      this.key,
      this.#nonceBytes(),
      { authTagLength: 16 },
    );
    cipher.setAAD(ad, { plaintextLength: plaintext.length });
    const body = cipher.update(plaintext);
    return concat(body, cipher.final(), cipher.getAuthTag());
  }

  decrypt(ad: Uint8Array, sealed: Uint8Array): Uint8Array {
    const decipher = createDecipheriv(
      "chacha20-poly1305",
      this.key,
      this.#nonceBytes(),
      { authTagLength: 16 },
    );
    decipher.setAAD(ad, { plaintextLength: sealed.length - 16 });
    decipher.setAuthTag(sealed.slice(-16));
    const body = decipher.update(sealed.slice(0, -16));
    return concat(body, decipher.final());
  }
}

/** Noise §5.2. */
export class ReferenceSymmetric {
  chainingKey: Uint8Array;
  hash: Uint8Array;
  cipher: CipherState | undefined;

  constructor(prologue: Uint8Array) {
    this.hash = hash(new TextEncoder().encode(PROTOCOL));
    this.chainingKey = this.hash;
    this.mixHash(prologue);
  }

  mixHash(data: Uint8Array): void {
    this.hash = hash(concat(this.hash, data));
  }

  mixKey(material: Uint8Array): void {
    const [chainingKey, key] = hkdf(this.chainingKey, material, 2);
    this.chainingKey = chainingKey;
    this.cipher = new CipherState(key);
  }

  mixKeyAndHash(material: Uint8Array): void {
    const [chainingKey, temp, key] = hkdf(this.chainingKey, material, 3);
    this.chainingKey = chainingKey;
    this.mixHash(temp);
    this.cipher = new CipherState(key);
  }

  encryptAndHash(plaintext: Uint8Array): Uint8Array {
    if (this.cipher === undefined) throw new Error("no key yet");
    const sealed = this.cipher.encrypt(this.hash, plaintext);
    this.mixHash(sealed);
    return sealed;
  }

  decryptAndHash(sealed: Uint8Array): Uint8Array {
    if (this.cipher === undefined) throw new Error("no key yet");
    const plaintext = this.cipher.decrypt(this.hash, sealed);
    this.mixHash(sealed);
    return plaintext;
  }

  split(): [CipherState, CipherState] {
    const [first, second] = hkdf(this.chainingKey, new Uint8Array(0), 2);
    return [new CipherState(first), new CipherState(second)];
  }
}

/** What one party knows before the handshake. */
export interface ReferenceKeys {
  prologue: Uint8Array;
  presharedKey: Uint8Array;
  staticKey: Uint8Array;
  ephemeralKey: Uint8Array;
}

/** Noise §5.3 for `IKpsk2: <- s ... -> e, es, s, ss  <- e, ee, se, psk`, initiator. */
export class ReferenceInitiator {
  readonly state: ReferenceSymmetric;

  constructor(readonly keys: ReferenceKeys, readonly remoteStatic: Uint8Array) {
    this.state = new ReferenceSymmetric(keys.prologue);
    this.state.mixHash(remoteStatic);
  }

  write(payload: Uint8Array): Uint8Array {
    const { state, keys, remoteStatic } = this;
    const e = referencePublicKey(keys.ephemeralKey);
    state.mixHash(e);
    state.mixKey(e);
    state.mixKey(referenceDh(keys.ephemeralKey, remoteStatic));
    const s = state.encryptAndHash(referencePublicKey(keys.staticKey));
    state.mixKey(referenceDh(keys.staticKey, remoteStatic));
    return concat(e, s, state.encryptAndHash(payload));
  }

  read(message: Uint8Array): Uint8Array {
    const { state, keys } = this;
    const re = message.slice(0, 32);
    state.mixHash(re);
    state.mixKey(re);
    state.mixKey(referenceDh(keys.ephemeralKey, re));
    state.mixKey(referenceDh(keys.staticKey, re));
    state.mixKeyAndHash(keys.presharedKey);
    return state.decryptAndHash(message.slice(32));
  }
}

/** The same, responder. */
export class ReferenceResponder {
  readonly state: ReferenceSymmetric;
  remoteStatic = new Uint8Array(0);
  #remoteEphemeral = new Uint8Array(0);

  constructor(readonly keys: ReferenceKeys) {
    this.state = new ReferenceSymmetric(keys.prologue);
    this.state.mixHash(referencePublicKey(keys.staticKey));
  }

  read(message: Uint8Array): Uint8Array {
    const { state, keys } = this;
    const re = message.slice(0, 32);
    this.#remoteEphemeral = re;
    state.mixHash(re);
    state.mixKey(re);
    state.mixKey(referenceDh(keys.staticKey, re));
    this.remoteStatic = state.decryptAndHash(message.slice(32, 80)).slice();
    state.mixKey(referenceDh(keys.staticKey, this.remoteStatic));
    return state.decryptAndHash(message.slice(80));
  }

  write(payload: Uint8Array): Uint8Array {
    const { state, keys } = this;
    const e = referencePublicKey(keys.ephemeralKey);
    state.mixHash(e);
    state.mixKey(e);
    state.mixKey(referenceDh(keys.ephemeralKey, this.#remoteEphemeral));
    state.mixKey(referenceDh(keys.ephemeralKey, this.remoteStatic));
    state.mixKeyAndHash(keys.presharedKey);
    return concat(e, state.encryptAndHash(payload));
  }
}
