/**
 * The services in packaging/: systemd's unit by systemd's own checks, the
 * scripts for OpenRC, procd and containers under busybox's shell.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  findProgram,
  must,
  ROOT,
  runProgram,
  testUnless,
} from "../compile_helpers.ts";
import { ash, noBusybox, PACKAGING, UCI } from "./ash.ts";

const noSystemd = findProgram("systemd-analyze")
  ? undefined
  : "needs systemd-analyze: apt-get install systemd";
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

// ---- procd ------------------------------------------------------------------

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
