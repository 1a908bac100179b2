/**
 * Fuzz target: datagrams at a device in each state of its handshake, under load
 * too. An input is the state and then steps: a message of the other side,
 * changed or not, signed again or not; any bytes; a data message that the other
 * side seals, with any nonce and content; an initiation with any timestamp and
 * ephemeral key. What must become of each is worked out here once more.
 *
 * @module
 */
import { COUNTER_NAMES, readCounters } from "../../lib/counters.ts";
import { compare } from "../../lib/tai64n.ts";
import {
  COOKIE_REPLY,
  DATA,
  endpointOf,
  INITIATION,
  INNER_A,
  RESPONSE,
  sealedBy,
} from "../memory/pair.ts";
import type { Target } from "./engine.ts";
import {
  type Captured,
  counterOf,
  isHandshake,
  Scene,
  SOURCES,
  STATE_COUNT,
} from "./handshake_scene.ts";
import { check } from "./memory.ts";
import { be16 } from "./reference.ts";

const LENGTH_MAX = 2_048;
/** Steps of one input. */
const STEPS_MAX = 12;
const MAC_BYTES = 16;
/** Steps, by the low bits of their first byte. */
const STEP = { CHANGED: 0, RAW: 1, SEALED: 2, INITIATION: 3 } as const;
const STEPS = 4;
/** Flags above them. */
const SIGN = 0x08;
const TWICE = 0x10;
const CHANGES_MASK = 7;
/** Nonces further ahead leave no window for others. */
const NEAR = 1n << 20n;
/** Messages after which a session is made anew. */
const RECEIVED_MAX = 200;
const REJECT_AFTER = (1n << 64n) - 8_128n - 1n;
/** Nonces so far behind may be refused or not. */
const WINDOW = 8_000n;
const REASONS = COUNTER_NAMES.filter((name) =>
  /^(rx|handshake|cookie)_/.test(name) && name !== "rx_packets" &&
  name !== "handshake_under_load"
);
/** Accepted: no reason to refuse it was counted. */
const TAKEN = "taken";

/** Reads an input bit by bit; behind its end is zero. */
class Reader {
  #at = 0;

  constructor(readonly input: Uint8Array) {}

  get left(): number {
    return this.input.length - this.#at;
  }

