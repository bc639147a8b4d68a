// User-Mode Linux on a vhost-user disk: a real kernel's driver, without an emulator in between.

import { type DiskBackend, grantioServe, storageDaemon } from './rig/backend.ts';
import { checkDisk, diskScript, makeDisk, PATTERN } from './rig/disk-work.ts';
import { E2FSCK } from './rig/needs.ts';
import { rigTest } from './rig/rig.ts';
import { startUml, UML_NEEDS } from './rig/uml.ts';

const VIRTIO_ID_BLOCK = 2;

function umlTest(title: string, backend: DiskBackend, queues: number): void {
  rigTest(`${title} ${backend.name}`, [...UML_NEEDS, E2FSCK, ...backend.needs], async (rig) => {
    const [disk, socket] = [makeDisk(rig), rig.path('socket')];
    const program = await backend.serve(rig, disk, socket, queues);
    const guest = startUml(rig, socket, VIRTIO_ID_BLOCK, {
      modules: ['virtio_blk'],
      script: diskScript(1),
      files: new Map([['pattern', PATTERN]]),
    });
    await checkDisk(rig, guest, disk, 1);
    await program.end();
  });
}

umlTest('User-Mode Linux: blk,', grantioServe, 1);
umlTest('User-Mode Linux: blk, 4 queues, of which its one processor uses one,', grantioServe, 4);
umlTest('User-Mode Linux: blk, the rig itself,', storageDaemon, 1);
