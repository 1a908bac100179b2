/** lib/timers: each timer of a peer by itself, with actions that only take notes. */
import { assert, assertEquals } from "@std/assert";
import {
  noteDataReceived,
  noteDataSent,
  noteReceived,
  noteSent,
} from "../lib/activity.ts";
import { Arena } from "../lib/arena.ts";
import { PEER, SESSION } from "../lib/records.ts";
import { Timers } from "../lib/timers.ts";

const START_MS = 10_000;
const TICK_MS = 16;
const PEER_NUMBER = 1;
const SESSION_NUMBER = 1;

/** Timers of one peer with a session record, on a clock of its own. */
class Rig {
  readonly arena = new Arena({
    peers: 1,
    allowedIpNodes: 1,
    sessions: 1,
    txSlots: 1,
  });
  readonly peerWord = this.arena.peer(PEER_NUMBER);
  readonly sessionWord = this.arena.session(SESSION_NUMBER);
  /** What expired, with the time. */
  readonly log: [atMs: number, what: string][] = [];
  nowMs = START_MS;
  /** What the timers draw as random number. */
  random = 0;
  /** Whether keepalives and initiations can be sent. */
  sends = true;
  readonly timers: Timers;

  constructor() {
    this.arena.i32[this.sessionWord + SESSION.PEER] = PEER_NUMBER;
    this.arena.i32[this.peerWord + PEER.SESSION] = SESSION_NUMBER;
    const note = (what: string): void => void this.log.push([this.nowMs, what]);
    this.timers = new Timers(
      this.arena,
      {
        sendInitiation: (_peer, retry) => {
          note(retry ? "retry" : "initiation");
          if (!this.sends) return;
          this.timers.handshakeInitiated(SESSION_NUMBER, this.nowMs);
        },
        sendKeepalive: () => {
          note("keepalive");
          if (this.sends) noteSent(this.arena, this.peerWord, this.nowMs);
        },
        giveUp: () => note("give up"),
        zeroKeyMaterial: () => note("zero"),
      },
      () => this.random,
      START_MS,
    );
  }

  /** Lets the clock run to `atMs` after the start. */
  runTo(atMs: number): void {
    while (this.nowMs < START_MS + atMs) {
      this.nowMs++;
      this.timers.run(this.nowMs);
    }
  }

  /** What expired, with times since the start, at most a tick late. */
  expect(...expected: [atMs: number, what: string][]): void {
    assertEquals(
      this.log.map(([, what]) => what),
      expected.map(([, what]) => what),
    );
    this.log.forEach(([atMs, what], i) => {
      const late = atMs - START_MS - expected[i][0];
      assert(late >= 0 && late <= TICK_MS, `${what} is ${late} ms late`);
    });
  }

  dataSent(): void {
    noteSent(this.arena, this.peerWord, this.nowMs);
    if (noteDataSent(this.arena, this.peerWord, this.nowMs)) this.armed();
  }

  dataReceived(): void {
    noteReceived(this.arena, this.peerWord, this.nowMs);
    if (noteDataReceived(this.arena, this.peerWord, this.nowMs)) this.armed();
  }

  armed(): void {
    this.timers.armed(SESSION_NUMBER, this.nowMs);
  }

  setInterval(seconds: number): void {
    this.arena.i32[this.peerWord + PEER.PERSISTENT_KEEPALIVE] = seconds;
    this.timers.persistentKeepaliveChanged(SESSION_NUMBER, this.nowMs);
  }
}

Deno.test("an unanswered initiation is repeated after 5 s", () => {
  const rig = new Rig();
  rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
  rig.runTo(12_000);
  rig.expect([5_000, "retry"], [10_016, "retry"]);
});

Deno.test("jitter puts off a repetition by up to 333 ms", () => {
  for (const [random, jitterMs] of [[0, 0], [0.5, 167], [0.999999, 333]]) {
    const rig = new Rig();
    rig.random = random;
    rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
    rig.runTo(6_000);
    rig.expect([5_000 + jitterMs, "retry"]);
  }
});

Deno.test("after twenty initiations in all it gives up, and wipes keys 540 s later", () => {
  const rig = new Rig();
  rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
  rig.runTo(700_000);
  const count = (what: string): number =>
    rig.log.filter(([, name]) => name === what).length;
  assertEquals(count("retry"), 19);
  assertEquals(count("give up"), 1);
  assertEquals(count("zero"), 1);
  const at = (what: string): number =>
    rig.log.find(([, name]) => name === what)?.[0] ?? 0;
  const lateMs = at("zero") - at("give up") - 540_000;
  assert(lateMs >= 0 && lateMs <= TICK_MS);
  assertEquals(rig.timers.count, 0);
});

