// A device that rewrites a used element between any two reads of the driver (XSA-155): what the driver has
// looked at once decides, and nothing is looked at twice.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { type Region, regionOver } from '../../src/abi/region.ts';
import { GuestMemory } from '../../src/dma/guest-memory.ts';
import { PlainDma } from '../../src/dma/plain-dma.ts';
import { BufferList } from '../../src/virtqueue/buffer-list.ts';
import { ADDED, DriverQueue } from '../../src/virtqueue/driver-queue.ts';
import { UsedRing } from '../../src/virtqueue/split-ring.ts';
import { PLAIN } from '../support/plain-ring.test.helper.ts';

/** `real`, whose 32-bit words become all ones as soon as they have been read. */
function changing(real: Region, reads: number[]): Region {
  const u32 = new Proxy(real.u32, {
    get(target, key) {
      const index = Number(key);
      const value = target[index];
      target[index] = 0xffff_ffff;
      reads.push(index);
      return value;
    },
  });
  return { ...real, u32 };
}

for (const length of [4, 9]) {
  test(`B1 B2 id and length of a used element are read once, ${length} of 8 bytes`, () => {
    const reads: number[] = [];
    const real = regionOver(new ArrayBuffer(64 * 1024));
    const memory = new GuestMemory(changing(real, reads));
    const driver = DriverQueue.create(16, new PlainDma(memory), memory, PLAIN);
    assert.ok(driver !== undefined);
    for (const token of [70, 71]) assert.equal(driver.add(new BufferList().addWritable(64, 8), token), ADDED);
    const used = new UsedRing({ region: real, offset: driver.addresses.deviceLow }, 16);
    used.setElement(0, 1, length);
    used.index = 1;
    assert.equal(driver.poll(), 71);
    assert.equal(driver.lastLength, Math.min(length, 8));
    assert.equal(new Set(reads).size, reads.length, 'no word is read twice');
    assert.equal(reads.length, 2);
  });
}
