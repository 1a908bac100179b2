/**
 * The unit under a real systemd: it is booted in namespaces of its own, on a
 * copy of this system that is thrown away, and starts, watches, restarts and
 * stops an interface. Needs the executable in WGD_PROGRAM, as .ci/run gives it.
 */
import { assertEquals, assertMatch } from "@std/assert";
import {
  findProgram,
  must,
  ROOT,
  runProgram,
  testUnless,
} from "../compile_helpers.ts";

const SYSTEMD = "/lib/systemd/systemd";
const program = Deno.env.get("WGD_PROGRAM");
/** All of it takes some 15 s. */
const TIMEOUT_S = 90;

/** Becomes systemd as process 1, with `$1` as the place for it all. */
const BOOT = `set -eu
root=$1/root
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs tmpfs "$root/run"
# Read-only: so udev lets the machine's devices alone.
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/sys/fs/cgroup"
if [ -d /sys/fs/cgroup/systemd ]; then
  mkdir "$root/sys/fs/cgroup/systemd" "$root/sys/fs/cgroup/unified"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup/unified"
  mount -t cgroup -o none,name=systemd cgroup "$root/sys/fs/cgroup/systemd"
else
  umount "$root/sys/fs/cgroup"
  mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
fi
mkdir "$root/out"
mount --bind "$2" "$root/out"
cp "$3" "$root/usr/bin/wgd"
chmod 755 "$root/usr/bin/wgd"
mkdir -p "$root/etc/wireguard" "$root/etc/systemd/system/wgd@.service.d"
mv "$2/wgs.conf" "$root/etc/wireguard/"
cp "$2/wgd@.service" "$2/test.target" "$2/test.service" "$root/etc/systemd/system/"
mv "$2/override.conf" "$root/etc/systemd/system/wgd@.service.d/"
cd "$root"
exec env container=lxc chroot "$root" ${SYSTEMD} --system --unit=test.target \
  --log-target=null --show-status=no < /dev/null > /dev/null 2>&1
`;

const TARGET = `[Unit]
Description=Test
DefaultDependencies=no
Wants=dbus.socket test.service
`;

const SERVICE = `[Unit]
DefaultDependencies=no
After=dbus.socket
[Service]
Type=oneshot
ExecStart=/bin/sh /out/script
StandardOutput=file:/out/log
StandardError=file:/out/log
`;

/** As the unit has it, but quick. */
const OVERRIDE = `[Service]
WatchdogSec=2
RestartSec=0.2
Environment=LOG_LEVEL=verbose
`;

const SCRIPT = `unit=wgd@wgs
pid() { systemctl show -P MainPID $unit; }
show() { systemctl show -P ActiveState -P SubState -P NRestarts -P Result $unit | tr '\\n' ' '; echo; }
up() { ip -o -4 address show dev wgs | awk '{ print $4 }'; }
restarted() { # as often as
  i=0
  while [ "$(systemctl show -P NRestarts $unit)" != "$1" ] ||
    [ "$(systemctl is-active $unit)" != active ]; do
    i=$((i + 1)); [ $i -le 100 ] || break
    sleep 0.1
  done
}
systemctl start $unit; echo "start $?"
show; up
tr '\\0' ' ' < /proc/$(pid)/cmdline; echo
sleep 5; echo watched; show
old=$(pid)
wgd upgrade wgs 2> /dev/null; echo "upgrade $?"
sleep 5; show; up
new=$(pid)
[ "$new" -gt 1 ] || { systemctl exit 0; exit; }
[ "$new" != $old ] && [ ! -e /proc/$old ] && echo in its place
grep -q wgd@wgs.service /proc/$new/cgroup && echo in its group
kill -KILL $new; restarted 1; echo killed; show; up
kill -STOP $(pid); restarted 2; echo hangs; show; up
systemctl stop $unit; echo "stop $?"
show; up
[ -e /var/run/wireguard/wgs.sock ] || echo no socket
systemctl exit 0
`;

/** Why it cannot be tested here. */
function lacks(): string | undefined {
  if (program === undefined) return "needs WGD_PROGRAM, an executable";
  if (Deno.uid() !== 0) return "needs root";
  if (findProgram("systemctl") === undefined) return "needs systemd";
  try {
    Deno.statSync(SYSTEMD);
    Deno.statSync("/dev/net/tun");
  } catch {
    return `needs ${SYSTEMD} and /dev/net/tun`;
  }
  return undefined;
}

testUnless(
  lacks(),
  "systemd starts an interface, watches it, and restarts it when it dies or hangs",
  async (directory) => {
    const out = `${directory}/out`;
    Deno.mkdirSync(out);
    Deno.mkdirSync(`${directory}/place`);
    const put = (name: string, text: string): void =>
      Deno.writeTextFileSync(`${out}/${name}`, text, { mode: 0o600 });
    Deno.copyFileSync(
      `${ROOT}packaging/systemd/wgd@.service`,
      `${out}/wgd@.service`,
    );
    put("test.target", TARGET);
    put("test.service", SERVICE);
    put("override.conf", OVERRIDE);
    put("script", SCRIPT);
    const key = (await must([program ?? "", "genkey"])).trim();
    put(
      "wgs.conf",
      `[Interface]\nPrivateKey = ${key}\nAddress = 10.9.9.1/24\n`,
    );
    const { code, err } = await runProgram([
      ...["timeout", "-k", "1", String(TIMEOUT_S), "unshare", "--mount"],
      ...["--pid", "--fork", "--cgroup", "--uts", "--ipc", "--net"],
      ...["--kill-child=KILL", "sh", "-c", BOOT, "sh"],
      ...[`${directory}/place`, out, program ?? ""],
    ]);
    const log = await Deno.readTextFile(`${out}/log`).catch(() => "");
    assertEquals([code, err], [0, ""], log);
    const lines = log.trimEnd().split("\n").map((line) => line.trim());
    const address = "10.9.9.1/24";
    const active = (restarts: number): string =>
      `${restarts} success active running`;
    const shown = lines.map((line) =>
      line.split(" ").length === 4 && line.includes("success")
        ? line.split(" ").toSorted().join(" ")
        : line
    );
    assertEquals(shown.toSpliced(3, 1), [
      ...["start 0", sorted(active(0)), address],
      ...["watched", sorted(active(0))],
      ...["upgrade 0", sorted(active(0)), address],
      ...["in its place", "in its group"],
      ...["killed", sorted(active(1)), address],
      ...["hangs", sorted(active(2)), address],
      ...["stop 0", sorted("0 success inactive dead")],
      'Device "wgs" does not exist.',
      "no socket",
    ], log);
    assertMatch(shown[3], /^\/usr\/bin\/wgd run wgs/);
  },
);

function sorted(words: string): string {
  return words.split(" ").toSorted().join(" ");
}
