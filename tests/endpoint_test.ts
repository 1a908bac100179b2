/** lib/endpoint: endpoint blocks, their lock and the sticky source. */
import { assert, assertEquals } from "@std/assert";
import { Arena, HEADER } from "../lib/arena.ts";
import {
  AF_INET6,
  clearSource,
  describeEndpoint,
  fillEndpoint,
  isMapped,
  readEndpoint,
  sameEndpoint,
  writeEndpoint,
} from "../lib/endpoint.ts";
import { ENDPOINT, PEER } from "../lib/records.ts";
import { StoreLog, withProxies } from "./interleaving.ts";

const LIMITS = { peers: 2, allowedIpNodes: 1, sessions: 1, txSlots: 1 };
const BLOCK = HEADER.SCRATCH_ENDPOINT;
const OTHER = BLOCK + ENDPOINT.WORDS;
const IPV4 = Uint8Array.of(192, 0, 2, 7);
const IPV6 = Uint8Array.from({ length: 16 }, (_, i) => i === 0 ? 0xfe : i);

function newArena(): { arena: Arena; peer: number } {
  const arena = new Arena(LIMITS);
  return { arena, peer: arena.peer(1) };
}

Deno.test("a block is the kernel's sockaddr_in6 byte for byte", () => {
  const { arena } = newArena();
  fillEndpoint(arena, BLOCK, IPV6, 0x1234, 9);
  const bytes = arena.bytes(BLOCK, 28).slice();
  const expected = new Uint8Array(28);
  expected[0] = AF_INET6;
  expected.set([0x12, 0x34], 2);
  expected.set(IPV6, 8);
  expected[24] = 9;
  assertEquals(bytes, expected);
});

Deno.test("an IPv4 address becomes a mapped one and comes back as four bytes", () => {
  const { arena } = newArena();
  fillEndpoint(arena, BLOCK, IPV4, 51820, 0);
  assertEquals([...arena.bytes(BLOCK + ENDPOINT.ADDRESS, 16)], [
    ...new Array(10).fill(0),
    255,
    255,
    ...IPV4,
  ]);
  assert(isMapped(arena, BLOCK + ENDPOINT.ADDRESS));
  assertEquals(describeEndpoint(arena, BLOCK), {
    address: IPV4,
    port: 51820,
    scope: 0,
  });
});

Deno.test("an IPv6 address keeps its scope, and is not taken for a mapped one", () => {
  const { arena } = newArena();
  fillEndpoint(arena, BLOCK, IPV6, 1, 3);
  assert(!isMapped(arena, BLOCK + ENDPOINT.ADDRESS));
  assertEquals(describeEndpoint(arena, BLOCK), {
    address: IPV6,
    port: 1,
    scope: 3,
  });
});

Deno.test("ports use both bytes", () => {
  const { arena } = newArena();
  for (const port of [0, 1, 255, 256, 32_768, 65_535]) {
    fillEndpoint(arena, BLOCK, IPV4, port, 0);
    assertEquals(describeEndpoint(arena, BLOCK)?.port, port);
  }
});

Deno.test("a peer without an endpoint has none to read", () => {
  const { arena, peer } = newArena();
  assert(!readEndpoint(arena, peer, BLOCK));
  assertEquals(describeEndpoint(arena, BLOCK), undefined);
});

Deno.test("what is written is read, source included", () => {
  const { arena, peer } = newArena();
  fillEndpoint(arena, BLOCK, IPV4, 7, 0);
  arena.i32[BLOCK + ENDPOINT.IFINDEX] = 4;
  arena.i32.fill(0x0a0b0c0d, BLOCK + ENDPOINT.SOURCE, BLOCK + ENDPOINT.WORDS);
  assert(!sameEndpoint(arena, peer, BLOCK));
  writeEndpoint(arena, peer, BLOCK);
  assert(sameEndpoint(arena, peer, BLOCK));
  assert(readEndpoint(arena, peer, OTHER));
  assertEquals(
    arena.i32.slice(OTHER, OTHER + ENDPOINT.WORDS),
    arena.i32.slice(BLOCK, BLOCK + ENDPOINT.WORDS),
  );
});

Deno.test("every word of a block makes two endpoints differ", () => {
  const { arena, peer } = newArena();
  fillEndpoint(arena, BLOCK, IPV6, 7, 1);
  writeEndpoint(arena, peer, BLOCK);
  for (let word = 0; word < ENDPOINT.WORDS; word++) {
    arena.i32[BLOCK + word] ^= 1 << 20;
    assert(!sameEndpoint(arena, peer, BLOCK), `word ${word}`);
    arena.i32[BLOCK + word] ^= 1 << 20;
  }
  assert(sameEndpoint(arena, peer, BLOCK));
});

