// A Linux guest whose backend maps nothing but the rings: what is read and written goes through GNTTABOP_copy.

import assert from 'node:assert/strict';
import { checkRaw, diskBefore, diskScript } from './guest-disk.ts';
import { PLACES, xenTest } from './rig/xen-test.ts';

const SEED = 75;

const SCRIPT = `
${diskScript('vda', SEED)}
step 'entropy'
[ "$(dd if=/dev/hwrng bs=64 count=4 status=none | wc -c)" = 256 ]`;

xenTest('a Linux guest is served by copies alone', async (xen) => {
  const image = await xen.put('copied.img', diskBefore(SEED));
  const guest = await xen.guest('copied', SCRIPT);
  const backend = await xen.backend(
    ...['--domain', `${guest.id}`, '--access', 'copy'],
    ...['--mmio', PLACES[0], '--disk', image],
    ...['--mmio', PLACES[1], '--rng'],
  );
  await guest.start();
  for (const step of [/whole of vda/, /file system/, /entropy/])
    await guest.says(new RegExp(`^GRANTIO step .*${step.source}`));
  await guest.done();
  assert.equal(await backend.ended(), 0, 'the backend, which ends with its guest');
  checkRaw(await xen.get(image), SEED);
  await xen.run(`e2fsck -fn ${image}`);
});
