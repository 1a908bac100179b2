/** lib/wheel: against a plain list of deadlines. */
import { assert, assertEquals } from "@std/assert";
import { Arena } from "../lib/arena.ts";
import { SESSION } from "../lib/records.ts";
import { SeededRandom } from "../lib/selftest/random.ts";
import { Wheel } from "../lib/wheel.ts";

const SESSIONS = 50;
const TICK_MS = 16;
const START_MS = 5_000_003;

function newArena(): Arena {
  return new Arena({
    peers: 1,
    allowedIpNodes: 1,
    sessions: SESSIONS,
    txSlots: 1,
  });
}

/** A wheel whose visitor re-sets what is not due yet, as lib/timers does. */
class Model {
  readonly arena = newArena();
  readonly wheel: Wheel;
  /** When each is due: one set in the past is due when it was set. */
  readonly deadlines = new Map<number, number>();
  readonly fired: { session: number; deadlineMs: number }[] = [];
  nowMs: number;
  /** Deadlines to set during the visit of a session. */
  onFire: (session: number) => void = () => {};

  constructor(nowMs = START_MS) {
    this.nowMs = nowMs;
    this.wheel = new Wheel(this.arena, nowMs);
  }

  set(session: number, deadlineMs: number): void {
    if (deadlineMs === 0) this.deadlines.delete(session);
    else this.deadlines.set(session, Math.max(deadlineMs, this.nowMs));
    this.wheel.set(session, deadlineMs);
  }

