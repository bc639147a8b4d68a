// e2fsprogs on grantio's disks: a file system that went through the guest is whole, with every file in it.

import assert from 'node:assert/strict';
import { EXT4_SIZE, ext4Image, seededBytes, sha256, wrongFiles } from './content.ts';
import { peerTest } from './peer.ts';
import { writeFileSync } from 'node:fs';

const PROGRAMS = ['mke2fs', 'mkfs.ext4', 'fsck.ext4', 'debugfs', 'nbdcopy'];

peerTest('an ext4 file system written through the guest passes fsck', PROGRAMS, async (peer) => {
  const image = await ext4Image(peer, 'files.img');
  // Not blank: whatever is not written shows as a damaged file system.
  const disk = peer.path('disk.img');
  writeFileSync(disk, seededBytes(EXT4_SIZE, 31));
  await peer.serve(
    [disk],
    `nbdcopy --connections=4 --flush files.img "$uri"
     nbdcopy "$uri" back.img
     fsck.ext4 -fn back.img`,
  );
  await peer.run('fsck.ext4', '-fn', disk);
  assert.equal(sha256(disk), sha256(image), 'on the disk');
  assert.equal(sha256(peer.path('back.img')), sha256(image), 'read back');
  assert.deepEqual(await wrongFiles(peer, disk), [], 'files that differ');
});

peerTest('an empty ext4 file system written through the guest passes fsck', PROGRAMS, async (peer) => {
  const image = peer.blank('empty.img', EXT4_SIZE);
  await peer.run('mkfs.ext4', '-q', '-F', image);
  const disk = peer.blank('disk.img', EXT4_SIZE);
  await peer.serve(
    [disk],
    `nbdcopy --destination-is-zero --flush empty.img "$uri"
     nbdcopy "$uri" back.img
     fsck.ext4 -fn back.img`,
  );
  await peer.run('fsck.ext4', '-fn', disk);
  assert.equal(sha256(disk), sha256(image));
});
