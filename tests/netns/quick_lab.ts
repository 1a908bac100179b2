/**
 * What the tests of `wgd up` and its kin have in common: a far side, files, all
 * that the system knows before and after, and programs that stand in for the
 * system's: a resolvconf that keeps records, and ones that fail when told to.
 */
import { wgdCommand } from "./requirements.ts";
import type { Lab, Namespace } from "./lab.ts";
import type { Implementation } from "./daemon.ts";
import { attempt, type Finished, run, type RunOptions } from "./process.ts";
import { generateKeys, INNER, type Keys, OUTER, PORT } from "./tunnel.ts";

/** The far side, and the keys and the name of the near one. */
export interface Site {
  readonly name: string;
  readonly keys: { readonly a: Keys; readonly b: Keys };
}

/** Makes the far side, which routes everything of the near one. */
export async function makeSite(
  lab: Lab,
  implementation: Implementation = "wgd",
): Promise<Site> {
  const [name, far, a, b] = await Promise.all([
    lab.interfaceName(),
    lab.b.daemon(implementation),
    generateKeys(),
    generateKeys(),
  ]);
  await far.set(
    ...["private-key", lab.file(b.private), "listen-port", String(PORT.b)],
    ...["peer", a.public],
    ...["allowed-ips", `${INNER.a.v4}/32,${INNER.a.v6}/128`],
  );
  await far.up(`${INNER.b.v4}/24`, `${INNER.b.v6}/64`, "10.200.0.1/32");
  return { name, keys: { a, b } };
}

/** Lines of a configuration, besides the keys. */
export interface FileOptions {
  /** Lines of `[Interface]`. */
  readonly interface?: string;
  /** `AllowedIPs`; empty: no such line. */
  readonly allowed?: string;
  /** `Endpoint`; null: none. */
  readonly endpoint?: string | null;
  /** More sections. */
  readonly more?: string;
}

/** Writes a configuration. @returns its path */
export function writeSite(
  lab: Lab,
  { name, keys }: Site,
  options: FileOptions = {},
): string {
  const {
    interface: lines = `Address = ${INNER.a.v4}/24, ${INNER.a.v6}/64`,
    allowed = `${INNER.b.v4}/32, ${INNER.b.v6}/128`,
    endpoint = `${OUTER.v4.b}:${PORT.b}`,
    more = "",
  } = options;
  const ranges = allowed === "" ? "" : `AllowedIPs = ${allowed}\n`;
  const where = endpoint === null ? "" : `Endpoint = ${endpoint}\n`;
  return lab.file(
    `[Interface]
PrivateKey = ${keys.a.private}
ListenPort = ${PORT.a}
${lines}

[Peer]
PublicKey = ${keys.b.public}
${ranges}${where}${more}`,
    `${name}.conf`,
  );
}

const inKernel = await kernelHasWireguard();

async function kernelHasWireguard(): Promise<boolean> {
  if (Deno.uid() !== 0 || Deno.build.os !== "linux") return false;
  const name = `w${Deno.pid}k`;
  const { code } = await attempt(
    ["ip", "link", "add", name, "type", "wireguard"],
  );
  if (code === 0) await run(["ip", "link", "del", name]);
  return code === 0;
}

/** What tests need that compare with stock wg-quick. */
export const STOCK = {
  programs: ["wg-quick", "nft", "sysctl"],
  skip: inKernel
    ? "wg-quick uses the kernel's driver, which this kernel has"
    : undefined,
};

/** All that the system knows, in a namespace, that `up` might change. */
export async function dump(
  lab: Lab,
  namespace: Namespace = lab.a,
): Promise<string> {
  const commands = [
    ["ip", "-4", "rule"],
    ["ip", "-6", "rule"],
    ["ip", "-4", "route", "show", "table", "all"],
    ["ip", "-6", "route", "show", "table", "all"],
    ["ip", "-o", "address"],
    ["ip", "-o", "link"],
    ["nft", "list", "ruleset"],
    ["sysctl", "-a", "--pattern", "^net.ipv[46].conf.(all|default)"],
  ];
  const texts = await Promise.all(
    commands.map((argv) => namespace.attempt(argv).then((it) => it.stdout)),
  );
  return [...texts, resolverState(lab)].join("---\n").split("\n")
    .filter((line) => !line.includes("fe80::") && !line.includes("stable_secr"))
    .join("\n");
}

