#!/usr/bin/env bash
# Installs the Debian packages that hold the programs of test/peers. `npm run peers:install` calls it.
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/install-packages.sh" peers-install \
  "The programs are libnbd's (nbdinfo, nbdcopy), qemu-img, qemu-io, fio, mke2fs, nbdkit, dtc, xenstore-ls,\
 qemu-system-x86_64, qemu-storage-daemon, linux.uml and a static busybox." \
  libnbd-bin qemu-utils fio e2fsprogs nbdkit device-tree-compiler xenstore-utils \
  qemu-system-x86 qemu-system-common user-mode-linux linux-image-amd64 busybox-static
