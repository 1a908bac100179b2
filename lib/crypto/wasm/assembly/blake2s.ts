// BLAKE2s (RFC 7693), one message a call (AssemblyScript).
//
// The 4×4 state is four row vectors: a step of the mixing function G works on
// all columns, then on all diagonals after the rows are rotated. The module has
// no static data, so the caller passes the message schedule SIGMA (RFC 7693
// §2.7) as a table of byte offsets: 10 rounds of 16.
//
// Constant time: additions, exclusive ors, rotations and fixed shuffles; the
// addresses of message words depend on the round only.

@inline const BLOCK: u32 = 64;
@inline const ROUNDS: u32 = 10;

@inline
function ivLow(): v128 {
  return i32x4(0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a);
}

@inline
function ivHigh(): v128 {
  return i32x4(0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19);
}

@inline
function add(a: v128, b: v128): v128 {
  return v128.add<u32>(a, b);
}

@inline
function rotr(x: v128, bits: i32): v128 {
  return v128.or(v128.shr<u32>(x, bits), v128.shl<u32>(x, 32 - bits));
}

@inline
function rotr16(x: v128): v128 {
  return v128.swizzle(x, i8x16(2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
}

@inline
function rotr8(x: v128): v128 {
  return v128.swizzle(x, i8x16(1, 2, 3, 0, 5, 6, 7, 4, 9, 10, 11, 8, 13, 14, 15, 12));
}

// Words of the block at the four offsets in every other byte of `order`.
@inline
function gather(block: usize, order: usize): v128 {
  let words = v128.load_splat<u32>(block + load<u8>(order));
  words = v128.load_lane<u32>(block + load<u8>(order, 2), words, 1);
  words = v128.load_lane<u32>(block + load<u8>(order, 4), words, 2);
  return v128.load_lane<u32>(block + load<u8>(order, 6), words, 3);
}

/**
 * Writes the 32-byte state after `length` bytes at `ptr` to `out`.
 *
 * @param out 32 bytes; a shorter digest is a prefix of it.
 * @param sigma The message schedule: word index times 4, in 160 bytes.
 * @param ptr The message, zeros after it up to a multiple of 64 bytes and at
 * least to 64. With a key, its first 64 bytes are the key and zeros.
 * @param length Bytes of the message, key block included.
 * @param parameters Digest bytes + 256 × key bytes.
 */
export function blake2s(out: usize, sigma: usize, ptr: usize, length: u32, parameters: u32): void {
  let h0 = v128.xor(ivLow(), i32x4.replace_lane(i32x4(0, 0, 0, 0), 0, 0x01010000 ^ parameters));
  let h1 = ivHigh();
  let hashed: u32 = 0;
  do {
    const last = length - hashed <= BLOCK;
    hashed = last ? length : hashed + BLOCK;
    let a = h0, b = h1, c = ivLow();
    let d = i32x4.replace_lane(i32x4(0, 0, 0, 0), 0, hashed);
    d = v128.xor(ivHigh(), i32x4.replace_lane(d, 2, last ? -1 : 0));
    for (let round: u32 = 0, order = sigma; round < ROUNDS; round++, order += 16) {
      a = add(add(a, b), gather(ptr, order));
      d = rotr16(v128.xor(d, a));
      c = add(c, d);
      b = rotr(v128.xor(b, c), 12);
      a = add(add(a, b), gather(ptr, order + 1));
      d = rotr8(v128.xor(d, a));
      c = add(c, d);
      b = rotr(v128.xor(b, c), 7);
      b = v128.shuffle<u32>(b, b, 1, 2, 3, 0);
      c = v128.shuffle<u32>(c, c, 2, 3, 0, 1);
      d = v128.shuffle<u32>(d, d, 3, 0, 1, 2);
      a = add(add(a, b), gather(ptr, order + 8));
      d = rotr16(v128.xor(d, a));
      c = add(c, d);
      b = rotr(v128.xor(b, c), 12);
      a = add(add(a, b), gather(ptr, order + 9));
      d = rotr8(v128.xor(d, a));
      c = add(c, d);
      b = rotr(v128.xor(b, c), 7);
      b = v128.shuffle<u32>(b, b, 3, 0, 1, 2);
      c = v128.shuffle<u32>(c, c, 2, 3, 0, 1);
      d = v128.shuffle<u32>(d, d, 1, 2, 3, 0);
    }
    h0 = v128.xor(h0, v128.xor(a, c));
    h1 = v128.xor(h1, v128.xor(b, d));
    ptr += BLOCK;
  } while (hashed < length);
  v128.store(out, h0);
  v128.store(out, h1, 16);
}
