/**
 * Allowed IPs: two path-compressed binary tries, IPv4 and IPv6, in which the
 * longest prefix wins. Mirrors the kernel's `allowedips.c`. Nodes live in the
 * arena (`trieNodes`); a node with a peer is an allowed IP, a node without one
 * ("glue") forks and so has two children: never more than two nodes a prefix.
 * Control alone writes, both workers look up without locks: lib/allowedips_read
 * has how that goes together. Pure; reference §8.
 *
 * @module
 */
import {
  AllowedIpsReader,
  CIDR_MASK,
  HOSTS_V4,
  HOSTS_V6,
  NODE,
  OWNER_SHIFT,
  ROOT_V4,
  ROOT_V6,
  VERSION_V4,
  VERSION_V6,
} from "./allowedips_read.ts";
import { type Arena, Pool } from "./arena.ts";
import { bug } from "./assert.ts";
import type { Free, Grace } from "./epoch.ts";
import { Hosts, keyOfWords } from "./hosts.ts";
import { PEER } from "./records.ts";

export { AllowedIpsReader } from "./allowedips_read.ts";

/** Control's side: both tries and the peers' lists. */
export class AllowedIps extends AllowedIpsReader {
  readonly #arena: Arena;
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #grace: Grace;
  readonly #pool: Pool;
  readonly #free: Free;
  readonly #hosts4: Hosts;
  readonly #hosts6: Hosts;
  /** The prefix in hand, masked. */
  readonly #prefix = new Int32Array(4);
  #size = 0;

