// qemu-img on grantio's disks: info, conversion from and to qcow2, and comparison.

import assert from 'node:assert/strict';
import { readFileSync, writeFileSync } from 'node:fs';
import { seededBytes, sha256 } from './content.ts';
import { peerTest } from './peer.ts';

const SIZE = 8 * 2 ** 20;

/** Data, a hole, data, a hole: what a converter sees of a used disk. */
function usedDisk(): Buffer {
  const disk = Buffer.alloc(SIZE);
  seededBytes(2 * 2 ** 20 + 3 * 512, 11).copy(disk, 512);
  seededBytes(2 ** 20, 12).copy(disk, 5 * 2 ** 20);
  return disk;
}

peerTest('qemu-img tells the size of a disk', ['qemu-img'], async (peer) => {
  const disk = peer.path('disk.img');
  writeFileSync(disk, usedDisk());
  await peer.serve(
    [disk],
    `qemu-img info --output=json "$uri" >info.json
     qemu-img map --output=json -f raw "$uri"`,
  );
  const info = JSON.parse(readFileSync(peer.path('info.json'), 'utf8')) as Record<string, unknown>;
  assert.equal(info['virtual-size'], SIZE);
  assert.equal(info['format'], 'raw');
});

peerTest('qemu-img converts a disk to qcow2 and back and compares', ['qemu-img'], async (peer) => {
  const disk = peer.path('disk.img');
  writeFileSync(disk, usedDisk());
  const before = sha256(disk);
  await peer.serve(
    [disk],
    `qemu-img convert -f raw -O qcow2 "$uri" out.qcow2
     qemu-img convert -f raw -O raw -m 8 -W "$uri" out.img
     qemu-img compare -f raw -F qcow2 "$uri" out.qcow2`,
  );
  assert.equal(sha256(peer.path('out.img')), before, 'converted to raw');
  assert.equal(sha256(disk), before, 'the image changed by being read');
  await peer.run('qemu-img', 'check', 'out.qcow2');

  // Not blank, so that zeroes have to be written as well.
  const target = peer.path('target.img');
  writeFileSync(target, seededBytes(SIZE, 13));
  await peer.serve(
    [target],
    `if qemu-img compare -f qcow2 -F raw out.qcow2 "$uri"; then exit 1; fi
     qemu-img convert -n -f qcow2 -O raw -m 8 -W out.qcow2 "$uri"
     qemu-img compare -f qcow2 -F raw out.qcow2 "$uri"`,
  );
  assert.equal(sha256(target), before, 'converted from qcow2');
});
