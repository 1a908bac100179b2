/**
 * The daemon's side of `set=1`: lines to calls on the device, one by one and
 * not as a transaction, as wireguard-go's device/uapi.go. Nothing is allocated
 * for a line, so that 500,000 peers stream through. Pure.
 *
 * @module
 */
import { KEY_BYTES } from "./crypto/bytes.ts";
import { parseDecimal, parseIpInto } from "./ip.ts";
import { UAPI_ERRNO } from "./uapi_lines.ts";

const PORT_MAX = 65535;
const FWMARK_MAX = 0xffffffff;
const KEEPALIVE_MAX = 65535;
const { EINVAL, EPROTO } = UAPI_ERRNO;

/**
 * What a `set=1` request does to the device. Numbers returned are 0 or a
 * positive errno, unless said otherwise. Keys and addresses are lent for the
 * time of the call: copy what is to be kept.
 */
export interface UapiSink {
  /**
   * Resolves when no change of many peers is under way; undefined if none is.
   * Such changes are done in slices; a request waits before it goes on.
   */
  settled(): Promise<void> | undefined;
  /**
   * All zeros: no key. Removes the peer whose key is the new public key. The key
   * is lent for the time of the call, not until the promise resolves.
   */
  setPrivateKey(key: Uint8Array): number | Promise<number>;
  /** 0: any port. */
  setListenPort(port: number): number | Promise<number>;
  /** 0: no mark; must not fail then. */
  setFwmark(mark: number): number | Promise<number>;
  /** Removes all peers; resolves when they are gone. */
  replacePeers(): Promise<void> | undefined;
  /** The handle of a peer, above 0; 0 if there is none of this key. */
  findPeer(publicKey: Uint8Array): number;
  /**
   * Creates a peer that `findPeer` did not find.
   *
   * @returns its handle, above 0; 0 for a peer to be ignored (the device's own
   * public key); or a negative errno
   */
  createPeer(publicKey: Uint8Array): number;
  /** Removes a peer; resolves when it is gone. */
  removePeer(peer: number): Promise<void> | undefined;
  /** All zeros: no preshared key. */
  setPresharedKey(peer: number, key: Uint8Array): void;
  /** `address` has 4 or 16 bytes; `scopeId` is 0 where there is none. */
  setEndpoint(
    peer: number,
    address: Uint8Array,
    port: number,
    scopeId: number,
  ): number;
  /**
   * The peer is at `name`, `host:port`, which the device looks up: an extension
   * of wgd. Absent: it cannot.
   */
  setEndpointName?(peer: number, name: string): number;
  /** 0: off. */
  setPersistentKeepalive(peer: number, seconds: number): void;
  /** Removes all allowed IPs of a peer; resolves when they are gone. */
  replaceAllowedIps(peer: number): Promise<void> | undefined;
  /** Host bits may be set; the device masks them. */
  addAllowedIp(peer: number, address: Uint8Array, cidr: number): number;
  /** Does nothing unless the peer has exactly this one. */
  removeAllowedIp(peer: number, address: Uint8Array, cidr: number): void;
  /**
   * Called after the last line about a peer that was not removed, even if that
   * line was in error: start it, send a keepalive if that was turned on, flush
   * what is staged.
   */
  peerDone(peer: number): void;
  /** The index of an interface; 0 if there is none of this name. */
  scopeId(name: string): number;
}

/**
 * Parses `text[start..]`, which must be a key in hexadecimal, into `out`, in a
 * time that does not depend on the key (as fromHex, but allocates nothing).
 */
function parseHexKey(text: string, start: number, out: Uint8Array): boolean {
  if (text.length - start !== KEY_BYTES * 2) return false;
  let invalid = 0;
  let byte = 0;
  for (let i = 0; i < KEY_BYTES * 2; i++) {
    const code = text.charCodeAt(start + i);
    const isLetter = (code >> 6) & 1;
    const value = (code & 15) + 9 * isLetter;
    const digit = value + 0x30 + (((9 - value) >> 31) & 0x27);
    invalid |= (value >> 4) | (digit ^ (code | (isLetter << 5)));
    byte = ((byte << 4) | value) & 0xff;
    if ((i & 1) === 1) out[i >> 1] = byte;
  }
  return invalid === 0;
}

