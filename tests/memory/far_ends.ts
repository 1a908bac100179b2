/**
 * Many far ends of one device, each with a key of its own, in one object: what a
 * device with thousands of peers is tested and timed with. Plays initiators, as
 * clients of a server are; knows cookies, not timers.
 *
 * @module
 */
import { assert } from "@std/assert";
import { hash, kdf2, mac16 } from "../../lib/crypto/blake2s.ts";
import { aeadEncrypt, xaeadDecrypt } from "../../lib/crypto/chacha.ts";
import {
  generatePrivateKey,
  publicKey,
  sharedSecret,
} from "../../lib/crypto/x25519.ts";
import {
  COOKIE_REPLY,
  DATA,
  INITIATION,
  MESSAGE_COOKIE_REPLY,
  MESSAGE_DATA,
  MESSAGE_INITIATION,
  MESSAGE_RESPONSE,
  RESPONSE,
} from "../../lib/messages.ts";
import { SymmetricState } from "../../lib/noise_symmetric.ts";
import { stamp } from "../../lib/tai64n.ts";

const EMPTY = new Uint8Array(0);
const MAC_LEN = 16;
const encoder = new TextEncoder();

/** One far end. */
interface FarEnd {
  readonly privateKey: Uint8Array;
  readonly publicKey: Uint8Array;
  readonly staticStatic: Uint8Array;
  ephemeral: Uint8Array;
  noise: SymmetricState | undefined;
  lastMac1: Uint8Array;
  cookie: Uint8Array | undefined;
  /** Index by which the device knows the session; sending key and counter. */
  remoteIndex: number;
  sendKey: Uint8Array | undefined;
  counter: bigint;
}

/** Far ends number 0, 1, … of the device whose public key is given. */
export class FarEnds {
  readonly #hub: Uint8Array;
  readonly #mac1Key: Uint8Array;
  readonly #cookieKey: Uint8Array;
  readonly #all: FarEnd[] = [];
  #stampMs = 1_700_000_000_000;

  constructor(hub: Uint8Array) {
    this.#hub = hub.slice();
    this.#mac1Key = hash(encoder.encode("mac1----"), hub);
    this.#cookieKey = hash(encoder.encode("cookie--"), hub);
  }

  /** Makes one more. @returns its public key */
  add(): Uint8Array {
    const privateKey = generatePrivateKey();
    const staticStatic = sharedSecret(privateKey, this.#hub);
    assert(staticStatic !== null);
    const own = publicKey(privateKey);
    this.#all.push({
      privateKey,
      publicKey: own,
      staticStatic,
      ephemeral: EMPTY,
      noise: undefined,
      lastMac1: EMPTY,
      cookie: undefined,
      remoteIndex: 0,
      sendKey: undefined,
      counter: 0n,
    });
    return own;
  }

  /** A new initiation of far end `i`, whose index it is. */
  initiation(i: number): Uint8Array {
    const end = this.#all[i];
    const message = new Uint8Array(INITIATION.end);
    const noise = SymmetricState.initial(this.#hub);
    end.ephemeral = generatePrivateKey();
    const ephemeral = publicKey(end.ephemeral);
    noise.mixEphemeral(ephemeral);
    assert(noise.mixDh(end.ephemeral, this.#hub));
    message[0] = MESSAGE_INITIATION;
    new DataView(message.buffer).setUint32(INITIATION.sender, i, true);
    message.set(ephemeral, INITIATION.ephemeral);
    noise.encryptAndHash(message, INITIATION.encryptedStatic, end.publicKey);
    noise.mixSecret(end.staticStatic);
    // Above the granularity of whitened times.
    this.#stampMs += 20;
    const time = stamp(this.#stampMs);
    noise.encryptAndHash(message, INITIATION.encryptedTimestamp, time);
    end.noise = noise;
    end.lastMac1 = mac16(this.#mac1Key, message.subarray(0, INITIATION.mac1));
    message.set(end.lastMac1, INITIATION.mac1);
    if (end.cookie !== undefined) {
      const mac2At = INITIATION.mac1 + MAC_LEN;
      message.set(mac16(end.cookie, message.subarray(0, mac2At)), mac2At);
    }
    return message;
  }

  /**
   * Takes in a message of the device.
   *
   * @returns the far end that it was for, and what it was: a data message only
   * says the device's index for it
   */
  consume(message: Uint8Array): { i: number; type: number } {
    const view = new DataView(message.buffer, message.byteOffset);
    const type = message[0];
    if (type === MESSAGE_RESPONSE) {
      const i = view.getUint32(RESPONSE.receiver, true);
      this.#consumeResponse(this.#all[i], message, view);
      return { i, type };
    }
    const i = view.getUint32(4, true);
    if (type === MESSAGE_COOKIE_REPLY) {
      const end = this.#all[i];
      const cookie = xaeadDecrypt(
        this.#cookieKey,
        message.slice(COOKIE_REPLY.nonce, COOKIE_REPLY.encryptedCookie),
        message.slice(COOKIE_REPLY.encryptedCookie),
        end.lastMac1,
      );
      assert(cookie !== null, "an authentic cookie");
      end.cookie = cookie;
    }
    return { i, type };
  }

  #consumeResponse(end: FarEnd, message: Uint8Array, view: DataView): void {
    const { noise } = end;
    assert(noise !== undefined, "a response to something");
    end.noise = undefined;
    const ephemeral = message.slice(
      RESPONSE.ephemeral,
      RESPONSE.encryptedNothing,
    );
    noise.mixEphemeral(ephemeral);
    assert(noise.mixDh(end.ephemeral, ephemeral));
    assert(noise.mixDh(end.privateKey, ephemeral));
    noise.mixPresharedKey(new Uint8Array(32));
    const nothing = noise.decryptAndHash(
      message.slice(RESPONSE.encryptedNothing, RESPONSE.mac1),
    );
    assert(nothing !== null, "an authentic response");
    [end.sendKey] = kdf2(noise.chainingKey, EMPTY);
    end.remoteIndex = view.getUint32(RESPONSE.sender, true);
    end.counter = 0n;
  }

  /** Whether the far end has keys. */
  connected(i: number): boolean {
    return this.#all[i].sendKey !== undefined;
  }

  /** A data message of far end `i`; the plaintext is padded already. */
  data(i: number, plaintext: Uint8Array): Uint8Array {
    const end = this.#all[i];
    const { sendKey, counter } = end;
    assert(sendKey !== undefined, "a far end that has keys");
    end.counter++;
    const sealed = aeadEncrypt(sendKey, counter, plaintext, EMPTY);
    const message = new Uint8Array(DATA.end + sealed.length);
    const view = new DataView(message.buffer);
    message[0] = MESSAGE_DATA;
    view.setUint32(DATA.receiver, end.remoteIndex, true);
    view.setBigUint64(DATA.counter, counter, true);
    message.set(sealed, DATA.end);
    return message;
  }
}
