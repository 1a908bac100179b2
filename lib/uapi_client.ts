/**
 * Talks to daemons, wgd's or another's, through their UAPI sockets: which there
 * are, what state a device is in, and changes to it. As wg(8)'s
 * ipc-uapi-unix.h, but a stale socket is passed over rather than deleted.
 *
 * @module
 */
import { publicKey } from "./crypto/x25519.ts";
import { LineSplitter, LineTooLongError, UAPI_ERRNO } from "./uapi_lines.ts";
import { isUnchanged, syncUpdate } from "./sync.ts";
import { formatSet, UapiGetParser } from "./uapi_state.ts";
import type { DeviceTarget } from "./sync.ts";
import type { DeviceState, DeviceUpdate, PeerVisitor } from "./uapi_state.ts";

/** Where daemons put their sockets. */
export const UAPI_DIRECTORY = "/var/run/wireguard";

const SOCKET_SUFFIX = ".sock";
const READ_BYTES = 64 * 1024;

/** Linux's numbers, names and texts of the errors that a daemon may report. */
const ERRORS: readonly (readonly [number, string, string])[] = [
  [1, "EPERM", "Operation not permitted"],
  [2, "ENOENT", "No such file or directory"],
  [5, "EIO", "Input/output error"],
  [6, "ENXIO", "No such device or address"],
  [12, "ENOMEM", "Cannot allocate memory"],
  [13, "EACCES", "Permission denied"],
  [16, "EBUSY", "Device or resource busy"],
  [19, "ENODEV", "No such device"],
  [22, "EINVAL", "Invalid argument"],
  [28, "ENOSPC", "No space left on device"],
  [71, "EPROTO", "Protocol error"],
  [95, "EOPNOTSUPP", "Operation not supported"],
  [97, "EAFNOSUPPORT", "Address family not supported by protocol"],
  [98, "EADDRINUSE", "Address already in use"],
  [99, "EADDRNOTAVAIL", "Cannot assign requested address"],
  [111, "ECONNREFUSED", "Connection refused"],
];

/** A request that failed, in the daemon or on the way to it. */
export class UapiError extends Error {
  /** The class\'s name. */
  override readonly name = "UapiError";
  /** Positive, as Linux numbers it. */
  readonly errno: number;
  /** Its name, as `EINVAL`. */
  readonly code: string;
  /** Its text, as strerror(3) has it. */
  readonly text: string;

  /** `doing` starts the message: what was being done. */
  constructor(errno: number, doing: string, options?: ErrorOptions) {
    const known = ERRORS.find(([number]) => number === errno);
    const code = known?.[1] ?? `errno ${errno}`;
    const text = known?.[2] ?? `Unknown error ${errno}`;
    super(`${doing}: ${text} (${code})`, options);
    this.errno = errno;
    this.code = code;
    this.text = text;
  }
}

/** Options of every function here. */
export interface UapiClientOptions {
  /** Where the sockets are; default {@linkcode UAPI_DIRECTORY}. */
  directory?: string;
}

function errnoOf(error: unknown): number | undefined {
  if (error instanceof Deno.errors.ConnectionRefused) return 111;
  if (error instanceof Deno.errors.PermissionDenied) return 13;
  if (error instanceof Deno.errors.NotFound) return 19;
  if (
    error instanceof Deno.errors.ConnectionReset ||
    error instanceof Deno.errors.BrokenPipe ||
    error instanceof LineTooLongError
  ) return UAPI_ERRNO.EPROTO;
  return undefined;
}

/** Turns what the system says on the way to a daemon into a UapiError. */
function asUapiError(error: unknown, doing: string): unknown {
  const errno = errnoOf(error);
  return errno === undefined
    ? error
    : new UapiError(errno, doing, { cause: error });
}

function connect(
  name: string,
  { directory = UAPI_DIRECTORY }: UapiClientOptions,
): Promise<Deno.UnixConn> {
  if (name === "" || name.includes("/")) throw new Deno.errors.NotFound(name);
  const path = `${directory}/${name}${SOCKET_SUFFIX}`;
  return Deno.connect({ transport: "unix", path });
}

async function send(conn: Deno.Conn, text: Iterable<string>): Promise<void> {
  const encoder = new TextEncoder();
  for (const piece of text) {
    let rest = encoder.encode(piece);
    while (rest.length > 0) rest = rest.subarray(await conn.write(rest));
  }
}

/**
 * Takes the lines that the daemon sends, until one is the last, or the daemon
 * closes the connection.
 */
async function receive(
  conn: Deno.Conn,
  isLast: (line: string) => boolean,
): Promise<void> {
  const splitter = new LineSplitter();
  const buffer = new Uint8Array(READ_BYTES);
  for (;;) {
    const length = await conn.read(buffer);
    if (length === null) return;
    splitter.push(buffer.subarray(0, length));
    for (let line; (line = splitter.next()) !== null;) {
      if (isLast(line)) return;
    }
  }
}

