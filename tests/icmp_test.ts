/** ICMP errors for packets with nowhere to go: their bytes, and who gets none. */
import { assert, assertEquals } from "@std/assert";
import {
  ICMP_BURST,
  ICMP_HEADROOM,
  IcmpLimiter,
  isRedirect,
  quotedLength,
  unreachableHeaders,
} from "../lib/icmp.ts";
import {
  arena,
  be16,
  CANARY,
  checksum,
  internetChecksum,
  OUT,
  Random,
} from "./packet_helpers.ts";
import {
  addDeadPeer,
  closeAll,
  connectedPair,
  INNER_A,
  INNER_B,
  ipv4Packet,
  ipv6Packet,
  makePair,
  sendBtoA,
} from "./memory/network.ts";

const { u8 } = arena;

/** The error for a packet, or undefined. Checks that nothing else is written. */
function errorFor(packet: Uint8Array): Uint8Array | undefined {
  u8.fill(CANARY, OUT - 100, OUT + packet.length + 100);
  u8.set(packet, OUT);
  const headers = unreachableHeaders(u8, checksum, OUT, packet.length);
  assert(headers <= ICMP_HEADROOM);
  const around = [
    ...u8.subarray(OUT - 100, OUT - headers),
    ...u8.subarray(OUT + packet.length, OUT + packet.length + 100),
  ];
  assert(around.every((byte) => byte === CANARY));
  assertEquals(u8.slice(OUT, OUT + packet.length), packet);
  if (headers === 0) return undefined;
  const quoted = quotedLength(headers, packet.length);
  return u8.slice(OUT - headers, OUT + quoted);
}

const SOURCE_6 = new Uint8Array(16).fill(0xfd, 0, 1).fill(1, 15);
const TARGET_6 = new Uint8Array(16).fill(0xfd, 0, 1).fill(2, 15);

function packet6(
  length: number,
  next: number,
  ...payload: number[]
): Uint8Array {
  const packet = ipv6Packet(SOURCE_6, TARGET_6, length);
  packet[6] = next;
  packet.set(payload, 40);
  return packet;
}

/** An IPv4 packet of a protocol, with these first bytes of payload. */
function packet4(
  length: number,
  protocol: number,
  ...payload: number[]
): Uint8Array {
  const packet = ipv4Packet("192.168.1.10", "10.0.0.99", length);
  packet[9] = protocol;
  packet.set(payload, 20);
  return packet;
}

Deno.test("IPv4 is told host unreachable, from the address that cannot be reached", () => {
  for (const length of [20, 21, 28, 84, 547, 548, 549, 1_420, 65_535]) {
    const packet = packet4(length, 17);
    const error = errorFor(packet);
    assert(error !== undefined);
    const quoted = Math.min(length, 576 - 28);
    assertEquals(error.length, 28 + quoted);
    assertEquals([error[0], error[1]], [0x45, 0xc0]);
    assertEquals(be16(error, 2), error.length);
    assertEquals([error[8], error[9]], [64, 1], "TTL, ICMP");
    assertEquals([...error.subarray(12, 16)], [10, 0, 0, 99]);
    assertEquals([...error.subarray(16, 20)], [192, 168, 1, 10]);
    assertEquals(internetChecksum(error.subarray(0, 20)), 0);
    assertEquals([error[20], error[21]], [3, 1], "host unreachable");
    assertEquals([...error.subarray(24, 28)], [0, 0, 0, 0], "unused");
    assertEquals(internetChecksum(error.subarray(20)), 0);
    assertEquals(error.subarray(28), packet.subarray(0, quoted));
  }
});

Deno.test("IPv6 is told address unreachable", () => {
  for (const length of [40, 41, 96, 1_231, 1_232, 1_233, 9_000]) {
    const packet = packet6(length, 17);
    new Random(length).bytes(8).forEach((byte, i) =>
      packet[i % 4 + 36] ^= byte
    );
    const error = errorFor(packet);
    assert(error !== undefined);
    const quoted = Math.min(length, 1_280 - 48);
    assertEquals(error.length, 48 + quoted);
    assertEquals([...error.subarray(0, 4)], [0x60, 0, 0, 0]);
    assertEquals(be16(error, 4), 8 + quoted);
    assertEquals([error[6], error[7]], [58, 64]);
    assertEquals(error.subarray(8, 24), packet.subarray(24, 40));
    assertEquals(error.subarray(24, 40), packet.subarray(8, 24));
    assertEquals([error[40], error[41]], [1, 3], "address unreachable");
    assertEquals([...error.subarray(44, 48)], [0, 0, 0, 0], "unused");
    const bytes = 8 + quoted;
    const pseudo = [0, 0, bytes >> 8, bytes & 255, 0, 0, 0, 58];
    const sum = internetChecksum(
      [...error.subarray(8, 40), ...pseudo, ...error.subarray(40)],
    );
    assertEquals(sum, 0);
    assertEquals(error.subarray(48), packet.subarray(0, quoted));
  }
});

