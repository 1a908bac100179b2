/**
 * Runs netns/noise_interop.ts against the machine's wireguard-go, in a network
 * namespace of its own. Skipped where there is no root, no TUN or no
 * wireguard-go.
 */
import { fileURLToPath } from "node:url";
import { assert, assertEquals } from "@std/assert";

const SCRIPT = fileURLToPath(
  new URL("./netns/noise_interop.ts", import.meta.url),
);
const PROGRAM = "/usr/bin/wireguard-go";
const NAMES = "wgdn" + (Deno.pid % 100_000);
const STEPS = 6;

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

async function run(...args: string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(args[0], {
    args: args.slice(1),
  }).output();
  const text = new TextDecoder().decode(stdout);
  assert(
    success,
    `${args.join(" ")}\n${text}${new TextDecoder().decode(stderr)}`,
  );
  return text;
}

async function waitFor(path: string): Promise<void> {
  for (let i = 0; i < 100 && !exists(path); i++) {
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  assert(exists(path), path);
}

Deno.test({
  name: "wireguard-go and we understand each other's handshakes and cookies",
  ignore: Deno.uid() !== 0 || !exists(PROGRAM) || !exists("/dev/net/tun"),
  fn: async () => {
    await run("ip", "netns", "add", NAMES);
    const socketPath = `/var/run/wireguard/${NAMES}.sock`;
    const program = new Deno.Command("ip", {
      args: ["netns", "exec", NAMES, PROGRAM, "-f", NAMES],
      stdout: "null",
      stderr: "null",
    }).spawn();
    try {
      await waitFor(socketPath);
      await run("ip", "-n", NAMES, "link", "set", "lo", "up");
      await run(
        ...["ip", "-n", NAMES, "address", "add", "10.77.0.1/24", "dev", NAMES],
      );
      await run("ip", "-n", NAMES, "link", "set", NAMES, "up");
      const output = await run(
        ...["ip", "netns", "exec", NAMES],
        ...[Deno.execPath(), "run", "-A", "--unstable-net", SCRIPT, NAMES],
      );
      assertEquals(output.match(/^ok: /gm)?.length, STEPS, output);
    } finally {
      program.kill("SIGTERM");
      await program.status;
      await run("ip", "netns", "delete", NAMES);
    }
  },
});
