/**
 * Fuzz target: frames at the interface of a whole device, vnet headers that lie
 * among them, and what the far side is given of them. An input is frames: 16
 * bits of length (the highest one: as long as can be), a vnet header, a packet.
 *
 * @module
 */
import { type CounterName, readCounters } from "../../lib/counters.ts";
import { MemoryDevice, Network } from "../memory/device.ts";
import { addPeer } from "../memory/pair.ts";
import { generatePrivateKey } from "../../lib/crypto/x25519.ts";
import type { Target } from "./engine.ts";
import { check } from "./memory.ts";
import { be16, cut, pseudoSum, readSuperPacket, sum } from "./reference.ts";
import { finishReference } from "./split.ts";

const LENGTH_MAX = 4_096;
const VNET = 10;
const PACKET_MAX = 65_535;
const MTU = 1420;
const FRAMES_MAX = 8;
/** Most segments of one frame here; a size of 1 makes thousands. */
const SEGMENTS_MAX = 400;
const LONGEST = 0x8000;
const FILL = 0xfe;
const LIMITS = { peers: 8, allowedIpNodes: 64, sessions: 8, txSlots: 512 };
/** Messages under one key, after which there is a new one. */
const RENEW_EVERY = 1 << 20;

/** The device whose interface is fuzzed, which may be made wrong. */
export type MakeDevice = (network: Network, address: string) => MemoryDevice;

/** A device that takes super-packets. */
export const offloadingDevice: MakeDevice = (network, address) =>
  new MemoryDevice(network, address, LIMITS, 0, {
    offloads: { tcp: true, udp: true },
  });

/** What becomes of a frame: packets for the far side, or a reason. */
type Outcome = Uint8Array[] | CounterName;

/** Fuzzes what comes from the interface. */
export class TunTarget implements Target {
  readonly name = "tun";
  readonly lengthMax = LENGTH_MAX;
  readonly words: readonly Uint8Array[] = [
    // Segments of 1 and of 1,380 bytes, of each kind.
    Uint8Array.of(1, 1, 40, 0, 1, 0, 20, 0, 16, 0),
    Uint8Array.of(1, 1, 40, 0, 100, 5, 20, 0, 16, 0),
    Uint8Array.of(1, 4, 60, 0, 100, 5, 40, 0, 16, 0),
    Uint8Array.of(1, 5, 28, 0, 100, 5, 20, 0, 6, 0),
    // Addresses: of the far side, of a peer without endpoint, of nobody.
    Uint8Array.of(10, 0, 0, 2),
    Uint8Array.of(11, 0, 0, 2),
    Uint8Array.of(12, 0, 0, 2),
  ];
  readonly #network = new Network();
  readonly #device: MemoryDevice;
  readonly #far: MemoryDevice;
  #sent = 0;

