/** Floods of handshake messages: how much is dropped unread, and by what filter. */
import { assert, assertEquals } from "@std/assert";
import { HANDSHAKES_RING_CAPACITY } from "../lib/arena.ts";
import { FLOOD_LEVEL_MAX, FloodLevel } from "../lib/flood.ts";
import { floodProgram, setFloodFilter } from "../lib/flood_filter.ts";
import type { FloodLevels } from "../lib/handshake.ts";
import { closeSockets, openSockets } from "../lib/socket.ts";
import { libc } from "../lib/sys/libc.ts";

const FULL = HANDSHAKES_RING_CAPACITY;

Deno.test("the level rises while control is behind, step by step", () => {
  const flood = new FloodLevel();
  flood.update(FULL / 2 - 1, 0);
  assertEquals(flood.level, 0);
  const levels: number[] = [];
  for (let ms = 1_000; ms <= 2_000; ms += 50) {
    flood.update(FULL, ms);
    levels.push(flood.level);
  }
  assertEquals(levels.slice(0, 6), [1, 1, 2, 2, 3, 3]);
  assertEquals(levels.at(-1), FLOOD_LEVEL_MAX);
});

Deno.test("the level does not rise while what waits gets less", () => {
  const flood = new FloodLevel();
  flood.update(FULL, 1_000);
  assertEquals(flood.level, 1);
  for (let ms = 1_100; ms <= 1_900; ms += 100) {
    flood.update(FULL - (ms - 1_000), ms);
  }
  assertEquals(flood.level, 1);
  flood.update(FULL - 800, 2_000);
  assertEquals(flood.level, 2);
});

Deno.test("the level falls each half second in which control keeps up", () => {
  const flood = new FloodLevel();
  flood.update(FULL, 1_000);
  flood.update(FULL, 1_100);
  assertEquals(flood.level, 2);
  for (let ms = 1_100; ms <= 10_000; ms += 50) {
    flood.update(FULL / 8, ms);
  }
  assertEquals(flood.level, 2, "neither behind nor calm");
  const levels = [10_499, 10_500, 10_999, 11_000, 20_000].map((ms) => {
    flood.update(0, ms);
    return flood.level;
  });
  assertEquals(levels, [2, 1, 1, 0, 0]);
});

/** Runs the program on a datagram, as Linux would. */
function passes(
  program: Uint8Array,
  payload: Uint8Array,
  random: number,
): boolean {
  const view = new DataView(program.buffer);
  const packet = new DataView(new ArrayBuffer(8 + payload.length));
  new Uint8Array(packet.buffer).set(payload, 8);
  let word = 0;
  for (let at = 0; at < program.length; at += 8) {
    const value = view.getUint32(at + 4, true);
    const jump = (yes: boolean): void => {
      at += 8 * view.getUint8(at + (yes ? 2 : 3));
    };
    switch (view.getUint16(at, true)) {
      case 0x20:
        if (value >= 0xffff_f000) {
          assertEquals(value, 0xffff_f038);
          word = random;
        } else if (value + 4 > packet.byteLength) return false;
        else word = packet.getUint32(value);
        break;
      case 0x15:
        jump(word === value);
        break;
      case 0x45:
        jump((word & value) !== 0);
        break;
      case 0x06:
        return value !== 0;
      default:
        throw new Error("no such instruction");
    }
  }
  throw new Error("the program has no end");
}

/** A handshake message. @param mac2 place of a byte that is set, if any */
function message(type: number, length: number, mac2?: number): Uint8Array {
  const bytes = new Uint8Array(length).fill(0x77);
  bytes.set([type, 0, 0, 0]);
  bytes.fill(0, length - 16);
  if (mac2 !== undefined) bytes[length - 16 + mac2] = 1;
  return bytes;
}

Deno.test("the filter draws for each kind of handshake message by its level", () => {
  const without = [message(1, 148), message(2, 92)];
  const held = [message(3, 64)];
  for (let i = 0; i < 16; i++) held.push(message(1, 148, i), message(2, 92, i));
  const others = [
    new Uint8Array(4),
    message(4, 32),
    message(4, 1452),
    message(0, 148),
    message(5, 148),
    Uint8Array.of(1, 0, 0, 1, ...new Array(144).fill(0)),
  ];
  for (const levels of [[0, 0], [3, 0], [0, 3], [6, 1]] as FloodLevels[]) {
    const program = floodProgram(levels);
    for (const random of [0, 1, 2, 8, 64, 0x8000_0000, 0xffff_ffff]) {
      const drawn = (level: number): boolean =>
        (random & (2 ** level - 1)) === 0;
      for (const bytes of without) {
        assertEquals(passes(program, bytes, random), drawn(levels[0]));
      }
      for (const bytes of held) {
        assertEquals(passes(program, bytes, random), drawn(levels[1]));
      }
      for (const bytes of others) assert(passes(program, bytes, random));
    }
  }
  // Too short to be one: it would be dropped later.
  assertEquals(passes(floodProgram([0, 0]), message(1, 140), 0), false);
});

Deno.test("sockets drop what the filter says, of both families, until it is taken off", async () => {
  const sockets = openSockets(0, 0, true);
  const buffer = new Uint8Array(2000);
  const drain = (): number => {
    let count = 0;
    for (const fd of [sockets.v6, sockets.v4]) {
      if (fd < 0) continue;
      while (libc().recv(fd, buffer, buffer.length, 0x40) > 0) count++;
    }
    return count;
  };
  try {
    for (const hostname of ["127.0.0.1", "::1"]) {
      const sender = Deno.listenDatagram({
        transport: "udp",
        hostname,
        port: 0,
      });
      const to: Deno.NetAddr = {
        transport: "udp",
        hostname,
        port: sockets.port,
      };
      const send = async (
        bytes: Uint8Array,
        count: number,
      ): Promise<number> => {
        for (let i = 0; i < count; i++) await sender.send(bytes, to);
        return drain();
      };
      const COUNT = 400;
      assertEquals(await send(message(1, 148), COUNT), COUNT);
      setFloodFilter(sockets, [FLOOD_LEVEL_MAX, 1]);
      const first = await send(message(1, 148), COUNT);
      assert(first < COUNT / 8, `${first} of ${COUNT}`);
      const held = await send(message(1, 148, 5), COUNT);
      assert(held > COUNT / 4 && held < COUNT * 3 / 4, `${held} of ${COUNT}`);
      assertEquals(await send(message(4, 1000), COUNT), COUNT);
      setFloodFilter(sockets, [0, 0]);
      assertEquals(await send(message(1, 148), COUNT), COUNT);
      sender.close();
    }
  } finally {
    closeSockets(sockets);
  }
});
