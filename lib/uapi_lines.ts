/**
 * Bytes of a UAPI connection to lines, with a bound on their length, and the
 * errno values that the protocol speaks of. Pure.
 *
 * @module
 */

/** No line of the protocol is longer; the longest has about 120 bytes. */
export const UAPI_LINE_MAX = 4096;

/**
 * No request is longer: room for a million peers with some allowed IPs each.
 */
export const UAPI_REQUEST_MAX_BYTES = 2 ** 30;

/** The error numbers (Linux) that the protocol carries. */
export const UAPI_ERRNO = {
  EIO: 5,
  EINVAL: 22,
  EPROTO: 71,
  EADDRINUSE: 98,
} as const;

/** A line longer than {@linkcode UAPI_LINE_MAX}. */
export class LineTooLongError extends Error {
  /** The class\'s name. */
  override readonly name = "LineTooLongError";
}

/** Splits a stream of bytes into lines. */
export class LineSplitter {
  readonly #decoder = new TextDecoder();
  #text = "";
  #position = 0;

  /** Adds bytes; take all lines out with `next` before adding more. */
  push(chunk: Uint8Array): void {
    const rest = this.#text.slice(this.#position);
    this.#text = rest + this.#decoder.decode(chunk, { stream: true });
    this.#position = 0;
  }

  /**
   * The next whole line without its end (LF or CR LF); null if there is none
   * yet.
   *
   * @throws {LineTooLongError}
   */
  next(): string | null {
    const end = this.#text.indexOf("\n", this.#position);
    const length = (end < 0 ? this.#text.length : end) - this.#position;
    if (length > UAPI_LINE_MAX) throw new LineTooLongError("line too long");
    if (end < 0) return null;
    const hasReturn = length > 0 && this.#text[end - 1] === "\r";
    const line = this.#text.slice(this.#position, hasReturn ? end - 1 : end);
    this.#position = end + 1;
    return line;
  }
}
