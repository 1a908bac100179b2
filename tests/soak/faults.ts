/**
 * What happens to the devices of a soak, each with how it comes to an end: after
 * a while, or when faults cease.
 *
 * @module
 */
import type { Side, World } from "./world.ts";

const SECOND = 1_000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;

/** Begins a fault; what it returns ends it, in `undoMs`. */
interface Fault {
  readonly weight: number;
  begin(world: World): { undoMs: number; undo: () => void } | undefined;
}

/** Two devices, in either order. */
function pair(world: World): [Side, Side] {
  const one = world.any(world.sides);
  return [one, world.any(world.sides.filter((side) => side !== one))];
}

/** A device that runs, or undefined. */
function running(world: World): Side | undefined {
  const side = world.any(world.sides);
  return side.suspended ? undefined : side;
}

/** Ends a sleep. */
function wake(world: World, side: Side): void {
  if (!side.suspended) return;
  side.suspended = false;
  world.network.devices.set(side.device.address, side.device);
  side.device.control.suspended();
}

/** Makes every peer of `side` anew, as an operator does after a change of its key. */
function makeAnew(world: World, other: Side, side: Side): void {
  if (!other.links[side.index].present) return;
  world.removePeer(other, side);
  world.addPeer(other, side);
}

function setPresharedKey(side: Side, other: Side, key: Uint8Array): void {
  side.links[other.index].presharedKey = key;
  const peer = side.peers[other.index];
  if (peer !== 0) side.device.control.setPresharedKey(peer, key);
}

