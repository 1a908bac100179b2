/**
 * The arena: one shared WebAssembly.Memory, reserved whole when the device
 * starts (initial = maximum, so that addresses hold), with every region's place
 * computed from the limits. Pages that nobody touches cost nothing, so regions
 * are sized for the limit and laid out so that what is unused stays untouched:
 * zero is the initial state of every record, list and table.
 *
 * Control makes it; workers map the same memory with the same limits.
 *
 * @module
 */
import { bug } from "./assert.ts";
import {
  LANES_MAX,
  MAX_PEERS_PER_DEVICE,
  MAX_QUEUED_INCOMING_HANDSHAKES,
} from "./messages.ts";
import { AEAD_WORK_BYTES } from "./crypto/aead.ts";
import { CHAIN, KEYPAIR, PEER, SESSION } from "./records.ts";

/** How many records of each kind the arena has room for. */
export interface ArenaLimits {
  /** Peers, at most 2^20. */
  readonly peers: number;
  /** Nodes of both allowed-IPs tries: up to two for each allowed IP. */
  readonly allowedIpNodes: number;
  /** Peers with a handshake, session or timer at a time. */
  readonly sessions: number;
  /** Keypairs, up to three for each live session; as many unless told otherwise. */
  readonly keypairs?: number;
  /** Packet slots of the outbound worker: one batch and all staged packets. */
  readonly txSlots: number;
}

/**
 * What a device reserves unless told otherwise. Each peer may have timers, so
 * there are as many sessions; but one core can keep no more than about 120,000
 * sessions in new keys, at 1,000 handshakes a second each 120 s.
 */
export const DEFAULT_LIMITS: Required<ArenaLimits> = {
  peers: MAX_PEERS_PER_DEVICE,
  allowedIpNodes: 1 << 22,
  sessions: MAX_PEERS_PER_DEVICE,
  keypairs: 3 << 17,
  txSlots: 4096,
};
/** Fewest peers that {@link Arena.reserve} tries before it gives up. */
const PEERS_MIN = 256;

/** Most packets that one pass of a worker reads, seals or opens, and writes. */
export const BATCH = 64;

/** Chains of one direction. */
export const CHAINS = 256;
/** Most packets of one direction that wait for a lane (kernel: MAX_QUEUED_PACKETS). */
export const CRYPT_RING_PACKETS = 1024;
/** Slots for what is received: it keeps its slot until it is delivered. */
export const RX_SLOTS = 128;

/**
 * A slot holds one packet of any size, with room before and after it. The odd
 * 192 bytes spread the slots over the sets of the caches.
 */
export const SLOT_BYTES = 17 * 4096 + 192;
/** Payload's place in a slot: headers of the message and of the TUN go before it. */
export const SLOT_HEADROOM = 64;
/** Longest plaintext in a slot; padding and tag go behind it. */
export const SLOT_PAYLOAD_MAX = 65_535;

