#!/usr/bin/env bash
# Installs the Debian packages with which test/xen builds and runs its machine. What runs in the machine, Xen and the
# kernels, is fetched and unpacked by the rig itself, and not installed. `npm run xen:install` calls it.
set -euo pipefail

"$(dirname "${BASH_SOURCE[0]}")/install-packages.sh" xen-install \
  "The packages that the rig fetches are those of Debian 12." \
  qemu-system-x86 busybox-static e2fsprogs kmod util-linux \
  gcc libc6-dev make flex bison bc libelf-dev xz-utils

# The rig asks apt for packages that are not installed, in the versions that a mirror has now.
update=(apt-get -q update)
((EUID == 0)) || update=(sudo -n "${update[@]}")
"${update[@]}" || echo "xen-install: the package lists are not all up to date; the rig takes what is known"
