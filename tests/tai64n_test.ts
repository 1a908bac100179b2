/** TAI64N stamps of handshake initiations. */
import { assert, assertEquals } from "@std/assert";
import { INITIATIONS_PER_SECOND } from "../lib/messages.ts";
import {
  compare,
  stamp,
  TIMESTAMP_GRANULARITY_NS,
  Timestamps,
} from "../lib/tai64n.ts";

Deno.test("a stamp is 2^62 + 10 + seconds and nanoseconds, big-endian", () => {
  assertEquals(stamp(0).toHex(), "400000000000000a" + "00000000");
  assertEquals(
    stamp({ seconds: 0x1234_5678, nanos: 0 }).toHex(),
    "4000000012345682" + "00000000",
  );
  // Past the year 2106, where 32 bits end.
  assertEquals(
    stamp({ seconds: 0x1_0000_0000, nanos: 0 }).toHex(),
    "400000010000000a" + "00000000",
  );
});

Deno.test("nanoseconds are rounded down to 2^24", () => {
  assertEquals(TIMESTAMP_GRANULARITY_NS, 0x100_0000);
  for (
    const [nanos, expected] of [
      [0, "00000000"],
      [0xff_ffff, "00000000"],
      [0x100_0000, "01000000"],
      [0x1ff_ffff, "01000000"],
      [999_999_999, "3b000000"],
    ] as const
  ) {
    assertEquals(stamp({ seconds: 5, nanos }).toHex().slice(16), expected);
  }
});

Deno.test("milliseconds with a fraction give the same as seconds and nanoseconds", () => {
  for (
    const [wallMs, seconds, nanos] of [
      [1_700_000_000_123, 1_700_000_000, 123_000_000],
      [1_700_000_000_999.9, 1_700_000_000, 999_900_000],
      [16.777216, 0, 16_777_216],
      [16.777215, 0, 16_777_215],
    ] as const
  ) {
    assertEquals(stamp(wallMs), stamp({ seconds, nanos }));
  }
});

Deno.test("as many stamps a second differ as initiations are accepted", () => {
  const stepMs = 1000 / INITIATIONS_PER_SECOND;
  let last = stamp(1_700_000_000_000);
  for (let i = 1; i <= 200; i++) {
    const next = stamp(1_700_000_000_000 + i * stepMs);
    assert(compare(next, last) > 0, `stamp ${i} is greater than the last`);
    last = next;
  }
});

Deno.test("stamps compare bytewise from the first byte on", () => {
  const of = (hex: string): Uint8Array => Uint8Array.fromHex(hex);
  const low = of("00ffffffffffffffffffffff");
  const high = of("010000000000000000000000");
  assert(compare(low, high) < 0);
  assert(compare(high, low) > 0);
  assertEquals(compare(low, low.slice()), 0);
  assert(compare(of("00".repeat(11) + "80"), of("00".repeat(11) + "7f")) > 0);
  // A fresh peer's zeros are before every stamp.
  assert(compare(stamp(0), new Uint8Array(12)) > 0);
});

Deno.test("times to stamp follow the wall clock while it goes forward", () => {
  const times = new Timestamps();
  assertEquals(times.at(1_000, 50), 1_000);
  assertEquals(times.at(1_700.5, 750), 1_700.5);
  assertEquals(times.at(90_000, 751), 90_000);
});

Deno.test("a wall clock that is set back does not show, and time goes on", () => {
  const times = new Timestamps();
  times.at(1_000_000, 0);
  assertEquals(times.at(5, 5_000), 1_005_000);
  assertEquals(times.at(6, 10_000), 1_010_000);
  assertEquals(times.at(1_009_000, 10_000), 1_010_000);
  assertEquals(times.at(1_030_000, 20_000), 1_030_000);
});

Deno.test("no time to stamp lies before the floor", () => {
  const times = new Timestamps(500_000);
  assertEquals(times.at(7, 100), 500_000);
  assertEquals(times.at(8, 5_100), 505_000);
  assertEquals(times.at(600_000, 5_200), 600_000);
});
