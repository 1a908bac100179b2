// The Internet checksum (RFC 1071) over little-endian 16-bit words, alone or
// while copying (AssemblyScript).
//
// The one's-complement sum does not depend on byte order: sums taken over
// little-endian words and stored little-endian are the sums over big-endian
// words stored big-endian. Nothing here is secret.

// Bytes that the 32-bit lanes can hold the sums of: each step adds at most
// 2 × 65535 to a lane, so 32,768 steps of 32 bytes fit; 1 MiB.
@inline const LANE_BYTES_MAX: u32 = 0x100000;

@inline
function addPairs(sums: v128, words: v128): v128 {
  return v128.add<u32>(sums, v128.extadd_pairwise<u16>(words));
}

// Sum of the four 32-bit lanes.
@inline
function total(sums: v128): u64 {
  const pairs = v128.add<u64>(v128.extend_low<u32>(sums), v128.extend_high<u32>(sums));
  return v128.extract_lane<u64>(pairs, 0) + v128.extract_lane<u64>(pairs, 1);
}

@inline
function fold(sum: u64): u32 {
  sum = (sum & 0xffffffff) + (sum >> 32);
  sum = (sum & 0xffff) + (sum >> 16);
  sum = (sum & 0xffff) + (sum >> 16);
  return <u32>((sum & 0xffff) + (sum >> 16));
}

/**
 * The sum of `length` bytes at `ptr` and of `initial`, a sum so far, folded to
 * 16 bits and not complemented. An odd last byte counts as a low byte.
 */
export function checksum(ptr: usize, length: u32, initial: u32): u32 {
  let sum = <u64>initial;
  while (length >= 32) {
    let steps = min(length, LANE_BYTES_MAX) / 32;
    length -= 32 * steps;
    let a = i32x4(0, 0, 0, 0), b = a;
    for (; steps; steps--, ptr += 32) {
      a = addPairs(a, v128.load(ptr));
      b = addPairs(b, v128.load(ptr, 16));
    }
    sum += total(a) + total(b);
  }
  for (; length >= 2; length -= 2, ptr += 2) sum += load<u16>(ptr);
  if (length) sum += load<u8>(ptr);
  return fold(sum);
}

/**
 * Copies `length` bytes from `src` to `dst` and returns their `checksum`. The
 * two may overlap only if `dst` is below `src`.
 */
export function checksumCopy(dst: usize, src: usize, length: u32, initial: u32): u32 {
  let sum = <u64>initial;
  while (length >= 32) {
    let steps = min(length, LANE_BYTES_MAX) / 32;
    length -= 32 * steps;
    let a = i32x4(0, 0, 0, 0), b = a;
    for (; steps; steps--, src += 32, dst += 32) {
      const v = v128.load(src), w = v128.load(src, 16);
      v128.store(dst, v);
      v128.store(dst, w, 16);
      a = addPairs(a, v);
      b = addPairs(b, w);
    }
    sum += total(a) + total(b);
  }
  for (; length >= 2; length -= 2, src += 2, dst += 2) {
    const word = load<u16>(src);
    store<u16>(dst, word);
    sum += word;
  }
  if (length) {
    const last = load<u8>(src);
    store<u8>(dst, last);
    sum += last;
  }
  return fold(sum);
}
