// The backends that a guest's disk can be served by.

import type { Program } from './program.ts';
import type { Rig } from './rig.ts';

/** Serves the image `disk` with `queues` queues at `socket`. Resolves when guests can connect. */
export type DiskBackend = (rig: Rig, disk: string, socket: string, queues: number) => Promise<Program>;

/** QEMU's own backend: a rig that fails with it is a rig that is wrong. */
export const storageDaemon: DiskBackend = async (rig, disk, socket, queues) => {
  const address = `addr.type=unix,addr.path=${socket}`;
  const program = rig.start(
    'storage-daemon',
    'qemu-storage-daemon',
    ...['--blockdev', `driver=file,node-name=disk,filename=${disk}`],
    ...['--export', `vhost-user-blk,id=export,node-name=disk,${address},writable=on,num-queues=${queues}`],
    // The monitor greets when all words before it have had their effect.
    ...['--chardev', 'stdio,id=stdio', '--monitor', 'stdio'],
  );
  await program.says(/"QMP"/);
  return program;
};
