// Poly1305 (RFC 8439 §2.5) in radix 2^26 (AssemblyScript).
//
// A number modulo p = 2^130 - 5 is five limbs of 26 bits, each in a 64-bit word,
// so that sums of products need no carries until the end (the layout of Bernstein's
// and Moon's 32-bit implementations). `absorb` takes one block at a time;
// `absorbWide` takes two blocks in the two lanes of each vector and two such
// pairs a step, with h·r^4 + m·r^2 + m' in each lane.
//
// Bounds: after a carry chain limbs are below 2^26 + 2^10. Inputs of a product are
// below 2^28 and 5·2^26, and at most eleven products and sums meet in one word:
// below 2^59.
//
// Constant time: integer multiplications, additions, shifts and masks only; the
// final reduction adds 5·q, with q the carry out of h + 5, instead of branching.
// No branch and no address depends on r, s, h or the data.

import { W_H, W_R, W_TAIL, W_ZERO } from "./layout";

@inline const LIMB_MASK: u64 = 0x3ffffff;
/** Bit 128 of a block, as it falls in the fifth limb. */
@inline const BLOCK_BIT: u64 = 1 << 24;
/** Blocks from which the powers of r for `absorbWide` pay. */
@inline const WIDE_BLOCKS_MIN: u32 = 16;

/** Loads r, clamped, from the 16 bytes at `key`, and sets h to zero. */
function start(work: usize, key: usize): void {
  const lo = load<u64>(key) & 0x0ffffffc0fffffff;
  const hi = load<u64>(key, 8) & 0x0ffffffc0ffffffc;
  store<u64>(work, lo & LIMB_MASK, W_R);
  store<u64>(work, (lo >> 26) & LIMB_MASK, W_R + 8);
  store<u64>(work, ((lo >> 52) | (hi << 12)) & LIMB_MASK, W_R + 16);
  store<u64>(work, (hi >> 14) & LIMB_MASK, W_R + 24);
  store<u64>(work, hi >> 40, W_R + 32);
  for (let limb: usize = 0; limb < 40; limb += 8) store<u64>(work + limb, 0, W_H);
}

/**
 * h = (h + block)·r for each of the `blocks` blocks at `ptr`. `bit` is
 * BLOCK_BIT for message blocks; with zero blocks and 0 this multiplies by r.
 */
function absorb(work: usize, ptr: usize, blocks: u32, bit: u64): void {
  const r0 = load<u64>(work, W_R), r1 = load<u64>(work, W_R + 8), r2 = load<u64>(work, W_R + 16);
  const r3 = load<u64>(work, W_R + 24), r4 = load<u64>(work, W_R + 32);
  const s1 = r1 * 5, s2 = r2 * 5, s3 = r3 * 5, s4 = r4 * 5;
  let h0 = load<u64>(work, W_H), h1 = load<u64>(work, W_H + 8), h2 = load<u64>(work, W_H + 16);
  let h3 = load<u64>(work, W_H + 24), h4 = load<u64>(work, W_H + 32);

  for (; blocks; blocks--, ptr += 16) {
    const lo = load<u64>(ptr), hi = load<u64>(ptr, 8);
    h0 += lo & LIMB_MASK;
    h1 += (lo >> 26) & LIMB_MASK;
    h2 += ((lo >> 52) | (hi << 12)) & LIMB_MASK;
    h3 += (hi >> 14) & LIMB_MASK;
    h4 += (hi >> 40) | bit;

    const d0 = h0 * r0 + h1 * s4 + h2 * s3 + h3 * s2 + h4 * s1;
    let d1 = h0 * r1 + h1 * r0 + h2 * s4 + h3 * s3 + h4 * s2;
    let d2 = h0 * r2 + h1 * r1 + h2 * r0 + h3 * s4 + h4 * s3;
    const d3 = h0 * r3 + h1 * r2 + h2 * r1 + h3 * r0 + h4 * s4;
    let d4 = h0 * r4 + h1 * r3 + h2 * r2 + h3 * r1 + h4 * r0;

    d1 += d0 >> 26;
    d4 += d3 >> 26;
    d2 += d1 >> 26;
    h0 = (d0 & LIMB_MASK) + (d4 >> 26) * 5;
    h3 = (d3 & LIMB_MASK) + (d2 >> 26);
    h1 = (d1 & LIMB_MASK) + (h0 >> 26);
    h4 = (d4 & LIMB_MASK) + (h3 >> 26);
    h2 = d2 & LIMB_MASK;
    h0 &= LIMB_MASK;
    h3 &= LIMB_MASK;
  }

  store<u64>(work, h0, W_H);
  store<u64>(work, h1, W_H + 8);
  store<u64>(work, h2, W_H + 16);
  store<u64>(work, h3, W_H + 24);
  store<u64>(work, h4, W_H + 32);
}

