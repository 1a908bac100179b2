/**
 * The services in packaging/: systemd's unit by systemd's own checks, the
 * scripts for OpenRC and OpenWrt under busybox's shell, with functions in place
 * of those of openrc-run, procd, UCI and netifd that note what they are given.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  findProgram,
  must,
  type Outcome,
  ROOT,
  runProgram,
  testUnless,
} from "../compile_helpers.ts";

const PACKAGING = `${ROOT}packaging`;
const noSystemd = findProgram("systemd-analyze")
  ? undefined
  : "needs systemd-analyze: apt-get install systemd";
const noBusybox = findProgram("busybox")
  ? undefined
  : "needs busybox: apt-get install busybox";
const noShellcheck = findProgram("shellcheck")
  ? undefined
  : "needs shellcheck: apt-get install shellcheck";

testUnless(
  noSystemd,
  "systemd finds no fault with the unit",
  async (directory) => {
    const unit = Deno.readTextFileSync(`${PACKAGING}/systemd/wgd@.service`);
    Deno.writeTextFileSync(
      `${directory}/wgd@.service`,
      unit.replaceAll("/usr/bin/wgd", "/bin/true"),
    );
    for (const instance of ["wgd@.service", "wgd@wg0.service"]) {
      const { code, out, err } = await runProgram([
        ...["systemd-analyze", "verify", "--man=no"],
        `${directory}/${instance}`,
      ]);
      assertEquals([code, out, err], [0, "", ""]);
    }
    const wrong = unit.replace("Type=notify", "Type=nothing");
    Deno.writeTextFileSync(`${directory}/wgd@.service`, wrong);
    const { err } = await runProgram([
      ...[
        "systemd-analyze",
        "verify",
        "--man=no",
        `${directory}/wgd@a.service`,
      ],
    ]);
    assertMatch(err, /nothing/, "verify sees faults");
  },
);

testUnless(
  noSystemd,
  "the unit exposes little, as systemd reckons",
  async (directory) => {
    Deno.copyFileSync(
      `${PACKAGING}/systemd/wgd@.service`,
      `${directory}/wgd@.service`,
    );
    const text = await must([
      ...["systemd-analyze", "security", "--offline=true", "--no-pager"],
      `${directory}/wgd@.service`,
    ]);
    const exposure = Number(/exposure level for \S+ (\S+)/.exec(text)?.[1]);
    assert(exposure > 0 && exposure <= 3.5, text);
  },
);

testUnless(
  noShellcheck,
  "shellcheck finds no fault with the scripts",
  async () => {
    const scripts = [
      ...[
        "packaging/hold",
        "packaging/openrc/wgd",
        "packaging/openwrt/wgd.init",
      ],
      ...["packaging/openwrt/wgd.proto", "tools/sfx.sh"],
      ...["postinst", "postrm", "prerm"].map((name) =>
        `packaging/debian/${name}`
      ),
    ];
    // Sourced files are the router's; `local` is in all these shells; variables
    // of openrc-run, rc.common and netifd come and go unseen.
    const exempt = "--exclude=SC1091,SC3043,SC2034,SC2154";
    await must(["shellcheck", "--shell=sh", exempt, ...scripts], { cwd: ROOT });
  },
);

/** Functions that note their names and arguments on descriptor 3. */
const STUBS = `
note() { for w; do printf '%s|' "$w"; done >&3; echo >&3; }
for f in $STUBBED; do eval "$f() { note $f \\"\\$@\\"; }"; done
`;

/** Runs a line after a script of packaging/, under ash. */
async function ash(
  directory: string,
  { stubs, script, line, sourced = true }: {
    stubs: string;
    script: string;
    line: string;
    sourced?: boolean;
  },
  env: Record<string, string> = {},
): Promise<Outcome & { notes: string[] }> {
  const bin = `${directory}/wgd`;
  const text = Deno.readTextFileSync(`${PACKAGING}/${script}`)
    .replaceAll("/usr/bin/wgd", bin)
    .replaceAll("/sys/class/net", `${directory}/net`);
  Deno.writeTextFileSync(`${directory}/script`, text);
  Deno.writeTextFileSync(bin, FAKE_WGD, { mode: 0o755 });
  Deno.mkdirSync(`${directory}/net`, { recursive: true });
  const program = [
    'exec 3>"$DIRECTORY/notes"',
    STUBS,
    stubs,
    ...sourced ? ['. "$DIRECTORY/script"'] : [],
    line,
  ].join("\n");
  const outcome = await runProgram(["busybox", "ash", "-uc", program], {
    env: { ...env, DIRECTORY: directory },
  });
  const notes = Deno.readTextFileSync(`${directory}/notes`);
  return { ...outcome, notes: notes.trimEnd().split("\n") };
}

