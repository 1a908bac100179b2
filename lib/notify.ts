/**
 * What the service manager is told, by the protocol of sd_notify(3): datagrams
 * to the socket that NOTIFY_SOCKET names. Nothing is told where there is none.
 *
 * @module
 */
import { errno, libc, SysError } from "./sys/libc.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0x80000;
const MSG_NOSIGNAL = 0x4000;
const FAMILY_BYTES = 2;
const ADDRESS_BYTES = 110;
/** Signs of life come this many times in the time that the manager waits. */
const SIGNS_PER_TIMEOUT = 2;

/** Who is told; `undefined` where no service manager listens. */
export interface NotifyEnvironment {
  /** NOTIFY_SOCKET: a path, or a name that begins with `@`. */
  readonly socket?: string;
  /** WATCHDOG_USEC: the manager waits this long for a sign of life. */
  readonly watchdogUs?: string;
  /** WATCHDOG_PID: the process that shall give it. */
  readonly watchdogPid?: string;
}

/** What the environment of this process says. */
export function notifyEnvironment(): NotifyEnvironment {
  return {
    socket: Deno.env.get("NOTIFY_SOCKET"),
    watchdogUs: Deno.env.get("WATCHDOG_USEC"),
    watchdogPid: Deno.env.get("WATCHDOG_PID"),
  };
}

/**
 * Tells the service manager.
 *
 * @param state lines as `READY=1`
 * @returns whether there is one to be told
 * @throws SysError when the socket does not take it
 */
export function notify(
  state: string,
  { socket }: NotifyEnvironment = notifyEnvironment(),
): boolean {
  if (socket === undefined || socket === "") return false;
  const address = addressOf(socket);
  const message = new TextEncoder().encode(state);
  const c = libc();
  const fd = c.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new SysError("open a socket for NOTIFY_SOCKET", errno());
  try {
    const told = c.connect(fd, address, address.length) === 0 &&
      c.send(fd, message, message.length, MSG_NOSIGNAL) === message.length;
    if (!told) throw new SysError(`NOTIFY_SOCKET=${socket}`, errno());
  } finally {
    c.close(fd);
  }
  return true;
}

/** A `sockaddr_un`, as long as its name. */
function addressOf(socket: string): Uint8Array<ArrayBuffer> {
  const name = new TextEncoder().encode(socket);
  const address = new Uint8Array(FAMILY_BYTES + name.length);
  if (address.length > ADDRESS_BYTES || !/^[@/]/.test(socket)) {
    throw new Error(`NOTIFY_SOCKET=${socket}: expected a path or @name`);
  }
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(name, FAMILY_BYTES);
  // An abstract name: it begins with a zero.
  if (socket.startsWith("@")) address[FAMILY_BYTES] = 0;
  return address;
}

/**
 * How often the service manager wants a sign of life, in ms; undefined if it
 * does not, or not from this process.
 *
 * @param own processes whose watch is ours: this one, and the one that started
 *   it as a daemon
 */
export function watchdogIntervalMs(
  own: readonly number[],
  { socket, watchdogUs = "", watchdogPid = "" }: NotifyEnvironment =
    notifyEnvironment(),
): number | undefined {
  if (!socket || !/^[1-9]\d{0,14}$/.test(watchdogUs)) return undefined;
  if (watchdogPid !== "" && !own.map(String).includes(watchdogPid)) {
    return undefined;
  }
  return Math.max(1, Math.floor(+watchdogUs / 1000 / SIGNS_PER_TIMEOUT));
}

/**
 * Gives signs of life until the result is called. They come from the thread
 * that serves handshakes, timers and the UAPI socket: when that hangs, so do
 * they.
 *
 * @param failed told once when the socket takes no more
 */
export function startWatchdog(
  own: readonly number[],
  failed: (error: unknown) => void,
): () => void {
  const environment = notifyEnvironment();
  const intervalMs = watchdogIntervalMs(own, environment);
  if (intervalMs === undefined) return () => {};
  const timer = setInterval(() => {
    try {
      notify("WATCHDOG=1", environment);
    } catch (error) {
      clearInterval(timer);
      failed(error);
    }
  }, intervalMs);
  return () => clearInterval(timer);
}
