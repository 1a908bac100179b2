/**
 * Holds Ethernet frames back: what comes by a TAP goes back by the same TAP a
 * while later. See wire.ts, which sends some of the wire's frames this way.
 * Arguments: milliseconds, names of TAPs, which it makes; it says "ready".
 */
import { check, ERRNO, errno, libc, SysError } from "../../lib/sys/libc.ts";

const O_RDWR = 2;
const O_NONBLOCK = 0x800;
const TUNSETIFF = 0x400454ca;
const IFF_TAP_NO_PI = 0x1002;
const IFREQ_BYTES = 40;
const IFREQ_FLAGS = 16;
const POLLIN = 1;
const POLLFD_WORDS = 2;
/** The wire's MTU and the Ethernet header fit. */
const FRAME_MAX = 2048;
/** Frames held at once, by each TAP. */
const HELD_MAX = 8192;

const c = libc();

/** A TAP and its frames, oldest first, in a ring. */
class Tap {
  readonly fd: number;
  readonly #frames = new Uint8Array(HELD_MAX * FRAME_MAX);
  readonly #lengths = new Int32Array(HELD_MAX);
  readonly #dueMs = new Float64Array(HELD_MAX);
  #first = 0;
  #next = 0;

  constructor(name: string) {
    const path = new TextEncoder().encode("/dev/net/tun\0");
    this.fd = check(c.open(path, O_RDWR | O_NONBLOCK, 0), "open /dev/net/tun");
    const ifreq = new Uint8Array(IFREQ_BYTES);
    ifreq.set(new TextEncoder().encode(name));
    new DataView(ifreq.buffer).setUint16(IFREQ_FLAGS, IFF_TAP_NO_PI, true);
    check(c.ioctl(this.fd, TUNSETIFF, ifreq), `make ${name}`);
  }

  #frame(i: number): Uint8Array<ArrayBuffer> {
    const at = (i % HELD_MAX) * FRAME_MAX;
    return this.#frames.subarray(at, at + FRAME_MAX);
  }

  /** Takes what has come, as far as there is room; the rest waits. */
  take(holdMs: number): void {
    while (this.#next - this.#first < HELD_MAX) {
      const slot = this.#next % HELD_MAX;
      const length = c.read(this.fd, this.#frame(this.#next), FRAME_MAX);
      if (length < 0) {
        // EIO: not up yet.
        const why = errno();
        if (why === ERRNO.EAGAIN || why === ERRNO.EIO) return;
        throw new SysError("read a frame", why);
      }
      this.#lengths[slot] = length;
      this.#dueMs[slot] = performance.now() + holdMs;
      this.#next++;
    }
  }

  /** Gives back what has been held long enough. @returns ms until the next */
  release(): number {
    while (this.#first < this.#next) {
      const slot = this.#first % HELD_MAX;
      const waitMs = this.#dueMs[slot] - performance.now();
      if (waitMs > 0) return Math.ceil(waitMs);
      c.write(this.fd, this.#frame(this.#first), this.#lengths[slot]);
      this.#first++;
    }
    return -1;
  }
}

const [hold, ...names] = Deno.args;
const taps = names.map((name) => new Tap(name));
const pollfds = new Int32Array(taps.length * POLLFD_WORDS);
taps.forEach(({ fd }, i) => pollfds.set([fd, POLLIN], i * POLLFD_WORDS));
Deno.stdout.writeSync(new TextEncoder().encode("ready\n"));
for (;;) {
  for (const tap of taps) tap.take(Number(hold));
  const waits = taps.map((tap) => tap.release()).filter((ms) => ms >= 0);
  c.poll(pollfds, taps.length, waits.length > 0 ? Math.min(...waits) : -1);
}
