/**
 * Pages of program files, given back. A start reads much of the executable that
 * a daemon never needs again; the kernel takes such pages back only when memory
 * is short, and until then counts them as the daemon's. Those that are needed
 * after all come from the page cache again.
 *
 * @module
 */
import { readSystemFile } from "./files.ts";
import { libc } from "./libc.ts";

const MADV_DONTNEED = 4;

/** A mapping of /proc/self/smaps. */
export interface Mapping {
  readonly address: bigint;
  readonly bytes: bigint;
}

/**
 * The mappings of files that nobody can write to and that are as they are on
 * disk: without pages that relocation or a debugger has changed.
 *
 * @param smaps text of /proc/self/smaps
 */
export function programMappings(smaps: string): Mapping[] {
  const found: Mapping[] = [];
  let present: Mapping | undefined;
  let unchanged = false;
  for (const line of smaps.split("\n")) {
    const head = /^([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+ *(.*)$/
      .exec(line);
    if (head !== null) {
      const [, from, to, rights, path] = head;
      const address = BigInt(`0x${from}`);
      present = /^r-[x-]p$/.test(rights) && path.startsWith("/")
        ? { address, bytes: BigInt(`0x${to}`) - address }
        : undefined;
      unchanged = false;
    } else if (line.startsWith("Anonymous:")) {
      unchanged = /: +0 kB$/.test(line);
    } else if (line.startsWith("Swap:") && present !== undefined) {
      // A changed page that is in the swap is not counted as anonymous.
      if (unchanged && /: +0 kB$/.test(line)) found.push(present);
    }
  }
  return found;
}

/** Gives back all of them. @returns whether the kernel took each @throws SysError */
export function dropProgramPages(): boolean {
  const { bytes } = readSystemFile("/proc/self/smaps");
  const mappings = programMappings(new TextDecoder().decode(bytes));
  const { madvise } = libc();
  return mappings.map(({ address, bytes }) =>
    madvise(address, bytes, MADV_DONTNEED) === 0
  ).every((isTaken) => isTaken);
}
