/**
 * The UAPI socket /var/run/wireguard/IF.sock (reference §9.2): listening,
 * permissions, a stale file of a killed daemon, and the watch that ends the
 * daemon when its socket file is removed. What is said on it is lib/uapi's.
 *
 * @module
 */
import { closeDescriptor, opened } from "./sys/descriptors.ts";
import { check, ERRNO, errno, libc, SysError } from "./sys/libc.ts";
import { nextTurn, pause } from "./sys/turn.ts";
import type { UapiConnection } from "./uapi.ts";
import { UAPI_DIRECTORY } from "./uapi_client.ts";

/** Clients served at a time; more wait. */
const CONNECTIONS_MAX = 64;
const WRITE_BYTES = 128 * 1024;
const DIRECTORY_MODE = 0o755;
const SOCKET_UMASK = 0o077;
/** What is read, and so handled in one go, at a time: about 1 ms of work. */
const READ_BYTES = 16 * 1024;
/** A client that neither sends nor takes anything for so long is let go. */
export const IDLE_MS = 60_000;
const OTHERS_MAY_WRITE = 0o002;
const STICKY = 0o1000;

/** Path of the socket of interface `name`. */
export function uapiPath(name: string): string {
  return `${UAPI_DIRECTORY}/${name}.sock`;
}

/** Handles one connection until the client is done. */
export type Serve = (connection: UapiConnection) => Promise<void>;

/** A listening UAPI socket. */
export interface UapiServer {
  /** Resolves when the socket's file was removed by somebody else. */
  readonly removed: Promise<void>;
  /** Stops listening and ends connections. */
  stop(): void;
  /** Removes the file, by which others see that nothing of the device is left. */
  remove(): void;
}

/**
 * Listens on the socket of interface `name`; a stale file is replaced.
 *
 * @param report gets what went wrong on a connection
 * @throws SysError EADDRINUSE when a daemon answers there already
 */
export async function listenUapi(
  name: string,
  serve: Serve,
  report: (error: unknown) => void,
): Promise<UapiServer> {
  const path = uapiPath(name);
  Deno.mkdirSync(UAPI_DIRECTORY, { recursive: true, mode: DIRECTORY_MODE });
  assertOurs(UAPI_DIRECTORY);
  await assertNotServed(path);
  // A socket that is found does listen: wg(8) removes one that refuses it.
  const early = `${UAPI_DIRECTORY}/.${name}.${Deno.pid}`;
  const umask = libc().umask(SOCKET_UMASK);
  let listener: Deno.UnixListener;
  try {
    listener = Deno.listen({ transport: "unix", path: early });
  } finally {
    libc().umask(umask);
  }
  const inode = Deno.lstatSync(early).ino;
  Deno.renameSync(early, path);
  const connections = new Set<Deno.UnixConn>();
  const accepting = (async (): Promise<void> => {
    for await (const connection of listener) {
      connections.add(connection);
      serveConnection(connection, serve, report)
        .finally(() => connections.delete(connection));
      while (connections.size >= CONNECTIONS_MAX) await pause(10);
    }
  })();
  accepting.catch(report);
  const own = (): boolean => {
    try {
      return Deno.lstatSync(path).ino === inode;
    } catch {
      return false;
    }
  };
  const watch = Deno.watchFs(UAPI_DIRECTORY);
  const removed = (async (): Promise<void> => {
    if (!own()) return;
    try {
      for await (const _ of watch) if (!own()) return;
    } catch (error) {
      // `return` closes the watch: by then, `close` may have done both.
      if (!(error instanceof Deno.errors.BadResource)) throw error;
    }
    await new Promise<never>(() => {});
  })();
  return {
    removed,
    stop(): void {
      closeQuietly(watch);
      listener.close();
      for (const connection of connections) closeQuietly(connection);
    },
    remove(): void {
      if (own()) Deno.removeSync(path);
    },
  };
}

/**
 * In a folder that anybody may write to, anybody could be taken for the daemon,
 * and be sent its keys.
 *
 * @throws SysError EPERM
 */
function assertOurs(directory: string): void {
  const { mode } = Deno.statSync(directory);
  if (
    mode === null || (mode & (OTHERS_MAY_WRITE | STICKY)) !== OTHERS_MAY_WRITE
  ) {
    return;
  }
  throw new SysError(`${directory}: everybody may write there`, ERRNO.EPERM);
}

/** @throws SysError EADDRINUSE when a daemon answers on the socket */
async function assertNotServed(path: string): Promise<void> {
  try {
    const connection = await Deno.connect({ transport: "unix", path });
    connection.close();
  } catch (error) {
    const stale = error instanceof Deno.errors.NotFound ||
      error instanceof Deno.errors.ConnectionRefused;
    if (stale) return;
    throw error;
  }
  throw new SysError(`${path}: another daemon serves it`, ERRNO.EADDRINUSE);
}

