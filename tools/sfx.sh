#!/bin/sh
# wgd for @TARGET@: a stock Deno and wgd's bundle, which follow this header as a
# tar archive packed with xz. The first run extracts them, for root into
# /var/cache/wgd, for others into ~/.cache/wgd, or wherever WGD_CACHE says; later
# runs find them there. The directory belongs to the one who runs this, and
# nobody else can enter it.
set -eu
id=@ID@
skip=@SKIP@
size=@SIZE@

fail() {
  echo "wgd: $*" >&2
  exit 1
}

case $0 in
  */*) self=$(cd "$(dirname "$0")" && pwd)/$(basename "$0") ;;
  *) self=$(command -v "$0") ;;
esac

if [ -n "${WGD_CACHE:-}" ]; then
  cache=$WGD_CACHE
elif [ "$(id -u)" = 0 ]; then
  cache=/var/cache/wgd
else
  cache=${XDG_CACHE_HOME:-${HOME:?WGD_CACHE or HOME must be set}/.cache}/wgd
fi

# What somebody else could write to is not run.
own() {
  [ ! -L "$1" ] && [ -d "$1" ] && [ -O "$1" ] &&
    case $(ls -ld "$1") in d???------*) ;; *) false ;; esac
}

extract() {
  command -v xz > /dev/null || fail "xz is needed to unpack $self"
  command -v tar > /dev/null || fail "tar is needed to unpack $self"
  [ "$(($(wc -c < "$self")))" -eq $((skip + size)) ] ||
    fail "$self is not whole: copy it again"
  umask 077
  mkdir -p "$(dirname "$cache")"
  mkdir "$cache" 2> /dev/null || :
  own "$cache" || fail "$cache must be a directory of yours with mode 0700; or set WGD_CACHE"
  new=$(mktemp -d "$cache/new.XXXXXX")
  trap 'rm -rf "$new"' EXIT
  trap 'exit 1' INT TERM HUP
  tail -c +$((skip + 1)) "$self" | xz -dc | tar -xf - -C "$new" ||
    fail "cannot unpack $self into $cache: is there room?"
  [ -x "$new/deno" ] || fail "$self is damaged: copy it again"
  # Another process may have been faster.
  mv "$new" "$cache/$id" 2> /dev/null || own "$cache/$id" || fail "cannot write to $cache"
  # Then it has moved into the other one's directory.
  rm -rf "$cache/$id/new.${new##*/new.}"
  trap - EXIT INT TERM HUP
}

if own "$cache" && own "$cache/$id"; then :; else extract; fi
# Compiled code is kept in there, too.
export WGD_LAUNCHER="$self" DENO_DIR="$cache/deno" DENO_NO_UPDATE_CHECK=1
exec "$cache/$id/deno" run --quiet --no-config --no-lock \
  --no-remote --no-npm --no-prompt @OPTIONS@ \
  "$cache/$id/cli.js" "$@"
