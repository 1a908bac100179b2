/**
 * What the data workers tell the timers, by plain stores into the peer's
 * record: the packet path arms and cancels timers without a message to control.
 *
 * `new_handshake` is pending while nothing authenticated came in since it was
 * armed, and the passive keepalive while nothing authenticated went out: so each
 * is a time and the other direction's sequence number at that time. Sequence
 * numbers have one writer each: RX_SEQ inbound, TX_SEQ outbound, and control
 * adds its own share (handshakes received; timers that it takes as expired).
 *
 * @module
 */
import type { Arena } from "./arena.ts";
import { PEER, WATCH_DATA_RECEIVED, WATCH_DATA_SENT } from "./records.ts";

/** Messages authenticated and received, counted by inbound and control. */
function receivedSeq(
  i32: Int32Array<SharedArrayBuffer>,
  peerWord: number,
): number {
  return (i32[peerWord + PEER.RX_SEQ] + i32[peerWord + PEER.RX_SEQ_CONTROL]) |
    0;
}

/** Messages authenticated and sent, counted by outbound and control. */
export function sentSeq(
  i32: Int32Array<SharedArrayBuffer>,
  peerWord: number,
): number {
  return (i32[peerWord + PEER.TX_SEQ] + i32[peerWord + PEER.TX_SEQ_CONTROL]) |
    0;
}

/** Whether data was sent and nothing authenticated received since. */
export function newHandshakePending(arena: Arena, peerWord: number): boolean {
  const { i32 } = arena;
  return Atomics.load(i32, peerWord + PEER.DATA_SENT_RX_SEQ) ===
    ((receivedSeq(i32, peerWord) + 1) | 0);
}

/** Whether data was received and nothing authenticated sent since. */
export function keepalivePending(arena: Arena, peerWord: number): boolean {
  const { i32 } = arena;
  return Atomics.load(i32, peerWord + PEER.DATA_RECEIVED_TX_SEQ) ===
    ((sentSeq(i32, peerWord) + 1) | 0);
}

/** Outbound, before any authenticated message is sent: cancels the passive keepalive. */
export function noteSent(arena: Arena, peerWord: number, nowMs: number): void {
  const { i32 } = arena;
  i32[peerWord + PEER.TX_SEQ]++;
  i32[peerWord + PEER.LAST_SENT_MS] = nowMs;
}

/**
 * Outbound, after data that is no keepalive was sent: arms `new_handshake`
 * unless it is pending.
 *
 * @returns true when control must be told, as it does not watch the timer
 */
export function noteDataSent(
  arena: Arena,
  peerWord: number,
  nowMs: number,
): boolean {
  if (newHandshakePending(arena, peerWord)) return false;
  const { i32 } = arena;
  i32[peerWord + PEER.DATA_SENT_MS] = nowMs;
  Atomics.store(
    i32,
    peerWord + PEER.DATA_SENT_RX_SEQ,
    receivedSeq(i32, peerWord) + 1,
  );
  return (Atomics.load(i32, peerWord + PEER.WATCHES) & WATCH_DATA_SENT) === 0;
}

/** Inbound, after any authenticated data message: cancels `new_handshake`. */
export function noteReceived(
  arena: Arena,
  peerWord: number,
  nowMs: number,
): void {
  const { i32 } = arena;
  i32[peerWord + PEER.RX_SEQ]++;
  i32[peerWord + PEER.LAST_RECEIVED_MS] = nowMs;
}

/**
 * Inbound, after data that is no keepalive was received: arms the passive
 * keepalive, or asks for another when it is pending.
 *
 * @returns true when control must be told, as it does not watch the timer
 */
export function noteDataReceived(
  arena: Arena,
  peerWord: number,
  nowMs: number,
): boolean {
  const { i32 } = arena;
  if (keepalivePending(arena, peerWord)) {
    i32[peerWord + PEER.NEED_ANOTHER_KEEPALIVE] = 1;
    return false;
  }
  i32[peerWord + PEER.NEED_ANOTHER_KEEPALIVE] = 0;
  i32[peerWord + PEER.DATA_RECEIVED_MS] = nowMs;
  Atomics.store(
    i32,
    peerWord + PEER.DATA_RECEIVED_TX_SEQ,
    sentSeq(i32, peerWord) + 1,
  );
  return (Atomics.load(i32, peerWord + PEER.WATCHES) & WATCH_DATA_RECEIVED) ===
    0;
}

/** A worker's clock reads later than the one that control read before: so much. */
const STAMP_AHEAD_MAX_MS = 60_000;

/**
 * Boot time in ms of a stamp of its low 32 bits, taken less than 49 days before
 * `nowMs`, or meanwhile: a worker may have written it after control looked at
 * the clock, and that is no age of 49 days.
 */
export function stampMs(stamp: number, nowMs: number): number {
  const ageMs = (Math.trunc(nowMs) - stamp) >>> 0;
  return ageMs >= 2 ** 32 - STAMP_AHEAD_MAX_MS ? nowMs : nowMs - ageMs;
}