/** Notes how it is called; `up` and `down` make and remove the interface. */
const FAKE_WGD = `#!/bin/sh
echo "wgd|$*|" >&3
for last; do :; done
name=\${last##*/} name=\${name%.conf}
case $1 in
  up) [ ! -e "$DIRECTORY/fails" ] && : > "$DIRECTORY/net/$name" ;;
  down) rm "$DIRECTORY/net/$name" ;;
  genkey) echo GENERATED= ;;
  show)
    printf 'K1=\\t192.0.2.1:51820\\nK2=\\t[2001:db8::1]:51820\\nK3=\\t(none)\\n'
    printf 'K4=\\t[fe80::1%%eth0]:51820\\n' ;;
esac
`;

// ---- OpenRC -----------------------------------------------------------------

const OPENRC = {
  stubs: `STUBBED="ebegin eend eerror einfo need use after keyword"
for f in $STUBBED; do eval "$f() { note $f \\"\\$@\\"; }"; done
eend() { note eend "$1"; return "$1"; }`,
  script: "openrc/wgd",
};

testUnless(
  noBusybox,
  "OpenRC starts, reloads and stops an interface",
  async (directory) => {
    const env = {
      RC_SVCNAME: "wgd.wg0",
      WGD_OPTIONS: "--threads 1",
      STUBBED: "",
    };
    const line =
      `depend; configuration=$DIRECTORY/script; start && reload && status && stop`;
    const { code, notes, err } = await ash(
      directory,
      { ...OPENRC, line },
      env,
    );
    assertEquals(code, 0, err + notes.join("\n"));
    assertEquals(notes.filter((note) => note.startsWith("wgd")), [
      "wgd|up --threads 1 wg0|",
      "wgd|reload wg0|",
      "wgd|show wg0|",
      "wgd|down wg0|",
    ]);
    assertEquals(notes.filter((note) => note.startsWith("eend")).length, 3);
  },
);

testUnless(
  noBusybox,
  "OpenRC refuses a service without an interface or a file",
  async (directory) => {
    for (
      const [service, says] of [
        ["wgd", /Make a link/],
        ["wgd.wg-absent", /There is no \/etc\/wireguard\/wg-absent.conf/],
      ] as const
    ) {
      const { code, notes } = await ash(
        directory,
        { ...OPENRC, line: "start" },
        { RC_SVCNAME: service, STUBBED: "" },
      );
      assertEquals(code, 1);
      assertMatch(notes[0], says);
      assertEquals(notes.length, 1);
    }
  },
);

// ---- OpenWrt ----------------------------------------------------------------

/** UCI by variables NAME__OPTION; lists are words. */
const UCI = `STUBBED="logger uci procd_open_instance procd_set_param
procd_close_instance procd_add_reload_trigger start proto_notify_error
proto_block_restart proto_init_update proto_add_ipv4_address
proto_add_ipv6_address proto_add_ipv4_route proto_add_ipv6_route
proto_add_ipv6_prefix proto_send_update proto_add_host_dependency
proto_config_add_string proto_config_add_int proto_config_add_boolean
proto_config_add_array add_protocol"
for f in $STUBBED; do eval "$f() { note $f \\"\\$@\\"; }"; done
logger() {
  case " $* " in *" -p "*) note logger "$@" ;; *) cat > /dev/null ;; esac
}
config_load() { :; }
config_get() { eval "$1=\\"\\\${$2__$3:-\${4:-}}\\""; }
config_get_bool() { config_get "$@"; }
config_foreach() { eval "set -- \\"$1\\" \\\${sections__$2:-}"
  local f="$1" s; shift; for s; do "$f" "$s"; done; }
config_list_foreach() { eval "set -- \\"$3\\" \\\${$1__$2:-}"
  local f="$1" v; shift; for v; do "$f" "$v"; done; }
`;

const TUNNELS = `
sections__tunnel="wg0 wg1 wg2 wg3"
wg0__config="$DIRECTORY/script" wg0__threads=1 wg0__memory=96
wg1__enabled=0 wg1__config="$DIRECTORY/script"
wg2__config="$DIRECTORY/absent.conf"
wg3__config="$DIRECTORY/script" wg3__log_level=verbose
`;