Deno.test("a completed handshake is not repeated, and is noted with the wall clock", () => {
  const rig = new Rig();
  rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
  rig.runTo(5_100);
  rig.timers.handshakeComplete(SESSION_NUMBER, 1_700_000_000_123);
  rig.runTo(60_000);
  rig.expect([5_000, "retry"]);
  const { arena, peerWord, sessionWord } = rig;
  assertEquals(
    arena.getF64(peerWord + PEER.LAST_HANDSHAKE_F64),
    1_700_000_000_123,
  );
  assertEquals(arena.i32[sessionWord + SESSION.ATTEMPTS], 0);
});

Deno.test("a refused initiation is tried again when the limiter allows it", () => {
  const rig = new Rig();
  rig.timers.handshakeRefused(SESSION_NUMBER, rig.nowMs + 3_000);
  rig.runTo(3_100);
  rig.expect([3_000, "retry"]);
});

Deno.test("a refusal does not put off a repetition that is pending", () => {
  const rig = new Rig();
  rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
  rig.runTo(2_000);
  rig.timers.handshakeRefused(SESSION_NUMBER, START_MS + 9_000);
  rig.runTo(6_000);
  rig.expect([5_000, "retry"]);
});

Deno.test("packets staged since the last initiation start the attempts over", () => {
  const rig = new Rig();
  rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
  rig.runTo(90_000);
  rig.arena.i32[rig.peerWord + PEER.STAGED_SEQ]++;
  rig.runTo(180_000);
  assertEquals(rig.log.filter(([, what]) => what === "give up").length, 0);
  rig.runTo(200_000);
  assertEquals(rig.log.filter(([, what]) => what === "give up").length, 1);
});

Deno.test("15 s and jitter after unanswered data a handshake is started", () => {
  for (const [random, jitterMs] of [[0, 0], [0.999999, 333]]) {
    const rig = new Rig();
    rig.sends = false;
    rig.random = random;
    rig.dataSent();
    rig.runTo(7_000);
    rig.dataSent();
    rig.runTo(60_000);
    rig.expect([15_000 + jitterMs, "initiation"]);
  }
});

Deno.test("anything received before 15 s are over cancels the handshake", () => {
  const rig = new Rig();
  rig.dataSent();
  rig.runTo(14_900);
  noteReceived(rig.arena, rig.peerWord, rig.nowMs);
  rig.runTo(60_000);
  rig.expect();
  assertEquals(rig.timers.count, 0);
});

Deno.test("data sent after an answer has 15 s of its own", () => {
  const rig = new Rig();
  rig.sends = false;
  rig.dataSent();
  rig.runTo(4_000);
  noteReceived(rig.arena, rig.peerWord, rig.nowMs);
  rig.runTo(9_000);
  rig.dataSent();
  rig.runTo(60_000);
  rig.expect([24_000, "initiation"]);
});

Deno.test("a received handshake message counts as an answer", () => {
  const rig = new Rig();
  rig.dataSent();
  rig.runTo(4_000);
  rig.timers.handshakeReceived(SESSION_NUMBER, rig.nowMs);
  rig.runTo(60_000);
  rig.expect();
});

Deno.test("10 s after data came in without an answer a keepalive is sent", () => {
  const rig = new Rig();
  rig.dataReceived();
  rig.runTo(60_000);
  rig.expect([10_000, "keepalive"]);
});

Deno.test("one keepalive answers all packets of its 10 s", () => {
  const rig = new Rig();
  for (let second = 0; second < 9; second++) {
    rig.dataReceived();
    rig.runTo(1000 * (second + 1));
  }
  rig.runTo(60_000);
  rig.expect([10_000, "keepalive"]);
});

Deno.test("while data keeps coming in a keepalive goes out 10 s after the first since the last", () => {
  const rig = new Rig();
  for (let ms = 0; ms < 35_000; ms += 500) {
    rig.runTo(ms);
    rig.dataReceived();
  }
  rig.expect(
    [10_000, "keepalive"],
    [20_500, "keepalive"],
    [31_000, "keepalive"],
  );
});

Deno.test("anything sent before 10 s are over saves the keepalive", () => {
  const rig = new Rig();
  rig.dataReceived();
  rig.runTo(9_900);
  noteSent(rig.arena, rig.peerWord, rig.nowMs);
  rig.runTo(60_000);
  rig.expect();
  assertEquals(rig.timers.count, 0);
});

Deno.test("a keepalive that cannot be sent is tried once more if more data came", () => {
  const rig = new Rig();
  rig.sends = false;
  rig.dataReceived();
  rig.runTo(5_000);
  rig.dataReceived();
  rig.runTo(60_000);
  rig.expect([10_000, "keepalive"], [20_016, "keepalive"]);
});

