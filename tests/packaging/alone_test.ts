/**
 * The executable on a machine that has nothing else: a root directory made from
 * nothing (bare_root.ts), with glibc and the programs that `wgd up` calls. No
 * Deno, no node, no checkout and no file of this system's can be opened in
 * there. Needs the executable in WGD_PROGRAM, as .ci/run gives it. The namespace
 * tests run in such a root by alone.ts.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { VERSION } from "../../lib/version.ts";
import { labTest } from "../netns/harness.ts";
import type { Lab } from "../netns/lab.ts";
import { run } from "../netns/process.ts";
import { generateKeys, INNER, OUTER, PORT } from "../netns/tunnel.ts";
import { bareRootCommand, MAKERS, NEEDED, programFiles } from "./bare_root.ts";

const program = Deno.env.get("WGD_PROGRAM") ?? "";
/** What `wgd up` calls, what the script below does, and what a root needs. */
const PROGRAMS = [
  ...["ip", "nft", "sysctl", "ping", "find", "sort"],
  ...NEEDED,
];
const TIMEOUT_S = 90;
/** Reached by the default route alone. */
const FAR = "198.51.100.1";

/** Each part's output, stderr too, and its exit status. */
const script = (name: string): string =>
  `say() { echo "== $1"; shift; "$@" 2>&1; echo "exit $?"; }
files() { find / -xdev -type f | sort; }
configuration=/etc/wireguard/${name}.conf
say files files
say version wgd --version
say selftest wgd selftest
say keys sh -c 'wgd genkey | wgd pubkey'
say man wgd man
say bash wgd completions bash
say zsh wgd completions zsh
say fish wgd completions fish
say help wgd --help
say rules ip rule
say up wgd up "$configuration"
say tunnel ping -n -c 3 -i 0.2 -W 5 ${INNER.b.v4}
say tunnel6 ping -n -c 3 -i 0.2 -W 5 ${INNER.b.v6}
say default ping -n -c 3 -i 0.2 -W 5 ${FAR}
say show wgd show ${name}
say json wgd show --json ${name}
echo 'PersistentKeepalive = 7' >> "$configuration"
say reload wgd reload "$configuration"
say keepalive wgd show ${name} persistent-keepalive
say handshakes wgd show ${name} latest-handshakes
say down wgd down "$configuration"
say gone ip link show ${name}
say tables nft list tables
say rules-after ip rule
say files-after files
`;

/** Why it cannot run here. */
function lacks(): string | undefined {
  if (program === "") return "needs WGD_PROGRAM, an executable";
  const first = new Uint8Array(4);
  using file = Deno.openSync(program);
  file.readSync(first);
  return String.fromCharCode(...first.subarray(1)) === "ELF"
    ? undefined
    : "needs an executable in WGD_PROGRAM, not a script";
}

/** Output and exit status of each part of the script. */
function partsOf(text: string): Map<string, { out: string; code: number }> {
  return new Map(
    text.split(/^== /m).slice(1).map((part) => {
      const [, title, out, code] = /^(\S+)\n([^]*)exit (\d+)\n$/.exec(part) ??
        [];
      assert(title !== undefined, part);
      return [title, { out, code: Number(code) }];
    }),
  );
}

/** The far end of the tunnel, on this system. @returns the near one's file */
async function makeFarEnd(lab: Lab, name: string): Promise<string> {
  const [far, a, b] = await Promise.all([
    lab.b.daemon("wgd"),
    generateKeys(),
    generateKeys(),
  ]);
  const peer = ["peer", a.public, "allowed-ips"];
  await far.set(
    ...["private-key", lab.file(b.private), "listen-port", String(PORT.b)],
    ...[...peer, `${INNER.a.v4}/32,${INNER.a.v6}/128`],
  );
  await far.up(`${INNER.b.v4}/24`, `${INNER.b.v6}/64`);
  await lab.b.ip("addr", "add", `${FAR}/32`, "dev", "lo");
  return lab.file(
    `[Interface]
PrivateKey = ${a.private}
Address = ${INNER.a.v4}/24, ${INNER.a.v6}/64
PostUp = echo hook of %i
[Peer]
PublicKey = ${b.public}
AllowedIPs = 0.0.0.0/0, ${INNER.b.v6}/128
Endpoint = ${OUTER.v4.b}:${PORT.b}
`,
    `${name}.conf`,
  );
}

labTest(
  "the executable alone, with glibc and ip, nft and sysctl: a tunnel from up to down",
  {
    programs: ["nft", "sysctl", "find", ...MAKERS],
    skip: lacks(),
  },
  async (lab) => {
    const name = await lab.interfaceName();
    const configuration = await makeFarEnd(lab, name);
    const root = `${lab.directory}/root`;
    Deno.mkdirSync(root);
    const programs = programFiles(PROGRAMS);
    const configured = `/etc/wireguard/${name}.conf`;
    const { code, stdout, stderr } = await lab.a.attempt(
      bareRootCommand({
        directory: root,
        devices: ["null", "net/tun"],
        files: {
          ...programs,
          "/usr/bin/wgd": program,
          [configured]: configuration,
        },
        script: lab.file(script(name)),
      }),
      { timeoutS: TIMEOUT_S },
    );
    assertEquals([code, stderr], [0, ""], stdout);
    const parts = partsOf(stdout);
    const out = (title: string, status = 0): string => {
      const part = parts.get(title);
      assertEquals(part?.code, status, `${title}: ${part?.out ?? stdout}`);
      return part?.out ?? "";
    };

    // Nothing is there that wgd could run on but itself.
    const files = out("files").trimEnd().split("\n");
    assert(files.includes("/usr/bin/wgd"));
    const others = files.filter((path) =>
      !/^\/(usr\/)?lib(32|64)?\/(\S+\/)?(ld-linux|lib)[\w.+-]+$/.test(path)
    );
    assertEquals(
      others,
      [
        "/dev/net/tun",
        "/dev/null",
        configured,
        "/script",
        "/usr/bin/wgd",
        ...Object.keys(programs),
      ].sort(),
    );

    assert(out("version").startsWith(`wgd ${VERSION}`), out("version"));
    assertMatch(out("selftest"), /\S/);
    assertMatch(out("keys"), /^[A-Za-z0-9+/]{43}=\n$/);
    const here = (...args: string[]): Promise<string> =>
      run([program, ...args]);
    assertEquals(out("man"), await here("man"));
    assertEquals(out("help"), await here("--help"));
    for (const shell of ["bash", "zsh", "fish"]) {
      assertEquals(out(shell), await here("completions", shell));
    }

    assertMatch(out("up"), /^hook of \S+$/m);
    for (const to of ["tunnel", "tunnel6", "default"]) {
      assertMatch(out(to), /^3 packets transmitted, 3 received, /m);
    }
    assertMatch(out("show"), /latest handshake: /);
    const peers = Object.values(JSON.parse(out("json"))[name].peers);
    assertEquals(peers.length, 1);
    const key = Object.keys(JSON.parse(out("json"))[name].peers)[0];
    out("reload");
    assertEquals(out("keepalive"), `${key}\t7\n`);
    // The session outlived the change.
    assertMatch(out("handshakes"), /\t[1-9]\d*\n$/);

    out("down");
    out("gone", 1);
    assertEquals(out("tables"), "");
    assertEquals(out("rules-after"), out("rules"));
    // Nor has it left anything else than what keeps timestamps growing: no
    // cache of code.
    assertEquals(
      out("files-after").trimEnd().split("\n").filter((path) =>
        !files.includes(path)
      ),
      [`/var/lib/wgd/${name}.timestamp`],
    );
  },
);
