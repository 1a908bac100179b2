/**
 * The parser against the stock wg and wg-quick on files that are generated and
 * then spoiled: what we take, they take and make the same of it; what they take
 * and we do not is one of the differences that lib/config_parse names. To look
 * for more: WGD_FUZZ_SEED=2 WGD_FUZZ_ROUNDS=10000 deno test -A THIS.
 */
import { assert, assertEquals } from "@std/assert";
import { ConfigErrors, formatConfig, parseConfig } from "../lib/config.ts";
import { parseIp } from "../lib/ip.ts";
import { servicePort } from "../lib/sys/getaddrinfo.ts";
import { randomSource } from "./config_helpers.ts";
import { stateOfConfig, stockState } from "./config_stock.ts";
import { uniqueName, whyNoStockWg } from "./uapi_fake.ts";
import type { ConfigFormat, ParsedConfig } from "../lib/config.ts";

const SECRETS = [
  "yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=",
  "/UwcSPg38hW/D9Y3tcS1FOV0K1wuURMbS0sesJEP5ak=",
];
const PUBLIC = [
  "xTIBA5rboUvnH4htodjb6e697QjLERt1NAB4mZqp8Dg=",
  "TrMvSoP4jYQlY6RIzBgbssQqY3vxI2Pi+y71lOWWXX0=",
  "gN65BkIKy1eCE9pP1wdc8ROUtkHLF2PfAqYdyYBz6EA=",
];
const SEED = Number(Deno.env.get("WGD_FUZZ_SEED") ?? 41);
const ROUNDS = Number(Deno.env.get("WGD_FUZZ_ROUNDS") ?? 800);
/** wg-quick starts a dozen processes. */
const QUICK_ROUNDS = Math.ceil(ROUNDS / 3);

/** What is put into files: all that means something, and what resembles it. */
const SPOILERS = [
  ...["[", "]", "=", "#", ",", " ", "\t", "\r", "\v", "\f", "\n", "\0", ":"],
  ...["/", "%", ".", "+", "-", "0", "9", "65536", "0x", "x", "a", "off", "é"],
  ...["\u00a0", "\u2028", "\ufeff", "\u212a", "\u017f", '"', "'", "`", "$(x)"],
  ...[
    "[Peer]",
    "[Interface]",
    "AllowedIPs",
    "PublicKey",
    "::",
    "/0",
    ";",
    "\\",
  ],
];

type Random = (below: number) => number;

/** A file that is right, in one of many forms. */
function file(random: Random, quick: boolean): string {
  const pick = <T>(list: readonly T[]): T => list[random(list.length)];
  const octet = (): number => random(256);
  const hex = (): string => random(0x10000).toString(16);
  const v4 = (): string => `${octet()}.${octet()}.${octet()}.${octet()}`;
  const v6 = (): string =>
    pick([
      "::",
      "::1",
      `fd00::${hex()}`,
      `2001:DB8:${hex()}::${hex()}:0:${hex()}`,
      `::ffff:${v4()}`,
      Array.from({ length: 8 }, hex).join(":"),
    ]);
  const range = (): string =>
    random(2)
      ? v4() + pick(["", `/${random(33)}`, "/0"])
      : v6() + pick(["", `/${random(129)}`, "/0"]);
  const list = (): string =>
    Array.from({ length: 1 + random(4) }, range).join(pick([",", ", ", " ,"]));
  const port = (): string => pick(["1", "51820", "65535", "0080", "domain"]);
  const anyCase = (text: string): string =>
    pick([text, text, text.toLowerCase(), text.toUpperCase()]);
  const line = (key: string, value: string): string =>
    pick(["", "", " ", "\t"]) + anyCase(key) +
    pick([" = ", "=", "= ", "\t=\t"]) +
    value + pick(["", "", " ", " # comment", "#=[Peer]"]);

  const deviceLines: (() => string)[] = [
    () => line("PrivateKey", pick(SECRETS)),
    () => line("ListenPort", pick(["0", "51820", "domain"])),
    () => line("FwMark", pick(["off", "0", "0xca6c", "51820", "0xFFFFFFFF"])),
    () => pick(["", "# comment", "  ", "#"]),
  ];
  const quickLines: (() => string)[] = [
    () => line("Address", list()),
    () => line("DNS", pick(["1.1.1.1", "::1, example.org", "", "a.b ~."])),
    () => line("MTU", pick(["1420", "68", "65535", ""])),
    () => line("Table", pick(["off", "auto", "1234", "main", ""])),
    () => line("PostUp", pick(["ip rule add x # y", "", "a=b; c", "echo %i"])),
    () => line("PreDown", "iptables -D FORWARD -i %i -j ACCEPT"),
    () => line("SaveConfig", pick(["true", "false", "TRUE"])),
  ];
  const peerLines: (() => string)[] = [
    () => line("PresharedKey", pick(SECRETS)),
    () => line("AllowedIPs", list()),
    () => line("AllowedIPs", list()),
    () => line("Endpoint", `${v4()}:${port()}`),
    () => line("Endpoint", `[${v6()}]:${port()}`),
    () => line("PersistentKeepalive", pick(["off", "0", "25", "65535", "007"])),
    () => pick(["", "# PublicKey = x", "\t"]),
  ];
  const lines: string[] = [];
  for (let sections = random(5); sections >= 0; sections--) {
    const isPeer = lines.length > 0 && random(6) > 0;
    const header = anyCase(isPeer ? "[Peer]" : "[Interface]");
    lines.push(pick([header, header, ` ${header}`, `${header} # x`]));
    if (isPeer) lines.push(line("PublicKey", pick(PUBLIC)));
    const kinds = isPeer
      ? peerLines
      : [...deviceLines, ...(quick ? quickLines : [])];
    for (let n = random(6); n > 0; n--) lines.push(pick(kinds)());
  }
  const end = pick(["\n", "\n", "\r\n"]);
  return lines.join(end) + pick(["", end]);
}