/** Words of the arena's first page. Each group has a cache line of its own. */
export const HEADER = {
  /** 1 while the workers shall run (control). */
  RUNNING: 16,
  /** 1 while the interface is up and has sockets (control). */
  UP: 17,
  /** MTU of the interface, bytes (control). */
  MTU: 18,
  /** Bumped when the sockets change (control). */
  SOCKETS_GENERATION: 19,
  /** Descriptors of the sockets, -1: none (control). */
  SOCKET_FD: 20,
  SOCKET_FD_COUNT: 2,
  /** Port of the sockets (control). */
  LISTEN_PORT: 22,
  /** Generation of the sockets that each worker uses (that worker). */
  OUTBOUND_SOCKETS: 32,
  INBOUND_SOCKETS: 48,
  /** Set to 1 by outbound when the state of some link changed, cleared by control. */
  LINK_CHANGED: 33,
  /** Set to 1 by outbound when the interface is gone. */
  TUN_GONE: 34,
  /** As LINK_CHANGED, for addresses, routes and rules where the sockets are. */
  ROUTES_CHANGED: 35,
  /** What outbound asks about routes, 9 words (lib/routes). */
  ROUTE_ASKED: 36,
  /** Epochs of the workers, and the last that each is done with (lib/epoch). */
  OUTBOUND_EPOCH: 64,
  INBOUND_EPOCH: 80,
  EPOCH_DONE: 1,
  /** Slots and chains in use: each worker's last word, for accounting. */
  OUTBOUND_SLOTS: 66,
  OUTBOUND_CHAINS: 67,
  /** Two addresses that outbound works with, 8 words (lib/routes). */
  ROUTE_LOOKUP: 68,
  INBOUND_SLOTS: 82,
  INBOUND_CHAINS: 83,
  /** Turns of each loop, so that one that hangs is seen (lib/pulse). */
  OUTBOUND_TURNS: 76,
  INBOUND_TURNS: 84,
  /** 1 while the thread sleeps and wants to be woken (lib/queueing). */
  OUTBOUND_SLEEPS: 96,
  INBOUND_SLEEPS: 112,
  CONTROL_SLEEPS: 128,
  /** Control waits on this word with Atomics.waitAsync. */
  CONTROL_WAKE: 144,
  /** 1: outbound met a message of ours, sent to the address behind (lib/routes). */
  CAME_BACK: 160,
  /** Queues of mailboxes: 64 words each (lib/queueing). */
  COMMANDS_QUEUE: 192,
  OUTBOUND_EVENTS_QUEUE: 256,
  INBOUND_EVENTS_QUEUE: 320,
  /** Rings: 64 words of indices each (lib/queueing), or 32 for one of two. */
  HANDSHAKES_RING: 384,
  COOKIE_HOLDERS_RING: 416,
  MESSAGES_RING: 448,
  /** Words 512 to 591: versions and roots of lib/peerlookup and lib/allowedips. */
  TABLES: 512,
  /** An endpoint block that control works with. */
  SCRATCH_ENDPOINT: 608,
  /** Chains that are done: queues of 64 words (lib/crypt). */
  OUTBOUND_DONE: 640,
  INBOUND_DONE: 704,
  /** Rings of chains that wait for a lane: 64 words of indices each (lib/crypt). */
  OUTBOUND_RING: 768,
  INBOUND_RING: 832,
  /** Lanes that sleep, and the word that they sleep on (lib/lane). */
  LANES_ASLEEP: 896,
  LANES_WAKE: 912,
  /** The chain that each lane works on, 0: none. */
  LANE_CHAINS: 928,
  WORDS: 1024,
} as const;

/** Entries of a ring of whole messages: length, peer, DS field, endpoint, message. */
export const MESSAGE_ENTRY = {
  LENGTH: 0,
  PEER: 1,
  DS: 2,
  ENDPOINT: 3,
  MESSAGE: 16,
  WORDS: 64,
} as const;
/** Of each of the two rings of handshake messages that come in. */
export const HANDSHAKES_RING_CAPACITY = MAX_QUEUED_INCOMING_HANDSHAKES / 2;
export const MESSAGES_RING_CAPACITY = 1024;

/** Answers about routes that are kept, and words of each (lib/routes). */
export const ROUTE_ANSWERS = 256;
export const ROUTE_ANSWER_WORDS = 8;

/** Counters of one thread: as many 64-bit floats at most. */
export const COUNTERS_MAX = 64;
/** Threads that count. */
export const THREAD_CONTROL = 0;
export const THREAD_OUTBOUND = 1;
export const THREAD_INBOUND = 2;
const THREADS = 3;

/** Bytes for one worker's AEAD scratch and system call structures. */
export const WORK_BYTES = 256 * 1024;