  byte(): number {
    return this.input[this.#at++] ?? 0;
  }

  word(): number {
    return this.byte() | (this.byte() << 8);
  }

  bytes(count: number): Uint8Array {
    const bytes = new Uint8Array(count);
    bytes.set(this.input.subarray(this.#at, this.#at + count));
    this.#at += count;
    return bytes;
  }
}

/** What is fuzzed: a device that may be made wrong. */
export type MakeScene = (state: number) => Scene;

/** Fuzzes what comes from the network. */
export class HandshakeTarget implements Target {
  readonly name = "handshake";
  readonly lengthMax = LENGTH_MAX;
  readonly words: readonly Uint8Array[] = [
    // Changes of nothing: messages as they were sent.
    Uint8Array.of(STEP.CHANGED, 0, 0, 0, 0),
    Uint8Array.of(STEP.CHANGED | SIGN, 0, 0, 0, 0),
    Uint8Array.of(STEP.CHANGED | SIGN, 0, 0, 1, 8, 0, 1, 0),
    Uint8Array.of(STEP.SEALED, 0, 9, 0, 0, 0, 0, 0, 0, 0, 20, 0, 0x45),
    Uint8Array.of(STEP.INITIATION | SIGN, 0, 1, 0x40, 0, 0, 0),
  ];
  readonly #make: MakeScene;
  readonly #scenes: (Scene | undefined)[] = new Array(STATE_COUNT);
  /** Whether a message was taken that changes the state. */
  #dirty = false;
  #latest = new Uint8Array(12);

  constructor(make: MakeScene = (state) => new Scene(state)) {
    this.#make = make;
  }

  run(input: Uint8Array): string {
    const reader = new Reader(input);
    const state = reader.byte() % STATE_COUNT;
    const scene = this.#scenes[state] ??= this.#make(state);
    this.#dirty = false;
    this.#latest = new Uint8Array(12);
    const outcomes = new Set<string>();
    let last = "";
    try {
      for (let n = 0; n < STEPS_MAX && reader.left > 0; n++) {
        last = this.#step(scene, reader);
        outcomes.add(last);
      }
      if (this.#dirty) scene.reset();
    } catch (error) {
      // The next input begins with another device.
      this.#scenes[state] = undefined;
      throw error;
    }
    return `${scene.name}: ${outcomes.size} ${last}`;
  }

  #step(scene: Scene, reader: Reader): string {
    const kind = reader.byte();
    const source = SOURCES[reader.byte() % SOURCES.length];
    let message: Uint8Array | undefined;
    switch (kind % STEPS) {
      case STEP.CHANGED:
        message = this.#changed(scene, reader);
        break;
      case STEP.RAW:
        message = reader.bytes(reader.word() % 256);
        break;
      case STEP.SEALED:
        return this.#sealed(scene, reader, source);
      default:
        return this.#initiation(scene, reader, source, (kind & SIGN) !== 0);
    }
    if ((kind & SIGN) !== 0 && isHandshake(message)) {
      scene.sign(message, source);
    }
    const again = (kind & TWICE) !== 0
      ? this.#give(scene, message, source)
      : "";
    return again + this.#give(scene, message, source);
  }

  /** A message that the other side sent, with changes; perhaps none. */
  #changed(scene: Scene, reader: Reader): Uint8Array {
    const { captured } = scene;
    let message = captured[reader.byte() % captured.length].bytes.slice();
    for (let n = reader.byte() & CHANGES_MASK; n > 0; n--) {
      const at = reader.word() % message.length;
      message[at] ^= reader.byte();
    }
    const longer = (reader.byte() << 24) >> 24;
    if (longer !== 0) {
      const other = new Uint8Array(Math.max(0, message.length + longer));
      other.set(message.subarray(0, other.length));
      message = other;
    }
    return message;
  }

  /** A message from somewhere, which is authentic only if it was captured so. */
  #give(scene: Scene, message: Uint8Array, source: string): string {
    const expected = this.#expect(scene, message, source);
    return this.#deliver(scene, message, source, expected);
  }

  /** Gives it to the device, and compares. @returns in short, what happened */
  #deliver(
    scene: Scene,
    message: Uint8Array,
    source: string,
    expected: readonly string[],
  ): string {
    const { device, network } = scene;
    const before = readCounters(device.arena);
    const looked = scene.look();
    network.log.length = 0;
    scene.inject(message, source);
    network.settle();
    const after = readCounters(device.arena);
    const counted = REASONS.filter((name) => after[name] !== before[name]);
    const times = counted.reduce(
      (sum, name) => sum + after[name] - before[name],
      0,
    );
    check(after.rx_packets === before.rx_packets + 1, "a datagram is not read");
    const outcome = times === 0 ? TAKEN : counted[0];
    check(times <= 1, `one datagram, ${times} reasons: ${counted}`);
    // Once something was taken, this model of the state is out of date.
    if (!this.#dirty) {
      check(
        expected.includes(outcome),
        `${scene.name}: ${outcome}, expected ${expected.join(" or ")}`,
      );
    }
    if (outcome === "cookie_replies_sent") {
      check(network.log.length === 1, "one cookie reply");
      check(network.log[0].to === source, "a cookie reply to its source");
      scene.openCookie(network.log[0].bytes, message);
    }
    if (outcome !== TAKEN) {
      check(scene.look() === looked, `refused (${outcome}), but state changed`);
      const answers = outcome === "cookie_replies_sent" ? 1 : 0;
      check(
        network.log.length === answers,
        `refused (${outcome}), but answered`,
      );
      return outcome;
    }
    this.#taken(scene, message, source);
    return TAKEN;
  }

