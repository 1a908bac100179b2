/**
 * Many peers on one device: changes in slices, between which others have their
 * turn; keepalives that do not fall together; memory that comes back.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Arena, type ArenaLimits, DEFAULT_LIMITS } from "../lib/arena.ts";
import { generatePrivateKey } from "../lib/crypto/x25519.ts";
import { KEYPAIR, PEER, SESSION } from "../lib/records.ts";
import { Slices } from "../lib/slices.ts";
import { Timers } from "../lib/timers.ts";
import { serveUapi } from "../lib/uapi.ts";
import { UapiDevice } from "../lib/uapi_device.ts";
import { FarEnds } from "./memory/far_ends.ts";
import {
  addDeadPeer,
  closeAll,
  connectedPair,
  exchange,
  INITIATION,
  INNER_A,
  INNER_B,
  ipv4Packet,
  MemoryDevice,
  Network,
  numbered,
  numberOf,
  type Pair,
  RESPONSE,
} from "./memory/network.ts";

const MANY = 3_000;
const LIMITS: ArenaLimits = {
  peers: 2 * MANY,
  allowedIpNodes: 8 * MANY,
  sessions: 2 * MANY,
  txSlots: 512,
};

function inner(i: number): string {
  return `10.${64 + (i >> 16)}.${(i >> 8) & 255}.${i & 255}`;
}

/** A pair with a session, and many more peers on `a` that never answer. */
function crowdedPair(): Pair & { others: number[] } {
  const pair = connectedPair({ limits: LIMITS });
  const others = Array.from(
    { length: MANY },
    (_, i) => addDeadPeer(pair.a, inner(i), null),
  );
  return { ...pair, others };
}

/** Turns of control until nothing is left of a change in slices. */
function turns({ a }: Pair): number {
  let count = 0;
  for (; a.control.settled() !== undefined; count++) a.control.pump();
  return count;
}

Deno.test("jobs are done in slices, one after the other, the first slice at once", async () => {
  let more = 0;
  const slices = new Slices(() => more++);
  const done: string[] = [];
  const job = (name: string, count: number) => () => {
    done.push(name);
    return --count > 0;
  };
  assertEquals(slices.begin(job("a", 1)), undefined, "done at once");
  assertEquals([done.join(""), more], ["a", 0]);
  const b = slices.begin(job("b", 3))?.then(() => done.push("B"));
  const c = slices.begin(job("c", 1))?.then(() => done.push("C"));
  assertEquals([done.join(""), more], ["ab", 2]);
  assert(slices.run());
  await Promise.resolve();
  assertEquals(done.join(""), "abb");
  slices.finish();
  await Promise.all([b, c]);
  assertEquals(done.join(""), "abbbcBC");
  assert(!slices.run() && !slices.pending);
  assertEquals(slices.settled(), undefined);
});

Deno.test("all peers are removed in slices, packets pass meanwhile, and nothing is left", () => {
  const pair = crowdedPair();
  const { network, a, peerOfA } = pair;
  // The session's peer is the last one: it stays for as long as the others last.
  a.control.removePeer(peerOfA);
  network.settle();
  connectedPairAgain(pair);
  let meanwhile = 0;
  pair.b.onDelivery = () => {
    if (a.control.settled() !== undefined) meanwhile++;
  };
  a.control.removeAllPeers();
  a.toSend.push(ipv4Packet(INNER_A, INNER_B));
  network.settle();
  assertEquals(meanwhile, 1, "a packet arrived before the end");
  assertEquals(a.control.settled(), undefined);
  network.advance(100);
  const left = a.control.objects();
  assertEquals([left.peers, left.allowedIpNodes, left.retired], [0, 0, 0]);
  closeAll(a, pair.b);
});

/** Adds b to a once more, now as the last peer, and shakes hands. */
function connectedPairAgain(pair: Pair): Pair {
  const { a, b } = pair;
  const key = b.control.publicKey;
  assert(key !== null);
  const peerOfA = a.control.createPeer(key);
  a.control.allowedIps.insert(
    Uint8Array.from(INNER_B.split("."), Number),
    32,
    peerOfA,
  );
  a.control.setEndpoint(peerOfA, Uint8Array.of(192, 0, 2, 2), 51820, 0);
  pair.network.advance(6_000);
  const again = { ...pair, peerOfA };
  exchange(again);
  return again;
}