Deno.test("errors of ICMP are answered by none, queries are", () => {
  const queries = [0, 8, 9, 10, 13, 14, 15, 16, 17, 18];
  for (let type = 0; type < 256; type++) {
    const answered = errorFor(packet4(84, 1, type)) !== undefined;
    assertEquals(answered, queries.includes(type), `ICMP type ${type}`);
    const answered6 = errorFor(packet6(96, 58, type)) !== undefined;
    assertEquals(answered6, type >= 128 && type !== 137, `ICMPv6 type ${type}`);
  }
  assertEquals(errorFor(packet4(20, 1)), undefined, "its type is cut off");
  assertEquals(errorFor(packet6(40, 58)), undefined);
});

Deno.test("ICMPv6 is found behind extension headers", () => {
  const hop = [60, 0, 0, 0, 0, 0, 0, 0];
  const options = [58, 1, ...new Array(14).fill(0)];
  const fragment = (offset: number): number[] => [58, 0, 0, offset, 0, 0, 0, 1];
  const answered = (next: number, ...bytes: number[]): boolean =>
    errorFor(packet6(40 + bytes.length + 8, next, ...bytes)) !== undefined;
  for (const [type, expected] of [[1, false], [128, true]] as const) {
    assertEquals(answered(0, ...hop, ...options, type), expected);
    assertEquals(answered(43, ...options, type), expected);
    assertEquals(answered(44, ...fragment(1), type), expected, "the first");
  }
  assertEquals(answered(44, ...fragment(8), 128), false, "a later fragment");
  assertEquals(errorFor(packet6(44, 60, 58, 0)), undefined, "cut off");
  assertEquals(errorFor(packet6(48, 60, 58, 200)), undefined, "beyond its end");
});

Deno.test("one host must be there to be told: no broadcast, multicast or fragment", () => {
  const from = (source: string, to = "10.0.0.99"): boolean => {
    const packet = ipv4Packet(source, to);
    packet[9] = 17;
    return errorFor(packet) !== undefined;
  };
  assertEquals(from("192.168.1.10"), true);
  const bad = ["0.0.0.0", "0.1.2.3", "127.0.0.1", "224.0.0.1", "239.255.0.1"];
  for (const source of [...bad, "240.0.0.1", "255.255.255.255"]) {
    assertEquals(from(source), false, source);
  }
  for (const to of ["224.0.0.251", "255.255.255.255"]) {
    assertEquals(from("192.168.1.10", to), false, to);
  }
  for (
    const [flags, expected] of [[0x4000, true], [0x2000, true], [1, false]]
  ) {
    const packet = packet4(84, 17);
    be16(packet, 6, Number(flags));
    assertEquals(errorFor(packet) !== undefined, expected, `${flags}`);
  }
  for (const [at, bytes] of [[8, 16], [24, 1], [8, 1]]) {
    const packet = packet6(96, 17);
    packet.fill(bytes === 16 ? 0 : 0xff, at, at + bytes);
    assertEquals(errorFor(packet), undefined, `${at} ${bytes}`);
  }
});

Deno.test("headers that lie are answered by none", () => {
  const short = packet4(84, 17);
  short[0] = 0x44;
  assertEquals(errorFor(short), undefined);
  const long = packet4(40, 17);
  long[0] = 0x4f;
  assertEquals(errorFor(long), undefined);
  const options = packet4(84, 1, ...new Array(20).fill(0), 3);
  options[0] = 0x4a;
  assertEquals(errorFor(options), undefined, "an error behind options");
});

