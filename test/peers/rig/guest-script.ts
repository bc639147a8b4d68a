// The first process of a guest, a shell script. It says how far it is in lines that start with "GRANTIO":
// "step …" as a step begins, "failed …" when a command of the step failed, "done" at the end, and between them
// whatever the script tells.

/** The script that loads `modules` in their order, runs `work`, and switches the guest off. */
export function guestScript(modules: readonly string[], work: string): string {
  return `#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
set -e -o pipefail
step='start'

tell() { echo "GRANTIO $*"; }
step() { step="$*"; tell "step $*"; }
finish() {
  status=$?
  set +e
  if [ "$status" = 0 ]; then
    tell done
  else
    dmesg | tail -n 40
    tell "failed in: $step (status $status)"
  fi
  poweroff -f
}
trap finish EXIT

mount -t proc none /proc
mount -t sysfs none /sys
mount -t devtmpfs none /dev
${modules.map((name) => `insmod /modules/${name}\n`).join('')}
${work}
`;
}