const BUCKETS_MIN = 1 << 8;
const INDEX_BUCKETS_MAX = 1 << 18;
const PUBLIC_KEY_BUCKETS_MAX = 1 << 20;
const HOST_BUCKETS_MAX = 1 << 20;
/** Words of a bucket of single addresses: one cache line. */
export const HOST_BUCKET_WORDS = 16;
const PAGE_BYTES = 65_536;
/** Bytes of one node of the allowed-IPs tries, and of one entry of the rate limiter. */
export const TRIE_NODE_WORDS = 12;
export const LIMITER_ENTRY_WORDS = 8;
export const LIMITER_ENTRIES = 65_536;
export const LIMITER_BUCKETS = 8_192;

/** Start of each region, in words from the start of the memory. */
export interface ArenaLayout {
  readonly counters: number;
  readonly handshakesRing: number;
  readonly cookieHoldersRing: number;
  readonly messagesRing: number;
  readonly work: number;
  readonly laneWork: number;
  readonly rings: number;
  readonly chains: number;
  readonly rxSlots: number;
  readonly txSlots: number;
  /** One word for each tx slot: the next of its list. */
  readonly txSlotLinks: number;
  /** One word for each tx slot: bytes of payload. */
  readonly txSlotLengths: number;
  readonly indexBuckets: number;
  /** A power of two. */
  readonly indexBucketCount: number;
  readonly publicKeyBuckets: number;
  readonly publicKeyBucketCount: number;
  readonly routeAnswers: number;
  /** Buckets of single addresses, IPv4 and IPv6 (lib/hosts). */
  readonly hosts4: number;
  readonly hosts6: number;
  /** A power of two. */
  readonly hostBucketCount: number;
  readonly limiterBuckets: number;
  readonly limiterEntries: number;
  readonly sessions: number;
  readonly keypairs: number;
  readonly keypairCount: number;
  readonly peers: number;
  readonly trieNodes: number;
  /** Length of the memory. */
  readonly words: number;
}

/** A power of two, `count` rounded up if it is within the bounds. */
function buckets(count: number, max: number): number {
  return Math.min(max, 2 ** Math.ceil(Math.log2(Math.max(BUCKETS_MIN, count))));
}

function layoutOf(limits: ArenaLimits): ArenaLayout {
  let at: number = HEADER.WORDS;
  const region = (words: number): number => {
    const start = at;
    at += Math.ceil(words / 16) * 16;
    return start;
  };
  const slotWords = SLOT_BYTES / 4;
  const keypairCount = limits.keypairs ?? 3 * limits.sessions;
  const indexBucketCount = buckets(keypairCount, INDEX_BUCKETS_MAX);
  const hostBucketCount = buckets(limits.allowedIpNodes / 8, HOST_BUCKETS_MAX);
  const publicKeyBucketCount = buckets(limits.peers, PUBLIC_KEY_BUCKETS_MAX);
  const layout = {
    counters: region(THREADS * COUNTERS_MAX * 2),
    handshakesRing: region(HANDSHAKES_RING_CAPACITY * MESSAGE_ENTRY.WORDS),
    cookieHoldersRing: region(HANDSHAKES_RING_CAPACITY * MESSAGE_ENTRY.WORDS),
    messagesRing: region(MESSAGES_RING_CAPACITY * MESSAGE_ENTRY.WORDS),
    work: region(THREADS * WORK_BYTES / 4),
    laneWork: region(LANES_MAX * AEAD_WORK_BYTES / 4),
    rings: region(2 * CHAINS),
    chains: region((2 * CHAINS + 1) * CHAIN.WORDS),
    rxSlots: region((RX_SLOTS + 1) * slotWords),
    txSlots: region((limits.txSlots + 1) * slotWords),
    txSlotLinks: region(limits.txSlots + 1),
    txSlotLengths: region(limits.txSlots + 1),
    indexBuckets: region(indexBucketCount),
    indexBucketCount,
    publicKeyBuckets: region(publicKeyBucketCount),
    publicKeyBucketCount,
    routeAnswers: region(ROUTE_ANSWERS * ROUTE_ANSWER_WORDS),
    hosts4: region(hostBucketCount * HOST_BUCKET_WORDS),
    hosts6: region(hostBucketCount * HOST_BUCKET_WORDS),
    hostBucketCount,
    limiterBuckets: region(LIMITER_BUCKETS),
    limiterEntries: region((LIMITER_ENTRIES + 1) * LIMITER_ENTRY_WORDS),
    sessions: region((limits.sessions + 1) * SESSION.WORDS),
    keypairs: region((keypairCount + 1) * KEYPAIR.WORDS),
    keypairCount,
    peers: region((limits.peers + 1) * PEER.WORDS),
    trieNodes: region((limits.allowedIpNodes + 1) * TRIE_NODE_WORDS),
  };
  const pages = Math.ceil(at * 4 / PAGE_BYTES);
  return { ...layout, words: pages * PAGE_BYTES / 4 };
}

