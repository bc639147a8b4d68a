// The backends of the guests' devices: ours, and QEMU's own, with which a rig shows that it is right itself.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { statSync, watch } from 'node:fs';
import { dirname } from 'node:path';
import { GRANTIO } from '../../support/grantio.ts';
import { type Need, STORAGE_DAEMON } from './needs.ts';
import type { Program } from './program.ts';
import type { Rig } from './rig.ts';

/** What a disk is served by. */
export interface DiskBackend {
  readonly name: string;
  readonly needs: readonly Need[];
  /** Serves the image `disk` with `queues` queues at `socket`. Resolves when guests can connect. */
  serve(rig: Rig, disk: string, socket: string, queues: number): Promise<Program>;
}

/** Serves a device with `grantio serve WORDS` at `socket`. Resolves when guests can connect. */
export async function serve(rig: Rig, socket: string, ...words: readonly string[]): Promise<Program> {
  const before = identity(socket);
  const folder = watch(dirname(socket));
  const program = rig.start('grantio', process.execPath, GRANTIO, 'serve', ...words, '--socket-path', socket);
  const ended = program.ended().then(({ status }) => assert.fail(`grantio serve ended with ${status}`));
  // A dead server's socket may be there; the new one takes its place when it can be connected to.
  while (identity(socket) === before || identity(socket) === undefined)
    await Promise.race([once(folder, 'change'), ended]);
  ended.catch(() => undefined);
  folder.close();
  return program;
}

/** What tells a file from another one that takes its name. */
function identity(path: string): string | undefined {
  const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
  return stat && `${stat.ino} ${stat.birthtimeNs}`;
}

export const grantioServe: DiskBackend = {
  name: 'grantio serve',
  needs: [],
  serve: (rig, disk, socket, queues) => serve(rig, socket, 'blk', '--disk', disk, '--queues', `${queues}`),
};

/** QEMU's own backend: a rig that fails with it is a rig that is wrong. */
export const storageDaemon: DiskBackend = {
  name: 'qemu-storage-daemon',
  needs: [STORAGE_DAEMON],
  async serve(rig, disk, socket, queues) {
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
  },
};
