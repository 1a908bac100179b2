// Byte offsets that the kernels share (AssemblyScript).
//
// D_*: fields of a packet descriptor, eight little-endian 32-bit words. The
// same fields appear as word offsets in lib/crypto/aead_layout.ts.
//
// W_*: fields of the scratch area of one instance. Several workers instantiate
// the module on one shared memory, so the module owns no memory: no stack, no
// heap, no static data, no mutable globals. What does not fit in locals lives
// in the scratch area, and is wiped before a call returns.
//
// Addresses are unsigned 32-bit. Loops count what is left and never compare
// end addresses, so that a packet may touch the last byte of a 4 GiB memory.

@inline export const D_DATA: usize = 0;
@inline export const D_LENGTH: usize = 4;
@inline export const D_KEY: usize = 8;
@inline export const D_RECEIVER: usize = 12;
@inline export const D_COUNTER: usize = 16;
@inline export const D_OK: usize = 24;
@inline export const D_BYTES: usize = 32;

/** ChaCha20 input state: constants, key, block number, nonce (64 bytes). */
@inline export const W_STATE: usize = 0;
/** Keystream blocks 0 to 3; block 0 is the Poly1305 key (256 bytes). */
@inline export const W_FIRST: usize = 64;
/** Keystream for the end of a packet (256 bytes). */
@inline export const W_LAST: usize = 320;
/** Poly1305 accumulator h: five 26-bit limbs, one in each 64-bit word. */
@inline export const W_H: usize = 576;
/** Poly1305 multiplier r, in the same form. */
@inline export const W_R: usize = 616;
/** The last partial block padded with zeros, then the block of lengths. */
@inline export const W_TAIL: usize = 656;
/** Two zero blocks. */
@inline export const W_ZERO: usize = 688;
/** The computed tag. */
@inline export const W_TAG: usize = 720;
/** Size of the whole area, in whole cache lines. */
@inline export const W_BYTES: usize = 768;
