/**
 * A tunnel between a and b, an attacker who floods b with initiations from
 * forged addresses, and a new peer that wants in meanwhile.
 *
 *      d: new peer ── 10.79.0.0/24 ──┐
 *      a: peer ────── 10.77.0.0/24 ── b ── 10.78.0.0/24 ── c: attacker
 */
import type { Daemon, Implementation } from "./daemon.ts";
import { type Lab, Namespace } from "./lab.ts";
import type { Process } from "./process.ts";
import { moduleCommand } from "./requirements.ts";
import { generateKeys, INNER, PORT, Tunnel } from "./tunnel.ts";

/** What is right about the initiations: see spoof.ts. */
export type Flood = "nothing" | "mac1" | "cookie";

const NEW_PEER = "10.9.0.3";

async function join(
  lab: Lab,
  letter: string,
  network: string,
): Promise<Namespace> {
  const { b } = lab;
  const other = await lab.addNamespace(
    new Namespace(`${lab.id}${letter}`, lab),
  );
  await b.ip(
    ...["link", "add", `v${letter}b`, "type", "veth"],
    ...["peer", "name", `v${letter}`, "netns", other.name],
  );
  await lab.connect(b, `v${letter}b`, `${network}.2/24`);
  await lab.connect(other, `v${letter}`, `${network}.1/24`);
  return other;
}

/** The four namespaces. */
export class Attack {
  private constructor(
    readonly tunnel: Tunnel,
    readonly attacker: Namespace,
    readonly outsider: Namespace,
    /** The new peer's daemon, which knows b and is known to it. */
    readonly newPeer: Daemon,
  ) {}

  /** @param implementation of the tunnel, and of the new peer */
  static async make(
    lab: Lab,
    implementation: Implementation,
    newPeer: Implementation = implementation,
  ): Promise<Attack> {
    const attacker = await join(lab, "c", "10.78.0");
    const outsider = await join(lab, "d", "10.79.0");
    // Answers to forged addresses go back to the attacker, and end there.
    await lab.b.ip("route", "add", "default", "via", "10.78.0.1");
    for (const link of ["all", "default", "vcb"]) {
      const path = `/proc/sys/net/ipv4/conf/${link}/rp_filter`;
      await lab.b.run(["sh", "-c", `echo 0 > ${path}`]);
    }
    const tunnel = await Tunnel.make(lab, {
      a: implementation,
      b: implementation,
    });
    const keys = await generateKeys();
    const daemon = await outsider.daemon(newPeer);
    await tunnel.b.set("peer", keys.public, "allowed-ips", `${NEW_PEER}/32`);
    await daemon.set(
      ...["private-key", lab.file(keys.private)],
      ...["peer", tunnel.keys.b.public, "endpoint", `10.79.0.2:${PORT.b}`],
      ...["allowed-ips", `${INNER.b.v4}/32`],
    );
    await daemon.up(`${NEW_PEER}/24`);
    return new Attack(tunnel, attacker, outsider, daemon);
  }

  /** Starts a flood; it ends with the lab, or by SIGTERM. */
  flood(kind: Flood, rate: number, seconds: number): Process {
    const { tunnel } = this;
    return this.attacker.spawn(
      moduleCommand(
        ...["spoof.ts", "10.78.0.2", String(PORT.b), tunnel.keys.b.public],
        ...[String(rate), String(seconds), kind] as const,
      ),
    );
  }

  /** Lets the new peer try. @returns seconds until it was answered, if it was */
  async getsIn(limitS: number): Promise<number | undefined> {
    const startMs = Date.now();
    const { code } = await this.outsider.attempt(
      ["ping", "-c", "1", "-W", String(limitS), INNER.b.v4],
      { timeoutS: limitS + 5 },
    );
    return code === 0 ? (Date.now() - startMs) / 1000 : undefined;
  }
}
