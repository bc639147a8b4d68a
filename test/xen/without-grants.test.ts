// A Linux guest whose kernel is not told to grant (no XEN_VIRTIO_FORCE_GRANT), on a real Xen: `--grants=off` serves it
// from all of its memory, and a backend that requires grants touches none of it.

import assert from 'node:assert/strict';
import { checkRaw, diskBefore, diskScript } from './guest-disk.ts';
import { PLACES, xenTest } from './rig/xen-test.ts';

const SEED = 76;

xenTest('a guest without grants is served by --grants=off, and by nothing else', async (xen) => {
  const image = await xen.put('open.img', diskBefore(SEED));
  const open = await xen.guest('open', diskScript('vda', SEED), 'vmlinux-without-grants');
  const openBackend = await xen.backend(
    ...['--domain', `${open.id}`, '--grants=off'],
    ...['--mmio', PLACES[0], '--disk', image],
  );
  const refusedImage = await xen.put('refused.img', diskBefore(1));
  const refused = await xen.guest('refused', 'true', 'vmlinux-without-grants');
  const strict = await xen.backend(
    ...['--domain', `${refused.id}`],
    ...['--mmio', PLACES[0], '--disk', refusedImage],
  );
  await refused.start();
  await strict.says(/warn {2}.*: broken by its driver.*bit 63 is clear: a plain address, not a grant/);
  await open.start();
  await open.done();
  assert.equal(await openBackend.ended(), 0, 'the backend of the guest that runs');
  checkRaw(await xen.get(image), SEED);
  await refused.destroy();
  assert.equal(await strict.ended(), 0, 'the backend of the guest that is refused');
});
