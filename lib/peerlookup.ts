/**
 * The two hash tables that find a peer: by public key, and by the 32-bit index
 * that its messages carry. Mirrors the kernel's `peerlookup.c`. Chains run
 * through the records themselves (PEER, SESSION, KEYPAIR), so that a table costs
 * its buckets and nothing an entry. Control alone writes; inbound reads the
 * index table without locks. Pure; reference §3.
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { bug } from "./assert.ts";
import { PUBLIC_KEY_LEN } from "./messages.ts";
import { KEYPAIR, PEER, SESSION } from "./records.ts";
import { SipHash } from "./siphash.ts";

/** Header word: counts removals from the index table. Words 512 to 575 are ours. */
export const INDEX_VERSION = 512;

/** A reference in a chain of the index table: the number twice, plus the kind. */
const KIND_SESSION = 0;
const KIND_KEYPAIR = 1;

const INDICES_DRAWN_AT_ONCE = 64;

/** Fills `bytes` from a cryptographic generator: `crypto.getRandomValues` will do. */
export type FillRandom = (bytes: Uint8Array<ArrayBuffer>) => unknown;

/** Buckets that the public-key table begins with. */
const PUBLIC_KEY_BUCKETS_MIN = 64;

/**
 * Peers by public key. Control only.
 *
 * It grows by linear hashing: a bucket more for each peer more than there are
 * buckets. So it touches memory for the peers that there are, and is never
 * rebuilt in one go.
 */
export class PublicKeyTable {
  readonly #arena: Arena;
  readonly #u32: Uint32Array;
  readonly #hash: SipHash;
  readonly #buckets: number;
  readonly #bucketsMax: number;
  #bucketCount: number;
  #count = 0;

  /** @param key 16 random bytes, this device's own */
  constructor(arena: Arena, key: Uint8Array) {
    this.#arena = arena;
    this.#u32 = arena.u32;
    this.#hash = new SipHash(key);
    this.#buckets = arena.layout.publicKeyBuckets;
    this.#bucketsMax = arena.layout.publicKeyBucketCount;
    this.#bucketCount = Math.min(PUBLIC_KEY_BUCKETS_MIN, this.#bucketsMax);
  }

