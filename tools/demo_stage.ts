/**
 * What the demo is played on, and its removal:
 *
 *     namespace wgd-demo-PID-a            namespace wgd-demo-PID-b
 *     wgPIDa  10.77.0.1  fd77::1          wgPIDb  10.77.0.2  fd77::2
 *     veth0   192.0.2.1  ---- cable ----  veth0   192.0.2.2
 *
 * Names carry the process's number, so that demos can run side by side, and so
 * that one clears away what a killed one left.
 *
 * @module
 */
import { generatePrivateKey, publicKey } from "../lib/crypto/x25519.ts";
import { ownCommand } from "../lib/daemon.ts";
import { type Cidr, parseCidr, parseIp } from "../lib/ip.ts";
import { uapiPath } from "../lib/ipc.ts";
import { getDevice, setDevice, UapiError } from "../lib/uapi_client.ts";
import { type DeviceState, formatSet } from "../lib/uapi_state.ts";
import {
  type Commands,
  DemoError,
  type Program,
  run,
  until,
} from "./demo_process.ts";

/** One end of the tunnel. */
export interface Side {
  readonly label: "a" | "b";
  readonly namespace: string;
  /** The WireGuard interface. */
  readonly device: string;
  /** Address on the cable. */
  readonly outer: string;
  /** Addresses in the tunnel. */
  readonly v4: string;
  readonly v6: string;
}

/** Where both daemons listen: each has a namespace of its own. */
export const LISTEN_PORT = 51820;
const CABLE = "veth0";
/** Where ip(8) keeps the names of namespaces. */
const NAMESPACES = "/var/run/netns";
const LEFT_NAMES = /^wgd-demo-(\d+)-([ab])$/;
const DAEMON_TIMEOUT_MS = 10_000;
const SOCKET_TIMEOUT_MS = 5_000;

function makeSide(label: "a" | "b", pid: number): Side {
  const number = label === "a" ? 1 : 2;
  return {
    label,
    namespace: `wgd-demo-${pid}-${label}`,
    device: `wg${pid}${label}`,
    outer: `192.0.2.${number}`,
    v4: `10.77.0.${number}`,
    v6: `fd77::${number}`,
  };
}

/** Command line of `wgd ARGS`: WGD_PROGRAM, an executable, or this checkout. */
function daemonCommand(args: readonly string[]): string[] {
  const program = Deno.env.get("WGD_PROGRAM");
  return program ? [program, ...args] : ownCommand(args).flat();
}

/** How a program is started in a namespace. */
export type Entry = "ip netns exec" | "nsenter";

/** Two namespaces, a cable, and a daemon in each. */
export class Stage {
  readonly a: Side = makeSide("a", Deno.pid);
  readonly b: Side = makeSide("b", Deno.pid);
  readonly #commands: Commands;
  readonly #entry: Entry;
  readonly #v6: boolean;
  readonly #daemons = new Map<Side, Program>();

  /** @param v6 whether the kernel has IPv6 */
  constructor(commands: Commands, entry: Entry, v6: boolean) {
    this.#commands = commands;
    this.#entry = entry;
    this.#v6 = v6;
  }

  /** Command line that runs `argv` in the namespace of `side`. */
  inside(side: Side, argv: readonly string[]): string[] {
    const enter = this.#entry === "nsenter"
      ? ["nsenter", `--net=${NAMESPACES}/${side.namespace}`, "--"]
      : ["ip", "netns", "exec", side.namespace];
    return [...enter, ...argv];
  }

