// A vhost-user disk behind an IOMMU that QEMU emulates: the guest's kernel maps each request's pages for the device
// and takes them away after, and the backend can reach nothing else.

import assert from 'node:assert/strict';
import { serve, storageDaemon } from './rig/backend.ts';
import { checkDisk, diskScript, makeDisk, PATTERN } from './rig/disk-work.ts';
import { E2FSCK, STORAGE_DAEMON } from './rig/needs.ts';
import { QEMU_NEEDS, startLinux } from './rig/qemu.ts';
import { rigTest } from './rig/rig.ts';

const QUEUES = 2;
const IOMMU = ['-device', 'intel-iommu,intremap=off,device-iotlb=on'];
const DEVICE = `vhost-user-blk-pci,num-queues=${QUEUES},iommu_platform=on,ats=on,disable-legacy=on`;

/** What a request's pages were mapped for is gone when the request is over, not some time later. */
const PARAMETERS = 'intel_iommu=on iommu.strict=1';

const SCRIPT = `
step 'the IOMMU'
tell "group $(basename $(readlink -f /sys/block/vda/device/../iommu_group))"
tell "access platform $(cut -c 34 /sys/block/vda/device/features)"
${diskScript(QUEUES)}`;

rigTest('QEMU: blk behind an emulated IOMMU, grantio serve', [...QEMU_NEEDS, E2FSCK], async (rig) => {
  const [disk, socket] = [makeDisk(rig), rig.path('socket')];
  const words = ['--disk', disk, '--queues', `${QUEUES}`, '--restricted'];
  const backend = await serve(rig, socket, 'blk', ...words);
  const machine = { socket, device: DEVICE, processors: QUEUES, more: IOMMU };
  const files = {
    modules: ['virtio_blk', 'crc32c_generic', 'ext4'],
    script: SCRIPT,
    files: new Map([['pattern', PATTERN]]),
  };
  const guest = startLinux(rig, machine, files, PARAMETERS);
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
    const machine = { socket, device: DEVICE, more: IOMMU };
    const guest = startLinux(rig, machine, { modules: ['virtio_blk'], script: '' });
    await guest.says(/iommu_platform=true is not supported by the device/);
    assert.equal((await guest.ended()).status, 1);
    await backend.end();
  },
);