  advance(nowMs: number): void {
    this.nowMs = nowMs;
    while (this.wheel.advance(nowMs, (session) => this.#visit(session), 7));
    for (const [session, deadlineMs] of this.deadlines) {
      assert(
        deadlineMs + TICK_MS > nowMs,
        `session ${session} is more than one tick late`,
      );
    }
    assertEquals(this.wheel.count, this.deadlines.size);
  }

  #visit(session: number): number {
    const deadlineMs = this.deadlines.get(session);
    assert(deadlineMs !== undefined, "only what was set is visited");
    if (deadlineMs > this.nowMs) {
      this.wheel.set(session, deadlineMs);
      return 1;
    }
    this.deadlines.delete(session);
    this.fired.push({ session, deadlineMs });
    this.onFire(session);
    return 3;
  }

  /** Asserts that sleeping as told misses nothing by more than a tick. */
  checkSleep(limitMs: number): void {
    const sleepMs = this.wheel.sleepMs(this.nowMs, limitMs);
    assert(sleepMs >= 0 && sleepMs <= limitMs);
    for (const deadlineMs of this.deadlines.values()) {
      assert(
        this.nowMs + sleepMs <= Math.max(deadlineMs, this.nowMs) + TICK_MS,
      );
    }
  }
}

Deno.test("random deadlines are visited never early and at most one tick late", () => {
  const random = new SeededRandom(1);
  const model = new Model();
  // Usual timers, the next ticks, exactly one turn of the wheel, and past it.
  const spans = [40, 400, 6_000, 65_536, 70_000, 540_000, 3_000_000];
  let fired = 0;
  for (let step = 0; step < 30_000; step++) {
    const session = 1 + random.below(SESSIONS);
    const what = random.below(10);
    if (what < 6) {
      const span = spans[random.below(spans.length)];
      const late = random.below(20) === 0 ? -random.below(1000) : 0;
      model.set(session, model.nowMs + random.below(span) + late);
    } else if (what === 6) {
      model.set(session, 0);
    } else {
      const jumps = [1, 15, 16, 17, 300, 5_000, 65_535, 65_536, 65_537, 9e6];
      const jump = random.below(30) === 0
        ? jumps[random.below(jumps.length)]
        : random.below(60);
      model.advance(model.nowMs + jump);
      for (const { deadlineMs } of model.fired) {
        assert(deadlineMs <= model.nowMs, "early");
      }
      fired += model.fired.length;
      model.fired.length = 0;
    }
    assertEquals(model.wheel.count, model.deadlines.size);
    if (step % 16 === 0) model.checkSleep(60_000);
  }
  assert(fired > 2_000);
});

Deno.test("deadlines at every offset within a tick fire within the next tick", () => {
  for (let offset = 0; offset <= 2 * TICK_MS; offset++) {
    const model = new Model(START_MS);
    model.set(1, START_MS + offset);
    let at = START_MS;
    while (model.fired.length === 0) model.advance(++at);
    assert(at >= START_MS + offset, "early");
    assert(at <= Math.max(START_MS + offset + TICK_MS, START_MS + 1), "late");
  }
});

Deno.test("a deadline in the past fires at the next tick", () => {
  const model = new Model(START_MS);
  model.set(1, START_MS - 100_000);
  model.advance(START_MS + TICK_MS);
  assertEquals(model.fired.length, 1);
});

Deno.test("a visit may set any session, again or for the first time", () => {
  const model = new Model();
  model.set(1, START_MS + 100);
  model.set(2, START_MS + 100);
  model.onFire = (session) => {
    if (session <= 2) model.set(session + 2, model.nowMs + 100);
  };
  model.advance(START_MS + 120);
  assertEquals(model.fired.map((f) => f.session).sort(), [1, 2]);
  model.advance(START_MS + 240);
  assertEquals(model.fired.map((f) => f.session).sort(), [1, 2, 3, 4]);
  assertEquals(model.wheel.count, 0);
});

Deno.test("a session taken out of the middle of a bucket leaves its neighbours", () => {
  const model = new Model();
  for (let session = 1; session <= 5; session++) {
    model.set(session, START_MS + 1000);
  }
  model.set(3, 0);
  model.set(5, 0);
  model.set(1, 0);
  model.advance(START_MS + 2000);
  assertEquals(model.fired.map((f) => f.session).sort(), [2, 4]);
});

Deno.test("a jump of days fires everything once", () => {
  const model = new Model();
  for (let session = 1; session <= SESSIONS; session++) {
    model.set(session, START_MS + session * 10_000);
  }
  model.advance(START_MS + 3 * 86_400_000);
  assertEquals(model.fired.length, SESSIONS);
});

Deno.test("a record out of the wheel has no bucket and no links", () => {
  const model = new Model();
  model.set(1, START_MS + 50);
  model.set(2, START_MS + 50);
  model.set(1, 0);
  model.advance(START_MS + 100);
  for (const session of [1, 2]) {
    const at = model.arena.session(session);
    for (
      const field of [
        SESSION.WHEEL_BUCKET,
        SESSION.WHEEL_NEXT,
        SESSION.WHEEL_PREV,
      ]
    ) {
      assertEquals(model.arena.i32[at + field], 0);
    }
  }
});

Deno.test("an empty wheel lets control sleep for the whole limit", () => {
  const model = new Model();
  assertEquals(model.wheel.sleepMs(START_MS, 60_000), 60_000);
  model.set(1, START_MS + 30_000);
  const sleepMs = model.wheel.sleepMs(START_MS, 60_000);
  assert(sleepMs >= 30_000 && sleepMs <= 30_000 + TICK_MS);
  assertEquals(model.wheel.sleepMs(START_MS, 10), 10);
  assertEquals(model.wheel.sleepMs(START_MS + 40_000, 60_000), 0);
});

Deno.test("what is due is visited within the budget, the rest at the next call, in order", () => {
  const arena = newArena();
  const wheel = new Wheel(arena, START_MS);
  for (let session = 1; session <= SESSIONS; session++) {
    wheel.set(session, START_MS + 100 + 2 * session);
  }
  const now = START_MS + 1_000;
  const visited: number[] = [];
  const visit = (session: number): number => {
    visited.push(session);
    return 2;
  };
  assert(wheel.advance(now, visit, 20));
  assertEquals([visited.length, wheel.count], [10, SESSIONS - 10]);
  assertEquals(wheel.sleepMs(now, 60_000), 0, "there is more");
  // Taken out, put off and set to the very bucket that is being visited.
  const next = SESSIONS - 1;
  assert(!visited.includes(next));
  wheel.set(next, 0);
  wheel.set(SESSIONS, START_MS + 100 + 2 * SESSIONS + 4096 * TICK_MS);
  while (wheel.advance(now, visit, 20));
  assert(!visited.includes(next), "it was taken out");
  const once = visited.filter((session) => session !== SESSIONS);
  assertEquals(once.length, SESSIONS - 2);
  assertEquals(new Set(once).size, SESSIONS - 2, "each once");
  const ticks = once.map((session) =>
    Math.floor((100 + 2 * session) / TICK_MS)
  );
  for (let i = 1; i < ticks.length; i++) assert(ticks[i] >= ticks[i - 1] - 1);
});