async function serveConnection(
  connection: Deno.UnixConn,
  serve: Serve,
  report: (error: unknown) => void,
): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const alive = (): void => {
    clearTimeout(timer);
    timer = setTimeout(() => closeQuietly(connection), IDLE_MS);
  };
  async function* input(): AsyncGenerator<Uint8Array> {
    const buffer = new Uint8Array(READ_BYTES);
    alive();
    for (let n; (n = await connection.read(buffer)) !== null;) {
      alive();
      yield buffer.subarray(0, n);
      // Reading does not wait while there is something to read.
      await nextTurn();
    }
  }
  const output = new Output(async (bytes) => {
    const n = await connection.write(bytes);
    alive();
    return n;
  });
  try {
    await serve({ input: input(), write: (text) => output.write(text) });
  } catch (error) {
    if (!isDisconnect(error)) report(error);
  } finally {
    clearTimeout(timer);
    closeQuietly(connection);
  }
}

/** Text to a client as fast as it takes it, others having their turn between. */
class Output {
  readonly #encoder = new TextEncoder();
  readonly #send: (bytes: Uint8Array<ArrayBuffer>) => Promise<number>;
  #buffer = new Uint8Array(WRITE_BYTES);

  /** @param send sends some of the bytes; resolves with how many */
  constructor(send: (bytes: Uint8Array<ArrayBuffer>) => Promise<number>) {
    this.#send = send;
  }

  async write(text: string): Promise<void> {
    // UTF-8 takes three bytes a unit of text at most.
    if (this.#buffer.length < 3 * text.length) {
      this.#buffer = new Uint8Array(3 * text.length);
    }
    const { written } = this.#encoder.encodeInto(text, this.#buffer);
    for (let at = 0; at < written;) {
      at += await this.#send(this.#buffer.subarray(at, written));
    }
    // Sending does not wait while there is room in the socket.
    await nextTurn();
  }
}

/** Whether the client simply went away. */
function isDisconnect(error: unknown): boolean {
  return error instanceof Deno.errors.BrokenPipe ||
    error instanceof Deno.errors.ConnectionReset ||
    error instanceof Deno.errors.BadResource ||
    error instanceof Deno.errors.Interrupted;
}

function closeQuietly(resource: { close(): void }): void {
  try {
    resource.close();
  } catch (error) {
    // Who iterated over it has closed it already.
    if (!(error instanceof Deno.errors.BadResource)) throw error;
  }
}

/** Serves on a listening descriptor that another program opened (WG_UAPI_FD). */
export function serveUapiFd(
  fd: number,
  serve: Serve,
  report: (error: unknown) => void,
): UapiServer {
  let open = true;
  const accepting = (async (): Promise<void> => {
    while (open) {
      await ready(fd, POLLIN, -1);
      if (!open) return;
      const client = libc().accept4(fd, null, null, CLIENT_FLAGS);
      if (client < 0) {
        if (errno() === ERRNO.EAGAIN || errno() === ERRNO.EINTR) continue;
        throw new SysError("accept on WG_UAPI_FD", errno());
      }
      serveFd(opened(client, "accept"), serve).catch(report);
    }
  })();
  accepting.catch(report);
  return {
    removed: new Promise(() => {}),
    stop(): void {
      open = false;
      libc().close(fd);
    },
    remove(): void {},
  };
}

/** SOCK_CLOEXEC, SOCK_NONBLOCK: a client that is slow must not hold up control. */
const CLIENT_FLAGS = 0x80000 | 0x800;
const MSG_NOSIGNAL = 0x4000;
const MSG_DONTWAIT = 0x40;
const POLLIN = 1;
const POLLOUT = 4;

/** Waits until something can be done; false when it took too long. */
async function ready(
  fd: number,
  events: number,
  timeoutMs: number,
): Promise<boolean> {
  const pollfd = new Int32Array([fd, events]);
  return check(await libc().pollAsync(pollfd, 1, timeoutMs), "poll") > 0;
}

/** Sends what there is room for; waits for some. */
async function sendSome(
  fd: number,
  bytes: Uint8Array<ArrayBuffer>,
): Promise<number> {
  for (;;) {
    const flags = MSG_NOSIGNAL | MSG_DONTWAIT;
    const n = libc().send(fd, bytes, bytes.length, flags);
    if (n >= 0) return n;
    if (errno() !== ERRNO.EAGAIN && errno() !== ERRNO.EINTR) {
      throw new Deno.errors.BrokenPipe("the client went away");
    }
    if (!await ready(fd, POLLOUT, IDLE_MS)) {
      throw new Deno.errors.BrokenPipe("the client takes nothing");
    }
  }
}

async function serveFd(fd: number, serve: Serve): Promise<void> {
  async function* input(): AsyncGenerator<Uint8Array> {
    const buffer = new Uint8Array(READ_BYTES);
    for (;;) {
      if (!await ready(fd, POLLIN, IDLE_MS)) return;
      const n = libc().recv(fd, buffer, buffer.length, 0);
      if (n <= 0) return;
      yield buffer.subarray(0, n);
      await nextTurn();
    }
  }
  const output = new Output((bytes) => sendSome(fd, bytes));
  try {
    await serve({ input: input(), write: (text) => output.write(text) });
  } finally {
    closeDescriptor(fd);
  }
}