Deno.test("giving up cancels the passive keepalive", () => {
  const rig = new Rig();
  rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
  rig.runTo(95_500);
  const { i32 } = rig.arena;
  // As if the initiations did not count as sent.
  noteDataReceived(rig.arena, rig.peerWord, rig.nowMs);
  rig.armed();
  rig.runTo(200_000);
  assertEquals(rig.log.filter(([, what]) => what === "keepalive"), []);
  assert(i32[rig.peerWord + PEER.TX_SEQ_CONTROL] > 0);
});

Deno.test("the persistent keepalive comes an interval after the last traffic", () => {
  const rig = new Rig();
  rig.setInterval(25);
  rig.runTo(20_000);
  noteSent(rig.arena, rig.peerWord, rig.nowMs);
  rig.runTo(30_000);
  noteReceived(rig.arena, rig.peerWord, rig.nowMs);
  rig.runTo(60_000);
  rig.expect([55_000, "keepalive"]);
});

Deno.test("the persistent keepalive stays away while traffic flows either way", () => {
  for (const note of [noteSent, noteReceived]) {
    const rig = new Rig();
    rig.setInterval(2);
    for (let ms = 0; ms <= 20_000; ms += 1_900) {
      rig.runTo(ms);
      note(rig.arena, rig.peerWord, rig.nowMs);
    }
    rig.expect();
    rig.runTo(23_000);
    rig.expect([19_000 + 2_000, "keepalive"]);
  }
});

Deno.test("an interval of 0 ends the persistent keepalive", () => {
  const rig = new Rig();
  rig.setInterval(1);
  rig.runTo(1_500);
  rig.setInterval(0);
  rig.runTo(10_000);
  rig.expect([1_000, "keepalive"]);
  assertEquals(rig.timers.count, 0);
});

Deno.test("keys are wiped 540 s after the last new ones", () => {
  const rig = new Rig();
  rig.timers.sessionDerived(SESSION_NUMBER, rig.nowMs);
  rig.runTo(120_000);
  rig.timers.sessionDerived(SESSION_NUMBER, rig.nowMs);
  rig.runTo(700_000);
  rig.expect([660_000, "zero"]);
});

Deno.test("stopping cancels every timer, those that workers armed too", () => {
  const rig = new Rig();
  rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
  rig.timers.sessionDerived(SESSION_NUMBER, rig.nowMs);
  rig.setInterval(5);
  rig.dataSent();
  rig.dataReceived();
  assert(rig.timers.pending(SESSION_NUMBER));
  rig.timers.stop(SESSION_NUMBER);
  assert(!rig.timers.pending(SESSION_NUMBER));
  assertEquals(rig.timers.count, 0);
  assertEquals(rig.arena.i32[rig.peerWord + PEER.WATCHES], 0);
  rig.runTo(600_000);
  rig.expect();
});

Deno.test("timers that a worker armed after a stop run again", () => {
  const rig = new Rig();
  rig.dataSent();
  rig.dataReceived();
  rig.timers.stop(SESSION_NUMBER);
  rig.dataReceived();
  rig.sends = false;
  rig.dataSent();
  rig.runTo(16_000);
  // What was sent saved the keepalive.
  rig.expect([15_000, "initiation"]);
});

Deno.test("a repetition and a new handshake forget the sticky source", () => {
  for (const arm of ["retransmit", "newHandshake"] as const) {
    const rig = new Rig();
    const word = rig.peerWord + PEER.ENDPOINT;
    rig.arena.i32.fill(3, word, word + 12);
    if (arm === "retransmit") {
      rig.timers.handshakeInitiated(SESSION_NUMBER, rig.nowMs);
    } else rig.dataSent();
    rig.runTo(15_100);
    assertEquals(
      [...rig.arena.i32.subarray(word, word + 12)],
      [3, 3, 3, 3, 3, 3, 3, 0, 0, 0, 0, 0],
    );
  }
});

Deno.test("timers work past 2^31 and 2^32 ms of boot time", () => {
  for (const base of [2 ** 31 - 8_000, 2 ** 32 - 8_000]) {
    const rig = new Rig();
    rig.sends = false;
    rig.nowMs = base;
    rig.timers.run(base);
    rig.dataReceived();
    rig.nowMs = base + 5_000;
    rig.timers.run(rig.nowMs);
    rig.nowMs = base + 9_999;
    rig.timers.run(rig.nowMs);
    assertEquals(rig.log, []);
    rig.nowMs = base + 10_016;
    rig.timers.run(rig.nowMs);
    assertEquals(rig.log.map(([, what]) => what), ["keepalive"]);
  }
});
