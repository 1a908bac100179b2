/** System files by system calls, against what Deno's own functions say. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  isSystemPath,
  readSystemFile,
  readSystemLink,
  statSystem,
  systemNames,
} from "../lib/sys/files.ts";
import { ERRNO, SysError } from "../lib/sys/libc.ts";

const linux = { ignore: Deno.build.os !== "linux" };
const decoder = new TextDecoder();

Deno.test("system paths are those of the kernel's file systems", () => {
  for (const path of ["/dev/stdin", "/proc/self/ns/net", "/sys/class/net"]) {
    assert(isSystemPath(path), path);
  }
  for (const path of ["/etc/dev/x", "dev/x", "/device/x", "/dev", "/procs/x"]) {
    assert(!isSystemPath(path), path);
  }
});

Deno.test("a system file is read whole, a large one, too", linux, () => {
  const path = "/proc/sys/kernel/ostype";
  assertEquals(decoder.decode(readSystemFile(path).bytes), "Linux\n");
  const file = Deno.makeTempFileSync();
  const text = "0123456789".repeat(20_000);
  Deno.writeTextFileSync(file, text, { mode: 0o640 });
  Deno.chmodSync(file, 0o640);
  const { bytes, stat, isSeekable } = readSystemFile(file);
  assertEquals(decoder.decode(bytes), text);
  assertEquals(isSeekable, true);
  assertEquals(stat?.isFile, true);
  assertEquals((stat?.mode ?? 0) & 0o777, 0o640);
  assertEquals(stat?.inode, Deno.statSync(file).ino);
  Deno.removeSync(file);
});

Deno.test("links, inodes and names are as Deno says", linux, () => {
  const link = "/proc/self/ns/net";
  assertEquals(readSystemLink(link), Deno.readLinkSync(link));
  assertEquals(statSystem(link)?.inode, Deno.statSync(link).ino);
  assertEquals(
    systemNames("/proc/sys/net").sort(),
    [...Deno.readDirSync("/proc/sys/net")].map(({ name }) => name).sort(),
  );
});

Deno.test("what is not there is an error with its name", linux, () => {
  const path = "/proc/absent";
  for (const call of [readSystemFile, readSystemLink, systemNames]) {
    const error = assertThrows(() => call(path), SysError, path);
    assertEquals(error.errno, ERRNO.ENOENT);
    assertEquals(error.reason, "No such file or directory");
  }
  assertEquals(statSystem(path), undefined);
});
