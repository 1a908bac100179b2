/**
 * All cryptography of wgd, and the only importer of @noble/* and of the wasm
 * kernels. Names no Deno API.
 *
 * @module
 */

export * from "./aead.ts";
export { createNobleAead } from "./aead_noble.ts";
export { FULL_BYTES, TrialAead } from "./aead_trial.ts";
export { createWasmAead } from "./aead_wasm.ts";
export * from "./blake2s.ts";
export { createWasmBlake2s } from "./blake2s_wasm.ts";
export * from "./bytes.ts";
export * from "./chacha.ts";
export * from "./checksum.ts";
export { sealCookie } from "./cookie_seal.ts";
export * from "./x25519.ts";
export { nobleX25519 } from "./x25519_noble.ts";