  #taken(scene: Scene, message: Uint8Array, source: string): void {
    const { device, network, peer } = scene;
    if (message[0] !== COOKIE_REPLY) {
      check(
        endpointOf(device, peer) === source,
        "a peer that was not followed",
      );
    }
    switch (message[0]) {
      case INITIATION: {
        const [response] = network.log;
        check(response?.bytes[0] === RESPONSE, "no response");
        check(response.to === source, "a response to its source");
        const { bytes } = response;
        for (let i = 0; i < 4; i++) {
          check(bytes[8 + i] === message[4 + i], "the response's receiver");
        }
        this.#dirty = true;
        break;
      }
      case DATA:
        scene.received.add(counterOf(message));
        // The first one confirms a key, those far ahead leave no window.
        if (
          scene.name === "response sent" || counterOf(message) >= NEAR ||
          scene.received.size > RECEIVED_MAX
        ) this.#dirty = true;
        break;
      default:
        this.#dirty = true;
    }
  }

  /** What may become of a message. */
  #expect(
    scene: Scene,
    message: Uint8Array,
    source: string,
  ): readonly string[] {
    const type = typeOf(message);
    if (type === 0) return ["rx_invalid_message"];
    const authentic = scene.captured.find(({ bytes }) =>
      sameWhereItMatters(bytes, message)
    );
    switch (type) {
      case COOKIE_REPLY:
        return authentic !== undefined
          ? [TAKEN]
          : ["handshake_refused_cookie_reply"];
      case DATA:
        return this.#expectData(scene, message, authentic);
    }
    const body = message.length - 2 * MAC_BYTES;
    if (!sameBytes(message, body, scene.mac1(message))) {
      return ["handshake_invalid_mac"];
    }
    if (scene.load) {
      const mac2 = scene.mac2(message, source);
      if (mac2 === undefined || !sameBytes(message, body + MAC_BYTES, mac2)) {
        return ["cookie_replies_sent"];
      }
    }
    const outcome = authentic !== undefined && !authentic.spent
      ? TAKEN
      : type === INITIATION
      ? "handshake_refused_initiation"
      : "handshake_refused_response";
    return scene.load ? [outcome, "handshake_ratelimited"] : [outcome];
  }

  #expectData(
    scene: Scene,
    message: Uint8Array,
    authentic: Captured | undefined,
  ): readonly string[] {
    const index = new DataView(message.buffer, message.byteOffset)
      .getUint32(4, true);
    if (!scene.knowsIndex(index)) return ["rx_unknown_index"];
    if (authentic === undefined) return ["rx_auth_failed"];
    return this.#nonceOutcome(scene, counterOf(message), [TAKEN]);
  }

  /** `otherwise`, unless the nonce is spent. */
  #nonceOutcome(
    scene: Scene,
    counter: bigint,
    otherwise: readonly string[],
  ): readonly string[] {
    if (scene.received.has(counter) || counter >= REJECT_AFTER) {
      return ["rx_replayed"];
    }
    let highest = 0n;
    for (const one of scene.received) if (one > highest) highest = one;
    return counter + WINDOW < highest
      ? ["rx_replayed", ...otherwise]
      : otherwise;
  }

  /** A data message that the other side seals. */
  #sealed(scene: Scene, reader: Reader, source: string): string {
    const counter = new DataView(reader.bytes(8).buffer)
      .getBigUint64(0, true);
    const plaintext = reader.bytes(reader.word() % 1_500);
    const peer = scene.farSlot;
    if (peer === 0 || this.#dirty) return "-";
    const message = sealedBy(scene.far, peer, plaintext, counter);
    const inner = innerOf(plaintext);
    const { device } = scene;
    const expected = this.#nonceOutcome(
      scene,
      counter,
      [typeof inner === "string" ? inner : TAKEN],
    );
    // Refused for its nonce or for its content: either is right.
    if (typeof inner === "string" && expected.length > 1) return "-";
    const index = new DataView(message.buffer).getUint32(4, true);
    if (!scene.knowsIndex(index)) {
      return this.#deliver(scene, message, source, ["rx_unknown_index"]);
    }
    if (typeof inner === "string" && !expected.includes("rx_replayed")) {
      return this.#sealedWrong(scene, message, source, inner);
    }
    device.delivered.length = 0;
    const outcome = this.#deliver(scene, message, source, expected);
    if (outcome !== TAKEN || typeof inner === "string") return outcome;
    const [packet] = device.delivered;
    check(
      device.delivered.length === (inner.length === 0 ? 0 : 1) &&
        (packet === undefined || packet.length === inner.length &&
            sameBytes(packet, 0, inner)),
      "what was sealed is not what was delivered",
    );
    device.delivered.length = 0;
    return `${outcome}${Math.min(2, inner.length)}`;
  }

  /** A sealed message with wrong content: authentic, so it counts as received. */
  #sealedWrong(
    scene: Scene,
    message: Uint8Array,
    source: string,
    reason: string,
  ): string {
    const { device, network, peer } = scene;
    const before = readCounters(device.arena);
    network.log.length = device.delivered.length = 0;
    scene.inject(message, source);
    network.settle();
    const after = readCounters(device.arena);
    for (const name of REASONS) {
      const times = name === reason ? 1 : 0;
      check(after[name] - before[name] === times, `${name}, for ${reason}`);
    }
    check(device.delivered.length === 0, `${reason}, but delivered`);
    check(endpointOf(device, peer) === source, "a peer that was not followed");
    this.#taken(scene, message, source);
    return reason;
  }

  /** An initiation with content of the input's choice. */
  #initiation(
    scene: Scene,
    reader: Reader,
    source: string,
    sign: boolean,
  ): string {
    const flags = reader.byte();
    const timestamp = reader.bytes(12);
    const known = (flags & 1) !== 0;
    const ephemeral = (flags & 2) !== 0 ? reader.bytes(32) : undefined;
    if (scene.name === "initiation sent" || this.#dirty) return "-";
    const message = scene.initiation(known, timestamp, ephemeral);
    if (sign) scene.sign(message, source);
    else message.set(scene.mac1(message), message.length - 2 * MAC_BYTES);
    let outcome = "handshake_refused_initiation";
    // With an ephemeral key of another's, the products differ.
    if (known && ephemeral === undefined) {
      const fresh = compare(timestamp, this.#latestOf(scene)) > 0;
      if (fresh) outcome = TAKEN;
    }
    const expected = !scene.load
      ? [outcome]
      : scene.mac2(message, source) === undefined || !sign
      ? ["cookie_replies_sent"]
      : [outcome, "handshake_ratelimited"];
    const more = this.#floods(scene) ? ["handshake_refused_initiation"] : [];
    return this.#deliver(scene, message, source, [...expected, ...more]);
  }

  /** Greatest timestamp that the device has taken from the other side. */
  #latestOf(scene: Scene): Uint8Array {
    this.#latest.set(scene.latestTimestamp);
    return this.#latest;
  }

  /** An initiation was taken a moment ago: a second one is too early. */
  #floods(scene: Scene): boolean {
    return scene.latestTimestamp.some((byte) => byte !== 0);
  }
}

