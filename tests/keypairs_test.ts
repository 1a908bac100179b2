/** The three key slots of a peer and the life of keypair records. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { HEADER } from "../lib/arena.ts";
import { EpochReader } from "../lib/epoch.ts";
import { KEYPAIR, PEER } from "../lib/records.ts";
import { TestDevice } from "./noise_helpers.ts";

const PEER_NUMBER = 1;

/** A keypair that is in the index table, as handshakeBeginSession makes it. */
function newKeypair(device: TestDevice, initiator: boolean): number {
  const session = device.sessions.sessionOf(PEER_NUMBER, true);
  const keypair = device.keypairs.create({
    peer: PEER_NUMBER,
    remoteIndex: 7,
    initiator,
    sendKey: new Uint8Array(32).fill(1),
    receiveKey: new Uint8Array(32).fill(2),
    birthMs: 1234,
  });
  device.indices.insertSession(session);
  assert(device.indices.replaceWithKeypair(session, keypair));
  return keypair;
}

type Slots = readonly [current: string, previous: string, next: string];

/** A device whose slots hold keypairs named c, p, n where the rule says so. */
function prepare(slots: Slots): [TestDevice, Map<number, string>] {
  const device = new TestDevice(null);
  const names = new Map([[0, ""]]);
  const at = device.arena.peer(PEER_NUMBER);
  const fields = [PEER.CURRENT, PEER.PREVIOUS, PEER.NEXT];
  slots.forEach((name, i) => {
    if (name === "") return;
    const keypair = newKeypair(device, true);
    names.set(keypair, name);
    device.arena.u32[at + fields[i]] = keypair;
  });
  return [device, names];
}

function namesOf(device: TestDevice, names: Map<number, string>): string[] {
  return device.slots(PEER_NUMBER).map((keypair) => names.get(keypair) ?? "?");
}

/** Keypairs that left the slots are out of the index table, the others in it. */
function assertIndexed(device: TestDevice, names: Map<number, string>): void {
  const left = device.slots(PEER_NUMBER);
  for (const [keypair, name] of names) {
    if (keypair === 0) continue;
    const index = device.keypairField(keypair, KEYPAIR.LOCAL_INDEX);
    const inSlot = left.includes(keypair);
    assertEquals(index !== 0, inSlot, `${name} has an index`);
    if (inSlot) assertEquals(device.indices.findKeypair(index), keypair);
  }
  const count = left.filter((keypair) => keypair !== 0).length;
  assertEquals(device.indices.entries, count);
  assertEquals(device.keypairs.live, count);
}

const INSERTIONS: [boolean, Slots, Slots][] = [
  // The initiator: the new keypair becomes current.
  [true, ["", "", ""], ["x", "", ""]],
  [true, ["c", "", ""], ["x", "c", ""]],
  [true, ["c", "p", ""], ["x", "c", ""]],
  [true, ["", "p", ""], ["x", "", ""]],
  [true, ["", "", "n"], ["x", "n", ""]],
  [true, ["c", "", "n"], ["x", "n", ""]],
  [true, ["c", "p", "n"], ["x", "n", ""]],
  // The responder: it waits in next.
  [false, ["", "", ""], ["", "", "x"]],
  [false, ["c", "", ""], ["c", "", "x"]],
  [false, ["c", "p", ""], ["c", "", "x"]],
  [false, ["", "", "n"], ["", "", "x"]],
  [false, ["c", "p", "n"], ["c", "", "x"]],
];

for (const [initiator, before, after] of INSERTIONS) {
  const who = initiator ? "an initiator's" : "a responder's";
  const text = (slots: Slots): string =>
    slots.map((name) => name || "-").join("/");
  Deno.test(`${who} keypair turns slots ${text(before)} into ${text(after)}`, () => {
    const [device, names] = prepare(before);
    const keypair = newKeypair(device, initiator);
    names.set(keypair, "x");
    device.keypairs.insert(keypair);
    assertEquals(namesOf(device, names), [...after]);
    assertIndexed(device, names);
    assertEquals(
      device.grace.waiting,
      names.size - 1 - after.filter((name) => name !== "").length,
    );
  });
}

Deno.test("a next keypair that is confirmed counts as current when another comes", () => {
  for (
    const [initiator, after] of [
      [false, ["n", "", "x"]],
      [true, ["x", "n", ""]],
    ] as const
  ) {
    const [device, names] = prepare(["c", "p", "n"]);
    const next = device.slots(PEER_NUMBER)[2];
    device.arena.i32[device.arena.keypair(next) + KEYPAIR.CONFIRMED] = 1;
    const keypair = newKeypair(device, initiator);
    names.set(keypair, "x");
    device.keypairs.insert(keypair);
    assertEquals(namesOf(device, names), [...after]);
    assertIndexed(device, names);
  }
});

Deno.test("the first data on next makes it current, current previous", () => {
  for (const before of [["c", "p", "n"], ["c", "", "n"], ["", "", "n"]]) {
    const [device, names] = prepare(before as unknown as Slots);
    const next = device.slots(PEER_NUMBER)[2];
    assert(device.keypairs.promoteNext(PEER_NUMBER, next));
    assertEquals(namesOf(device, names), ["n", before[0], ""]);
    assertIndexed(device, names);
    assertEquals(device.keypairs.promoteNext(PEER_NUMBER, next), false);
  }
});