Deno.test("going down and up passes through all peers, and a session begins anew", () => {
  const pair = crowdedPair();
  const { a, b, network } = pair;
  a.control.down();
  assert(a.control.settled() !== undefined);
  assert(turns(pair) > 1);
  network.settle();
  assertEquals(a.control.objects().sessions, 0);
  a.control.up();
  network.advance(6_000);
  exchange(pair);
  closeAll(a, b);
});

Deno.test("coming up in the middle of going down ends no session that begins then", () => {
  const pair = crowdedPair();
  const { a, b, network } = pair;
  a.control.down();
  a.control.up();
  network.advance(6_000);
  exchange(pair);
  assertEquals(a.control.objects().keypairs > 0, true);
  closeAll(a, b);
});

Deno.test("who shakes hands with a new private key before it has gone through all peers keeps the session", () => {
  const pair = connectedPair({ limits: LIMITS });
  const { a, b, network, peerOfA, peerOfB } = pair;
  // b comes last.
  a.control.removePeer(peerOfA);
  network.settle();
  for (let i = 0; i < MANY; i++) addDeadPeer(a, inner(i), null);
  const again = connectedPairAgain(pair);
  const key = generatePrivateKey();
  const done = a.control.setPrivateKey(key);
  assert(done !== undefined, "there is more to do");
  b.control.removePeer(peerOfB);
  const own = a.control.publicKey;
  assert(own !== null);
  const peer = b.control.createPeer(own);
  b.control.allowedIps.insert(
    Uint8Array.from(INNER_A.split("."), Number),
    32,
    peer,
  );
  const before = network.log.length;
  // Asks for a handshake, as the peer is outdated: but nothing pumps the slices.
  b.control.setEndpoint(peer, Uint8Array.of(192, 0, 2, 1), 51820, 0);
  b.toSend.push(ipv4Packet(INNER_B, INNER_A));
  b.outbound.pump(network.nowMs);
  b.control.pump();
  b.outbound.pump(network.nowMs);
  a.inbound.pump(network.nowMs);
  a.control.pump();
  assert(a.control.settled() !== undefined, "not through yet");
  network.settle();
  assertEquals(network.types(before).slice(0, 2), [INITIATION, RESPONSE]);
  assertEquals(a.control.settled(), undefined);
  const handshakes = network.types().filter((t) => t === INITIATION).length;
  exchange(again);
  assertEquals(
    network.types().filter((t) => t === INITIATION).length,
    handshakes,
    "no other handshake is needed",
  );
  closeAll(a, b);
});

Deno.test("a peer with many allowed IPs is removed in slices", () => {
  const pair = connectedPair({ limits: LIMITS });
  const { a, b, network } = pair;
  const peer = addDeadPeer(a, "10.3.0.0", null);
  const add = (): void => {
    for (let i = 0; i < 2_000; i++) {
      const address = Uint8Array.from(inner(i).split("."), Number);
      assert(a.control.allowedIps.insert(address, 32, peer));
    }
  };
  add();
  assert(a.control.removeAllowedIps(peer) !== undefined, "not at once");
  assert(turns(pair) >= 2);
  assertEquals(a.control.allowedIps.size, 1);
  add();
  assert(a.control.removePeer(peer) !== undefined);
  assert(a.control.peers.alive(peer));
  assert(turns(pair) >= 2);
  assert(!a.control.peers.alive(peer));
  network.advance(100);
  assertEquals(a.control.objects().allowedIpNodes, 1);
  closeAll(a, b);
});

