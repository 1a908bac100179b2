/** What outbound asks about routes: MTUs for padding, loops. */
import { assert, assertEquals } from "@std/assert";
import { HEADER } from "../lib/arena.ts";
import { fillEndpoint } from "../lib/endpoint.ts";
import { formatIp } from "../lib/ip.ts";
import {
  NO_MTU,
  RouteAnswers,
  RouteQuestions,
  type RouteSource,
} from "../lib/routes.ts";
import { PEER } from "../lib/records.ts";
import { arena, be16, IN, OUT } from "./packet_helpers.ts";
import {
  closeAll,
  connectedPair,
  INNER_A,
  INNER_B,
  ipv4Packet,
  ipv6Packet,
} from "./memory/network.ts";

const PORT = 51820;
const { u8 } = arena;
const peer = arena.peer(1);

/** Where that peer is. */
function placePeer(address: Uint8Array): void {
  fillEndpoint(arena, peer + PEER.ENDPOINT, address, 1, 0);
}

/** A system whose routes are told, and that keeps what it was asked. */
class FakeRoutes implements RouteSource {
  readonly asked: string[] = [];
  mtus = new Map<string, number>();
  loops = new Set<string>();

  mtu(destination: Uint8Array): number {
    this.asked.push(`mtu ${formatIp(destination)}`);
    return this.mtus.get(formatIp(destination)) ?? 0;
  }

  isLoop(destination: Uint8Array, source: Uint8Array): boolean {
    const text = `${formatIp(source)} ${formatIp(destination)}`;
    this.asked.push(`loop ${text}`);
    return this.loops.has(text);
  }
}

function setUp(): {
  routes: FakeRoutes;
  questions: RouteQuestions;
  answers: RouteAnswers;
  wakes: () => number;
} {
  arena.i32[HEADER.LISTEN_PORT] = PORT;
  const routes = new FakeRoutes();
  let wakes = 0;
  const answers = new RouteAnswers(arena, routes);
  answers.forget();
  answers.step();
  routes.asked.length = 0;
  return {
    routes,
    questions: new RouteQuestions(arena, () => wakes++),
    answers,
    wakes: () => wakes,
  };
}

function at(packet: Uint8Array, place = OUT): number {
  u8.set(packet, place);
  return place;
}

const A6 = new Uint8Array(16).fill(0xfd, 0, 1).fill(1, 15);
const B6 = new Uint8Array(16).fill(0xfd, 0, 1).fill(2, 15);

Deno.test("an MTU is asked for once, and known until routes change", () => {
  const { routes, questions, answers, wakes } = setUp();
  routes.mtus.set("10.0.0.2", 1299).set("fd00::2", 1300);
  const v4 = at(ipv4Packet("10.0.0.1", "10.0.0.2"));
  const v6 = at(ipv6Packet(A6, B6), IN);
  questions.start(1);
  assertEquals([questions.mtu(v4), questions.mtu(v4)], [NO_MTU, NO_MTU]);
  assertEquals(wakes(), 1);
  answers.step();
  assertEquals(questions.mtu(v4), 1299);
  questions.start(2);
  assertEquals(questions.mtu(v6), NO_MTU);
  // One question at a time, but what is known is told meanwhile.
  assertEquals(questions.mtu(v4), 1299);
  answers.step();
  assertEquals([questions.mtu(v6), questions.mtu(v4)], [1300, 1299]);
  assertEquals(routes.asked, ["mtu 10.0.0.2", "mtu fd00::2"]);
  answers.forget();
  routes.mtus.delete("10.0.0.2");
  questions.start(3);
  assertEquals(questions.mtu(v4), NO_MTU);
  answers.step();
  questions.start(4);
  for (let i = 0; i < 5; i++) assertEquals(questions.mtu(v4), NO_MTU);
  assertEquals(wakes(), 3, "that there is none is known, too");
});

