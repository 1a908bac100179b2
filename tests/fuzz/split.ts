/**
 * Fuzz target: packets from the interface with any vnet header, split into
 * segments or their checksum finished. An input is what `read` on a TUN gives.
 *
 * @module
 */
import { GSO_NONE, VNET, VNET_HEADER } from "../../lib/segments.ts";
import type { finishChecksum, Splitter } from "../../lib/segments.ts";
import type { Target } from "./engine.ts";
import { check, equalBytes, type Place, twoPlaces } from "./memory.ts";
import {
  cut,
  readSuperPacket,
  setBe16,
  sum,
  type SuperPacket,
} from "./reference.ts";

const LENGTH_MAX = 4096;
const PACKET_MAX = 65_535;
/** Segments of one packet that are looked at; a size of 1 makes thousands. */
const SEGMENTS_MAX = 130;
/** An input that ends so is made as long as a packet can be. */
const OVERSIZE = 0xfe;
const OUT = 1 << 18;
/** Bytes between two segments. */
const GAP = 41;
/** Each so many inputs all of the memory is looked at. */
const CLEAN_EVERY = 4096;

/** What is tested. */
export interface SplitCode {
  readonly Splitter: typeof Splitter;
  readonly finishChecksum: typeof finishChecksum;
}

/** Fuzzes the split of super-packets. */
export class SplitTarget implements Target {
  readonly name = "split";
  readonly lengthMax = LENGTH_MAX;
  readonly words: readonly Uint8Array[] = [];
  readonly #code: SplitCode;
  readonly #places = twoPlaces();
  readonly #splitters: Splitter[];
  #runs = 0;

  constructor(code: SplitCode) {
    this.#code = code;
    this.#splitters = this.#places.map(({ arena, checksum }) =>
      new code.Splitter(arena, checksum)
    );
  }

  run(input: Uint8Array): string {
    const packet = inflate(input);
    // The outbound loop looks at the version and the IP header's length first.
    const length = packet.length - VNET_HEADER;
    const version = packet[VNET_HEADER] >> 4;
    if (length < (version === 4 ? 20 : 40)) return "short";
    if (version !== 4 && version !== 6) return "no IP";
    const signature = packet[VNET.GSO_TYPE] === GSO_NONE
      ? this.#finish(packet, length)
      : this.#split(packet, length);
    for (const place of this.#places) {
      place.restore();
      if (this.#runs % CLEAN_EVERY === 0) place.clean();
    }
    this.#runs++;
    return `${signature} ${version}`;
  }

  #split(packet: Uint8Array, length: number): string {
    const whole = readSuperPacket(packet);
    for (const [p, place] of this.#places.entries()) {
      const at = place.start + 256;
      place.put(at - VNET_HEADER, packet);
      const splitter = this.#splitters[p];
      const count = splitter.start(at, length);
      check(count === (whole?.count ?? 0), `${count} segments`);
      if (whole !== null) this.#segments(whole, splitter, place);
      check(
        equalBytes(place.u8, at - VNET_HEADER, packet, 0, packet.length),
        "the super-packet was changed",
      );
    }
    if (whole === null) return "refused";
    const { count, l4, protocol } = whole;
    const many = count > SEGMENTS_MAX ? "many" : Math.min(3, count);
    return `split ${many} ${protocol} ${Math.min(l4, 64)}`;
  }

  #segments(whole: SuperPacket, splitter: Splitter, place: Place): void {
    let out = place.start + OUT;
    const { longest } = splitter;
    for (let i = 0; i < Math.min(whole.count, SEGMENTS_MAX); i++) {
      const expected = cut(whole, i);
      const length = splitter.next(out);
      check(length === expected.length, `segment ${i} of ${length} bytes`);
      check(length <= longest, `segment ${i} is longer than the longest`);
      place.used(out, out + length);
      check(
        equalBytes(place.u8, out, expected, 0, length),
        `segment ${i} of ${whole.count} is wrong`,
      );
      place.untouched(out + length, out + length + GAP);
      out += length + GAP;
    }
    if (whole.count <= SEGMENTS_MAX) {
      check(splitter.next(out) === 0, "there is one more segment");
    }
  }

  #finish(packet: Uint8Array, length: number): string {
    const expected = packet.slice();
    const right = finishReference(expected.subarray(VNET_HEADER), packet);
    for (const place of this.#places) {
      const at = place.start + 256;
      place.put(at - VNET_HEADER, packet);
      const { arena, checksum } = place;
      const done = this.#code.finishChecksum(arena, checksum, at, length);
      check(done === right, `finishChecksum says ${done}`);
      check(
        equalBytes(place.u8, at - VNET_HEADER, expected, 0, expected.length),
        "the packet is wrong after its checksum was finished",
      );
    }
    return `finish ${right}`;
  }
}

/** An input, or the longest packet that begins as it does. */
function inflate(input: Uint8Array): Uint8Array {
  if (input[input.length - 1] !== OVERSIZE) return input;
  const packet = new Uint8Array(VNET_HEADER + PACKET_MAX).fill(OVERSIZE);
  packet.set(input);
  return packet;
}

/** Finishes the checksum of `ip`; false, and nothing done, when the header lies. */
export function finishReference(ip: Uint8Array, packet: Uint8Array): boolean {
  const start = packet[6] | (packet[7] << 8);
  const offset = packet[8] | (packet[9] << 8);
  const network = ip[0] >> 4 === 4 ? (ip[0] & 15) * 4 : 40;
  if (network < 20 || start < network) return false;
  if (start + offset + 2 > ip.length) return false;
  // Bytes that begin at an odd place are summed from there.
  const value = ~sum(ip, start, ip.length) & 0xffff;
  setBe16(ip, start + offset, value === 0 && offset === 6 ? 0xffff : value);
  return true;
}
