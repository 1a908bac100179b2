/**
 * Constants and wire layouts of the WireGuard protocol: the kernel's
 * `messages.h`. Offsets derive from the lengths of the fields before them, and
 * the totals are asserted at load. Reference §1 and §2.
 *
 * @module
 */
import { bug } from "./assert.ts";

/** Lengths in bytes of the primitives' inputs and outputs. */
export const PUBLIC_KEY_LEN = 32;
export const PRIVATE_KEY_LEN = 32;
export const SYMMETRIC_KEY_LEN = 32;
export const HASH_LEN = 32;
export const TIMESTAMP_LEN = 12;
export const AUTHTAG_LEN = 16;
export const COOKIE_LEN = 16;
export const COOKIE_NONCE_LEN = 24;
export const MAC_LEN = 16;

/** Length of `bytes` of plaintext once sealed. */
function encryptedLen(bytes: number): number {
  return bytes + AUTHTAG_LEN;
}

/** Message types: the first four bytes as one little-endian word, reserved bytes zero. */
export const MESSAGE_INITIATION = 1;
export const MESSAGE_RESPONSE = 2;
export const MESSAGE_COOKIE_REPLY = 3;
export const MESSAGE_DATA = 4;

const HEADER_LEN = 4;
const INDEX_LEN = 4;
const COUNTER_LEN = 8;

/** Layout of the first handshake message (whitepaper 5.4.2): byte offsets. */
export const INITIATION = layout({
  header: HEADER_LEN,
  sender: INDEX_LEN,
  ephemeral: PUBLIC_KEY_LEN,
  encryptedStatic: encryptedLen(PUBLIC_KEY_LEN),
  encryptedTimestamp: encryptedLen(TIMESTAMP_LEN),
  mac1: MAC_LEN,
  mac2: MAC_LEN,
});

/** Layout of the second handshake message (whitepaper 5.4.3): byte offsets. */
export const RESPONSE = layout({
  header: HEADER_LEN,
  sender: INDEX_LEN,
  receiver: INDEX_LEN,
  ephemeral: PUBLIC_KEY_LEN,
  encryptedNothing: encryptedLen(0),
  mac1: MAC_LEN,
  mac2: MAC_LEN,
});

/** Layout of the cookie reply (whitepaper 5.4.7): byte offsets. */
export const COOKIE_REPLY = layout({
  header: HEADER_LEN,
  receiver: INDEX_LEN,
  nonce: COOKIE_NONCE_LEN,
  encryptedCookie: encryptedLen(COOKIE_LEN),
});

/** Layout of a data message before its payload (whitepaper 5.4.6): byte offsets. */
export const DATA = layout({
  header: HEADER_LEN,
  receiver: INDEX_LEN,
  counter: COUNTER_LEN,
});

/** Bytes of a data message around its padded plaintext: 32, the size of a keepalive. */
export const DATA_OVERHEAD = DATA.end + AUTHTAG_LEN;

bug(INITIATION.end === 148, "initiation is 148 bytes");
bug(RESPONSE.end === 92, "response is 92 bytes");
bug(COOKIE_REPLY.end === 64, "cookie reply is 64 bytes");
bug(
  DATA.end === 16 && DATA_OVERHEAD === 32,
  "data header is 16 bytes, a keepalive 32",
);

/** Longest message that is no data message. */
export const HANDSHAKE_MESSAGE_MAX = INITIATION.end;

/** Times, in milliseconds of boot time unless the name says otherwise. */
export const REKEY_TIMEOUT_MS = 5_000;
export const REKEY_TIMEOUT_JITTER_MS = 333;
export const REKEY_AFTER_TIME_MS = 120_000;
export const REJECT_AFTER_TIME_MS = 180_000;
export const KEEPALIVE_TIMEOUT_MS = 10_000;
export const NEW_HANDSHAKE_TIMEOUT_MS = KEEPALIVE_TIMEOUT_MS + REKEY_TIMEOUT_MS;
export const ZERO_KEY_MATERIAL_MS = REJECT_AFTER_TIME_MS * 3;
/** Age at which the initiator rekeys because of a received packet: 165 s. */
export const REKEY_ON_RECEIVE_MS = REJECT_AFTER_TIME_MS - KEEPALIVE_TIMEOUT_MS -
  REKEY_TIMEOUT_MS;
