/**
 * Datagrams in batches: `sendmmsg` and `recvmmsg` on the sockets of lib/socket,
 * with the structures and the payloads on the arena. The first implementation
 * of lib/io's DatagramSender and DatagramReceiver; lib/datagrams_plain is the
 * second.
 *
 * @module
 */
import {
  type Arena,
  BATCH,
  HEADER,
  SLOT_BYTES,
  SLOT_HEADROOM,
} from "./arena.ts";
import { Batch, CONTROL_BYTES, PIECES_MAX } from "./datagrams_batch.ts";
import { AF_INET, AF_INET6, isMapped } from "./endpoint.ts";
import type { DatagramReceiver, DatagramSender } from "./io.ts";
import { ENDPOINT } from "./records.ts";
import { SegmentWalk } from "./segments.ts";
import { ERRNO, errno, libc } from "./sys/libc.ts";
import { CMSGHDR_BYTES, cmsgSpace, MMSGHDR } from "./sys/memory.ts";

export { DATAGRAMS_SCRATCH_BYTES } from "./datagrams_batch.ts";

const SOCKADDR_IN_BYTES = 16;
const SOCKADDR_IN6_BYTES = 28;
const IPPROTO_IP = 0;
const IP_TOS = 1;
const IP_PKTINFO = 8;
const IN_PKTINFO_BYTES = 12;
const IPPROTO_IPV6 = 41;
const IPV6_TCLASS = 67;
const IPV6_PKTINFO = 50;
const IN6_PKTINFO_BYTES = 20;
const DS_BYTES = 4;
const SOL_UDP = 17;
const UDP_SEGMENT = 103;
const UDP_GRO = 104;
const SEGMENT_BYTES = 2;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;
const POLLOUT = 4;
/** Pieces of one message at most. */
const MESSAGE_PIECES_MAX = 64;
/** How long a full socket may hold up a batch before it is dropped. */
const SEND_WAIT_MS = 100;

/** Word of an iovec: its length. */
const IOVEC_LENGTH = 2;

/** Sends by `sendmmsg`. */
export class BatchedSender implements DatagramSender {
  readonly errors: Int32Array = new Int32Array(BATCH);
  readonly sourceForgotten: Uint8Array = new Uint8Array(BATCH);
  readonly #batch: Batch;
  /** Descriptor that message i leaves by. */
  readonly #fds = new Int32Array(BATCH);
  readonly #hasSource = new Uint8Array(BATCH);
  readonly #ds = new Uint8Array(BATCH);
  readonly #sizes = new Int32Array(BATCH);
  /** First piece of each message, and the number of them. */
  readonly #firsts = new Int32Array(BATCH + 1);
  readonly #walk = new SegmentWalk();
  readonly #pollfd = new Int32Array(2);
  #count = 0;
  /** Pieces so far, where the last ends and how long it is. */
  #pieces = 0;
  #end = 0;
  #length = 0;
  #segments: boolean;

  /** @param segments whether to try UDP_SEGMENT */
  constructor(arena: Arena, scratch: number, segments: boolean) {
    this.#batch = new Batch(arena, scratch);
    this.#segments = segments;
  }

  get segments(): boolean {
    return this.#segments;
  }

  get endpointWord(): number {
    return this.#batch.endpoint(this.#count);
  }

  get count(): number {
    return this.#count;
  }

  get full(): boolean {
    return this.#count === BATCH ||
      this.#pieces + MESSAGE_PIECES_MAX > PIECES_MAX;
  }

