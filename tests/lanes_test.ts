/**
 * Lanes in real workers: what they seal, in which order it comes, what becomes of
 * a lane that dies, and that idle ones use no processor.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { COUNT, readCounters } from "../lib/counters.ts";
import {
  AEAD_DATA,
  AEAD_DONE,
  AEAD_HEADER_BYTES,
  AEAD_PENDING,
} from "../lib/crypto/aead.ts";
import { aeadEncrypt } from "../lib/crypto/mod.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import { delay, type Delivered, LanesRig } from "./lanes_rig.ts";

const PEERS = 5;
const ROUNDS = 150;
const PACKETS_A_ROUND = 40;
const LENGTH_MAX = 1420;
const NOTHING = new Uint8Array(0);

/** A payload that differs for each packet. */
function fillWith(peer: number, number: number): (bytes: Uint8Array) => void {
  return (bytes) => {
    for (let i = 0; i < bytes.length; i++) {
      bytes[i] = peer * 61 + number * 31 + i * 7 + (number >> 8);
    }
  };
}

/** Compares a sealed packet with what noble makes of its plaintext. */
function assertSealed(rig: LanesRig, packet: Delivered): void {
  const { peer, number, lengthBytes, ok } = packet;
  const what = `packet ${number} of peer ${peer}, ${lengthBytes} bytes`;
  assertEquals(ok, AEAD_DONE, what);
  const plaintext = new Uint8Array(lengthBytes);
  fillWith(peer, number)(plaintext);
  const key = rig.keyOf(peer);
  const expected = aeadEncrypt(key, BigInt(number), plaintext, NOTHING);
  const sealed = rig.sealed(packet);
  const header = new DataView(sealed.buffer, 0, AEAD_HEADER_BYTES);
  assertEquals(header.getUint32(0, true), 4, what);
  assertEquals(header.getUint32(4, true), peer, what);
  assertEquals(header.getBigUint64(8, true), BigInt(number), what);
  assertEquals(sealed.subarray(AEAD_HEADER_BYTES), expected, what);
}

/** Delivers until `packets` were delivered. */
async function deliverAll(
  rig: LanesRig,
  packets: number,
  told: (packet: Delivered) => void,
): Promise<void> {
  const endMs = performance.now() + 20_000;
  for (let delivered = 0;;) {
    delivered += rig.deliver(told);
    if (delivered >= packets) {
      assertEquals(delivered, packets);
      return;
    }
    assert(performance.now() < endMs, `${delivered} of ${packets} packets`);
    await delay(1);
  }
}

Deno.test("three lanes seal as noble does, and each peer's packets stay in order", async () => {
  await using rig = new LanesRig({ lanes: 3, peers: PEERS });
  await rig.start();
  const random = new SeededRandom(1);
  const added = new Array<number>(PEERS + 1).fill(0);
  const next = new Array<number>(PEERS + 1).fill(0);
  let waiting = 0;
  let most = 0;
  const told = (packet: Delivered): void => {
    assertEquals(packet.number, next[packet.peer]++, `peer ${packet.peer}`);
    assertSealed(rig, packet);
    waiting--;
  };
  for (let round = 0; round < ROUNDS; round++) {
    const room = rig.room;
    for (let n = 0; n < Math.min(PACKETS_A_ROUND, room); n++) {
      // The first peers have more.
      const peer = 1 + random.below(1 + random.below(PEERS));
      const number = added[peer]++;
      const length = random.below(LENGTH_MAX + 1);
      assert(rig.add(peer, number, length, fillWith(peer, number)) !== 0);
      waiting++;
    }
    rig.submit();
    most = Math.max(most, waiting);
    rig.deliver(told);
    if (round % 10 === 0) await delay(0);
  }
  await deliverAll(rig, waiting, told);
  assertEquals(next, added);
  assert(most > PACKETS_A_ROUND, "the lanes were never behind");
  assertEquals(rig.crypt.used, 0);
  assertEquals(rig.log, []);
});

