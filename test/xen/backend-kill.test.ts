// The backend of a running Linux guest is killed with -9 in the middle of writes and started again: the guest sees
// no error, and every byte is as it was written. A second backend that is started while the first one lives is refused.

import assert from 'node:assert/strict';
import { diskBefore } from './guest-disk.ts';
import { PLACES, xenTest } from './rig/xen-test.ts';

const SEED = 73;
const ROUNDS = 24;
const BLOCK = 64 * 2 ** 10;

/** Each round copies the first block to a place of its own and reads it back past the page cache. */
const SCRIPT = `
dd if=/dev/vda of=/tmp/pattern bs=64k count=1 status=none
for round in $(seq ${ROUNDS}); do
  tell "round $round"
  dd if=/tmp/pattern of=/dev/vda bs=4k seek=$((round * 16)) count=16 conv=notrunc,fsync status=none
  echo 3 >/proc/sys/vm/drop_caches
  dd if=/dev/vda bs=4k skip=$((round * 16)) count=16 status=none | cmp - /tmp/pattern
done`;

/** Rounds in which the backend is killed. */
const KILLS = [3, 11];

xenTest('C1: the backend is killed with -9 twice while a guest writes, and goes on', async (xen) => {
  const image = await xen.put('killed.img', diskBefore(SEED));
  const guest = await xen.guest('killed', SCRIPT);
  const words = ['--domain', `${guest.id}`, '--mmio', PLACES[0], '--disk', image];
  let backend = await xen.backend(...words);
  // Another device, so that it is not the lock of the image which keeps the second one out.
  const second = `--domain ${guest.id} --mmio ${PLACES[1]} --rng`;
  const said = await xen.run(`node bin/grantio xen-backend ${second} || [ $? = 1 ]`);
  assert.match(said, new RegExp(`domain ${guest.id} is served by another .*\\(process ${backend.pid}\\)`));
  await guest.start();
  for (const round of KILLS) {
    await guest.says(new RegExp(`^GRANTIO round ${round}$`));
    await backend.signal('KILL');
    assert.notEqual(await backend.ended(), 0);
    backend = await xen.backend(...words);
    await guest.says(/^GRANTIO round/);
  }
  await guest.done();
  assert.equal(await backend.ended(), 0);

  const after = await xen.get(image);
  const pattern = diskBefore(SEED).subarray(0, BLOCK);
  for (let round = 1; round <= ROUNDS; round++)
    assert.ok(after.subarray(round * BLOCK, (round + 1) * BLOCK).equals(pattern), `round ${round}`);
});
