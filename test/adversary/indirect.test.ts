// A driver whose indirect tables break the rules of virtio 1.3 §2.7.5.3, or change while they are read.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTQ_DESC_F_INDIRECT, VIRTQ_DESC_F_NEXT, virtqDesc } from '../../src/abi/split-ring.ts';
import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN } from '../../src/abi/virtio-blk.ts';
import { VIRTIO_F_INDIRECT_DESC } from '../../src/abi/virtio.ts';
import { fillTable, offsetBy, type RawQueue } from '../support/raw-driver.test.helper.ts';
import { RawRequest, readyToRead, Scene } from '../support/scene.test.helper.ts';

const RULE = '§2.7.5.3.1';

/** A queue whose descriptor 0 refers to a table with a request for the first sector. */
function indirectRead(scene: Scene, offset = 0, flags = 0, length = 48, without = 0n) {
  const { queue, request } = readyToRead(scene, without);
  const table = scene.driver.share(2);
  fillTable(table, offset, request.read(512));
  const at = offsetBy(table, offset);
  queue.table.write(0, at.low, at.high, length, VIRTQ_DESC_F_INDIRECT | flags, 5);
  return { queue, request, table };
}

async function served(scene: Scene, queue: RawQueue, request: RawRequest): Promise<void> {
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.index, 1);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  assert.deepEqual(request.data.bytes.slice(0, 512), scene.bytes.slice(0, 512));
  await scene.finish();
}

test('F10 an indirect descriptor without VIRTIO_F_INDIRECT_DESC breaks the device', async () => {
  const scene = new Scene();
  const { queue } = indirectRead(scene, 0, 0, 48, VIRTIO_F_INDIRECT_DESC);
  scene.driver.submit(queue, 0);
  await scene.broken(RULE);
});

test('F10 INDIRECT together with NEXT breaks the device', async () => {
  const scene = new Scene();
  const { queue } = indirectRead(scene, 0, VIRTQ_DESC_F_NEXT);
  scene.driver.submit(queue, 0);
  await scene.broken(RULE);
});

test('F10 an indirect descriptor inside an indirect table breaks the device', async () => {
  const scene = new Scene();
  const { queue, table } = indirectRead(scene);
  virtqDesc.over(table.bytes).at(16).flags = VIRTQ_DESC_F_INDIRECT;
  scene.driver.submit(queue, 0);
  await scene.broken(RULE);
});

for (const length of [0, 1, 15, 17, 47, 64 * 16 + 1, 65 * 16, 0xffff_fff0, 0xffff_ffff]) {
  test(`F11 an indirect table of ${length} bytes breaks a device with queues of up to 64`, async () => {
    const scene = new Scene();
    const { queue } = indirectRead(scene, 0, 0, length);
    scene.driver.submit(queue, 0);
    await scene.broken(RULE);
  });
}

test('F11 a next behind the end of the indirect table breaks the device, though the ring goes on', async () => {
  const scene = new Scene();
  const { queue, table } = indirectRead(scene);
  virtqDesc.over(table.bytes).at(16).next = 3;
  scene.driver.submit(queue, 0);
  await scene.broken('§2.7.5');
});

test('F3 a loop inside an indirect table breaks the device', async () => {
  const scene = new Scene();
  const { queue, table } = indirectRead(scene);
  virtqDesc.over(table.bytes).at(16).next = 0;
  scene.driver.submit(queue, 0);
  await scene.broken();
});

test('F11 descriptors of ring and table together may not exceed the size that the device announced', async () => {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  const table = scene.driver.share(1);
  const [header] = request.read(512);
  fillTable(
    table,
    0,
    Array.from({ length: 64 }, () => ({ ...header, length: 1 })),
  );
  queue.table.write(0, header.at.low, header.at.high, 16, VIRTQ_DESC_F_NEXT, 1);
  queue.table.write(1, table.low, table.high, 64 * 16, VIRTQ_DESC_F_INDIRECT, 0);
  scene.driver.submit(queue, 0);
  await scene.broken(RULE);
});

test('F11 a table as long as seg_max allows is served in a ring that the driver made shorter', async () => {
  const scene = new Scene();
  const queue = scene.driver.start(16);
  const request = new RawRequest(scene.driver, 8);
  request.header(VIRTIO_BLK_T_IN, 0);
  const table = scene.driver.share(1);
  // As Linux sends it, which knows the disk's limit only: 62 sectors in the reverse order of their memory.
  const length = 62 * 512;
  const [header, , status] = request.read(length);
  const at = (sector: number) => length - (sector + 1) * 512;
  const data = Array.from({ length: 62 }, (_, sector) => ({
    ...{ at: offsetBy(request.data, at(sector)), length: 512, writable: true },
  }));
  fillTable(table, 0, [header, ...data, status]);
  queue.table.write(0, table.low, table.high, 64 * 16, VIRTQ_DESC_F_INDIRECT, 0);
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.index, 1);
  assert.equal(request.status(length), VIRTIO_BLK_S_OK);
  for (let sector = 0; sector < 62; sector++)
    assert.deepEqual(
      request.data.bytes.slice(at(sector), at(sector) + 512),
      scene.bytes.slice(sector * 512, (sector + 1) * 512),
    );
  await scene.finish();
});

for (const offset of [1, 2, 8, 15, 4095 - 24]) {
  test(`F12 an indirect table at offset ${offset} of a page is served: no alignment is asked for`, async () => {
    const scene = new Scene();
    const { queue, request } = indirectRead(scene, offset);
    await served(scene, queue, request);
  });
}

test('F15 an indirect table that changes while its buffers are mapped has no effect', async () => {
  const scene = new Scene();
  const { queue, request, table } = indirectRead(scene);
  const { grantMapper } = scene.backend.ports;
  const map = grantMapper.map.bind(grantMapper);
  let tableRead = false;
  grantMapper.map = (owner, ref, readonly) => {
    // The first map of a buffer comes when the whole table has been fetched.
    if (tableRead) table.bytes.fill(0xff);
    if (ref === table.ref) tableRead = true;
    return map(owner, ref, readonly);
  };
  await served(scene, queue, request);
  assert.equal(table.bytes[0], 0xff, 'the table was changed');
});

test('F15 an indirect table that is not granted fails that request alone', async () => {
  const scene = new Scene();
  const { queue, request } = indirectRead(scene);
  queue.table.write(0, 0x00fe_0000, 0x8000_0000, 48, VIRTQ_DESC_F_INDIRECT, 0);
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.index, 1, 'the chain is returned');
  assert.equal(queue.used.len(0), 0);
  scene.driver.chain(queue, 1, request.read(512));
  scene.driver.submit(queue, 1);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK, 'the queue goes on');
  await scene.finish();
});

test('F15 a data buffer behind a table that is not granted gets an error status', async () => {
  const scene = new Scene();
  const { queue, request, table } = indirectRead(scene);
  virtqDesc.over(table.bytes).at(16).addrLow = 0x00fe_0000;
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_IOERR);
  await scene.finish();
});