export const INITIATIONS_PER_SECOND = 50;
export const COOKIE_SECRET_MAX_AGE_MS = 120_000;
export const COOKIE_SECRET_LATENCY_MS = 5_000;

/** Counters: REKEY is 2^60, REJECT 2^64 - 8128 - 1 (reference §2, 64-bit words). */
export const COUNTER_BITS_TOTAL = 8192;
export const COUNTER_REDUNDANT_BITS = 64;
export const COUNTER_WINDOW_SIZE = COUNTER_BITS_TOTAL - COUNTER_REDUNDANT_BITS;
export const REKEY_AFTER_MESSAGES = 1n << 60n;
export const REJECT_AFTER_MESSAGES = (1n << 64n) - BigInt(COUNTER_WINDOW_SIZE) -
  1n;
export const REKEY_AFTER_MESSAGES_HI = 0x1000_0000;
export const REJECT_AFTER_MESSAGES_HI = 0xffff_ffff;
export const REJECT_AFTER_MESSAGES_LO = Number(
  REJECT_AFTER_MESSAGES & 0xffff_ffffn,
);

/** Retransmissions after the first initiation counts up to this: 20 initiations in all. */
export const MAX_TIMER_HANDSHAKES = 90_000 / REKEY_TIMEOUT_MS;
export const MAX_PEERS_PER_DEVICE = 1 << 20;
export const MAX_QUEUED_INCOMING_HANDSHAKES = 4096;
/** Length of the handshake queue from which on the device is under load. */
export const UNDER_LOAD_QUEUE_LENGTH = MAX_QUEUED_INCOMING_HANDSHAKES / 8;
/** The device stays under load this long after the queue was last that long. */
export const UNDER_LOAD_HYSTERESIS_MS = 1_000;
export const MAX_STAGED_PACKETS = 128;
/** Packets of a peer between sealing or opening and delivery, each way. */
export const MAX_QUEUED_PACKETS = 1024;
/** Most lanes of a device, and queues of its interface. */
export const LANES_MAX = 64;
export const QUEUES_MAX = 16;
export const MESSAGE_PADDING_MULTIPLE = 16;

/** DS field (AF41, not ECN capable) of initiations and responses. */
export const HANDSHAKE_DSCP = 0x88;

/** UDP and IPv6 headers plus {@link DATA_OVERHEAD}: what a tunnel takes off the outer MTU. */
export const TUNNEL_OVERHEAD_V6 = 40 + 8 + DATA_OVERHEAD;
export const DEFAULT_MTU = 1500 - TUNNEL_OVERHEAD_V6;

/** Field offsets of a message in the order given, and `end`, its total length. */
function layout<K extends string>(
  fields: Record<K, number>,
): Readonly<Record<K | "end", number>> {
  const offsets: Record<string, number> = {};
  let end = 0;
  for (const [name, length] of Object.entries<number>(fields)) {
    offsets[name] = end;
    end += length;
  }
  offsets.end = end;
  return Object.freeze(offsets) as Readonly<Record<K | "end", number>>;
}

/**
 * Type of a message by its first word and length, or 0 if it is none:
 * the kernel's `validate_header_len`.
 */
export function messageType(firstWord: number, lengthBytes: number): number {
  switch (firstWord) {
    case MESSAGE_INITIATION:
      return lengthBytes === INITIATION.end ? MESSAGE_INITIATION : 0;
    case MESSAGE_RESPONSE:
      return lengthBytes === RESPONSE.end ? MESSAGE_RESPONSE : 0;
    case MESSAGE_COOKIE_REPLY:
      return lengthBytes === COOKIE_REPLY.end ? MESSAGE_COOKIE_REPLY : 0;
    case MESSAGE_DATA:
      return lengthBytes >= DATA_OVERHEAD ? MESSAGE_DATA : 0;
    default:
      return 0;
  }
}

/**
 * Length of a plaintext of `lengthBytes` once padded: a multiple of 16, but
 * never past `mtu` (0: unknown). Reference §6.8.
 */
export function paddedLength(lengthBytes: number, mtu: number): number {
  const mask = MESSAGE_PADDING_MULTIPLE - 1;
  if (mtu === 0) return (lengthBytes + mask) & ~mask;
  const last = lengthBytes > mtu ? lengthBytes % mtu : lengthBytes;
  const padded = Math.min(mtu, (last + mask) & ~mask);
  return lengthBytes - last + padded;
}