/** Inserts, removes, replaces, copies or swaps something. */
function spoil(text: string, random: Random): string {
  const at = random(text.length + 1);
  const length = random(3);
  switch (random(6)) {
    case 0:
      return text.slice(0, at) + text.slice(at + 1 + length);
    case 1: { // one line twice, somewhere
      const lines = text.split("\n");
      lines.splice(random(lines.length), 0, lines[random(lines.length)]);
      return lines.join("\n");
    }
    case 2: { // a letter that JavaScript, but not C, takes for the same
      return text.replace(/k(?=ey)/i, "\u212a");
    }
    default: {
      const spoiler = SPOILERS[random(SPOILERS.length)];
      return text.slice(0, at) + spoiler + text.slice(at + (length && 1));
    }
  }
}

function parse(
  text: string,
  format: ConfigFormat,
): ParsedConfig | ConfigErrors {
  try {
    return parseConfig(text, { format, servicePort });
  } catch (error) {
    if (error instanceof ConfigErrors) return error;
    throw error;
  }
}

/** Whether the system would have to look something up. */
function hasNames({ peers }: ParsedConfig): boolean {
  return peers.some(({ endpoint }) =>
    endpoint && parseIp(endpoint.host) === null
  );
}

/** Whether we refuse it on purpose though wg takes it. */
function isNamedDifference(text: string, { errors }: ConfigErrors): boolean {
  return text.includes("\0") ||
    errors.every(({ message }) => /: (Endpoint|ListenPort): /.test(message) // ports, brackets, inet_aton
    );
}

interface Counts {
  accepted: number;
  refused: number;
  differences: number;
}

/** Compares one file; `stock` is what the stock tools make of it. */
function compare(
  text: string,
  ours: ParsedConfig | ConfigErrors,
  stock: unknown,
  counts: Counts,
): void {
  if (!(ours instanceof ConfigErrors)) {
    if (hasNames(ours)) return;
    counts.accepted++;
    assertEquals(stateOfConfig(ours), stock, JSON.stringify(text));
    const { warnings: _, ...config } = ours;
    const { warnings: __, ...again } = parseConfig(formatConfig(config));
    assertEquals(again, config, JSON.stringify(text));
  } else if (stock === null) counts.refused++;
  else {
    counts.differences++;
    assert(
      isNamedDifference(text, ours),
      `wg takes this: ${JSON.stringify(text)}\n${ours.message}`,
    );
  }
}

async function run(...command: string[]): Promise<string | null> {
  const child = new Deno.Command(command[0], {
    args: command.slice(1),
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const { success, stdout } = await child.output();
  return success ? new TextDecoder().decode(stdout) : null;
}

const why = whyNoStockWg();

Deno.test({
  name: `wg setconf takes each of ${ROUNDS} generated files that we take${
    why ? ` (skipped: ${why})` : ""
  }`,
  ignore: why !== null,
  async fn(): Promise<void> {
    const random = randomSource(SEED);
    const directory = await Deno.makeTempDir();
    const counts: Counts = { accepted: 0, refused: 0, differences: 0 };
    try {
      for (let round = 0; round < ROUNDS; round++) {
        let text = file(random, false);
        for (let n = random(4); n > 0; n--) text = spoil(text, random);
        const path = `${directory}/test.conf`;
        await Deno.writeTextFile(path, text);
        compare(text, parse(text, "wg"), await stockState(path), counts);
      }
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
    assert(counts.accepted > ROUNDS / 4, JSON.stringify(counts));
    assert(counts.refused > ROUNDS / 4, JSON.stringify(counts));
  },
});

Deno.test({
  name:
    `so do wg-quick strip and wg setconf of ${QUICK_ROUNDS} files of wg-quick${
      why ? ` (skipped: ${why})` : ""
    }`,
  ignore: why !== null,
  async fn(): Promise<void> {
    const random = randomSource(SEED + 1);
    const directory = await Deno.makeTempDir();
    const counts: Counts = { accepted: 0, refused: 0, differences: 0 };
    const path = `${directory}/${uniqueName("wgdq")}.conf`;
    const stripped = `${directory}/stripped`;
    try {
      for (let round = 0; round < QUICK_ROUNDS; round++) {
        let text = file(random, true);
        for (let n = random(4); n > 0; n--) text = spoil(text, random);
        // What we refuse for values of wg-quick's keys, strip does not look at.
        const ours = parse(text, "wg-quick");
        if (ours instanceof ConfigErrors) continue;
        await Deno.writeTextFile(path, text);
        const output = await run("wg-quick", "strip", path);
        assert(output !== null, JSON.stringify(text));
        await Deno.writeTextFile(stripped, output);
        compare(text, ours, await stockState(stripped), counts);
      }
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
    assert(counts.accepted > QUICK_ROUNDS / 4, JSON.stringify(counts));
  },
});