  /** Adds a peer whose PUBLIC_KEY is set and in no other peer of the table. */
  insert(peer: number): void {
    this.#link(peer);
    this.#count++;
    if (this.#count > this.#bucketCount) this.#grow();
  }

  /** The peer with this public key of 32 bytes, or 0. */
  find(key: Uint8Array): number {
    bug(key.length === PUBLIC_KEY_LEN, "a public key has 32 bytes");
    const u32 = this.#u32;
    let peer = u32[this.#bucket(key, 0)];
    while (peer !== 0) {
      const word = this.#arena.peer(peer);
      if (this.#equals((word + PEER.PUBLIC_KEY) * 4, key)) return peer;
      peer = u32[word + PEER.HASH_NEXT];
    }
    return 0;
  }

  /** Takes a peer out; false if it was not in the table. */
  remove(peer: number): boolean {
    const u32 = this.#u32;
    const word = this.#arena.peer(peer);
    let link = this.#bucket(this.#arena.u8, (word + PEER.PUBLIC_KEY) * 4);
    while (u32[link] !== peer) {
      if (u32[link] === 0) return false;
      link = this.#arena.peer(u32[link]) + PEER.HASH_NEXT;
    }
    u32[link] = u32[word + PEER.HASH_NEXT];
    u32[word + PEER.HASH_NEXT] = 0;
    this.#count--;
    return true;
  }

  #link(peer: number): void {
    const word = this.#arena.peer(peer);
    const key = (word + PEER.PUBLIC_KEY) * 4;
    const bucket = this.#bucket(this.#arena.u8, key);
    this.#u32[word + PEER.HASH_NEXT] = this.#u32[bucket];
    this.#u32[bucket] = peer;
  }

  /** Splits the oldest bucket that has not been split in this round. */
  #grow(): void {
    if (this.#bucketCount === this.#bucketsMax) return;
    const half = this.#round() / 2;
    const split = this.#buckets + this.#bucketCount - half;
    this.#bucketCount++;
    let peer = this.#u32[split];
    this.#u32[split] = 0;
    while (peer !== 0) {
      const next = this.#u32[this.#arena.peer(peer) + PEER.HASH_NEXT];
      this.#link(peer);
      peer = next;
    }
  }

  /** Buckets that there will be at the end of this round: a power of two. */
  #round(): number {
    return 2 ** (32 - Math.clz32(this.#bucketCount));
  }

  #bucket(bytes: Uint8Array, offset: number): number {
    const hash = this.#hash.hash(bytes, offset, PUBLIC_KEY_LEN);
    const round = this.#round();
    const bucket = hash & (round - 1);
    // Not there yet: its peers are in the bucket that will be split.
    return this.#buckets +
      (bucket < this.#bucketCount ? bucket : bucket & (round / 2 - 1));
  }

  #equals(offset: number, key: Uint8Array): boolean {
    const u8 = this.#arena.u8;
    for (let i = 0; i < PUBLIC_KEY_LEN; i++) {
      if (u8[offset + i] !== key[i]) return false;
    }
    return true;
  }
}

/**
 * A worker's side of the index table.
 *
 * How a reader without locks finds what is there: a match is checked against the
 * record's own LOCAL_INDEX, so a hit is never another's. To miss an entry that
 * stays, a reader must be led out of its chain, and the one way out is a record
 * that was unlinked while the reader stood on it and then linked elsewhere (a
 * session that draws a new index). Control counts INDEX_VERSION up between the
 * two, so a miss that saw the same version before and after is a true one, and
 * any other is looked up again. Insertion (at the head of a chain) needs no
 * count: it changes no link that a reader can stand before.
 *
 * A record that left the table keeps its link until it is linked again or freed,
 * so a reader on it walks on. That is why sessions as well as keypairs may be
 * zeroed only after a grace period (lib/epoch).
 */
export class IndexReader {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #buckets: number;
  readonly #mask: number;
  readonly #sessions: number;
  readonly #keypairs: number;

  /** A reader of this arena's table, for any thread. */
  constructor(arena: Arena) {
    this.#i32 = arena.i32;
    this.#buckets = arena.layout.indexBuckets;
    this.#mask = arena.layout.indexBucketCount - 1;
    this.#sessions = arena.session(0) + SESSION.INDEX_NEXT;
    this.#keypairs = arena.keypair(0);
  }

  /**
   * The keypair with this local index, or 0. Call between `enter` and `leave` of
   * the worker's epoch; the keypair may have left the table since.
   */
  findKeypair(index: number): number {
    const i32 = this.#i32;
    const wanted = index | 0;
    // Records on their way out of the table hold 0: they must not match.
    if (wanted === 0) return 0;
    let ref = i32[this.#buckets + (wanted & this.#mask)];
    while (ref !== 0) {
      const number = ref >>> 1;
      if ((ref & 1) === KIND_KEYPAIR) {
        const word = this.#keypairs + number * KEYPAIR.WORDS;
        if (i32[word + KEYPAIR.LOCAL_INDEX] === wanted) return number;
        ref = i32[word + KEYPAIR.INDEX_NEXT];
      } else {
        ref = i32[this.#sessions + number * SESSION.WORDS];
      }
    }
    return this.#confirmMiss(wanted);
  }

  /**
   * Walks again until nothing was unlinked during the walk. The links are read
   * atomically so that no machine reads them after the version.
   */
  #confirmMiss(wanted: number): number {
    const i32 = this.#i32;
    for (;;) {
      const version = Atomics.load(i32, INDEX_VERSION);
      let ref = Atomics.load(i32, this.#buckets + (wanted & this.#mask));
      while (ref !== 0) {
        const number = ref >>> 1;
        if ((ref & 1) === KIND_KEYPAIR) {
          const word = this.#keypairs + number * KEYPAIR.WORDS;
          if (i32[word + KEYPAIR.LOCAL_INDEX] === wanted) return number;
          ref = Atomics.load(i32, word + KEYPAIR.INDEX_NEXT);
        } else {
          ref = Atomics.load(i32, this.#sessions + number * SESSION.WORDS);
        }
      }
      if (Atomics.load(i32, INDEX_VERSION) === version) return 0;
    }
  }
}

/**
 * Sessions (handshakes under way) and keypairs by local index: control's side.
 * An index is never 0, so LOCAL_INDEX is 0 while a record is in no table.
 */
export class IndexTable extends IndexReader {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #fill: FillRandom;
  readonly #drawn = new Uint32Array(INDICES_DRAWN_AT_ONCE);
  #left = 0;
  #entries = 0;

  /** @param fill source of the indices; they must not be predictable */
  constructor(arena: Arena, fill: FillRandom) {
    super(arena);
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#fill = fill;
  }

  /** Entries of both kinds. */
  get entries(): number {
    return this.#entries;
  }

  /**
   * Draws an unused index for a session, stores it in LOCAL_INDEX and enters it;
   * the session's old entry goes first. Returns the index, unsigned.
   */
  insertSession(session: number): number {
    const i32 = this.#i32;
    this.removeSession(session);
    const index = this.#draw();
    const word = this.#arena.session(session);
    const bucket = this.#bucket(index);
    i32[word + SESSION.LOCAL_INDEX] = index;
    Atomics.store(i32, word + SESSION.INDEX_NEXT, i32[bucket]);
    Atomics.store(i32, bucket, (session << 1) | KIND_SESSION);
    this.#entries++;
    return index >>> 0;
  }

  /**
   * The keypair takes over the session's entry and index, in one store; the
   * session's LOCAL_INDEX becomes 0. False if the session has no entry.
   */
  replaceWithKeypair(session: number, keypair: number): boolean {
    const i32 = this.#i32;
    const from = this.#arena.session(session);
    const to = this.#arena.keypair(keypair);
    const index = i32[from + SESSION.LOCAL_INDEX];
    bug(i32[to + KEYPAIR.LOCAL_INDEX] === 0, "the keypair has no entry yet");
    const link = this.#linkTo(index, (session << 1) | KIND_SESSION);
    if (link === 0) return false;
    i32[to + KEYPAIR.LOCAL_INDEX] = index;
    Atomics.store(i32, to + KEYPAIR.INDEX_NEXT, i32[from + SESSION.INDEX_NEXT]);
    Atomics.store(i32, link, (keypair << 1) | KIND_KEYPAIR);
    Atomics.add(i32, INDEX_VERSION, 1);
    i32[from + SESSION.LOCAL_INDEX] = 0;
    return true;
  }

  /** Takes a session's entry out and clears LOCAL_INDEX; false if it had none. */
  removeSession(session: number): boolean {
    const word = this.#arena.session(session);
    return this.#unlink(
      (session << 1) | KIND_SESSION,
      word + SESSION.LOCAL_INDEX,
      word + SESSION.INDEX_NEXT,
    );
  }

  /** Takes a keypair's entry out and clears LOCAL_INDEX; false if it had none. */
  removeKeypair(keypair: number): boolean {
    const word = this.#arena.keypair(keypair);
    return this.#unlink(
      (keypair << 1) | KIND_KEYPAIR,
      word + KEYPAIR.LOCAL_INDEX,
      word + KEYPAIR.INDEX_NEXT,
    );
  }

  /** The session with this local index, or 0. */
  findSession(index: number): number {
    const ref = this.#find(index | 0);
    return (ref & 1) === KIND_SESSION ? ref >>> 1 : 0;
  }

  /** The peer whose session or keypair has this local index, or 0. */
  findByIndexForCookie(index: number): number {
    const ref = this.#find(index | 0);
    if (ref === 0) return 0;
    return this.#i32[
      (ref & 1) === KIND_KEYPAIR
        ? this.#arena.keypair(ref >>> 1) + KEYPAIR.PEER
        : this.#arena.session(ref >>> 1) + SESSION.PEER
    ];
  }

  /** A random index that is not 0 and in nobody's use. */
  #draw(): number {
    for (;;) {
      if (this.#left === 0) {
        this.#fill(new Uint8Array(this.#drawn.buffer));
        this.#left = INDICES_DRAWN_AT_ONCE;
      }
      const index = this.#drawn[--this.#left] | 0;
      this.#drawn[this.#left] = 0;
      if (index !== 0 && this.#find(index) === 0) return index;
    }
  }

  #unlink(ref: number, indexWord: number, nextWord: number): boolean {
    const i32 = this.#i32;
    const link = this.#linkTo(i32[indexWord], ref);
    if (link === 0) return false;
    Atomics.store(i32, link, i32[nextWord]);
    Atomics.add(i32, INDEX_VERSION, 1);
    i32[indexWord] = 0;
    this.#entries--;
    return true;
  }

  /** The word that holds `ref` in the chain of `index`, or 0. */
  #linkTo(index: number, ref: number): number {
    if (index === 0) return 0;
    const i32 = this.#i32;
    let link = this.#bucket(index);
    while (i32[link] !== ref) {
      if (i32[link] === 0) return 0;
      link = this.#nextOf(i32[link]);
    }
    return link;
  }

  /** The reference with local index `index`, or 0. */
  #find(index: number): number {
    const i32 = this.#i32;
    if (index === 0) return 0;
    let ref = i32[this.#bucket(index)];
    while (ref !== 0) {
      const word = (ref & 1) === KIND_KEYPAIR
        ? this.#arena.keypair(ref >>> 1) + KEYPAIR.LOCAL_INDEX
        : this.#arena.session(ref >>> 1) + SESSION.LOCAL_INDEX;
      if (i32[word] === index) return ref;
      ref = i32[this.#nextOf(ref)];
    }
    return 0;
  }

  #bucket(index: number): number {
    const { indexBuckets, indexBucketCount } = this.#arena.layout;
    return indexBuckets + (index & (indexBucketCount - 1));
  }

  #nextOf(ref: number): number {
    return (ref & 1) === KIND_KEYPAIR
      ? this.#arena.keypair(ref >>> 1) + KEYPAIR.INDEX_NEXT
      : this.#arena.session(ref >>> 1) + SESSION.INDEX_NEXT;
  }
}
