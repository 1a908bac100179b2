/**
 * Assertions for bugs: conditions that no input, packet or configuration can
 * make false. Input errors have error types of their own and never come here.
 *
 * @module
 */

/** A broken invariant of wgd itself. */
export class BugError extends Error {
  override readonly name = "BugError";
}

/** Throws {@link BugError} with `message` unless `condition` holds. */
export function bug(condition: boolean, message: string): asserts condition {
  if (!condition) throw new BugError(message);
}
