/**
 * What service managers rely on: sd_notify(3) from up and run, the watchdog,
 * and the process that they watch.
 */
import { assert, assertEquals } from "@std/assert";
import { exists, socketPath } from "./daemon.ts";
import { labTest } from "./harness.ts";
import type { Lab } from "./lab.ts";
import { Process, until } from "./process.ts";
import { wgdCommand } from "./requirements.ts";
import { generateKeys } from "./tunnel.ts";

/** A service manager's socket, and what came by it. */
class Manager implements AsyncDisposable {
  readonly path: string;
  readonly said: string[] = [];
  readonly #socket: Deno.DatagramConn;
  readonly #reading: Promise<void>;

  constructor(lab: Lab) {
    this.path = `${lab.directory}/manager`;
    this.#socket = Deno.listenDatagram({
      transport: "unixpacket",
      path: this.path,
    });
    this.#reading = this.#read();
  }

  async #read(): Promise<void> {
    for await (const [bytes] of this.#socket) {
      this.said.push(new TextDecoder().decode(bytes));
    }
  }

  /** Environment of what is started under it. */
  env(): Record<string, string> {
    return { NOTIFY_SOCKET: this.path, WATCHDOG_USEC: "200000" };
  }

  signs(): number {
    return this.said.filter((text) => text === "WATCHDOG=1").length;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#socket.close();
    await this.#reading;
  }
}

async function ended(name: string): Promise<void> {
  await until("the daemon to end", () => !exists(socketPath(name)));
}

labTest(
  "under a service manager, wgd run -f says that it is ready, and lives",
  {
    joined: false,
  },
  async (lab) => {
    await using manager = new Manager(lab);
    const name = await lab.interfaceName();
    const daemon = lab.own(
      new Process(
        lab.a.argv([...wgdCommand(), "run", "-f", name]),
        manager.env(),
      ),
    );
    await until("READY=1", () => manager.said.includes("READY=1"));
    assert(exists(socketPath(name)), "ready before its socket is there");
    await until("signs of life", () => manager.signs() >= 3);
    daemon.signal("SIGTERM");
    assertEquals((await daemon.ended()).code, 0, daemon.said);
    const said = manager.said.filter((text) => text !== "WATCHDOG=1");
    assertEquals(said, ["READY=1"]);
  },
);

for (const how of ["up", "run"] as const) {
  labTest(`under a service manager, wgd ${how} hands over to its daemon`, {
    joined: false,
  }, async (lab) => {
    await using manager = new Manager(lab);
    const name = await lab.interfaceName();
    const { private: key } = await generateKeys();
    const path = lab.file(
      `[Interface]\nPrivateKey = ${key}\nAddress = 10.9.0.1/24\n`,
      `${name}.conf`,
    );
    // The shell lets go of the daemon's stderr.
    const script = `exec 2>${lab.directory}/log; export WATCHDOG_PID=$$
exec "$@"`;
    const argument = how === "up" ? path : name;
    await lab.a.run([
      ...["sh", "-c", script, "sh", ...wgdCommand()],
      ...[how, argument],
    ], { env: manager.env() });
    await until("READY=1", () => manager.said.includes("READY=1"));
    const [first, ...more] = manager.said.filter((text) =>
      text !== "WATCHDOG=1"
    );
    const pid = Number(/^MAINPID=(\d+)$/.exec(first)?.[1]);
    assertEquals(more, ["READY=1"]);
    const command = Deno.readTextFileSync(`/proc/${pid}/cmdline`);
    assert(command.includes(`\0${name}\0`), command);
    await until("signs of life", () => manager.signs() >= 3);
    if (how === "up") await lab.a.run([...wgdCommand(), "down", path]);
    else await lab.a.ip("link", "delete", name);
    await ended(name);
    assert(!manager.said.includes("STOPPING=1"));
  });
}