Deno.test("errors are limited to a burst, and a thousand a second", () => {
  const limiter = new IcmpLimiter();
  const allowed = (nowMs: number, tries: number): number => {
    let count = 0;
    for (let i = 0; i < tries; i++) if (limiter.allow(nowMs)) count++;
    return count;
  };
  assertEquals(allowed(5_000, 200), ICMP_BURST);
  assertEquals(allowed(5_000, 200), 0);
  assertEquals(allowed(5_010, 200), 10);
  assertEquals(allowed(5_011, 1), 1);
  assertEquals(allowed(9_000, 200), ICMP_BURST);
  let sum = 0;
  for (let ms = 10_000; ms < 11_000; ms++) sum += allowed(ms, 100);
  assertEquals(sum, ICMP_BURST + 999);
});

Deno.test("a packet for nobody, or for a peer without an endpoint, is answered at once", () => {
  const pair = makePair();
  const { network, a, b } = pair;
  const lost = ipv4Packet(INNER_A, "10.9.9.9");
  a.toSend.push(lost);
  network.settle();
  assertEquals(a.delivered.length, 1);
  const [error] = a.delivered;
  assertEquals(error.length, 28 + lost.length);
  assertEquals([error[20], error[21]], [3, 1]);
  assertEquals([...error.subarray(12, 20)], [10, 9, 9, 9, 10, 0, 0, 1]);
  assertEquals(error.subarray(28), lost);
  // b does not know where a is.
  const packet = sendBtoA(pair);
  assertEquals(b.delivered.map((error) => error.subarray(28)), [packet]);
  assertEquals(network.log, []);
  // Once there is an endpoint packets wait for the key, and nobody is told.
  const dead = addDeadPeer(a, "10.3.3.3");
  assert(dead > 0);
  a.delivered.length = 0;
  a.toSend.push(ipv4Packet(INNER_A, "10.3.3.3"));
  network.settle();
  assertEquals(a.delivered, []);
  closeAll(a, b);
});

Deno.test("a flood of packets for nobody is answered in part, and all is counted", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  a.delivered.length = 0;
  for (let i = 0; i < 1_000; i++) {
    a.toSend.push(ipv4Packet(INNER_A, "10.9.9.9"));
  }
  network.settle();
  assertEquals(a.delivered.length, ICMP_BURST);
  assertEquals(a.counters(), {
    tx_no_peer: 1_000,
    tx_icmp_sent: ICMP_BURST,
    tx_icmp_limited: 1_000 - ICMP_BURST,
  });
  a.writeError = 5;
  network.advance(100);
  a.toSend.push(ipv4Packet(INNER_A, "10.9.9.9"));
  network.settle();
  assertEquals(a.counters().tx_icmp_failed, 1);
  closeAll(a, b);
});

Deno.test("redirects are told from all else", () => {
  const isOne = (packet: Uint8Array): boolean => {
    u8.fill(CANARY, OUT, OUT + packet.length + 100);
    u8.set(packet, OUT);
    return isRedirect(u8, OUT, packet.length);
  };
  assert(isOne(packet4(56, 1, 5)));
  assert(isOne(packet6(80, 58, 137)));
  assert(!isOne(packet4(56, 17, 5)), "UDP");
  assert(!isOne(packet4(56, 1, 8)), "echo request");
  assert(!isOne(packet6(80, 17, 137)), "UDP");
  assert(!isOne(packet6(80, 58, 136)), "neighbour advertisement");
  const withOptions = packet4(60, 1, 0, 0, 0, 0, 5);
  withOptions[0] = 0x46;
  assert(isOne(withOptions));
  const later = packet4(56, 1, 5);
  later[7] = 1;
  assert(!isOne(later), "later fragment");
  // What lies behind the packet is not the packet's.
  u8.set(packet4(56, 1, 5), OUT);
  assert(!isRedirect(u8, OUT, 20));
  u8.set(packet6(80, 58, 137), OUT);
  assert(!isRedirect(u8, OUT, 40));
});

Deno.test("a redirect is dropped and counted, and what comes after it is sent", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  b.delivered.length = 0;
  const redirect = ipv4Packet(INNER_A, INNER_B, 56);
  redirect[9] = 1;
  redirect[20] = 5;
  const other = ipv4Packet(INNER_A, INNER_B, 56);
  a.toSend.push(redirect, other);
  network.settle();
  assertEquals(b.delivered, [other]);
  assertEquals(a.counters(), { tx_redirect: 1 });
  closeAll(a, b);
});
