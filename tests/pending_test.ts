/** Endpoints by name in the daemon: when they are looked up, tried, given up. */
import { assertEquals } from "@std/assert";
import {
  type Endpoint,
  formatSocketAddress,
  parseSocketAddress,
  type SocketAddress,
} from "../lib/ip.ts";
import { type PeerProgress, PendingEndpoints } from "../lib/pending.ts";
import { UAPI_ERRNO, UapiSetParser } from "../lib/uapi.ts";
import type { UapiSink } from "../lib/uapi.ts";

const KEY = "11".repeat(32);
const NAME: Endpoint = { host: "b.example", port: 5 };

/** A world with one peer, whose time passes when told. */
class World {
  /** Undefined: it is gone. */
  peer: { -readonly [K in keyof PeerProgress]: PeerProgress[K] } | undefined = {
    endpoint: undefined,
    isConnected: false,
    txBytes: 0,
  };
  /** What the name has now; empty: no address. */
  addresses: string[] = [];
  lookups = 0;
  readonly delays: number[] = [];
  readonly logged: string[] = [];
  #next: (() => void) | undefined;
  readonly pending = new PendingEndpoints({
    resolve: (endpoint): Promise<SocketAddress[]> => {
      assertEquals(endpoint, NAME);
      this.lookups++;
      return this.addresses.length === 0
        ? Promise.reject(new Error("no answer"))
        : Promise.resolve(
          this.addresses.flatMap((text) => parseSocketAddress(text) ?? []),
        );
    },
    progress: (key) => {
      assertEquals(key, KEY);
      return this.peer && { ...this.peer };
    },
    setEndpoint: (_, to) => {
      if (this.peer) this.peer.endpoint = formatSocketAddress(to);
    },
    schedule: (then, ms) => {
      this.delays.push(ms);
      this.#next = then;
      return () => {
        if (this.#next === then) this.#next = undefined;
      };
    },
    log: (line) => this.logged.push(line),
  });

  /** Names the peer's endpoint, and waits for the answer. */
  async add(): Promise<void> {
    this.pending.add(KEY, NAME);
    await settle();
  }

  /** Lets time pass until what was to happen next has. @returns whether it did */
  async pass(): Promise<boolean> {
    const next = this.#next;
    this.#next = undefined;
    next?.();
    await settle();
    return next !== undefined;
  }

  /** The peer sends, and gets no answer. */
  send(): void {
    if (this.peer) this.peer.txBytes = Number(this.peer.txBytes) + 148;
  }
}

async function settle(): Promise<void> {
  for (let i = 0; i < 10; i++) await Promise.resolve();
}

Deno.test("a name without an address is looked up again, later and later, at most every 20 s", async () => {
  const world = new World();
  await world.add();
  for (let i = 0; i < 30; i++) {
    assertEquals(world.pending.nameOf(KEY), "b.example:5");
    await world.pass();
  }
  assertEquals(world.lookups, 31);
  assertEquals(world.delays.slice(0, 3).map(Math.round), [1000, 1200, 1440]);
  assertEquals(world.delays.at(-1), 20_000);
  world.addresses = ["10.0.0.1:5"];
  await world.pass();
  assertEquals(world.peer?.endpoint, "10.0.0.1:5");
  assertEquals(world.pending.nameOf(KEY), undefined);
  assertEquals(
    world.logged.at(-1),
    "the endpoint b.example:5 has an address now",
  );
});

Deno.test("addresses are tried in turn while handshakes go unanswered, then looked up again", async () => {
  const world = new World();
  world.addresses = ["10.0.0.1:5", "[fd00::1]:5"];
  await world.add();
  const tried: (string | undefined)[] = [];
  for (let i = 0; i < 4; i++) {
    tried.push(world.peer?.endpoint);
    if (i === 1) world.addresses = ["[fd00::1]:5", "10.0.0.2:5"];
    world.send();
    await world.pass();
  }
  // Looked up again, it begins after the one that was tried last.
  assertEquals(tried, [
    "10.0.0.1:5",
    "[fd00::1]:5",
    "10.0.0.2:5",
    "[fd00::1]:5",
  ]);
  assertEquals(world.lookups, 3);
});

Deno.test("an address that nothing is sent to is kept", async () => {
  const world = new World();
  world.addresses = ["10.0.0.1:5", "10.0.0.2:5"];
  await world.add();
  for (let i = 0; i < 5; i++) assertEquals(await world.pass(), true);
  assertEquals(world.peer?.endpoint, "10.0.0.1:5");
  assertEquals(world.lookups, 1);
});

Deno.test("a session ends the trying", async () => {
  const world = new World();
  world.addresses = ["10.0.0.1:5", "10.0.0.2:5"];
  await world.add();
  if (world.peer) world.peer.isConnected = true;
  world.send();
  await world.pass();
  assertEquals(world.peer?.endpoint, "10.0.0.1:5");
  assertEquals(world.pending.size, 0);
  assertEquals(await world.pass(), false);
});

Deno.test("an endpoint from elsewhere ends it: while waiting, and while being looked up", async () => {
  const world = new World();
  await world.add();
  if (world.peer) world.peer.endpoint = "10.9.9.9:9";
  world.addresses = ["10.0.0.1:5"];
  await world.pass();
  assertEquals(world.pending.size, 0);
  assertEquals(world.lookups, 1);

  const second = new World();
  second.addresses = ["10.0.0.1:5"];
  second.pending.add(KEY, NAME);
  if (second.peer) second.peer.endpoint = "10.9.9.9:9";
  await settle();
  assertEquals(second.peer?.endpoint, "10.9.9.9:9");
  assertEquals(second.pending.size, 0);
});

Deno.test("a peer that is gone, cancelled or closed is not looked up again", async () => {
  for (const how of ["gone", "cancelled", "closed"]) {
    const world = new World();
    await world.add();
    if (how === "gone") world.peer = undefined;
    if (how === "cancelled") world.pending.cancel(KEY);
    if (how === "closed") world.pending.close();
    await world.pass();
    assertEquals(world.lookups, 1, how);
    assertEquals(world.pending.size, 0, how);
  }
});

Deno.test("an answer that comes after the name was cancelled has no effect", async () => {
  const world = new World();
  world.addresses = ["10.0.0.1:5"];
  world.pending.add(KEY, NAME);
  world.pending.cancel(KEY);
  await settle();
  assertEquals(world.peer?.endpoint, undefined);
  assertEquals(world.logged, []);
});

Deno.test("a name for a peer that has an address is kept for when that does not answer", async () => {
  const world = new World();
  world.addresses = ["10.0.0.1:5", "10.0.0.2:5"];
  if (world.peer) world.peer.endpoint = "10.0.0.1:5";
  await world.add();
  assertEquals(world.lookups, 0);
  assertEquals(world.pending.nameOf(KEY), undefined);
  world.send();
  await world.pass();
  assertEquals(world.peer?.endpoint, "10.0.0.2:5");
});

Deno.test("UAPI: endpoint_name reaches the device; one that cannot look up refuses it", () => {
  const names: string[] = [];
  const sink = {
    findPeer: (): number => 7,
    peerDone: (): void => {},
  } as unknown as UapiSink;
  const set = (device: UapiSink): number => {
    const parser = new UapiSetParser(device);
    parser.line(`public_key=${KEY}`);
    parser.line("update_only=true");
    parser.line("endpoint_name=b.example:5");
    return parser.end();
  };
  assertEquals(set(sink), UAPI_ERRNO.EINVAL);
  const able = {
    ...sink,
    setEndpointName: (peer: number, name: string): number => {
      names.push(`${peer} ${name}`);
      return 0;
    },
  };
  assertEquals(set(able), 0);
  assertEquals(names, ["7 b.example:5"]);
});