Deno.test("data on current, on previous or on none promotes nothing", () => {
  const [device, names] = prepare(["c", "p", "n"]);
  const [current, previous] = device.slots(PEER_NUMBER);
  for (const keypair of [current, previous, 0]) {
    assertEquals(device.keypairs.promoteNext(PEER_NUMBER, keypair), false);
  }
  assertEquals(namesOf(device, names), ["c", "p", "n"]);
  const [empty] = prepare(["c", "", ""]);
  assertEquals(empty.keypairs.promoteNext(PEER_NUMBER, 0), false);
  assertNotEquals(empty.slots(PEER_NUMBER)[0], 0);
});

Deno.test("expiring stops sending on next and current, and receiving on none", () => {
  const [device, names] = prepare(["c", "p", "n"]);
  const [current, previous, next] = device.slots(PEER_NUMBER);
  device.keypairs.expireCurrent(PEER_NUMBER);
  const sending = (keypair: number): number =>
    device.keypairField(keypair, KEYPAIR.SENDING_VALID);
  assertEquals([current, previous, next].map(sending), [0, 1, 0]);
  for (const keypair of [current, previous, next]) {
    assertEquals(device.keypairField(keypair, KEYPAIR.RECEIVING_VALID), 1);
  }
  assertEquals(namesOf(device, names), ["c", "p", "n"]);
  assertIndexed(device, names);
  new TestDevice(null).keypairs.expireCurrent(PEER_NUMBER);
});

Deno.test("removing all empties slots, index table and, after grace, the pool", () => {
  const [device, names] = prepare(["c", "p", "n"]);
  const keypairs = device.slots(PEER_NUMBER);
  device.keypairs.removeAll(PEER_NUMBER);
  assertEquals(device.slots(PEER_NUMBER), [0, 0, 0]);
  assertIndexed(device, names);
  assertEquals(device.keypairs.used, 3);
  assertEquals(device.grace.collect(), false);
  assertEquals(device.keypairs.used, 0);
  assertZeroed(device, keypairs);
  device.keypairs.removeAll(PEER_NUMBER);
  assertEquals(device.grace.waiting, 0);
});

/** Apart from the pool's own link in the first word. */
function assertZeroed(device: TestDevice, keypairs: number[]): void {
  for (const keypair of keypairs) {
    const at = device.arena.keypair(keypair);
    assert(
      device.arena.u32.subarray(at + 1, at + KEYPAIR.WORDS)
        .every((word) => word === 0),
      "a freed keypair is all zero",
    );
  }
}

Deno.test("a keypair that a worker may hold keeps its keys until the worker is done", () => {
  const [device] = prepare(["c", "", ""]);
  const [current] = device.slots(PEER_NUMBER);
  const worker = new EpochReader(device.arena, HEADER.INBOUND_EPOCH);
  worker.enter();
  device.keypairs.removeAll(PEER_NUMBER);
  assertEquals(device.grace.collect(), true);
  assertEquals(
    device.keypairBytes(current, KEYPAIR.SEND_KEY),
    "01".repeat(32),
  );
  worker.leave();
  assertEquals(device.grace.collect(), false);
  assertZeroed(device, [current]);
  assertEquals(device.keypairs.used, 0);
});

Deno.test("a fresh keypair is valid both ways, counts from zero and is young", () => {
  const device = new TestDevice(null);
  const keypair = newKeypair(device, false);
  const field = (field: number): number => device.keypairField(keypair, field);
  assertEquals(field(KEYPAIR.PEER), PEER_NUMBER);
  assertEquals(field(KEYPAIR.REMOTE_INDEX), 7);
  assertEquals(field(KEYPAIR.INITIATOR), 0);
  assertEquals(field(KEYPAIR.SENDING_VALID), 1);
  assertEquals(field(KEYPAIR.RECEIVING_VALID), 1);
  assertEquals(field(KEYPAIR.SEND_COUNTER_LO), 0);
  assertEquals(field(KEYPAIR.SEND_COUNTER_HI), 0);
  assertEquals(field(KEYPAIR.RECEIVE_COUNTER_LO), 0);
  assertEquals(field(KEYPAIR.CONFIRMED), 0);
  assertEquals(
    device.arena.getF64(device.arena.keypair(keypair) + KEYPAIR.BIRTH_F64),
    1234,
  );
  assertEquals(device.keypairBytes(keypair, KEYPAIR.SEND_KEY), "01".repeat(32));
  assertEquals(
    device.keypairBytes(keypair, KEYPAIR.RECEIVE_KEY),
    "02".repeat(32),
  );
});

Deno.test("when the pool is empty there is no keypair, until retired ones are free", () => {
  const device = new TestDevice(null);
  for (let i = 0; i < device.keypairPool.capacity; i++) {
    device.keypairs.insert(newKeypair(device, true));
    // What left the slots is used again without anybody calling collect.
  }
  const values = {
    peer: PEER_NUMBER,
    remoteIndex: 1,
    initiator: true,
    sendKey: new Uint8Array(32),
    receiveKey: new Uint8Array(32),
    birthMs: 0,
  };
  const made: number[] = [];
  for (;;) {
    const keypair = device.keypairs.create(values);
    if (keypair === 0) break;
    made.push(keypair);
  }
  assertEquals(made.length, device.keypairPool.capacity - 2);
  for (const keypair of made) device.keypairs.discard(keypair);
  device.keypairs.removeAll(PEER_NUMBER);
  device.grace.collect();
  assertEquals([device.keypairs.live, device.keypairs.used], [0, 0]);
});
