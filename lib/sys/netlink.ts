/**
 * rtnetlink: sockets for notices and for requests, and their messages as bytes.
 * Both belong to the network namespace that the calling thread is in when they
 * are opened.
 *
 * @module
 */
import { closeDescriptor, opened } from "./descriptors.ts";
import { check, ERRNO, errno, libc, SysError } from "./libc.ts";

const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_NONBLOCK = 0x800;
const SOCK_CLOEXEC = 0x80000;
const NETLINK_ROUTE = 0;
const SOL_NETLINK = 270;
const NETLINK_LISTEN_ALL_NSID = 8;
const SOCKADDR_NL_BYTES = 12;
const HEADER_BYTES = 16;
const ATTRIBUTE_BYTES = 4;
const ALIGNMENT = 4;
const NLMSG_ERROR = 2;
const NLM_F_REQUEST = 1;
const NLM_F_ACK = 4;
const ANSWER_BYTES = 32 * 1024;

/** Groups of notices. */
export const RTMGRP = {
  LINK: 1,
  IPV4_ADDRESS: 0x10,
  IPV4_ROUTE: 0x40,
  IPV4_RULE: 0x80,
  IPV6_ADDRESS: 0x100,
  IPV6_ROUTE: 0x400,
  IPV6_RULE: 0x40000,
} as const;

function openSocket(groups: number): number {
  const c = libc();
  const type = SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC;
  const fd = opened(
    c.socket(AF_NETLINK, type, NETLINK_ROUTE),
    "open an rtnetlink socket",
  );
  const address = new Uint8Array(SOCKADDR_NL_BYTES);
  const view = new DataView(address.buffer);
  view.setUint16(0, AF_NETLINK, true);
  view.setUint32(8, groups, true);
  if (c.bind(fd, address, address.length) === 0) return fd;
  const number = errno();
  closeDescriptor(fd);
  throw new SysError("bind rtnetlink", number);
}

/**
 * Opens a socket that is readable when there is a notice.
 *
 * @param everywhere also notices of other namespaces that have a number here,
 *   if CAP_NET_BROADCAST allows it
 * @throws SysError
 */
export function openNotices(groups: number, everywhere = false): number {
  const fd = openSocket(groups);
  const yes = new Int32Array([1]);
  if (everywhere) {
    libc().setsockopt(fd, SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, yes, 4);
  }
  return fd;
}

function padded(lengthBytes: number): number {
  return Math.ceil(lengthBytes / ALIGNMENT) * ALIGNMENT;
}

/** A 32-bit value of an attribute. */
export function u32(value: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new Int32Array([value]).buffer);
}

/** An answer: an error number, or a body. */
export interface NetlinkAnswer {
  /** 0, or a positive error number. */
  readonly error: number;
  /** From the family's own header on; empty after an error. */
  readonly body: DataView<ArrayBuffer>;
}

/** Asks and waits for the answer, which the system makes at once. */
export class NetlinkRequests {
  readonly #fd: number;
  readonly #answer = new Uint8Array(ANSWER_BYTES);
  #sequence = 0;

  /** @throws SysError */
  constructor() {
    this.#fd = openSocket(0);
  }

  /**
   * @param header the family's own header, a multiple of four bytes
   * @param attributes by type; undefined: left out
   * @throws SysError when the system cannot be asked at all
   */
  request(
    type: number,
    header: Uint8Array,
    attributes: readonly (readonly [number, Uint8Array | undefined])[],
    acknowledge = false,
  ): NetlinkAnswer {
    const present = attributes.filter(([, value]) => value !== undefined) as [
      number,
      Uint8Array,
    ][];
    const length = present.reduce(
      (sum, [, value]) => sum + padded(ATTRIBUTE_BYTES + value.length),
      HEADER_BYTES + header.length,
    );
    const message = new Uint8Array(length);
    const view = new DataView(message.buffer);
    const sequence = ++this.#sequence;
    view.setUint32(0, length, true);
    view.setUint16(4, type, true);
    const flags = NLM_F_REQUEST | (acknowledge ? NLM_F_ACK : 0);
    view.setUint16(6, flags, true);
    view.setUint32(8, sequence, true);
    message.set(header, HEADER_BYTES);
    let at = HEADER_BYTES + header.length;
    for (const [kind, value] of present) {
      view.setUint16(at, ATTRIBUTE_BYTES + value.length, true);
      view.setUint16(at + 2, kind, true);
      message.set(value, at + ATTRIBUTE_BYTES);
      at += padded(ATTRIBUTE_BYTES + value.length);
    }
    const c = libc();
    check(c.send(this.#fd, message, length, 0), "ask rtnetlink");
    for (;;) {
      const n = check(
        c.recv(this.#fd, this.#answer, ANSWER_BYTES, 0),
        "hear rtnetlink",
      );
      if (n < HEADER_BYTES) throw new SysError("hear rtnetlink", ERRNO.EPROTO);
      // What a request before left unread.
      if (sequenceOf(this.#answer.buffer) !== sequence) continue;
      return readAnswer(this.#answer.buffer, n);
    }
  }

  /** Closes the socket. */
  close(): void {
    closeDescriptor(this.#fd);
  }
}

function sequenceOf(buffer: ArrayBuffer): number {
  return new DataView(buffer).getUint32(8, true);
}

/** An answer of `received` bytes, a header's at least, at a buffer's start. */
export function readAnswer(
  buffer: ArrayBuffer,
  received: number,
): NetlinkAnswer {
  const view = new DataView(buffer, 0, received);
  const length = Math.min(received, view.getUint32(0, true));
  const empty = new DataView(buffer, HEADER_BYTES, 0);
  if (view.getUint16(4, true) !== NLMSG_ERROR) {
    const bytes = Math.max(0, length - HEADER_BYTES);
    return { error: 0, body: new DataView(buffer, HEADER_BYTES, bytes) };
  }
  const error = length < HEADER_BYTES + 4
    ? ERRNO.EPROTO
    : 0 - view.getInt32(HEADER_BYTES, true);
  return { error, body: empty };
}

/**
 * An attribute's value, or undefined.
 *
 * @param from bytes of the family's own header
 */
export function findAttribute(
  body: DataView<ArrayBuffer>,
  from: number,
  type: number,
): DataView<ArrayBuffer> | undefined {
  for (let at = from; at + ATTRIBUTE_BYTES <= body.byteLength;) {
    const length = body.getUint16(at, true);
    if (length < ATTRIBUTE_BYTES || at + length > body.byteLength) break;
    if (body.getUint16(at + 2, true) === type) {
      return new DataView(
        body.buffer,
        body.byteOffset + at + ATTRIBUTE_BYTES,
        length - ATTRIBUTE_BYTES,
      );
    }
    at += padded(length);
  }
  return undefined;
}

/** The 32-bit value of an attribute, or undefined; too short a one is none. */
export function findU32(
  body: DataView<ArrayBuffer>,
  from: number,
  type: number,
): number | undefined {
  const value = findAttribute(body, from, type);
  return value === undefined || value.byteLength < 4
    ? undefined
    : value.getUint32(0, true);
}
