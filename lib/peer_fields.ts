/**
 * What configuration sees of a peer: the fields of its record that need no
 * decision. Control only.
 *
 * @module
 */
import { type Arena, HEADER } from "./arena.ts";
import {
  describeEndpoint,
  type EndpointAddress,
  readEndpoint,
} from "./endpoint.ts";
import { PUBLIC_KEY_LEN } from "./messages.ts";
import { PEER, PEER_FLAG_PRESHARED_KEY } from "./records.ts";

/** The records of a device's peers, by number. */
export class PeerFields {
  readonly #arena: Arena;

  constructor(arena: Arena) {
    this.#arena = arena;
  }

  /** The peer's public key. */
  publicKeyOf(peer: number): Uint8Array {
    const word = this.#arena.peer(peer) + PEER.PUBLIC_KEY;
    return this.#arena.bytes(word, PUBLIC_KEY_LEN).slice();
  }

  /** The peer's preshared key, 32 zeros if it has none. */
  presharedKeyOf(peer: number): Uint8Array {
    const word = this.#arena.peer(peer) + PEER.PRESHARED_KEY;
    return this.#arena.bytes(word, PUBLIC_KEY_LEN).slice();
  }

  /** Sets the preshared key, 32 zeros for none; the next handshake uses it. */
  setPresharedKey(peer: number, key: Uint8Array): void {
    const at = this.#arena.peer(peer);
    this.#arena.u8.set(key, (at + PEER.PRESHARED_KEY) * 4);
    if (key.some((byte) => byte !== 0)) {
      this.#arena.i32[at + PEER.FLAGS] |= PEER_FLAG_PRESHARED_KEY;
    } else this.#arena.i32[at + PEER.FLAGS] &= ~PEER_FLAG_PRESHARED_KEY;
  }

  /** The present endpoint, or undefined. */
  endpointOf(peer: number): EndpointAddress | undefined {
    const block = HEADER.SCRATCH_ENDPOINT;
    readEndpoint(this.#arena, this.#arena.peer(peer), block);
    return describeEndpoint(this.#arena, block);
  }

  /** Seconds, 0: off. */
  persistentKeepaliveOf(peer: number): number {
    return this.#arena.i32[this.#arena.peer(peer) + PEER.PERSISTENT_KEEPALIVE];
  }

  /** Wall clock of the last handshake in ms, 0: never. */
  lastHandshakeMs(peer: number): number {
    return this.#arena.getF64(
      this.#arena.peer(peer) + PEER.LAST_HANDSHAKE_F64,
    );
  }

  /** Bytes of WireGuard messages sent to the peer. */
  txBytes(peer: number): number {
    return this.#arena.getF64(this.#arena.peer(peer) + PEER.TX_BYTES_F64);
  }

  /** Bytes of authentic WireGuard messages received from the peer. */
  rxBytes(peer: number): number {
    const at = this.#arena.peer(peer);
    return this.#arena.getF64(at + PEER.RX_BYTES_F64) +
      this.#arena.getF64(at + PEER.RX_BYTES_CONTROL_F64);
  }
}