// Product of the numbers in the low two 32-bit lanes.
@inline
function mul(a: v128, b: v128): v128 {
  return i64x2.extmul_low_i32x4_u(a, b);
}

@inline
function add(a: v128, b: v128): v128 {
  return v128.add<u64>(a, b);
}

@inline
function sum5(a: v128, b: v128, c: v128, d: v128, e: v128): v128 {
  return add(add(add(add(a, b), c), d), e);
}

// Moves the low half of both 64-bit lanes to the low two 32-bit lanes.
@inline
function narrow(a: v128): v128 {
  return v128.shuffle<u32>(a, a, 0, 2, 0, 2);
}

// One limb of h in all lanes.
@inline
function splatLimb(work: usize, limb: usize): v128 {
  return v128.splat<u32>(load<u32>(work + 8 * limb, W_H));
}

/**
 * Absorbs `blocks` message blocks, a multiple of 4 and at least 4. h must be
 * zero (nothing absorbed yet).
 */
function absorbWide(work: usize, ptr: usize, blocks: u32): void {
  v128.store(work, i64x2(0, 0), W_ZERO);
  v128.store(work, i64x2(0, 0), W_ZERO + 16);
  // h = r^2, then r^4, by multiplying with r. p* and q* are their limbs, u* and
  // v* five times those: what wraps past 2^130 comes back times five.
  memory.copy(work + W_H, work + W_R, 40);
  absorb(work, work + W_ZERO, 1, 0);
  const p0 = splatLimb(work, 0), p1 = splatLimb(work, 1), p2 = splatLimb(work, 2);
  const p3 = splatLimb(work, 3), p4 = splatLimb(work, 4);
  absorb(work, work + W_ZERO, 2, 0);
  const q0 = splatLimb(work, 0), q1 = splatLimb(work, 1), q2 = splatLimb(work, 2);
  const q3 = splatLimb(work, 3), q4 = splatLimb(work, 4);
  const five = i32x4.splat(5);
  const u1 = v128.mul<u32>(p1, five), u2 = v128.mul<u32>(p2, five);
  const u3 = v128.mul<u32>(p3, five), u4 = v128.mul<u32>(p4, five);
  const v1 = v128.mul<u32>(q1, five), v2 = v128.mul<u32>(q2, five);
  const v3 = v128.mul<u32>(q3, five), v4 = v128.mul<u32>(q4, five);
  const mask = i64x2.splat(LIMB_MASK);
  const bit = i64x2.splat(BLOCK_BIT);

  let h0 = i64x2(0, 0), h1 = h0, h2 = h0, h3 = h0, h4 = h0;
  for (; blocks; blocks -= 4, ptr += 64) {
    // Blocks 0 and 1, one in each lane.
    let a = v128.load(ptr), b = v128.load(ptr, 16);
    let lo = v128.shuffle<u64>(a, b, 0, 2), hi = v128.shuffle<u64>(a, b, 1, 3);
    const m0 = narrow(v128.and(lo, mask));
    const m1 = narrow(v128.and(v128.shr<u64>(lo, 26), mask));
    const m2 = narrow(v128.and(v128.or(v128.shr<u64>(lo, 52), v128.shl<u64>(hi, 12)), mask));
    const m3 = narrow(v128.and(v128.shr<u64>(hi, 14), mask));
    const m4 = narrow(v128.or(v128.shr<u64>(hi, 40), bit));
    let d0 = sum5(mul(m0, p0), mul(m1, u4), mul(m2, u3), mul(m3, u2), mul(m4, u1));
    let d1 = sum5(mul(m0, p1), mul(m1, p0), mul(m2, u4), mul(m3, u3), mul(m4, u2));
    let d2 = sum5(mul(m0, p2), mul(m1, p1), mul(m2, p0), mul(m3, u4), mul(m4, u3));
    let d3 = sum5(mul(m0, p3), mul(m1, p2), mul(m2, p1), mul(m3, p0), mul(m4, u4));
    let d4 = sum5(mul(m0, p4), mul(m1, p3), mul(m2, p2), mul(m3, p1), mul(m4, p0));

    // Blocks 2 and 3.
    a = v128.load(ptr, 32), b = v128.load(ptr, 48);
    lo = v128.shuffle<u64>(a, b, 0, 2), hi = v128.shuffle<u64>(a, b, 1, 3);
    d0 = add(d0, v128.and(lo, mask));
    d1 = add(d1, v128.and(v128.shr<u64>(lo, 26), mask));
    d2 = add(d2, v128.and(v128.or(v128.shr<u64>(lo, 52), v128.shl<u64>(hi, 12)), mask));
    d3 = add(d3, v128.and(v128.shr<u64>(hi, 14), mask));
    d4 = add(d4, v128.or(v128.shr<u64>(hi, 40), bit));

    // The previous sum.
    h0 = narrow(h0), h1 = narrow(h1), h2 = narrow(h2), h3 = narrow(h3), h4 = narrow(h4);
    d0 = add(d0, sum5(mul(h0, q0), mul(h1, v4), mul(h2, v3), mul(h3, v2), mul(h4, v1)));
    d1 = add(d1, sum5(mul(h0, q1), mul(h1, q0), mul(h2, v4), mul(h3, v3), mul(h4, v2)));
    d2 = add(d2, sum5(mul(h0, q2), mul(h1, q1), mul(h2, q0), mul(h3, v4), mul(h4, v3)));
    d3 = add(d3, sum5(mul(h0, q3), mul(h1, q2), mul(h2, q1), mul(h3, q0), mul(h4, v4)));
    d4 = add(d4, sum5(mul(h0, q4), mul(h1, q3), mul(h2, q2), mul(h3, q1), mul(h4, q0)));

    // Two carry chains side by side, as in `absorb`.
    d1 = add(d1, v128.shr<u64>(d0, 26));
    d4 = add(d4, v128.shr<u64>(d3, 26));
    d2 = add(d2, v128.shr<u64>(d1, 26));
    const top = v128.shr<u64>(d4, 26);
    h0 = add(v128.and(d0, mask), add(top, v128.shl<u64>(top, 2)));
    h3 = add(v128.and(d3, mask), v128.shr<u64>(d2, 26));
    h1 = add(v128.and(d1, mask), v128.shr<u64>(h0, 26));
    h4 = add(v128.and(d4, mask), v128.shr<u64>(h3, 26));
    h2 = v128.and(d2, mask);
    h0 = v128.and(h0, mask);
    h3 = v128.and(h3, mask);
  }

  // h = (lane0·r + lane1)·r
  storeLane0(work, h0, h1, h2, h3, h4);
  absorb(work, work + W_ZERO, 1, 0);
  addLane1(work, h0, 0);
  addLane1(work, h1, 8);
  addLane1(work, h2, 16);
  addLane1(work, h3, 24);
  addLane1(work, h4, 32);
  absorb(work, work + W_ZERO, 1, 0);
}

