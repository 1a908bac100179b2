/** lib/datagrams_plain: sockets that are closed and opened again. */
import { assertEquals } from "@std/assert";
import { Arena } from "../lib/arena.ts";
import { PlainDatagrams } from "../lib/datagrams_plain.ts";
import { fillEndpoint } from "../lib/endpoint.ts";

const LIMITS = { peers: 16, allowedIpNodes: 64, sessions: 16, txSlots: 130 };
const LOOPBACK = new Uint8Array([127, 0, 0, 1]);

Deno.test("a port is free once the socket that had it has settled, whatever was under way", async () => {
  const arena = new Arena(LIMITS);
  const datagrams = new PlainDatagrams(arena, () => {});
  const port = datagrams.open(0);
  for (let round = 0; round < 50; round++) {
    for (let i = 0; i < 20; i++) {
      fillEndpoint(arena, datagrams.endpointWord, LOOPBACK, port, 0);
      datagrams.add(arena.txPayload(1), 1_000, 0);
    }
    datagrams.flush();
    if (round % 2 === 1) await new Promise((resolve) => setTimeout(resolve, 1));
    datagrams.close();
    await datagrams.settled();
    assertEquals(datagrams.open(port), port);
  }
  datagrams.close();
  await datagrams.settled();
});
