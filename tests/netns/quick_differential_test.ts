/**
 * Generated files through stock wg-quick, with wgd as its daemon, and through
 * wgd: `strip`, `up`, `save` and `down` of each give the same bytes on stdout,
 * the same device, system and file afterwards, and the same outcome: where
 * wg-quick fails, wgd does, and neither leaves anything.
 *
 * What differs from wg-quick 1.0.20210914 on purpose, and is not compared:
 *
 * - what is wrong in a file is told before anything is done, so that the hooks
 *   before it have not run;
 * - a failure is status 1; wg-quick ends with the status of what failed;
 * - wg-quick leaves net.ipv4.conf.all.src_valid_mark at 1;
 * - PreUp runs when the interface is there, as with later versions;
 * - of several endpoints' MTUs the smallest counts, as with later versions;
 * - `#` in a hook is a part of it, as with later versions;
 * - a name that has no address does not keep the interface from coming up;
 * - an address that is there twice is added once;
 * - `save` keeps search domains, and `&` in hooks, each of which wg-quick
 *   replaces by `[Interface]` where bash is 5.2 or later (the last test here).
 *
 * `WGD_QUICK_ROUNDS` says how many files there are for each seed.
 */
import { assert, assertEquals } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { type Finished, until } from "./process.ts";
import { type QuickFile, QuickSource } from "./quick_configs.ts";
import {
  comparable,
  dump,
  echoed,
  runWith,
  STOCK,
  wgd,
  writeResolvconf,
  writeWgd,
} from "./quick_lab.ts";
import { wgdCommand } from "./requirements.ts";
import { generateKeys, OUTER } from "./tunnel.ts";

const ROUNDS = Number(Deno.env.get("WGD_QUICK_ROUNDS") ?? 10);
const SEEDS = [21, 22];

/** What came of one operation. */
interface Outcome {
  readonly failed: boolean;
  readonly stdout: string;
  /** Commands that were run for routes, addresses and hooks. */
  readonly commands: readonly string[];
  readonly system: string;
  readonly device: string;
  readonly file: string;
}

/** One file, put through the operations by one of the programs. */
class Subject {
  readonly #lab: Lab;
  readonly #name: string;
  readonly #file: QuickFile;
  readonly #path: string;

  constructor(lab: Lab, name: string, file: QuickFile) {
    this.#lab = lab;
    this.#name = name;
    this.#file = file;
    this.#path = lab.file(file.text, `${name}.conf`);
  }

  async outcomes(program: readonly string[]): Promise<Outcome[]> {
    Deno.writeTextFileSync(this.#path, this.#file.text);
    const found: Outcome[] = [];
    for (const verb of ["strip", "up", "save", "down"]) {
      const argv = [...program, verb, this.#path];
      // Not by pipes, which the daemon would hold.
      const log = `${this.#lab.directory}/log`;
      const shell = ["sh", "-c", `exec "$@" >${log}.1 2>${log}.2`, "sh"];
      const { code } = await runWith(this.#lab, [...shell, ...argv]);
      const finished = {
        code,
        stdout: Deno.readTextFileSync(`${log}.1`),
        stderr: Deno.readTextFileSync(`${log}.2`),
      };
      found.push(await this.#outcome(verb, finished));
    }
    return found;
  }

  async #outcome(verb: string, finished: Finished): Promise<Outcome> {
    const { code, stdout, stderr } = finished;
    const failed = code !== 0;
    const isUp = !failed && verb !== "strip" && verb !== "down";
    if (verb === "down" || (verb === "up" && failed)) {
      const path = socketPath(this.#name);
      await until("the daemon to end", () => !exists(path), 20_000);
      const valid = "net.ipv4.conf.all.src_valid_mark=0";
      await this.#lab.a.run(["sysctl", "-q", valid]);
    }
    const device = isUp
      ? await this.#lab.a.run(["wg", "showconf", this.#name])
      : "";
    return {
      failed,
      // What a file that is refused whole would have printed.
      stdout: failed ? "" : stdout,
      commands: failed
        ? []
        : echoed(stderr).filter((line) =>
          verb === "up" || /route (add|delete)|echo/.test(line)
        ),
      system: verb === "up" || verb === "down"
        ? comparable(await dump(this.#lab))
        : "",
      device: this.#anyPort(device),
      file: this.#servers(this.#anyPort(Deno.readTextFileSync(this.#path))),
    };
  }

  /** Without search domains. */
  #servers(text: string): string {
    return text.replace(/^DNS = [a-z.]*[g-z].*\n/gm, "");
  }

  #anyPort(text: string): string {
    return this.#file.hasPort
      ? text
      : text.replace(/^ListenPort = \d+$/m, "ListenPort = any");
  }
}

for (const seed of SEEDS) {
  labTest(
    `${ROUNDS} generated files end alike by wg-quick and by wgd (seed ${seed})`,
    STOCK,
    async (lab) => {
      writeResolvconf(lab);
      writeWgd(lab);
      const via = ["via", OUTER.v4.b];
      await lab.a.ip("route", "add", "default", ...via, "mtu", "1444");
      await lab.a.ip("route", "add", "203.0.113.0/24", ...via, "mtu", "1400");
      const name = await lab.interfaceName();
      const source = new QuickSource(seed);
      const before = comparable(await dump(lab));
      let up = 0;
      for (let round = 0; round < ROUNDS; round++) {
        const file = source.file();
        const subject = new Subject(lab, name, file);
        const what = `round ${round}:\n${file.text}`;
        const theirs = await subject.outcomes(["wg-quick"]);
        const ours = await subject.outcomes(wgdCommand());
        assertEquals(ours, theirs, what);
        assertEquals(ours[3].system, before, what);
        if (file.isWrong) assert(ours[1].failed, what);
        if (!ours[1].failed) up++;
      }
      assert(up > ROUNDS / 2, `${up} came up`);
    },
  );
}

labTest("wgd save keeps what wg-quick save loses", {}, async (lab) => {
  writeResolvconf(lab);
  const { private: key } = await generateKeys();
  const name = await lab.interfaceName();
  const lines = `DNS = 10.9.0.2
DNS = corp.example
PostUp = true && true %i
PostDown = true & wait
`;
  const text = `[Interface]\n${lines}ListenPort = 7\nPrivateKey = ${key}\n`;
  const path = lab.file(text, `${name}.conf`);
  await wgd(lab, "up", path);
  await wgd(lab, "save", path);
  await wgd(lab, "down", path);
  assertEquals(Deno.readTextFileSync(path), text);
});
