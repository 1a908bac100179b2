/**
 * The demo without root: the same program again in a user namespace, where it
 * is root over a network and mounts of its own. /run becomes a copy that it may
 * write to; the kernel takes all of it back with the last process.
 *
 * @module
 */
import { UNSHARE_OPTIONS } from "./demo_checks.ts";
import { complaint, DemoError, run } from "./demo_process.ts";
import { moduleCommand } from "./modules.ts";

/** Argument that tells the demo that it is inside. */
export const INSIDE = "--inside-user-namespace";
const OWN_DIRECTORIES: ReadonlySet<string> = new Set(["netns", "wireguard"]);

/**
 * Runs the demo in a user namespace.
 *
 * @param stop gets a function that passes a signal on
 * @returns its exit status
 */
export async function runInside(
  args: readonly string[],
  stop: (kill: (signal: Deno.Signal) => void) => void,
): Promise<number> {
  const demo = moduleCommand("tools/demo.ts", args);
  const [program, ...rest] = ["unshare", ...UNSHARE_OPTIONS, ...demo, INSIDE];
  const child = new Deno.Command(program, { args: rest, stdin: "null" })
    .spawn();
  stop((signal) => {
    try {
      child.kill(signal);
    } catch {
      // It has ended.
    }
  });
  return (await child.status).code;
}

/** Puts a copy of /run that is this process's own in its place. */
export async function takeRun(): Promise<void> {
  for (const path of new Set(["/run", Deno.realPathSync("/var/run")])) {
    const copy = Deno.makeTempDirSync({ prefix: "wgd-demo-" });
    try {
      await mount("-t", "tmpfs", "-o", "mode=755", "wgd-demo", copy);
      for (const entry of Deno.readDirSync(path)) {
        await copyEntry(entry, path, copy);
      }
      await mount("-o", "move", copy, path);
    } catch (error) {
      await run(["umount", "--lazy", copy]);
      throw error;
    } finally {
      Deno.removeSync(copy);
    }
  }
}

/** What is in /run may be needed: NixOS has its programs there. */
async function copyEntry(
  { name, isDirectory, isSymlink }: Deno.DirEntry,
  from: string,
  to: string,
): Promise<void> {
  if (isSymlink) {
    Deno.symlinkSync(Deno.readLinkSync(`${from}/${name}`), `${to}/${name}`);
  } else if (isDirectory) {
    Deno.mkdirSync(`${to}/${name}`);
    if (OWN_DIRECTORIES.has(name)) return;
    // One that cannot be shown stays empty.
    const both = [`${from}/${name}`, `${to}/${name}`];
    await run(["mount", "-n", "-o", "rbind", ...both]);
  }
}

/** -n: the table of mounts in /run is not ours to write. */
async function mount(...args: string[]): Promise<void> {
  const output = await run(["mount", "-n", ...args]);
  if (output.code === 0) return;
  throw new DemoError(`mount ${args.join(" ")}: ${complaint(output)}`);
}