/** The commands that were echoed, but for how the interface is made. */
export function echoed(stderr: string): string[] {
  return stderr.split("\n").filter((line) => line.startsWith("[#] "))
    .map((line) => line.replace(/ priority \d+$/, ""))
    .filter((line) => !/^\[#\] (wg|wgd|nft|ip link add) /.test(line));
}

/** Without the numbers of links, and with rules of one chain in one order. */
export function comparable(text: string): string {
  return text.split("\n").map((line) => line.replace(/^\d+: (?=\S+ {4}|w)/, ""))
    .map((line) => line.replace(/\blinkmode DEFAULT group default\b.*$/, ""))
    .join("\n").replace(
      /(\t\tiifname != .*\n)+/g,
      (rules) => rules.split("\n").sort().join("\n"),
    );
}

/** A directory of programs that come first in PATH. */
function programDirectory(lab: Lab): string {
  const bin = `${lab.directory}/bin`;
  Deno.mkdirSync(bin, { recursive: true });
  return bin;
}

/** Puts a program first in the PATH of {@linkcode runWith}. */
export function writeProgram(lab: Lab, name: string, script: string): void {
  const path = `${programDirectory(lab)}/${name}`;
  Deno.writeTextFileSync(path, script, { mode: 0o755 });
}

/** Puts wgd there, as stock wg-quick starts it. */
export function writeWgd(lab: Lab): void {
  const words = wgdCommand().map((word) => `'${word}'`).join(" ");
  writeProgram(lab, "wgd", `#!/bin/sh\nexec ${words} "$@"\n`);
}

/** Runs a program in namespace a, with the lab's programs first in PATH. */
export function runWith(
  lab: Lab,
  argv: readonly string[],
  options: RunOptions = {},
): Promise<Finished> {
  return lab.a.attempt(withPath(lab, argv), options);
}

/** Command line with the lab's programs first in PATH. */
export function withPath(lab: Lab, argv: readonly string[]): string[] {
  const path = `${programDirectory(lab)}:${Deno.env.get("PATH")}`;
  return [
    ...["env", `PATH=${path}`, "WG_QUICK_USERSPACE_IMPLEMENTATION=wgd"],
    ...argv,
  ];
}

/** Runs `wgd ARGS` in namespace a, which must succeed. @returns its stderr */
export async function wgd(lab: Lab, ...args: string[]): Promise<string> {
  return (await succeed(runWith(lab, [...wgdCommand(), ...args]))).stderr;
}

/** Waits for a program that must succeed. */
export async function succeed(program: Promise<Finished>): Promise<Finished> {
  const finished = await program;
  if (finished.code === 0) return finished;
  throw new Error(`exit ${finished.code}\n${finished.stderr}`);
}

/** What the resolvconf of {@linkcode writeResolvconf} keeps. */
function resolverState(lab: Lab): string {
  try {
    const directory = `${lab.directory}/records`;
    return [...Deno.readDirSync(directory)].map(({ name }) =>
      `${name}: ${Deno.readTextFileSync(`${directory}/${name}`)}`
    ).sort().join("");
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return "";
    throw error;
  }
}

/** Puts a resolvconf there that keeps records, and notes how it is called. */
export function writeResolvconf(lab: Lab): { calls(): string[] } {
  const { directory } = lab;
  writeProgram(
    lab,
    "resolvconf",
    `#!/bin/sh
echo "$*" >>${directory}/calls
mkdir -p ${directory}/records
case $1 in
  -a) cat >${directory}/records/$2 ;;
  -d) rm -f ${directory}/records/$2 ;;
  -l) cat ${directory}/records/$2 ;;
  *) exit 2 ;;
esac
`,
  );
  Deno.writeTextFileSync(`${directory}/calls`, "");
  return {
    calls: () =>
      Deno.readTextFileSync(`${directory}/calls`).split("\n").slice(0, -1),
  };
}

/** Commands that only tell something are not counted. */
const READS = "*' show'*|*' get '*|*'list'*|*'-save'*";

/** What a call does that is made to fail. */
const FAILURE = 'echo "made to fail" >&2; exit 1';

/** Makes the call of this number fail, of all that change something. */
export class FailingPrograms {
  readonly #lab: Lab;

  /** @param instead what a shell does at that call, rather than fail */
  constructor(
    lab: Lab,
    programs: Readonly<Record<string, string>>,
    instead = FAILURE,
  ) {
    this.#lab = lab;
    for (const [name, real] of Object.entries(programs)) {
      writeProgram(
        lab,
        name,
        `#!/bin/sh
case " $*" in ${READS}) exec ${real} "$@" ;; esac
n=$(($(cat ${lab.directory}/count) + 1))
echo $n >${lab.directory}/count
if [ $n = "$(cat ${lab.directory}/fails)" ]; then
  ${instead}
fi
exec ${real} "$@"
`,
      );
    }
    this.arm(0);
  }

  /** Starts to count again; call `at` will fail, none for 0. */
  arm(at: number): void {
    Deno.writeTextFileSync(`${this.#lab.directory}/count`, "0\n");
    Deno.writeTextFileSync(`${this.#lab.directory}/fails`, `${at}\n`);
  }

  /** How many calls there were. */
  get calls(): number {
    return Number(Deno.readTextFileSync(`${this.#lab.directory}/count`));
  }
}
