/**
 * Flat records of the shared arena: the offset of every field, in 32-bit words
 * from the start of its record (`_F64` fields are read through the Float64Array
 * at half that index). The comment behind a field names its only writer.
 *
 * Records are numbered from 1; 0 is "none". Where the kernel has `wg_peer`,
 * `noise_handshake` and `noise_keypair`, wgd has PEER, SESSION and KEYPAIR: a
 * peer that never shook hands pays for PEER alone.
 *
 * @module
 */
import { bug } from "./assert.ts";
import { AEAD_DESCRIPTOR_WORDS } from "./crypto/aead.ts";
import { COUNTER_BITS_TOTAL } from "./messages.ts";

/**
 * An endpoint block: the far address as the kernel's `sockaddr_in6` (IPv4 as
 * `::ffff:a.b.c.d`) and the sticky source learned with it. Family 0: none.
 */
export const ENDPOINT = {
  /** `sockaddr_in6`: family, port (big-endian), flow, address, scope: 28 bytes. */
  SOCKADDR: 0,
  ADDRESS: 2,
  SCOPE: 6,
  /** Interface of the sticky source, 0: none. */
  IFINDEX: 7,
  /** Local address of the sticky source, all zero: none. */
  SOURCE: 8,
  WORDS: 12,
} as const;

/** One peer: the kernel's `wg_peer`. */
export const PEER = {
  // Identity and configuration: control.
  PUBLIC_KEY: 0,
  PRESHARED_KEY: 8,
  /** DH(own static, peer's static); valid when FLAG_STATIC_STATIC is set. */
  STATIC_STATIC: 16,
  FLAGS: 24,
  /** Chain of the public-key table (lib/peerlookup). */
  HASH_NEXT: 25,
  /** List of the device's peers, in the order of their creation. */
  LIST_NEXT: 26,
  LIST_PREV: 27,
  /** List of the peer's allowed IPs: trie nodes, in the order of insertion. */
  ALLOWED_FIRST: 28,
  ALLOWED_LAST: 29,
  /** Seconds, 0: off. */
  PERSISTENT_KEEPALIVE: 30,
  /** SESSION number, 0: none. */
  SESSION: 31,
  /** Key slots: KEYPAIR numbers, 0: none. Published with Atomics.store. */
  CURRENT: 32,
  PREVIOUS: 33,
  NEXT: 34,
  /** Greatest TAI64N timestamp accepted: 12 bytes, big-endian. */
  LATEST_TIMESTAMP: 35,
  /** Wall clock of the last completed handshake in ms, 0: never. */
  LAST_HANDSHAKE_F64: 38,
  /** Bytes of authenticated handshake messages received. */
  RX_BYTES_CONTROL_F64: 40,
  /** Counts authenticated messages received by control; see lib/timers. */
  RX_SEQ_CONTROL: 42,
  LAST_RECEIVED_CONTROL_MS: 43,
  /** Counts cancellations of the passive keepalive; see lib/timers. */
  TX_SEQ_CONTROL: 44,
  /** WATCH_* bits: what control looks at by itself, so that nobody need tell it. */
  WATCHES: 45,

  // The far endpoint: whoever holds its lock (lib/endpoint).
  ENDPOINT_LOCK: 46,
  ENDPOINT: 48,

  // Outbound.
  TX_BYTES_F64: 60,
  TX_SEQ: 62,
  LAST_SENT_MS: 63,
  DATA_SENT_MS: 64,
  DATA_SENT_RX_SEQ: 65,
  STAGED_FIRST: 66,
  STAGED_LAST: 67,
  STAGED_COUNT: 68,
  /** Packets ever staged: tells control whether new data asked for a handshake. */
  STAGED_SEQ: 69,

  // Inbound.
  RX_BYTES_F64: 70,
  RX_SEQ: 72,
  LAST_RECEIVED_MS: 73,
  DATA_RECEIVED_MS: 74,
  DATA_RECEIVED_TX_SEQ: 75,

  /** Set by inbound, cleared by control. */
  NEED_ANOTHER_KEEPALIVE: 76,

  // Mailboxes (lib/queueing): bits by both sides with Atomics, links by the queue.
  COMMANDS: 77,
  COMMANDS_LINK: 78,
  OUTBOUND_EVENTS: 79,
  OUTBOUND_EVENTS_LINK: 80,
  INBOUND_EVENTS: 81,
  INBOUND_EVENTS_LINK: 82,
  /** 1 while outbound has asked for a handshake and control has not answered. */
  HANDSHAKE_ASKED: 83,

  // Chains between their making and their delivery (lib/crypt), each way.
  TX_CRYPT: 84,
  RX_CRYPT: 89,
  WORDS: 94,
} as const;

/** A peer's queue of chains: the words behind TX_CRYPT and RX_CRYPT. */
export const PEER_CRYPT = {
  /** Vyukov's list of chains (lib/queueing): head, tail, link of the stub. */
  QUEUE: 0,
  /** Packets in it: producers add, the consumer subtracts. */
  PACKETS: 3,
  /** The chain that is being filled, 0: none. */
  OPEN: 4,
  WORDS: 5,
} as const;

/** Most packets of a chain: what one message with UDP_SEGMENT or UDP_GRO holds. */
export const CHAIN_PACKETS = 64;

/**
 * A chain: packets of one keypair that are sealed or opened together, by any
 * lane, and are delivered in the order of their chains (lib/crypt).
 */
