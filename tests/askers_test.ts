/** Sources that ask again for a cookie, told from those that do not. */
import { assert, assertEquals } from "@std/assert";
import { Arena, HEADER } from "../lib/arena.ts";
import { Askers } from "../lib/askers.ts";
import { fillEndpoint } from "../lib/endpoint.ts";
import { REKEY_TIMEOUT_MS } from "../lib/messages.ts";

const arena = new Arena({
  peers: 1,
  allowedIpNodes: 1,
  sessions: 1,
  txSlots: 1,
});

function makeAskers(): Askers {
  return new Askers(arena, new Uint8Array(16).map((_, i) => i));
}

/** Endpoint number `n`, or with other addresses: all differ. */
function source(n: number, network = 11, port = 1000 + n % 60_000): number {
  const address = Uint8Array.of(network, n >> 16, n >> 8, n);
  fillEndpoint(arena, HEADER.SCRATCH_ENDPOINT, address, port, 0);
  return HEADER.SCRATCH_ENDPOINT;
}

Deno.test("who asks after REKEY_TIMEOUT asks again, as an initiator does", () => {
  for (const laterMs of [REKEY_TIMEOUT_MS, 5_333, 10_000, 10_667]) {
    const askers = makeAskers();
    assertEquals(askers.asksAgain(source(1), 1_000), false);
    assertEquals(askers.asksAgain(source(1), 1_000 + laterMs), true);
    assertEquals(askers.asksAgain(source(1), 1_001 + laterMs), false);
    const third = 1_000 + laterMs + REKEY_TIMEOUT_MS;
    assertEquals(askers.asksAgain(source(1), third), true);
  }
});

Deno.test("who repeats sooner or much later does not", () => {
  const askers = makeAskers();
  let again = 0;
  for (let ms = 0; ms < 4_000; ms += 10) {
    if (askers.asksAgain(source(1), ms)) again++;
  }
  assertEquals(again, 0);
  for (let ms = 4_000; ms < 60_000; ms += 10) {
    if (askers.asksAgain(source(1), ms)) again++;
  }
  assert(again >= 10 && again <= 60_000 / (REKEY_TIMEOUT_MS - 1_000));
  assertEquals(askers.asksAgain(source(2), 60_000), false);
  assertEquals(askers.asksAgain(source(2), 75_000), false);
});

Deno.test("another port, another address, IPv6 too, is another source", () => {
  const askers = makeAskers();
  askers.asksAgain(source(1), 0);
  assertEquals(askers.asksAgain(source(1, 11, 9), 5_000), false);
  assertEquals(askers.asksAgain(source(1, 12), 5_000), false);
  const v6 = new Uint8Array(16).fill(9);
  const at = HEADER.SCRATCH_ENDPOINT;
  fillEndpoint(arena, at, v6, 1, 0);
  askers.asksAgain(at, 5_000);
  assertEquals(askers.asksAgain(at, 10_000), true);
  fillEndpoint(arena, at, v6.with(15, 8), 1, 0);
  assertEquals(askers.asksAgain(at, 10_000), false);
});

Deno.test("in a flood of 50,000 forged sources a second most initiators are known again", () => {
  const askers = makeAskers();
  const INITIATORS = 200;
  for (let i = 0; i < INITIATORS; i++) askers.asksAgain(source(i, 10), 0);
  let forged = 0;
  for (let i = 0; i < 250_000; i++) {
    if (askers.asksAgain(source(i), i / 50)) forged++;
  }
  let known = 0;
  for (let i = 0; i < INITIATORS; i++) {
    if (askers.asksAgain(source(i, 10), 5_000)) known++;
  }
  assert(known > INITIATORS * 0.65, `${known} of ${INITIATORS} initiators`);
  assert(forged < 250, `${forged} of 250,000 forged sources`);
});

Deno.test("what is forgotten is not known again", () => {
  const askers = makeAskers();
  askers.asksAgain(source(1), 0);
  askers.forget();
  assertEquals(askers.asksAgain(source(1), 5_000), false);
});