testUnless(
  noBusybox,
  "procd is given an instance for each interface",
  async (directory) => {
    const { code, notes, err } = await ash(directory, {
      stubs: UCI + TUNNELS,
      script: "openwrt/wgd.init",
      line: "start_service; service_triggers",
    }, { STUBBED: "" });
    assertEquals(code, 0, err);
    const hold = "procd_set_param|command|/usr/libexec/wgd-hold|";
    const script = `${directory}/script`;
    const instance = (name: string, options: string, level: string) => [
      `procd_open_instance|${name}|`,
      `${hold}${script}|${options}`,
      `procd_set_param|env|LOG_LEVEL=${level}|` +
      "WG_ENDPOINT_RESOLUTION_RETRIES=infinity|",
      `procd_set_param|file|${script}|`,
      "procd_set_param|respawn|3600|5|0|",
      "procd_set_param|stderr|1|",
      "procd_set_param|term_timeout|15|",
      "procd_close_instance|",
    ];
    assertEquals(notes, [
      ...instance("wg0", "--threads|1|--memory|96|", "error"),
      `logger|-t|wgd|-p|daemon.err|wg2: there is no ${directory}/absent.conf|`,
      ...instance("wg3", "", "verbose"),
      "procd_add_reload_trigger|wgd|",
    ]);
  },
);

testUnless(
  noBusybox,
  "procd's reload reloads the interfaces that run",
  async (directory) => {
    const { code, notes, err } = await ash(directory, {
      stubs: UCI + TUNNELS,
      script: "openwrt/wgd.init",
      line:
        ': > "$DIRECTORY/net/wg0"; : > "$DIRECTORY/net/wg1"; reload_service',
    }, { STUBBED: "" });
    assertEquals(code, 0, err);
    assertEquals(notes, [`wgd|reload ${directory}/script|`, "start|"]);
  },
);

const NETWORK = `
INCLUDE_ONLY=
WGD_DIRECTORY="$DIRECTORY/run"
wg0__private_key=PRIVATE= wg0__listen_port=51820 wg0__mtu=1380 wg0__fwmark=0x1
wg0__addresses="10.9.0.1/24 10.9.1.1 fd09::1/64 fd09::2" wg0__ip6prefix=fd0a::/56
wg0__tunlink=wan wg0__memory=96
sections__wireguard_wg0="one two off none"
one__public_key=K1= one__endpoint_host=vpn.example one__route_allowed_ips=1
one__allowed_ips="10.0.0.0/8 fd00::/8 192.0.2.7 2001:db8::7"
one__preshared_key=PSK= one__persistent_keepalive=25
two__public_key=K2= two__endpoint_host=2001:db8::1 two__endpoint_port=1234
two__allowed_ips=172.16.0.0/12
off__public_key=K9= off__disabled=1 off__allowed_ips=1.2.3.4 off__route_allowed_ips=1
none__allowed_ips=1.2.3.5
`;

const FILE = `[Interface]
PrivateKey = PRIVATE=
ListenPort = 51820
FwMark = 0x1
MTU = 1380
Table = off

[Peer]
PublicKey = K1=
PresharedKey = PSK=
AllowedIPs = 10.0.0.0/8, fd00::/8, 192.0.2.7, 2001:db8::7
Endpoint = vpn.example:51820
PersistentKeepalive = 25

[Peer]
PublicKey = K2=
AllowedIPs = 172.16.0.0/12
Endpoint = [2001:db8::1]:1234
`;

/** Runs a line after netifd's handler. */
function netifd(
  directory: string,
  line: string,
  more = "",
): ReturnType<typeof ash> {
  return ash(directory, {
    stubs: `${UCI}${NETWORK}${more}INCLUDE_ONLY=1`,
    script: "openwrt/wgd.proto",
    line,
  }, { STUBBED: "" });
}

testUnless(
  noBusybox,
  "netifd sets an interface up: file, addresses, routes, host routes",
  async (directory) => {
    const { code, notes, err } = await netifd(directory, "proto_wgd_setup wg0");
    assertEquals(code, 0, err);
    const path = `${directory}/run/wg0.conf`;
    assertEquals(Deno.readTextFileSync(path), FILE);
    assertEquals((Deno.statSync(path).mode ?? 0) & 0o777, 0o600);
    assertEquals(notes, [
      "logger|-t|wgd|-p|daemon.err|none: a peer without public_key is left out|",
      `wgd|up --memory 96 ${path}|`,
      "proto_init_update|wg0|1|",
      "proto_add_ipv4_address|10.9.0.1|24|",
      "proto_add_ipv4_address|10.9.1.1|32|",
      "proto_add_ipv6_address|fd09::1|64|",
      "proto_add_ipv6_address|fd09::2|128|",
      "proto_add_ipv6_prefix|fd0a::/56|",
      "proto_add_ipv4_route|10.0.0.0|8|",
      "proto_add_ipv6_route|fd00::|8|",
      "proto_add_ipv4_route|192.0.2.7|32|",
      "proto_add_ipv6_route|2001:db8::7|128|",
      "proto_send_update|wg0|",
      "wgd|show wg0 endpoints|",
      "proto_add_host_dependency|wg0|192.0.2.1|wan|",
      "proto_add_host_dependency|wg0|2001:db8::1|wan|",
    ]);
  },
);

