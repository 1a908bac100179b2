/**
 * Network namespaces joined by veth, the daemons in them, and their removal.
 *
 *      ┌── a ───────┐           ┌── b ───────┐
 *      │ 10.9.0.1   │           │ 10.9.0.2   │     inside, on the tunnel
 *      │ fd09::1    │           │ fd09::2    │
 *      │        va ─┼───────────┼─ vb        │
 *      │ 10.77.0.1  │           │ 10.77.0.2  │     outside
 *      │ fd77::1    │           │ fd77::2    │
 *      └────────────┘           └────────────┘
 *
 * A guardian, a shell in a session of its own, removes everything when its
 * stdin ends: so also when the tests are interrupted or killed.
 */
import { assertEquals } from "@std/assert";
import { Daemon, type DaemonOptions, type Implementation } from "./daemon.ts";
import {
  attempt,
  type Finished,
  Process,
  run,
  type RunOptions,
} from "./process.ts";

/** Begins every name that this process gives. */
export const PREFIX = `w${Deno.pid}`;
const SOCKETS = "/var/run/wireguard";

let labs = 0;
let interfaces = 0;

const GUARDIAN = `trap '' INT TERM HUP
spaces= paths=
while read -r kind name; do
  case $kind in
    netns) spaces="$spaces $name" ;;
    path) paths="$paths $name" ;;
  esac
done
for space in $spaces; do
  for pid in $(ip netns pids "$space" 2>/dev/null); do kill -9 "$pid"; done
  ip netns delete "$space"
done
rm -rf $paths`;

/** Runs its arguments with the directory that its name is, if there is none. */
const WITH_STATE = 'export STATE_DIRECTORY="${STATE_DIRECTORY:-$0}"; exec "$@"';

/** A network namespace. */
export class Namespace {
  constructor(readonly name: string, readonly lab: Lab) {}

  /**
   * Command line that runs another one in here. What daemons keep over restarts
   * goes with the lab, unless a test says where.
   */
  argv(argv: readonly string[]): string[] {
    const state = `${this.lab.directory}/state`;
    const enter = ["ip", "netns", "exec", this.name];
    return [...enter, "sh", "-c", WITH_STATE, state, ...argv];
  }

  /** Runs a program that must succeed. @returns its stdout */
  run(argv: readonly string[], options?: RunOptions): Promise<string> {
    return run(this.argv(argv), options);
  }

  /** Runs a program, whatever its exit status. */
  attempt(argv: readonly string[], options?: RunOptions): Promise<Finished> {
    return attempt(this.argv(argv), options);
  }

  /** Runs `ip ARGS` in here. */
  ip(...args: string[]): Promise<string> {
    return run(["ip", "-n", this.name, ...args]);
  }

  /** Starts a program in the background; it ends with the lab. */
  spawn(argv: readonly string[], env?: Record<string, string>): Process {
    return this.lab.own(new Process(this.argv(argv), env));
  }

  /** Starts a daemon with a new interface; it ends with the lab. */
  async daemon(
    implementation: Implementation,
    options?: DaemonOptions,
  ): Promise<Daemon> {
    const name = options?.name ?? await this.lab.interfaceName();
    const daemon = this.lab.own(
      new Daemon(this, implementation, { ...options, name }),
    );
    await daemon.ready();
    return daemon;
  }

  /**
   * All that the system knows of links, addresses, routes and rules in here, but
   * for the addresses of links' own that it gives in its own time.
   */
  async state(): Promise<string> {
    const dumps = [
      ["-o", "link"],
      ["-o", "address"],
      ["route", "show", "table", "all"],
      ["-6", "route", "show", "table", "all"],
      ["rule"],
      ["-6", "rule"],
    ];
    const texts = await Promise.all(dumps.map((args) => this.ip(...args)));
    return texts.join("---\n").split("\n")
      .filter((line) => !line.includes("fe80::")).join("\n");
  }
}

/** Namespaces of one test. */
export class Lab implements AsyncDisposable {
  readonly id = `${PREFIX}-${++labs}`;
  readonly a: Namespace = new Namespace(`${this.id}a`, this);
  readonly b: Namespace = new Namespace(`${this.id}b`, this);
  readonly directory: string = Deno.makeTempDirSync({ prefix: `${PREFIX}-` });
  readonly #owned = new AsyncDisposableStack();
  readonly #guardian: Deno.ChildProcess;
  readonly #orders: WritableStreamDefaultWriter<Uint8Array>;
  #files = 0;

