/**
 * getaddrinfo(3): the system's own resolver, so that names mean what they mean
 * to every other program (/etc/hosts, nsswitch.conf, search domains, the order
 * of RFC 6724), and errors keep apart what is final and what may pass. Loaded
 * at the first use.
 *
 * @module
 */
import { cString } from "./libc.ts";

const SYMBOLS = {
  getaddrinfo: {
    parameters: ["buffer", "buffer", "buffer", "buffer"],
    result: "i32",
  }, // const char *, const char *, const addrinfo *, addrinfo **
  getaddrinfoAsync: {
    name: "getaddrinfo",
    parameters: ["buffer", "buffer", "buffer", "buffer"],
    result: "i32",
    nonblocking: true,
  },
  freeaddrinfo: { parameters: ["pointer"], result: "void" }, // addrinfo *
  gai_strerror: { parameters: ["i32"], result: "pointer" }, // int
} as const satisfies Deno.ForeignLibraryInterface;

type Resolver = Deno.DynamicLibrary<typeof SYMBOLS>["symbols"];

/** Names of the C library on glibc and musl systems. */
const LIBRARIES = [
  "libc.so.6",
  "libc.so",
  "libc.musl-x86_64.so.1",
  "libc.musl-aarch64.so.1",
];

/** Errors of getaddrinfo (the same on glibc and musl). */
export const EAI = {
  NONAME: -2,
  AGAIN: -3,
  FAIL: -4,
  NODATA: -5,
  FAMILY: -6,
  SERVICE: -8,
  SYSTEM: -11,
} as const;

/** Offsets in `struct addrinfo` and in the socket addresses; 64-bit Linux. */
const ADDRINFO = {
  FAMILY: 4,
  SOCKTYPE: 8,
  PROTOCOL: 12,
  ADDR: 24,
  NEXT: 40,
  LENGTH: 48,
} as const;
const SOCKADDR = { PORT: 2, IPV4: 4, IPV6: 8, SCOPE: 24 } as const;

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_DGRAM = 2;
const IPPROTO_UDP = 17;

/** An address that a name has. */
export interface FoundAddress {
  /** 4 or 16 bytes. */
  readonly address: Uint8Array;
  readonly port: number;
  /** Index of the interface that an address of the link belongs to; else 0. */
  readonly scopeId: number;
}

/** What getaddrinfo answers: addresses in its order, or its error. */
export type LookupAnswer =
  | { readonly addresses: readonly FoundAddress[] }
  | {
    /** One of {@linkcode EAI}, or another negative number. */
    readonly error: number;
    /** Its text, as `Name or service not known`. */
    readonly reason: string;
  };

let loaded: Resolver | undefined;

function resolver(): Resolver {
  if (loaded !== undefined) return loaded;
  let reason: unknown;
  for (const name of LIBRARIES) {
    try {
      loaded = Deno.dlopen(name, SYMBOLS).symbols;
      return loaded;
    } catch (error) {
      reason ??= error;
    }
  }
  throw new Error(
    `Cannot open the C library: ${
      reason instanceof Error ? reason.message : reason
    }`,
  );
}

/** What is asked for: a datagram socket of either family. */
function hints(): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(ADDRINFO.LENGTH);
  const view = new DataView(bytes.buffer);
  view.setInt32(ADDRINFO.SOCKTYPE, SOCK_DGRAM, true);
  view.setInt32(ADDRINFO.PROTOCOL, IPPROTO_UDP, true);
  return bytes;
}

function readAddress(
  at: Deno.PointerObject,
  family: number,
): FoundAddress | undefined {
  const view = new Deno.UnsafePointerView(at);
  const copy = (length: number, offset: number): Uint8Array => {
    const bytes = new Uint8Array(length);
    view.copyInto(bytes, offset);
    return bytes;
  };
  const [high, low] = copy(2, SOCKADDR.PORT);
  const port = high << 8 | low;
  if (family === AF_INET) {
    return { address: copy(4, SOCKADDR.IPV4), port, scopeId: 0 };
  }
  if (family !== AF_INET6) return undefined;
  const scopeId = view.getUint32(SOCKADDR.SCOPE);
  return { address: copy(16, SOCKADDR.IPV6), port, scopeId };
}

/** The answer behind a result and the list that came with it, which it frees. */
function answer(result: number, list: BigUint64Array): LookupAnswer {
  if (result !== 0) {
    const text = resolver().gai_strerror(result);
    const reason = text === null
      ? `error ${result}`
      : new Deno.UnsafePointerView(text).getCString();
    return { error: result, reason };
  }
  const first = Deno.UnsafePointer.create(list[0]);
  const addresses: FoundAddress[] = [];
  try {
    for (let at = first; at !== null;) {
      const view = new Deno.UnsafePointerView(at);
      const addressAt = view.getPointer(ADDRINFO.ADDR);
      const found = addressAt &&
        readAddress(addressAt, view.getInt32(ADDRINFO.FAMILY));
      if (found) addresses.push(found);
      at = view.getPointer(ADDRINFO.NEXT);
    }
  } finally {
    resolver().freeaddrinfo(first);
  }
  return { addresses };
}

/**
 * Looks up where datagrams to `host` and `service`, a name or a number, go. It
 * waits in a thread of its own, for as long as the system's resolver does.
 */
export async function lookupEndpoint(
  host: string,
  service: string,
): Promise<LookupAnswer> {
  const list = new BigUint64Array(1);
  const result = await resolver().getaddrinfoAsync(
    cString(host),
    cString(service),
    hints(),
    list,
  );
  return answer(result, list);
}

/** The UDP port of this name, as /etc/services has it; null if it has none. */
export function servicePort(name: string): number | null {
  const list = new BigUint64Array(1);
  const result = resolver().getaddrinfo(null, cString(name), hints(), list);
  const found = answer(result, list);
  return "addresses" in found ? found.addresses[0]?.port ?? null : null;
}
