/** The harness itself: what it makes goes, also when the tests are killed. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { exists } from "./daemon.ts";
import { labTest } from "./harness.ts";
import { Process, run, until } from "./process.ts";
import { findProgram, missing, moduleCommand } from "./requirements.ts";

for (const signal of ["SIGINT", "SIGKILL"] as const) {
  labTest(
    `a lab whose process ends by ${signal} is removed with all that runs in it`,
    { joined: false },
    async (lab) => {
      const child = lab.own(new Process(moduleCommand("lab_forever.ts")));
      await until("the lab", () => /ready/.test(child.said), 20_000);
      const prefix = `w${child.pid}`;
      const [, name, pid] = /ready (\S+) (\d+)/.exec(child.said) ?? [];
      assertMatch(await run(["ip", "netns", "list"]), new RegExp(`${prefix}-`));
      assert(exists(`/var/run/wireguard/${name}.sock`));
      child.signal(signal);
      await child.ended();
      await until("the namespaces to go", async () => {
        return !(await run(["ip", "netns", "list"])).includes(`${prefix}-`);
      });
      await until("the daemon to go", () => !exists(`/proc/${pid}`));
      await until(
        "the socket to go",
        () => !exists(`/var/run/wireguard/${name}.sock`),
      );
      const left = [...Deno.readDirSync("/tmp")].map((entry) => entry.name)
        .filter((entry) => entry.startsWith(`${prefix}-`));
      assertEquals(left, []);
    },
  );
}

Deno.test("what is missing is named, with how to get it", () => {
  assertEquals(findProgram("no-such-program"), undefined);
  assertMatch(missing(["no-such-program"]) ?? "", /^needs .*: /);
});
