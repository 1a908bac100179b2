/**
 * Runs the shell scripts in packaging/ under busybox's shell, with functions in
 * place of those of openrc-run, procd, UCI and netifd that note what they are
 * given.
 */
import {
  findProgram,
  type Outcome,
  ROOT,
  runProgram,
} from "../compile_helpers.ts";

/** What is tested. */
export const PACKAGING: string = `${ROOT}packaging`;
/** Why it cannot be tested here. */
export const noBusybox: string | undefined = findProgram("busybox")
  ? undefined
  : "needs busybox: apt-get install busybox";

/** Functions that note their names and arguments on descriptor 3. */
const STUBS = `
note() { for w; do printf '%s|' "$w"; done >&3; echo >&3; }
for f in $STUBBED; do eval "$f() { note $f \\"\\$@\\"; }"; done
`;

/** A script of packaging/, and what is run with it. */
export interface AshRun {
  readonly stubs: string;
  readonly script: string;
  readonly line: string;
  readonly sourced?: boolean;
  /** Command line of wgd itself, in place of one that notes its calls. */
  readonly wgd?: readonly string[];
  /** What the shell is run by. */
  readonly within?: (argv: readonly string[]) => string[];
}

/** Runs a line after a script of packaging/, under ash. */
export async function ash(
  directory: string,
  { stubs, script, line, sourced = true, wgd, within }: AshRun,
  env: Record<string, string> = {},
): Promise<Outcome & { notes: string[] }> {
  const bin = `${directory}/wgd`;
  const text = Deno.readTextFileSync(`${PACKAGING}/${script}`)
    .replaceAll("/usr/bin/wgd", bin);
  Deno.writeTextFileSync(
    `${directory}/script`,
    wgd ? text : text.replaceAll("/sys/class/net", `${directory}/net`),
  );
  const fake = wgd ? `#!/bin/sh\nexec ${wgd.join(" ")} "$@"\n` : FAKE_WGD;
  Deno.writeTextFileSync(bin, fake, { mode: 0o755 });
  Deno.mkdirSync(`${directory}/net`, { recursive: true });
  const program = [
    'exec 3>"$DIRECTORY/notes"',
    STUBS,
    stubs,
    ...sourced ? ['. "$DIRECTORY/script"'] : [],
    line,
  ].join("\n");
  const shell = ["busybox", "ash", "-uc", program];
  const outcome = await runProgram(within ? within(shell) : shell, {
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
    [ ! -e "$DIRECTORY/endpoints" ] || exec cat "$DIRECTORY/endpoints"
    printf 'K1=\\t192.0.2.1:51820\\nK2=\\t[2001:db8::1]:51820\\nK3=\\t(none)\\n'
    printf 'K4=\\t[fe80::1%%eth0]:51820\\n' ;;
esac
`;

/**
 * UCI by variables NAME__OPTION. A list is words to config_get, as one option
 * with spaces is; config_list_foreach would see lists alone, and is not here.
 */
export const UCI = `STUBBED="logger ubus uci procd_open_instance procd_set_param
procd_close_instance procd_add_reload_trigger start proto_notify_error
proto_block_restart proto_setup_failed sleep proto_init_update proto_add_ipv4_address
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
`;