  constructor(make: MakeDevice = offloadingDevice) {
    const network = this.#network;
    // Padding and ECN are looked at by themselves (lib/ecn).
    network.wire = (datagram) => {
      network.log.length = 0;
      this.#sent++;
      return [{ ...datagram, ds: 0 }];
    };
    this.#device = make(network, "192.0.2.1:51820");
    this.#far = new MemoryDevice(network, "192.0.2.2:51820", LIMITS);
    for (const { control } of [this.#device, this.#far]) {
      control.setPrivateKey(generatePrivateKey());
    }
    const peer = addPeer(this.#device, this.#far, "10.0.0.2", true);
    const { control } = this.#device;
    control.allowedIps.insert(Uint8Array.of(10, 0, 0, 0), 8, peer);
    const six = new Uint8Array(16);
    six[0] = 0xfd;
    control.allowedIps.insert(six, 8, peer);
    const nowhere = control.createPeer(generatePrivateKey());
    control.allowedIps.insert(Uint8Array.of(11, 0, 0, 0), 8, nowhere);
    const back = addPeer(this.#far, this.#device, "10.0.0.1", false);
    const all = this.#far.control.allowedIps;
    all.insert(new Uint8Array(4), 0, back);
    all.insert(new Uint8Array(16), 0, back);
    // No datagram is from our own port (lib/routes).
    control.up();
    this.#far.control.up();
  }

  run(input: Uint8Array): string {
    if (this.#sent >= RENEW_EVERY) this.#renew();
    const frames = framesOf(input);
    const outcomes = frames.map(outcomeOf);
    const segments = outcomes.reduce(
      (most, one) => Math.max(most, typeof one === "string" ? 0 : one.length),
      0,
    );
    if (segments > SEGMENTS_MAX) return "many";
    const seen = new Set<string>();
    for (const [i, frame] of frames.entries()) {
      seen.add(this.#frame(frame, outcomes[i]));
    }
    return [...seen].sort().join(" ");
  }

  #frame(frame: Uint8Array, expected: Outcome): string {
    const device = this.#device;
    const far = this.#far;
    const before = readCounters(device.arena);
    const farBefore = readCounters(far.arena);
    device.delivered.length = far.delivered.length = 0;
    device.toSend.push(frame);
    this.#network.settle();
    const after = readCounters(device.arena);
    const farAfter = readCounters(far.arena);
    check(after.tx_packets === before.tx_packets + 1, "a frame is not read");
    check(
      device.outbound.slotsUsed === 0 && far.inbound.slotsUsed === 0,
      "slots are not given back",
    );
    const refusals = (Object.keys(after) as CounterName[]).filter((name) =>
      name.startsWith("tx_") && name !== "tx_packets" &&
      !name.startsWith("tx_icmp") && after[name] !== before[name]
    );
    if (typeof expected === "string") {
      check(refusals.join() === expected, `${refusals}, expected ${expected}`);
      check(far.delivered.length === 0, `${expected}, but delivered`);
      return expected + this.#answer(frame);
    }
    check(refusals.length === 0, `refused: ${refusals}`);
    check(device.delivered.length === 0, "an answer to a good frame");
    const inner = expected.map(innerOf);
    const good = inner.filter((packet) => packet !== undefined);
    check(
      far.delivered.length === good.length,
      `${far.delivered.length} of ${good.length} packets`,
    );
    for (const [i, packet] of good.entries()) {
      const given = far.delivered[i];
      check(
        given.length === packet.length &&
          given.every((byte, at) => byte === packet[at]),
        `packet ${i} of ${good.length} is wrong`,
      );
    }
    const bad = farAfter.rx_bad_length - farBefore.rx_bad_length;
    check(bad === inner.length - good.length, `${bad} of a wrong length`);
    return `${Math.min(3, good.length)}-${Math.min(3, bad)}`;
  }

  /** What the device says to the sender of a frame that it refused. */
  #answer(frame: Uint8Array): string {
    const { delivered } = this.#device;
    check(delivered.length <= 1, "several answers");
    const [icmp] = delivered;
    if (icmp === undefined) return "";
    const packet = frame.subarray(VNET);
    const v4 = packet[0] >> 4 === 4;
    const [from, to, address] = v4 ? [12, 16, 4] : [8, 24, 16];
    check(icmp[0] >> 4 === packet[0] >> 4, "an answer's version");
    for (let i = 0; i < address; i++) {
      check(icmp[to + i] === packet[from + i], "an answer's destination");
    }
    const headers = (v4 ? 20 : 40) + 8;
    const length = Math.min(packet.length, (v4 ? 576 : 1280) - headers);
    check(icmp.length === headers + length, "an answer's length");
    for (let i = 0; i < length; i++) {
      check(icmp[headers + i] === packet[i], "what an answer quotes");
    }
    const pseudo = v4 ? 0 : pseudoSum(icmp, 58, icmp.length - 40);
    check(
      sum(icmp, headers - 8, icmp.length, pseudo) === 0xffff,
      "its checksum",
    );
    if (v4) {
      check(be16(icmp, 2) === icmp.length, "its IP length");
      check(sum(icmp, 0, 20) === 0xffff, "its IP checksum");
    } else check(be16(icmp, 4) === icmp.length - 40, "its IP length");
    return "!";
  }

  /** New keys, and time for more answers. */
  #renew(): void {
    this.#sent = 0;
    this.#network.advance(200_000, 1_000);
  }
}

/** The frames of an input; what `read` on a TUN cannot give is left out. */
function framesOf(input: Uint8Array): Uint8Array[] {
  const frames: Uint8Array[] = [];
  for (let at = 0; at + 2 <= input.length && frames.length < FRAMES_MAX;) {
    const word = input[at] | (input[at + 1] << 8);
    const end = at + 2 + (word & (LONGEST - 1));
    let frame = input.slice(at + 2, end);
    at = end;
    if ((word & LONGEST) !== 0) {
      const longest = new Uint8Array(VNET + PACKET_MAX).fill(FILL);
      longest.set(frame);
      frame = longest;
    }
    if (frame.length > VNET) frames.push(frame);
  }
  return frames;
}

/** What must become of a frame. */
function outcomeOf(frame: Uint8Array): Outcome {
  const packet = frame.subarray(VNET);
  const version = packet[0] >> 4;
  const v4 = version === 4 && packet.length >= 20;
  if (!v4 && (version !== 6 || packet.length < 40)) return "tx_not_ip";
  if (isRedirect(packet)) return "tx_redirect";
  const first = packet[v4 ? 16 : 24];
  if (v4 && first === 11) return "tx_no_endpoint";
  if (first !== (v4 ? 10 : 0xfd)) return "tx_no_peer";
  if (frame[1] === 0) {
    const finished = packet.slice();
    const needed = (frame[0] & 1) !== 0;
    return !needed || finishReference(finished, frame)
      ? [finished]
      : "tx_bad_offload";
  }
  const whole = readSuperPacket(frame);
  if (whole === null) return "tx_bad_offload";
  // Not cut: nobody looks at them.
  if (whole.count > SEGMENTS_MAX) return new Array(whole.count);
  return Array.from({ length: whole.count }, (_, i) => cut(whole, i));
}

function isRedirect(packet: Uint8Array): boolean {
  if (packet[0] >> 4 === 6) return packet[6] === 58 && packet[40] === 137;
  const isFirst = (be16(packet, 6) & 0x1fff) === 0;
  return packet[9] === 1 && isFirst && packet[(packet[0] & 15) * 4] === 5;
}

/** What the far side takes of a packet, by what its header says. */
function innerOf(packet: Uint8Array): Uint8Array | undefined {
  const v4 = packet[0] >> 4 === 4;
  const length = v4 ? be16(packet, 2) : be16(packet, 4) + 40;
  const last = packet.length > MTU ? packet.length % MTU : packet.length;
  const padding = Math.min(MTU, Math.ceil(last / 16) * 16) - last;
  const padded = packet.length + padding;
  if (length > padded || (v4 && length < 20)) return undefined;
  // Whatever is behind a packet in its slot must not leave: padding is zero.
  const inner = new Uint8Array(length);
  inner.set(packet.subarray(0, length));
  return inner;
}