  /** @param grace frees the nodes that readers may hold */
  constructor(arena: Arena, grace: Grace) {
    super(arena);
    this.#arena = arena;
    this.#i32 = arena.i32;
    this.#grace = grace;
    const { hosts4, hosts6, hostBucketCount } = arena.layout;
    this.#hosts4 = new Hosts(arena, HOSTS_V4, hosts4, hostBucketCount);
    this.#hosts6 = new Hosts(arena, HOSTS_V6, hosts6, hostBucketCount);
    this.#pool = new Pool(
      arena,
      arena.layout.trieNodes,
      NODE.WORDS,
      arena.limits.allowedIpNodes,
    );
    this.#free = (node: number): void => {
      arena.zero(node, NODE.WORDS);
      this.#pool.free((node - arena.layout.trieNodes) / NODE.WORDS);
    };
  }

  /** Allowed IPs of all peers. */
  get size(): number {
    return this.#size;
  }

  /** Nodes in use: allowed IPs, glue, and nodes that wait for a grace period. */
  get nodes(): number {
    return this.#pool.used;
  }

  /**
   * Gives a prefix to `peer`, at the end of its list, whoever had it before; host
   * bits are masked. False, and nothing changed, when there is no node left
   * (ENOMEM): some may come back after a grace period.
   *
   * @param address 4 or 16 bytes
   * @param cidr at most 32 or 128
   */
  insert(address: Uint8Array, cidr: number, peer: number): boolean {
    const i32 = this.#i32;
    const keyWords = this.#setPrefix(address, cidr);
    let parent = 0;
    let link = rootOf(keyWords);
    let node = i32[link];
    let common = 0;
    while (node !== 0) {
      const nodeCidr = this.cidrOf(node);
      common = Math.min(this.#commonBits(node, keyWords), cidr, nodeCidr);
      if (common < nodeCidr) break;
      if (nodeCidr === cidr) {
        this.#setOwner(node, peer);
        return true;
      }
      parent = node;
      link = this.#childLink(node);
      node = i32[link];
    }

    // `node`, if any, stays below: of the new one, or beside it below glue.
    const added = this.#newNode(cidr, keyWords);
    if (added === 0) return false;
    let top = added;
    if (node !== 0 && common === cidr) {
      this.#adopt(added, node);
    } else if (node !== 0) {
      top = this.#newNode(common, keyWords);
      if (top === 0) {
        this.#free(added);
        return false;
      }
      this.#adopt(top, node);
      this.#adopt(top, added);
    }
    i32[added + NODE.OWNER] = (peer << OWNER_SHIFT) | cidr;
    i32[top + NODE.PARENT] = parent;
    Atomics.store(i32, link, top);
    this.#insertHost(added, peer);
    this.#append(added, peer);
    this.#size++;
    return true;
  }

  /** Takes a prefix from `peer`; false if the peer does not own exactly that one. */
  remove(address: Uint8Array, cidr: number, peer: number): boolean {
    const i32 = this.#i32;
    const keyWords = this.#setPrefix(address, cidr);
    let node = i32[rootOf(keyWords)];
    while (node !== 0) {
      const nodeCidr = this.cidrOf(node);
      if (nodeCidr > cidr) return false;
      if (this.#commonBits(node, keyWords) < nodeCidr) return false;
      if (nodeCidr === cidr) {
        if (this.#peerOf(node) !== peer) return false;
        this.#removeNode(node);
        return true;
      }
      node = i32[this.#childLink(node)];
    }
    return false;
  }

  /** Takes all prefixes, `limit` at most, from `peer`; returns how many. */
  removeByPeer(peer: number, limit = Infinity): number {
    let count = 0;
    for (let node; count < limit && (node = this.first(peer)) !== 0;) {
      this.#removeNode(node);
      count++;
    }
    return count;
  }

  /** First allowed IP of `peer`, or 0: a cursor, good until the next update. */
  first(peer: number): number {
    return this.#i32[this.#arena.peer(peer) + PEER.ALLOWED_FIRST];
  }

  /** The allowed IP after `node` in its peer's list, or 0. */
  next(node: number): number {
    return this.#i32[node + NODE.LIST_NEXT];
  }

  /** Prefix length of an allowed IP. */
  cidrOf(node: number): number {
    return this.#i32[node + NODE.OWNER] & CIDR_MASK;
  }

  /** Writes the masked address into `out`, at least 16 bytes; returns 4 or 16. */
  prefixOf(node: number, out: Uint8Array): number {
    const length = 4 * this.#i32[node + NODE.KEY_WORDS];
    for (let i = 0; i < length; i++) {
      out[i] = this.#i32[node + NODE.KEY + (i >>> 2)] >>> (24 - 8 * (i & 3));
    }
    return length;
  }

  /** Loads `#prefix` from an address, masked; returns its words. */
  #setPrefix(address: Uint8Array, cidr: number): number {
    bug(address.length === 4 || address.length === 16, "an IP address");
    bug(cidr >= 0 && cidr <= 8 * address.length, "cidr fits the address");
    const keyWords = address.length >>> 2;
    for (let i = 0; i < keyWords; i++) {
      const at = 4 * i;
      const word = (address[at] << 24) | (address[at + 1] << 16) |
        (address[at + 2] << 8) | address[at + 3];
      this.#prefix[i] = maskWord(word, cidr - 32 * i);
    }
    return keyWords;
  }

  /** A node without owner for the first `cidr` bits of `#prefix`, or 0. */
  #newNode(cidr: number, keyWords: number): number {
    const record = this.#pool.alloc();
    if (record === 0) return 0;
    const i32 = this.#i32;
    const node = this.#arena.trieNode(record);
    for (let i = 0; i < keyWords; i++) {
      i32[node + NODE.KEY + i] = maskWord(this.#prefix[i], cidr - 32 * i);
    }
    i32[node + NODE.OWNER] = cidr;
    i32[node + NODE.KEY_WORDS] = keyWords;
    return node;
  }

  /** Hangs `child` below `parent`, which no reader sees yet. */
  #adopt(parent: number, child: number): void {
    const bit = bitOf(this.#i32, child + NODE.KEY, this.cidrOf(parent));
    this.#i32[parent + NODE.CHILD + bit] = child;
    this.#i32[child + NODE.PARENT] = parent;
  }

  /** Gives an existing node to `peer`. */
  #setOwner(node: number, peer: number): void {
    const owner = this.#peerOf(node);
    if (owner === 0) this.#size++;
    else this.#unlist(node, owner);
    if (owner !== peer) {
      this.#removeHost(node, owner);
      this.#bumpVersion(node);
      this.#publishPeer(node, peer);
      this.#insertHost(node, peer);
    }
    this.#append(node, peer);
  }

  /**
   * Enters a node that is a single address into its table: after the trie has
   * it, and `#removeHost` before the trie changes. So the table never has what
   * the trie has not, and nobody sees a change and then, there, the state before.
   */
  #insertHost(node: number, peer: number): void {
    const words = this.#hostWords(node);
    const key = node + NODE.KEY;
    if (words === 1) this.#hosts4.insert(this.#i32[key], peer);
    if (words === 4) this.#hosts6.insert(this.#key6(key), node);
  }

  #removeHost(node: number, peer: number): void {
    const words = this.#hostWords(node);
    const key = node + NODE.KEY;
    if (words === 1) this.#hosts4.remove(this.#i32[key], peer);
    if (words === 4) this.#hosts6.remove(this.#key6(key), node);
  }

  /** Words of a node's key if it is a single address, else 0. */
  #hostWords(node: number): number {
    const words = this.#i32[node + NODE.KEY_WORDS];
    return this.cidrOf(node) === 32 * words ? words : 0;
  }

  #key6(key: number): number {
    const i32 = this.#i32;
    return keyOfWords(i32[key], i32[key + 1], i32[key + 2], i32[key + 3]);
  }

  /** Takes the owner from a node, and the node out where it does not fork. */
  #removeNode(node: number): void {
    const parent = this.#i32[node + NODE.PARENT];
    this.#unlist(node, this.#peerOf(node));
    this.#size--;
    this.#removeHost(node, this.#peerOf(node));
    this.#bumpVersion(node);
    this.#publishPeer(node, 0);
    if (this.#splice(node) && parent !== 0 && this.#peerOf(parent) === 0) {
      this.#splice(parent);
    }
  }

  /** Puts a node's only child, if any, in its place; false if it has two. */
  #splice(node: number): boolean {
    const i32 = this.#i32;
    const zero = i32[node + NODE.CHILD];
    const one = i32[node + NODE.CHILD + 1];
    if (zero !== 0 && one !== 0) return false;
    const child = zero | one;
    const parent = i32[node + NODE.PARENT];
    let link = rootOf(i32[node + NODE.KEY_WORDS]);
    if (parent !== 0) {
      link = parent + NODE.CHILD;
      if (i32[link] !== node) link++;
    }
    bug(i32[link] === node, "a node hangs below its parent");
    if (child !== 0) i32[child + NODE.PARENT] = parent;
    Atomics.store(i32, link, child);
    this.#grace.retire(this.#free, node);
    return true;
  }

  #bumpVersion(node: number): void {
    const v4 = this.#i32[node + NODE.KEY_WORDS] === 1;
    Atomics.add(this.#i32, v4 ? VERSION_V4 : VERSION_V6, 1);
  }

  #publishPeer(node: number, peer: number): void {
    const value = (peer << OWNER_SHIFT) | this.cidrOf(node);
    Atomics.store(this.#i32, node + NODE.OWNER, value);
  }

  #peerOf(node: number): number {
    return this.#i32[node + NODE.OWNER] >> OWNER_SHIFT;
  }

  /** The word of the child of `node` on the way to `#prefix`. */
  #childLink(node: number): number {
    return node + NODE.CHILD + bitOf(this.#prefix, 0, this.cidrOf(node));
  }

  #append(node: number, peer: number): void {
    const i32 = this.#i32;
    const list = this.#arena.peer(peer);
    const last = i32[list + PEER.ALLOWED_LAST];
    i32[node + NODE.LIST_PREV] = last;
    i32[list + PEER.ALLOWED_LAST] = node;
    if (last === 0) i32[list + PEER.ALLOWED_FIRST] = node;
    else i32[last + NODE.LIST_NEXT] = node;
  }

  #unlist(node: number, peer: number): void {
    const i32 = this.#i32;
    const list = this.#arena.peer(peer);
    const next = i32[node + NODE.LIST_NEXT];
    const prev = i32[node + NODE.LIST_PREV];
    if (prev === 0) i32[list + PEER.ALLOWED_FIRST] = next;
    else i32[prev + NODE.LIST_NEXT] = next;
    if (next === 0) i32[list + PEER.ALLOWED_LAST] = prev;
    else i32[next + NODE.LIST_PREV] = prev;
    i32[node + NODE.LIST_NEXT] = 0;
    i32[node + NODE.LIST_PREV] = 0;
  }

  /** Leading bits that `#prefix` shares with the key of a node. */
  #commonBits(node: number, keyWords: number): number {
    for (let i = 0; i < keyWords; i++) {
      const different = this.#prefix[i] ^ this.#i32[node + NODE.KEY + i];
      if (different !== 0) return 32 * i + Math.clz32(different);
    }
    return 32 * keyWords;
  }
}

/** Bit `bit` of the key at `keyWord`, counted from the most significant. */
function bitOf(i32: Int32Array, keyWord: number, bit: number): number {
  return (i32[keyWord + (bit >>> 5)] >>> (31 - (bit & 31))) & 1;
}

/** The leading `bits` bits of a word; `bits` may be below 0 or above 32. */
function maskWord(word: number, bits: number): number {
  if (bits <= 0) return 0;
  return bits >= 32 ? word : word & (-1 << (32 - bits));
}

function rootOf(keyWords: number): number {
  return keyWords === 1 ? ROOT_V4 : ROOT_V6;
}
