// QEMU with Debian's stock kernel on a vhost-user disk: virtio over PCI, with one queue and with one for each
// processor; and with a queue that holds fewer descriptors than the requests that the guest sends have.

import { type DiskBackend, diskWords, grantioServe, qemuArguments } from './rig/backend.ts';
import { checkDisk, diskScript, makeDisk, PATTERN } from './rig/disk-work.ts';
import { E2FSCK } from './rig/needs.ts';
import { QEMU_NEEDS, startLinux } from './rig/qemu.ts';
import { rigTest } from './rig/rig.ts';

/** @param option added to the disk's -device */
function qemuTest(title: string, backend: DiskBackend, queues: number, option = ''): void {
  rigTest(`${title} ${backend.name}`, [...QEMU_NEEDS, E2FSCK, ...backend.needs], async (rig) => {
    const [disk, socket] = [makeDisk(rig), rig.path('socket')];
    const program = await backend.serve(rig, disk, socket, queues);
    const printed = await qemuArguments(rig, socket, ...diskWords(disk, queues));
    const words = printed.map((word) => word.replace('vhost-user-blk-pci', `$&${option}`));
    const files = {
      modules: ['virtio_blk', 'crc32c_generic', 'ext4'],
      script: diskScript(queues),
      files: new Map([['pattern', PATTERN]]),
    };
    const guest = startLinux(rig, words, files);
    await checkDisk(rig, guest, disk, queues);
    await program.end();
  });
}

qemuTest('QEMU: blk, 1 queue,', grantioServe, 1);
qemuTest('QEMU: blk, 4 queues,', grantioServe, 4);
// Linux goes by seg_max, which is 126, and puts up to 128 descriptors into an indirect table.
qemuTest('QEMU: blk, 1 queue of 16 descriptors,', grantioServe, 1, ',queue-size=16');
