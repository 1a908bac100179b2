/**
 * Files in /proc, /sys and /dev by system calls: Deno's own functions ask for
 * all permissions there, which an executable does not have (tools/permissions).
 * They see the calling thread's network namespace, too, where Deno's may be
 * answered by another thread.
 *
 * @module
 */
import { check, cString, errno, libc, SysError } from "./libc.ts";

const O_RDONLY = 0;
const O_CLOEXEC = 0x80000;
const AT_FDCWD = -100;
const AT_EMPTY_PATH = 0x1000;
const STATX_MODE_AND_INODE = 0x103;
const STATX_BYTES = 256;
const STATX_MODE_AT = 28;
const STATX_INODE_AT = 32;
const S_IFMT = 0xf000;
const S_IFREG = 0x8000;
const S_IFIFO = 0x1000;
const S_IFSOCK = 0xc000;
const SEEK_CUR = 1;
const PATH_BYTES = 4096;
const CHUNK_BYTES = 64 * 1024;
/** Place of `d_name` in `struct dirent`, 64-bit. */
const DIRENT_NAME_AT = 19;

/** Whether a file is one of the system's, and not on a disk. */
export function isSystemPath(path: string): boolean {
  return /^\/(dev|proc|sys)\//.test(path);
}

/** What is known of a file. */
export interface SystemStat {
  readonly inode: number;
  readonly mode: number;
  readonly isFile: boolean;
  readonly isPipe: boolean;
  readonly isSocket: boolean;
}

/** What a system file holds. */
export interface SystemFile {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly stat: SystemStat | undefined;
  readonly isSeekable: boolean;
}

/** Reads a file to its end. @throws SysError */
export function readSystemFile(path: string): SystemFile {
  const c = libc();
  const fd = check(c.open(cString(path), O_RDONLY | O_CLOEXEC, 0), path);
  try {
    const isSeekable = c.lseek(fd, 0n, SEEK_CUR) >= 0n;
    const chunks: Uint8Array[] = [];
    for (;;) {
      const chunk = new Uint8Array(CHUNK_BYTES);
      const read = check(c.read(fd, chunk, chunk.length), path);
      if (read === 0) break;
      chunks.push(chunk.subarray(0, read));
    }
    const bytes = new Uint8Array(
      chunks.reduce((length, chunk) => length + chunk.length, 0),
    );
    let at = 0;
    for (const chunk of chunks) {
      bytes.set(chunk, at);
      at += chunk.length;
      chunk.fill(0); // it may be a key
    }
    return { bytes, stat: statDescriptor(fd), isSeekable };
  } finally {
    c.close(fd);
  }
}

/** Where a link leads. @throws SysError */
export function readSystemLink(path: string): string {
  const buffer = new Uint8Array(PATH_BYTES);
  const length = libc().readlink(cString(path), buffer, buffer.length);
  return new TextDecoder().decode(buffer.subarray(0, check(length, path)));
}

/** What is known of an open file; undefined where the call is not there. */
export function statDescriptor(fd: number): SystemStat | undefined {
  return statOf(fd, "", AT_EMPTY_PATH);
}

/** What is known of a file; undefined where it, or the call, is not there. */
export function statSystem(path: string): SystemStat | undefined {
  return statOf(AT_FDCWD, path, 0);
}

function statOf(
  fd: number,
  path: string,
  flags: number,
): SystemStat | undefined {
  const buffer = new Uint8Array(STATX_BYTES);
  const { statx } = libc();
  // Absent from C libraries before glibc 2.28.
  const result = statx?.(
    fd,
    cString(path),
    flags,
    STATX_MODE_AND_INODE,
    buffer,
  );
  if (result !== 0) return undefined;
  const view = new DataView(buffer.buffer);
  const mode = view.getUint16(STATX_MODE_AT, true);
  return {
    inode: Number(view.getBigUint64(STATX_INODE_AT, true)),
    mode,
    isFile: (mode & S_IFMT) === S_IFREG,
    isPipe: (mode & S_IFMT) === S_IFIFO,
    isSocket: (mode & S_IFMT) === S_IFSOCK,
  };
}

/** Names in a directory. @throws SysError */
export function systemNames(path: string): string[] {
  const c = libc();
  const directory = c.opendir(cString(path));
  if (directory === null) throw new SysError(path, errno());
  const names: string[] = [];
  for (;;) {
    const entry = c.readdir(directory);
    if (entry === null) break;
    const view = new Deno.UnsafePointerView(entry);
    const name = view.getCString(DIRENT_NAME_AT);
    if (name !== "." && name !== "..") names.push(name);
  }
  c.closedir(directory);
  return names;
}
