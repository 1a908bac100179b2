/**
 * Whether the demo can run here, and in which way: as root in namespaces of the
 * machine, or in a user namespace. What is missing is said in words, with the
 * command that helps. The decision is pure; {@link lookAround} asks the machine.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { complaint, isInstalled, run } from "./demo_process.ts";

/** What decides. */
export interface Facts {
  readonly os: string;
  readonly isRoot: boolean;
  readonly ip: "iproute2" | "another" | "missing";
  readonly tun: "usable" | "missing" | "forbidden";
  /** Permissions of /dev/net/tun, as `crw-------`. */
  readonly tunMode: string;
  /** Whether this process may make network namespaces and mount. */
  readonly mayMakeNamespaces: boolean;
  /** Why there are no user namespaces; null: there are. */
  readonly userNamespaces: string | null;
  /** Those of util-linux that are missing. */
  readonly missing: readonly string[];
  /** Beginning of the command that installs a package. */
  readonly installer: string | null;
  /** Command line that runs the demo as root. */
  readonly asRoot: string;
}

/** How the demo can run. */
export type Way = "namespaces" | "user namespace";

/** What the facts allow, or the lines that say what is missing. */
export function decide(facts: Facts): Way | string[] {
  if (facts.os !== "linux") {
    return [`the demo needs Linux; this is ${facts.os}`];
  }
  const problems: string[] = [];
  if (facts.ip !== "iproute2") {
    const found = facts.ip === "missing"
      ? "the program ip is missing"
      : "the program ip here is not iproute2's and makes no namespaces";
    problems.push(`${found}; ${install("iproute2", facts)}`);
  }
  if (facts.tun === "missing") {
    problems.push(
      "/dev/net/tun is missing; load the driver (sudo modprobe tun), or give " +
        "the container the device (--device /dev/net/tun)",
    );
  }
  const rights = missingRights(facts);
  if (rights !== null) problems.push(rights);
  if (problems.length > 0) return problems;
  return facts.mayMakeNamespaces ? "namespaces" : "user namespace";
}

function missingRights(facts: Facts): string | null {
  const { isRoot, tun, tunMode, userNamespaces, missing } = facts;
  const container = "in a container, start it with --device /dev/net/tun " +
    "--cap-add NET_ADMIN --cap-add SYS_ADMIN " +
    "--security-opt apparmor=unconfined";
  if (tun === "forbidden") {
    return isRoot
      ? `root may not open /dev/net/tun here; ${container}`
      : `an ordinary user may not open /dev/net/tun here (${tunMode}); run ` +
        `the demo as root: ${facts.asRoot}`;
  }
  if (facts.mayMakeNamespaces) return null;
  if (missing.length > 0) {
    const need = `without root the demo needs ${missing.join(", ")}`;
    return `${need}; ${install("util-linux", facts)}, or run it as root: ` +
      facts.asRoot;
  }
  if (userNamespaces === null) return null;
  return isRoot
    ? `root may make no network namespaces here (${userNamespaces}); ` +
      container
    : `an ordinary user may make no namespaces here (${userNamespaces}); run ` +
      `the demo as root: ${facts.asRoot}`;
}

function install(name: string, { installer, isRoot }: Facts): string {
  if (installer === null) return `install ${name}`;
  return `install it: ${isRoot ? "" : "sudo "}${installer} ${name}`;
}

const INSTALLERS: readonly (readonly [string, string])[] = [
  ["apt-get", "apt-get install"],
  ["dnf", "dnf install"],
  ["apk", "apk add"],
  ["pacman", "pacman -S"],
  ["zypper", "zypper install"],
];
const FOR_USERS = ["unshare", "nsenter", "mount"];

/** Options of unshare(1) that give an ordinary user a network of its own. */
export const UNSHARE_OPTIONS: readonly string[] = [
  "--user",
  "--map-root-user",
  "--net",
  "--mount",
];

/** Asks the machine. `args` are those of the demo. */
export async function lookAround(args: readonly string[]): Promise<Facts> {
  const isRoot = Deno.uid() === 0;
  const missing = FOR_USERS.filter((name) => !isInstalled(name));
  const mayMakeNamespaces = isRoot &&
    (missing.includes("unshare") ||
      await fails(["unshare", "--net", "--mount", "true"]) === null);
  return {
    os: Deno.build.os,
    isRoot,
    ip: await whichIp(),
    ...lookAtTun(),
    mayMakeNamespaces,
    userNamespaces: mayMakeNamespaces || missing.length > 0
      ? null
      : await userNamespaceProblem(),
    missing,
    installer: INSTALLERS.find(([name]) => isInstalled(name))?.[1] ?? null,
    asRoot: ["sudo", ...demoCommand(args)].map(quote).join(" "),
  };
}

async function fails(argv: readonly string[]): Promise<string | null> {
  const output = await run(argv);
  return output.code === 0 ? null : complaint(output);
}

async function whichIp(): Promise<Facts["ip"]> {
  if (!isInstalled("ip")) return "missing";
  const { stdout } = await run(["ip", "-V"]);
  return stdout.includes("iproute2") ? "iproute2" : "another";
}

function lookAtTun(): Pick<Facts, "tun" | "tunMode"> {
  const path = "/dev/net/tun";
  try {
    Deno.openSync(path, { read: true, write: true }).close();
    return { tun: "usable", tunMode: "" };
  } catch (error) {
    const isDenied = error instanceof Deno.errors.PermissionDenied ||
      (error instanceof Error && "code" in error && error.code === "EPERM");
    // Else there is no such file, or no driver behind it.
    if (!isDenied) return { tun: "missing", tunMode: "" };
    return { tun: "forbidden", tunMode: modeOf(path) };
  }
}

function modeOf(path: string): string {
  try {
    const mode = Deno.statSync(path).mode ?? 0;
    const bits = [..."rwxrwxrwx"].map((letter, i) =>
      (mode & (0o400 >> i)) === 0 ? "-" : letter
    );
    return `c${bits.join("")}`;
  } catch {
    return "in a directory that is closed to it";
  }
}

/** Settings that take user namespaces away from ordinary users. */
const SETTINGS: readonly (readonly [string, string])[] = [
  ["kernel/unprivileged_userns_clone", "0"],
  ["kernel/apparmor_restrict_unprivileged_userns", "1"],
  ["user/max_user_namespaces", "0"],
];

/** Why an ordinary user cannot have namespaces; null: it can. */
async function userNamespaceProblem(): Promise<string | null> {
  // Some kernels give the namespace but no rights in it.
  const trial = ["ip", "link", "set", "lo", "up"];
  const problem = await fails([
    ...["unshare", ...UNSHARE_OPTIONS],
    ...(isInstalled("ip") ? trial : ["true"]),
  ]);
  if (problem === null) return null;
  for (const [name, value] of SETTINGS) {
    try {
      const text = Deno.readTextFileSync(`/proc/sys/${name}`).trim();
      if (text === value) return `${name.replaceAll("/", ".")} is ${value}`;
    } catch {
      // This kernel has no such setting.
    }
  }
  return problem;
}

/** Command line of the demo itself. */
function demoCommand(args: readonly string[]): string[] {
  const program = Deno.execPath();
  // The suite's file; see tools/modules.ts.
  if (Deno.build.standalone) return [program, "demo", ...args];
  const entry = fileURLToPath(new URL("./demo.ts", import.meta.url));
  return [program, "run", "-A", entry, ...args];
}

function quote(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word)
    ? word
    : `'${word.replaceAll("'", "'\\''")}'`;
}
