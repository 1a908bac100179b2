/**
 * The AEAD by libcrypto's ChaCha20-Poly1305, on the arena by address: four
 * calls a packet and nothing allocated. Faster than the wasm kernel for full
 * packets, slower for small ones.
 *
 * Each direction has a context. It is given a key where a chain begins and where
 * the key's offset changes in it: records of keys are used again, so an offset
 * seen in an earlier chain says nothing. At the end of a chain the key in the
 * context is overwritten with zeros, so that libcrypto keeps no key that the
 * arena has forgotten. What stays is the Poly1305 key of the last packet, good
 * for a counter that is spent, and what the processor's stack holds.
 *
 * libcrypto decrypts before it knows the tag. The payload of a packet that is
 * not authentic is put back by the same keystream, exclusive or being its own
 * inverse.
 *
 * @module
 */
import {
  type Aead,
  AEAD_COUNTER_HI,
  AEAD_COUNTER_LO,
  AEAD_DATA,
  AEAD_DESCRIPTOR_WORDS,
  AEAD_DONE,
  AEAD_FORGED,
  AEAD_HEADER_BYTES,
  AEAD_KEY,
  AEAD_KEY_BYTES,
  AEAD_LENGTH,
  AEAD_OK,
  AEAD_RECEIVER,
  AEAD_TAG_BYTES,
} from "./crypto/aead.ts";
import {
  EVP_CTRL_AEAD_GET_TAG,
  EVP_CTRL_AEAD_SET_TAG,
  type Libcrypto,
  libcrypto,
} from "./sys/libcrypto.ts";

const TYPE_DATA = 4;
const STRIDE = 4 * AEAD_DESCRIPTOR_WORDS;
/** The greatest `int`. */
const LENGTH_MAX = 0x7fff_ffff;

// Memory of our own that libcrypto reads and writes.
/** The nonce: 32 zero bits, then the counter. */
const NONCE = 0;
/** `int`: how many bytes were written; not needed. */
const WRITTEN = 16;
/** What the last step writes: nothing, but it wants a place. */
const NOTHING = 32;
/** A key of zeros. */
const NO_KEY = 64;
const OWN_BYTES = NO_KEY + AEAD_KEY_BYTES;

// Addresses that differ from packet to packet: places in `#addresses`.
const PAYLOAD = 0;
const TAG = 1;
const KEY = 2;
const ADDRESSES = 3;

/** The address of a buffer's first byte. The buffer must outlive its users. */
function addressOf(buffer: ArrayBufferLike): bigint {
  const bytes = new Uint8Array(buffer) as Uint8Array<ArrayBuffer>;
  return BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
}

/** Seals and opens by libcrypto. Use it in the thread that made it. */
export class LibcryptoAead implements Aead {
  readonly name = "libcrypto";
  readonly #lib: Libcrypto;
  readonly #memory: WebAssembly.Memory;
  #view: DataView;
  #sealing = 0n;
  #opening = 0n;

  readonly #own = new DataView(new ArrayBuffer(OWN_BYTES));
  readonly #nonce: bigint;
  readonly #written: bigint;
  readonly #nothing: bigint;
  readonly #noKey: bigint;

  // The memory's address in two words. Addresses are put together in words and
  // read as 64 bits: optimised code then keeps them in registers, while a sum
  // of BigInts, or a choice between two, is an object on the heap.
  readonly #low: number;
  readonly #high: number;
  readonly #addresses = new BigUint64Array(ADDRESSES);
  readonly #words = new Uint32Array(this.#addresses.buffer);

