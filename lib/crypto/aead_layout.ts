/**
 * The AEAD descriptor and interface, apart from their providers so that the
 * import order stays a line. lib/crypto/wasm/assembly/layout.ts has the same
 * numbers in bytes; tests/crypto_aead_test.ts would see them differ.
 *
 * @module
 */

/** 32-bit words in a descriptor. */
export const AEAD_DESCRIPTOR_WORDS = 8;
/** Word: byte offset of the first payload byte, after the 16-byte header. */
export const AEAD_DATA = 0;
/** Word: payload bytes without the tag; 0 is a keepalive. */
export const AEAD_LENGTH = 1;
/** Word: byte offset of the 32-byte key; a multiple of 4. */
export const AEAD_KEY = 2;
/** Word: receiver index that seal writes into the header. */
export const AEAD_RECEIVER = 3;
/** Word: low half of the counter; seal reads it, open sets it. */
export const AEAD_COUNTER_LO = 4;
/** Word: high half of the counter; seal reads it, open sets it. */
export const AEAD_COUNTER_HI = 5;
/**
 * Word: how the packet came out. The caller stores AEAD_PENDING before the
 * call; seal and open store one of the others as the last thing that they do to
 * the packet, so that a reader can tell how far a thread came that died.
 */
export const AEAD_OK = 6;
/** Word: the caller's; never touched. */
export const AEAD_USER = 7;

/** OK: not done yet. Providers never store it. */
export const AEAD_PENDING = 2;
/** OK: sealed; or authentic and decrypted. */
export const AEAD_DONE = 1;
/** OK: opened and not authentic; the payload is as it was. */
export const AEAD_FORGED = 0;

/** Scratch bytes of one instance: 768, whole cache lines. */
export const AEAD_WORK_BYTES = 768;
/** Bytes of a key. */
export const AEAD_KEY_BYTES = 32;
/** Bytes of the data header before the payload. */
export const AEAD_HEADER_BYTES = 16;
/** Bytes of the tag after the payload. */
export const AEAD_TAG_BYTES = 16;

/** Seals and opens chains of packets that descriptors in the arena name. */
export interface Aead {
  /** Name of the provider: "wasm", "noble", "libcrypto" or "wasm+libcrypto". */
  readonly name: string;
  /**
   * Writes header, ciphertext and tag of each packet, then sets its OK. Nonces
   * are the caller's to keep unique.
   *
   * @param desc Byte offset of the first descriptor, a multiple of 4.
   * @param n Number of consecutive descriptors.
   */
  seal(desc: number, n: number): void;
  /**
   * Takes the counter from each header, verifies the tag and decrypts; the
   * payload of a packet that is not authentic is left, or put back, as it was.
   * Sets COUNTER_LO, COUNTER_HI and then OK of each descriptor.
   *
   * @param desc Byte offset of the first descriptor, a multiple of 4.
   * @param n Number of consecutive descriptors.
   */
  open(desc: number, n: number): void;
  /** Gives back what the garbage collector does not. Nothing may follow. */
  close?(): void;
}
