/**
 * Fuzz target: packets that came through the tunnel, merged for the interface.
 * An input is a small program: its first byte says what the interface takes and
 * refuses, and each step behind it gives one packet, whole, as the next of an
 * earlier one or as a changed copy, or ends the batch. Many packets come of few
 * bytes so, with right checksums where those are wanted.
 *
 * @module
 */
import type { Coalescer } from "../../lib/coalesce.ts";
import { VNET_HEADER } from "../../lib/segments.ts";
import { Delivery } from "./delivery.ts";
import type { Target } from "./engine.ts";
import { check, equalBytes, type Place, twoPlaces } from "./memory.ts";
import {
  be16,
  be32,
  setBe16,
  setBe32,
  setNetworkChecksum,
  setTransportChecksum,
} from "./reference.ts";

const LENGTH_MAX = 4096;
const PACKETS_MAX = 96;
const BYTES_MAX = 400_000;
/** Bytes between two packets. */
const GAP = 40;
const CLEAN_EVERY = 1024;

/** First byte: bit 0: UDP super-packets are taken. Bits 1 to 3: */
const REFUSE_TCP = 4;
const REFUSE_UDP = 5;
const FULL_AT_TIMES = 6;
const DOWN = 7;
const EIO = 5;
const EINVAL = 22;
const ENOBUFS = 105;

/** Steps: the two low bits of a byte. */
const WHOLE = 0;
const NEXT = 1;
const CHANGED = 2;

/** Fuzzes the merge of segments. */
export class MergeTarget implements Target {
  readonly name = "merge";
  readonly lengthMax = LENGTH_MAX;
  readonly words: readonly Uint8Array[] = [
    // The next packet of the last one, of the one before, and so on.
    ...[0, 1, 2, 3].map((back) => Uint8Array.of(NEXT, back, 0, 0)),
    ...[0, 1].map((back) => Uint8Array.of(NEXT, back, 0, 8)),
    Uint8Array.of(NEXT, 0, 3, 0),
    Uint8Array.of(3),
  ];
  readonly #Code: typeof Coalescer;
  readonly #places = twoPlaces();
  #runs = 0;

  constructor(Code: typeof Coalescer) {
    this.#Code = Code;
  }

  run(input: Uint8Array): string {
    if (input.length === 0) return "empty";
    const batches = readProgram(input);
    const [one, other] = this.#places.map((place, p) =>
      this.#merge(place, input[0], batches, p)
    );
    check(one.lost === other.lost, "what is lost depends on bytes around");
    check(
      one.written.length === other.written.length,
      "the number of writes depends on bytes around",
    );
    one.written.forEach((packet, i) =>
      check(
        packet.length === other.written[i].length &&
          equalBytes(packet, 0, other.written[i], 0, packet.length),
        `write ${i} depends on bytes around`,
      )
    );
    for (const place of this.#places) {
      place.restore();
      if (this.#runs % CLEAN_EVERY === 0) place.clean();
    }
    this.#runs++;
    const delivery = new Delivery(batches.flat());
    for (const packet of one.written) delivery.take(packet);
    delivery.finish(one.lost);
    return `${(input[0] >> 1) & 7} ${delivery.signature}`;
  }

  #merge(
    place: Place,
    mode: number,
    batches: readonly Uint8Array[][],
    shift: number,
  ): { written: Uint8Array[]; lost: number } {
    const { arena, checksum } = place;
    const tun = new Interface(place, (mode >> 1) & 7);
    const coalescer = new this.#Code(arena, checksum, tun, (mode & 1) !== 0);
    let lost = 0;
    for (const batch of batches) {
      const start = place.start + 128;
      let at = start;
      for (const packet of batch) {
        place.put(at, packet);
        place.used(at - VNET_HEADER, at);
        at += packet.length + GAP + shift;
      }
      at = start;
      for (const packet of batch) {
        lost += coalescer.add(at, packet.length);
        at += packet.length + GAP + shift;
      }
      lost += coalescer.flush();
      at = start;
      for (const packet of batch) {
        const end = at + packet.length;
        place.untouched(end, end + GAP + shift - VNET_HEADER);
        at = end + GAP + shift;
      }
      place.restore();
    }
    return { written: tun.written, lost };
  }
}

/** An interface that takes what it is made to take. */
class Interface {
  readonly written: Uint8Array[] = [];
  readonly #place: Place;
  readonly #mode: number;
  #pieces: number[] = [];
  #writes = 0;

  constructor(place: Place, mode: number) {
    this.#place = place;
    this.#mode = mode;
  }

  append(offset: number, length: number): void {
    this.#pieces.push(offset, length);
  }

  write(): number {
    const pieces = this.#pieces;
    this.#pieces = [];
    let length = 0;
    for (let i = 1; i < pieces.length; i += 2) length += pieces[i];
    const packet = new Uint8Array(length);
    let at = 0;
    for (let i = 0; i < pieces.length; i += 2) {
      packet.set(
        this.#place.u8.subarray(pieces[i], pieces[i] + pieces[i + 1]),
        at,
      );
      at += pieces[i + 1];
    }
    const error = this.#answer(packet[1]);
    if (error === 0) this.written.push(packet);
    return error;
  }