export const CHAIN = {
  PEER: 0,
  KEYPAIR: 1,
  /** Packets. */
  COUNT: 2,
  /** 1: all its packets are sealed or opened, the consumer knows. */
  DONE: 3,
  /** Links of the peer's queue and of the list of chains that are done. */
  QUEUE_LINK: 4,
  DONE_LINK: 5,
  /** Epoch that it belongs to (lib/epoch). */
  STAMP: 6,
  /** One AEAD descriptor a packet. */
  DESCRIPTORS: 16,
  /** Slot of each packet, 0: none. */
  SLOTS: 16 + CHAIN_PACKETS * AEAD_DESCRIPTOR_WORDS,
  WORDS: 16 + CHAIN_PACKETS * (AEAD_DESCRIPTOR_WORDS + 1),
} as const;

/** Bits of PEER.WATCHES: a check of the timer is scheduled (lib/timers). */
export const WATCH_DATA_SENT = 1;
export const WATCH_DATA_RECEIVED = 2;

/** Bits of PEER.FLAGS. */
export const PEER_ALIVE = 1;
export const PEER_FLAG_STATIC_STATIC = 2;
/** The far static key is a low-order point: DH with it is refused. */
export const PEER_FLAG_LOW_ORDER = 4;
export const PEER_FLAG_PRESHARED_KEY = 8;
/** Flips with each private key: which one the peer's keys were derived with. */
export const PEER_FLAG_IDENTITY = 16;

/** Handshake, cookie and timers of an active peer: control alone. */
export const SESSION = {
  PEER: 0,
  /** HANDSHAKE_* state. */
  STATE: 1,
  LOCAL_INDEX: 2,
  REMOTE_INDEX: 3,
  /** Chain of the index table (lib/peerlookup). */
  INDEX_NEXT: 4,
  ATTEMPTS: 5,
  SENT_LASTMINUTE: 6,
  HAVE_SENT_MAC1: 7,
  EPHEMERAL_PRIVATE: 8,
  REMOTE_EPHEMERAL: 16,
  HASH: 24,
  CHAINING_KEY: 32,
  LAST_MAC1: 40,
  COOKIE: 44,
  /** Boot times in ms, -Infinity: never. */
  COOKIE_BIRTH_F64: 48,
  LAST_INITIATION_CONSUMPTION_F64: 50,
  LAST_SENT_HANDSHAKE_F64: 52,
  /** Deadlines in ms of boot time, 0: not pending (lib/timers). */
  RETRANSMIT_AT_F64: 54,
  NEW_HANDSHAKE_AT_F64: 56,
  KEEPALIVE_AT_F64: 58,
  PERSISTENT_AT_F64: 60,
  ZERO_KEY_AT_F64: 62,
  /** Links of the timer wheel, and its bucket plus one; 0: not in it. */
  WHEEL_NEXT: 64,
  WHEEL_PREV: 65,
  WHEEL_BUCKET: 66,
  /** STAGED_SEQ seen when the last initiation was made. */
  STAGED_SEQ_SEEN: 67,
  /** DATA_RECEIVED_TX_SEQ of the keepalive that control itself re-armed. */
  KEEPALIVE_TX_SEQ: 68,
  WORDS: 70,
} as const;

/** States of a handshake (kernel `enum noise_handshake_state`). */
export const HANDSHAKE_ZEROED = 0;
export const HANDSHAKE_CREATED_INITIATION = 1;
export const HANDSHAKE_CONSUMED_INITIATION = 2;
export const HANDSHAKE_CREATED_RESPONSE = 3;
export const HANDSHAKE_CONSUMED_RESPONSE = 4;

/** One pair of transport keys: the kernel's `noise_keypair`. */
export const KEYPAIR = {
  // Control, all but SENDING_VALID and RECEIVING_VALID before it is published.
  LOCAL_INDEX: 0,
  REMOTE_INDEX: 1,
  PEER: 2,
  INDEX_NEXT: 3,
  INITIATOR: 4,
  SENDING_VALID: 5,
  RECEIVING_VALID: 6,
  BIRTH_F64: 8,
  // Outbound.
  SEND_COUNTER_LO: 10,
  SEND_COUNTER_HI: 11,
  // Inbound: the counter is the highest received plus one.
  RECEIVE_COUNTER_LO: 14,
  RECEIVE_COUNTER_HI: 15,
  CONFIRMED: 16,
  REKEY_ASKED_BY_RECEIVE: 17,
  // Control, before it is published.
  SEND_KEY: 18,
  RECEIVE_KEY: 26,
  // Inbound.
  REPLAY_BITMAP: 34,
  WORDS: 34 + COUNTER_BITS_TOTAL / 32,
} as const;

bug(
  PEER.WORDS % 2 === 0 && SESSION.WORDS % 2 === 0 && KEYPAIR.WORDS % 2 === 0,
  "records are 8-byte aligned",
);
bug(
  PEER.RX_CRYPT - PEER.TX_CRYPT === PEER_CRYPT.WORDS &&
    PEER.RX_CRYPT + PEER_CRYPT.WORDS === PEER.WORDS,
  "the queues fit their places",
);
bug(
  PEER.ENDPOINT + ENDPOINT.WORDS === PEER.TX_BYTES_F64,
  "an endpoint block fits its place",
);
bug(
  PEER.WORDS * 4 === 376 && SESSION.WORDS * 4 === 280 &&
    KEYPAIR.WORDS * 4 === 1160,
  "record sizes",
);
