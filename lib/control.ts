/**
 * Control: every decision about a device that is no packet's own. Configuration,
 * handshakes, key slots, timers, and what the data workers tell; it alone writes
 * those records. Pure: time, randomness and wake-ups are passed in, so that two
 * devices can shake hands in memory under a virtual clock.
 *
 * @module
 */
import type { AllowedIps } from "./allowedips.ts";
import { type Arena, HEADER } from "./arena.ts";
import { constantTimeEqual } from "./crypto/bytes.ts";
import { publicKey } from "./crypto/x25519.ts";
import { clearSource, fillEndpoint, writeEndpoint } from "./endpoint.ts";
import type { FloodLevels } from "./handshake.ts";
import { makeParts, type ObjectCounts, type Parts } from "./parts.ts";
import type { Peers } from "./peer.ts";
import { PeerChanges } from "./peer_changes.ts";
import { PeerFields } from "./peer_fields.ts";
import type { FillRandom } from "./peerlookup.ts";
import {
  COMMAND_DROP_STAGED,
  COMMAND_FLUSH,
  COMMAND_KEEPALIVE,
  EVENT_ARMED,
  EVENT_HANDSHAKE_WANTED,
  EVENT_KEY_CONFIRMED,
  EVENT_REMOVED,
  inboundEvents,
  type Mailbox,
  outboundEvents,
  type Waker,
} from "./queueing.ts";
import { KEYPAIR, PEER } from "./records.ts";
import { type TimestampFloor, Timestamps } from "./tai64n.ts";

/** Initiations that outbound asks for before others have their turn: about 2 ms. */
const INITIATIONS_AT_ONCE = 4;
const LIMITER_COLLECT_MS = 1000;
/** How soon control looks again whether the workers let go of retired records. */
const GRACE_POLL_MS = 10;
/** Longest sleep when no timer is pending. */
const IDLE_MS = 60_000;

/** What {@link Control} works with. */
export interface ControlOptions {
  readonly arena: Arena;
  /** Fills with random bytes of the system: `crypto.getRandomValues`. */
  readonly fillRandom: FillRandom;
  /** Wall clock in ms since the epoch. */
  readonly wallMs: () => number;
  /** Boot time in ms. */
  readonly nowMs: () => number;
  readonly outbound: Waker;
  /** 32 bytes where the private key is kept; else somewhere on the heap. */
  readonly privateKeyRoom?: Uint8Array;
  /** Where timestamps go on from. */
  readonly timestamps?: TimestampFloor;
  /** Called when something was begun that `pump` goes on with. */
  readonly more: () => void;
}

/** The control side of one device. */
export class Control extends PeerFields {
  readonly #arena: Arena;
  readonly #o: ControlOptions;
  readonly #p: Parts;
  readonly #outboundEvents: Mailbox;
  readonly #inboundEvents: Mailbox;
  readonly #changes: PeerChanges;
  #limiterCollectedMs = 0;
  #collecting = false;
  #flood = false;
  #closed = false;

