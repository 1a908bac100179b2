/** A router that boots before its clock is set and before its network is up. */
import { assertEquals } from "@std/assert";
import { generatePrivateKey } from "../lib/crypto/x25519.ts";
import {
  addPeer,
  closeAll,
  connectedPair,
  exchange,
  INITIATION,
  INNER_B,
  MemoryDevice,
  type Pair,
  PORT,
  RESPONSE,
  sendAtoB,
  sentBy,
} from "./memory/network.ts";

const ADDRESS = `192.0.2.1:${PORT}`;
/** As clocks without a battery begin. */
const BOOT_WALL_MS = Date.UTC(1970, 0, 1);

/** The pair after its first device was started anew, with the same key. */
function reboot(pair: Pair, key: Uint8Array): Pair {
  const { network, a, b } = pair;
  a.control.close();
  // Until the other side waits for nothing any more, and begins nothing.
  network.advance(300_000, 100);
  const again = new MemoryDevice(network, ADDRESS);
  again.control.setPrivateKey(key);
  const peerOfA = addPeer(again, b, INNER_B, true);
  again.control.up();
  network.log.length = 0;
  return { ...pair, a: again, peerOfA };
}

function withReboot(
  name: string,
  fn: (pair: Pair, clock: (wallMs: number) => void) => void,
): void {
  Deno.test(name, () => {
    const key = generatePrivateKey();
    const keys = [key];
    const before = connectedPair({
      generateKey: () => keys.shift() ?? generatePrivateKey(),
    });
    const { network } = before;
    const pair = reboot(before, key);
    try {
      fn(pair, (wallMs) => network.wallOffsetMs = wallMs - network.nowMs);
    } finally {
      closeAll(pair.a, pair.b);
    }
  });
}

withReboot(
  "with its clock at 1970 a router is not heard, and is once the clock is set",
  (pair, clock) => {
    const { network, a, b } = pair;
    const now = network.nowMs + network.wallOffsetMs;
    clock(BOOT_WALL_MS);
    sendAtoB(pair);
    network.advance(30_000);
    // Its stamps are older than that of its last life: to b they are replays.
    assertEquals(sentBy(b, RESPONSE).length, 0);
    const tries = sentBy(a, INITIATION).length;
    assertEquals(tries >= 5, true, `${tries} tries`);
    const delivered = b.delivered.length;
    clock(now + 30_000);
    network.advance(6_000);
    // Nobody did anything: the packet that waited has gone through.
    assertEquals(sentBy(b, RESPONSE).length, 1);
    assertEquals(b.delivered.length, delivered + 1);
    exchange(pair);
  },
);

withReboot(
  "a clock that is set, and set back by a little, does no harm",
  (pair, clock) => {
    const { network } = pair;
    sendAtoB(pair);
    network.advance(1_000);
    exchange(pair);
    clock(network.nowMs + network.wallOffsetMs - 5_000);
    // Over the next handshake.
    for (let i = 0; i < 14; i++) {
      network.advance(10_000);
      exchange(pair);
    }
  },
);

withReboot(
  "without a network it goes on trying, and needs nobody when it is there",
  (pair) => {
    const { network, a, b } = pair;
    network.wire = () => [];
    sendAtoB(pair);
    network.advance(60_000);
    assertEquals(sentBy(b, RESPONSE).length, 0);
    const delivered = b.delivered.length;
    network.wire = (datagram) => [datagram];
    network.advance(6_000);
    assertEquals(sentBy(b, RESPONSE).length, 1);
    assertEquals(b.delivered.length, delivered + 1);
    assertEquals(sentBy(a, INITIATION).length > 10, true);
  },
);
