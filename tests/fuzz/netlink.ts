/**
 * Fuzz target: answers of rtnetlink. An input is what `recv` gives, cut short
 * anywhere; what is behind it in the buffer, left by an answer before, must not
 * be read. What the answers say is read here once more, in the plainest way.
 *
 * @module
 */
import { readLink, readNetnsNumber } from "../../lib/sys/link.ts";
import { readAnswer } from "../../lib/sys/netlink.ts";
import { readInterface, readMtu, readsLocal } from "../../lib/sys/route.ts";
import type { Target } from "./engine.ts";
import { check } from "./memory.ts";

const LENGTH_MAX = 2_048;
const HEADER = 16;
const EPROTO = 71;
const ERROR = 2;
/** The interface that routes are asked about. */
const INTERFACE = 7;

/** What is tested. */
export interface NetlinkCode {
  readonly readAnswer: typeof readAnswer;
  readonly readLink: typeof readLink;
  readonly readNetnsNumber: typeof readNetnsNumber;
  readonly readInterface: typeof readInterface;
  readonly readMtu: typeof readMtu;
  readonly readsLocal: typeof readsLocal;
}

/** The real code. */
export const NETLINK: NetlinkCode = {
  readAnswer,
  readLink,
  readNetnsNumber,
  readInterface,
  readMtu,
  readsLocal,
};

/** Fuzzes the readers of netlink's answers. */
export class NetlinkTarget implements Target {
  readonly name = "netlink";
  readonly lengthMax = LENGTH_MAX;
  readonly words: readonly Uint8Array[] = [
    // Attributes: MTU of a link, number of a namespace, interface, metrics.
    Uint8Array.of(8, 0, 4, 0, 0x8c, 5, 0, 0),
    Uint8Array.of(8, 0, 1, 0, 3, 0, 0, 0),
    Uint8Array.of(8, 0, 4, 0, INTERFACE, 0, 0, 0),
    Uint8Array.of(12, 0, 8, 0, 8, 0, 2, 0, 0x14, 5, 0, 0),
    Uint8Array.of(6, 0, 4, 0, 1, 2, 0, 0),
  ];
  readonly #code: NetlinkCode;

  constructor(code: NetlinkCode) {
    this.#code = code;
  }

  run(input: Uint8Array): string {
    // A shorter one is refused before it is read.
    if (input.length < HEADER) return "short";
    const expected = this.#expect(input);
    for (const background of [0xa5, 0x08]) {
      const buffer = new ArrayBuffer(LENGTH_MAX + HEADER);
      const bytes = new Uint8Array(buffer).fill(background);
      bytes.set(input);
      const read = this.#read(buffer, input.length);
      check(read === expected, `${read}, expected ${expected}`);
    }
    return expected.replace(/\d+/g, (number) => `${Math.min(2, +number)}`);
  }

  #read(buffer: ArrayBuffer, received: number): string {
    const code = this.#code;
    const { error, body } = code.readAnswer(buffer, received);
    const link = code.readLink(body);
    return [
      error,
      body.byteLength,
      link?.up,
      link?.mtu,
      code.readNetnsNumber(body),
      code.readInterface(body),
      code.readMtu(body, INTERFACE),
      code.readsLocal(body),
    ].join();
  }

  #expect(input: Uint8Array): string {
    const length = Math.min(input.length, le32(input, 0));
    const isError = le16(input, 4) === ERROR;
    const error = !isError
      ? 0
      : length < HEADER + 4
      ? EPROTO
      : 0 - (le32(input, HEADER) | 0);
    const body = isError ? new Uint8Array(0) : input.slice(HEADER, length);
    const link = attributes(body.subarray(16));
    const number = attributes(body.subarray(4));
    const route = attributes(body.subarray(12));
    const mtu = word(link.get(4));
    const by = word(route.get(4));
    const metrics = route.get(8);
    const routeMtu = by === INTERFACE && metrics !== undefined
      ? word(attributes(metrics).get(2)) ?? 0
      : 0;
    return [
      error,
      body.length,
      mtu === undefined ? undefined : (body[8] & 1) !== 0,
      mtu,
      (word(number.get(1)) ?? -1) | 0,
      by,
      routeMtu,
      body.length >= 12 && body[7] === 2,
    ].join();
  }
}

function le16(bytes: Uint8Array, at: number): number {
  return bytes[at] | (bytes[at + 1] << 8);
}

function le32(bytes: Uint8Array, at: number): number {
  return (le16(bytes, at) | (le16(bytes, at + 2) << 16)) >>> 0;
}

function word(value: Uint8Array | undefined): number | undefined {
  return value === undefined || value.length < 4 ? undefined : le32(value, 0);
}

/** First value of each type, up to the first attribute that lies. */
function attributes(bytes: Uint8Array): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>();
  for (let rest = bytes; rest.length >= 4;) {
    const length = le16(rest, 0);
    if (length < 4 || length > rest.length) break;
    const type = le16(rest, 2);
    if (!found.has(type)) found.set(type, rest.subarray(4, length));
    rest = rest.subarray(Math.min(rest.length, length + 3 & ~3));
  }
  return found;
}
