// A vhost-user disk behind an IOMMU that QEMU emulates: the guest's kernel maps each request's pages for the device
// and takes them away after, and the backend can reach nothing else.

import assert from 'node:assert/strict';
import { diskWords, qemuArguments, serve, storageDaemon } from './rig/backend.ts';
import { checkDisk, diskScript, makeDisk, PATTERN } from './rig/disk-work.ts';
import { E2FSCK, STORAGE_DAEMON } from './rig/needs.ts';
import { QEMU_NEEDS, startLinux } from './rig/qemu.ts';
import { rigTest } from './rig/rig.ts';

const QUEUES = 2;

/** What a request's pages were mapped for is gone when the request is over, not some time later. */
const PARAMETERS = 'intel_iommu=on iommu.strict=1';

const SCRIPT = `
step 'the IOMMU'
tell "group $(basename $(readlink -f /sys/block/vda/device/../iommu_group))"
tell "access platform $(cut -c 34 /sys/block/vda/device/features)"
${diskScript(QUEUES)}`;

rigTest('QEMU: blk behind an emulated IOMMU, grantio serve', [...QEMU_NEEDS, E2FSCK], async (rig) => {
  const [disk, socket] = [makeDisk(rig), rig.path('socket')];
  const device = [...diskWords(disk, QUEUES), '--restricted'];
  const backend = await serve(rig, socket, ...device);
  const words = await qemuArguments(rig, socket, ...device);
  const files = {
    modules: ['virtio_blk', 'crc32c_generic', 'ext4'],
    script: SCRIPT,
    files: new Map([['pattern', PATTERN]]),
  };
  const guest = startLinux(rig, words, files, PARAMETERS);
  await guest.says(/^GRANTIO group \d+/);
  await guest.says(/^GRANTIO access platform 1/);
  await checkDisk(rig, guest, disk, QUEUES);
  await backend.end();
});

rigTest(
  'QEMU: an emulated IOMMU refuses qemu-storage-daemon',
  [...QEMU_NEEDS, STORAGE_DAEMON],
  async (rig) => {
    const [disk, socket] = [makeDisk(rig), rig.path('socket')];
    const backend = await storageDaemon.serve(rig, disk, socket, QUEUES);
    const words = await qemuArguments(rig, socket, ...diskWords(disk, QUEUES), '--restricted');
    const guest = startLinux(rig, words, { modules: ['virtio_blk'], script: '' });
    await guest.says(/iommu_platform=true is not supported by the device/);
    assert.equal((await guest.ended()).status, 1);
    await backend.end();
  },
);
