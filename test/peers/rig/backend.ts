// The backends of the guests' devices: ours, and QEMU's own, with which a rig shows that it is right itself.

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
  const program = grantio(rig, socket, ...words, '--json');
  await program.says(/^\{"devices":/);
  return program;
}

/** The arguments with which QEMU finds what `grantio serve WORDS` serves at `socket`, as it prints them itself. */
export async function qemuArguments(
  rig: Rig,
  socket: string,
  ...words: readonly string[]
): Promise<string[]> {
  const program = grantio(rig, socket, ...words, '--print-qemu-args', '256M', '--json');
  const [line] = await program.says(/^\[.*\]$/);
  await program.ended();
  return JSON.parse(line) as string[];
}

/** The words of `grantio serve` for a disk. */
export function diskWords(disk: string, queues: number): string[] {
  return ['blk', '--disk', disk, '--queues', `${queues}`];
}

function grantio(rig: Rig, socket: string, ...words: readonly string[]): Program {
  return rig.start('grantio', process.execPath, GRANTIO, 'serve', ...words, '--socket-path', socket);
}

export const grantioServe: DiskBackend = {
  name: 'grantio serve',
  needs: [],
  serve: (rig, disk, socket, queues) => serve(rig, socket, ...diskWords(disk, queues)),
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