  private constructor() {
    this.#guardian = new Deno.Command("setsid", {
      args: ["sh", "-c", GUARDIAN],
      stdin: "piped",
      stdout: "null",
      stderr: "null",
    }).spawn();
    this.#orders = this.#guardian.stdin.getWriter();
  }

  /** Makes two namespaces that are joined, or not. */
  static async make({ joined = true } = {}): Promise<Lab> {
    const lab = new Lab();
    try {
      await lab.#order(`path ${lab.directory}`);
      await lab.addNamespace(lab.a);
      await lab.addNamespace(lab.b);
      if (joined) {
        await lab.a.ip(
          ...["link", "add", "va", "type", "veth"],
          ...["peer", "name", "vb", "netns", lab.b.name],
        );
        await lab.connect(lab.a, "va", "10.77.0.1/24", "fd77::1/64");
        await lab.connect(lab.b, "vb", "10.77.0.2/24", "fd77::2/64");
      }
      return lab;
    } catch (error) {
      await lab[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Makes a namespace; it goes with the lab. */
  async addNamespace(namespace: Namespace): Promise<Namespace> {
    await this.#order(`netns ${namespace.name}`);
    await run(["ip", "netns", "add", namespace.name]);
    await namespace.ip("link", "set", "lo", "up");
    return namespace;
  }

  /** Gives a link addresses and brings it up. */
  async connect(
    namespace: Namespace,
    link: string,
    ...addresses: string[]
  ): Promise<void> {
    for (const address of addresses) {
      const noDad = address.includes(":") ? ["nodad"] : [];
      await namespace.ip("addr", "add", address, "dev", link, ...noDad);
    }
    await namespace.ip("link", "set", link, "up");
  }

  /** A name for an interface; its socket goes with the lab. */
  async interfaceName(): Promise<string> {
    const name = `${PREFIX}i${++interfaces}`;
    await this.#order(`path ${SOCKETS}/${name}.*`); // the shell expands it
    return name;
  }

  /** Writes a file that only root reads. @returns its path */
  file(text: string, name = `file${++this.#files}`, mode = 0o600): string {
    const path = `${this.directory}/${name}`;
    Deno.writeTextFileSync(path, text, { mode });
    return path;
  }

  /** Ends `thing` with the lab. */
  own<T extends AsyncDisposable>(thing: T): T {
    return this.#owned.use(thing);
  }

  async #order(line: string): Promise<void> {
    await this.#orders.write(new TextEncoder().encode(`${line}\n`));
  }

  /** Ends what runs in the namespaces, then removes all. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      await this.#owned.disposeAsync();
    } finally {
      await this.#orders.close();
      await this.#guardian.status;
    }
  }
}

/** What was left, each told once: it is not the next tests' fault. */
const told = new Set<string>();

/** @throws AssertionError when something that this process made is left */
export async function assertNothingLeft(): Promise<void> {
  const found = (await leftovers()).filter((what) => !told.has(what));
  for (const what of found) told.add(what);
  assertEquals(found, [], "something is left behind");
}

async function leftovers(): Promise<string[]> {
  const left: string[] = [];
  const spaces = await run(["ip", "netns", "list"]);
  left.push(...spaces.split("\n").filter((line) => line.startsWith(PREFIX)));
  left.push(
    ...await run(["ip", "-o", "link"]).then((links) =>
      links.split("\n").filter((line) => line.includes(`: ${PREFIX}`))
    ),
  );
  for (const directory of [SOCKETS, "/tmp"]) {
    left.push(...namesIn(directory).filter((name) => isOurs(name)));
  }
  for (const pid of namesIn("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      const words = Deno.readTextFileSync(`/proc/${pid}/cmdline`).split("\0");
      if (words.some(isOurs)) left.push(`process ${pid}: ${words.join(" ")}`);
    } catch {
      // Ended meanwhile.
    }
  }
  return left;
}

function isOurs(word: string): boolean {
  return new RegExp(`^${PREFIX}[i-]`).test(word);
}

function namesIn(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}
