/**
 * Queues between the threads, on the arena: Vyukov's intrusive multi-producer,
 * single-consumer list (kernel: `queueing.c`, commit 8b5553ace8), mailboxes of
 * peers built on it, and rings of whole messages; and the sleep flags that keep
 * wake-ups to one a batch.
 *
 * @module
 */
import {
  type Arena,
  HANDSHAKES_RING_CAPACITY,
  HEADER,
  MESSAGE_ENTRY,
} from "./arena.ts";
import { bug } from "./assert.ts";
import { PEER } from "./records.ts";

const HEAD = 0;
const TAIL = 16;

/** Words between a queue's head, tail and stub that keep them on lines of their own. */
export const QUEUE_SPREAD = 16;

/**
 * Intrusive lists of nodes 1, 2, … whose link is a word of their own record;
 * node 0 is the stub. A link holds the next node plus one, 0 for none, so zeroed
 * memory is an empty queue, and an emptied queue is zero again. Producers do one
 * exchange and two stores and never wait; the consumer never blocks: it may see
 * the queue empty while a producer is half way, and that producer's wake-up
 * makes it look again.
 *
 * One object serves all queues of a kind: methods take the queue's first word.
 * The queue's head, tail and the stub's link are `spread` words apart.
 */
export class MpscQueues {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #links: number;
  readonly #stride: number;
  readonly #tail: number;
  readonly #stub: number;

  /**
   * @param links word of node 0's link if it had one
   * @param stride words between the links of two nodes
   * @param spread words between head, tail and stub
   */
  constructor(
    i32: Int32Array<SharedArrayBuffer>,
    links: number,
    stride: number,
    spread: number,
  ) {
    this.#i32 = i32;
    this.#links = links;
    this.#stride = stride;
    this.#tail = spread;
    this.#stub = 2 * spread;
  }

