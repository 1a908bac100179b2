/**
 * Why a handshake message was refused, or none was made: for counters and logs.
 * No peer is told.
 *
 * @module
 */

/** Outcomes of the functions of lib/noise. */
export const NOISE_REASON = {
  OK: 0,
  /** The device has no private key. */
  NO_IDENTITY: 1,
  /** A Diffie-Hellman product is zero: a low-order point among the keys. */
  LOW_ORDER: 2,
  /** Not sealed with the keys that the handshake leads to. */
  NOT_AUTHENTIC: 3,
  /** Well sealed, by a static key that is no peer's. */
  UNKNOWN_PEER: 4,
  /** The timestamp is not greater than the peer's last one. */
  REPLAYED: 5,
  /** Less than 20 ms after the peer's last initiation. */
  FLOODED: 6,
  /** The receiver index is no handshake's. */
  UNKNOWN_INDEX: 7,
  /** The handshake is at another step. */
  WRONG_STATE: 8,
  /** A pool is empty. */
  NO_ROOM: 9,
} as const;
/** A value of {@link NOISE_REASON}. */
export type NoiseReason = typeof NOISE_REASON[keyof typeof NOISE_REASON];
