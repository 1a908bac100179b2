/**
 * Structures of one batch of datagrams on the arena: what `sendmmsg` and
 * `recvmmsg` are given. lib/datagrams fills them.
 *
 * @module
 */
import { type Arena, BATCH } from "./arena.ts";
import { ENDPOINT } from "./records.ts";
import {
  ArenaMemory,
  IOVEC_BYTES,
  MMSGHDR,
  MMSGHDR_BYTES,
} from "./sys/memory.ts";

/** Room for the control messages of a message. */
export const CONTROL_BYTES = 128;
/** Pieces of a batch of messages. */
export const PIECES_MAX = 1024;

const HEADERS_AT = 0;
const IOVECS_AT = HEADERS_AT + BATCH * MMSGHDR_BYTES;
const ENDPOINTS_AT = IOVECS_AT + PIECES_MAX * IOVEC_BYTES;
const CONTROLS_AT = ENDPOINTS_AT + BATCH * ENDPOINT.WORDS * 4;
/** Bytes of scratch that a sender or a receiver needs. */
export const DATAGRAMS_SCRATCH_BYTES = CONTROLS_AT + BATCH * CONTROL_BYTES;

/** Structures of one batch on the arena. */
export class Batch {
  readonly memory: ArenaMemory;
  readonly i32: Int32Array<SharedArrayBuffer>;
  readonly headers: number;
  readonly iovecs: number;
  readonly endpoints: number;
  readonly controls: number;
  /** Pointers to the header of each message. */
  readonly pointers: readonly Deno.PointerValue[];

  constructor(readonly arena: Arena, scratch: number) {
    this.memory = new ArenaMemory(arena);
    this.i32 = arena.i32;
    this.headers = (scratch + HEADERS_AT) / 4;
    this.iovecs = (scratch + IOVECS_AT) / 4;
    this.endpoints = (scratch + ENDPOINTS_AT) / 4;
    this.controls = (scratch + CONTROLS_AT) / 4;
    const pointers: Deno.PointerValue[] = [];
    for (let i = 0; i < BATCH; i++) {
      const header = this.header(i);
      this.memory.setAddress(header + MMSGHDR.NAME, this.endpoint(i) * 4);
      this.setPieces(i, this.iovec(i), 1);
      this.memory.setAddress(header + MMSGHDR.CONTROL, this.control(i) * 4);
      pointers.push(this.memory.pointer(header * 4));
    }
    this.pointers = pointers;
  }

  /** Says where the pieces of message i are. */
  setPieces(i: number, iovec: number, count: number): void {
    const header = this.header(i);
    this.memory.setAddress(header + MMSGHDR.IOV, iovec * 4);
    this.i32[header + MMSGHDR.IOV_LENGTH] = count;
  }

  header(i: number): number {
    return this.headers + i * (MMSGHDR_BYTES / 4);
  }

  iovec(i: number): number {
    return this.iovecs + i * (IOVEC_BYTES / 4);
  }

  endpoint(i: number): number {
    return this.endpoints + i * ENDPOINT.WORDS;
  }

  control(i: number): number {
    return this.controls + i * (CONTROL_BYTES / 4);
  }
}