/** What is delivered of a plaintext, or why nothing is. */
function innerOf(plaintext: Uint8Array): Uint8Array | string {
  const { length } = plaintext;
  if (length === 0) return plaintext;
  const version = plaintext[0] >> 4;
  let inner: number;
  let own: boolean;
  if (version === 4 && length >= 20) {
    inner = be16(plaintext, 2);
    if (inner < 20) return "rx_bad_length";
    own = plaintext.subarray(12, 16).join(".") === INNER_A;
  } else if (version === 6 && length >= 40) {
    inner = be16(plaintext, 4) + 40;
    own = plaintext[8] === 0xfd && plaintext[9] === 0;
  } else return "rx_not_ip";
  if (inner > length) return "rx_bad_length";
  return own ? plaintext.subarray(0, inner) : "rx_wrong_source";
}

/** Type of a message, 0 if it is none. */
function typeOf(message: Uint8Array): number {
  const { length } = message;
  if (length < 4 || message[1] + message[2] + message[3] !== 0) return 0;
  switch (message[0]) {
    case INITIATION:
      return length === 148 ? INITIATION : 0;
    case RESPONSE:
      return length === 92 ? RESPONSE : 0;
    case COOKIE_REPLY:
      return length === 64 ? COOKIE_REPLY : 0;
    case DATA:
      return length >= 32 ? DATA : 0;
  }
  return 0;
}

/**
 * Whether the Noise handshake, or the AEAD, takes one for the other: the sender's
 * index is nothing that it covers, and macs are another matter.
 */
function sameWhereItMatters(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length || a[0] !== b[0]) return false;
  const handshake = isHandshake(a) && a[0] !== DATA;
  const end = handshake ? a.length - 2 * MAC_BYTES : a.length;
  for (let i = handshake ? 8 : 0; i < end; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** Whether `part` is at an offset of `bytes`. */
function sameBytes(bytes: Uint8Array, at: number, part: Uint8Array): boolean {
  return part.every((byte, i) => bytes[at + i] === byte);
}
