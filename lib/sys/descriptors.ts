/**
 * Descriptors that this process opened by system calls of its own, counted, so
 * that one that is forgotten shows. Deno counts those that it opened itself.
 * Control's thread alone opens and closes.
 *
 * @module
 */
import { bug } from "../assert.ts";
import { check, libc } from "./libc.ts";

let open = 0;

/** Counts what a call opened. @throws SysError where it failed */
export function opened(fd: number, call: string): number {
  check(fd, call);
  open++;
  return fd;
}

/** Closes what {@link opened} counted. */
export function closeDescriptor(fd: number): void {
  bug(libc().close(fd) === 0, "a descriptor is closed once");
  open--;
}

/** Descriptors open now. */
export function descriptorsOpen(): number {
  return open;
}
