// User-Mode Linux on a vhost-user disk: a real kernel's driver, without an emulator in between.

import { type DiskBackend, storageDaemon } from './rig/backend.ts';
import { checkDisk, diskScript, makeDisk, PATTERN } from './rig/disk-work.ts';
import { E2FSCK, type Need, STORAGE_DAEMON } from './rig/needs.ts';
import { rigTest } from './rig/rig.ts';
import { startUml, UML_NEEDS } from './rig/uml.ts';

const VIRTIO_ID_BLOCK = 2;

function umlTest(title: string, needs: readonly Need[], backend: DiskBackend, queues: number): void {
  rigTest(title, [...UML_NEEDS, E2FSCK, ...needs], async (rig) => {
    const [disk, socket] = [makeDisk(rig), rig.path('socket')];
    const program = await backend(rig, disk, socket, queues);
    const guest = startUml(rig, socket, VIRTIO_ID_BLOCK, {
      modules: ['virtio_blk'],
      script: diskScript(1),
      files: new Map([['pattern', PATTERN]]),
    });
    await checkDisk(rig, guest, disk, 1);
    program.terminate();
    await program.ended();
  });
}

umlTest(
  'User-Mode Linux on a disk of qemu-storage-daemon (the rig itself)',
  [STORAGE_DAEMON],
  storageDaemon,
  1,
);