/** Reads the lines of one `set=1` request after another. */
export class UapiSetParser {
  readonly #sink: UapiSink;
  readonly #publicKey = new Uint8Array(KEY_BYTES);
  readonly #secret = new Uint8Array(KEY_BYTES);
  readonly #address16 = new Uint8Array(16);
  readonly #address4 = this.#address16.subarray(0, 4);
  #errno = 0;
  #inPeer = false;
  /** A peer was named, but not yet looked up: see `#resolvePeer`. */
  #isPending = false;
  /** Handle of the peer that lines are about; 0: they are ignored. */
  #peer = 0;
  #isCreated = false;

  /** Drives `sink`. */
  constructor(sink: UapiSink) {
    this.#sink = sink;
  }

  /**
   * Applies a line other than the empty one.
   *
   * @returns 0 or a positive errno; once that is not 0, lines have no effect
   */
  line(text: string): number | Promise<number> {
    if (this.#errno !== 0) return this.#errno;
    const equals = text.indexOf("=");
    if (equals < 0) return this.#settle(EPROTO);
    const key = text.slice(0, equals);
    if (key === "public_key") return this.#settle(this.#startPeer(text));
    const errno = this.#inPeer
      ? this.#peerLine(key, text, equals + 1)
      : this.#deviceLine(key, text, equals + 1);
    return typeof errno === "number"
      ? this.#settle(errno)
      : errno.then((value) => this.#settle(value));
  }

  /**
   * Ends the request: call for the empty line. The parser is then ready for
   * the next request.
   *
   * @returns the request's errno, 0 or positive
   */
  end(): number {
    if (this.#errno === 0) this.#settle(this.#resolvePeer());
    if (this.#errno === 0) this.#finishPeer();
    const errno = this.#errno;
    this.#errno = 0;
    this.#inPeer = false;
    return errno;
  }

  /**
   * Call after waiting for input: meanwhile another request may have removed
   * the peer that lines are about.
   */
  resume(): void {
    if (this.#peer !== 0) this.#peer = this.#sink.findPeer(this.#publicKey);
  }

  #settle(errno: number): number {
    if (errno !== 0) {
      this.#errno = errno;
      this.#isPending = false;
      this.#finishPeer();
    }
    return errno;
  }

  #finishPeer(): void {
    if (this.#peer !== 0) this.#sink.peerDone(this.#peer);
    this.#peer = 0;
  }

  #startPeer(text: string): number {
    const errno = this.#resolvePeer();
    if (errno !== 0) return errno;
    this.#finishPeer();
    this.#inPeer = true;
    if (!parseHexKey(text, "public_key=".length, this.#publicKey)) {
      return EINVAL;
    }
    this.#isPending = true;
    this.#isCreated = false;
    return 0;
  }

  /**
   * Finds or creates the peer that was named. This waits until the next line,
   * because that one may say that the peer is not to be created.
   */
  #resolvePeer(): number {
    if (!this.#isPending) return 0;
    this.#isPending = false;
    this.#peer = this.#sink.findPeer(this.#publicKey);
    if (this.#peer !== 0) return 0;
    const created = this.#sink.createPeer(this.#publicKey);
    if (created < 0) return -created;
    this.#peer = created;
    this.#isCreated = created !== 0;
    return 0;
  }

  #deviceLine(
    key: string,
    text: string,
    start: number,
  ): number | Promise<number> {
    switch (key) {
      case "private_key":
        try {
          // A mistyped key is as secret as a right one.
          if (!parseHexKey(text, start, this.#secret)) return EINVAL;
          return this.#sink.setPrivateKey(this.#secret);
        } finally {
          this.#secret.fill(0);
        }
      case "listen_port": {
        const port = parseDecimal(text, PORT_MAX, start);
        return port < 0 ? EINVAL : this.#sink.setListenPort(port);
      }
      case "fwmark": {
        const mark = parseDecimal(text, FWMARK_MAX, start);
        return mark < 0 ? EINVAL : this.#sink.setFwmark(mark);
      }
      case "replace_peers":
        if (!isTrue(text, start)) return EINVAL;
        return later(this.#sink.replacePeers());
      default:
        return EINVAL;
    }
  }

  #peerLine(
    key: string,
    text: string,
    start: number,
  ): number | Promise<number> {
    switch (key) {
      case "update_only":
        return isTrue(text, start) ? this.#updateOnly() : EINVAL;
      case "remove":
        return isTrue(text, start) ? this.#remove() : EINVAL;
      case "protocol_version":
        return text.length === start + 1 && text[start] === "1" ? 0 : EINVAL;
    }
    const errno = this.#resolvePeer();
    if (errno !== 0) return errno;
    switch (key) {
      case "preshared_key":
        try {
          if (!parseHexKey(text, start, this.#secret)) return EINVAL;
          if (this.#peer !== 0) {
            this.#sink.setPresharedKey(this.#peer, this.#secret);
          }
          return 0;
        } finally {
          this.#secret.fill(0);
        }
      case "endpoint":
        return this.#endpoint(text, start);
      case "endpoint_name":
        if (this.#sink.setEndpointName === undefined) return EINVAL;
        if (this.#peer === 0) return 0;
        return this.#sink.setEndpointName(this.#peer, text.slice(start));
      case "persistent_keepalive_interval": {
        const seconds = parseDecimal(text, KEEPALIVE_MAX, start);
        if (seconds < 0) return EINVAL;
        if (this.#peer !== 0) {
          this.#sink.setPersistentKeepalive(this.#peer, seconds);
        }
        return 0;
      }
      case "replace_allowed_ips":
        if (!isTrue(text, start)) return EINVAL;
        if (this.#peer === 0) return 0;
        return later(this.#sink.replaceAllowedIps(this.#peer));
      case "allowed_ip":
        return this.#allowedIp(text, start);
      default:
        return EINVAL;
    }
  }

  #updateOnly(): number | Promise<number> {
    if (this.#isPending) {
      this.#isPending = false;
      this.#peer = this.#sink.findPeer(this.#publicKey);
    } else if (this.#isCreated) return this.#remove();
    return 0;
  }

  #remove(): number | Promise<number> {
    if (this.#isPending) {
      this.#isPending = false;
      this.#peer = this.#sink.findPeer(this.#publicKey);
    }
    const peer = this.#peer;
    this.#peer = 0;
    return peer === 0 ? 0 : later(this.#sink.removePeer(peer));
  }

  /** Reads `a.b.c.d:port`, `[v6]:port` or `[v6%scope]:port`. */
  #endpoint(text: string, start: number): number {
    const isIpv6 = text[start] === "[";
    const colon = text.lastIndexOf(":");
    const port = parseDecimal(text, PORT_MAX, colon + 1);
    if (colon < start || port < 0) return EINVAL;
    if (isIpv6 && text[colon - 1] !== "]") return EINVAL;
    const hostStart = isIpv6 ? start + 1 : start;
    const hostEnd = isIpv6 ? colon - 1 : colon;
    const percent = isIpv6 ? text.indexOf("%", hostStart) : -1;
    const addressEnd = percent < 0 ? hostEnd : percent;
    const address = this.#parseAddress(text, hostStart, addressEnd);
    if (address === null || (address.length === 16) !== isIpv6) return EINVAL;
    let scopeId = 0;
    if (percent >= 0) {
      const scope = text.slice(percent + 1, hostEnd);
      const index = parseDecimal(scope, 0x7fffffff);
      scopeId = index < 0 ? this.#sink.scopeId(scope) : index;
      if (scopeId === 0) return EINVAL;
    }
    if (this.#peer === 0) return 0;
    return this.#sink.setEndpoint(this.#peer, address, port, scopeId);
  }

  /** Reads `address/length`, with `-` before it to remove. */
  #allowedIp(text: string, start: number): number {
    const isRemoval = text[start] === "-";
    const from = isRemoval ? start + 1 : start;
    const slash = text.indexOf("/", from);
    if (slash < 0) return EINVAL;
    const address = this.#parseAddress(text, from, slash);
    if (address === null) return EINVAL;
    const cidr = parseDecimal(text, address.length * 8, slash + 1);
    if (cidr < 0) return EINVAL;
    if (this.#peer === 0) return 0;
    if (!isRemoval) return this.#sink.addAllowedIp(this.#peer, address, cidr);
    this.#sink.removeAllowedIp(this.#peer, address, cidr);
    return 0;
  }

  /** The address as a view that the next call overwrites; null if it is none. */
  #parseAddress(text: string, start: number, end: number): Uint8Array | null {
    switch (parseIpInto(text, start, end, this.#address16)) {
      case 4:
        return this.#address4;
      case 16:
        return this.#address16;
      default:
        return null;
    }
  }
}

/** 0, when what was begun is done. */
function later(done: Promise<void> | undefined): number | Promise<number> {
  return done === undefined ? 0 : done.then(() => 0);
}

function isTrue(text: string, start: number): boolean {
  return text.length === start + 4 && text.endsWith("true");
}