Deno.test("clearing the source leaves the far address and the neighbours alone", () => {
  const { arena, peer } = newArena();
  fillEndpoint(arena, BLOCK, IPV6, 7, 5);
  arena.i32.fill(-1, BLOCK + ENDPOINT.IFINDEX, BLOCK + ENDPOINT.WORDS);
  writeEndpoint(arena, peer, BLOCK);
  arena.setF64(peer + PEER.TX_BYTES_F64, 12345);
  clearSource(arena, peer);
  fillEndpoint(arena, BLOCK, IPV6, 7, 5);
  assert(sameEndpoint(arena, peer, BLOCK));
  assertEquals(arena.getF64(peer + PEER.TX_BYTES_F64), 12345);
});

Deno.test("a new address clears the source of the one before", () => {
  const { arena } = newArena();
  arena.i32.fill(-1, BLOCK, BLOCK + ENDPOINT.WORDS);
  fillEndpoint(arena, BLOCK, IPV4, 7, 0);
  assertEquals(arena.i32[BLOCK + ENDPOINT.IFINDEX], 0);
  assert(
    arena.i32.subarray(BLOCK + ENDPOINT.SOURCE, BLOCK + ENDPOINT.WORDS)
      .every((word) => word === 0),
  );
});

Deno.test("the lock is even between writes, and goes on past 2^31 and 2^32", () => {
  for (const start of [0, 0x7ffffffc, -4]) {
    const { arena, peer } = newArena();
    arena.i32[peer + PEER.ENDPOINT_LOCK] = start;
    fillEndpoint(arena, BLOCK, IPV4, 7, 0);
    for (let i = 1; i <= 4; i++) {
      writeEndpoint(arena, peer, BLOCK);
      clearSource(arena, peer);
      assert(readEndpoint(arena, peer, OTHER));
      const lock = arena.i32[peer + PEER.ENDPOINT_LOCK];
      assertEquals(lock, (start + 4 * i) | 0);
    }
  }
});

Deno.test("readers never see half of an endpoint while another thread writes", async () => {
  const { arena, peer } = newArena();
  const module = new URL("./memory/endpoint_writer.ts", import.meta.url);
  const worker = new Worker(module, { type: "module" });
  const done = new Promise<void>((resolve) => {
    worker.onmessage = (): void => resolve();
  });
  worker.postMessage({ memory: arena.memory, limits: LIMITS, rounds: 500_000 });
  let over = false;
  void done.then(() => over = true);
  const seen = new Set<number>();
  while (!over) {
    for (let i = 0; i < 5_000; i++) {
      if (!readEndpoint(arena, peer, OTHER)) continue;
      const words = arena.i32.subarray(OTHER + 1, OTHER + ENDPOINT.WORDS);
      assert(words.every((word) => word === words[0]), "torn");
      seen.add(words[0]);
    }
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  worker.terminate();
  assert(seen.size >= 1);
});

Deno.test("a reader sees a whole endpoint wherever a writer overtakes it", () => {
  const log = new StoreLog();
  withProxies(() => {
    const { arena, peer } = newArena();
    const recording = log.recording(arena);
    for (const round of [1, 2]) {
      arena.i32.fill(round, BLOCK, BLOCK + ENDPOINT.WORDS);
      log.update(() => writeEndpoint(recording, peer, BLOCK));
    }
    log.update(() => clearSource(recording, peer));
  });
  // Some stores before one load, then, after so many loads, one before each.
  const loadsOfCopy = ENDPOINT.WORDS + 2;
  for (let before = 0; before <= log.length; before++) {
    for (let at = 1; at <= 2 * loadsOfCopy; at++) {
      const resume = at <= loadsOfCopy ? at : at + loadsOfCopy;
      const burst = at <= loadsOfCopy ? at : at - loadsOfCopy;
      let loads = 0;
      const { arena, peer } = newArena();
      const replay = log.replay(arena, () => {
        loads++;
        return loads === burst ? before : loads > resume ? 1 : 0;
      });
      withProxies(() => readEndpoint(replay.arena, peer, OTHER));
      const words = [...arena.i32.subarray(OTHER, OTHER + ENDPOINT.WORDS)];
      const far = words.slice(0, ENDPOINT.IFINDEX);
      const source = words.slice(ENDPOINT.IFINDEX);
      assert(far.every((word) => word === far[0]), `${words}`);
      const cleared = far[0] === 2 && source.every((word) => word === 0);
      assert(cleared || source.every((word) => word === far[0]), `${words}`);
    }
  }
});