  #answer(kind: number): number {
    this.#writes++;
    switch (this.#mode) {
      case REFUSE_TCP:
        return kind === 1 || kind === 4 ? EINVAL : 0;
      case REFUSE_UDP:
        return kind === 5 ? EIO : 0;
      case FULL_AT_TIMES:
        return this.#writes % 3 === 0 ? ENOBUFS : 0;
      case DOWN:
        return EIO;
      default:
        return 0;
    }
  }
}

/** The batches of packets that a program makes. */
function readProgram(input: Uint8Array): Uint8Array[][] {
  const made: Uint8Array[] = [];
  const batches: Uint8Array[][] = [[]];
  let bytes = 0;
  for (let at = 1; at < input.length && made.length < PACKETS_MAX;) {
    const step = input[at];
    const back = input[at + 1] ?? 0;
    const earlier = made.length > 0
      ? made[made.length - 1 - back % made.length]
      : undefined;
    let packet: Uint8Array | undefined;
    switch (step & 3) {
      case WHOLE: {
        const length = (input[at + 1] ?? 0) | ((input[at + 2] ?? 0) << 8);
        packet = input.slice(at + 3, at + 3 + length);
        if ((step & 4) !== 0) setLength(packet);
        if ((step & 8) !== 0) setChecksums(packet);
        at += 3 + length;
        break;
      }
      case NEXT:
        packet = earlier && nextOf(earlier, input, at + 2);
        at += 4;
        break;
      case CHANGED:
        packet = earlier?.slice();
        if (packet !== undefined && packet.length > 0) {
          const place = (input[at + 2] ?? 0) % packet.length;
          packet[place] ^= input[at + 3] ?? 0;
          if ((step & 4) !== 0) setChecksums(packet);
        }
        at += 4;
        break;
      default:
        batches.push([]);
        at++;
    }
    packet = packet && accepted(packet);
    if (packet === undefined) continue;
    bytes += packet.length;
    if (bytes > BYTES_MAX) break;
    made.push(packet);
    batches[batches.length - 1].push(packet);
  }
  return batches;
}

/** What the inbound loop hands on of it, as long as its IP header says. */
function accepted(packet: Uint8Array): Uint8Array | undefined {
  const version = packet[0] >> 4;
  if (version === 4 && packet.length >= 20) {
    const length = be16(packet, 2);
    if (length < 20 || length > packet.length) return undefined;
    return packet.slice(0, length);
  }
  if (version === 6 && packet.length >= 40) {
    const length = be16(packet, 4) + 40;
    return length > packet.length ? undefined : packet.slice(0, length);
  }
  return undefined;
}

/** Where the transport's header is, if it is TCP or UDP and whole; else 0. */
function transportOf(packet: Uint8Array): number {
  const v4 = packet[0] >> 4 === 4;
  const l4 = v4 ? (packet[0] & 15) * 4 : 40;
  const protocol = packet[v4 ? 9 : 6];
  const bytes = protocol === 6 ? 20 : protocol === 17 ? 8 : 0;
  if (bytes === 0 || l4 < 20 || packet.length < l4 + bytes) return 0;
  return l4;
}

function setLength(packet: Uint8Array): void {
  if (packet.length < 40) return;
  if (packet[0] >> 4 === 4) setBe16(packet, 2, packet.length);
  else setBe16(packet, 4, packet.length - 40);
  const l4 = transportOf(packet);
  const protocol = packet[packet[0] >> 4 === 4 ? 9 : 6];
  if (l4 > 0 && protocol === 17) setBe16(packet, l4 + 4, packet.length - l4);
}

function setChecksums(packet: Uint8Array): void {
  if (packet.length < 40) return;
  const v4 = packet[0] >> 4 === 4;
  const l4 = transportOf(packet);
  if (l4 > 0) setTransportChecksum(packet, l4, packet[v4 ? 9 : 6]);
  if (v4 && (packet[0] & 15) >= 5 && packet.length >= 60) {
    setNetworkChecksum(packet);
  }
}

/** The packet of the same flow behind `earlier`; the input says what differs. */
function nextOf(
  earlier: Uint8Array,
  input: Uint8Array,
  at: number,
): Uint8Array | undefined {
  const l4 = transportOf(earlier);
  if (l4 === 0) return undefined;
  const v4 = earlier[0] >> 4 === 4;
  const tcp = earlier[v4 ? 9 : 6] === 6;
  const headers = l4 + (tcp ? (earlier[l4 + 12] >> 4) * 4 : 8);
  const payload = earlier.length - headers;
  if (payload < 0) return undefined;
  // Of the same size, or of another.
  const size = input[at] ?? 0;
  const packet = new Uint8Array(headers + (size === 0 ? payload : size * 11));
  packet.set(earlier.subarray(0, headers));
  for (let i = headers; i < packet.length; i++) packet[i] = i + at;
  if (v4) setBe16(packet, 4, (be16(packet, 4) + 1) & 0xffff);
  if (tcp) {
    setBe32(packet, l4 + 4, (be32(packet, l4 + 4) + payload) % 2 ** 32);
    packet[l4 + 13] ^= input[at + 1] ?? 0;
  }
  setLength(packet);
  setChecksums(packet);
  return packet;
}