Deno.test("a request waits for another's removal of all peers, and its own peer stays", async () => {
  const pair = crowdedPair();
  const { a, b, network } = pair;
  const sockets = {
    listenPort: 0,
    fwmark: 0,
    setListenPort: (): Promise<void> => Promise.resolve(),
    setFwmark(): void {},
  };
  const stats = { objects: () => ({}), counters: () => ({}) };
  const device = new UapiDevice(a.control, sockets, stats, {
    wake(): void {},
    log(): void {},
  });
  const answers: string[] = [];
  const send = (text: string): Promise<void> =>
    serveUapi(
      {
        input: ReadableStream.from([new TextEncoder().encode(text)]),
        write: (answer): Promise<void> => {
          answers.push(answer);
          return Promise.resolve();
        },
      },
      device,
      device,
    );
  // Known to the device, and about to be removed.
  const key = a.control.publicKeyOf(pair.others[MANY - 1]).toHex();
  const removal = send("set=1\nreplace_peers=true\n\n");
  const set = send(
    `set=1\npublic_key=${key}\npersistent_keepalive_interval=7\n\n`,
  );
  await Promise.resolve();
  assertEquals(answers, []);
  while (answers.length < 2) {
    network.settle();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await Promise.all([removal, set]);
  assertEquals(answers, ["errno=0\n\n", "errno=0\n\n"]);
  assertEquals(a.control.peers.count, 1);
  const [left] = a.control.peers;
  assertEquals(a.control.publicKeyOf(left).toHex(), key);
  assertEquals(a.control.persistentKeepaliveOf(left), 7);
  closeAll(a, b);
});

Deno.test("removed peers leave no key anywhere in the memory", () => {
  const network = new Network();
  const hub = new MemoryDevice(network, "192.0.2.1:1", LIMITS);
  hub.control.setPrivateKey(generatePrivateKey());
  const own = hub.control.publicKey;
  assert(own !== null);
  const far = new FarEnds(own);
  const count = 8;
  const secrets = connectFarEnds(hub, far, count);
  assertEquals(hub.control.objects().keypairs, count);
  assert(secrets.length === 4 * count);
  for (const secret of secrets) assert(found(hub.arena, secret), "it is there");
  hub.control.removeAllPeers();
  network.advance(200);
  for (const secret of secrets) assert(!found(hub.arena, secret), "it is gone");
  closeAll(hub);
});

/**
 * Makes far ends peers of the hub, and shakes hands with each.
 *
 * @returns secrets that the hub holds because of it
 */
function connectFarEnds(
  hub: MemoryDevice,
  far: FarEnds,
  count: number,
): Uint8Array[] {
  const { network, control, arena } = hub;
  const secrets: Uint8Array[] = [];
  const responses: Uint8Array[] = [];
  network.wire = ({ bytes }) => {
    if (bytes[0] === RESPONSE) responses.push(bytes);
    return [];
  };
  for (let i = 0; i < count; i++) {
    const peer = control.createPeer(far.add());
    const address = Uint8Array.from(inner(i).split("."), Number);
    control.allowedIps.insert(address, 32, peer);
  }
  control.up();
  network.settle();
  const send = (i: number, bytes: Uint8Array): void => {
    const from = `198.51.${i >> 8}.${i & 255}:7`;
    hub.incoming.push({ from, to: hub.address, ds: 0, sticky: false, bytes });
  };
  for (let i = 0; i < count; i++) send(i, far.initiation(i));
  network.settle();
  for (const response of responses) far.consume(response);
  const at = [...control.peers];
  for (let i = 0; i < count; i++) {
    assert(far.connected(i), `far end ${i}`);
    send(i, far.data(i, new Uint8Array(0)));
    const word = arena.peer(at[i]);
    const next = arena.keypair(arena.i32[word + PEER.NEXT]);
    secrets.push(
      arena.bytes(word + PEER.STATIC_STATIC, 32).slice(),
      arena.bytes(word + PEER.PUBLIC_KEY, 32).slice(),
      arena.bytes(next + KEYPAIR.SEND_KEY, 32).slice(),
      arena.bytes(next + KEYPAIR.RECEIVE_KEY, 32).slice(),
    );
  }
  network.settle();
  network.wire = (datagram) => [datagram];
  return secrets;
}

/** Whether 32 bytes are anywhere in the arena, at a whole word. */
function found(arena: Arena, bytes: Uint8Array): boolean {
  const words = new Int32Array(bytes.slice().buffer);
  let at = -1;
  while ((at = arena.i32.indexOf(words[0], at + 1)) >= 0) {
    if (words.every((word, i) => arena.i32[at + i] === word)) return true;
  }
  return false;
}

Deno.test("many sessions send in rotation: each in order, none favoured", () => {
  const network = new Network();
  const hub = new MemoryDevice(network, "192.0.2.1:1", LIMITS);
  hub.control.setPrivateKey(generatePrivateKey());
  const own = hub.control.publicKey;
  assert(own !== null);
  const far = new FarEnds(own);
  const count = 300;
  connectFarEnds(hub, far, count);
  const rounds = 8;
  const last = new Array<number>(count).fill(0);
  hub.onDelivery = (packet) => {
    const i = (packet[14] << 8) | packet[15];
    assertEquals(numberOf(packet), last[i] + 1, "in order, none left out");
    last[i]++;
    // Fair: nobody is more than a round and a batch ahead of anybody.
    assert(last[i] - Math.min(...last) <= 2);
  };
  for (let round = 1; round <= rounds; round++) {
    for (let i = 0; i < count; i++) {
      const packet = numbered(ipv4Packet(inner(i), "10.0.0.1", 96), round);
      const from = `198.51.${i >> 8}.${i & 255}:7`;
      const bytes = far.data(i, packet);
      hub.incoming.push({ from, to: hub.address, ds: 0, sticky: false, bytes });
    }
  }
  network.settle();
  assertEquals(last, new Array<number>(count).fill(rounds));
  // And the other way round.
  const sent: number[] = [];
  network.wire = ({ bytes }) => {
    sent.push(new DataView(bytes.buffer).getUint32(4, true));
    return [];
  };
  for (let round = 0; round < rounds; round++) {
    for (let i = 0; i < count; i++) {
      hub.toSend.push(ipv4Packet("10.0.0.1", inner(i), 96));
    }
  }
  network.settle();
  const rotation = Array.from({ length: count }, (_, i) => i);
  const expected = Array.from({ length: rounds }, () => rotation).flat();
  // A batch of 64 packets goes out peer by peer: in rotation they differ.
  assertEquals(sent, expected);
  closeAll(hub);
});

Deno.test("half a million persistent keepalives are spread over the interval, again and again", () => {
  const COUNT = 500_000;
  const INTERVAL_S = 25;
  const arena = new Arena({
    peers: COUNT,
    allowedIpNodes: 1,
    sessions: COUNT,
    keypairs: 1,
    txSlots: 1,
  });
  let nowMs = 1_000_000;
  let sent = 0;
  const none = (): void => {};
  const actions = {
    sendInitiation: none,
    giveUp: none,
    zeroKeyMaterial: none,
    sendKeepalive: (): void => void sent++,
  };
  const timers = new Timers(arena, actions, () => 0.5, nowMs);
  for (let n = 1; n <= COUNT; n++) {
    arena.i32[arena.session(n) + SESSION.PEER] = n;
    arena.i32[arena.peer(n) + PEER.PERSISTENT_KEEPALIVE] = INTERVAL_S;
    if (timers.persistentKeepaliveStarted(n, nowMs)) sent++;
  }
  assert(sent >= 100, "a few at once: nobody waits where peers are few");
  assert(sent <= 2_000, `${sent} at once`);
  for (let interval = 0; interval < 3; interval++) {
    let most = 0;
    for (let second = 0; second < INTERVAL_S; second++) {
      const before = sent;
      for (let step = 0; step < 50; step++) {
        nowMs += 20;
        while (timers.run(nowMs));
      }
      most = Math.max(most, sent - before);
    }
    assert(most <= 1.1 * COUNT / INTERVAL_S, `${most} within a second`);
    assert(sent >= 0.98 * COUNT * (interval + 1), `${sent} in all`);
  }
});

Deno.test("a machine with little memory gets an arena for fewer peers", () => {
  const tried: ArenaLimits[] = [];
  const little = (bytes: number) => (limits: ArenaLimits): Arena => {
    tried.push(limits);
    const arena = new Arena(limits);
    if (arena.layout.words * 4 > bytes) throw new RangeError("no memory");
    return arena;
  };
  const arena = Arena.reserve(DEFAULT_LIMITS, little(600 * 2 ** 20));
  assert(tried.length > 1);
  assert(arena.limits.peers >= 1 << 17, `${arena.limits.peers} peers`);
  assertEquals(arena.limits, tried.at(-1));
  assertThrows(() => Arena.reserve(DEFAULT_LIMITS, little(0)), RangeError);
  assert(Arena.reserve().limits.peers === 1 << 20);
});
