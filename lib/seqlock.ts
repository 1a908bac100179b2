/**
 * What a sequence lock takes on machines that reorder plain loads and stores, as
 * arm64 does. A word of the arena is odd while somebody writes, and counts on
 * with each write; a reader copies what it guards and believes the copy if the
 * word was even and is unchanged. The kernel's `seqlock.h`. Pure.
 *
 * @module
 */

/**
 * Whether nobody has begun to write since `word` was `seq`. It changes nothing,
 * but counts as a store, which no load that comes before it can pass; a load of
 * `word` could be done before theirs.
 */
export function isUnchanged(
  i32: Int32Array<SharedArrayBuffer>,
  word: number,
  seq: number,
): boolean {
  return Atomics.or(i32, word, 0) === seq;
}

/**
 * Copies words to what is guarded, once the sequence number is odd: plain stores
 * could be seen before that.
 */
export function storeWords(
  i32: Int32Array<SharedArrayBuffer>,
  to: number,
  from: number,
  count: number,
): void {
  for (let i = 0; i < count; i++) Atomics.store(i32, to + i, i32[from + i]);
}