/** Whether something answers, or may answer, at the socket of this name. */
async function isAlive(
  name: string,
  options: UapiClientOptions,
): Promise<boolean> {
  try {
    (await connect(name, options)).close();
    return true;
  } catch (error) {
    if (
      error instanceof Deno.errors.ConnectionRefused ||
      error instanceof Deno.errors.NotFound
    ) return false;
    return true; // `wg` also lists what it may not open
  }
}

/**
 * The names of the devices whose daemons are running, in the order of the
 * directory, as wg(8) lists them. Sockets that nothing answers at are left out.
 *
 * @throws {UapiError} if the directory cannot be read
 */
export async function listDevices(
  options: UapiClientOptions = {},
): Promise<string[]> {
  const { directory = UAPI_DIRECTORY } = options;
  const names: string[] = [];
  try {
    for (const { name, isFile, isDirectory } of Deno.readDirSync(directory)) {
      if (isFile || isDirectory || !name.endsWith(SOCKET_SUFFIX)) continue;
      const device = name.slice(0, -SOCKET_SUFFIX.length);
      if (device && await isAlive(device, options)) names.push(device);
    }
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw asUapiError(error, "Unable to list interfaces");
  }
  return names;
}

/** How {@linkcode getDevice} goes about it. */
export interface GetOptions extends UapiClientOptions {
  /**
   * Gets each peer as soon as it is known, with the device, which knows all but
   * its peers by then, and keeps none.
   */
  readonly eachPeer?: PeerVisitor;
}

/**
 * The state of a device.
 *
 * @throws {UapiError}
 */
export async function getDevice(
  name: string,
  options: GetOptions = {},
): Promise<DeviceState> {
  const doing = `Unable to access interface ${name}`;
  const parser = new UapiGetParser(name, options.eachPeer);
  let errno: number | undefined;
  try {
    using conn = await connect(name, options);
    await send(conn, ["get=1\n\n"]);
    await receive(conn, (line) => {
      errno = parser.line(line);
      return errno !== undefined;
    });
  } catch (error) {
    throw asUapiError(error, doing);
  }
  if (errno !== 0) throw new UapiError(errno ?? UAPI_ERRNO.EPROTO, doing);
  return withPublicKey(parser.device);
}

/** Adds the public key of its private key. */
export function withPublicKey(device: DeviceState): DeviceState {
  if (device.privateKey) device.publicKey ??= publicKey(device.privateKey);
  return device;
}

/**
 * What a daemon of wgd counts: its live objects and what it dropped, by name.
 *
 * @throws {UapiError} EPROTO from a daemon that is not wgd
 */
export async function getStats(
  name: string,
  options: UapiClientOptions = {},
): Promise<ReadonlyMap<string, number>> {
  const doing = `Unable to get the counters of ${name}`;
  const stats = new Map<string, number>();
  let errno: number | undefined;
  try {
    using conn = await connect(name, options);
    await send(conn, ["get=stats\n\n"]);
    await receive(conn, (line) => {
      const match = /^([a-zA-Z0-9_.]+)=(\d+)$/.exec(line);
      if (match === null) return true;
      if (match[1] === "errno") errno = Number(match[2]);
      else stats.set(match[1], Number(match[2]));
      return false;
    });
  } catch (error) {
    throw asUapiError(error, doing);
  }
  if (errno !== 0) throw new UapiError(errno ?? UAPI_ERRNO.EPROTO, doing);
  return stats;
}

/**
 * Sends a `set=1` request, whole as formatSet makes it, in one piece or many.
 *
 * @throws {UapiError} what was applied before the error stays applied
 */
export async function setDevice(
  name: string,
  text: string | Iterable<string>,
  options: UapiClientOptions = {},
): Promise<void> {
  const doing = `Unable to configure interface ${name}`;
  let errno: number = UAPI_ERRNO.EPROTO;
  try {
    using conn = await connect(name, options);
    await send(conn, typeof text === "string" ? [text] : text);
    await receive(conn, (line) => {
      const match = /^errno=(-?\d{1,9})$/.exec(line);
      // wgd and wireguard-go answer with a negative number, boringtun did not.
      errno = match ? Math.abs(Number(match[1])) : UAPI_ERRNO.EPROTO;
      return true;
    });
  } catch (error) {
    throw asUapiError(error, doing);
  }
  if (errno !== 0) throw new UapiError(errno, doing);
}

/**
 * Makes a device the one that is wanted by what differs alone; see lib/sync.
 *
 * @returns what was sent
 * @throws {UapiError} what was applied before the error stays applied
 */
export async function syncDevice(
  name: string,
  target: DeviceTarget,
  options: UapiClientOptions = {},
): Promise<DeviceUpdate> {
  const sync = async (incremental: boolean): Promise<DeviceUpdate> => {
    const state = await getDevice(name, options);
    const update = syncUpdate(state, target, { incremental });
    if (!isUnchanged(update)) {
      await setDevice(name, formatSet(update), options);
    }
    return update;
  };
  try {
    return await sync(true);
  } catch (error) {
    if (!(error instanceof UapiError) || error.errno !== UAPI_ERRNO.EINVAL) {
      throw error;
    }
    // An older daemon, which has applied all before the first removal of an
    // allowed IP: what is left is told in its words.
    return await sync(false);
  }
}
