/**
 * Counters by reason: what was dropped or refused, and why. Each thread counts
 * in a block of its own; a reader adds the three up. Packets never throw: they
 * end here.
 *
 * @module
 */
import { type Arena, COUNTERS_MAX } from "./arena.ts";
import { bug } from "./assert.ts";

/** Names of the counters, in the order of the arena's blocks. */
export const COUNTER_NAMES = [
  // Outbound: packets read from the interface.
  "tx_packets",
  "tx_not_ip",
  "tx_redirect",
  "tx_bad_offload",
  "tx_no_peer",
  "tx_no_endpoint",
  "tx_routing_loop",
  "tx_interface_down",
  "tx_staged_dropped",
  "tx_slots_exhausted",
  "tx_queue_full",
  "tx_lane_failed",
  "tx_send_failed",
  "tx_source_forgotten",
  "tx_tun_read_failed",
  "tx_icmp_sent",
  "tx_icmp_limited",
  "tx_icmp_failed",
  // Inbound: datagrams read from the sockets.
  "rx_packets",
  "rx_invalid_message",
  "rx_unknown_index",
  "rx_key_expired",
  "rx_queue_full",
  "rx_lane_failed",
  "rx_auth_failed",
  "rx_replayed",
  "rx_not_ip",
  "rx_bad_length",
  "rx_wrong_source",
  "rx_ecn_mismatch",
  "rx_handshake_queue_full",
  "rx_receive_failed",
  "rx_tun_write_failed",
  "rx_offload_refused",
  // Control: workers, handshake messages.
  "lanes_restarted",
  "handshake_invalid_mac",
  "handshake_under_load",
  "handshake_unanswered",
  "handshake_ratelimited",
  "handshake_refused_initiation",
  "handshake_refused_response",
  "handshake_refused_cookie_reply",
  "handshake_messages_dropped",
  "handshake_no_memory",
  "cookie_replies_sent",
] as const;

/** Name of a counter. */
export type CounterName = (typeof COUNTER_NAMES)[number];

bug(COUNTER_NAMES.length <= COUNTERS_MAX, "counters fit their block");

const INDEX_OF = Object.fromEntries(
  COUNTER_NAMES.map((name, i) => [name, i]),
) as Readonly<
  Record<CounterName, number>
>;

/** Index of each counter, for the packet path. */
export const COUNT: Readonly<Record<CounterName, number>> = INDEX_OF;

/** One thread's block of counters. */
export class Counters {
  readonly #f64: Float64Array<SharedArrayBuffer>;
  readonly #base: number;

  /** @param thread THREAD_CONTROL, THREAD_OUTBOUND or THREAD_INBOUND */
  constructor(arena: Arena, thread: number) {
    this.#f64 = arena.f64;
    this.#base = arena.layout.counters / 2 + thread * COUNTERS_MAX;
  }

  /** Adds `by` to counter `index`, one of {@link COUNT}. */
  add(index: number, by = 1): void {
    this.#f64[this.#base + index] += by;
  }

  /** Value of counter `index`. */
  get(index: number): number {
    return this.#f64[this.#base + index];
  }
}

/** Sum of all threads' blocks, by name. */
export function readCounters(arena: Arena): Record<CounterName, number> {
  const blocks = [0, 1, 2].map((thread) => new Counters(arena, thread));
  const sums = {} as Record<CounterName, number>;
  for (const name of COUNTER_NAMES) {
    sums[name] = blocks.reduce((sum, block) => sum + block.get(COUNT[name]), 0);
  }
  return sums;
}
