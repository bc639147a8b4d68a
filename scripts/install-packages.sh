#!/usr/bin/env bash
# Installs Debian packages; does nothing where they all are. Needs root, or sudo without a password.
#   scripts/install-packages.sh WHOSE WHAT_ELSE PACKAGE...
# WHOSE starts each line of what is said; WHAT_ELSE is what to install by hand where this is not Debian.
set -euo pipefail

whose=$1
by_hand=$2
shift 2
packages=("$@")
attempts=10
seconds_between=15

fail() {
  echo "$whose: $*" >&2
  exit 1
}

is_installed() {
  [[ "$(dpkg-query --show --showformat '${db:Status-Status}' "$1" 2>/dev/null || true)" == installed ]]
}

if ! command -v apt-get >/dev/null || ! command -v dpkg-query >/dev/null; then
  fail "this is not Debian; install by hand what these packages hold: ${packages[*]}. $by_hand"
fi

missing=()
for package in "${packages[@]}"; do
  is_installed "$package" || missing+=("$package")
done
if ((${#missing[@]} == 0)); then
  echo "$whose: every package is installed: ${packages[*]}"
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
  echo "$whose: installing ${missing[*]} (attempt $attempt of $attempts)"
  apt_get update || echo "$whose: the package lists are not all up to date; trying with what is there"
  if apt_get install --no-install-recommends "${missing[@]}"; then
    exit 0
  fi
  ((attempt == attempts)) || sleep "$seconds_between"
done
fail "could not install ${missing[*]}; what apt-get says is above."
