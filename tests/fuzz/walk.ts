/**
 * Fuzz target: the walk over the datagrams of one message, with any length and
 * any size that a kernel may say. An input is three 32-bit numbers (offset,
 * length, size), as often as they come.
 *
 * @module
 */
import type { SegmentWalk } from "../../lib/segments.ts";
import type { Target } from "./engine.ts";
import { check } from "./memory.ts";

const LENGTH_MAX = 48;
const NUMBERS_BYTES = 12;
/** Messages are not longer, as a slot is not. */
const MESSAGE_MASK = 0x1ffff;
/** Segments of a message: more of them are the same again. */
const COUNT_MAX = 1000;

/** Fuzzes the walk over segments. */
export class WalkTarget implements Target {
  readonly name = "walk";
  readonly lengthMax = LENGTH_MAX;
  readonly words: readonly Uint8Array[] = [];
  readonly #walk: SegmentWalk;

  constructor(Walk: typeof SegmentWalk) {
    this.#walk = new Walk();
  }

  run(input: Uint8Array): string {
    const view = new DataView(input.buffer, input.byteOffset, input.length);
    let signature = "";
    for (let at = 0; at + NUMBERS_BYTES <= input.length; at += NUMBERS_BYTES) {
      const offset = view.getUint32(at, true);
      const size = view.getInt32(at + 8, true);
      const most = size > 0 ? size * COUNT_MAX + 1 : MESSAGE_MASK;
      const length = (view.getUint32(at + 4, true) & MESSAGE_MASK) % most;
      signature += this.#one(offset, length, size);
    }
    return signature;
  }

  #one(offset: number, length: number, size: number): string {
    const walk = this.#walk;
    const each = size > 0 ? size : length;
    const count = length === 0 ? 0 : Math.ceil(length / each);
    let end = offset;
    let i = 0;
    for (walk.start(offset, length, size); walk.next(); i++) {
      check(walk.index === i, `segment ${walk.index} is the ${i}th`);
      check(walk.offset === end, `segment ${i} is at ${walk.offset}`);
      check(
        walk.length > 0 && walk.length <= each,
        `segment ${i} has ${walk.length} bytes`,
      );
      check(walk.length === each || walk.last, `segment ${i} is short`);
      end += walk.length;
      check(end <= offset + length, `segment ${i} ends behind the message`);
      check(walk.last === (i === count - 1), `segment ${i} is not the last`);
    }
    check(i === count, `${i} segments for ${count}`);
    check(end === offset + length, "bytes were left");
    check(!walk.next(), "there is a segment behind the last");
    return `${Math.min(count, 3)}${size > length ? "+" : ""}${
      size <= 0 ? "-" : ""
    }`;
  }
}
