/** lib/timestamp_store: what a restart goes on from. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Log } from "../lib/log.ts";
import { Suspends } from "../lib/suspends.ts";
import {
  SAVE_INTERVAL_MS,
  stateDirectory,
  TimestampStore,
} from "../lib/timestamp_store.ts";

const NOW_MS = 1_800_000_000_000;

/** A log that is kept. */
function keptLog(): Log & { readonly lines: string[] } {
  const lines: string[] = [];
  const keep = (text: string): void => void lines.push(text);
  return { lines, error: keep, verbose: keep };
}

/** Runs a test with a directory of its own. */
function withDirectory(
  name: string,
  test: (directory: string) => Promise<void>,
): void {
  Deno.test(name, async () => {
    const directory = Deno.makeTempDirSync();
    try {
      await test(directory);
    } finally {
      Deno.removeSync(directory, { recursive: true });
    }
  });
}

withDirectory(
  "the first start believes the clock and writes nothing",
  async (top) => {
    const log = keptLog();
    const store = new TimestampStore(`${top}/state`, "wg0", NOW_MS, log);
    assertEquals(store.floorMs, -Infinity);
    await store.close();
    assertEquals([...Deno.readDirSync(top)], []);
    assertEquals(log.lines, []);
  },
);

withDirectory(
  "a clock that is behind goes on after the last time used",
  async (top) => {
    const directory = `${top}/state`;
    const log = keptLog();
    const first = new TimestampStore(directory, "wg0", NOW_MS, log);
    first.used(NOW_MS + 0.5);
    first.used(NOW_MS + 5_000);
    await first.close();
    const path = `${directory}/wg0.timestamp`;
    assertEquals(Deno.readTextFileSync(path), `${NOW_MS + 5_000}\n`);
    assertEquals((Deno.statSync(directory).mode ?? 0) & 0o777, 0o700);
    assertEquals(log.lines, []);
    const right = new TimestampStore(directory, "wg0", NOW_MS + 6_000, log);
    assertEquals(right.floorMs, -Infinity);
    assertEquals(log.lines, []);
    // An interface of another name may have the same key.
    for (const name of ["wg0", "wg1"]) {
      const behind = new TimestampStore(directory, name, 86_400_000, log);
      assertEquals(behind.floorMs, NOW_MS + 5_000 + SAVE_INTERVAL_MS);
      assertMatch(log.lines.pop() ?? "", /clock is behind/);
    }
  },
);

withDirectory(
  "a killed daemon leaves a time that is ten minutes old at most",
  async (top) => {
    const store = new TimestampStore(top, "wg0", NOW_MS, keptLog());
    const writes: string[] = [];
    const path = `${top}/wg0.timestamp`;
    for (let ms = 0; ms <= 3 * SAVE_INTERVAL_MS; ms += SAVE_INTERVAL_MS / 4) {
      store.used(NOW_MS + ms);
      await store.settled();
      const saved = Number(Deno.readTextFileSync(path));
      assert(NOW_MS + ms - saved < SAVE_INTERVAL_MS);
      if (!writes.includes(String(saved))) writes.push(String(saved));
    }
    assertEquals(writes.length, 4, "and is seldom written");
    assertEquals([...Deno.readDirSync(top)].length, 1);
    await store.close();
  },
);

withDirectory("what is no time in the files is passed over", async (top) => {
  for (
    const [i, text] of ["", "x\n", "-5\n", "9e99\n", "999999999999999\n"]
      .entries()
  ) {
    Deno.writeTextFileSync(`${top}/wg${i}.timestamp`, text);
  }
  Deno.writeTextFileSync(`${top}/other`, `${NOW_MS * 2}\n`);
  const log = keptLog();
  const store = new TimestampStore(top, "wg0", NOW_MS, log);
  assertEquals(store.floorMs, -Infinity);
  await store.close();
  assertEquals(log.lines, []);
});

withDirectory("a place that cannot be written is told of once", async (top) => {
  const log = keptLog();
  Deno.writeTextFileSync(`${top}/file`, "");
  const store = new TimestampStore(`${top}/file`, "wg0", NOW_MS, log);
  store.used(NOW_MS);
  store.used(NOW_MS + 2 * SAVE_INTERVAL_MS);
  await store.close();
  assertEquals(log.lines.length, 1, log.lines.join("\n"));
  assertMatch(log.lines[0], /^cannot (read|write) .*wg0\.timestamp: /);
});

Deno.test("the directory is systemd's or wgd's own", () => {
  assertEquals(stateDirectory(() => undefined), "/var/lib/wgd");
  assertEquals(stateDirectory(() => ""), "/var/lib/wgd");
  assertEquals(stateDirectory(() => "/a:/b"), "/a");
  assertEquals(stateDirectory(() => "/dev/null"), undefined);
});

Deno.test("a suspension is seen once, and the clocks' jitter is none", () => {
  let suspendedMs = 70_000;
  const suspends = new Suspends(() => suspendedMs);
  assertEquals(suspends.happened(), false);
  suspendedMs += 3;
  assertEquals(suspends.happened(), false);
  suspendedMs += 4_000;
  assertEquals([suspends.happened(), suspends.happened()], [true, false]);
  suspendedMs += 60_000;
  assertEquals([suspends.happened(), suspends.happened()], [true, false]);
});
