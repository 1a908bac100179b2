/**
 * A root directory made from nothing: glibc, the programs that are named, with
 * their libraries, devices and a /proc of its own. What runs in it stands in
 * process and mount namespaces of its own, from which this system's root is
 * taken away (pivot_root): no path leads out.
 */
import { findProgram } from "../netns/requirements.ts";

/** What is in a root. */
export interface BareRoot {
  /** An empty directory to make it on. */
  readonly directory: string;
  /** Files, by their paths in there, where they come from. */
  readonly files: Readonly<Record<string, string>>;
  /** Names in /dev. */
  readonly devices: readonly string[];
  /** Whether there is a /sys, with this system's control groups. */
  readonly sys?: boolean;
  /** Shell script that runs in it, and its arguments. */
  readonly script: string;
  readonly args?: readonly string[];
}

/** Programs that make a root. */
export const MAKERS: readonly string[] = [
  ...["unshare", "mount", "pivot_root", "ldd"],
];
/** What a root needs besides: a shell, and what takes the old root away. */
export const NEEDED: readonly string[] = ["sh", "umount", "rmdir"];

const LAST = "/script";

/**
 * Makes the root in $1: $2 says whether with /sys, then come names of devices,
 * `--`, pairs of files, `--`, and the arguments of the script. The first process
 * of the namespace stays a shell, which takes care of orphans.
 */
const ENTER = `set -eu
root=$1 sys=$2
shift 2
mount -t tmpfs -o mode=755 none "$root"
for name in bin sbin lib lib64; do
  mkdir -p "$root/usr/$name"
  ln -s "usr/$name" "$root/$name"
done
mkdir -m 1777 "$root/tmp"
mkdir -p "$root/proc" "$root/sys" "$root/dev/net" "$root/etc/wireguard" \\
  "$root/run" "$root/var" "$root/root" "$root/old"
ln -s /run "$root/var/run"
ln -s /proc/self/fd "$root/dev/fd"
ln -s fd/0 "$root/dev/stdin"
ln -s fd/1 "$root/dev/stdout"
ln -s fd/2 "$root/dev/stderr"
copy() { # FROM TO
  mkdir -p "$root\${2%/*}"
  cp -L "$1" "$root$2"
}
libraries() { # FILE
  ldd "$1" 2>/dev/null |
    sed -nE 's:^.* => (/[^ ]+) .*:\\1:p; s:^\\s+(/[^ ]+) \\(.*:\\1:p'
}
while [ "$1" != -- ]; do
  : > "$root/dev/$1"
  mount --bind "/dev/$1" "$root/dev/$1"
  shift
done
shift
while [ "$1" != -- ]; do
  copy "$2" "$1"
  for library in $(libraries "$2"); do
    [ -e "$root$library" ] || copy "$library" "$library"
  done
  shift 2
done
shift
mount -t proc proc "$root/proc"
if [ "$sys" = true ]; then
  mount -t sysfs sysfs "$root/sys"
  if [ -d /sys/fs/cgroup ]; then
    mount --rbind /sys/fs/cgroup "$root/sys/fs/cgroup"
  fi
fi
unset HOME DENO_DIR XDG_CACHE_HOME STATE_DIRECTORY WGD_PROGRAM
export PATH=/usr/bin:/usr/sbin
cd "$root"
pivot_root . old
cd /
exec /bin/sh -c 'umount -l /old && rmdir /old && . ${LAST}' sh "$@"
`;

/** Command line that makes a root and runs its script. */
export function bareRootCommand(root: BareRoot): string[] {
  return [
    ...["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"],
    ...["sh", "-c", ENTER, "sh", root.directory, String(root.sys ?? false)],
    ...[...root.devices, "--"],
    ...[...Object.entries(root.files).flat(), LAST, root.script, "--"],
    ...root.args ?? [],
  ];
}

/** Where installed programs of these names shall be, and where they are. */
export function programFiles(
  names: readonly string[],
): Record<string, string> {
  const files: Record<string, string> = {};
  for (const name of names) {
    const path = findProgram(name);
    if (path !== undefined) files[`/usr/bin/${name}`] = path;
  }
  return files;
}
