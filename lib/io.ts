/**
 * What the data workers need of the outside: a TUN, and UDP sockets to send and
 * receive on. Implemented by lib/tun and lib/socket, and in memory by the tests.
 * All offsets are bytes, all `…Word`s are words from the start of the arena.
 *
 * @module
 */

/** Takes packets as vectors; the vnet header is part of the first piece. */
export interface VectorWriter {
  /** Adds a piece. */
  append(offset: number, length: number): void;
  /** Writes what was added as one packet. @returns 0, or an error number */
  write(): number;
}

/** What an interface takes and gives whole, to be cut by others. */
export interface TunOffloads {
  readonly tcp: boolean;
  readonly udp: boolean;
}

/** The interface's side of the tunnel. */
export interface TunPort {
  /**
   * Super-packets, if the interface has them: then a vnet header
   * (lib/segments) goes right before each packet.
   */
  readonly offloads: TunOffloads | undefined;
  /** Writes packets with their vnet headers, in pieces. */
  readonly vector: VectorWriter;
  /**
   * Reads one packet to `offset`.
   *
   * @returns its length, 0 when there is none now, -1 when the interface is gone
   */
  read(offset: number, capacity: number): number;
  /** Writes one packet. @returns 0, or an error number */
  write(offset: number, length: number): number;
}

/** Sends datagrams, in batches of at most BATCH. */
export interface DatagramSender {
  /** Word of the endpoint block of the message that `add` adds next. */
  readonly endpointWord: number;
  /** Whether one message may hold many datagrams. */
  readonly segments: boolean;
  /**
   * Adds a message of one datagram to the endpoint written at `endpointWord`.
   *
   * @param ds its DS field
   */
  add(offset: number, length: number, ds: number): void;
  /** Adds a datagram to the message that `add` added last, if `segments`. */
  append(offset: number, length: number): void;
  /** Says of what size the datagrams of that message are, but for the last. */
  setSize(size: number): void;
  /** Messages added since the last flush. */
  readonly count: number;
  /** Whether what was added must be flushed before the next `add`. */
  readonly full: boolean;
  /**
   * Sends what was added. Then `errors[i]` is 0 or the error number of message
   * i, and `sourceForgotten[i]` is 1 if its sticky source was refused.
   */
  flush(): void;
  readonly errors: Int32Array;
  readonly sourceForgotten: Uint8Array;
}

/** Receives datagrams, to inbound's slots. */
export interface DatagramReceiver {
  /**
   * Receives what there is now, message i to slot `slots[i]`: payload and
   * endpoint block (source and sticky source) at their places in the slot.
   *
   * @param count messages at most
   * @returns the number of messages, -1 on an error
   */
  receive(slots: Int32Array, count: number): number;
  /** Bytes of message i; 0 if it was cut short. */
  length(i: number): number;
  /** Bytes of each datagram of message i but the last; 0: it is one. */
  size(i: number): number;
  /** DS field of message i, for its ECN; 0 where the system does not tell. */
  ds(i: number): number;
}
