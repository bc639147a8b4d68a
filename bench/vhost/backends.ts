// The programs that are compared, and with which words they are started. All that depends on a program's
// command line is here. Before comparison.ts.

import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Job } from './jobs.ts';

const GRANTIO = fileURLToPath(new URL('../../../bin/grantio', import.meta.url));
const QEMU = 'qemu-storage-daemon';

/** The disk a backend is to serve. */
export interface Disk {
  readonly socket: string;
  readonly image: string;
  readonly direct: boolean;
}

/** A program with its arguments. */
export type Command = readonly [program: string, ...words: string[]];

/** One of the programs, in one way of running it. */
export interface Backend {
  readonly id: string;
  readonly name: string;
  /** Whether it is measured at this job. */
  takes(job: Job): boolean;
  /** How to serve a disk. */
  command(disk: Disk): Command;
  /** How to serve many in one process, if it can; its configuration may be written to `folder`. */
  readonly commandForMany?: (disks: readonly Disk[], folder: string) => Command;
}

function qemu(id: string, name: string, aio: string, ownThread: boolean): Backend {
  const commandForMany = (disks: readonly Disk[]): Command => [
    QEMU,
    ...(ownThread ? ['--object', 'iothread,id=thread'] : []),
    ...disks.flatMap(({ image, socket, direct }, i) => [
      '--blockdev',
      `file,node-name=disk${i},filename=${image},aio=${aio},cache.direct=${direct ? 'on' : 'off'}`,
      '--export',
      `vhost-user-blk,id=export${i},node-name=disk${i},addr.type=unix,addr.path=${socket},writable=on${ownThread ? ',iothread=thread' : ''}`,
    ]),
  ];
  return { id, name, takes: () => true, command: (disk) => commandForMany([disk]), commandForMany };
}

/** Our own, as a user starts it, with more words. */
function ours(
  id: string,
  name: string,
  takes: (job: Job) => boolean,
  words: (disk: Disk) => readonly string[] = () => [],
): Backend {
  const command = (disk: Disk): Command => [
    process.execPath,
    GRANTIO,
    ...['serve', 'blk', '--socket-path', disk.socket, '--disk', disk.image, '--workers', '1'],
    ...(disk.direct ? ['--direct'] : []),
    ...words(disk),
  ];
  const commandForMany = (disks: readonly Disk[], folder: string): Command => {
    const devices = disks.map(({ socket, image }, i) => ({
      type: 'blk',
      name: `disk${i}`,
      'socket-path': socket,
      disk: image,
    }));
    const config = join(folder, 'devices.json');
    writeFileSync(config, JSON.stringify({ devices }));
    return [process.execPath, GRANTIO, 'serve', '--config', config, '--workers', '1'];
  };
  return { id, name, takes, command, commandForMany };
}

/** What everything is compared with. */
export const REFERENCE = qemu('qemu', 'qemu-storage-daemon, io_uring', 'io_uring', true);
/** As it is without options. */
export const QEMU_DEFAULT = qemu('qemu-default', 'qemu-storage-daemon, default', 'threads', false);
export const OURS = ours('grantio', 'grantio', () => true);
export const OURS_MAPPED = ours(
  'grantio-mapped',
  'grantio, image mapped',
  ({ direct }) => !direct,
  () => ['--engine', 'mapped'],
);
export const OURS_NOT_POLLING = ours(
  'grantio-no-polling',
  'grantio, no polling',
  ({ interrupts }) => interrupts,
  () => ['--poll-us', '0'],
);
/** What it costs to report every request and its buffers; its own file of events is in the image's folder. */
export const OURS_TRACED = ours(
  'grantio-traced',
  'grantio, traced',
  ({ size, direct, interrupts }) => size === 4096 && !direct && !interrupts,
  ({ image }) => ['--trace', `${image}.trace`],
);

/** The same design in C: preadv and pwritev on a cached image, io_uring on one with O_DIRECT. */
export function twin(program: string): Backend {
  const command = ({ socket, image, direct }: Disk): Command => [
    program,
    ...['--socket', socket, '--disk', image],
    ...(direct ? ['--direct', '--io-uring'] : []),
  ];
  return { id: 'twin', name: 'the same design in C', takes: () => true, command };
}

/** QEMU's version, in its own words; throws when it is not installed. */
export function qemuVersion(): string {
  const { error, stdout } = spawnSync(QEMU, ['--version'], { encoding: 'utf8' });
  if (error) throw new Error(`${QEMU} cannot be started; on Debian it is in the package qemu-system-common`);
  return stdout.split('\n')[0];
}

/** Whether this checkout can serve disks: its command says that it knows of sockets. */
export function canServe(): boolean {
  const { stdout } = spawnSync(process.execPath, [GRANTIO, 'serve', 'blk', '--help'], { encoding: 'utf8' });
  return stdout.includes('--socket-path');
}
