/**
 * Worker of endpoint_test: writes endpoints whose words but the first are all
 * the same number.
 *
 * @module
 */
/// <reference lib="deno.worker" />
import { Arena, type ArenaLimits, HEADER } from "../../lib/arena.ts";
import { AF_INET6, writeEndpoint } from "../../lib/endpoint.ts";
import { ENDPOINT } from "../../lib/records.ts";

interface Task {
  readonly memory: WebAssembly.Memory;
  readonly limits: ArenaLimits;
  readonly rounds: number;
}

self.onmessage = ({ data }: MessageEvent<Task>): void => {
  const arena = new Arena(data.limits, data.memory);
  const block = HEADER.SCRATCH_ENDPOINT;
  arena.i32[block] = AF_INET6;
  for (let round = 1; round <= data.rounds; round++) {
    arena.i32.fill(round, block + 1, block + ENDPOINT.WORDS);
    writeEndpoint(arena, arena.peer(1), block);
  }
  self.postMessage("done");
};
