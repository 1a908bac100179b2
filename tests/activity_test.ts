/** lib/activity: timers that the packet path arms and cancels by plain stores. */
import { assert, assertEquals } from "@std/assert";
import {
  keepalivePending,
  newHandshakePending,
  noteDataReceived,
  noteDataSent,
  noteReceived,
  noteSent,
  sentSeq,
  stampMs,
} from "../lib/activity.ts";
import { Arena } from "../lib/arena.ts";
import { PEER, WATCH_DATA_RECEIVED, WATCH_DATA_SENT } from "../lib/records.ts";
import { SeededRandom } from "../lib/selftest/random.ts";

const LIMITS = { peers: 1, allowedIpNodes: 1, sessions: 1, txSlots: 1 };
const NOW_MS = 1_000;

function newPeer(): { arena: Arena; peer: number } {
  const arena = new Arena(LIMITS);
  return { arena, peer: arena.peer(1) };
}

Deno.test("a new peer has nothing pending", () => {
  const { arena, peer } = newPeer();
  assert(!newHandshakePending(arena, peer));
  assert(!keepalivePending(arena, peer));
});

Deno.test("data sent makes a new handshake pending until anything comes in", () => {
  const { arena, peer } = newPeer();
  noteDataSent(arena, peer, NOW_MS);
  assert(newHandshakePending(arena, peer));
  noteSent(arena, peer, NOW_MS + 1);
  assert(newHandshakePending(arena, peer), "what goes out does not matter");
  noteReceived(arena, peer, NOW_MS + 2);
  assert(!newHandshakePending(arena, peer));
});

Deno.test("a handshake message that control counts cancels it as well", () => {
  const { arena, peer } = newPeer();
  noteDataSent(arena, peer, NOW_MS);
  arena.i32[peer + PEER.RX_SEQ_CONTROL]++;
  assert(!newHandshakePending(arena, peer));
});

Deno.test("more data sent leaves the time at which it was armed", () => {
  const { arena, peer } = newPeer();
  noteDataSent(arena, peer, NOW_MS);
  assertEquals(noteDataSent(arena, peer, NOW_MS + 500), false);
  assertEquals(arena.i32[peer + PEER.DATA_SENT_MS], NOW_MS);
  noteReceived(arena, peer, NOW_MS + 600);
  noteDataSent(arena, peer, NOW_MS + 700);
  assertEquals(arena.i32[peer + PEER.DATA_SENT_MS], NOW_MS + 700);
});

Deno.test("data received makes a keepalive pending until anything goes out", () => {
  const { arena, peer } = newPeer();
  noteReceived(arena, peer, NOW_MS);
  assert(!keepalivePending(arena, peer), "an empty message arms nothing");
  noteDataReceived(arena, peer, NOW_MS);
  assert(keepalivePending(arena, peer));
  noteReceived(arena, peer, NOW_MS + 1);
  assert(keepalivePending(arena, peer));
  noteSent(arena, peer, NOW_MS + 2);
  assert(!keepalivePending(arena, peer));
});

Deno.test("a second packet while a keepalive is pending asks for another", () => {
  const { arena, peer } = newPeer();
  const another = (): number => arena.i32[peer + PEER.NEED_ANOTHER_KEEPALIVE];
  noteDataReceived(arena, peer, NOW_MS);
  assertEquals(another(), 0);
  noteDataReceived(arena, peer, NOW_MS + 5);
  assertEquals(another(), 1);
  assertEquals(arena.i32[peer + PEER.DATA_RECEIVED_MS], NOW_MS);
  noteSent(arena, peer, NOW_MS + 6);
  noteDataReceived(arena, peer, NOW_MS + 7);
  assertEquals(another(), 0, "armed anew");
  assertEquals(arena.i32[peer + PEER.DATA_RECEIVED_MS], NOW_MS + 7);
});

Deno.test("control is told only of timers that it does not watch", () => {
  const { arena, peer } = newPeer();
  assertEquals(noteDataSent(arena, peer, NOW_MS), true);
  assertEquals(noteDataReceived(arena, peer, NOW_MS), true);
  arena.i32[peer + PEER.WATCHES] = WATCH_DATA_SENT;
  noteReceived(arena, peer, NOW_MS);
  noteSent(arena, peer, NOW_MS);
  assertEquals(noteDataSent(arena, peer, NOW_MS), false);
  assertEquals(noteDataReceived(arena, peer, NOW_MS), true);
  arena.i32[peer + PEER.WATCHES] = WATCH_DATA_RECEIVED;
  noteReceived(arena, peer, NOW_MS);
  noteSent(arena, peer, NOW_MS);
  assertEquals(noteDataSent(arena, peer, NOW_MS), true);
  assertEquals(noteDataReceived(arena, peer, NOW_MS), false);
});

for (const start of [0, 0x7fff_fff0, -16]) {
  Deno.test(`random events agree with plain booleans, with sequence numbers from ${start} on`, () => {
    const { arena, peer } = newPeer();
    const { i32 } = arena;
    i32[peer + PEER.RX_SEQ] = start;
    i32[peer + PEER.TX_SEQ] = start;
    const random = new SeededRandom(6);
    let [handshake, keepalive] = [false, false];
    const events = [
      (): void => noteSent(arena, peer, NOW_MS),
      (): void => noteReceived(arena, peer, NOW_MS),
      (): void => void noteDataSent(arena, peer, NOW_MS),
      (): void => void noteDataReceived(arena, peer, NOW_MS),
      (): void => void i32[peer + PEER.RX_SEQ_CONTROL]++,
      (): void => void i32[peer + PEER.TX_SEQ_CONTROL]++,
    ];
    for (let step = 0; step < 5_000; step++) {
      const event = random.below(events.length);
      events[event]();
      if (event === 2) handshake = true;
      if (event === 1 || event === 4) handshake = false;
      if (event === 3) keepalive = true;
      if (event === 0 || event === 5) keepalive = false;
      assertEquals(newHandshakePending(arena, peer), handshake);
      assertEquals(keepalivePending(arena, peer), keepalive);
    }
    assertEquals(sentSeq(i32, peer), sentSeq(i32, peer) | 0);
  });
}

Deno.test("a stamp is the time it was made, also past 2^31 and 2^32 ms", () => {
  const stamps = new Int32Array(1);
  for (const base of [0, 2 ** 31 - 500, 2 ** 32 - 500, 3 * 2 ** 32 - 500]) {
    for (const age of [0, 1, 499, 501, 10_000, 48 * 86_400_000]) {
      const nowMs = base + age;
      stamps[0] = base;
      assertEquals(stampMs(stamps[0], nowMs), base);
      assertEquals(stampMs(stamps[0], nowMs + 0.25), base + 0.25);
    }
  }
});

Deno.test("a stamp made after control looked at the clock is now, not long ago", () => {
  for (const nowMs of [1000, 100_001.5, 2 ** 31, 2 ** 32 + 3]) {
    for (const aheadMs of [1, 20, 1000]) {
      const stamp = Math.trunc(nowMs + aheadMs) | 0;
      assertEquals(stampMs(stamp, nowMs), nowMs);
    }
  }
});
