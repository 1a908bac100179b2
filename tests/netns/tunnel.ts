/** Two daemons that are each other's peer: `a` knows where `b` is. */
import type { Daemon, DaemonOptions, Implementation } from "./daemon.ts";
import type { Lab } from "./lab.ts";
import { run } from "./process.ts";

/** What a tunnel is made of. */
export interface TunnelOptions {
  readonly a?: Implementation;
  readonly b?: Implementation;
  readonly outer?: "v4" | "v6";
  readonly psk?: boolean;
  /** Options for wgd. */
  readonly daemon?: DaemonOptions;
  /** Those for `a`, if it has others. */
  readonly daemonA?: DaemonOptions;
}

/** Keys of one side. */
export interface Keys {
  readonly private: string;
  readonly public: string;
}

/** Addresses and ports of the two sides. */
export const OUTER = {
  v4: { a: "10.77.0.1", b: "10.77.0.2" },
  v6: { a: "[fd77::1]", b: "[fd77::2]" },
} as const;
export const INNER = {
  a: { v4: "10.9.0.1", v6: "fd09::1" },
  b: { v4: "10.9.0.2", v6: "fd09::2" },
} as const;
export const PORT = { a: 51821, b: 51822 } as const;

/** New keys. */
export async function generateKeys(): Promise<Keys> {
  const key = (await run(["wg", "genkey"])).trim();
  const publicKey = (await run(["wg", "pubkey"], { stdin: key })).trim();
  return { private: key, public: publicKey };
}

/** A tunnel between the namespaces of a lab. */
export class Tunnel {
  readonly keys: { a: Keys; b: Keys };

  private constructor(
    readonly lab: Lab,
    readonly a: Daemon,
    readonly b: Daemon,
    keys: { a: Keys; b: Keys },
    readonly psk: string | undefined,
    readonly outer: "v4" | "v6",
  ) {
    this.keys = keys;
  }

  /** Starts both daemons, configures them, and brings the interfaces up. */
  static async make(lab: Lab, options: TunnelOptions = {}): Promise<Tunnel> {
    const { a = "wgd", b = "wgd", outer = "v4", psk = false } = options;
    const [first, second, keysOfA, keysOfB, secret] = await Promise.all([
      lab.a.daemon(a, options.daemonA ?? options.daemon),
      lab.b.daemon(b, options.daemon),
      generateKeys(),
      generateKeys(),
      psk ? run(["wg", "genpsk"]) : undefined,
    ]);
    const keys = { a: keysOfA, b: keysOfB };
    const tunnel = new Tunnel(lab, first, second, keys, secret, outer);
    await Promise.all([tunnel.configure("a"), tunnel.configure("b")]);
    return tunnel;
  }

  /** Gives one side its keys, peer and addresses; also a daemon started anew. */
  async configure(
    side: "a" | "b",
    daemon: Daemon = side === "a" ? this.a : this.b,
  ): Promise<void> {
    const other = side === "a" ? "b" : "a";
    const inner = INNER[other];
    const psk = this.psk === undefined
      ? []
      : ["preshared-key", this.lab.file(this.psk)];
    const endpoint = side === "a"
      ? ["endpoint", `${OUTER[this.outer].b}:${PORT.b}`]
      : [];
    await daemon.set(
      ...["private-key", this.lab.file(this.keys[side].private)],
      ...["listen-port", String(PORT[side])],
      ...["peer", this.keys[other].public, ...psk, ...endpoint],
      ...["allowed-ips", `${inner.v4}/32,${inner.v6}/128`],
    );
    const own = INNER[side];
    await daemon.up(`${own.v4}/24`, `${own.v6}/64`);
  }
}
