/**
 * Lookups of allowed IPs, a worker's side of lib/allowedips: without locks, in
 * the tables of single addresses first (lib/hosts), then in the tries. Pure;
 * reference §8.
 *
 * How a reader sees the tries before or after an update, never in between:
 * - A new node is complete before one store links it. Everything about a node
 *   that a reader uses is then fixed, but for its peer and its children.
 * - A removal or change of owner takes effect by one store to the peer's field;
 *   nodes that this makes useless are unlinked then, which changes no answer,
 *   and freed after a grace period (lib/epoch).
 * - A reader that walks down while several updates pass could still combine an
 *   old owner above with a missing prefix below: an answer that never was right.
 *   So the trie's version counts up before each removal and change of owner, and
 *   a lookup during which it changed starts over. A lookup that counts meets one
 *   such update at most, and then insertions of new nodes, which only ever make
 *   answers longer: going down, it meets each prefix that was there when it read
 *   the owner of a shorter one. Loading a table makes nobody start over.
 * - A single address is the longest prefix that there can be, so what its table
 *   says is the answer. It is entered there after it is in the trie, and taken
 *   out before the trie changes.
 *
 * @module
 */
import { type Arena, TRIE_NODE_WORDS } from "./arena.ts";
import { bug } from "./assert.ts";
import { HostsReader, keyOfWords } from "./hosts.ts";
import { MAX_PEERS_PER_DEVICE } from "./messages.ts";

/** Header words of the tries; 576 to 591 are ours. */
export const ROOT_V4 = 576;
export const VERSION_V4 = 577;
export const ROOT_V6 = 578;
export const VERSION_V6 = 579;
/** Headers of the tables of single addresses. */
export const HOSTS_V4 = 580;
export const HOSTS_V6 = 582;

/**
 * One node, in words; its number is its word in the arena. What lookups read
 * comes first: for IPv4 a quarter of a cache line, for IPv6 seven words.
 */
export const NODE = {
  /** Owner times 256 (0: glue), plus the prefix length, which never changes. */
  OWNER: 0,
  CHILD: 1,
  /** Prefix, masked: one 32-bit number for IPv4, four for IPv6. */
  KEY: 3,
  // Control alone.
  PARENT: 7,
  /** The peer's list, in the order of insertion. */
  LIST_NEXT: 8,
  LIST_PREV: 9,
  /** Words of the key: 1 or 4. */
  KEY_WORDS: 10,
  WORDS: 12,
} as const;
bug(NODE.WORDS === TRIE_NODE_WORDS, "a node has its size");
bug(MAX_PEERS_PER_DEVICE < 1 << 22, "owner and prefix length share a word");

export const CIDR_MASK = 255;
export const OWNER_SHIFT = 8;

/** A worker's side: lookups of addresses that lie in the arena. */
export class AllowedIpsReader {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #u8: Uint8Array<SharedArrayBuffer>;
  readonly #hosts4: HostsReader;
  readonly #hosts6: HostsReader;

  /** A reader of this arena's tries, for any thread. */
  constructor(arena: Arena) {
    this.#i32 = arena.i32;
    this.#u8 = arena.u8;
    this.#hosts4 = new HostsReader(arena, HOSTS_V4, arena.layout.hosts4);
    this.#hosts6 = new HostsReader(arena, HOSTS_V6, arena.layout.hosts6);
  }

  /**
   * The peer that owns the longest prefix of the IPv4 address at `byteOffset`,
   * or 0. Call between `enter` and `leave` of the worker's epoch.
   */
  lookup4(byteOffset: number): number {
    const i32 = this.#i32;
    const key = this.#key(byteOffset);
    const owner = this.#hosts4.find(key);
    if (owner !== 0) return owner;
    for (;;) {
      const version = Atomics.load(i32, VERSION_V4);
      let node = i32[ROOT_V4];
      let best = 0;
      let seen = node;
      while (node !== 0) {
        const owner = i32[node + NODE.OWNER];
        const cidr = owner & CIDR_MASK;
        seen |= owner;
        if (Math.clz32(key ^ i32[node + NODE.KEY]) < cidr) break;
        if (owner > CIDR_MASK) best = owner >> OWNER_SHIFT;
        if (cidr === 32) break;
        node = i32[node + NODE.CHILD + ((key >>> (31 - cidr)) & 1)];
        seen |= node;
      }
      if (this.#unchanged(VERSION_V4, version, seen)) return best;
    }
  }

  /** The same for the IPv6 address at `byteOffset`. */
  lookup6(byteOffset: number): number {
    const i32 = this.#i32;
    const host = this.#hosts6.empty ? 0 : this.#host6(byteOffset);
    if (host !== 0) return host;
    for (;;) {
      const version = Atomics.load(i32, VERSION_V6);
      let node = i32[ROOT_V6];
      let best = 0;
      let seen = node;
      // Key words before `at` match: a child's prefix extends its parent's.
      let at = 0;
      let key = this.#key(byteOffset);
      descent: while (node !== 0) {
        const owner = i32[node + NODE.OWNER];
        const cidr = owner & CIDR_MASK;
        seen |= owner;
        for (const last = cidr >>> 5; at < last;) {
          if (key !== i32[node + NODE.KEY + at]) break descent;
          if (++at < 4) key = this.#key(byteOffset + 4 * at);
        }
        const rest = cidr & 31;
        if (
          rest !== 0 && Math.clz32(key ^ i32[node + NODE.KEY + at]) < rest
        ) break;
        if (owner > CIDR_MASK) best = owner >> OWNER_SHIFT;
        if (at === 4) break;
        node = i32[node + NODE.CHILD + ((key >>> (31 - rest)) & 1)];
        seen |= node;
      }
      if (this.#unchanged(VERSION_V6, version, seen)) return best;
    }
  }

  /** The owner of the single IPv6 address at `byteOffset`, or 0: ask the trie. */
  #host6(byteOffset: number): number {
    const i32 = this.#i32;
    const a = this.#key(byteOffset);
    const b = this.#key(byteOffset + 4);
    const c = this.#key(byteOffset + 8);
    const d = this.#key(byteOffset + 12);
    const node = this.#hosts6.find(keyOfWords(a, b, c, d));
    // Another's, if two addresses have one key.
    const key = node + NODE.KEY;
    if (
      node === 0 || i32[key + 3] !== d || i32[key + 2] !== c ||
      i32[key + 1] !== b || i32[key] !== a
    ) return 0;
    return i32[node + NODE.OWNER] >> OWNER_SHIFT;
  }

  /**
   * Whether the version is still the same. `seen` holds the bits of all owners
   * and children read, which are below 2^31: it adds nothing to the address, but
   * no machine can read the version before it has read them (arm64 could).
   */
  #unchanged(word: number, version: number, seen: number): boolean {
    return Atomics.load(this.#i32, word + (seen >>> 31)) === version;
  }

  #key(at: number): number {
    const u8 = this.#u8;
    return (u8[at] << 24) | (u8[at + 1] << 16) | (u8[at + 2] << 8) | u8[at + 3];
  }
}
