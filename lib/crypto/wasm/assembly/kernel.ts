// The wasm kernels (AssemblyScript): ChaCha20-Poly1305 for chains of WireGuard
// data packets, in place; Internet checksums; BLAKE2s for handshakes. layout.ts
// gives descriptor and scratch area; lib/crypto/aead_layout.ts documents them.
//
// open verifies a packet before it writes any of its payload. The only branch
// on data is whether the tag matched, which is public: the packet is dropped.
// Tags are compared whole, without early exit. chacha20.ts and poly1305.ts say
// why the rest is constant-time in key and data.
//
// Touched memory: [DATA - 16, DATA + LENGTH + 16) of each packet, its key, its
// descriptor, and the scratch area.

import { chachaGroups, chachaKey, chachaNonce } from "./chacha20";
import {
  D_BYTES,
  D_COUNTER,
  D_DATA,
  D_KEY,
  D_LENGTH,
  D_OK,
  D_RECEIVER,
  W_BYTES,
  W_FIRST,
  W_LAST,
  W_TAG,
} from "./layout";
import { firstBytes, poly1305 } from "./poly1305";

export { blake2s } from "./blake2s";
export { checksum, checksumCopy } from "./checksum";

/** Length of the WireGuard data header, and of the tag. */
@inline const HEADER: usize = 16;
/** First word of a data message: type 4 and three reserved bytes. */
@inline const TYPE_DATA: u32 = 4;
/** OK of a packet that is sealed, or authentic and decrypted. */
@inline const DONE: u32 = 1;
/** Length of a ChaCha20 block. */
@inline const BLOCK: u32 = 64;
/** Blocks that the vectors compute at once. */
@inline const GROUP: u32 = 4;

/**
 * Seals `n` packets: header, payload and tag of each are written in place, and
 * then its OK.
 */
export function seal(work: usize, desc: usize, n: u32): void {
  for (; n; n--, desc += D_BYTES) {
    const data = <usize>load<u32>(desc, D_DATA);
    const length = load<u32>(desc, D_LENGTH);
    const counter = load<u64>(desc, D_COUNTER);
    store<u32>(data - HEADER, TYPE_DATA);
    store<u32>(data - HEADER, load<u32>(desc, D_RECEIVER), 4);
    store<u64>(data - HEADER, counter, 8);
    firstGroup(work, load<u32>(desc, D_KEY), counter);
    crypt(work, data, length);
    poly1305(work, work + W_FIRST, data, length, data + length);
    store<u32>(desc, DONE, D_OK);
  }
  memory.fill(work, 0, W_BYTES);
}

/**
 * Opens `n` packets: sets COUNTER from the header, and OK to 1 where the tag
 * matched and the payload was decrypted, else to 0 with the payload untouched.
 */
export function open(work: usize, desc: usize, n: u32): void {
  for (; n; n--, desc += D_BYTES) {
    const data = <usize>load<u32>(desc, D_DATA);
    const length = load<u32>(desc, D_LENGTH);
    const counter = load<u64>(data - 8);
    store<u64>(desc, counter, D_COUNTER);
    firstGroup(work, load<u32>(desc, D_KEY), counter);
    poly1305(work, work + W_FIRST, data, length, work + W_TAG);
    const tag = data + length;
    const difference = v128.xor(v128.load(tag), v128.load(work, W_TAG));
    const ok = !v128.any_true(difference);
    if (ok) crypt(work, data, length);
    store<u32>(desc, ok ? DONE : 0, D_OK);
  }
  memory.fill(work, 0, W_BYTES);
}

/** Computes blocks 0 to 3 of the packet's keystream. */
function firstGroup(work: usize, key: usize, counter: u64): void {
  chachaKey(work, key);
  chachaNonce(work, counter);
  chachaGroups(work, 0, work + W_FIRST, 1, false);
}

/**
 * XORs the keystream from block 1 on into the payload, after `firstGroup`:
 * first what that left, then whole groups in registers, then the rest.
 */
function crypt(work: usize, data: usize, length: u32): void {
  const first = min(length, (GROUP - 1) * BLOCK);
  xorBytes(data, work + W_FIRST + BLOCK, first);
  data += first;
  length -= first;
  const groups = length / (GROUP * BLOCK);
  if (groups) chachaGroups(work, GROUP, data, groups, true);
  const rest = length % (GROUP * BLOCK);
  if (rest) {
    chachaGroups(work, GROUP + GROUP * groups, work + W_LAST, 1, false);
    xorBytes(data + GROUP * BLOCK * groups, work + W_LAST, rest);
  }
}

/**
 * XORs `n` bytes of keystream into the payload at `ptr`. Up to 15 bytes after
 * them, inside the packet's tag, are stored back as they were.
 */
function xorBytes(ptr: usize, keystream: usize, n: u32): void {
  for (; n >= 16; n -= 16, ptr += 16, keystream += 16) {
    v128.store(ptr, v128.xor(v128.load(ptr), v128.load(keystream)));
  }
  if (n) {
    v128.store(ptr, v128.xor(v128.load(ptr), firstBytes(v128.load(keystream), n)));
  }
}
