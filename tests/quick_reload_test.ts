/** `wgd reload` without a system: the difference between two plans. */
import { assertEquals } from "@std/assert";
import { planReload } from "../lib/quick_diff.ts";
import { changedHooks, hooksAfter, hooksOf } from "../lib/quick_hooks.ts";
import { networkSteps } from "../lib/quick_plan.ts";
import type { Step } from "../lib/quick_step.ts";
import { FACTS, job } from "./quick_plan_data.ts";

/** The commands of a reload from one file to another. */
function reload(
  from: [lines: string, allowed: string],
  to: [lines: string, allowed: string],
): { add: string[]; remove: string[] } {
  const steps = ([lines, allowed]: [string, string]): Step[] =>
    networkSteps(job(lines, allowed && `AllowedIPs = ${allowed}`), FACTS);
  const { add, remove } = planReload("wg0", steps(from), steps(to));
  const words = (list: readonly Step[]): string[] =>
    list.flatMap(({ do: command }) => command?.argv.join(" ") ?? []);
  return { add: words(add), remove: words(remove) };
}

Deno.test("reload: nothing changed, nothing done", () => {
  const file: [string, string] = [
    "Address = 10.0.0.1/24\nDNS = 1.1.1.1",
    "10.1.0.0/16, 0.0.0.0/0, ::/0",
  ];
  assertEquals(reload(file, file), { add: [], remove: [] });
});

Deno.test("reload: what is new comes first, what is gone last", () => {
  assertEquals(
    reload(["Address = 10.0.0.1/24\nMTU = 1400", "10.1.0.0/16"], [
      "Address = 10.9.0.1/24\nMTU = 1300\nDNS = 1.1.1.1",
      "10.2.0.0/16",
    ]),
    {
      add: [
        "ip -4 address add 10.9.0.1/24 dev wg0",
        "ip link set mtu 1300 up dev wg0",
        "resolvconf -a wg0 -m 0 -x",
        "ip -4 route add 10.2.0.0/16 dev wg0",
      ],
      remove: [
        "ip -4 route delete 10.1.0.0/16 dev wg0 proto boot",
        "ip -4 address delete 10.0.0.1/24 dev wg0",
      ],
    },
  );
});

Deno.test("reload: an address that goes does not take others of its network along", () => {
  const { remove } = reload(
    ["Address = 10.0.0.1/24, 10.0.0.2/24", ""],
    ["Address = 10.0.0.2/24", ""],
  );
  assertEquals(remove, [
    "sysctl -q net/ipv4/conf/wg0/promote_secondaries=1",
    "ip -4 address delete 10.0.0.1/24 dev wg0",
  ]);
});

Deno.test("reload: routes that the last IPv4 address takes along are brought back", () => {
  const { add, remove } = reload(
    ["Address = 10.0.0.1/24, fd00::1/64", "10.1.0.0/16, 10.2.0.0/16"],
    ["Address = fd00::1/64", "10.1.0.0/16, 10.3.0.0/16"],
  );
  assertEquals(add, ["ip -4 route add 10.3.0.0/16 dev wg0"]);
  assertEquals(remove, [
    "ip -4 route delete 10.2.0.0/16 dev wg0 proto boot",
    "ip -4 address delete 10.0.0.1/24 dev wg0",
    "ip -4 route replace 10.3.0.0/16 dev wg0",
    "ip -4 route replace 10.1.0.0/16 dev wg0",
  ]);
});

Deno.test("reload: name servers and the packet filter are replaced in place", () => {
  const { add, remove } = reload(
    ["Address = 10.0.0.1/24\nDNS = 1.1.1.1", "0.0.0.0/0"],
    ["Address = 10.0.0.1/24, 10.5.0.1/24\nDNS = 2.2.2.2", "0.0.0.0/0"],
  );
  assertEquals(add, [
    "ip -4 address add 10.5.0.1/24 dev wg0",
    "resolvconf -a wg0 -m 0 -x",
    "nft -f -",
  ]);
  assertEquals(remove, []);
});

Deno.test("reload: hooks that undo what is gone, then hooks that are new; none that stay", () => {
  const hooks = (lines: string): ReturnType<typeof hooksOf> =>
    hooksOf(job(lines, "").config.interface);
  const old = hooks(`PreUp = a\nPostUp = add 1\nPostUp = stays
PreDown = b\nPostDown = del 1\nPostDown = stays`);
  const wanted = hooks(`PreUp = A\nPostUp = stays\nPostUp = add 2
PreDown = B\nPostDown = del 2\nPostDown = stays\nPostUp = stays`);
  const { before, after } = changedHooks(old, wanted);
  const words = (list: typeof before): string[] =>
    list.map(({ kind, text }) => `${kind} ${text}`);
  assertEquals(words(before), ["preDown b", "preUp A"]);
  assertEquals(words(after), [
    "postDown del 1",
    "postUp add 2",
    "postUp stays", // it is there a second time
  ]);
  const stopped = before.reduce(hooksAfter, old);
  assertEquals(changedHooks(stopped, wanted), { before: [], after });
  const run = after.reduce(hooksAfter, stopped);
  assertEquals(changedHooks(run, wanted), { before: [], after: [] });
  assertEquals(changedHooks(wanted, wanted), { before: [], after: [] });
});
