// ChaCha20 (RFC 8439 §2.3 and §2.4), four blocks at a time (AssemblyScript).
//
// "Vertical" form: vector xN holds word N of four consecutive blocks, one block
// a lane, so a quarter round is plain lane-wise arithmetic; the four blocks are
// transposed back into byte order only when the keystream is used. The four
// quarter rounds of a round are independent and are written step by step side
// by side, which keeps the processor's vector units busy; the build keeps this
// order (see tools/wasm/build.ts).
//
// Constant time: additions, exclusive ors, rotations and fixed shuffles only.
// No branch and no address depends on the key, the keystream or the payload;
// loops run over lengths, which are public.

import { W_STATE } from "./layout";

// Byte shuffles that rotate each 32-bit lane left by 16 and by 8. Rotations by
// 12 and 7 have no such form and take two shifts.
@inline
function rotationBy16(): v128 {
  return i8x16(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
}

@inline
function rotationBy8(): v128 {
  return i8x16(3, 0, 1, 2, 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14);
}

@inline
function add(a: v128, b: v128): v128 {
  return v128.add<u32>(a, b);
}

// rotl(d ^ a) for a rotation that is a byte shuffle. A swizzle whose indices
// are constant and in range is one instruction on x86 and arm64; the relaxed
// form measured the same, and i8x16.shuffle is slower in V8.
@inline
function xorShuffle(d: v128, a: v128, shuffle: v128): v128 {
  return v128.swizzle(v128.xor(d, a), shuffle);
}

@inline
function rotl(x: v128, bits: i32): v128 {
  return v128.or(v128.shl<u32>(x, bits), v128.shr<u32>(x, 32 - bits));
}

// At ptr + offset: XORs in 16 bytes of keystream, or just writes them.
@inline
function emit(keystream: v128, ptr: usize, mix: bool, offset: usize): void {
  const at = ptr + offset;
  v128.store(at, mix ? v128.xor(keystream, v128.load(at)) : keystream);
}

/** Sets the constants and the key of the ChaCha20 state in the work area. */
export function chachaKey(work: usize, key: usize): void {
  // "expand 32-byte k"
  v128.store(work, i32x4(0x61707865, 0x3320646e, 0x79622d32, 0x6b206574), W_STATE);
  v128.store(work, v128.load(key), W_STATE + 16);
  v128.store(work, v128.load(key, 16), W_STATE + 32);
}

/** Sets the WireGuard nonce: 32 zero bits, then the 64-bit packet counter. */
export function chachaNonce(work: usize, counter: u64): void {
  store<u64>(work, 0, W_STATE + 48);
  store<u64>(work, counter, W_STATE + 56);
}

/**
 * Runs `groups` (at least 1) groups of four blocks from block number `block`.
 * With `mix`, XORs the keystream into the 256 × groups bytes at `ptr`; without,
 * writes the keystream there.
 */
export function chachaGroups(work: usize, block: u32, ptr: usize, groups: u32, mix: bool): void {
  const rot16 = rotationBy16();
  const rot8 = rotationBy8();
  const s0 = v128.load(work, W_STATE);
  const s1 = v128.load(work, W_STATE + 16);
  const s2 = v128.load(work, W_STATE + 32);
  let s3 = v128.replace_lane<u32>(v128.load(work, W_STATE + 48), 0, block);

  do {
    let x0 = v128.shuffle<u32>(s0, s0, 0, 0, 0, 0), x1 = v128.shuffle<u32>(s0, s0, 1, 1, 1, 1);
    let x2 = v128.shuffle<u32>(s0, s0, 2, 2, 2, 2), x3 = v128.shuffle<u32>(s0, s0, 3, 3, 3, 3);
    let x4 = v128.shuffle<u32>(s1, s1, 0, 0, 0, 0), x5 = v128.shuffle<u32>(s1, s1, 1, 1, 1, 1);
    let x6 = v128.shuffle<u32>(s1, s1, 2, 2, 2, 2), x7 = v128.shuffle<u32>(s1, s1, 3, 3, 3, 3);
    let x8 = v128.shuffle<u32>(s2, s2, 0, 0, 0, 0), x9 = v128.shuffle<u32>(s2, s2, 1, 1, 1, 1);
    let xa = v128.shuffle<u32>(s2, s2, 2, 2, 2, 2), xb = v128.shuffle<u32>(s2, s2, 3, 3, 3, 3);
    let xc = add(v128.shuffle<u32>(s3, s3, 0, 0, 0, 0), i32x4(0, 1, 2, 3));
    let xd = v128.shuffle<u32>(s3, s3, 1, 1, 1, 1);
    let xe = v128.shuffle<u32>(s3, s3, 2, 2, 2, 2), xf = v128.shuffle<u32>(s3, s3, 3, 3, 3, 3);

    for (let i = 0; i < 10; i++) {
      // The column round.
      x0 = add(x0, x4); x1 = add(x1, x5); x2 = add(x2, x6); x3 = add(x3, x7);
      xc = xorShuffle(xc, x0, rot16); xd = xorShuffle(xd, x1, rot16); xe = xorShuffle(xe, x2, rot16); xf = xorShuffle(xf, x3, rot16);
      x8 = add(x8, xc); x9 = add(x9, xd); xa = add(xa, xe); xb = add(xb, xf);
      x4 = v128.xor(x4, x8); x5 = v128.xor(x5, x9); x6 = v128.xor(x6, xa); x7 = v128.xor(x7, xb);
      x4 = rotl(x4, 12); x5 = rotl(x5, 12); x6 = rotl(x6, 12); x7 = rotl(x7, 12);
      x0 = add(x0, x4); x1 = add(x1, x5); x2 = add(x2, x6); x3 = add(x3, x7);
      xc = xorShuffle(xc, x0, rot8); xd = xorShuffle(xd, x1, rot8); xe = xorShuffle(xe, x2, rot8); xf = xorShuffle(xf, x3, rot8);
      x8 = add(x8, xc); x9 = add(x9, xd); xa = add(xa, xe); xb = add(xb, xf);
      x4 = v128.xor(x4, x8); x5 = v128.xor(x5, x9); x6 = v128.xor(x6, xa); x7 = v128.xor(x7, xb);
      x4 = rotl(x4, 7); x5 = rotl(x5, 7); x6 = rotl(x6, 7); x7 = rotl(x7, 7);
      // The diagonal round.
      x0 = add(x0, x5); x1 = add(x1, x6); x2 = add(x2, x7); x3 = add(x3, x4);
      xf = xorShuffle(xf, x0, rot16); xc = xorShuffle(xc, x1, rot16); xd = xorShuffle(xd, x2, rot16); xe = xorShuffle(xe, x3, rot16);
      xa = add(xa, xf); xb = add(xb, xc); x8 = add(x8, xd); x9 = add(x9, xe);
      x5 = v128.xor(x5, xa); x6 = v128.xor(x6, xb); x7 = v128.xor(x7, x8); x4 = v128.xor(x4, x9);
      x5 = rotl(x5, 12); x6 = rotl(x6, 12); x7 = rotl(x7, 12); x4 = rotl(x4, 12);
      x0 = add(x0, x5); x1 = add(x1, x6); x2 = add(x2, x7); x3 = add(x3, x4);
      xf = xorShuffle(xf, x0, rot8); xc = xorShuffle(xc, x1, rot8); xd = xorShuffle(xd, x2, rot8); xe = xorShuffle(xe, x3, rot8);
      xa = add(xa, xf); xb = add(xb, xc); x8 = add(x8, xd); x9 = add(x9, xe);
      x5 = v128.xor(x5, xa); x6 = v128.xor(x6, xb); x7 = v128.xor(x7, x8); x4 = v128.xor(x4, x9);
      x5 = rotl(x5, 7); x6 = rotl(x6, 7); x7 = rotl(x7, 7); x4 = rotl(x4, 7);
    }

    // Transpose four words of four blocks at a time, add the input state, emit:
    // block b occupies bytes 64b..64b+63.
    let a = v128.shuffle<u32>(x0, x1, 0, 4, 1, 5), b = v128.shuffle<u32>(x2, x3, 0, 4, 1, 5);
    let c = v128.shuffle<u32>(x0, x1, 2, 6, 3, 7), d = v128.shuffle<u32>(x2, x3, 2, 6, 3, 7);
    emit(add(v128.shuffle<u64>(a, b, 0, 2), s0), ptr, mix, 0);
    emit(add(v128.shuffle<u64>(a, b, 1, 3), s0), ptr, mix, 64);
    emit(add(v128.shuffle<u64>(c, d, 0, 2), s0), ptr, mix, 128);
    emit(add(v128.shuffle<u64>(c, d, 1, 3), s0), ptr, mix, 192);
    a = v128.shuffle<u32>(x4, x5, 0, 4, 1, 5), b = v128.shuffle<u32>(x6, x7, 0, 4, 1, 5);
    c = v128.shuffle<u32>(x4, x5, 2, 6, 3, 7), d = v128.shuffle<u32>(x6, x7, 2, 6, 3, 7);
    emit(add(v128.shuffle<u64>(a, b, 0, 2), s1), ptr, mix, 16);
    emit(add(v128.shuffle<u64>(a, b, 1, 3), s1), ptr, mix, 80);
    emit(add(v128.shuffle<u64>(c, d, 0, 2), s1), ptr, mix, 144);
    emit(add(v128.shuffle<u64>(c, d, 1, 3), s1), ptr, mix, 208);
    a = v128.shuffle<u32>(x8, x9, 0, 4, 1, 5), b = v128.shuffle<u32>(xa, xb, 0, 4, 1, 5);
    c = v128.shuffle<u32>(x8, x9, 2, 6, 3, 7), d = v128.shuffle<u32>(xa, xb, 2, 6, 3, 7);
    emit(add(v128.shuffle<u64>(a, b, 0, 2), s2), ptr, mix, 32);
    emit(add(v128.shuffle<u64>(a, b, 1, 3), s2), ptr, mix, 96);
    emit(add(v128.shuffle<u64>(c, d, 0, 2), s2), ptr, mix, 160);
    emit(add(v128.shuffle<u64>(c, d, 1, 3), s2), ptr, mix, 224);
    a = v128.shuffle<u32>(xc, xd, 0, 4, 1, 5), b = v128.shuffle<u32>(xe, xf, 0, 4, 1, 5);
    c = v128.shuffle<u32>(xc, xd, 2, 6, 3, 7), d = v128.shuffle<u32>(xe, xf, 2, 6, 3, 7);
    emit(add(v128.shuffle<u64>(a, b, 0, 2), s3), ptr, mix, 48);
    emit(add(v128.shuffle<u64>(a, b, 1, 3), add(s3, i32x4(1, 0, 0, 0))), ptr, mix, 112);
    emit(add(v128.shuffle<u64>(c, d, 0, 2), add(s3, i32x4(2, 0, 0, 0))), ptr, mix, 176);
    emit(add(v128.shuffle<u64>(c, d, 1, 3), add(s3, i32x4(3, 0, 0, 0))), ptr, mix, 240);

    s3 = add(s3, i32x4(4, 0, 0, 0));
    ptr += 256;
  } while (--groups);
}
