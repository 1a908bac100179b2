/** lib/messages: wire layouts, message types, padding and the constants. */
import { assert, assertEquals } from "@std/assert";
import {
  COOKIE_REPLY,
  COUNTER_WINDOW_SIZE,
  DATA,
  DATA_OVERHEAD,
  DEFAULT_MTU,
  HANDSHAKE_DSCP,
  HANDSHAKE_MESSAGE_MAX,
  INITIATION,
  MAX_TIMER_HANDSHAKES,
  messageType,
  NEW_HANDSHAKE_TIMEOUT_MS,
  paddedLength,
  REJECT_AFTER_MESSAGES,
  REJECT_AFTER_MESSAGES_HI,
  REJECT_AFTER_MESSAGES_LO,
  REKEY_AFTER_MESSAGES,
  REKEY_AFTER_MESSAGES_HI,
  REKEY_ON_RECEIVE_MS,
  RESPONSE,
  UNDER_LOAD_QUEUE_LENGTH,
  ZERO_KEY_MATERIAL_MS,
} from "../lib/messages.ts";

Deno.test("the fields of each message lie where the protocol has them", () => {
  assertEquals({ ...INITIATION }, {
    header: 0,
    sender: 4,
    ephemeral: 8,
    encryptedStatic: 40,
    encryptedTimestamp: 88,
    mac1: 116,
    mac2: 132,
    end: 148,
  });
  assertEquals({ ...RESPONSE }, {
    header: 0,
    sender: 4,
    receiver: 8,
    ephemeral: 12,
    encryptedNothing: 44,
    mac1: 60,
    mac2: 76,
    end: 92,
  });
  assertEquals({ ...COOKIE_REPLY }, {
    header: 0,
    receiver: 4,
    nonce: 8,
    encryptedCookie: 32,
    end: 64,
  });
  assertEquals({ ...DATA }, { header: 0, receiver: 4, counter: 8, end: 16 });
  assertEquals(DATA_OVERHEAD, 32);
  assertEquals(HANDSHAKE_MESSAGE_MAX, 148);
});

Deno.test("a message has a type only with its exact length, data from 32 bytes on", () => {
  const lengths: Record<number, (length: number) => boolean> = {
    1: (length) => length === 148,
    2: (length) => length === 92,
    3: (length) => length === 64,
    4: (length) => length >= 32,
  };
  for (let word = 0; word <= 6; word++) {
    for (let length = 0; length <= 200; length++) {
      const expected = lengths[word]?.(length) ? word : 0;
      assertEquals(messageType(word, length), expected, `${word} ${length}`);
    }
  }
  assertEquals(messageType(4, 65_535), 4);
});

Deno.test("a set bit in a reserved byte makes a message none", () => {
  const lengths = [0, 148, 92, 64, 128];
  for (let type = 1; type <= 4; type++) {
    assertEquals(messageType(type, lengths[type]), type);
    for (let bit = 8; bit < 32; bit++) {
      const word = (type | (1 << bit)) >>> 0;
      assertEquals(messageType(word, lengths[type]), 0);
    }
  }
});

Deno.test("plaintext is padded to 16 bytes but never past the MTU", () => {
  const table: [length: number, mtu: number, padded: number][] = [
    [0, 1420, 0],
    [1, 1420, 16],
    [15, 1420, 16],
    [16, 1420, 16],
    [17, 1420, 32],
    [84, 1420, 96],
    [1407, 1420, 1408],
    [1408, 1420, 1408],
    [1409, 1420, 1420],
    [1419, 1420, 1420],
    [1420, 1420, 1420],
    // Longer than the MTU: the rest over whole MTUs is padded, never past one more.
    [1421, 1420, 1436],
    [2839, 1420, 2840],
    [2840, 1420, 2840],
    [2841, 1420, 2856],
    // netns.sh part 4 has an MTU of 1299 and 1300.
    [1295, 1300, 1296],
    [1297, 1300, 1300],
    [1297, 1299, 1299],
    // No MTU known.
    [0, 0, 0],
    [1, 0, 16],
    [1409, 0, 1424],
    [65_535, 0, 65_536],
  ];
  for (const [length, mtu, padded] of table) {
    assertEquals(paddedLength(length, mtu), padded, `${length} at ${mtu}`);
  }
});

Deno.test("padding adds less than 16 bytes and stays within the packet's MTUs", () => {
  for (const mtu of [68, 576, 1280, 1299, 1300, 1420, 1500]) {
    for (let length = 0; length <= 3 * mtu + 20; length++) {
      const padded = paddedLength(length, mtu);
      assert(padded >= length && padded - length < 16);
      const room = Math.max(1, Math.ceil(length / mtu)) * mtu;
      assert(padded <= room, `${length} at ${mtu}`);
      assert(padded % 16 === 0 || padded === room || length > mtu);
    }
  }
});

Deno.test("the constants are those of the protocol", () => {
  assertEquals(COUNTER_WINDOW_SIZE, 8128);
  assertEquals(REKEY_AFTER_MESSAGES, 1152921504606846976n);
  assertEquals(REJECT_AFTER_MESSAGES, 18446744073709543487n);
  assertEquals(BigInt(REKEY_AFTER_MESSAGES_HI) << 32n, REKEY_AFTER_MESSAGES);
  assertEquals(
    (BigInt(REJECT_AFTER_MESSAGES_HI) << 32n) |
      BigInt(REJECT_AFTER_MESSAGES_LO),
    REJECT_AFTER_MESSAGES,
  );
  assertEquals(REKEY_ON_RECEIVE_MS, 165_000);
  assertEquals(NEW_HANDSHAKE_TIMEOUT_MS, 15_000);
  assertEquals(ZERO_KEY_MATERIAL_MS, 540_000);
  assertEquals(MAX_TIMER_HANDSHAKES, 18);
  assertEquals(UNDER_LOAD_QUEUE_LENGTH, 512);
  assertEquals(HANDSHAKE_DSCP, 0x88);
  assertEquals(DEFAULT_MTU, 1420);
});