const FAULTS: Readonly<Record<string, Fault>> = {
  "device restarted": {
    weight: 3,
    begin: (world) => {
      const side = running(world);
      if (side !== undefined) world.restart(side, false);
      return undefined;
    },
  },
  "device crashed": {
    weight: 3,
    begin: (world) => {
      const side = running(world);
      if (side !== undefined) world.restart(side, true);
      return undefined;
    },
  },
  "address changed": {
    weight: 5,
    begin: (world) => {
      const side = running(world);
      side?.device.move(world.newAddress(side.index));
      return undefined;
    },
  },
  "port changed": {
    weight: 3,
    begin: (world) => {
      const side = running(world);
      if (side === undefined) return undefined;
      side.device.move(world.newPort(side.index));
      side.device.control.clearSources();
      return undefined;
    },
  },
  "endpoint set wrong": {
    weight: 2,
    begin: (world) => {
      const [side, other] = pair(world);
      const peer = side.peers[other.index];
      if (peer === 0) return undefined;
      side.device.control.setEndpoint(
        peer,
        Uint8Array.of(198, 51, 100, 1),
        9,
        0,
      );
      return { undoMs: 2 * MINUTE, undo: () => world.tell(side, other) };
    },
  },
  "private key changed": {
    weight: 3,
    begin: (world) => {
      const side = world.any(world.sides);
      side.privateKey = world.bytes(32);
      side.device.control.setPrivateKey(side.privateKey);
      return {
        undoMs: 30 * SECOND,
        undo: () => {
          for (const other of world.sides) makeAnew(world, other, side);
        },
      };
    },
  },
  "preshared key changed": {
    weight: 3,
    begin: (world) => {
      const [side, other] = pair(world);
      const key = world.chance(0.2) ? new Uint8Array(32) : world.bytes(32);
      setPresharedKey(side, other, key);
      return {
        undoMs: MINUTE,
        // Another change may have come between.
        undo: () =>
          setPresharedKey(other, side, side.links[other.index].presharedKey),
      };
    },
  },
  "peer removed": {
    weight: 3,
    begin: (world) => {
      const [side, other] = pair(world);
      if (!side.links[other.index].present) return undefined;
      const both = world.chance(0.5);
      world.removePeer(side, other);
      if (both) world.removePeer(other, side);
      return {
        undoMs: 2 * MINUTE,
        undo: () => {
          for (const [at, of] of [[side, other], [other, side]]) {
            if (!at.links[of.index].present) world.addPeer(at, of);
          }
        },
      };
    },
  },
  "link down": {
    weight: 3,
    begin: (world) => {
      const side = world.any(world.sides);
      side.up = false;
      side.device.control.down();
      return {
        undoMs: 5 * MINUTE,
        undo: () => {
          side.up = true;
          side.device.control.up();
        },
      };
    },
  },
  "machine suspended": {
    weight: 2,
    begin: (world) => {
      const side = running(world);
      if (side === undefined) return undefined;
      side.suspended = true;
      world.network.devices.delete(side.device.address);
      return {
        undoMs: world.between(10 * SECOND, HOUR),
        undo: () => wake(world, side),
      };
    },
  },
  "wall clock set back": {
    weight: 2,
    begin: (world) => {
      const side = world.any(world.sides);
      side.device.wallSkewMs -= world.between(SECOND, 240 * HOUR);
      return undefined;
    },
  },
  "wall clock set forward": {
    weight: 1,
    begin: (world) => {
      const side = world.any(world.sides);
      side.device.wallSkewMs += world.between(SECOND, 24 * HOUR);
      return undefined;
    },
  },
  "path broken": {
    weight: 5,
    begin: (world) => {
      const [side, other] = pair(world);
      const ways = [side.index << 4 | other.index];
      if (world.chance(0.5)) ways.push(other.index << 4 | side.index);
      for (const way of ways) world.blocked.add(way);
      return {
        undoMs: 6 * MINUTE,
        undo: () => {
          for (const way of ways) world.blocked.delete(way);
        },
      };
    },
  },
  "persistent keepalive": {
    weight: 1,
    begin: (world) => {
      const [side, other] = pair(world);
      const set = (seconds: number): void => {
        side.links[other.index].keepaliveSeconds = seconds;
        const peer = side.peers[other.index];
        if (peer === 0) return;
        side.device.control.setPersistentKeepalive(peer, seconds);
      };
      set(world.between(1, 120));
      return { undoMs: 10 * MINUTE, undo: () => set(0) };
    },
  },
  "sending fails": {
    weight: 2,
    begin: (world) => {
      const side = world.any(world.sides);
      // ENETUNREACH, ENOBUFS, EPERM
      side.device.sendError = world.any([101, 105, 1]);
      return {
        undoMs: MINUTE,
        undo: () => {
          side.device.sendError = 0;
        },
      };
    },
  },
  "interface refuses packets": {
    weight: 1,
    begin: (world) => {
      const side = world.any(world.sides);
      side.device.writeError = 5;
      return {
        undoMs: MINUTE,
        undo: () => {
          side.device.writeError = 0;
        },
      };
    },
  },
  "flood of handshakes": {
    weight: 1,
    begin: (world) => {
      world.flood();
      return undefined;
    },
  },
};

const KINDS = Object.keys(FAULTS);
const WEIGHTS = KINDS.reduce((sum, kind) => sum + FAULTS[kind].weight, 0);

/** The faults of one burst. */
export class Faults {
  readonly #world: World;
  readonly #open = new Set<() => void>();

  constructor(world: World) {
    this.#world = world;
  }

  /** Begins one of them; it ends by itself, later or sooner than it might. */
  begin(): void {
    const world = this.#world;
    let at = world.random.below(WEIGHTS);
    const kind = KINDS.find((name) => (at -= FAULTS[name].weight) < 0);
    if (kind === undefined) throw new Error("weights do not sum up");
    world.note(kind);
    const ending = FAULTS[kind].begin(world);
    if (ending === undefined) return;
    const { undoMs, undo } = ending;
    const end = (): void => {
      if (!this.#open.delete(end)) return;
      world.note(`(end) ${kind}`);
      undo();
    };
    this.#open.add(end);
    world.after(world.between(10, undoMs), end);
  }

  /** Ends all of them now. */
  cease(): void {
    for (const end of [...this.#open]) end();
    this.#world.clean();
  }
}
