/**
 * What reaches the host of the packets that were given to a coalescer: its
 * super-packets are cut again, and each packet must be one that was given, in
 * its place.
 *
 * @module
 */
import { MERGE_MAX } from "../../lib/coalesce.ts";
import { check } from "./memory.ts";
import {
  be16,
  cut,
  flowOf,
  hostsOf,
  pseudoSum,
  readSuperPacket,
  sum,
  type SuperPacket,
} from "./reference.ts";

const VNET = 10;

interface Given {
  readonly packet: Uint8Array;
  readonly hosts: string;
  readonly flow: string | undefined;
  delivered: boolean;
}

/** Takes what was written, and compares it with what was given. */
export class Delivery {
  readonly #given: Given[];
  #count = 0;
  #supers = 0;
  #longest = 1;
  readonly #kinds = new Set<number>();

  constructor(packets: readonly Uint8Array[]) {
    this.#given = packets.map((packet) => ({
      packet,
      hosts: hostsOf(packet),
      flow: flowOf(packet),
      delivered: false,
    }));
  }

  /** What happened, in short. */
  get signature(): string {
    return `${this.#supers}/${this.#count} ${this.#longest} ${
      [...this.#kinds].sort().join()
    }`;
  }

  /** Takes one write. */
  take(written: Uint8Array): void {
    check(written.length > VNET, "a write of nothing");
    if (written[1] === 0) {
      for (let i = 0; i < VNET; i++) {
        check(written[i] === 0, "a vnet header of a single packet says more");
      }
      this.#deliver(written.subarray(VNET), false);
      return;
    }
    const whole = readSuperPacket(written);
    check(whole !== null, "a super-packet that lies");
    checkSuperPacket(written, whole);
    this.#supers++;
    this.#longest = Math.max(this.#longest, whole.count);
    this.#kinds.add(written[1]);
    for (let i = 0; i < whole.count; i++) this.#deliver(cut(whole, i), true);
  }

  /** @param lost how many packets were told to be lost */
  finish(lost: number): void {
    check(
      this.#count + lost === this.#given.length,
      `${this.#count} of ${this.#given.length} packets came, ${lost} lost`,
    );
  }

  #deliver(packet: Uint8Array, merged: boolean): void {
    this.#count++;
    const hosts = hostsOf(packet);
    const flow = flowOf(packet);
    let given = -1;
    let later = -1;
    for (const [i, other] of this.#given.entries()) {
      if (other.delivered || other.flow !== flow || other.hosts !== hosts) {
        continue;
      }
      if (!isSame(packet, other.packet, merged)) continue;
      given = i;
      later = this.#overtaken(i);
      // Of equal packets one may be lost: this can be any that is in its place.
      if (later < 0) break;
    }
    check(given >= 0, "a packet came that was not given, or twice");
    check(later < 0, `packet ${later} overtook packet ${given}`);
    this.#given[given].delivered = true;
  }

  /** A packet that came before packet `i` and should not have; -1: none. */
  #overtaken(i: number): number {
    const { hosts, flow } = this.#given[i];
    return this.#given.findIndex((other, j) =>
      j > i && other.delivered && other.hosts === hosts &&
      // A packet without ports keeps its place among all of its hosts.
      (other.flow === flow || other.flow === undefined || flow === undefined)
    );
  }
}

/** What a kernel wants of a super-packet besides. */
function checkSuperPacket(written: Uint8Array, whole: SuperPacket): void {
  const { ip, protocol, l4, headers, count } = whole;
  check(count >= 2 && count <= MERGE_MAX, `a super-packet of ${count}`);
  check(ip.length <= 65_535, `a super-packet of ${ip.length} bytes`);
  check(written[0] === 1, "the checksum is not asked for");
  check((written[2] | (written[3] << 8)) === headers, "its header's length");
  const offset = written[8] | (written[9] << 8);
  check(offset === (protocol === 6 ? 16 : 6), "the place of its checksum");
  const partial = pseudoSum(ip, protocol, ip.length - l4);
  const field = be16(ip, l4 + offset);
  check(field % 0xffff === partial % 0xffff, "its pseudo-header's sum");
  if (ip[0] >> 4 === 4) {
    check(be16(ip, 2) === ip.length, "its length");
    check(sum(ip, 0, 20) === 0xffff, "its IP checksum");
  } else check(be16(ip, 4) === ip.length - 40, "its length");
  if (protocol === 17) {
    check(be16(ip, l4 + 4) === ip.length - l4, "its UDP length");
  }
}

/**
 * Whether a packet is the one that was given. In what was merged and cut, the
 * number of a packet that is not to be fragmented may be another, and a checksum
 * of zero may be written in either way.
 */
function isSame(
  packet: Uint8Array,
  given: Uint8Array,
  merged: boolean,
): boolean {
  if (packet.length !== given.length) return false;
  const v4 = packet[0] >> 4 === 4;
  const l4 = v4 ? 20 : 40;
  const field = l4 + (packet[v4 ? 9 : 6] === 6 ? 16 : 6);
  const isDf = v4 && (given[6] & 0x40) !== 0;
  for (let i = 0; i < packet.length; i++) {
    if (packet[i] === given[i]) continue;
    if (!merged) return false;
    if (isDf && (i === 4 || i === 5 || i === 10 || i === 11)) continue;
    const at = i & ~1;
    if (at !== field && !(v4 && at === 10)) return false;
    if (be16(packet, at) % 0xffff !== be16(given, at) % 0xffff) return false;
  }
  return true;
}
