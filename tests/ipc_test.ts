/** lib/ipc: the end of a UAPI socket. */
import { assert, assertEquals } from "@std/assert";
import { listenUapi, uapiPath } from "../lib/ipc.ts";
import "./bind_libc.ts";
import { saySkipped } from "./compile_helpers.ts";

const NAME = `wipc${Deno.pid}`;

/** A watch whose notices come when the test says so. */
class Watch {
  #closed = false;
  #deliver: (result: IteratorResult<Deno.FsEvent, undefined>) => void =
    () => {};

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Deno.FsEvent, undefined>> {
    return new Promise((resolve) => this.#deliver = resolve);
  }

  notify(): void {
    this.#deliver({ done: false, value: { kind: "any", paths: [] } });
  }

  // deno-lint-ignore require-await
  async return(): Promise<IteratorResult<Deno.FsEvent, undefined>> {
    this.close();
    return { done: true, value: undefined };
  }

  close(): void {
    if (this.#closed) throw new Deno.errors.BadResource("Bad resource ID");
    this.#closed = true;
  }
}

const why = Deno.build.os === "linux" && Deno.uid() === 0
  ? undefined
  : "needs root on Linux: it makes a socket in /var/run/wireguard";
const name = "a socket that is closed while its folder changes was not removed";
if (why !== undefined) saySkipped(name, why);
Deno.test({
  name,
  ignore: why !== undefined,
  sanitizeOps: true,
  sanitizeResources: true,
  async fn(): Promise<void> {
    const watch = new Watch();
    const watchFs = Deno.watchFs;
    Object.assign(Deno, { watchFs: () => watch });
    try {
      const server = await listenUapi(
        NAME,
        () => Promise.resolve(),
        (error) => {
          throw error;
        },
      );
      let removed = false;
      void server.removed.then(() => removed = true);
      // A notice that has come, and is looked at only after the end.
      watch.notify();
      server.stop();
      await new Promise((resolve) => setTimeout(resolve, 0));
      assertEquals(removed, false);
      assert(Deno.readDirSync("/var/run/wireguard").some(isOurs));
      server.remove();
    } finally {
      Object.assign(Deno, { watchFs });
    }
    assert(!Deno.readDirSync("/var/run/wireguard").some(isOurs));
    assertEquals(uapiPath(NAME), `/var/run/wireguard/${NAME}.sock`);
  },
});

function isOurs(entry: Deno.DirEntry): boolean {
  return entry.name.includes(NAME);
}