  add(offset: number, length: number, ds: number): void {
    const b = this.#batch;
    const i = this.#count++;
    this.#ds[i] = ds;
    this.#sizes[i] = 0;
    this.#firsts[i] = this.#pieces;
    this.#addPiece(offset, length);
    b.setPieces(i, b.iovec(this.#firsts[i]), 1);
    this.#address(i);
  }

  append(offset: number, length: number): void {
    const b = this.#batch;
    const i = this.#count - 1;
    if (offset === this.#end) {
      this.#end += length;
      this.#length += length;
      b.i32[b.iovec(this.#pieces - 1) + IOVEC_LENGTH] = this.#length;
      return;
    }
    this.#addPiece(offset, length);
    b.i32[b.header(i) + MMSGHDR.IOV_LENGTH]++;
  }

  #addPiece(offset: number, length: number): void {
    const b = this.#batch;
    b.memory.setIovec(b.iovec(this.#pieces++), offset, length);
    this.#end = offset + length;
    this.#length = length;
  }

  setSize(size: number): void {
    const i = this.#count - 1;
    this.#sizes[i] = size;
    this.#control(i, this.#isV4(i));
  }

  flush(): void {
    const n = this.#count;
    this.#firsts[n] = this.#pieces;
    this.#count = this.#pieces = 0;
    for (let i = 0; i < n;) {
      const fd = this.#fds[i];
      let end = i + 1;
      while (end < n && this.#fds[end] === fd) end++;
      i = this.#sendRun(fd, i, end);
    }
  }

  /** Sends messages `i` to `end`, and gives the first that was not dealt with. */
  #sendRun(fd: number, i: number, end: number): number {
    const b = this.#batch;
    if (fd < 0) {
      this.errors.fill(ERRNO.ENETUNREACH, i, end);
      return end;
    }
    const sent = libc().sendmmsg(fd, b.pointers[i], end - i, MSG_DONTWAIT);
    if (sent > 0) {
      this.errors.fill(0, i, i + sent);
      return i + sent;
    }
    const number = errno();
    switch (number) {
      case ERRNO.EINTR:
        return i;
      case ERRNO.EAGAIN:
        if (this.#waitWritable(fd)) return i;
        break;
      case ERRNO.EIO:
        // The device cannot do the checksums of segments: never again.
        if (this.#sizes[i] !== 0) {
          this.#segments = false;
          this.errors[i] = this.#sendSingly(fd, i);
          return i + 1;
        }
        break;
      case ERRNO.EMSGSIZE:
      case ERRNO.EINVAL:
      case ERRNO.ENETUNREACH:
      case ERRNO.EADDRNOTAVAIL:
        // A segment is longer than the route's MTU: one by one, in fragments.
        if (this.#sizes[i] !== 0) {
          this.errors[i] = this.#sendSingly(fd, i);
          return i + 1;
        }
        // The sticky source is no address of ours any more: IPv6 says EINVAL,
        // IPv4 too, or ENETUNREACH as Linux 6.18 does.
        if (this.#hasSource[i] !== 0) {
          b.i32.fill(
            0,
            b.endpoint(i) + ENDPOINT.IFINDEX,
            b.endpoint(i) + ENDPOINT.WORDS,
          );
          this.#control(i, this.#isV4(i));
          this.sourceForgotten[i] = 1;
          return i;
        }
        break;
    }
    this.errors[i] = number;
    return i + 1;
  }

  /** Sends each datagram of message i by itself. @returns 0, or an error number */
  #sendSingly(fd: number, i: number): number {
    const b = this.#batch;
    const size = this.#sizes[i];
    const first = b.iovec(this.#firsts[i]);
    this.#sizes[i] = 0;
    this.#control(i, this.#isV4(i));
    let error = 0;
    for (let piece = this.#firsts[i]; piece < this.#firsts[i + 1]; piece++) {
      const iovec = b.iovec(piece);
      const offset = b.memory.offsetOf(iovec);
      const walk = this.#walk.start(offset, b.i32[iovec + IOVEC_LENGTH], size);
      b.setPieces(i, first, 1);
      while (walk.next()) {
        b.memory.setIovec(first, walk.offset, walk.length);
        for (let done = i; done === i;) done = this.#sendRun(fd, i, i + 1);
        error ||= this.errors[i];
      }
    }
    return error;
  }

  #waitWritable(fd: number): boolean {
    this.#pollfd[0] = fd;
    this.#pollfd[1] = POLLOUT;
    return libc().poll(
      this.#pollfd as Int32Array<ArrayBuffer>,
      1,
      SEND_WAIT_MS,
    ) > 0;
  }

  #isV4(i: number): boolean {
    return isMapped(
      this.#batch.arena,
      this.#batch.endpoint(i) + ENDPOINT.ADDRESS,
    ) ||
      this.#batch.arena.u8[this.#batch.endpoint(i) * 4] === AF_INET;
  }

  /** Chooses the socket, and writes the address and control messages for it. */
  #address(i: number): void {
    const b = this.#batch;
    const at = b.endpoint(i);
    const header = b.header(i);
    const v4 = this.#isV4(i);
    const fd4 = b.i32[HEADER.SOCKET_FD + 1];
    this.sourceForgotten[i] = 0;
    this.#control(i, v4);
    if (v4 && fd4 >= 0) {
      // sockaddr_in: family, port, address.
      b.i32[at] = (b.i32[at] & ~0xffff) | AF_INET;
      b.i32[at + 1] = b.i32[at + ENDPOINT.ADDRESS + 3];
      b.i32[header + MMSGHDR.NAME_LENGTH] = SOCKADDR_IN_BYTES;
      this.#fds[i] = fd4;
    } else {
      b.i32[header + MMSGHDR.NAME_LENGTH] = SOCKADDR_IN6_BYTES;
      this.#fds[i] = b.i32[HEADER.SOCKET_FD];
    }
  }

  /** Control messages of message i: its DS field and its source. */
  #control(i: number, v4: boolean): void {
    const b = this.#batch;
    const control = b.control(i);
    let at = control;
    if (this.#ds[i] !== 0) {
      b.memory.setCmsg(
        at,
        v4 ? IPPROTO_IP : IPPROTO_IPV6,
        v4 ? IP_TOS : IPV6_TCLASS,
        DS_BYTES,
      );
      b.i32[at + CMSGHDR_BYTES / 4] = this.#ds[i];
      at += cmsgSpace(DS_BYTES) / 4;
    }
    const source = b.endpoint(i) + ENDPOINT.SOURCE;
    const has = (b.i32[source] | b.i32[source + 1] | b.i32[source + 2] |
      b.i32[source + 3]) !== 0;
    this.#hasSource[i] = has ? 1 : 0;
    if (has) {
      const data = at + CMSGHDR_BYTES / 4;
      if (v4) {
        // in_pktinfo: interface (any: the route decides), source, unused.
        b.memory.setCmsg(at, IPPROTO_IP, IP_PKTINFO, IN_PKTINFO_BYTES);
        b.i32[data] = 0;
        b.i32[data + 1] = b.i32[source + 3];
        b.i32[data + 2] = 0;
        at += cmsgSpace(IN_PKTINFO_BYTES) / 4;
      } else {
        b.memory.setCmsg(at, IPPROTO_IPV6, IPV6_PKTINFO, IN6_PKTINFO_BYTES);
        for (let w = 0; w < 4; w++) b.i32[data + w] = b.i32[source + w];
        b.i32[data + 4] = 0;
        at += cmsgSpace(IN6_PKTINFO_BYTES) / 4;
      }
    }
    if (this.#sizes[i] !== 0) {
      b.memory.setCmsg(at, SOL_UDP, UDP_SEGMENT, SEGMENT_BYTES);
      b.i32[at + CMSGHDR_BYTES / 4] = this.#sizes[i];
      at += cmsgSpace(SEGMENT_BYTES) / 4;
    }
    b.i32[b.header(i) + MMSGHDR.CONTROL_LENGTH] = (at - control) * 4;
    b.i32[b.header(i) + MMSGHDR.CONTROL_LENGTH + 1] = 0;
  }
}

/** Receives by `recvmmsg`, to inbound's slots. */
export class BatchedReceiver implements DatagramReceiver {
  readonly #batch: Batch;
  readonly #arena: Arena;
  readonly #sizes = new Int32Array(BATCH);
  readonly #ds = new Uint8Array(BATCH);
  /** Slot of each message, as the headers have it. */
  readonly #slots = new Int32Array(BATCH);
  /** Which of the two sockets is read first: they take turns. */
  #turn = 0;

  constructor(arena: Arena, scratch: number) {
    this.#arena = arena;
    this.#batch = new Batch(arena, scratch);
    for (let i = 0; i < BATCH; i++) this.#rearm(i);
  }

  receive(slots: Int32Array, count: number): number {
    const { i32 } = this.#batch;
    for (let i = 0; i < count; i++) {
      if (slots[i] !== this.#slots[i]) this.#place(i, slots[i]);
    }
    for (let tries = 0; tries < HEADER.SOCKET_FD_COUNT; tries++) {
      this.#turn ^= 1;
      const fd = i32[HEADER.SOCKET_FD + this.#turn];
      if (fd < 0) continue;
      const n = libc().recvmmsg(
        fd,
        this.#batch.pointers[0],
        count,
        MSG_DONTWAIT,
        null,
      );
      if (n > 0) {
        for (let i = 0; i < n; i++) this.#received(i);
        return n;
      }
      const number = errno();
      if (number !== ERRNO.EAGAIN && number !== ERRNO.EINTR) return -1;
    }
    return 0;
  }

  /** Puts message i into another slot. */
  #place(i: number, slot: number): void {
    const b = this.#batch;
    this.#slots[i] = slot;
    const capacity = SLOT_BYTES - 2 * SLOT_HEADROOM;
    b.memory.setIovec(b.iovec(i), this.#arena.rxPayload(slot), capacity);
    const name = b.header(i) + MMSGHDR.NAME;
    b.memory.setAddress(name, this.#arena.rxEndpoint(slot) * 4);
  }

  length(i: number): number {
    const header = this.#batch.header(i);
    return this.#batch.i32[header + MMSGHDR.MESSAGE_LENGTH];
  }

  size(i: number): number {
    return this.#sizes[i];
  }

  ds(i: number): number {
    return this.#ds[i];
  }

  #rearm(i: number): void {
    const { i32 } = this.#batch;
    const header = this.#batch.header(i);
    i32[header + MMSGHDR.NAME_LENGTH] = SOCKADDR_IN6_BYTES;
    i32[header + MMSGHDR.CONTROL_LENGTH] = CONTROL_BYTES;
    i32[header + MMSGHDR.CONTROL_LENGTH + 1] = 0;
  }

  /** Turns the address and control messages of message i into an endpoint block. */
  #received(i: number): void {
    const { i32 } = this.#batch;
    const header = this.#batch.header(i);
    const at = this.#arena.rxEndpoint(this.#slots[i]);
    if ((i32[header + MMSGHDR.FLAGS] & MSG_TRUNC) !== 0) {
      i32[header + MMSGHDR.MESSAGE_LENGTH] = 0;
    }
    const family = i32[at] & 0xffff;
    if (family === AF_INET) {
      i32[at] = (i32[at] & ~0xffff) | AF_INET6;
      i32[at + ENDPOINT.ADDRESS + 3] = i32[at + 1];
      i32[at + ENDPOINT.ADDRESS] = i32[at + ENDPOINT.ADDRESS + 1] = 0;
      i32[at + ENDPOINT.ADDRESS + 2] = 0xffff0000 | 0;
      i32[at + ENDPOINT.SCOPE] = 0;
    }
    i32[at + 1] = 0;
    i32.fill(0, at + ENDPOINT.IFINDEX, at + ENDPOINT.WORDS);
    this.#readControl(i, at);
    this.#rearm(i);
  }

  /** Reads the control messages of message i; `at`: its endpoint block. */
  #readControl(i: number, at: number): void {
    const { i32 } = this.#batch;
    this.#sizes[i] = this.#ds[i] = 0;
    const control = this.#batch.control(i);
    const end = control +
      i32[this.#batch.header(i) + MMSGHDR.CONTROL_LENGTH] / 4;
    for (let c = control; c + CMSGHDR_BYTES / 4 <= end;) {
      const bytes = i32[c];
      const level = i32[c + 2];
      const type = i32[c + 3];
      const data = c + CMSGHDR_BYTES / 4;
      if (level === IPPROTO_IPV6 && type === IPV6_PKTINFO) {
        for (let w = 0; w < 4; w++) {
          i32[at + ENDPOINT.SOURCE + w] = i32[data + w];
        }
        i32[at + ENDPOINT.IFINDEX] = i32[data + 4];
      } else if (level === IPPROTO_IP && type === IP_PKTINFO) {
        // in_pktinfo: interface, local address of the route, destination of the packet.
        i32[at + ENDPOINT.SOURCE + 2] = 0xffff0000 | 0;
        i32[at + ENDPOINT.SOURCE + 3] = i32[data + 1];
        i32[at + ENDPOINT.IFINDEX] = i32[data];
      } else if (
        (level === IPPROTO_IP && type === IP_TOS) ||
        (level === IPPROTO_IPV6 && type === IPV6_TCLASS)
      ) {
        // One byte for IPv4, a word for IPv6.
        this.#ds[i] = i32[data];
      } else if (level === SOL_UDP && type === UDP_GRO) {
        this.#sizes[i] = i32[data];
      }
      c += Math.max(CMSGHDR_BYTES, Math.ceil(bytes / 8) * 8) / 4;
    }
  }
}
