// What a request of an unmodified Linux guest costs with each way to reach its grants, beside Xen's blkback and QEMU's
// virtio-blk (docs/ways-to-reach-grants.md). Guests measure their disks in turn; blkback serves a disk of each, with
// which their others are compared. Runs in the first domain of the rig. After guests.ts.
//   npm run bench:xen

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { median } from '../figures.ts';
import { LOADS, timesOf } from './guest-job.ts';
import { type Disk, run } from './guests.ts';

const BLKBACK = { disk: 'xvda', blkback: { device: 51712, persistent: true } } as const;

interface MeasuredGuest {
  readonly name: string;
  readonly kernel: string;
  readonly disks: readonly (Disk & { readonly title?: string })[];
}

/** QEMU 7.2 maps no grants: its guest's kernel is the same, except that its virtio drivers need not use them. */
const GUESTS: readonly MeasuredGuest[] = [
  {
    name: 'grants',
    kernel: 'vmlinux',
    disks: [
      { title: 'map', disk: 'vda', grantio: ['--access', 'map', '--mmio', '0xd0000000,irq=5'] },
      { title: 'copy', disk: 'vdb', grantio: ['--access', 'copy', '--mmio', '0xd0000200,irq=10'] },
      BLKBACK,
      {
        title: 'blkback, grants not persistent',
        disk: 'xvdb',
        blkback: { device: 51728, persistent: false },
      },
    ],
  },
  {
    name: 'qemu',
    kernel: 'vmlinux-without-grants',
    disks: [
      { title: 'no grants', disk: 'vda', grantio: ['--grants=off', '--mmio', '0xd0000000,irq=5'] },
      { title: 'QEMU, no grants', disk: 'vdb' },
      BLKBACK,
    ],
  },
];

/** A disk's time beside that of blkback in the same round: the median, and the lowest and the highest. */
function ratio(said: string, load: number, disk: string): string {
  const others = timesOf(said, load, BLKBACK.disk);
  const ratios = timesOf(said, load, disk).map((time, round) => time / others[round]);
  const [low, middle, high] = [Math.min(...ratios), median(ratios), Math.max(...ratios)].map(twoDigits);
  return `${middle} (${low}-${high})`;
}

const twoDigits = (value: number): string => String(Number(value.toPrecision(2)));

const columns: { title: string; cells: string[] }[] = [];
const folder = mkdtempSync(join(tmpdir(), 'grantio-bench-'));
try {
  for (const { name, kernel, disks } of GUESTS) {
    // The log of a guest's console goes on where an earlier guest of its name ended.
    const said = await run(`bench-${name}-${process.pid}`, kernel, disks, folder);
    for (const { title, disk } of disks)
      if (title !== undefined)
        columns.push({ title, cells: LOADS.map((_, load) => ratio(said, load, disk)) });
  }
} finally {
  rmSync(folder, { recursive: true });
}
const row = (cells: readonly string[]): void => console.log(`| ${cells.join(' | ')} |`);
row(['requests of a guest, blkback = 1', ...columns.map(({ title }) => title)]);
row(['---', ...columns.map(() => '---:')]);
for (const [load, { name }] of LOADS.entries()) row([name, ...columns.map(({ cells }) => cells[load])]);
