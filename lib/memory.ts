/**
 * `--memory`: how many peers and packets there is room for in so many
 * megabytes, and V8's heap held to its part. What the machine gives beyond the
 * process's own use, page cache and socket buffers, is not counted.
 *
 * @module
 */
import { arenaBytes, type ArenaLimits, DEFAULT_LIMITS } from "./arena.ts";

const MB = 1_000_000;
/**
 * A daemon with one worker at rest: 38 MB of its own, and of the executable's
 * pages what is in use, some 42 MB. Measured; see README.
 */
const BASE_MB = 80;
/** Each worker more. */
const WORKER_MB = 10;
/** What control's heap may grow by, of what is left: at least, and its part. */
const HEAP_MB_MIN = 8;
const HEAP_PART = 1 / 4;
/** The least that is of use: a few batches of packets, and a home's peers. */
const SLOTS_MIN = 192;
const PEERS_MIN = 16;
/** Of what the arena has beyond that, packets get this part. */
const SLOTS_PART = 1 / 2;
const NODES_A_PEER = 8;
const KEYPAIRS_A_PEER = 3;
const HEAP_WATCH_MS = 1_000;

/** What fits. */
export interface MemoryPlan {
  readonly limits: Required<ArenaLimits>;
  /** What V8's heap may grow by. */
  readonly heapMb: number;
}

/** So little is of no use. */
export class MemoryError extends Error {
  override readonly name = "MemoryError";

  /** @param neededMb the least that is */
  constructor(givenMb: number, readonly neededMb: number) {
    super(`--memory ${givenMb} is too little: wgd needs ${neededMb} MB here`);
  }
}

function limitsFor(peers: number, txSlots: number): Required<ArenaLimits> {
  return {
    peers: Math.min(peers, DEFAULT_LIMITS.peers),
    allowedIpNodes: Math.min(
      NODES_A_PEER * peers,
      DEFAULT_LIMITS.allowedIpNodes,
    ),
    sessions: Math.min(peers, DEFAULT_LIMITS.sessions),
    keypairs: Math.min(KEYPAIRS_A_PEER * peers, DEFAULT_LIMITS.keypairs),
    txSlots: Math.min(txSlots, DEFAULT_LIMITS.txSlots),
  };
}

/** The greatest number from `min` to `max` for which `fits` holds. */
function greatest(
  min: number,
  max: number,
  fits: (n: number) => boolean,
): number {
  let low = min;
  let high = max;
  while (low < high) {
    const middle = Math.ceil((low + high) / 2);
    if (fits(middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

/** What the heap may grow by, and what is left for the arena. */
function share(
  mb: number,
  workers: number,
): { heapMb: number; bytes: number } {
  const restMb = mb - BASE_MB - WORKER_MB * Math.max(0, workers - 1);
  const heapMb = Math.max(HEAP_MB_MIN, Math.floor(restMb * HEAP_PART));
  return { heapMb, bytes: (restMb - heapMb) * MB };
}

/**
 * Divides `mb` megabytes, as if all of it were in use one day.
 *
 * @param workers data workers and lanes
 * @throws MemoryError
 */
export function planMemory(mb: number, workers: number): MemoryPlan {
  const least = arenaBytes(limitsFor(PEERS_MIN, SLOTS_MIN));
  const { heapMb, bytes } = share(mb, workers);
  if (bytes < least) {
    let neededMb = mb + 1;
    while (share(neededMb, workers).bytes < least) neededMb++;
    throw new MemoryError(mb, neededMb);
  }
  const forSlots = least + (bytes - least) * SLOTS_PART;
  const txSlots = greatest(
    SLOTS_MIN,
    DEFAULT_LIMITS.txSlots,
    (n) => arenaBytes(limitsFor(PEERS_MIN, n)) <= forSlots,
  );
  const peers = greatest(
    PEERS_MIN,
    DEFAULT_LIMITS.peers,
    (n) => arenaBytes(limitsFor(n, txSlots)) <= bytes,
  );
  return { limits: limitsFor(peers, txSlots), heapMb };
}

/**
 * Holds this thread's heap to what it is now and `heapMb` more, by collecting
 * when it has grown by that: V8's own limit cannot be set once it runs, and an
 * executable takes no flags. Packets are not on this thread.
 *
 * @returns ends it
 */
export function watchHeap(heapMb: number): () => void {
  const { gc } = globalThis as { gc?: () => void };
  if (gc === undefined) return () => {};
  const limit = Deno.memoryUsage().heapTotal + heapMb * MB / 2;
  const timer = setInterval(() => {
    const { heapTotal, external } = Deno.memoryUsage();
    if (heapTotal + external > limit) gc();
  }, HEAP_WATCH_MS);
  return () => clearInterval(timer);
}
