/**
 * OpenSSL's libcrypto, where the machine has it: the functions that seal and
 * open with ChaCha20-Poly1305, under their own names, each parameter with its C
 * declaration. Opened at the first use; opening it and its first cipher cost
 * some 6 ms and 4 MB.
 *
 * Pointers are declared `u64` and given as BigInts: optimised code passes them
 * without making an object, those from a `BigUint64Array` too, while a call with
 * a pointer object that is not a constant makes 40 bytes of garbage (see
 * lib/aead_libcrypto).
 *
 * @module
 */

const SYMBOLS = {
  OPENSSL_init_crypto: { parameters: ["u64", "u64"], result: "i32" }, // uint64_t, const OPENSSL_INIT_SETTINGS *
  EVP_chacha20_poly1305: { parameters: [], result: "u64" }, // const EVP_CIPHER *
  EVP_CIPHER_CTX_new: { parameters: [], result: "u64" }, // EVP_CIPHER_CTX *
  EVP_CIPHER_CTX_free: { parameters: ["u64"], result: "void" }, // EVP_CIPHER_CTX *
  EVP_CIPHER_CTX_ctrl: {
    parameters: ["u64", "i32", "i32", "u64"],
    result: "i32",
  }, // EVP_CIPHER_CTX *, int type, int arg, void *
  EVP_EncryptInit_ex: {
    parameters: ["u64", "u64", "u64", "u64", "u64"],
    result: "i32",
  }, // EVP_CIPHER_CTX *, const EVP_CIPHER *, ENGINE *, const uchar *key, const uchar *iv
  EVP_EncryptUpdate: {
    parameters: ["u64", "u64", "u64", "u64", "i32"],
    result: "i32",
  }, // EVP_CIPHER_CTX *, uchar *out, int *outl, const uchar *in, int inl
  EVP_EncryptFinal_ex: { parameters: ["u64", "u64", "u64"], result: "i32" }, // EVP_CIPHER_CTX *, uchar *out, int *outl
  EVP_DecryptInit_ex: {
    parameters: ["u64", "u64", "u64", "u64", "u64"],
    result: "i32",
  }, // as EVP_EncryptInit_ex
  EVP_DecryptUpdate: {
    parameters: ["u64", "u64", "u64", "u64", "i32"],
    result: "i32",
  }, // as EVP_EncryptUpdate
  EVP_DecryptFinal_ex: { parameters: ["u64", "u64", "u64"], result: "i32" }, // EVP_CIPHER_CTX *, uchar *out, int *outl
} as const satisfies Deno.ForeignLibraryInterface;

/** libcrypto's functions. */
export type Libcrypto = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** Names of OpenSSL 3 and 1.1; older ones lack the cipher. */
const LIBRARIES = ["libcrypto.so.3", "libcrypto.so.1.1"];

/** What `EVP_CIPHER_CTX_ctrl` is asked to do. */
export const EVP_CTRL_AEAD_GET_TAG = 0x10;
export const EVP_CTRL_AEAD_SET_TAG = 0x11;

/**
 * No configuration file: it could load engines and providers into the daemon,
 * or leave the cipher out.
 */
const OPENSSL_INIT_NO_LOAD_CONFIG = 0x80n;
/** No clean-up when the process exits: workers may be inside libcrypto then. */
const OPENSSL_INIT_NO_ATEXIT = 0x80000n;

let loaded: Libcrypto | Error | undefined;

/**
 * libcrypto's functions.
 *
 * @throws Error when it is not here or cannot be opened
 */
export function libcrypto(): Libcrypto {
  loaded ??= open();
  if (loaded instanceof Error) throw loaded;
  return loaded;
}

function open(): Libcrypto | Error {
  const reasons: string[] = [];
  for (const name of LIBRARIES) {
    try {
      const { symbols } = Deno.dlopen(name, SYMBOLS);
      const options = OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT;
      if (symbols.OPENSSL_init_crypto(options, 0n) === 1) return symbols;
      reasons.push(`${name} does not start`);
    } catch (error) {
      reasons.push(error instanceof Error ? error.message : String(error));
    }
  }
  return new Error(`Cannot open libcrypto: ${reasons.join("; ")}`);
}
