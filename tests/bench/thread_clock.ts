/**
 * CPU time of this thread: what a benchmark goes by where others share the cores.
 *
 * @module
 */

const CLOCK_THREAD_CPUTIME_ID = 3;
const NS_PER_MS = 1e6;

const libc = Deno.dlopen("libc.so.6", {
  // int, struct timespec *
  clock_gettime: { parameters: ["i32", "buffer"], result: "i32" },
});
const timespec = new BigInt64Array(2);
const bytes = new Uint8Array(timespec.buffer);

/** Milliseconds, with a fraction. */
export function threadCpuMs(): number {
  libc.symbols.clock_gettime(CLOCK_THREAD_CPUTIME_ID, bytes);
  return Number(timespec[0]) * 1000 + Number(timespec[1]) / NS_PER_MS;
}
