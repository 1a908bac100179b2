/**
 * The run-time self-tests of the tables: run by `wgd selftest` and by the tests.
 * Pure: each builds its own arena and touches nothing else.
 *
 * @module
 */
import { aeadSelftest } from "./aead.ts";
import { allowedIpsSelftest } from "./allowedips.ts";
import { queueingSelftest } from "./queueing.ts";
import { rateLimiterSelftest } from "./ratelimiter.ts";
import { replaySelftest } from "./replay.ts";

/** One self-test: `run` throws if it fails. */
export interface Selftest {
  readonly name: string;
  run(): void;
}

/** All self-tests, in the order in which they run. */
export const selftests: readonly Selftest[] = [
  { name: "allowed IPs", run: allowedIpsSelftest },
  { name: "replay counter", run: replaySelftest },
  { name: "rate limiter", run: rateLimiterSelftest },
  { name: "MPSC queue", run: queueingSelftest },
  { name: "AEAD", run: aeadSelftest },
];