  /**
   * @param memory The arena; must be shared, so that it never moves.
   * @throws {Error} If libcrypto is not here or lacks the cipher.
   */
  constructor(memory: WebAssembly.Memory) {
    if (!(memory.buffer instanceof SharedArrayBuffer)) {
      throw new Error("Cannot use libcrypto: the memory is not shared");
    }
    const lib = libcrypto();
    this.#lib = lib;
    this.#memory = memory;
    this.#view = new DataView(memory.buffer);
    const base = addressOf(memory.buffer);
    this.#low = Number(base & 0xffff_ffffn);
    this.#high = Number(base >> 32n);
    const own = addressOf(this.#own.buffer);
    this.#nonce = own + BigInt(NONCE);
    this.#written = own + BigInt(WRITTEN);
    this.#nothing = own + BigInt(NOTHING);
    this.#noKey = own + BigInt(NO_KEY);

    const cipher = lib.EVP_chacha20_poly1305();
    this.#sealing = lib.EVP_CIPHER_CTX_new();
    this.#opening = lib.EVP_CIPHER_CTX_new();
    if (
      cipher === 0n || this.#sealing === 0n || this.#opening === 0n ||
      lib.EVP_EncryptInit_ex(this.#sealing, cipher, 0n, 0n, 0n) !== 1 ||
      lib.EVP_DecryptInit_ex(this.#opening, cipher, 0n, 0n, 0n) !== 1
    ) {
      this.close();
      throw new Error("Cannot use libcrypto: it has no ChaCha20-Poly1305");
    }
  }

  /** Frees the contexts, which libcrypto wipes. */
  close(): void {
    // A context of zero is none, for every function of libcrypto.
    this.#lib.EVP_CIPHER_CTX_free(this.#sealing);
    this.#lib.EVP_CIPHER_CTX_free(this.#opening);
    this.#sealing = this.#opening = 0n;
  }

  seal(desc: number, n: number): void {
    const view = this.#look(this.#sealing);
    const lib = this.#lib;
    const context = this.#sealing;
    const end = desc + n * STRIDE;
    let keyed = -1;
    try {
      for (let at = desc; at < end; at += STRIDE) {
        const data = view.getUint32(at + 4 * AEAD_DATA, true);
        const length = view.getUint32(at + 4 * AEAD_LENGTH, true);
        const key = view.getUint32(at + 4 * AEAD_KEY, true);
        const low = view.getUint32(at + 4 * AEAD_COUNTER_LO, true);
        const high = view.getUint32(at + 4 * AEAD_COUNTER_HI, true);
        const receiver = view.getUint32(at + 4 * AEAD_RECEIVER, true);
        this.#point(data, length, key, keyed);
        keyed = key;
        const header = data - AEAD_HEADER_BYTES;
        view.setUint32(header, TYPE_DATA, true);
        view.setUint32(header + 4, receiver, true);
        view.setUint32(header + 8, low, true);
        view.setUint32(header + 12, high, true);

        this.#setNonce(low, high);
        let done = lib.EVP_EncryptInit_ex(
          context,
          0n,
          0n,
          this.#addresses[KEY],
          this.#nonce,
        );
        if (length > 0) {
          done &= lib.EVP_EncryptUpdate(
            context,
            this.#addresses[PAYLOAD],
            this.#written,
            this.#addresses[PAYLOAD],
            length,
          );
        }
        done &= lib.EVP_EncryptFinal_ex(context, this.#nothing, this.#written);
        done &= lib.EVP_CIPHER_CTX_ctrl(
          context,
          EVP_CTRL_AEAD_GET_TAG,
          AEAD_TAG_BYTES,
          this.#addresses[TAG],
        );
        if (done !== 1) broken("seal", length);
        view.setUint32(at + 4 * AEAD_OK, AEAD_DONE, true);
      }
    } finally {
      if (keyed !== -1) {
        lib.EVP_EncryptInit_ex(context, 0n, 0n, this.#noKey, 0n);
      }
    }
  }

  open(desc: number, n: number): void {
    const view = this.#look(this.#opening);
    const lib = this.#lib;
    const context = this.#opening;
    const end = desc + n * STRIDE;
    let keyed = -1;
    try {
      for (let at = desc; at < end; at += STRIDE) {
        const data = view.getUint32(at + 4 * AEAD_DATA, true);
        const length = view.getUint32(at + 4 * AEAD_LENGTH, true);
        const key = view.getUint32(at + 4 * AEAD_KEY, true);
        this.#point(data, length, key, keyed);
        keyed = key;
        const low = view.getUint32(data - 8, true);
        const high = view.getUint32(data - 4, true);
        view.setUint32(at + 4 * AEAD_COUNTER_LO, low, true);
        view.setUint32(at + 4 * AEAD_COUNTER_HI, high, true);

        this.#setNonce(low, high);
        let done = lib.EVP_DecryptInit_ex(
          context,
          0n,
          0n,
          this.#addresses[KEY],
          this.#nonce,
        );
        done &= lib.EVP_CIPHER_CTX_ctrl(
          context,
          EVP_CTRL_AEAD_SET_TAG,
          AEAD_TAG_BYTES,
          this.#addresses[TAG],
        );
        if (length > 0) done &= this.#decrypt(length);
        if (done !== 1) broken("open", length);
        const ok =
          lib.EVP_DecryptFinal_ex(context, this.#nothing, this.#written) === 1;
        if (!ok && length > 0) this.#putBack(length);
        view.setUint32(at + 4 * AEAD_OK, ok ? AEAD_DONE : AEAD_FORGED, true);
      }
    } finally {
      if (keyed !== -1) {
        lib.EVP_DecryptInit_ex(context, 0n, 0n, this.#noKey, 0n);
      }
    }
  }

  /** The memory as large as it is now. */
  #look(context: bigint): DataView {
    if (context === 0n) throw new Error("Cannot use libcrypto: it is closed");
    if (this.#view.buffer !== this.#memory.buffer) {
      this.#view = new DataView(this.#memory.buffer);
    }
    return this.#view;
  }

  /**
   * Sets the addresses of a packet; that of the key only if it is not the one
   * that the context has. Checks them, as the engine does for wasm.
   */
  #point(data: number, length: number, key: number, keyed: number): void {
    const bytes = this.#view.byteLength;
    const tag = data + length;
    if (
      data < AEAD_HEADER_BYTES || tag + AEAD_TAG_BYTES > bytes ||
      key + AEAD_KEY_BYTES > bytes || length > LENGTH_MAX
    ) {
      throw new RangeError(
        `Packet of ${length} bytes at ${data} with its key at ${key} is outside of the memory`,
      );
    }
    this.#setAddress(PAYLOAD, data);
    this.#setAddress(TAG, tag);
    if (key !== keyed) this.#setAddress(KEY, key);
    else this.#words[2 * KEY] = this.#words[2 * KEY + 1] = 0;
  }

  #setAddress(place: number, offset: number): void {
    const low = this.#low + offset;
    this.#words[2 * place] = low;
    this.#words[2 * place + 1] = this.#high + (low > 0xffff_ffff ? 1 : 0);
  }

  #setNonce(low: number, high: number): void {
    this.#own.setUint32(NONCE + 4, low, true);
    this.#own.setUint32(NONCE + 8, high, true);
  }

  /** XORs the keystream of the opening context into the payload. */
  #decrypt(length: number): number {
    return this.#lib.EVP_DecryptUpdate(
      this.#opening,
      this.#addresses[PAYLOAD],
      this.#written,
      this.#addresses[PAYLOAD],
      length,
    );
  }

  /** Undoes `#decrypt`, with the key and the nonce that are set. */
  #putBack(length: number): void {
    const nonce = this.#nonce;
    const done =
      this.#lib.EVP_DecryptInit_ex(this.#opening, 0n, 0n, 0n, nonce) &
      this.#decrypt(length);
    if (done !== 1) broken("put back", length);
  }
}

/** Only when libcrypto has no memory left, or is not what it says. */
function broken(what: string, length: number): never {
  throw new Error(`libcrypto cannot ${what} a packet of ${length} bytes`);
}
