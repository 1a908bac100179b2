/**
 * The UAPI socket /var/run/wireguard/IF.sock (reference §9.2): listening,
 * permissions, a stale file of a killed daemon, and the watch that ends the
 * daemon when its socket file is removed. What is said on it is lib/uapi's.
 *
 * @module
 */
import { closeDescriptor, opened } from "./sys/descriptors.ts";
import { check, ERRNO, errno, libc, SysError } from "./sys/libc.ts";
import type { UapiConnection } from "./uapi.ts";
import { UAPI_DIRECTORY } from "./uapi_client.ts";

/** Clients served at a time; more wait. */
const CONNECTIONS_MAX = 64;
const DIRECTORY_MODE = 0o755;
const SOCKET_UMASK = 0o077;
const READ_BYTES = 64 * 1024;

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
  /** Stops listening, ends connections and removes the file. */
  close(): void;
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
      while (connections.size >= CONNECTIONS_MAX) await delay(10);
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
    for await (const _ of watch) if (!own()) return;
    await new Promise<never>(() => {});
  })();
  return {
    removed,
    close(): void {
      if (own()) Deno.removeSync(path);
      closeQuietly(watch);
      listener.close();
      for (const connection of connections) closeQuietly(connection);
    },
  };
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
  const encoder = new TextEncoder();
  try {
    await serve({
      input: connection.readable,
      async write(text: string): Promise<void> {
        const bytes = encoder.encode(text);
        for (let at = 0; at < bytes.length;) {
          at += await connection.write(bytes.subarray(at));
        }
      },
    });
  } catch (error) {
    if (!isDisconnect(error)) report(error);
  } finally {
    closeQuietly(connection);
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

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
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
      await readable(fd);
      const client = libc().accept4(fd, null, null, SOCK_CLOEXEC);
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
    close(): void {
      open = false;
      libc().close(fd);
    },
  };
}

const SOCK_CLOEXEC = 0x80000;
const MSG_NOSIGNAL = 0x4000;
const POLLIN = 1;

async function readable(fd: number): Promise<void> {
  const pollfd = new Int32Array([fd, POLLIN]);
  check(await libc().pollAsync(pollfd, 1, -1), "poll");
}

async function serveFd(fd: number, serve: Serve): Promise<void> {
  const encoder = new TextEncoder();
  async function* input(): AsyncGenerator<Uint8Array> {
    const buffer = new Uint8Array(READ_BYTES);
    for (;;) {
      await readable(fd);
      const n = libc().recv(fd, buffer, buffer.length, 0);
      if (n <= 0) return;
      yield buffer.slice(0, n);
    }
  }
  try {
    await serve({
      input: input(),
      write(text: string): Promise<void> {
        const bytes = encoder.encode(text);
        const c = libc();
        for (let at = 0; at < bytes.length;) {
          const rest = bytes.subarray(at);
          const n = c.send(fd, rest, rest.length, MSG_NOSIGNAL);
          if (n < 0) throw new Deno.errors.BrokenPipe("the client went away");
          at += n;
        }
        return Promise.resolve();
      },
    });
  } finally {
    closeDescriptor(fd);
  }
}