Deno.test("many destinations make few questions", () => {
  const { routes, questions, answers } = setUp();
  for (let ms = 1; ms <= 10; ms++) {
    questions.start(ms);
    for (let i = 0; i < 50; i++) {
      questions.mtu(at(ipv4Packet("10.0.0.1", `10.1.${ms}.${i}`)));
      answers.step();
    }
  }
  assertEquals(routes.asked.length, 10);
});

/** An IPv4 or IPv6 packet of UDP from a port. */
function udp(v4: boolean, port: number): Uint8Array {
  const packet = v4
    ? ipv4Packet("10.0.0.1", "10.0.0.2")
    : ipv6Packet(A6, B6, 100);
  packet[v4 ? 9 : 6] = 17;
  be16(packet, v4 ? 20 : 40, port);
  return packet;
}

Deno.test("a datagram from our port is a loop if its route leads into the interface", () => {
  for (const v4 of [true, false]) {
    const { routes, questions, answers } = setUp();
    const text = v4 ? "10.0.0.1 10.0.0.2" : "fd00::1 fd00::2";
    routes.loops.add(text);
    placePeer(v4 ? new Uint8Array([10, 0, 0, 2]) : B6);
    const packet = udp(v4, PORT);
    const place = at(packet);
    questions.start(1);
    assertEquals(
      questions.isLoop(place, packet.length, peer),
      false,
      "not known",
    );
    assertEquals(
      formatIp(answers.step() ?? new Uint8Array(4)),
      text.split(" ")[1],
    );
    assertEquals(questions.isLoop(place, packet.length, peer), true);
    assertEquals(routes.asked, [`loop ${text}`]);
    // An MTU of the same destination is another question.
    questions.start(2);
    assertEquals(questions.mtu(place), NO_MTU);
    assertEquals(answers.step(), undefined);
    assertEquals(questions.isLoop(place, packet.length, peer), true);
    answers.forget();
    routes.loops.clear();
    questions.start(3);
    assertEquals(questions.isLoop(place, packet.length, peer), false);
    assertEquals(answers.step(), undefined);
    questions.start(4);
    assertEquals(questions.isLoop(place, packet.length, peer), false);
    assertEquals(routes.asked.length, 3);
  }
});

Deno.test("a datagram from our port may go to a peer that is reached by another way", () => {
  const { routes, questions, answers } = setUp();
  routes.loops.add("10.0.0.1 10.0.0.2");
  placePeer(new Uint8Array([192, 0, 2, 7]));
  const packet = udp(true, PORT);
  for (let ms = 1; ms <= 2; ms++) {
    questions.start(ms);
    assertEquals(questions.isLoop(at(packet), packet.length, peer), false);
    assertEquals(answers.step(), undefined);
  }
  assertEquals(routes.asked, ["loop 10.0.0.1 192.0.2.7"]);
});

Deno.test("nobody is asked about other packets", () => {
  const { routes, questions, answers } = setUp();
  const packets: Uint8Array[] = [];
  for (const v4 of [true, false]) {
    packets.push(udp(v4, PORT + 1), udp(v4, PORT).subarray(0, v4 ? 27 : 47));
    const tcp = udp(v4, PORT);
    tcp[v4 ? 9 : 6] = 6;
    packets.push(tcp);
  }
  const fragment = udp(true, PORT);
  be16(fragment, 6, 1);
  packets.push(fragment);
  for (const packet of packets) {
    questions.start(packets.indexOf(packet));
    u8.fill(0, OUT, OUT + 200);
    assertEquals(questions.isLoop(at(packet), packet.length, peer), false);
    answers.step();
  }
  assertEquals(routes.asked, []);
});

