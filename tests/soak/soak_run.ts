/**
 * A soak: bursts of traffic with faults, each followed by a moment without any,
 * in which traffic must pass again within the timers' bounds, and by a silence
 * of minutes to weeks.
 *
 * @module
 */
import {
  KEEPALIVE_TIMEOUT_MS,
  NEW_HANDSHAKE_TIMEOUT_MS,
  REJECT_AFTER_TIME_MS,
  REKEY_TIMEOUT_JITTER_MS,
  REKEY_TIMEOUT_MS,
  ZERO_KEY_MATERIAL_MS,
} from "../../lib/messages.ts";
import { Faults } from "./faults.ts";
import { Violation } from "./watch.ts";
import { LATE_MAX_MS, type Sabotage, World } from "./world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

const BURST_MIN_MS = 20 * SECOND;
const BURST_MAX_MS = 15 * MINUTE;
/** Packets of a flow in one burst, but for those that come all at once. */
const FLOW_PACKETS_MAX = 300;
/** Packets that come all at once: more than may wait for a key. */
const AT_ONCE_MAX = 200;
/** Silences after which keys and timers must be gone, keepalives aside. */
const SILENCE_MS = ZERO_KEY_MATERIAL_MS + 3 * MINUTE;
/** One burst of so many has more packets in a session than the replay window. */
const LONG_ONE_IN = 60;
const LONG_PACKETS = 9_000;
const LONG_PIECE = 100;
const PROBE_MS = SECOND;
/**
 * Whoever sends and hears nothing starts a handshake after 15 s, when the last
 * one was, in the worst case, tried 5 s before; then the packets that waited go.
 */
const RECOVERY_MAX_MS = PROBE_MS + NEW_HANDSHAKE_TIMEOUT_MS + REKEY_TIMEOUT_MS +
  2 * REKEY_TIMEOUT_JITTER_MS + SECOND;

/** What a soak was. */
export interface Figures {
  readonly seed: number;
  readonly days: number;
  readonly packets: number;
  readonly delivered: number;
  readonly keys: number;
  readonly steps: number;
  readonly bursts: number;
  readonly recoveryMaxMs: number;
  readonly recoveryMeanMs: number;
  /** What was done and sent, by kind. */
  readonly counts: Readonly<Record<string, number>>;
  /** Of all that was sent. */
  readonly digest: number;
}

/** A finding, with what leads to it again. */
export class SoakError extends Error {
  override readonly name = "SoakError";

  constructor(seed: number, world: World, cause: unknown) {
    const day = (world.elapsedMs / DAY).toFixed(6);
    const days = Math.ceil(world.elapsedMs / DAY);
    super(
      `${cause instanceof Violation ? cause.message : cause}\n` +
        `on day ${day} of the soak with seed ${seed}; again by:\n` +
        `  deno task soak --days ${days} --seed ${seed}\n` +
        `what was done last:\n  ${world.trace.join("\n  ")}`,
      { cause },
    );
  }
}

/** Runs a soak. */
export class Soak {
  readonly world: World;
  readonly #seed: number;
  #bursts = 0;
  #recoveries = 0;
  #recoveryMs = 0;
  #recoveryMaxMs = 0;

  constructor(seed: number, sabotage?: Sabotage) {
    this.#seed = seed;
    this.world = new World(seed, sabotage);
  }

  /**
   * Runs for `days` of the world's time, or until `goesOn` says no.
   *
   * @throws SoakError
   */
  run(days: number, goesOn: () => boolean = () => true): Figures {
    const { world } = this;
    try {
      while (world.elapsedMs < days * DAY && goesOn()) {
        this.#burst();
        this.#idle();
      }
      world.close();
    } catch (error) {
      throw new SoakError(this.#seed, world, error);
    }
    return this.figures();
  }

  /** What there was so far. */
  figures(): Figures {
    const { world } = this;
    return {
      seed: this.#seed,
      days: world.elapsedMs / DAY,
      packets: world.watch.packets,
      delivered: world.watch.delivered,
      keys: world.watch.keys,
      steps: world.steps,
      bursts: this.#bursts,
      recoveryMaxMs: this.#recoveryMaxMs,
      recoveryMeanMs: this.#recoveryMs / Math.max(1, this.#recoveries),
      counts: world.counts,
      digest: world.digest,
    };
  }

  // ---- a burst ------------------------------------------------------------

  #burst(): void {
    const { world } = this;
    this.#bursts++;
    if (world.random.below(LONG_ONE_IN) === 0) this.#longSession();
    const ms = world.between(BURST_MIN_MS, BURST_MAX_MS);
    const endMs = world.nowMs + ms;
    this.#setWire();
    for (const { index: from } of world.sides) {
      for (const { index: to } of world.sides) {
        if (from !== to && world.chance(0.7)) this.#flow(from, to, endMs, ms);
      }
    }
    const faults = new Faults(world);
    for (let n = world.random.below(9); n > 0; n--) {
      world.after(world.random.below(ms), () => faults.begin());
    }
    for (let n = world.random.below(40); n > 0; n--) {
      world.after(world.random.below(ms), () => world.replay());
    }
    world.advance(ms);
    faults.cease();
    world.onArrival = () => {};
    // What is still on its way may come from where somebody was before.
    world.advance(LATE_MAX_MS);
    this.#recover();
  }

