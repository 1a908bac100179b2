/**
 * A bad wire between the two namespaces of a lab: packets are lost, come late
 * and come twice.
 *
 *      ┌── a ──┐      ┌── m ─────────────┐      ┌── b ──┐
 *      │    va─┼──────┼─west ══════ east─┼──────┼─vb    │
 *      └───────┘      └──────────────────┘      └───────┘
 *
 * In m each frame goes from one side to the other as it is, super-packets whole,
 * by nftables' netdev hooks. Where the kernel has sch_netem, it sits on both
 * sides of m. Where not, nftables drops and doubles frames, and sends those that
 * shall be late around by a TAP that late.ts serves.
 */
import { assert } from "@std/assert";
import { type Lab, Namespace } from "./lab.ts";
import { until } from "./process.ts";
import { moduleCommand } from "./requirements.ts";

/** How bad the wire is, in both directions. */
export interface Impairment {
  readonly lossPercent: number;
  readonly latePercent: number;
  readonly lateMs: number;
  readonly duplicatePercent: number;
}

/** What else is asked of the wire. */
export interface WireOptions {
  /**
   * Whether super-packets are cut into datagrams before they come to the wire,
   * so that it loses parts of them, and put together again behind it.
   */
  readonly split?: boolean;
}

/** Programs that a wire needs. */
export const WIRE_PROGRAMS: readonly string[] = ["tc", "nft", "ethtool"];

const ADDRESSES = {
  a: ["10.77.0.1/24", "fd77::1/64"],
  b: ["10.77.0.2/24", "fd77::2/64"],
} as const;
/** The sides of m: a link, the other one, and the TAP of frames that are late. */
const SIDES = [
  { from: "west", to: "east", late: "lateeast" },
  { from: "east", to: "west", late: "latewest" },
] as const;
/** nftables draws a number below this. */
const DRAWS = 10_000;
const NETEM_LIMIT_PACKETS = 20_000;

/** The wire of a lab whose namespaces are not joined otherwise. */
export class Wire {
  readonly m: Namespace;

  private constructor(readonly lab: Lab) {
    this.m = new Namespace(`${lab.id}m`, lab);
  }

  /** Makes the wire, still a good one. */
  static async make(
    lab: Lab,
    { split = false }: WireOptions = {},
  ): Promise<Wire> {
    const wire = new Wire(lab);
    await lab.addNamespace(wire.m);
    for (const [end, middle] of [["a", "west"], ["b", "east"]] as const) {
      await lab[end].ip(
        ...["link", "add", `v${end}`, "type", "veth"],
        ...["peer", "name", middle, "netns", wire.m.name],
      );
      await wire.m.ip("link", "set", "dev", middle, "up");
      if (split) {
        await lab[end].run(
          ["ethtool", "-K", `v${end}`, "tx-udp-segmentation", "off"],
        );
        await lab[end].run(["ethtool", "-K", `v${end}`, "gro", "on"]);
      }
      await lab.connect(lab[end], `v${end}`, ...ADDRESSES[end]);
    }
    await wire.#rules(({ to }) => [`fwd to ${to}`]);
    return wire;
  }

  /** Makes it a bad one. */
  async impair(how: Impairment): Promise<void> {
    if (await this.#netem(how)) return;
    const late = this.m.spawn(moduleCommand(
      "late.ts",
      ...[String(how.lateMs), ...SIDES.map((side) => side.late)],
    ));
    await until("late.ts to be ready", () => {
      assert(late.status === undefined, late.said);
      return late.said.includes("ready");
    }, 20_000);
    for (const side of SIDES) {
      await this.m.ip("link", "set", "dev", side.late, "up");
    }
    const draw = (percent: number): string =>
      `numgen random mod ${DRAWS} < ${
        Math.round(percent * DRAWS / 100)
      } counter`;
    await this.#rules((side) => [
      `${draw(how.lossPercent)} drop`,
      `${draw(how.duplicatePercent)} dup to ${side.to}`,
      `${draw(how.latePercent)} fwd to ${side.late}`,
      `counter fwd to ${side.to}`,
    ], true);
  }

  /** How many frames each rule met, in both directions. For reports. */
  async frames(): Promise<string> {
    const { stdout } = await this.m.attempt(["nft", "list", "ruleset"]);
    const qdiscs = await this.m.attempt(["tc", "-s", "qdisc"]);
    return [...stdout.split("\n"), ...qdiscs.stdout.split(/\n(?=qdisc)/)]
      .filter((line) => /counter|netem/.test(line))
      .map((line) => line.trim()).join("\n");
  }

  /** @returns false where there is no netem */
  async #netem(how: Impairment): Promise<boolean> {
    for (const { to } of SIDES) {
      const { code, stderr } = await this.m.attempt([
        ...["tc", "qdisc", "add", "dev", to, "root", "netem"],
        ...["limit", String(NETEM_LIMIT_PACKETS)],
        ...["loss", `${how.lossPercent}%`],
        // Of the delayed, netem lets this share overtake the others.
        ...["delay", `${how.lateMs}ms`, "reorder", `${how.latePercent}%`],
        ...["duplicate", `${how.duplicatePercent}%`],
      ]);
      if (code === 0) continue;
      assert(/qdisc kind is unknown|No such file/.test(stderr), stderr);
      return false;
    }
    return true;
  }

  /** Puts other rules in place of the present ones, at once. */
  async #rules(
    of: (side: (typeof SIDES)[number]) => string[],
    late = false,
  ): Promise<void> {
    const chain = (link: string, rules: readonly string[]): string =>
      `chain ${link} { type filter hook ingress device ${link} priority 0; ` +
      `${rules.join("; ")}; }\n`;
    const chains = SIDES.flatMap((side) => [
      chain(side.from, of(side)),
      ...late ? [chain(side.late, [`fwd to ${side.to}`])] : [],
    ]);
    await this.m.run(["nft", "-f", "-"], {
      stdin: "table netdev wire {}\ndelete table netdev wire\n" +
        `table netdev wire {\n${chains.join("")}}\n`,
    });
  }
}
