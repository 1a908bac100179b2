/** What the service manager is told: how often, by whom, and over which socket. */
import { assertEquals, assertThrows } from "@std/assert";
import { notify, watchdogIntervalMs } from "../lib/notify.ts";
import { SysError } from "../lib/sys/libc.ts";
import "./bind_libc.ts";

const socket = "/run/manager";
const OWN = [70, 71];

Deno.test("signs of life come twice in the time that the manager waits", () => {
  assertEquals(
    watchdogIntervalMs(OWN, { socket, watchdogUs: "30000000" }),
    15_000,
  );
  assertEquals(watchdogIntervalMs(OWN, { socket, watchdogUs: "1" }), 1);
});

Deno.test("no sign of life where nobody waits for it", () => {
  for (const watchdogUs of [undefined, "", "0", "-5", "many", "1e9"]) {
    assertEquals(watchdogIntervalMs(OWN, { socket, watchdogUs }), undefined);
  }
  assertEquals(watchdogIntervalMs(OWN, { watchdogUs: "1000000" }), undefined);
});

Deno.test("a sign of life is given by the process that shall give it", () => {
  const of = (watchdogPid: string): number | undefined =>
    watchdogIntervalMs(OWN, { socket, watchdogUs: "2000", watchdogPid });
  assertEquals([of("70"), of("71"), of("7"), of("")], [1, 1, undefined, 1]);
});

Deno.test("without a service manager nothing is told", () => {
  assertEquals([notify("READY=1", {}), notify("READY=1", { socket: "" })], [
    false,
    false,
  ]);
});

Deno.test("a socket that nobody listens on, or that is none, is an error", () => {
  const absent = `${Deno.makeTempDirSync()}/absent`;
  assertThrows(
    () => notify("READY=1", { socket: absent }),
    SysError,
    `NOTIFY_SOCKET=${absent}`,
  );
  for (const wrong of ["relative/path", `/${"x".repeat(120)}`]) {
    assertThrows(() => notify("READY=1", { socket: wrong }), Error, "expected");
  }
});

for (const abstract of [false, true]) {
  Deno.test({
    name: `a manager hears it, by ${abstract ? "an abstract name" : "a path"}`,
    ignore: Deno.build.os !== "linux",
    sanitizeResources: true,
    async fn(): Promise<void> {
      const directory = Deno.makeTempDirSync();
      const path = `${directory}/manager`;
      const name = abstract ? `\0${path}` : path;
      const manager = Deno.listenDatagram({
        transport: "unixpacket",
        path: name,
      });
      try {
        const socket = abstract ? `@${path}` : path;
        assertEquals(notify("READY=1\nSTATUS=well", { socket }), true);
        const [bytes] = await manager.receive();
        assertEquals(
          new TextDecoder().decode(bytes),
          "READY=1\nSTATUS=well",
        );
      } finally {
        manager.close();
        Deno.removeSync(directory, { recursive: true });
      }
    },
  });
}
