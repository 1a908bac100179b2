/**
 * ECN on real wires: what the outside shows of it, and what a mark on the way
 * does (kernel: `inet_ecn.h`). wireguard-go carries none.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { labTest } from "./harness.ts";
import type { Namespace } from "./lab.ts";
import { Capture } from "./pcap.ts";
import { delay, type Process, until } from "./process.ts";
import { assertPings } from "./traffic.ts";
import { INNER, PORT, Tunnel } from "./tunnel.ts";

const EF = 0xb8;
const CE = 3;
const ECT_0 = 2;
const BURSTS = 20;
const SETTLE_MS = 200;
const PROGRAMS = ["tcpdump", "nft"];

/** Marks CE what passes `hook` and is for the UDP port, if `which` holds. */
async function markOuter(
  namespace: Namespace,
  hook: string,
  port: number,
  which: (family: "ip" | "ip6") => string = () => "",
): Promise<void> {
  const rules = (["ip", "ip6"] as const).map((family) =>
    `udp dport ${port} ${which(family)} ${family} ecn set ce counter`
  );
  await namespace.run(["nft", "-f", "-"], {
    stdin: `table inet marks { chain c { type filter hook ${hook} priority -150;
      ${rules.join("; ")}; }; }`,
  });
}

/** Packets that the rules of markOuter, or countOuter, counted. */
async function counted(namespace: Namespace): Promise<number> {
  const text = await namespace.run(["nft", "list", "table", "inet", "marks"]);
  return [...text.matchAll(/packets (\d+)/g)]
    .reduce((sum, [, count]) => sum + Number(count), 0);
}

/** Counts what comes in with a mark, as the kernel has put it together. */
async function countOuter(namespace: Namespace, port: number): Promise<void> {
  await namespace.run(["nft", "-f", "-"], {
    stdin:
      `table inet marks { chain c { type filter hook prerouting priority -150;
      udp dport ${port} ip ecn ce counter; }; }`,
  });
}

/** Echo requests that come out of an interface. */
class EchoWatch {
  readonly #process: Process;

  private constructor(process: Process) {
    this.#process = process;
  }

  static async start(namespace: Namespace, link: string): Promise<EchoWatch> {
    const filter = "icmp[0] == 8 or ip6[40] == 128";
    const process = namespace.spawn(
      ["tcpdump", "-nvli", link, "--immediate-mode", "-Z", "root", filter],
    );
    await until("tcpdump to listen", () => /listening on/.test(process.said));
    return new EchoWatch(process);
  }

  /** DS field of each since the start. */
  async stop(): Promise<number[]> {
    await delay(SETTLE_MS);
    this.#process.signal("SIGINT");
    await this.#process.ended();
    const heads = this.#process.said.split("\n")
      .filter((line) => /IP6? \(/.test(line));
    return heads.map((line) =>
      Number(/(?:tos|class) (0x[0-9a-f]+)/.exec(line)?.[1] ?? 0)
    );
  }
}

for (const outer of ["v4", "v6"] as const) {
  labTest(
    `over IP${outer} the wire shows the inner ECN without the DSCP, and marks come in`,
    { programs: PROGRAMS },
    async (lab) => {
      const tunnel = await Tunnel.make(lab, { outer });
      await assertPings(lab.a, INNER.b.v4);
      const run = async (): Promise<{ wire: number[]; inner: number[] }> => {
        const capture = await Capture.start(lab.a, "va");
        const watch = await EchoWatch.start(lab.b, tunnel.b.name);
        for (const family of ["v4", "v6"] as const) {
          for (const ecn of [0, 1, 2, 3]) {
            await assertPings(lab.a, INNER.b[family], {
              count: 2,
              tos: EF | ecn,
            });
          }
        }
        const inner = await watch.stop();
        const wire = (await capture.stop())
          .filter(({ destinationPort, payload }) =>
            destinationPort === PORT.b && payload[0] === 4 &&
            payload.length > 32
          ).map(({ ds }) => ds);
        return { wire, inner };
      };
      const twice = (...values: number[]): number[] =>
        [...values, ...values].flatMap((value) => [value, value]);
      const plain = await run();
      assertEquals(plain.wire, twice(0, 1, 2, ECT_0));
      assertEquals(plain.inner, twice(EF, EF | 1, EF | 2, EF | CE));
      await markOuter(lab.b, "prerouting", PORT.b);
      const congested = await run();
      assertEquals(congested.wire, plain.wire);
      assertEquals(congested.inner, twice(EF, EF | CE, EF | CE, EF | CE));
    },
  );
}

labTest(
  "without segments on the way out, UDP GRO on the way in loses and adds no mark",
  { programs: [...PROGRAMS, "ethtool", "nstat"] },
  async (lab) => {
    // One datagram a message at a, so that marks fall on single datagrams.
    const tunnel = await Tunnel.make(lab, {
      daemon: { args: ["--offload", "tun"] },
    });
    await tunnel.b[Symbol.asyncDispose]();
    const b = await lab.b.daemon("wgd", { args: ["--offload", "auto"] });
    await tunnel.configure("b", b);
    await lab.b.run(["ethtool", "-K", "vb", "gro", "on"]);
    // veth leaves GRO out where it could pass on what was never cut.
    await lab.a.run(["ethtool", "-K", "va", "tso", "off"]);
    // What comes within 2 ms is put together.
    const timeout = "echo 2000000 > /sys/class/net/vb/gro_flush_timeout";
    await lab.b.run(["sh", "-c", timeout]);
    await assertPings(lab.a, INNER.b.v4);
    await markOuter(
      lab.a,
      "output",
      PORT.b,
      // Runs of marks, so that some are put together.
      (family) => `${family} ecn ect0 numgen inc mod 32 < 10`,
    );
    const marks = async (): Promise<number> => {
      const text = await lab.b.run(["nstat", "-asz", "IpExtInCEPkts"]);
      return Number(/IpExtInCEPkts\s+(\d+)/.exec(text)?.[1]);
    };
    const before = await marks();
    await countOuter(lab.b, PORT.b);
    // All of a burst are on the wire before the first is answered.
    const burst = ["ping", "-nql", "60", "-c", "60", "-Q", String(ECT_0)];
    for (let i = 0; i < BURSTS; i++) {
      const said = await lab.a.run([...burst, "-W", "5", INNER.b.v4]);
      assertMatch(said, / 60 received/);
    }
    const count = await counted(lab.a);
    assert(count >= BURSTS * 15, `${count} datagrams marked`);
    // The outside's are marked as they come in, too.
    assertEquals(await marks() - before, 2 * count);
    assert(await counted(lab.b) < count, "GRO has put some together");
  },
);