/** Bytes of an arena with these limits, were all of it in use. */
export function arenaBytes(limits: ArenaLimits): number {
  return layoutOf(limits).words * 4;
}

/** A view of the arena. Cheap: every thread makes its own. */
export class Arena {
  readonly limits: ArenaLimits;
  readonly layout: ArenaLayout;
  readonly memory: WebAssembly.Memory;
  readonly u8: Uint8Array<SharedArrayBuffer>;
  readonly i32: Int32Array<SharedArrayBuffer>;
  readonly u32: Uint32Array<SharedArrayBuffer>;
  readonly f64: Float64Array<SharedArrayBuffer>;

  /**
   * @param limits same in every thread
   * @param memory of another thread's arena, or none to reserve a new one
   * @throws RangeError when the machine cannot reserve the memory
   */
  constructor(
    limits: ArenaLimits = DEFAULT_LIMITS,
    memory?: WebAssembly.Memory,
  ) {
    bug(limits.peers <= MAX_PEERS_PER_DEVICE, "peers within the kernel's cap");
    this.limits = limits;
    this.layout = layoutOf(limits);
    const pages = this.layout.words * 4 / PAGE_BYTES;
    bug(pages <= 65_536, "the arena fits 32-bit addresses");
    this.memory = memory ??
      new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true });
    const buffer = this.memory.buffer as unknown as SharedArrayBuffer;
    bug(
      buffer.byteLength === pages * PAGE_BYTES,
      "limits agree with the memory",
    );
    this.u8 = new Uint8Array(buffer);
    this.i32 = new Int32Array(buffer);
    this.u32 = new Uint32Array(buffer);
    this.f64 = new Float64Array(buffer);
  }

  /**
   * Reserves an arena with these limits, or with less room for peers where the
   * machine cannot reserve as much.
   *
   * @param reserve makes an arena
   * @throws RangeError when the machine has no memory even for a few peers
   */
  static reserve(
    limits: ArenaLimits = DEFAULT_LIMITS,
    reserve = (limits: ArenaLimits): Arena => new Arena(limits),
  ): Arena {
    for (let present = limits;;) {
      try {
        return reserve(present);
      } catch (error) {
        const { peers, allowedIpNodes, sessions, keypairs, txSlots } = present;
        if (!(error instanceof RangeError) || peers < 2 * PEERS_MIN) {
          throw error;
        }
        present = {
          peers: Math.ceil(peers / 2),
          allowedIpNodes: Math.ceil(allowedIpNodes / 2),
          sessions: Math.ceil(sessions / 2),
          keypairs: Math.ceil((keypairs ?? 3 * sessions) / 2),
          txSlots,
        };
      }
    }
  }

  /** First word of peer `peer`'s record. */
  peer(peer: number): number {
    return this.layout.peers + peer * PEER.WORDS;
  }

  /** First word of session `session`'s record. */
  session(session: number): number {
    return this.layout.sessions + session * SESSION.WORDS;
  }

  /** First word of keypair `keypair`'s record. */
  keypair(keypair: number): number {
    return this.layout.keypairs + keypair * KEYPAIR.WORDS;
  }

  /** First word of trie node `node`. */
  trieNode(node: number): number {
    return this.layout.trieNodes + node * TRIE_NODE_WORDS;
  }

  /** Byte offset of the payload in outbound's slot `slot`. */
  txPayload(slot: number): number {
    return this.layout.txSlots * 4 + slot * SLOT_BYTES + SLOT_HEADROOM;
  }

  /**
   * Byte offset of what inbound's slot `slot` (1 to RX_SLOTS) received. An
   * endpoint block, where it came from, is at the slot's start.
   */
  rxPayload(slot: number): number {
    return this.layout.rxSlots * 4 + slot * SLOT_BYTES + SLOT_HEADROOM;
  }

  /** First word of the endpoint block of inbound's slot `slot`. */
  rxEndpoint(slot: number): number {
    return this.layout.rxSlots + slot * (SLOT_BYTES / 4);
  }

  /** First word of chain `chain`'s record. */
  chain(chain: number): number {
    return this.layout.chains + chain * CHAIN.WORDS;
  }

  /** Byte offset of a lane's scratch area of AEAD_WORK_BYTES. */
  laneWork(lane: number): number {
    return this.layout.laneWork * 4 + lane * AEAD_WORK_BYTES;
  }

  /** Byte offset of a thread's scratch area of {@link WORK_BYTES}. */
  work(thread: number): number {
    return this.layout.work * 4 + thread * WORK_BYTES;
  }

  /** Bytes of a field, as a view: `word` is the field's place in the arena. */
  bytes(word: number, lengthBytes: number): Uint8Array<SharedArrayBuffer> {
    return this.u8.subarray(word * 4, word * 4 + lengthBytes);
  }

  /** A 64-bit float at word `word`, which is even. */
  getF64(word: number): number {
    return this.f64[word >>> 1];
  }

  /** Sets the 64-bit float at word `word`, which is even. */
  setF64(word: number, value: number): void {
    this.f64[word >>> 1] = value;
  }

  /** Fills `words` words from `word` with zeros. */
  zero(word: number, words: number): void {
    this.u32.fill(0, word, word + words);
  }
}