  /** A wire of this burst's own: good, bad in one way, or bad in all. */
  #setWire(): void {
    const { world } = this;
    const { wire } = world;
    wire.latencyMs = world.random.below(80);
    if (world.chance(0.3)) return;
    const often = (): number => world.chance(0.5) ? world.between(1, 300) : 0;
    wire.loss = often() / 1000;
    wire.duplicate = often() / 1000;
    wire.reorder = often() / 1000;
    wire.corrupt = often() / 3000;
  }

  /** Packets from one to another, as some application sends them. */
  #flow(from: number, to: number, endMs: number, ms: number): void {
    const { world } = this;
    const intervalMs = Math.max(
      ms / FLOW_PACKETS_MAX,
      world.between(50, 30 * SECOND),
    );
    const other = 3 - from - to;
    const kind = world.random.below(4);
    const next = (): void => {
      if (world.nowMs > endMs) return;
      const atOnce = kind === 0 && world.chance(0.03)
        ? world.random.below(AT_ONCE_MAX)
        : 1;
      for (let n = atOnce; n > 0; n--) world.send(from, to);
      if (world.chance(0.01)) world.send(from, to, other);
      world.after(intervalMs * 2 * world.random.word() / 2 ** 32, next);
    };
    world.after(world.random.below(ms), next);
    // Some are asked and answer.
    if (kind !== 1) return;
    const before = world.onArrival;
    world.onArrival = (source, target, number) => {
      before(source, target, number);
      if (source !== from || target !== to || !world.chance(0.5)) return;
      world.after(1 + world.random.below(100), () => world.send(to, from));
    };
  }

  /** A session with more packets than the replay window, one of them too late. */
  #longSession(): void {
    const { world } = this;
    const { network, watch } = world;
    const [from, to] = world.chance(0.5) ? [0, 1] : [2, 0];
    const carry = network.wire;
    // With a new key: one that ends on the way lets packets wait, and drops them.
    world.advance(REJECT_AFTER_TIME_MS);
    world.send(from, to);
    world.advance(SECOND);
    const held = world.send(from, to);
    const late: Parameters<typeof carry>[0][] = [];
    network.wire = (datagram) => {
      if (datagram.bytes[0] !== 4) return carry(datagram);
      late.push(datagram);
      return [];
    };
    world.settle();
    network.wire = carry;
    const before = watch.delivered;
    for (let n = 0; n < LONG_PACKETS; n += LONG_PIECE) {
      for (let i = 0; i < LONG_PIECE; i++) world.send(from, to);
      world.advance(5);
    }
    world.advance(SECOND);
    const delivered = watch.delivered - before;
    if (delivered < LONG_PACKETS) {
      throw new Violation(`${LONG_PACKETS - delivered} packets were lost`);
    }
    world.note("replay window passed");
    watch.forbid(watch.numberOf(held));
    for (const datagram of late) network.inject(datagram);
    world.settle();
  }

  // ---- after it -----------------------------------------------------------

  /** Without faults all reach all, within the bound. */
  #recover(): void {
    const { world } = this;
    const { sides } = world;
    const open = new Set<number>();
    for (const side of sides) {
      for (const other of sides) {
        if (side === other) continue;
        open.add(side.index << 4 | other.index);
        // Somebody must know where the other is: nobody else can tell them.
        if (!world.knows(side, other) && !world.knows(other, side)) {
          world.note("endpoint told", `${side.name} ${other.name}`);
          world.tell(side, other);
        }
      }
    }
    const first = world.watch.packets;
    const startMs = world.nowMs;
    world.onArrival = (from, to, number) => {
      if (number <= first || !open.delete(from << 4 | to)) return;
      const ms = world.nowMs - startMs;
      this.#recoveries++;
      this.#recoveryMs += ms;
      this.#recoveryMaxMs = Math.max(this.#recoveryMaxMs, ms);
    };
    while (open.size > 0) {
      if (world.nowMs - startMs > RECOVERY_MAX_MS) {
        const ways = [...open].map((way) =>
          `${sides[way >> 4].name} to ${sides[way & 15].name}`
        );
        throw new Violation(
          `nothing passes from ${ways.join(", ")} ` +
            `${RECOVERY_MAX_MS / SECOND} s after the last fault`,
        );
      }
      for (const way of open) world.send(way >> 4, way & 15);
      world.advance(PROBE_MS);
    }
    world.onArrival = () => {};
  }

  /** Nobody has anything to say, for minutes or for weeks. */
  #idle(): void {
    const { world } = this;
    const kind = world.random.word() / 2 ** 32;
    const ms = kind < 0.2
      ? world.between(KEEPALIVE_TIMEOUT_MS, 10 * MINUTE)
      : kind < 0.9
      ? world.between(10 * MINUTE, 10 * HOUR)
      : kind < 0.995
      ? world.between(6 * HOUR, 2 * DAY)
      : world.between(2 * DAY, 60 * DAY);
    world.advance(ms);
    if (ms < SILENCE_MS) return;
    for (const side of world.sides) world.watch.idle(side);
  }
}