Deno.test("chains are finished and the lane is replaced when one dies", async () => {
  await using rig = new LanesRig({ lanes: 1, peers: PEERS });
  await rig.start();
  const got: Delivered[] = [];
  for (let death = 1; death <= 2; death++) {
    got.length = 0;
    const first = death * 100;
    // Eight full packets are worth a lane; the kernel traps at the fourth.
    for (let n = 0; n < 8; n++) {
      const number = first + n;
      const at = rig.add(1, number, LENGTH_MAX, fillWith(1, number));
      if (n === 3) rig.arena.u32[at + AEAD_DATA] = rig.arena.u8.length - 16;
    }
    for (let n = 0; n < 3; n++) {
      rig.add(2, first + n, LENGTH_MAX, fillWith(2, first + n));
    }
    rig.submit();
    await deliverAll(rig, 8 + 3, (packet) => {
      got.push(packet);
      const dead = packet.peer === 1 && packet.number === first + 3;
      if (dead) assertEquals(packet.ok, AEAD_PENDING);
      else assertSealed(rig, packet);
    });
    for (const peer of [1, 2]) {
      const numbers = got.filter((packet) => packet.peer === peer)
        .map(({ number }) => number - first);
      assertEquals(numbers, [...Array(peer === 1 ? 8 : 3).keys()]);
    }
    assertEquals(readCounters(rig.arena).lanes_restarted, death);
    assertEquals(rig.log.length, death);
    assertMatch(rig.log[death - 1], /lane 0 failed .*memory access/);
    assertEquals(rig.crypt.used, 0);
    await rig.asleep();
  }
  assertEquals(rig.counters.get(COUNT.lanes_restarted), 0, "control's alone");
});

Deno.test("the death of one lane leaves the others at work", async () => {
  await using rig = new LanesRig({ lanes: 3, peers: PEERS });
  await rig.start();
  const next = new Array<number>(PEERS + 1).fill(0);
  const added = new Array<number>(PEERS + 1).fill(0);
  let waiting = 0;
  let lost = 0;
  const told = (packet: Delivered): void => {
    assertEquals(packet.number, next[packet.peer]++, `peer ${packet.peer}`);
    if (packet.ok === AEAD_PENDING) lost++;
    else assertSealed(rig, packet);
    waiting--;
  };
  const deaths = [20, 21, 60];
  for (let round = 0; round < 100; round++) {
    for (let n = 0; n < Math.min(PACKETS_A_ROUND, rig.room); n++) {
      const peer = 1 + (round + n) % PEERS;
      const number = added[peer]++;
      const at = rig.add(peer, number, LENGTH_MAX, fillWith(peer, number));
      if (n === 17 && deaths.includes(round)) {
        rig.arena.u32[at + AEAD_DATA] = rig.arena.u8.length - 16;
      }
      waiting++;
    }
    rig.submit();
    rig.deliver(told);
    await delay(1);
  }
  await deliverAll(rig, waiting, told);
  assertEquals(next, added);
  assertEquals(lost, deaths.length);
  assertEquals(readCounters(rig.arena).lanes_restarted, deaths.length);
  await rig.asleep();
});

/** CPU time in clock ticks of each thread of this process. */
function threadTicks(): Map<string, number> {
  const ticks = new Map<string, number>();
  for (const { name } of Deno.readDirSync("/proc/self/task")) {
    const text = Deno.readTextFileSync(`/proc/self/task/${name}/stat`);
    const fields = text.slice(text.lastIndexOf(")") + 2).split(" ");
    ticks.set(name, Number(fields[11]) + Number(fields[12]));
  }
  return ticks;
}

/** Ticks that threads which are not among `others` use in a second. */
async function ticksInOneSecond(
  others: ReadonlyMap<string, number>,
): Promise<{ threads: number; ticks: number }> {
  const before = threadTicks();
  await delay(1_000);
  let threads = 0;
  let ticks = 0;
  for (const [id, now] of threadTicks()) {
    const then = before.get(id);
    if (then === undefined || others.has(id)) continue;
    threads++;
    ticks += now - then;
  }
  return { threads, ticks };
}

Deno.test({
  name: "idle lanes use no processor",
  ignore: Deno.build.os !== "linux",
  async fn(): Promise<void> {
    const others = threadTicks();
    await using rig = new LanesRig({ lanes: 3 });
    await rig.start();
    for (let n = 0; n < 100; n++) rig.add(1, n, LENGTH_MAX);
    rig.submit();
    await deliverAll(rig, 100, () => {});
    await rig.asleep();
    await delay(200);
    const { threads, ticks } = await ticksInOneSecond(others);
    assert(threads >= 3, `${threads} threads are the lanes'`);
    // Of 100 that one busy thread uses.
    assert(ticks <= 1, `${ticks} ticks in a second`);
  },
});

Deno.test({
  name: "a thread that is busy is seen by the same measure",
  ignore: Deno.build.os !== "linux",
  async fn(): Promise<void> {
    const others = threadTicks();
    const code = "for (const end = Date.now() + 4000; Date.now() < end;);" +
      "postMessage(0); close();";
    const url = `data:text/javascript,${encodeURIComponent(code)}`;
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const worker = new Worker(url, { type: "module" });
    worker.onmessage = resolve;
    await delay(1_500);
    const { ticks } = await ticksInOneSecond(others);
    assert(ticks > 10, `${ticks} ticks in a second`);
    await promise;
  },
});