  #link(queue: number, node: number): number {
    return node === 0 ? queue + this.#stub : this.#links + node * this.#stride;
  }

  /** Appends `node`, which is in no queue. Any thread. */
  push(queue: number, node: number): void {
    const i32 = this.#i32;
    Atomics.store(i32, this.#link(queue, node), 0);
    const previous = Atomics.exchange(i32, queue + HEAD, node);
    Atomics.store(i32, this.#link(queue, previous), node + 1);
  }

  /** Whether nothing is queued, not even half way. The consumer's thread alone. */
  empty(queue: number): boolean {
    return Atomics.load(this.#i32, queue + HEAD) === 0 &&
      this.#i32[queue + this.#tail] === 0;
  }

  /** The oldest node, which stays, or 0. The consumer's thread alone. */
  peek(queue: number): number {
    const i32 = this.#i32;
    const tail = i32[queue + this.#tail];
    if (tail !== 0) return tail;
    const next = Atomics.load(i32, queue + this.#stub);
    if (next === 0) return 0;
    i32[queue + this.#tail] = next - 1;
    return next - 1;
  }

  /** Takes the oldest node, or 0. The consumer's thread alone. */
  pop(queue: number): number {
    const i32 = this.#i32;
    const tail = this.peek(queue);
    if (tail === 0) return 0;
    const link = this.#link(queue, tail);
    let next = Atomics.load(i32, link);
    if (next === 0) {
      if (Atomics.load(i32, queue + HEAD) !== tail) return 0;
      this.push(queue, 0);
      next = Atomics.load(i32, link);
      if (next === 0) return 0;
    }
    i32[queue + this.#tail] = next - 1;
    return tail;
  }
}

/**
 * Words from one thread to another about peers: bits of a word in the peer's
 * record, and the peer on a list once while any bit is set. Never full, never
 * loses a bit, and a bit that is set twice is told once.
 */
export class Mailbox {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #bits: number;
  readonly #queue: number;
  readonly #queues: MpscQueues;

  /**
   * @param queue HEADER.…_QUEUE
   * @param bits field of PEER with the bits
   * @param link field of PEER with the link
   */
  constructor(arena: Arena, queue: number, bits: number, link: number) {
    this.#i32 = arena.i32;
    this.#bits = arena.peer(0) + bits;
    this.#queue = queue;
    this.#queues = new MpscQueues(
      arena.i32,
      arena.peer(0) + link,
      PEER.WORDS,
      QUEUE_SPREAD,
    );
  }

  /** Sets `bits` for `peer`. The caller wakes the consumer afterwards. */
  post(peer: number, bits: number): void {
    const before = Atomics.or(this.#i32, this.#bits + peer * PEER.WORDS, bits);
    if (before === 0) this.#queues.push(this.#queue, peer);
  }

  /** Whether no peer has bits set. */
  get empty(): boolean {
    return this.#queues.empty(this.#queue);
  }

  /** A peer with bits set, or 0; then take its bits. */
  next(): number {
    return this.#queues.pop(this.#queue);
  }

  /** Takes and clears the bits of a peer that `next` gave. */
  take(peer: number): number {
    return Atomics.exchange(this.#i32, this.#bits + peer * PEER.WORDS, 0);
  }
}

/** Control's words to outbound. */
export function commandsMailbox(arena: Arena): Mailbox {
  return new Mailbox(
    arena,
    HEADER.COMMANDS_QUEUE,
    PEER.COMMANDS,
    PEER.COMMANDS_LINK,
  );
}

/** Outbound's words to control. */
export function outboundEvents(arena: Arena): Mailbox {
  return new Mailbox(
    arena,
    HEADER.OUTBOUND_EVENTS_QUEUE,
    PEER.OUTBOUND_EVENTS,
    PEER.OUTBOUND_EVENTS_LINK,
  );
}

/** Inbound's words to control. */
export function inboundEvents(arena: Arena): Mailbox {
  return new Mailbox(
    arena,
    HEADER.INBOUND_EVENTS_QUEUE,
    PEER.INBOUND_EVENTS,
    PEER.INBOUND_EVENTS_LINK,
  );
}

/** Send what is staged, or a keepalive if nothing is. */
export const COMMAND_KEEPALIVE = 1;
/** Send what is staged. */
export const COMMAND_FLUSH = 2;
/** Drop what is staged. */
export const COMMAND_DROP_STAGED = 4;
/** The peer is being removed: drop what is staged and answer EVENT_REMOVED. */
export const COMMAND_REMOVE = 8;

/** Packets wait for a key, or the key grows old. */
export const EVENT_HANDSHAKE_WANTED = 1;
/** A timer was armed that control does not watch: see lib/timers. */
export const EVENT_ARMED = 2;
/** Outbound holds nothing of the peer any more. */
export const EVENT_REMOVED = 4;
/** First authenticated message under the next keypair. */
export const EVENT_KEY_CONFIRMED = 8;

/** Ring of whole messages with one producer and one consumer. */
export class MessageRing {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #at: number;
  readonly #entries: number;
  readonly #capacity: number;

  /** @param at HEADER.…_RING @param entries word of the first entry */
  constructor(arena: Arena, at: number, entries: number, capacity: number) {
    bug((capacity & (capacity - 1)) === 0, "capacity is a power of two");
    this.#i32 = arena.i32;
    this.#at = at;
    this.#entries = entries;
    this.#capacity = capacity;
  }

  /** Messages in the ring. */
  get length(): number {
    return (Atomics.load(this.#i32, this.#at + HEAD) -
      Atomics.load(this.#i32, this.#at + TAIL)) >>> 0;
  }

  /** Word of the entry to fill, or 0 when the ring is full. Then `publish`. */
  reserve(): number {
    const head = this.#i32[this.#at + HEAD];
    const used = (head - Atomics.load(this.#i32, this.#at + TAIL)) >>> 0;
    return used === this.#capacity ? 0 : this.#entry(head);
  }

  /** Hands the entry that `reserve` gave to the consumer. */
  publish(): void {
    Atomics.store(
      this.#i32,
      this.#at + HEAD,
      (this.#i32[this.#at + HEAD] + 1) | 0,
    );
  }

  /** Word of the entry `skip` behind the oldest, or 0. Then `release`, oldest first. */
  peek(skip = 0): number {
    const tail = this.#i32[this.#at + TAIL];
    const used = (Atomics.load(this.#i32, this.#at + HEAD) - tail) >>> 0;
    return skip < used ? this.#entry(tail + skip) : 0;
  }

  /** Gives the entry that `peek` gave back to the producer. */
  release(): void {
    Atomics.store(
      this.#i32,
      this.#at + TAIL,
      (this.#i32[this.#at + TAIL] + 1) | 0,
    );
  }

  #entry(index: number): number {
    return this.#entries + (index & (this.#capacity - 1)) * MESSAGE_ENTRY.WORDS;
  }
}

/**
 * The rings of handshake messages that come in: those without a mac2, and those
 * with one, and cookie replies. Who floods one keeps nobody out of the other.
 */
export function handshakeRings(
  arena: Arena,
): readonly [first: MessageRing, cookieHolders: MessageRing] {
  const { layout } = arena;
  const ring = (at: number, entries: number): MessageRing =>
    new MessageRing(arena, at, entries, HANDSHAKES_RING_CAPACITY);
  return [
    ring(HEADER.HANDSHAKES_RING, layout.handshakesRing),
    ring(HEADER.COOKIE_HOLDERS_RING, layout.cookieHoldersRing),
  ];
}

/** Wakes a thread that said it sleeps; costs one load when it does not. */
export class Waker {
  readonly #i32: Int32Array<SharedArrayBuffer>;
  readonly #sleeps: number;
  readonly #signal: () => void;

  /** @param sleeps HEADER.…_SLEEPS @param signal ends the thread's sleep */
  constructor(arena: Arena, sleeps: number, signal: () => void) {
    this.#i32 = arena.i32;
    this.#sleeps = sleeps;
    this.#signal = signal;
  }

  /** Called after work for the thread is visible to it. */
  wake(): void {
    if (
      Atomics.load(this.#i32, this.#sleeps) === 1 &&
      Atomics.exchange(this.#i32, this.#sleeps, 0) === 1
    ) this.#signal();
  }
}

/** Wakes control, which waits on HEADER.CONTROL_WAKE. */
export function controlWaker(arena: Arena): Waker {
  return new Waker(arena, HEADER.CONTROL_SLEEPS, () => {
    Atomics.add(arena.i32, HEADER.CONTROL_WAKE, 1);
    Atomics.notify(arena.i32, HEADER.CONTROL_WAKE, 1);
  });
}
