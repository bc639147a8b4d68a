// Two Linux guests at once on a real Xen. One is killed in the middle of its writes; the other notices nothing, and
// nothing of the dead one is left: a domain whose grants are still mapped stays in Xen's list under the name "(null)".
// The neighbour's disk goes past the page cache of the first domain, straight from and into what is mapped of the guest.

import assert from 'node:assert/strict';
import { checkRaw, diskBefore, diskScript, writeForever } from './guest-disk.ts';
import { PLACES, xenTest } from './rig/xen-test.ts';

const SEED = 72;

xenTest('a guest is killed in the middle of its writes, its neighbour works on', async (xen) => {
  const doomedImage = await xen.put('doomed.img', diskBefore(1));
  const doomed = await xen.guest('doomed', writeForever('vda', 64));
  const doomedBackend = await xen.backend(
    ...['--domain', `${doomed.id}`],
    ...['--mmio', PLACES[0], '--disk', doomedImage],
  );
  await doomed.start();
  const image = await xen.put('neighbour.img', diskBefore(SEED));
  const neighbour = await xen.guest('neighbour', diskScript('vda', SEED));
  const words = ['--domain', `${neighbour.id}`, '--direct', '--mmio', PLACES[0], '--disk', image];
  const backend = await xen.backend(...words);
  await doomed.says(/^GRANTIO round/);
  await neighbour.start();
  await neighbour.says(/^GRANTIO step write/);

  await doomed.destroy();
  assert.equal(await doomedBackend.ended(), 0, 'the backend of the guest that was killed');
  await xen.expectGone(doomed);

  await neighbour.done();
  assert.equal(await backend.ended(), 0, 'the backend of the neighbour');
  checkRaw(await xen.get(image), SEED);
  await xen.run(`e2fsck -fn ${image}`);
});