Deno.test("the first fragment of IPv6 is looked into, others are not", () => {
  for (const [offset, expected] of [[1, 1], [8, 0]]) {
    const { routes, questions, answers } = setUp();
    const packet = ipv6Packet(A6, B6, 100);
    packet[6] = 44;
    packet[40] = 17;
    be16(packet, 42, offset);
    be16(packet, 48, PORT);
    questions.start(1);
    questions.isLoop(at(packet), packet.length, peer);
    answers.step();
    assertEquals(routes.asked.length, expected);
  }
});

Deno.test("padding stops at the route's MTU once it is known", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  const routes = new FakeRoutes();
  routes.mtus.set(INNER_B, 1299);
  const answers = new RouteAnswers(a.arena, routes);
  const send = (length: number): number => {
    network.log.length = 0;
    network.nowMs += 1;
    a.toSend.push(ipv4Packet(INNER_A, INNER_B, length));
    network.settle();
    answers.step();
    return network.log[0].bytes.length - 32;
  };
  assertEquals(send(100), 112);
  assertEquals(routes.asked, [], "too short to matter");
  assertEquals(send(1_296), 1_296);
  assertEquals(routes.asked, [], "nothing to pad");
  assertEquals(send(1_297), 1_312, "not known yet");
  assertEquals(routes.asked, [`mtu ${INNER_B}`]);
  assertEquals([1_297, 1_299, 1_281, 600].map(send), [
    1_299,
    1_299,
    1_296,
    608,
  ]);
  assertEquals(send(1_305), 1_299 + 16, "beyond it, by what is over");
  answers.forget();
  assertEquals(send(1_297), 1_312);
  closeAll(a, b);
});

Deno.test("our own datagrams that come back are dropped and counted", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  a.arena.i32[HEADER.LISTEN_PORT] = PORT;
  const routes = new FakeRoutes();
  const [endpoint] = b.address.split(":");
  routes.loops.add(`${INNER_A} ${endpoint}`);
  const answers = new RouteAnswers(a.arena, routes);
  const looped = ipv4Packet(INNER_A, INNER_B);
  looped[9] = 17;
  be16(looped, 20, PORT);
  for (let i = 0; i < 5; i++) {
    network.nowMs += 1;
    a.toSend.push(looped);
    network.settle();
    assert((answers.step() !== undefined) === (i === 0));
  }
  assertEquals(network.log.length, 1, "one, until it was known");
  assertEquals(a.counters(), { tx_routing_loop: 4 });
  closeAll(a, b);
});

Deno.test("a message of ours that would go to the same peer again is dropped, from whatever port", () => {
  const pair = connectedPair();
  const { network, a, b } = pair;
  const answers = new RouteAnswers(a.arena, new FakeRoutes());
  const send = (packet: Uint8Array): Uint8Array | undefined => {
    network.log.length = 0;
    a.toSend.push(packet);
    network.settle();
    return network.log.find(({ from }) => from === a.address)?.bytes;
  };
  /** As it comes back with other addresses and another port. */
  const wrapped = (message: Uint8Array): Uint8Array => {
    const packet = ipv4Packet(INNER_A, INNER_B, 28 + message.length);
    packet[9] = 17;
    be16(packet, 20, 1234);
    packet.set(message, 28);
    return packet;
  };
  const message = send(ipv4Packet(INNER_A, INNER_B));
  assert(message !== undefined);
  assertEquals(send(wrapped(message)), undefined);
  assertEquals(formatIp(answers.step() ?? new Uint8Array(4)), INNER_B);
  assertEquals(answers.step(), undefined, "told once");
  assertEquals(send(wrapped(message)), undefined);
  assertEquals(a.counters(), { tx_routing_loop: 2 });
  // Other messages pass: of another index, of another type, or cut off.
  const other = message.slice();
  other[4] ^= 1;
  const handshake = message.slice();
  handshake[0] = 1;
  for (const bytes of [other, handshake, message.slice(0, 12)]) {
    assert(send(wrapped(bytes)) !== undefined);
  }
  assertEquals(a.counters(), { tx_routing_loop: 2 });
  closeAll(a, b);
});
