/**
 * The executable on a machine that has nothing else: a root directory made from
 * nothing, with glibc, the programs that `wgd up` calls, /dev/net/tun and a
 * /proc of its own. No Deno, no node, no checkout and no file of this system's
 * can be opened in there, since no path leads out. Needs the executable in
 * WGD_PROGRAM, as .ci/run gives it.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { VERSION } from "../../lib/version.ts";
import { labTest } from "../netns/harness.ts";
import type { Lab } from "../netns/lab.ts";
import { run } from "../netns/process.ts";
import { findProgram } from "../netns/requirements.ts";
import { generateKeys, INNER, OUTER, PORT } from "../netns/tunnel.ts";

const program = Deno.env.get("WGD_PROGRAM") ?? "";
/** What `wgd up` calls, and what the script below does. */
const PROGRAMS = ["ip", "nft", "sysctl", "ping", "find", "sort"];
const TIMEOUT_S = 90;
/** Reached by the default route alone. */
const FAR = "198.51.100.1";

/**
 * Makes the root in $1 and runs $3 in it. The process namespace is new, so that
 * /proc shows no process whose root is another one.
 */
const ENTER = `set -eu
root=$1 wgd=$2 script=$3 configuration=$4
shift 4
mount -t tmpfs -o mode=755 none "$root"
copy() { # FROM TO
  mkdir -p "$root\${2%/*}"
  cp -L "$1" "$root$2"
}
libraries() { # FILE
  ldd "$1" | sed -nE 's:^.* => (/[^ ]+) .*:\\1:p; s:^\\s+(/[^ ]+) \\(.*:\\1:p'
}
copy "$wgd" /usr/bin/wgd
for file; do copy "$file" "$file"; done
for file in "$wgd" "$@"; do
  for library in $(libraries "$file"); do
    [ -e "$root$library" ] || copy "$library" "$library"
  done
done
copy "$script" /script
copy "$configuration" "/etc/wireguard/\${configuration##*/}"
mkdir -p "$root/proc" "$root/tmp" "$root/run" "$root/var" "$root/dev/net"
ln -s /run "$root/var/run"
mount -t proc proc "$root/proc"
for device in null net/tun; do
  : > "$root/dev/$device"
  mount --bind "/dev/$device" "$root/dev/$device"
done
unset HOME DENO_DIR XDG_CACHE_HOME STATE_DIRECTORY WGD_PROGRAM
export PATH=/usr/bin:/usr/sbin:/bin:/sbin
cd "$root"
exec chroot "$root" /bin/sh /script
`;

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
    programs: ["nft", "sysctl", "unshare", "chroot", "ldd", "find"],
    skip: lacks(),
  },
  async (lab) => {
    const name = await lab.interfaceName();
    const configuration = await makeFarEnd(lab, name);
    const root = `${lab.directory}/root`;
    Deno.mkdirSync(root);
    const paths = [
      "/bin/sh",
      ...PROGRAMS.map((each) => findProgram(each) ?? each),
    ];
    const { code, stdout, stderr } = await lab.a.attempt([
      ...["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"],
      ...["sh", "-c", ENTER, "sh", root, program, lab.file(script(name))],
      ...[configuration, ...paths],
    ], { timeoutS: TIMEOUT_S });
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
        `/etc/wireguard/${name}.conf`,
        "/script",
        "/usr/bin/wgd",
        ...paths,
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
