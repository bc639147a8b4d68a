// Figures as a process would have them, made by counting: a disk with some requests, and a source of entropy.

import {
  controlBlock,
  CONTROL_BLOCK,
  newDeviceCounters,
  QUEUE_BLOCK,
  queueBlock,
} from '../../serving/counter-blocks.ts';
import { QueueCounters } from '../../serving/queue-counters.ts';
import { deviceFigures } from '../../serving/serving-figures.ts';
import { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from '../../abi/virtio-blk.ts';
import type { Figures } from './families.ts';

/** What was done to the disk. */
export interface DoneRequests {
  readonly reads: number;
  readonly writes: number;
  readonly failed: number;
}

const SOME: DoneRequests = { reads: 3, writes: 2, failed: 1 };

const SOME_EXPOSURE = {
  ...{ pages: 40, unneededPages: 3, foreignReadableBytes: 8159, foreignWritableBytes: 4079 },
  ...{ staleWindows: 36, staleSeconds: 0.018, longestStaleSeconds: 0.002 },
};

/** The figures of a process that serves a disk, by this name, and a source of entropy. */
export function someFigures(name = 'root', done: DoneRequests = SOME): Figures {
  const disk = newDeviceCounters(1);
  const block = queueBlock(disk, 0);
  let time = 1000;
  const closed = (): void => undefined;
  const queue = new QueueCounters({ block, kind: 'blk', index: 0, size: 8, now: () => time, closed });
  const request = (
    type: number,
    status: number,
    read: number,
    written: number,
    microseconds: number,
  ): void => {
    time += 50;
    queue.turn();
    queue.taken(0, read + written, 2);
    time += microseconds / 1000;
    queue.completed(0, type, status, read, written);
  };
  for (let i = 0; i < done.reads; i++) request(VIRTIO_BLK_T_IN, 0, 16, 4097, 8);
  for (let i = 0; i < done.writes; i++) request(VIRTIO_BLK_T_OUT, 0, 16 + 8192, 1, 32);
  for (let i = 0; i < done.failed; i++) request(VIRTIO_BLK_T_IN, 1, 16, 1, 8);
  queue.interrupted();
  block[QUEUE_BLOCK.at.enabledQueues] = 1;
  const control = controlBlock(disk);
  control[CONTROL_BLOCK.at.connected] = 1;
  control[CONTROL_BLOCK.at.connectedSince] = 1_700_000_000;
  control[CONTROL_BLOCK.at.sessions] = 2;
  control[CONTROL_BLOCK.at.closed] = 1;
  control[CONTROL_BLOCK.at.mappings] = 1;
  control[CONTROL_BLOCK.at.mappedBytes] = 2 ** 20;
  const violations = new Map([['§2.7.5', 1]]);
  return {
    devices: [
      {
        ...deviceFigures({ name, kind: 'blk', guest: 3, counters: disk, violations }, 1),
        exposedBytes: 2 ** 20,
        exposure: SOME_EXPOSURE,
      },
      deviceFigures({ name: 'noise', kind: 'rng', counters: newDeviceCounters(1), violations: new Map() }, 1),
    ],
    workers: [{ looks: 100, busyLooks: 6, sleeps: 4, sleptSeconds: 1.5 }],
    eventsLost: 2,
    process: { version: '1.2.3', cpuSeconds: 2.5, residentBytes: 2 ** 26, startTime: 1_600_000_000 },
  };
}
