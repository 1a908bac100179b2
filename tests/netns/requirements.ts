/**
 * What the namespace tests need of the machine. A test that lacks something is
 * skipped, and says what is missing and how to get it.
 */
import { moduleCommand as commandOf } from "../../tools/modules.ts";

/** Debian packages of the programs that are not everywhere. */
const PACKAGES: Readonly<Record<string, string>> = {
  ethtool: "ethtool",
  find: "findutils",
  gdb: "gdb",
  ip: "iproute2",
  iperf3: "iperf3",
  ldconfig: "libc-bin",
  ldd: "libc-bin",
  mount: "mount",
  nft: "nftables",
  nstat: "iproute2",
  perl: "perl",
  ping: "iputils-ping",
  "pivot_root": "util-linux",
  setpriv: "util-linux",
  taskset: "util-linux",
  ss: "iproute2",
  strace: "strace",
  sysctl: "procps",
  tcpdump: "tcpdump",
  timeout: "coreutils",
  umount: "mount",
  unshare: "util-linux",
  wg: "wireguard-tools",
  "wg-quick": "wireguard-tools",
  "wireguard-go": "wireguard-go",
  xz: "xz-utils",
};

const ALWAYS = ["ip", "ss", "wg", "ping", "timeout"];

/** Path of a program, or undefined. */
export function findProgram(name: string): string | undefined {
  const directories = (Deno.env.get("PATH") ?? "").split(":");
  for (const directory of [...directories, "/usr/sbin", "/sbin"]) {
    try {
      const path = `${directory}/${name}`;
      if (Deno.statSync(path).isFile) return path;
    } catch {
      // Not here.
    }
  }
  return undefined;
}

/** Whether groups cannot be changed, as in a user namespace of an ordinary user. */
export function inUserNamespace(): boolean {
  return Deno.readTextFileSync("/proc/self/setgroups").trim() === "deny";
}

/** What of the programs and rights is missing, in words; undefined: nothing. */
export function missing(programs: readonly string[]): string | undefined {
  if (Deno.build.os !== "linux") return "needs Linux";
  if (Deno.uid() !== 0) {
    return "needs root: run it with sudo, or as root of namespaces of its own " +
      "by unshare -Urnm sh -c 'mount -t tmpfs none /run && exec deno test …'";
  }
  try {
    Deno.statSync("/dev/net/tun");
  } catch {
    return "needs /dev/net/tun: modprobe tun, or --device /dev/net/tun for a container";
  }
  if (programs.includes("tcpdump") && inUserNamespace()) {
    return "needs real root, not a user namespace's: tcpdump gives up rights " +
      "in a way that is refused there";
  }
  const absent = [...ALWAYS, ...programs].filter((name) =>
    findProgram(name) === undefined
  );
  if (absent.length === 0) return undefined;
  const packages = [...new Set(absent.map((name) => PACKAGES[name] ?? name))];
  return `needs ${absent.join(", ")}: apt-get install ${packages.join(" ")}`;
}

/** Command line of the wgd under test: WGD_PROGRAM, or this checkout. */
export function wgdCommand(): string[] {
  const program = Deno.env.get("WGD_PROGRAM");
  if (program) return [program];
  return commandOf("cli.ts", []);
}

/** Why wgd cannot be run with this option; undefined: it can. */
export function wgdLacks(option: string): string | undefined {
  if (missing([]) !== undefined) return undefined;
  const [program, ...args] = wgdCommand();
  const { stdout } = new Deno.Command(program, {
    args: [...args, "run", "--help"],
  }).outputSync();
  return new TextDecoder().decode(stdout).includes(option)
    ? undefined
    : `wgd run has no ${option}`;
}

/** Command line of wireguard-go: WGD_WIREGUARD_GO, or the installed one. */
export function wireguardGoCommand(): string[] {
  return [Deno.env.get("WGD_WIREGUARD_GO") || "wireguard-go"];
}

/** Command line of another implementation; boringtun's options are the same. */
export function otherCommand(
  implementation: "wireguard-go" | "boringtun",
): string[] {
  if (implementation === "wireguard-go") return wireguardGoCommand();
  return [Deno.env.get("WGD_BORINGTUN") || "boringtun-cli"];
}

/** Command line that runs a module of this directory. */
export function moduleCommand(name: string, ...args: string[]): string[] {
  return commandOf(`tests/netns/${name}`, args);
}
