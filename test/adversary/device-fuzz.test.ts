// Any chains over granted memory against a whole device (20, 23): random descriptors that point at granted
// pages, at others, and nowhere, served by a disk. The device ends well or broken and is as good as new after a
// reset; it maps nothing but its rings between requests; nobody else notices.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { virtioBlkRequestHeader } from '../../src/abi/virtio-blk.ts';
import { VIRTIO_STATUS_DEVICE_NEEDS_RESET } from '../../src/abi/virtio.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import type { MemoryAccess } from '../../src/machine/backend-domain.ts';
import { randomFrom } from '../../src/machine/random.ts';
import { offsetBy, type RawQueue, type SharedPages } from '../support/raw-driver.test.helper.ts';
import { Scene } from '../support/scene.test.helper.ts';

const QUEUE = 16;
const RUNS = 2_000;
/** Rings mapped by a device that works. */
const RING_MAPPINGS = 3;

type Random = (below: number) => number;

/** What descriptors may point at. */
interface Ground {
  readonly good: readonly SharedPages[];
  readonly readonly: SharedPages;
  readonly queue: RawQueue;
}

function layGround(scene: Scene): Ground {
  const queue = scene.driver.start(QUEUE);
  const good = [1, 2, 3].map((pages) => scene.driver.share(pages));
  return { good, readonly: scene.driver.share(1, true), queue };
}

/** An address, mostly of granted pages and mostly not far into them. */
function address({ good, readonly, queue }: Ground, below: Random) {
  const kind = below(40);
  if (kind === 0) return { low: below(2 ** 32), high: below(2 ** 32) };
  if (kind === 1) return { low: below(2 ** 32), high: 0x8000_0000 };
  if (kind === 2) return offsetBy(readonly, below(XEN_PAGE_SIZE));
  // The ring itself: what the device reads and writes there is the driver's own loss.
  if (kind === 3) return offsetBy(queue.pages, below(XEN_PAGE_SIZE));
  const pages = good[below(good.length)];
  return offsetBy(pages, below(4) === 0 ? below(pages.pages * XEN_PAGE_SIZE) : 0);
}

function writeDescriptors(ground: Ground, below: Random): void {
  const { table } = ground.queue;
  for (let i = 0; i < QUEUE; i++) {
    const { low, high } = address(ground, below);
    const length =
      below(30) === 0 ? below(2 ** 32) : [0, 1, 15, 16, 17, 32, 48, 512, 513, 1024, 4096][below(11)];
    const flags = below(40) === 0 ? below(65536) : [0, 1, 1, 1, 2, 2, 3, 3][below(8)];
    table.write(i, low, high, length, flags | (below(30) === 0 ? 4 : 0), below(QUEUE + 1) % (QUEUE + 1));
  }
}

/** Headers of requests, and tables of descriptors, where descriptors mostly point. */
function writeContents(ground: Ground, below: Random): void {
  for (const pages of ground.good) {
    const type = [0, 0, 1, 1, 4, 8, 11, 13, 99][below(9)];
    pages.bytes.set(virtioBlkRequestHeader.make({ type, sector: below(200) }).bytes);
    const view = new DataView(pages.bytes.buffer, pages.bytes.byteOffset);
    for (let at = 16; at < 64; at += 4) view.setUint32(at, below(3) === 0 ? below(2 ** 32) : below(64), true);
  }
}

const RUN_BY: readonly (readonly [seed: number, access: MemoryAccess])[] = [
  [1, 'map'],
  [2, 'map'],
  [3, 'map'],
  [1, 'copy'],
  [4, 'copy'],
];

for (const [seed, access] of RUN_BY) {
  test(`F1-F17 any chains over granted memory leave the device well or broken (20, 23), seed ${seed}, ${access}`, async () => {
    const random = randomFrom(seed);
    const below: Random = (limit) => Math.floor(random() * limit);
    const scene = new Scene({ seed, access });
    const { pagesFree } = scene.backend.ports.memory;
    let ground = layGround(scene);
    let broken = 0;
    let answered = 0;
    for (let run = 0; run < RUNS; run++) {
      writeDescriptors(ground, below);
      writeContents(ground, below);
      const before = ground.queue.used.index;
      for (let i = below(3); i >= 0; i--)
        scene.driver.offer(ground.queue, below(50) === 0 ? below(65536) : below(QUEUE));
      scene.driver.notify(0);
      scene.driver.run();
      if (scene.driver.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) {
        broken++;
        assert.equal(scene.mappedOfSuspect, 0, `run ${run}: a broken device maps nothing`);
        scene.driver.reset();
        assert.equal(scene.driver.revokeAll(), 0, `run ${run}: no page is still mapped`);
        for (const { address: at, pages } of [...ground.good, ground.readonly, ground.queue.pages])
          scene.driver.guest.ports.memory.freePages(at, pages);
        ground = layGround(scene);
      } else {
        answered += (ground.queue.used.index - before) & 0xffff;
        assert.equal(
          scene.mappedOfSuspect,
          RING_MAPPINGS,
          `run ${run}: between requests only rings are mapped`,
        );
        assert.equal(scene.backend.ports.memory.pagesFree, pagesFree, `run ${run}: no private page is kept`);
      }
      if (run % 100 === 0) await scene.neighbourWorks();
    }
    // The search is worth something only if it gets everywhere.
    assert.ok(broken > RUNS / 20 && answered > RUNS / 10, `${broken} broken, ${answered} answered`);
    await scene.worksAfterReset();
    await scene.finish();
  });
}
