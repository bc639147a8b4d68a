// QEMU with Debian's stock kernel on a vhost-user source of entropy.

import assert from 'node:assert/strict';
import { qemuArguments, serve } from './rig/backend.ts';
import { QEMU_NEEDS, startLinux } from './rig/qemu.ts';
import { rigTest } from './rig/rig.ts';

const LENGTH = 64 * 2 ** 10;

const SCRIPT = `
step 'random bytes'
tell "source $(cat /sys/class/misc/hw_random/rng_current)"
dd if=/dev/hwrng of=/first bs=1k count=64 iflag=fullblock status=none
dd if=/dev/hwrng of=/second bs=61 count=100 iflag=fullblock status=none
tell "lengths $(cat /first | wc -c) $(cat /second | wc -c)"
tell "values $(hexdump -v -e '1/1 "%02x\\n"' /first | sort -u | wc -l)"
tell "compressed $(gzip -c /first | wc -c)"
tell "alike $(cmp -n 6100 /first /second >/dev/null && echo yes || echo no)"`;

rigTest('QEMU: rng, grantio serve', QEMU_NEEDS, async (rig) => {
  const socket = rig.path('socket');
  const backend = await serve(rig, socket, 'rng');
  const words = await qemuArguments(rig, socket, 'rng');
  const guest = startLinux(rig, words, { modules: ['virtio_rng'], script: SCRIPT });
  await guest.says(/^GRANTIO source virtio_rng/);
  await guest.says(new RegExp(`^GRANTIO lengths ${LENGTH} 6100$`));
  await guest.says(/^GRANTIO values 256$/);
  const [, compressed] = await guest.says(/^GRANTIO compressed (\d+)/);
  assert.ok(Number(compressed) >= LENGTH, `${LENGTH} bytes became ${compressed}`);
  await guest.says(/^GRANTIO alike no/);
  await guest.says(/^GRANTIO done/);
  assert.deepEqual(await guest.ended(), { status: 0, signal: null });
  await backend.end();
});