testUnless(
  noBusybox,
  "netifd: nohostroute, a key that is generated, renewal, the end",
  async (directory) => {
    const { code, notes, err } = await netifd(
      directory,
      "proto_wgd_setup wg0 && proto_wgd_renew wg0 && proto_wgd_teardown wg0",
      "wg0__nohostroute=1 wg0__private_key=generate sections__wireguard_wg0=\n" +
        "wg0__addresses= wg0__ip6prefix=\n",
    );
    assertEquals(code, 0, err);
    const path = `${directory}/run/wg0.conf`;
    const key = [
      "wgd|genkey|",
      "uci|-q|set|network.wg0.private_key=GENERATED=|",
      "uci|-q|commit|network|",
    ];
    const update = ["proto_init_update|wg0|1|", "proto_send_update|wg0|"];
    assertEquals(notes, [
      ...key,
      `wgd|up --memory 96 ${path}|`,
      ...update,
      ...key,
      `wgd|reload ${path}|`,
      ...update,
      "wgd|down wg0|",
    ]);
    assertEquals([...Deno.readDirSync(`${directory}/run`)], []);
  },
);

testUnless(
  noBusybox,
  "netifd is told why an interface cannot be set up",
  async (directory) => {
    const noKey = await netifd(
      directory,
      "proto_wgd_setup wg0",
      "wg0__private_key=\n",
    );
    assertEquals(noKey.code, 1);
    assertEquals(noKey.notes.slice(1), [
      "proto_notify_error|wg0|NO_PRIVATE_KEY|",
      "proto_block_restart|wg0|",
    ]);
    const failed = await netifd(
      directory,
      ': > "$DIRECTORY/fails"; proto_wgd_setup wg0',
    );
    assertEquals(failed.code, 1);
    assert(failed.notes.includes("proto_notify_error|wg0|SETUP_FAILED|"));
  },
);

testUnless(
  noBusybox,
  "netifd is told the protocol's options",
  async (directory) => {
    const { notes } = await netifd(
      directory,
      'proto_wgd_init_config; note "$available" "$no_proto_task"',
    );
    assertEquals(notes.at(-1), "1|1|");
    assert(notes.includes("proto_config_add_boolean|nohostroute|"));
    assert(notes.includes("proto_config_add_int|mtu|"));
  },
);

// ---- hold -------------------------------------------------------------------

/** What `hold` does when its interface is set up and then `end` happens. */
async function hold(directory: string, end: string): Promise<string[]> {
  Deno.mkdirSync(directory);
  const line = `"$SHELL_UNDER_TEST" ash "$DIRECTORY/script" "$@" &
pid=$!
while [ ! -s "$DIRECTORY/notes" ]; do sleep 0.1; done
sleep 0.3
${end}
wait $pid
note "code $?"`;
  const { notes } = await ash(directory, {
    stubs: "set -- /x/wg0.conf --threads 1\nINTERFACES=$DIRECTORY/net",
    script: "hold",
    line,
    sourced: false,
  }, { STUBBED: "", SHELL_UNDER_TEST: findProgram("busybox") ?? "" });
  return notes;
}

testUnless(
  noBusybox,
  "hold takes its interface down when it is asked to end",
  async (directory) => {
    assertEquals(await hold(`${directory}/a`, "kill $pid"), [
      "wgd|up --threads 1 /x/wg0.conf|",
      "wgd|down /x/wg0.conf|",
      "code 0|",
    ]);
  },
);

testUnless(noBusybox, "hold ends with its interface", async (directory) => {
  assertEquals(await hold(`${directory}/a`, 'rm "$INTERFACES/wg0"'), [
    "wgd|up --threads 1 /x/wg0.conf|",
    "code 1|",
  ]);
});

testUnless(
  noBusybox,
  "hold fails where its interface cannot be set up",
  async (directory) => {
    Deno.mkdirSync(`${directory}/a`);
    Deno.writeTextFileSync(`${directory}/a/fails`, "");
    const { code, notes } = await ash(`${directory}/a`, {
      stubs: "set -- wg0",
      script: "hold",
      line: "note not reached",
    }, { STUBBED: "" });
    assertEquals([code, notes], [1, ["wgd|up wg0|"]]);
  },
);
