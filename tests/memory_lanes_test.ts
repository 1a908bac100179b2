/** Lanes between devices in memory: slow ones, dead ones, and order per peer. */
import { assert, assertEquals } from "@std/assert";
import { CHAINS } from "../lib/arena.ts";
import { createAead } from "../lib/crypto/aead.ts";
import { AEAD_DATA } from "../lib/crypto/aead.ts";
import {
  CryptRing,
  directionOf,
  doneQueues,
  laneChainWord,
  OPENING,
  SEALING,
  workOn,
} from "../lib/crypt.ts";
import { finishDeadLane } from "../lib/lane.ts";
import { CHAIN } from "../lib/records.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import {
  addPeer,
  closeAll,
  ipv4Packet,
  LIMITS,
  MemoryDevice,
  Network,
  numbered,
  numberOf,
} from "./memory/network.ts";

const PACKET_BYTES = 1400;

/** Lanes of a device that take chains and finish them when the test says so. */
class SlowLanes {
  readonly held: number[] = [];
  readonly #device: MemoryDevice;
  readonly #rings: CryptRing[];
  readonly #aead;

  constructor(device: MemoryDevice) {
    const { arena } = device;
    this.#device = device;
    this.#rings = [SEALING, OPENING].map((way) => new CryptRing(arena, way));
    this.#aead = createAead(arena.memory, arena.laneWork(0), "auto");
  }

  /** Takes what waits, up to `most` chains in all. */
  take(most: number): void {
    for (const ring of this.#rings) {
      while (this.held.length < most) {
        const chain = ring.take();
        if (chain === 0) break;
        this.held.push(chain);
      }
    }
  }

