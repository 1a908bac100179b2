/**
 * Allowed IPs as a plain list, looked through from one end to the other: what
 * the tries are compared with.
 *
 * @module
 */

/** One allowed IP: the address is masked. */
export interface Prefix {
  readonly address: Uint8Array;
  readonly cidr: number;
  readonly peer: number;
}

/** The same operations as lib/allowedips, in the plainest way. */
export class LinearList {
  /** In the order of insertion. */
  readonly prefixes: Prefix[] = [];

  /** Gives a prefix to a peer, whoever had it before. */
  insert(address: Uint8Array, cidr: number, peer: number): void {
    const masked = mask(address, cidr);
    this.#take(masked, cidr);
    this.prefixes.push({ address: masked, cidr, peer });
  }

  /** Takes a prefix from a peer; false if it has no such prefix. */
  remove(address: Uint8Array, cidr: number, peer: number): boolean {
    const masked = mask(address, cidr);
    const owned = this.prefixes.some((prefix) =>
      prefix.peer === peer && prefix.cidr === cidr &&
      equal(prefix.address, masked)
    );
    if (owned) this.#take(masked, cidr);
    return owned;
  }

  /** Takes all prefixes from a peer; returns how many it had. */
  removeByPeer(peer: number): number {
    const kept = this.prefixes.filter((prefix) => prefix.peer !== peer);
    const count = this.prefixes.length - kept.length;
    this.prefixes.splice(0, this.prefixes.length, ...kept);
    return count;
  }

  /** The peer with the longest prefix of an address, or 0. */
  lookup(address: Uint8Array): number {
    let longest = -1;
    let peer = 0;
    for (const prefix of this.prefixes) {
      if (
        prefix.cidr > longest && prefix.address.length === address.length &&
        commonBits(prefix.address, address) >= prefix.cidr
      ) {
        longest = prefix.cidr;
        peer = prefix.peer;
      }
    }
    return peer;
  }

  #take(masked: Uint8Array, cidr: number): void {
    const at = this.prefixes.findIndex((prefix) =>
      prefix.cidr === cidr && equal(prefix.address, masked)
    );
    if (at >= 0) this.prefixes.splice(at, 1);
  }
}

/** A copy of an address without the bits behind the first `cidr`. */
export function mask(address: Uint8Array, cidr: number): Uint8Array {
  const masked = new Uint8Array(address.length);
  for (let bit = 0; bit < cidr; bit++) {
    masked[bit >> 3] |= address[bit >> 3] & (128 >> (bit & 7));
  }
  return masked;
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, i) => byte === b[i]);
}

function commonBits(a: Uint8Array, b: Uint8Array): number {
  for (let i = 0; i < a.length; i++) {
    if (a[i] !== b[i]) return 8 * i + Math.clz32(a[i] ^ b[i]) - 24;
  }
  return 8 * a.length;
}
