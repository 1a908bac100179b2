/**
 * What an ended wgd may have left, as seen by a process in its namespace: cheap
 * enough for ten thousand looks.
 */
import { socketPath } from "./daemon.ts";

const FOLDER = "/var/run/wireguard";

function read(path: string): string {
  return Deno.readTextFileSync(path);
}

function said(argv: readonly string[]): string {
  const [program, ...args] = argv;
  const { stdout } = new Deno.Command(program, { args }).outputSync();
  return new TextDecoder().decode(stdout);
}

/**
 * Links, addresses and routes of all tables in this namespace.
 *
 * @param more whether to look at rules, packet filter and sysctl, too, which
 * takes programs
 */
export function systemState(more: boolean): string {
  const links = read("/proc/self/net/dev").split("\n").slice(2)
    .map((line) => line.split(":")[0].trim());
  // Trees have another shape, and tables their ends, once there were rules.
  const trees = read("/proc/self/net/fib_trie");
  const v4 = [...trees.matchAll(/\|-- (.*)\n((?: +\/.*\n)+)/g)]
    .map(([, address, kinds]) => address + kinds.replace(/\s+/g, " "));
  // Without how often each was used.
  const v6 = read("/proc/self/net/ipv6_route").split("\n")
    .map((line) => line.split(/\s+/))
    .map((words) => [...words.slice(0, 6), words.at(-1)].join(" "));
  const addresses = read("/proc/self/net/if_inet6").split("\n");
  const state = [
    ...new Set([...links, ...v4, ...v6, ...addresses].map((it) => it.trim())),
  ].sort();
  if (more) {
    state.push(
      said(["ip", "-4", "rule"]),
      said(["ip", "-6", "rule"]),
      said(["nft", "list", "ruleset"]),
      read("/proc/sys/net/ipv4/conf/all/src_valid_mark"),
    );
  }
  return state.join("\n");
}

/** Processes that were started with this word. */
export function processesOf(word: string): number[] {
  return [...Deno.readDirSync("/proc")].map(({ name }) => Number(name))
    .filter((pid) => {
      try {
        return read(`/proc/${pid}/cmdline`).split("\0").includes(word);
      } catch {
        return false; // no process, or one that has ended
      }
    });
}

/** Whether a process has said that it handles SIGTERM. */
export function handlesSigterm(pid: number): boolean {
  try {
    const status = read(`/proc/${pid}/status`);
    const caught = BigInt(`0x${/^SigCgt:\s*(\w+)$/m.exec(status)?.[1] ?? 0}`);
    return (caught >> 14n & 1n) === 1n;
  } catch {
    return true; // it has just ended
  }
}

/** Files of an interface beside its socket, the socket included. */
export function filesOf(name: string): string[] {
  try {
    return [...Deno.readDirSync(FOLDER)].map((entry) => entry.name).filter(
      (file) => file.startsWith(`${name}.`) || file.startsWith(`.${name}.`),
    );
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** Whether an interface has its socket. */
export function hasSocket(name: string): boolean {
  return filesOf(name).includes(socketPath(name).split("/").at(-1) ?? "");
}
