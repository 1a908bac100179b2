/** genkey, genpsk and pubkey: against the stock wg, and as processes. */
import { fileURLToPath } from "node:url";
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import { decodeKey } from "../lib/crypto/bytes.ts";
import { stockWg, whyNoStockWg } from "./uapi_fake.ts";

const CLI = fileURLToPath(new URL("../cli.ts", import.meta.url));

/** Runs `deno run -A cli.ts …` by the shell, for redirections. */
async function wgd(
  command: string,
  stdin = "",
): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = new Deno.Command("/bin/sh", {
    args: ["-c", command],
    env: { WGD: `${Deno.execPath()} run -A ${CLI}` },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(stdin));
  await writer.close();
  const { code, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array): string => new TextDecoder().decode(bytes);
  return { code, stdout: text(stdout), stderr: text(stderr) };
}

Deno.test("genkey prints a clamped key and a line end, each time another", async () => {
  const first = await wgd("$WGD genkey");
  assertEquals([first.code, first.stderr], [0, ""]);
  const key = decodeKey(first.stdout.slice(0, 44));
  assert(key !== null && first.stdout.length === 45);
  assertEquals([key[0] & 7, key[31] & 0xc0], [0, 0x40]);
  assertNotEquals((await wgd("$WGD genkey")).stdout, first.stdout);
});

Deno.test("genpsk prints a key of 32 random bytes, which are not clamped", async () => {
  const outputs = await Promise.all(
    [1, 2, 3, 4].map(() => wgd("$WGD genpsk; $WGD genpsk")),
  );
  const keys = outputs.flatMap(({ stdout }) => stdout.trim().split("\n"))
    .map(decodeKey);
  assertEquals(keys.length, 8);
  // Each is clamped with a probability of 1/32.
  assert(keys.some((key) => key && ((key[0] & 7) || (key[31] >> 6) !== 1)));
});

Deno.test("genkey warns when it writes to a file that others may read", async () => {
  const file = await Deno.makeTempFile();
  try {
    for (const [mode, warns] of [[0o644, true], [0o600, false]] as const) {
      await Deno.chmod(file, mode);
      const { code, stderr } = await wgd(`$WGD genkey > ${file}`);
      assertEquals(code, 0);
      assertEquals(
        stderr,
        warns
          ? "Warning: writing to world accessible file.\n" +
            "Consider setting the umask to 077 and trying again.\n"
          : "",
      );
    }
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("pubkey knows the vector of RFC 7748", async () => {
  const secret = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
  for (const input of [secret, `${secret}\n`, `${secret}\r\n\t \n`]) {
    const { code, stdout } = await wgd("$WGD pubkey", input);
    assertEquals([code, stdout], [
      0,
      "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo=\n",
    ]);
  }
});

const why = whyNoStockWg();
Deno.test({
  name: `pubkey answers bad input as the stock wg does${
    why ? ` (skipped: ${why})` : ""
  }`,
  ignore: why !== null,
  async fn(): Promise<void> {
    const good = "dwdtCnMYpX08FsFyUbJmRd9ML4frwJkqsXf7pR25LCo=";
    for (
      const input of [
        "",
        "\n",
        good.slice(1),
        ` ${good}`,
        `${good}x`,
        `${good}\nx`,
        good.replace("Co=", "Cp="),
        good.replace("=", "A"),
        good.replace("d", "-"),
        "é".repeat(22),
      ]
    ) {
      const theirs = await stockWg(["pubkey"], {}, input);
      const ours = await wgd("$WGD pubkey", input);
      assertEquals(
        [ours.code, ours.stdout, ours.stderr],
        [theirs.code, theirs.stdout, theirs.stderr.replace(/^\S*wg:/, "wgd:")],
        JSON.stringify(input),
      );
    }
  },
});

Deno.test("a closed stdout ends a command silently with status 0", async () => {
  const { stdout, stderr } = await wgd(
    "{ sleep 0.2; $WGD --help; echo $? >&2; } | true",
  );
  assertEquals([stdout, stderr], ["", "0\n"]);
});

Deno.test("errors are one line on stderr, without a trace", async () => {
  const { code, stdout, stderr } = await wgd("$WGD show nosuch0");
  assertEquals([code, stdout], [1, ""]);
  assertEquals(
    stderr,
    "wgd: Unable to access interface nosuch0: No such device (ENODEV)\n",
  );
});
