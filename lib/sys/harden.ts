/**
 * What a process and its threads give up once they have what they need: dumps of
 * memory, new privileges, capabilities; and memory for keys that is neither
 * dumped nor swapped out.
 *
 * Capabilities belong to a thread, and a new one has those of the thread that
 * makes it. So each thread of wgd drops its own when it has loaded its code.
 *
 * @module
 */
import { ERRNO, errno, errnoName, libc } from "./libc.ts";

const PR_SET_DUMPABLE = 4;
const PR_CAPBSET_DROP = 24;
const PR_SET_NO_NEW_PRIVS = 38;
const PR_CAP_AMBIENT = 47;
const PR_CAP_AMBIENT_CLEAR_ALL = 4;
const RLIMIT_CORE = 4;
const CAPABILITY_VERSION_3 = 0x2008_0522;
/** 64 bits each of effective, permitted and inheritable, in halves. */
const CAPABILITY_WORDS = 6;
const EFFECTIVE = 0;
const PERMITTED = 1;
const WORDS_A_HALF = 3;
const MADV_DONTDUMP = 16;
const MLOCK_ONFAULT = 1;
const PROT_READ_WRITE = 3;
const MAP_PRIVATE_ANONYMOUS = 0x22;

/** Capabilities by their numbers in Linux. */
export const CAPABILITY = {
  DAC_OVERRIDE: 1,
  DAC_READ_SEARCH: 2,
  NET_BIND_SERVICE: 10,
  NET_BROADCAST: 11,
  NET_ADMIN: 12,
  IPC_LOCK: 14,
  SYS_ADMIN: 21,
} as const;

/** What could not be done, in words; nothing: all was. */
export type Missing = string[];

function failed(missing: Missing, what: string): void {
  missing.push(`${what} (${errnoName(errno())})`);
}

/** No core dumps, no reading by processes of the same user, no setuid programs. */
export function forbidDumps(): Missing {
  const missing: Missing = [];
  const c = libc();
  if (c.setrlimit(RLIMIT_CORE, new BigUint64Array([0n, 0n])) !== 0) {
    failed(missing, "core dumps stay on");
  }
  if (c.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) !== 0) {
    failed(missing, "memory stays readable");
  }
  if (c.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) {
    failed(missing, "no-new-privs cannot be set");
  }
  return missing;
}

/** Gives up all capabilities of this thread but those named, where it has them. */
export function dropCapabilities(keep: readonly number[]): Missing {
  const c = libc();
  const header = new Uint32Array([CAPABILITY_VERSION_3, 0]);
  const data = new Uint32Array(CAPABILITY_WORDS);
  if (c.capget(header, data) !== 0) {
    return [`capabilities cannot be read (${errnoName(errno())})`];
  }
  const wanted = [0, 0];
  for (const number of keep) wanted[number >> 5] |= 1 << (number & 31);
  for (const half of [0, 1]) {
    const at = half * WORDS_A_HALF;
    data[at + PERMITTED] &= wanted[half];
    data[at + EFFECTIVE] = data[at + PERMITTED];
    data[at + WORDS_A_HALF - 1] = 0;
  }
  const missing: Missing = [];
  // Linux before 4.3 has no ambient ones.
  c.prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  if (c.capset(header, data) !== 0) {
    failed(missing, "capabilities cannot be dropped");
  }
  return missing;
}

/**
 * Leaves programs that this thread starts from here on only the capabilities
 * named, and no way to others: their threads cannot have more.
 */
export function limitChildren(keep: readonly number[]): Missing {
  const missing: Missing = [];
  const c = libc();
  for (let number = 0; number < 64; number++) {
    if (keep.includes(number)) continue;
    if (c.prctl(PR_CAPBSET_DROP, number, 0, 0, 0) === 0) continue;
    // EINVAL: the system has no more of them.
    if (errno() !== ERRNO.EINVAL) failed(missing, `capability ${number} stays`);
    break;
  }
  if (c.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) {
    failed(missing, "no-new-privs cannot be set");
  }
  return missing;
}

let pageBytes = 0;

/** Bytes of a page: 4096 on x86-64; arm64 has kernels with 16 and 64 KiB, too. */
function pageSize(): number {
  return pageBytes ||= libc().getpagesize();
}

/** Memory by its address. */
export interface MemoryRange {
  readonly address: bigint;
  readonly bytes: number;
}

/** Leaves memory out of dumps. Its pages' bounds are the caller's. */
export function leaveOutOfDumps(range: MemoryRange): Missing {
  const missing: Missing = [];
  const pages = wholePages(range, pageSize());
  if (
    libc().madvise(pages.address, BigInt(pages.bytes), MADV_DONTDUMP) !== 0
  ) failed(missing, "memory stays in dumps");
  return missing;
}

/** Keeps memory from being swapped out, each page once it is used. */
export function lock(range: MemoryRange): Missing {
  const missing: Missing = [];
  const pages = wholePages(range, pageSize());
  // Absent from C libraries before glibc 2.27.
  const { mlock2 } = libc();
  if (mlock2?.(pages.address, BigInt(pages.bytes), MLOCK_ONFAULT) !== 0) {
    failed(missing, "keys may be swapped out");
  }
  return missing;
}

/** The pages of `pageBytes` that memory lies in. */
export function wholePages(
  { address, bytes }: MemoryRange,
  pageBytes: number,
): MemoryRange {
  const page = BigInt(pageBytes);
  const start = address / page * page;
  const end = (address + BigInt(bytes) + page - 1n) / page * page;
  return { address: start, bytes: Number(end - start) };
}

let secretPage: { range: MemoryRange; bytes: ArrayBuffer } | undefined;
let secretBytes = 0;

/**
 * Room for a secret on a page of its own, which is neither dumped nor, where the
 * system allows it, swapped out. It stays for the life of the process.
 *
 * @returns undefined when there is none
 */
export function secretRoom(bytes: number): Uint8Array<ArrayBuffer> | undefined {
  const page = pageSize();
  if (secretPage === undefined) {
    const address = libc().mmap(
      0n,
      BigInt(page),
      PROT_READ_WRITE,
      MAP_PRIVATE_ANONYMOUS,
      -1,
      0n,
    );
    const pointer = Deno.UnsafePointer.create(address);
    // MAP_FAILED is -1.
    if (pointer === null || address === 0xffff_ffff_ffff_ffffn) {
      return undefined;
    }
    const range = { address, bytes: page };
    leaveOutOfDumps(range);
    lock(range);
    const buffer = Deno.UnsafePointerView.getArrayBuffer(pointer, page);
    secretPage = { range, bytes: buffer };
  }
  if (secretBytes + bytes > page) return undefined;
  const room = new Uint8Array(secretPage.bytes, secretBytes, bytes);
  secretBytes += bytes;
  return room;
}