  /** Finishes one of the chains held. */
  finish(which: number): void {
    const [chain] = this.held.splice(which, 1);
    const { arena, wakers } = this.#device;
    workOn(arena, this.#aead, chain);
    const direction = directionOf(chain);
    doneQueues(arena).push(direction.done, chain);
    if (direction === SEALING) wakers.outbound.wake();
    else wakers.inbound.wake();
  }
}

/** A hub with lanes and spokes without, each with an inner address 10.0.0.n. */
function star(spokes: number): {
  network: Network;
  hub: MemoryDevice;
  others: MemoryDevice[];
} {
  const network = new Network();
  const limits = { ...LIMITS, txSlots: 4096 };
  const hub = new MemoryDevice(network, "192.0.2.1:1", limits, 2);
  hub.control.setPrivateKey(key(1));
  const others = Array.from({ length: spokes }, (_, i) => {
    const device = new MemoryDevice(network, `192.0.2.${i + 2}:1`);
    device.control.setPrivateKey(key(i + 2));
    addPeer(device, hub, "10.0.0.1", true);
    addPeer(hub, device, inner(i), true);
    device.control.up();
    return device;
  });
  hub.control.up();
  for (const [i, device] of others.entries()) {
    device.toSend.push(ipv4Packet(inner(i), "10.0.0.1"));
    network.settle();
  }
  assertEquals(hub.delivered.length, spokes);
  hub.delivered.length = 0;
  return { network, hub, others };
}

function key(n: number): Uint8Array {
  return new Uint8Array(32).fill(n);
}

function inner(i: number): string {
  return `10.0.0.${i + 2}`;
}

/** Lets devices and lanes work until nothing is left to do. */
function run(
  devices: MemoryDevice[],
  lanes: SlowLanes,
  random: SeededRandom,
  most: number,
): void {
  for (;;) {
    lanes.take(random.below(most + 1));
    const worked = devices.map((device) => device.pump()).some((x) => x);
    if (lanes.held.length > 0 && (!worked || random.below(3) === 0)) {
      lanes.finish(random.below(lanes.held.length));
    } else if (!worked && lanes.held.length === 0) return;
  }
}

Deno.test("each peer's packets go out in order, whatever lane finishes first", () => {
  for (let seed = 1; seed <= 8; seed++) {
    const random = new SeededRandom(seed);
    const { hub, others } = star(3);
    const lanes = new SlowLanes(hub);
    const sent = others.map(() => 0);
    for (let n = 0; n < 3000; n++) {
      const to = random.below(others.length);
      const packet = ipv4Packet("10.0.0.1", inner(to), PACKET_BYTES);
      hub.toSend.push(numbered(packet, sent[to]++));
    }
    run([hub, ...others], lanes, random, 6);
    for (const [i, device] of others.entries()) {
      assertEquals(
        device.delivered.map(numberOf),
        Array.from({ length: sent[i] }, (_, n) => n),
      );
      assertEquals(device.counters(), {});
    }
    assertEquals(hub.counters(), {});
    closeAll(hub, ...others);
  }
});

Deno.test("each peer's packets come in in order, whatever lane finishes first", () => {
  for (let seed = 1; seed <= 8; seed++) {
    const random = new SeededRandom(seed);
    const { hub, others } = star(3);
    const lanes = new SlowLanes(hub);
    const sent = others.map(() => 0);
    for (let n = 0; n < 2000; n++) {
      const from = random.below(others.length);
      const packet = ipv4Packet(inner(from), "10.0.0.1", PACKET_BYTES);
      others[from].toSend.push(numbered(packet, sent[from]++));
    }
    run([...others, hub], lanes, random, 6);
    for (const i of others.keys()) {
      const got = hub.delivered.filter((packet) => packet[15] === i + 2);
      assertEquals(
        got.map(numberOf),
        Array.from({ length: sent[i] }, (_, n) => n),
      );
    }
    assertEquals(hub.counters(), {});
    closeAll(hub, ...others);
  }
});

Deno.test("a lane that holds the oldest chain holds the rest up, and nothing is lost or refused", () => {
  const { hub, others: [spoke] } = star(1);
  const lanes = new SlowLanes(hub);
  for (let n = 0; n < 5000; n++) {
    const packet = ipv4Packet("10.0.0.1", inner(0), PACKET_BYTES);
    hub.toSend.push(numbered(packet, n));
  }
  while (lanes.held.length === 0) {
    hub.pump();
    lanes.take(1);
  }
  while (hub.pump());
  assert(hub.outbound.blocked, "it waits for the lane");
  assertEquals(hub.outbound.slotsUsed <= 1024, true);
  assert(hub.toSend.length > 3000, "and leaves the rest to the interface");
  assertEquals(spoke.incoming.length, 0);
  lanes.finish(0);
  run([hub, spoke], lanes, new SeededRandom(1), 0);
  assertEquals(
    spoke.delivered.map(numberOf),
    Array.from({ length: 5000 }, (_, n) => n),
  );
  assertEquals(hub.counters(), {});
  closeAll(hub, spoke);
});

Deno.test("a peer may be removed while a lane seals for it", () => {
  const { network, hub, others: [gone, stays] } = star(2);
  const lanes = new SlowLanes(hub);
  const wiped = (): void => {
    network.advance(100);
    for (let i = 0; i < 3; i++) network.settle();
  };
  for (let n = 0; n < 64; n++) {
    hub.toSend.push(ipv4Packet("10.0.0.1", inner(0), PACKET_BYTES));
  }
  hub.pump();
  lanes.take(8);
  assert(lanes.held.length > 0);
  const before = hub.control.objects();
  const peer = hub.control.peers.walk().peer;
  hub.control.removePeer(peer);
  wiped();
  const during = hub.control.objects();
  assertEquals(during.keypairs, before.keypairs, "keys are kept for the lane");
  while (lanes.held.length > 0) lanes.finish(0);
  wiped();
  assert(hub.control.objects().keypairs < before.keypairs);
  assertEquals(gone.delivered, [], "its packets are not sent any more");
  assertEquals(hub.counters(), { tx_no_endpoint: 64 });
  closeAll(hub, gone, stays);
});

Deno.test("the chain of a lane that died is finished but for the packet that it was at", () => {
  const { hub, others: [spoke] } = star(1);
  const { arena, wakers } = hub;
  for (let n = 0; n < 64; n++) {
    const packet = ipv4Packet("10.0.0.1", inner(0), PACKET_BYTES);
    hub.toSend.push(numbered(packet, n));
  }
  hub.pump();
  const chain = new CryptRing(arena, SEALING).take();
  assert(chain > 0 && chain <= CHAINS);
  // The lane comes as far as packet 7, whose descriptor is not to be believed.
  arena.i32[laneChainWord(5)] = chain;
  const at = arena.chain(chain);
  const eighth = at + CHAIN.DESCRIPTORS + 7 * 8 + AEAD_DATA;
  const data = arena.u32[eighth];
  const aead = createAead(arena.memory, arena.laneWork(0), "wasm");
  arena.u32[eighth] = 0xffff_fff0;
  let trapped = false;
  try {
    workOn(arena, aead, chain);
  } catch {
    trapped = true;
  }
  assert(trapped, "the kernel does not write outside of the memory");
  arena.u32[eighth] = data;
  assert(finishDeadLane({ arena, aead, lane: 5, ...wakers }));
  assert(!finishDeadLane({ arena, aead, lane: 5, ...wakers }), "once");
  while (hub.pump() || spoke.pump());
  assertEquals(
    spoke.delivered.map(numberOf),
    Array.from({ length: 64 }, (_, n) => n).filter((n) => n !== 7),
  );
  assertEquals(hub.counters(), { tx_lane_failed: 1 });
  closeAll(hub, spoke);
});

Deno.test("a lone packet wakes no lane and waits for none", () => {
  const { network, hub, others: [spoke] } = star(1);
  hub.toSend.push(ipv4Packet("10.0.0.1", inner(0)));
  hub.pump();
  assert(new CryptRing(hub.arena, SEALING).empty);
  network.settle();
  assertEquals(spoke.delivered.length, 1);
  closeAll(hub, spoke);
});
