/** lib/pulse: threads that hang are found, others are left alone. */
import { assert, assertEquals } from "@std/assert";
import { Arena, HEADER } from "../lib/arena.ts";
import { laneChainWord } from "../lib/crypt.ts";
import { AEAD_COUNTER_LO } from "../lib/crypto/aead.ts";
import { laneTurn } from "../lib/lane.ts";
import { Loop, turnsOf } from "../lib/loop.ts";
import { chooseAead } from "../lib/aead_choice.ts";
import { Pulse, PULSE_LOOK_MS, type ThreadState } from "../lib/pulse.ts";
import { CHAIN } from "../lib/records.ts";
import { closeDescriptor, opened } from "../lib/sys/descriptors.ts";
import { libc, signalEvent } from "../lib/sys/libc.ts";
import { ownThread, threadState } from "../lib/sys/thread.ts";

// Opened for good, and so by none of the tests.
libc();

const FOUND_MS = 1_000;
const LIMITS = { peers: 16, allowedIpNodes: 64, sessions: 16, txSlots: 130 };

/** A thread, and the time of whoever looks at it. */
class Rig {
  turn: number | undefined = 1;
  letter = "S";
  cpuMs = 0;
  tells = true;
  nowMs = 5_000;
  readonly pulse = new Pulse([{
    name: "worker",
    turn: () => this.turn,
    state: (): ThreadState | undefined =>
      this.tells ? { letter: this.letter, cpuMs: this.cpuMs } : undefined,
  }]);

  /** When it is found to be stuck; undefined: not within ten seconds. */
  found(
    between: () => void = () => {},
    everyMs = PULSE_LOOK_MS,
  ): number | undefined {
    const startMs = this.nowMs;
    while (this.nowMs < startMs + 10_000) {
      if (this.pulse.look(this.nowMs) === "worker") return this.nowMs - startMs;
      this.nowMs += everyMs;
      between();
    }
    return undefined;
  }
}

Deno.test("a thread that waits in a system call without an end is found within a second", () => {
  const rig = new Rig();
  // It may hang right after a look that saw its last turn.
  rig.found(() => rig.turn = 1 + rig.nowMs);
  const ms = rig.found();
  assert(ms !== undefined && ms + PULSE_LOOK_MS <= FOUND_MS, `${ms}`);
});

Deno.test("a thread that computes without an end is found within a second", () => {
  const rig = new Rig();
  rig.letter = "R";
  const ms = rig.found(() => rig.cpuMs += PULSE_LOOK_MS);
  assert(ms !== undefined && ms + PULSE_LOOK_MS <= FOUND_MS, `${ms}`);
});

Deno.test("a thread that hangs is found where the system tells nothing, too", () => {
  const rig = new Rig();
  rig.tells = false;
  assert(rig.found() !== undefined);
});

Deno.test("threads that take turns or wait for work are left alone", () => {
  const rig = new Rig();
  rig.letter = "R";
  assertEquals(rig.found(() => rig.turn = 1 + rig.nowMs), undefined);
  rig.turn = undefined;
  assertEquals(rig.found(), undefined);
});

Deno.test("a thread that the machine holds up is left alone", () => {
  const disk = new Rig();
  disk.letter = "D";
  assertEquals(disk.found(), undefined);
  const starved = new Rig();
  starved.letter = "R";
  assertEquals(starved.found(() => starved.cpuMs += 20), undefined);
});

Deno.test("looks that come late count for nothing: everything stood still", () => {
  assertEquals(new Rig().found(() => {}, 5 * PULSE_LOOK_MS), undefined);
  const rig = new Rig();
  let looks = 0;
  // Now and then it is the one who looks that was held up.
  const late = (): void => void (++looks % 3 === 0 && (rig.nowMs += 3_000));
  assertEquals(rig.found(late), undefined);
});

Deno.test("a lane's turn is another for each chain, and none without one", () => {
  const arena = new Arena(LIMITS);
  assertEquals(laneTurn(arena, 2), undefined);
  const chain = 7;
  arena.i32[laneChainWord(2)] = chain;
  const first = laneTurn(arena, 2);
  assert(first !== undefined);
  assertEquals(laneTurn(arena, 2), first);
  arena.u32[arena.chain(chain) + CHAIN.DESCRIPTORS + AEAD_COUNTER_LO] = 64;
  const second = laneTurn(arena, 2);
  assert(second !== first);
  arena.i32[laneChainWord(2)] = chain + 1;
  assert(laneTurn(arena, 2) !== second);
});

Deno.test("a loop's turns go on while it is awake, and are none while it waits", async () => {
  const arena = new Arena(LIMITS);
  const { i32 } = arena;
  i32.fill(-1, HEADER.SOCKET_FD, HEADER.SOCKET_FD + HEADER.SOCKET_FD_COUNT);
  i32[HEADER.RUNNING] = 1;
  const eventFd = opened(libc().eventfd(0, 0x800), "eventfd");
  const loop = new Loop({
    limits: LIMITS,
    memory: arena.memory,
    role: "both",
    tun: { fds: [-1], offloads: undefined },
    eventFd,
    linkFd: -1,
    routesFd: -1,
    crypto: chooseAead("wasm"),
    segments: false,
    lanes: 0,
  });
  const ended = loop.runAsync();
  const asleep = async (): Promise<void> => {
    while (turnsOf(arena, "both") !== undefined) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
  };
  await asleep();
  const before = i32[HEADER.OUTBOUND_TURNS];
  assert(before > 0);
  Atomics.store(i32, HEADER.OUTBOUND_SLEEPS, 0);
  assertEquals(turnsOf(arena, "both"), before);
  signalEvent(eventFd);
  await asleep();
  assert(i32[HEADER.OUTBOUND_TURNS] > before);
  i32[HEADER.RUNNING] = 0;
  signalEvent(eventFd);
  await ended;
  closeDescriptor(eventFd);
});

Deno.test("the system tells of a thread what it does and did", () => {
  const thread = ownThread();
  const before = threadState(thread);
  assertEquals(before?.letter, "R");
  const endMs = performance.now() + 100;
  while (performance.now() < endMs);
  assert((threadState(thread)?.cpuMs ?? 0) > (before?.cpuMs ?? 0));
  assertEquals(threadState(undefined), undefined);
  assertEquals(threadState("1/task/999999999"), undefined);
});