@inline
function storeLane0(work: usize, h0: v128, h1: v128, h2: v128, h3: v128, h4: v128): void {
  store<u64>(work, v128.extract_lane<u64>(h0, 0), W_H);
  store<u64>(work, v128.extract_lane<u64>(h1, 0), W_H + 8);
  store<u64>(work, v128.extract_lane<u64>(h2, 0), W_H + 16);
  store<u64>(work, v128.extract_lane<u64>(h3, 0), W_H + 24);
  store<u64>(work, v128.extract_lane<u64>(h4, 0), W_H + 32);
}

@inline
function addLane1(work: usize, h: v128, offset: usize): void {
  const at = work + W_H + offset;
  store<u64>(at, load<u64>(at) + v128.extract_lane<u64>(h, 1));
}

/** The first `n` bytes of `v`, and zeros after them. */
@inline
export function firstBytes(v: v128, n: u32): v128 {
  const index = i8x16(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  return v128.and(v, v128.lt<u8>(index, v128.splat<u8>(<u8>n)));
}

/**
 * Writes to `tag` the tag of the `length` bytes at `ptr` (no additional data)
 * under the one-time key at `key`: r in its first 16 bytes, s in its last.
 * Reads up to 15 bytes past the message, inside the packet's tag.
 */
export function poly1305(work: usize, key: usize, ptr: usize, length: u32, tag: usize): void {
  start(work, key);
  let blocks = length >> 4;
  if (blocks >= WIDE_BLOCKS_MIN) {
    const wide = blocks & ~3;
    absorbWide(work, ptr, wide);
    ptr += 16 * wide;
    blocks -= wide;
  }
  if (blocks) absorb(work, ptr, blocks, BLOCK_BIT);

  const rest = length & 15;
  if (rest) {
    v128.store(work, firstBytes(v128.load(ptr + 16 * blocks), rest), W_TAIL);
  }
  v128.store(work, i64x2(0, 0), W_TAIL + 16);
  store<u32>(work, length, W_TAIL + 24);
  if (rest) absorb(work, work + W_TAIL, 2, BLOCK_BIT);
  else absorb(work, work + W_TAIL + 16, 1, BLOCK_BIT);
  finish(work, key + 16, tag);
}

/** tag = (h mod p + s) mod 2^128, s being the 16 bytes at `pad`. */
function finish(work: usize, pad: usize, tag: usize): void {
  let h0 = load<u64>(work, W_H), h1 = load<u64>(work, W_H + 8), h2 = load<u64>(work, W_H + 16);
  let h3 = load<u64>(work, W_H + 24), h4 = load<u64>(work, W_H + 32);
  // Carry h1..h4 so that h < 2p, then q = 1 if h >= p.
  h2 += h1 >> 26, h1 &= LIMB_MASK;
  h3 += h2 >> 26, h2 &= LIMB_MASK;
  h4 += h3 >> 26, h3 &= LIMB_MASK;
  h0 += (h4 >> 26) * 5, h4 &= LIMB_MASK;
  let q = (h0 + 5) >> 26;
  q = (h1 + q) >> 26;
  q = (h2 + q) >> 26;
  q = (h3 + q) >> 26;
  q = (h4 + q) >> 26;
  // h - q·p = h + 5q - q·2^130; bits from 128 up do not matter any more.
  h0 += q * 5;
  h1 += h0 >> 26, h0 &= LIMB_MASK;
  h2 += h1 >> 26, h1 &= LIMB_MASK;
  h3 += h2 >> 26, h2 &= LIMB_MASK;
  h4 += h3 >> 26, h3 &= LIMB_MASK;

  const s = load<u64>(pad);
  const lo = (h0 | (h1 << 26) | (h2 << 52)) + s;
  const hi = ((h2 >> 12) | (h3 << 14) | (h4 << 40)) + load<u64>(pad, 8) + <u64>(lo < s);
  store<u64>(tag, lo);
  store<u64>(tag, hi, 8);
}