/**
 * A pool of records numbered 1 to `capacity`: bump allocation first, so that
 * untouched records stay untouched, then a free list through the records' first
 * word. Control only. The caller zeroes a record before it frees it.
 */
export class Pool {
  readonly #arena: Arena;
  readonly #base: number;
  readonly #words: number;
  readonly capacity: number;
  #next = 1;
  #free = 0;
  #used = 0;
  #refused = 0;

  /** @param base word of record 0 @param words words of one record */
  constructor(arena: Arena, base: number, words: number, capacity: number) {
    this.#arena = arena;
    this.#base = base;
    this.#words = words;
    this.capacity = capacity;
  }

  /** Records in use. */
  get used(): number {
    return this.#used;
  }

  /** Allocations refused because the pool was empty. */
  get refused(): number {
    return this.#refused;
  }

  /** Number of a zeroed record, or 0 when there is none left. */
  alloc(): number {
    let record = this.#free;
    if (record !== 0) {
      const word = this.#base + record * this.#words;
      this.#free = this.#arena.u32[word];
      this.#arena.u32[word] = 0;
    } else if (this.#next <= this.capacity) {
      record = this.#next++;
    } else {
      this.#refused++;
      return 0;
    }
    this.#used++;
    return record;
  }

  /** Takes back a record that is all zero and that no reader holds. */
  free(record: number): void {
    bug(record > 0 && record < this.#next, "record is of this pool");
    this.#arena.u32[this.#base + record * this.#words] = this.#free;
    this.#free = record;
    this.#used--;
  }
}