  constructor(options: ControlOptions) {
    const { arena, fillRandom } = options;
    super(arena);
    this.#o = options;
    this.#arena = arena;
    this.#outboundEvents = outboundEvents(arena);
    this.#inboundEvents = inboundEvents(arena);
    const timestamps = new Timestamps(options.timestamps?.floorMs);
    const jitter = new Uint32Array(1);
    this.#p = makeParts({
      arena,
      fillRandom,
      wallMs: options.wallMs,
      privateKeyRoom: options.privateKeyRoom,
      timestampMs: () => {
        const ms = timestamps.at(options.wallMs(), options.nowMs());
        options.timestamps?.used(ms);
        return ms;
      },
      nowMs: options.nowMs(),
      more: options.more,
      random: () => {
        fillRandom(new Uint8Array(jitter.buffer));
        return jitter[0] / 2 ** 32;
      },
      actions: {
        sendInitiation: (peer, retry) => this.#sendInitiation(peer, retry),
        sendKeepalive: (peer) => this.#command(peer, COMMAND_KEEPALIVE),
        giveUp: (peer) => {
          this.#p.handshakes.answerAsked(peer);
          this.#command(peer, COMMAND_DROP_STAGED);
        },
        zeroKeyMaterial: (peer) => this.#zeroKeyMaterial(peer),
      },
    });
    const { peers, allowedIps, timers } = this.#p;
    const wake = (): void => options.outbound.wake();
    const { more } = options;
    this.#changes = new PeerChanges(
      { arena, peers, allowedIps, timers, wake, more },
    );
  }

  /** The peers. */
  get peers(): Peers {
    return this.#p.peers;
  }

  /** How much of a flood of handshake messages the sockets shall drop. */
  get floodLevels(): FloodLevels {
    return this.#p.handshakes.floodLevels;
  }

  /** The allowed IPs of all peers. */
  get allowedIps(): AllowedIps {
    return this.#p.allowedIps;
  }

  // ---- the loop -----------------------------------------------------------

  /**
   * Does what there is to do, a few milliseconds' worth at most.
   *
   * @returns whether anything was done, so that there may be more
   */
  pump(): boolean {
    const nowMs = this.#o.nowMs();
    let worked = this.#p.timers.run(nowMs);
    worked = this.#drainInbound(nowMs) || worked;
    worked = this.#drainOutbound(nowMs) || worked;
    worked = this.#changes.run() || worked;
    // A datagram read as the interface went down must not bring keys back.
    if (!this.#up) this.#p.handshakes.drain();
    worked = this.#p.handshakes.consume(nowMs) || worked;
    this.#flood = this.#p.handshakes.watchFlood(nowMs);
    this.#p.grace.collect();
    this.#collectLimiter(nowMs);
    this.#o.outbound.wake();
    return worked || this.#p.grace.ready;
  }

  /** Whether handshake messages come so fast that the next turn should wait. */
  get flooded(): boolean {
    return this.#p.handshakes.flooded;
  }

  /** Milliseconds that control may sleep if nobody wakes it. */
  sleepMs(): number {
    const limitMs = this.#p.grace.waiting > 0 || this.#collecting
      ? GRACE_POLL_MS
      : this.#flood || this.#p.limiter.entries > 0
      ? LIMITER_COLLECT_MS
      : IDLE_MS;
    return this.#p.timers.sleepMs(this.#o.nowMs(), limitMs);
  }

  #drainInbound(nowMs: number): boolean {
    let worked = false;
    for (let peer; (peer = this.#inboundEvents.next()) !== 0;) {
      worked = true;
      const bits = this.#inboundEvents.take(peer);
      if (!this.peers.alive(peer)) continue;
      if ((bits & EVENT_KEY_CONFIRMED) !== 0) this.#keyConfirmed(peer);
      if ((bits & EVENT_ARMED) !== 0) this.#armed(peer, nowMs);
      if ((bits & EVENT_HANDSHAKE_WANTED) !== 0) {
        this.#handshakeWanted(peer, nowMs);
      }
    }
    return worked;
  }

  #drainOutbound(nowMs: number): boolean {
    let worked = false;
    for (let asked = 0; asked < INITIATIONS_AT_ONCE;) {
      const peer = this.#outboundEvents.next();
      if (peer === 0) break;
      worked = true;
      const bits = this.#outboundEvents.take(peer);
      if ((bits & EVENT_REMOVED) !== 0) this.peers.removed(peer);
      if (!this.peers.alive(peer)) continue;
      if ((bits & EVENT_ARMED) !== 0) this.#armed(peer, nowMs);
      if ((bits & EVENT_HANDSHAKE_WANTED) !== 0) {
        // The key may have been confirmed by the packet that this one answers.
        this.#drainInbound(nowMs);
        this.#handshakeWanted(peer, nowMs);
        asked++;
      }
    }
    return worked;
  }

  #collectLimiter(nowMs: number): void {
    if (
      !this.#collecting && nowMs - this.#limiterCollectedMs < LIMITER_COLLECT_MS
    ) return;
    this.#limiterCollectedMs = nowMs;
    this.#collecting = this.#p.limiter.collect(nowMs);
  }

  #armed(peer: number, nowMs: number): void {
    if (!this.#up) return;
    const session = this.#p.sessions.sessionOf(peer, true);
    if (session !== 0) this.#p.timers.armed(session, nowMs);
  }

  #keyConfirmed(peer: number): void {
    const { i32 } = this.#arena;
    const slots = this.#arena.peer(peer);
    const next = i32[slots + PEER.NEXT];
    // If it is not `next` any more, a handshake since then has promoted it.
    if (i32[this.#arena.keypair(next) + KEYPAIR.CONFIRMED] !== 0) {
      this.#p.keypairs.promoteNext(peer, next);
    }
    // Or the keys were taken away: the interface went down.
    if (i32[slots + PEER.CURRENT] === 0) return;
    const session = this.#p.sessions.sessionOf(peer, true);
    if (session !== 0) {
      this.#p.timers.handshakeComplete(session, this.#o.wallMs());
    }
    this.#p.handshakes.answerAsked(peer);
    this.#command(peer, COMMAND_FLUSH);
  }

  #handshakeWanted(peer: number, nowMs: number): void {
    if (!this.#up || this.#p.noise.identity.publicKey === null) return;
    if (this.#p.keypairs.hasFresh(peer, nowMs)) {
      this.#p.handshakes.answerAsked(peer);
      this.#command(peer, COMMAND_FLUSH);
      return;
    }
    this.#sendInitiation(peer, false);
  }

  #sendInitiation(peer: number, retry: boolean): void {
    if (!this.#up || this.#p.noise.identity.publicKey === null) return;
    if (this.#arena.u8[this.#endpointWord(peer) * 4] === 0) {
      this.#p.handshakes.answerAsked(peer);
      return;
    }
    this.#p.handshakes.sendInitiation(peer, retry, this.#o.nowMs());
  }

  #zeroKeyMaterial(peer: number): void {
    this.#p.sessions.handshakeClear(peer);
    this.#p.keypairs.removeAll(peer);
    this.#p.handshakes.answerAsked(peer);
    const session = this.#p.sessions.sessionOf(peer, false);
    if (session !== 0 && !this.#p.timers.pending(session)) {
      this.#p.timers.stop(session);
      this.#p.sessions.releaseSession(peer);
    }
  }

  #command(peer: number, bits: number): void {
    this.#p.commands.post(peer, bits);
    this.#o.outbound.wake();
  }

  // ---- changes of all peers -----------------------------------------------

  /** Resolves when all changes so far are done; undefined if they are. */
  settled(): Promise<void> | undefined {
    return this.#changes.settled();
  }

  /** Answers what outbound may wait for; it looks at what it has staged again. */
  #askAgain(peer: number): void {
    const { i32 } = this.#arena;
    const at = this.#arena.peer(peer);
    const asked = Atomics.exchange(i32, at + PEER.HANDSHAKE_ASKED, 0) !== 0;
    if (asked || Atomics.load(i32, at + PEER.STAGED_COUNT) !== 0) {
      this.#p.commands.post(peer, COMMAND_FLUSH);
    }
  }

  // ---- the interface ------------------------------------------------------

  get #up(): boolean {
    return this.#arena.i32[HEADER.UP] !== 0;
  }

  /** Called when the interface is up and its sockets are open. */
  up(): void {
    if (this.#up) return;
    // What is left of going down must not end what begins now.
    this.#changes.finish();
    Atomics.store(this.#arena.i32, HEADER.UP, 1);
    this.#changes.each((peer) => {
      this.#askAgain(peer);
      this.#startKeepalive(peer);
      return true;
    });
  }

  /**
   * Called when the interface went down: staged packets are dropped, timers
   * stop, handshakes and keys are wiped. Peers and their settings stay.
   */
  down(): void {
    if (!this.#up) return;
    Atomics.store(this.#arena.i32, HEADER.UP, 0);
    this.#p.handshakes.drain();
    this.#changes.each((peer) => {
      this.#p.commands.post(peer, COMMAND_DROP_STAGED);
      this.#p.keypairs.removeAll(peer);
      const session = this.#p.sessions.sessionOf(peer, false);
      if (session === 0) return true;
      this.#p.timers.stop(session);
      this.#p.sessions.releaseSession(peer);
      return true;
    });
  }

  /**
   * Called when the machine was suspended: keys do not outlive that (kernel:
   * `wg_pm_notification`). Packets that are staged ask for new ones.
   */
  suspended(): void {
    this.#changes.each((peer) => {
      this.#zeroKeyMaterial(peer);
      return true;
    });
  }

  /**
   * Removes all peers and the private key, and takes no new ones: a client may be
   * in the middle of a request. `objects` ends at zero once workers let go.
   */
  close(): void {
    this.#closed = true;
    this.down();
    this.removeAllPeers();
    this.#changes.finish();
    this.#setIdentity(null);
  }

  /** Live objects, for accounting. */
  objects(): ObjectCounts {
    return {
      peers: this.peers.used,
      keypairs: this.#p.keypairs.used,
      sessions: this.#p.sessions.used,
      timers: this.#p.timers.count,
      allowedIpNodes: this.allowedIps.nodes,
      indices: this.#p.indices.entries,
      retired: this.#p.grace.waiting,
    };
  }

  // ---- configuration ------------------------------------------------------

  /** The private key, clamped, or null. */
  get privateKey(): Uint8Array | null {
    return this.#p.noise.identity.privateKey;
  }

  /** The public key, or null. */
  get publicKey(): Uint8Array | null {
    return this.#p.noise.identity.publicKey;
  }

  /**
   * Sets the private key; null: none. A peer with its public key is removed.
   *
   * @returns resolves when no peer sends with the old one's keys any more;
   * undefined if none does
   */
  setPrivateKey(key: Uint8Array | null): Promise<void> | undefined {
    if (this.#closed || this.#p.noise.identity.isPrivateKey(key)) return;
    // Each peer has to have left the key before this one.
    this.#changes.finish();
    if (key !== null) {
      const own = this.#p.publicKeys.find(publicKey(key));
      if (own !== 0) this.removePeer(own);
    }
    return this.#setIdentity(key);
  }

  #setIdentity(key: Uint8Array | null): Promise<void> | undefined {
    this.#p.noise.setStaticIdentity(key);
    this.#p.cookies.setStaticIdentity(this.publicKey);
    return this.#changes.each((peer) => {
      this.#p.noise.followIdentity(peer);
      this.#askAgain(peer);
      return true;
    });
  }

  /** The peer with this public key, or 0. */
  findPeer(key: Uint8Array): number {
    return this.#p.publicKeys.find(key);
  }

  /** Adds a peer. @returns its number, 0 for our own key, -1 when there is no room */
  createPeer(key: Uint8Array): number {
    if (this.#closed) return -1;
    const own = this.publicKey;
    if (own !== null && constantTimeEqual(own, key)) return 0;
    const peer = this.peers.create(key);
    if (peer === 0) return -1;
    this.#p.noise.identity.forgetStaticStatic(peer);
    return peer;
  }

  /**
   * Removes a peer with all that belongs to it.
   *
   * @returns resolves when it is gone; undefined if it is
   */
  removePeer(peer: number): Promise<void> | undefined {
    return this.#changes.remove(peer);
  }

  /** Removes all peers; the same. */
  removeAllPeers(): Promise<void> | undefined {
    return this.#changes.removeAll();
  }

  /** Removes all allowed IPs of a peer; the same. */
  removeAllowedIps(peer: number): Promise<void> | undefined {
    return this.#changes.removeAllowedIps(peer);
  }

  /** Sets the endpoint; the sticky source is forgotten. */
  setEndpoint(
    peer: number,
    address: Uint8Array,
    port: number,
    scope: number,
  ): void {
    const block = HEADER.SCRATCH_ENDPOINT;
    fillEndpoint(this.#arena, block, address, port, scope);
    writeEndpoint(this.#arena, this.#arena.peer(peer), block);
    this.#p.handshakes.answerAsked(peer);
  }

  /** Sets the interval in seconds, 0: off. Turned on, it sends one at once. */
  setPersistentKeepalive(peer: number, seconds: number): void {
    const word = this.#arena.peer(peer) + PEER.PERSISTENT_KEEPALIVE;
    const before = this.#arena.i32[word];
    this.#arena.i32[word] = seconds;
    if (!this.#up) return;
    if (before === 0) return this.#startKeepalive(peer);
    const session = this.#p.sessions.sessionOf(peer, false);
    if (session !== 0) {
      this.#p.timers.persistentKeepaliveChanged(session, this.#o.nowMs());
    }
  }

  #startKeepalive(peer: number): void {
    if (this.persistentKeepaliveOf(peer) === 0) return;
    const session = this.#p.sessions.sessionOf(peer, true);
    if (session === 0) return;
    const now = this.#p.timers.persistentKeepaliveStarted(
      session,
      this.#o.nowMs(),
    );
    if (now) this.#command(peer, COMMAND_KEEPALIVE);
  }

  /** Called at the end of a change of the peer: what is staged may go now. */
  peerDone(peer: number): void {
    const word = this.#arena.peer(peer) + PEER.STAGED_COUNT;
    if (this.#up && Atomics.load(this.#arena.i32, word) !== 0) {
      this.#command(peer, COMMAND_FLUSH);
    }
  }

  /** Forgets all sticky sources: the port or mark changed. */
  clearSources(): void {
    this.#changes.each((peer) => {
      clearSource(this.#arena, this.#arena.peer(peer));
      return true;
    });
  }

  #endpointWord(peer: number): number {
    return this.#arena.peer(peer) + PEER.ENDPOINT;
  }
}
