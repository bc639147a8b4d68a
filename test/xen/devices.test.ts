// One Linux guest with all devices, served by one `grantio xen-backend`: Linux's own drivers, which reach the backend
// by grants only (XEN_VIRTIO_FORCE_GRANT), on a real Xen.

import assert from 'node:assert/strict';
import { checkRaw, diskBefore, diskScript } from './guest-disk.ts';
import { PLACES, xenTest } from './rig/xen-test.ts';

const SEED = 71;

const SCRIPT = `
${diskScript('vda', SEED)}
step 'entropy'
grep -q ^virtio_rng /sys/class/misc/hw_random/rng_current
dd if=/dev/hwrng of=/tmp/random bs=64 count=16 status=none
[ "$(wc -c </tmp/random)" = 1024 ]
[ "$(gzip </tmp/random | wc -c)" -gt 1000 ]
step 'a shell on the console'
setsid sh -c 'PS1= exec sh -i <>/dev/hvc1 >&0 2>&1'
`;

xenTest('blk, rng and console of a Linux guest that only grants', async (xen) => {
  const image = await xen.put('devices.img', diskBefore(SEED));
  const guest = await xen.guest('devices', SCRIPT);
  const backend = await xen.backend(
    ...['--domain', `${guest.id}`],
    ...['--mmio', PLACES[0], '--disk', image],
    ...['--mmio', PLACES[1], '--rng'],
    ...['--mmio', PLACES[2], '--console', 'pty:/run/devices.tty'],
  );
  await guest.start();
  await guest.says(/Using dom0 as backend/);
  for (const step of [/whole of vda/, /file system/, /entropy/, /console/])
    await guest.says(new RegExp(`^GRANTIO step .*${step.source}`));

  const said = await xen.run(`
    exec 3<>/run/devices.tty
    echo 'echo $((6 * 7)) from $(uname -s)' >&3
    until [[ "$line" == *'42 from'* ]]; do read -r -t 120 -u 3 line; echo "$line"; done
    echo exit >&3`);
  assert.match(said, /^42 from Linux\r?$/m, 'what the shell answered');
  await guest.done();
  assert.equal(await backend.ended(), 0, 'the backend, which ends with its guest');
  checkRaw(await xen.get(image), SEED);
  await xen.run(`e2fsck -fn ${image}`);
});
