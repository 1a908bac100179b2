/**
 * `deno task test:alone`: the demo and the namespace tests in a root directory
 * that holds nothing but glibc, the programs that they call, wgd and the suite
 * (`deno task compile --suite`): no Deno, no node and no checkout.
 *
 *     WGD_PROGRAM=FILE WGD_SUITE=FILE deno task test:alone [ARGUMENT...]
 *
 * The arguments are those of `wgd-suite test`. The network namespace is a new
 * one, too. Needs root; what is missing is said.
 */
import { fileURLToPath } from "node:url";
import {
  findProgram,
  inUserNamespace,
  missing,
  wireguardGoCommand,
} from "../netns/requirements.ts";
import { bareRootCommand, MAKERS, NEEDED, programFiles } from "./bare_root.ts";

/** What the tests and the demo call, those of `labTest` and those in scripts. */
const PROGRAMS = [
  ...[
    "bash",
    "cat",
    "chmod",
    "cp",
    "dd",
    "env",
    "false",
    "find",
    "grep",
    "head",
  ],
  ...[
    "id",
    "ls",
    "mkdir",
    "mkfifo",
    "mount",
    "mv",
    "readlink",
    "rm",
    "setsid",
    "sleep",
  ],
  ...["sort", "stat", "sync", "tail", "timeout", "touch", "true", "wc"],
  ...["ethtool", "ip", "iperf3", "nft", "nsenter", "nstat", "perl", "ping"],
  ...["setpriv", "ss", "strace", "sysctl", "taskset", "tc", "tcpdump"],
  ...["unshare", "wg", "wg-quick"],
];
/** The other end of many tests: WGD_WIREGUARD_GO, or the installed one. */
const PEER = "/usr/bin/wireguard-go";
const DEVICES = ["null", "zero", "full", "random", "urandom", "net/tun"];
/**
 * Users, for tcpdump and setpriv; names of services; and what the C library's
 * resolver is told: host.conf, that a name in hosts may have several addresses.
 */
const TABLES = [
  "passwd",
  "group",
  "protocols",
  "services",
  "hosts",
  "host.conf",
]
  .map((name) => `/etc/${name}`);
/** The C library opens them by name, where it has not their code itself. */
const RESOLVERS = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"];
/** What the tests' scripts in Perl load. */
const PERL_FILES =
  'use Fcntl; use Socket; print "$_\\n" for values %INC, @DynaLoader::dl_shared_objects';
const PASSED_ON = ["NO_COLOR", "WGD_REPORT", "WGD_SIGTERM_ROUNDS", "WGD_SLOW"];

/** $1 is the checkout. */
const SCRIPT = `checkout=$1
shift
fail() {
  echo "alone: $1" >&2
  exit 1
}
for name in deno node nodejs npm npx bun; do
  ! command -v "$name" || fail "there is $name"
done
[ ! -e "$checkout" ] || fail "there is $checkout"
[ ! -e /old ] || fail "the old root is still there"
found=$(find / -xdev \\( -name '*deno*' -o -name '*node*' -o -name '*.ts' \\
  -o -name '*.js' -o -name node_modules \\))
[ -z "$found" ] || fail "there is $found"
while read -r _ _ _ _ target _; do
  case $target in
    / | /proc | /sys | /sys/fs/cgroup | /sys/fs/cgroup/* | /dev/*) ;;
    *) fail "there is a file system on $target" ;;
  esac
done < /proc/self/mountinfo
ip link set lo up || exit 1
export WGD_PROGRAM=/usr/bin/wgd
echo "alone with $(find / -xdev -type f | wc -l) files, of Deno and of a" \\
  "checkout none; $(wgd --version)"
status=0
wgd-suite demo || status=1
wgd-suite test "$@" || status=1
exit $status
`;

function exists(path: string): boolean {
  try {
    return Deno.statSync(path).isFile;
  } catch {
    return false;
  }
}

function say(line: string): void {
  Deno.stderr.writeSync(new TextEncoder().encode(`${line}\n`));
}

/** Why it cannot run here. */
function lacks(files: readonly string[]): string | undefined {
  const [program, suite] = files;
  if (!exists(program)) return "needs WGD_PROGRAM, an executable";
  if (!exists(suite)) {
    return "needs WGD_SUITE, made by deno task compile --suite";
  }
  const isLinux = Deno.build.os === "linux";
  if (isLinux && (Deno.uid() !== 0 || inUserNamespace())) {
    return "needs root, and not a user namespace's, which may not mount a /sys " +
      "in each network namespace";
  }
  return missing([...MAKERS, ...NEEDED, "find", "sed"]);
}

/** Lines that a program prints; none where it is not there. */
function linesOf(program: string, ...args: string[]): string[] {
  if (findProgram(program) === undefined) return [];
  const { success, stdout } = new Deno.Command(program, { args }).outputSync();
  const text = new TextDecoder().decode(stdout);
  return success ? text.split("\n").filter((line) => line !== "") : [];
}

/** All that is in the root, by its path there. */
function filesOf(program: string, suite: string): Record<string, string> {
  const names = [...new Set([...PROGRAMS, ...NEEDED])];
  const files = programFiles(names);
  const [wireguardGo] = wireguardGoCommand();
  const path = exists(wireguardGo) ? wireguardGo : findProgram(wireguardGo);
  if (path !== undefined) files[PEER] = path;
  for (const name of [...names, "wireguard-go"]) {
    if (!(`/usr/bin/${name}` in files)) say(`not installed here: ${name}`);
  }
  const libc = linesOf("ldd", program).join("\n")
    .match(/(\S+)\/libc\.so\.6/)?.[1] ?? "/lib";
  const asTheyAre = [
    ...TABLES,
    ...RESOLVERS.map((name) => `${libc}/${name}`),
    ...linesOf("perl", "-e", PERL_FILES),
  ].filter(exists);
  return {
    ...files,
    ...Object.fromEntries(asTheyAre.map((path) => [path, path])),
    "/etc/resolv.conf": "/dev/null",
    "/usr/bin/wgd": program,
    "/usr/bin/wgd-suite": suite,
  };
}

function main(args: readonly string[]): number {
  const [program, suite] = ["WGD_PROGRAM", "WGD_SUITE"].map((name) =>
    Deno.env.get(name) ?? ""
  );
  const why = lacks([program, suite]);
  if (why !== undefined) {
    say(
      `skipped: the demo and the namespace tests on an empty machine: ${why}`,
    );
    say("ok | 0 passed | 0 failed | 1 ignored");
    return 0;
  }
  const directory = Deno.makeTempDirSync({ prefix: "wgd-alone-" });
  try {
    const script = `${directory}/script`;
    Deno.writeTextFileSync(script, SCRIPT);
    const root = `${directory}/root`;
    Deno.mkdirSync(root);
    const [enter, ...rest] = bareRootCommand({
      directory: root,
      files: filesOf(program, suite),
      devices: DEVICES,
      sys: true,
      script,
      args: [fileURLToPath(new URL("../../", import.meta.url)), ...args],
    });
    const env = Object.fromEntries(
      ["PATH", ...PASSED_ON].map((name) => [name, Deno.env.get(name)] as const)
        .filter((pair): pair is [string, string] => pair[1] !== undefined),
    );
    return new Deno.Command(enter, {
      args: ["--net", ...rest],
      clearEnv: true,
      env,
      stdin: "null",
      stdout: "inherit",
      stderr: "inherit",
    }).outputSync().code;
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
}

if (import.meta.main) Deno.exit(main(Deno.args));
