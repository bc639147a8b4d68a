// nbdcopy of libnbd on grantio's disks: copies out, in, and from one disk to the other.

import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { EXT4_SIZE, ext4Image, seededBytes, sha256 } from './content.ts';
import { peerTest } from './peer.ts';

peerTest('nbdcopy copies an ext4 image out, in, and to another disk', ['nbdcopy', 'mke2fs'], async (peer) => {
  const image = await ext4Image(peer, 'files.img');
  const before = sha256(image);
  const target = peer.blank('target.img', EXT4_SIZE);
  await peer.serve([image, target], 'nbdcopy --flush "$uri" "nbd+unix:///xvdb?socket=$unixsocket"');
  assert.equal(sha256(target), before, 'copied from disk to disk');

  await peer.serve([image], 'nbdcopy "$uri" out.img');
  assert.equal(sha256(peer.path('out.img')), before, 'copied out');
  assert.equal(sha256(image), before, 'the image changed by being read');

  const blank = peer.blank('in.img', EXT4_SIZE);
  await peer.serve([blank], 'nbdcopy --flush out.img "$uri"');
  assert.equal(sha256(blank), before, 'copied in');
});

peerTest('nbdcopy copies through several connections', ['nbdcopy'], async (peer) => {
  const source = peer.path('source.img');
  // A length that is no multiple of 4 KiB, let alone of nbdcopy's requests.
  writeFileSync(source, seededBytes(8 * 2 ** 20 + 512, 7));
  const disk = peer.blank('disk.img', 8 * 2 ** 20 + 512);
  await peer.serve(
    [disk],
    `nbdcopy --connections=4 --threads=4 --requests=16 --flush source.img "$uri"
     nbdcopy --connections=8 --threads=2 --requests=64 --request-size=65536 "$uri" out.img`,
  );
  assert.equal(sha256(disk), sha256(source), 'copied in');
  assert.equal(sha256(peer.path('out.img')), sha256(source), 'copied out');
});

peerTest('nbdcopy writes zeroes over what was there', ['nbdcopy'], async (peer) => {
  const size = 4 * 2 ** 20;
  const disk = peer.path('disk.img');
  writeFileSync(disk, seededBytes(size, 8));
  // Half of it a hole, which nbdcopy makes with write-zeroes requests.
  const half = peer.blank('half.img', size);
  writeFileSync(half, seededBytes(size / 2, 9), { flag: 'r+' });
  await peer.serve([disk], 'nbdcopy --flush half.img "$uri"');
  assert.equal(sha256(disk), sha256(half));
});
