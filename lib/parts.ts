/**
 * What control is made of: the tables, pools and state machines of one device,
 * each given what it works with. The kernel's `wg_newlink`.
 *
 * @module
 */
import { AllowedIps } from "./allowedips.ts";
import { type Arena, Pool, THREAD_CONTROL } from "./arena.ts";
import { Askers } from "./askers.ts";
import { Cookies } from "./cookie.ts";
import { Counters } from "./counters.ts";
import { Grace } from "./epoch.ts";
import { Handshakes } from "./handshake.ts";
import { Keypairs } from "./keypairs.ts";
import { Noise } from "./noise.ts";
import { Sessions } from "./noise_sessions.ts";
import { Peers } from "./peer.ts";
import { type FillRandom, IndexTable, PublicKeyTable } from "./peerlookup.ts";
import { commandsMailbox, type Mailbox } from "./queueing.ts";
import { RateLimiter } from "./ratelimiter.ts";
import { KEYPAIR, SESSION } from "./records.ts";
import { type TimerActions, Timers } from "./timers.ts";

/** Live objects of a device, by kind: all zero once it is closed. */
export interface ObjectCounts {
  /** Peers configured, and removed ones that workers still know. */
  readonly peers: number;
  /** Keypairs, and dead ones that workers still know. */
  readonly keypairs: number;
  /** Records of active peers. */
  readonly sessions: number;
  /** Peers with a timer pending. */
  readonly timers: number;
  /** Nodes of both tries. */
  readonly allowedIpNodes: number;
  /** Indices of handshakes and keypairs. */
  readonly indices: number;
  /** Records that wait for the workers. */
  readonly retired: number;
}

/** What the parts need of the outside. */
export interface PartsOptions {
  readonly arena: Arena;
  readonly fillRandom: FillRandom;
  /** Wall clock in ms since the epoch. */
  readonly wallMs: () => number;
  /** Time for the timestamp of an initiation, in ms since the epoch. */
  readonly timestampMs: () => number;
  /** Boot time in ms. */
  readonly nowMs: number;
  /** Uniform in [0, 1). */
  readonly random: () => number;
  /** 32 bytes where the private key is kept. */
  readonly privateKeyRoom?: Uint8Array;
  readonly actions: TimerActions;
  /** Called when control has more to do. */
  readonly more: () => void;
}

/** The parts of one device. */
export interface Parts {
  readonly grace: Grace;
  readonly indices: IndexTable;
  readonly publicKeys: PublicKeyTable;
  readonly allowedIps: AllowedIps;
  readonly keypairs: Keypairs;
  readonly sessions: Sessions;
  readonly noise: Noise;
  readonly cookies: Cookies;
  readonly limiter: RateLimiter;
  readonly timers: Timers;
  readonly commands: Mailbox;
  readonly handshakes: Handshakes;
  readonly peers: Peers;
}

/** Makes the parts of a device on an arena that is all zero. */
export function makeParts(options: PartsOptions): Parts {
  const { arena, fillRandom } = options;
  const { layout, limits } = arena;
  const random16 = (): Uint8Array => {
    const bytes = new Uint8Array(16);
    fillRandom(bytes);
    return bytes;
  };
  const grace = new Grace(arena, options.more);
  const indices = new IndexTable(arena, fillRandom);
  const publicKeys = new PublicKeyTable(arena, random16());
  const allowedIps = new AllowedIps(arena, grace);
  const keypairs = new Keypairs({
    arena,
    grace,
    indices,
    pool: new Pool(
      arena,
      layout.keypairs,
      KEYPAIR.WORDS,
      layout.keypairCount,
    ),
  });
  const sessions = new Sessions({
    arena,
    grace,
    indices,
    pool: new Pool(arena, layout.sessions, SESSION.WORDS, limits.sessions),
  });
  const { privateKeyRoom } = options;
  const noise = new Noise({
    arena,
    sessions,
    indices,
    publicKeys,
    keypairs,
    privateKeyRoom,
  });
  const cookies = new Cookies({ arena, indices });
  const limiter = new RateLimiter(arena, random16());
  const askers = new Askers(arena, random16());
  const { actions, random, nowMs } = options;
  const timers = new Timers(arena, actions, random, nowMs);
  const commands = commandsMailbox(arena);
  const handshakes = new Handshakes({
    arena,
    noise,
    sessions,
    cookies,
    limiter,
    askers,
    timers,
    commands,
    counters: new Counters(arena, THREAD_CONTROL),
    wallMs: options.wallMs,
    timestampMs: options.timestampMs,
  });
  const peers = new Peers({
    arena,
    grace,
    publicKeys,
    allowedIps,
    keypairs,
    sessions,
    commands,
  });
  return {
    grace,
    indices,
    publicKeys,
    allowedIps,
    keypairs,
    sessions,
    noise,
    cookies,
    limiter,
    timers,
    commands,
    handshakes,
    peers,
  };
}
