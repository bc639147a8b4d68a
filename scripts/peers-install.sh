#!/usr/bin/env bash
# Installs the Debian packages that hold the programs of test/peers; does nothing where they all are.
# Needs root, or sudo without a password. `npm run peers:install` calls it.
set -euo pipefail

packages=(
  libnbd-bin qemu-utils fio e2fsprogs nbdkit device-tree-compiler xenstore-utils
  qemu-system-x86 qemu-system-common user-mode-linux linux-image-amd64 busybox-static
)
attempts=10
seconds_between=15

fail() {
  echo "peers-install: $*" >&2
  exit 1
}

is_installed() {
  [[ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null || true)" == installed ]]
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  fail "this is not Debian; install by hand what the peers' packages hold: ${packages[*]}."
fio, mke2fs, nbdkit, dtc, xenstore-ls, qemu-system-x86_64,"\
 qemu-system-x86_64, qemu-storage-daemon, linux.uml and a static busybox by hand."
fi

missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "peers-install: every package is installed: ${packages[*]}"
  exit 0
fi

as_root=(env)
if ((EUID != 0)); then
  sudo -n true 2>/dev/null || fail "installing ${missing[*]} needs root, or sudo without a password."
  as_root=(sudo -n env)
fi
apt_get() {
  "${as_root[@]}" DEBIAN_FRONTEND=noninteractive \
    apt-get -q -y -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3 -o Dpkg::Use-Pty=0 "$@" </dev/null
}

# The lock of the package lists has no timeout of its own, and a mirror may be away for a moment.
for ((attempt = 1; attempt <= attempts; attempt++)); do
  echo "peers-install: installing ${missing[*]} (attempt $attempt of $attempts)"
  apt_get update || echo "peers-install: the package lists are not all up to date; trying with what is there"
  if apt_get install --no-install-recommends "${missing[@]}"; then
    exit 0
  fi
  ((attempt == attempts)) || sleep "$seconds_between"
done
fail "could not install ${missing[*]}; what apt-get says is above."
