// QEMU with Debian's stock kernel on a vhost-user disk: virtio over PCI, with one queue and with one for each
// processor.

import { type DiskBackend, storageDaemon } from './rig/backend.ts';
import { checkDisk, diskScript, makeDisk, PATTERN } from './rig/disk-work.ts';
import { E2FSCK, type Need, STORAGE_DAEMON } from './rig/needs.ts';
import { QEMU_NEEDS, startLinux } from './rig/qemu.ts';
import { rigTest } from './rig/rig.ts';

function qemuTest(title: string, needs: readonly Need[], backend: DiskBackend, queues: number): void {
  rigTest(title, [...QEMU_NEEDS, E2FSCK, ...needs], async (rig) => {
    const [disk, socket] = [makeDisk(rig), rig.path('socket')];
    const program = await backend(rig, disk, socket, queues);
    const device = `vhost-user-blk-pci,num-queues=${queues}`;
    const guest = startLinux(
      rig,
      { socket, device, processors: queues },
      {
        modules: ['virtio_blk', 'crc32c_generic', 'ext4'],
        script: diskScript(queues),
        files: new Map([['pattern', PATTERN]]),
      },
    );
    await checkDisk(rig, guest, disk, queues);
    program.terminate();
    await program.ended();
  });
}

for (const queues of [1, 4])
  qemuTest(
    `QEMU on a disk of qemu-storage-daemon, queues: ${queues}`,
    [STORAGE_DAEMON],
    storageDaemon,
    queues,
  );