  /** Makes the namespaces and lays the cable. */
  async makeNamespaces(): Promise<void> {
    const { a, b } = this;
    await this.#ip("netns", "add", a.namespace);
    await this.#ip("netns", "add", b.namespace);
    await this.#ipIn(
      a,
      ...["link", "add", CABLE, "type", "veth"],
      ...["peer", "name", CABLE, "netns", b.namespace],
    );
    for (const side of [a, b]) {
      await this.#ipIn(side, "addr", "add", `${side.outer}/24`, "dev", CABLE);
      await this.#ipIn(side, "link", "set", "lo", "up");
      await this.#ipIn(side, "link", "set", CABLE, "up");
    }
  }

  /** Starts a daemon on each side. @returns their process numbers */
  async startDaemons(): Promise<number[]> {
    for (const side of [this.a, this.b]) {
      const command = daemonCommand(["run", "-f", side.device]);
      const program = this.#commands.start(this.inside(side, command));
      this.#daemons.set(side, program);
    }
    for (const [side, program] of this.#daemons) {
      const serves = async (): Promise<boolean> => {
        if (!program.running) throw this.#daemonFailed(side, program);
        return await this.#answers(side);
      };
      const { signal } = this.#commands;
      if (await until(serves, DAEMON_TIMEOUT_MS, signal)) continue;
      throw new DemoError(`the daemon of ${side.label} does not answer`);
    }
    return [...this.#daemons.values()].map(({ pid }) => pid);
  }

  /** Makes keys and gives each daemon its own, its port and its peer. */
  async configure(): Promise<void> {
    const [keyA, keyB] = [generatePrivateKey(), generatePrivateKey()];
    await setDevice(
      this.a.device,
      formatSet({
        privateKey: keyA,
        listenPort: LISTEN_PORT,
        peers: [{
          publicKey: publicKey(keyB),
          endpoint: {
            address: parseIp(this.b.outer) ?? unreachable(),
            port: LISTEN_PORT,
            scope: "",
          },
          allowedIps: allowedIps(this.b),
        }],
      }),
    );
    // b learns where a is from its handshake.
    await setDevice(
      this.b.device,
      formatSet({
        privateKey: keyB,
        listenPort: LISTEN_PORT,
        peers: [{
          publicKey: publicKey(keyA),
          allowedIps: allowedIps(this.a),
        }],
      }),
    );
  }

  /** Gives the interfaces their addresses and brings them up. */
  async bringUp(): Promise<void> {
    for (const side of [this.a, this.b]) {
      const { device, v4, v6 } = side;
      await this.#ipIn(side, "addr", "add", `${v4}/24`, "dev", device);
      if (this.#v6) {
        const address = ["addr", "add", `${v6}/64`, "dev", device, "nodad"];
        await this.#ipIn(side, "-6", ...address);
      }
      await this.#ipIn(side, "link", "set", device, "up");
    }
    for (const side of [this.a, this.b]) {
      const { signal } = this.#commands;
      const listens = (): Promise<boolean> => this.#listens(side);
      if (await until(listens, SOCKET_TIMEOUT_MS, signal)) continue;
      throw new DemoError(
        `the daemon of ${side.label} opened no UDP port ${LISTEN_PORT}` +
          lastWords(this.#daemons.get(side)),
      );
    }
  }

  /** What the daemon of `side` tells of itself. */
  async state(side: Side): Promise<DeviceState> {
    return await getDevice(side.device);
  }

  /** What daemons said on stderr. */
  complaints(): string[] {
    return [...this.#daemons].flatMap(([{ label }, { stderr }]) =>
      stderr.trim() === "" ? [] : [`daemon ${label}: ${stderr.trim()}`]
    );
  }

  /** Removes everything. @returns what is left all the same, and how to remove it */
  async remove(): Promise<string[]> {
    await this.#commands.stopAll();
    for (const side of [this.a, this.b]) {
      await removeSide(side, this.#commands.echo);
    }
    return [this.a, this.b].filter(isLeft).map(({ namespace }) =>
      `${namespace} (ip netns del ${namespace})`
    );
  }

  /** Whether a daemon serves its UAPI socket. */
  async #answers(side: Side): Promise<boolean> {
    try {
      await getDevice(side.device);
      return true;
    } catch (error) {
      if (error instanceof UapiError) return false;
      throw error;
    }
  }

  /** Whether a UDP socket of the namespace is bound to the port. */
  async #listens(side: Side): Promise<boolean> {
    const files = ["/proc/net/udp", "/proc/net/udp6"];
    const { stdout } = await run(this.inside(side, ["cat", ...files]));
    const port = LISTEN_PORT.toString(16).toUpperCase();
    return new RegExp(`^ *\\d+: [0-9A-F]+:${port} `, "m").test(stdout);
  }

  #daemonFailed({ label }: Side, program: Program): DemoError {
    const words = lastWords(program);
    return new DemoError(`the daemon of ${label} did not start${words}`);
  }

  #ip(...args: string[]): Promise<void> {
    return this.#commands.must(["ip", ...args]);
  }

  #ipIn({ namespace }: Side, ...args: string[]): Promise<void> {
    return this.#ip("-n", namespace, ...args);
  }
}

function unreachable(): never {
  throw new Error("an address of the demo is none");
}

function allowedIps({ v4, v6 }: Side): Cidr[] {
  return [`${v4}/32`, `${v6}/128`].map((text) =>
    parseCidr(text) ?? unreachable()
  );
}

function lastWords(program: Program | undefined): string {
  const text = program?.stderr.trim() ?? "";
  return text === "" ? "" : `; it said:\n${text}`;
}

function isLeft({ namespace }: Side): boolean {
  return namespaces().includes(namespace);
}

function namespaces(): string[] {
  try {
    return [...Deno.readDirSync(NAMESPACES)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

async function removeSide(
  side: Side,
  echo: (argv: readonly string[]) => void,
): Promise<void> {
  if (isLeft(side)) {
    const argv = ["ip", "netns", "del", side.namespace];
    echo(argv);
    await run(argv);
  }
  try {
    // Only a daemon that had to be killed leaves its socket.
    Deno.removeSync(uapiPath(side.device));
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}

/**
 * Clears away what demos left that were killed.
 *
 * @returns the names of the namespaces removed
 */
export async function removeLeftovers(commands: Commands): Promise<string[]> {
  const removed: string[] = [];
  for (const name of namespaces()) {
    const match = LEFT_NAMES.exec(name);
    if (match === null || isAlive(match[1])) continue;
    const { stdout } = await commands.run(["ip", "netns", "pids", name]);
    for (const pid of stdout.split("\n").filter((line) => line !== "")) {
      killQuietly(Number(pid));
    }
    const label = match[2] === "a" ? "a" : "b";
    await removeSide(makeSide(label, Number(match[1])), commands.echo);
    removed.push(name);
  }
  return removed;
}

function isAlive(pid: string): boolean {
  try {
    Deno.statSync(`/proc/${pid}`);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

function killQuietly(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // It has ended by itself.
  }
}
