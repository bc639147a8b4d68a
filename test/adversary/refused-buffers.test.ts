// Requests whose buffers the platform refuses to map or to copy (§5.2.6): the request fails, and only that; an answer
// goes nowhere but where the driver has room for it, and nothing is written after it was unmapped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import { traceTo } from '../../src/dma/sharing.test.helper.ts';
import type { MemoryAccess } from '../../src/machine/backend-domain.ts';
import { newDeviceCounters } from '../../src/serving/counter-blocks.ts';
import { type DeviceFigures, deviceFigures } from '../../src/serving/serving-figures.ts';
import { XenCounters } from '../../src/serving/xen-counters.ts';
import { offsetBy, type RawBuffer } from '../support/raw-driver.test.helper.ts';
import { ACCESSES, NO_STATUS, RawRequest, readyToRead, Scene } from '../support/scene.test.helper.ts';

/** A page that nobody granted. */
const NOT_GRANTED = { low: 0x0010_0000, high: 0x8000_0000 };
/** Another one, the last of the toolstack's, right before the first that the driver has granted: its rings. */
const BEFORE_GRANTED = { low: 0x7000, high: 0x8000_0000 };

/** Submits a request that works, so that objects are reused, and then `chain`. */
async function submitAfterGoodOne(
  access: MemoryAccess,
  change: (chain: RawBuffer[], scene: Scene) => RawBuffer[],
  check: (status: number, used: number) => void,
  otherwiseUnchanged = true,
): Promise<void> {
  const scene = new Scene({ access });
  const { queue, request } = readyToRead(scene);
  scene.driver.submit(queue, 0);
  request.data.bytes.fill(NO_STATUS);
  const before = scene.machine.xen.state.memory.slice(0);
  scene.driver.chain(queue, 0, change(request.read(512), scene));
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.index, 2, 'the chain is returned');
  check(request.status(512), queue.used.len(1));
  if (otherwiseUnchanged) assertOnlyStatusChanged(scene, before, request.data.address + 512);
  scene.driver.chain(queue, 0, request.read(512));
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK, 'the queue goes on');
  await scene.finish();
}

/** No byte of the guest outside its rings and the status differs from `before`. */
function assertOnlyStatusChanged(scene: Scene, before: ArrayBufferLike, status: number): void {
  const { memory } = scene.driver.guest.ports;
  const { region } = memory;
  const allowed = memory.offset(status, 1);
  const old = new Uint8Array(before, region.byteOffset, region.byteLength);
  for (let at = 4096; at < region.byteLength; at++)
    if (at !== allowed && region.u8[at] !== old[at]) assert.fail(`byte ${at} changed`);
}

for (const access of ACCESSES) {
  test(`F35 a refused data buffer gives an error status and length 0, ${access}`, () =>
    submitAfterGoodOne(
      access,
      ([header, data, status]) => [header, { ...data, at: NOT_GRANTED }, status],
      (status, length) => assert.deepEqual([status, length], [VIRTIO_BLK_S_IOERR, 0]),
    ));

  test(`F35 a refused header gives an error status, ${access}`, () =>
    submitAfterGoodOne(
      access,
      ([header, data, status]) => [{ ...header, at: NOT_GRANTED }, data, status],
      (status) => assert.equal(status, VIRTIO_BLK_S_IOERR),
    ));

  test(`F35 a refused status buffer leaves the request without an answer, but returned, ${access}`, () =>
    submitAfterGoodOne(
      access,
      ([header, data, status]) => [header, data, { ...status, at: NOT_GRANTED }],
      (status, length) => assert.deepEqual([status, length], [NO_STATUS, 0]),
      access === 'map',
    ));

  test(`F35 F5 with an empty descriptor last, the answer goes to the last one that has room, ${access}`, () =>
    submitAfterGoodOne(
      access,
      ([header, data, status]) => [header, { ...data, at: NOT_GRANTED }, status, { ...status, length: 0 }],
      (status, length) => assert.deepEqual([status, length], [VIRTIO_BLK_S_IOERR, 0]),
    ));

  test(`F35 F5 with no room for an answer at all, the request is only returned, ${access}`, () =>
    submitAfterGoodOne(
      access,
      ([header, , status]) => [
        { ...header, at: NOT_GRANTED },
        { ...status, length: 0 },
      ],
      (status, length) => assert.deepEqual([status, length], [NO_STATUS, 0]),
    ));

  test(`F35 H16 data to be written to a page that is granted for reading only, ${access}`, () =>
    submitAfterGoodOne(
      access,
      ([header, data, status], { driver }) => [header, { ...data, at: driver.share(1, true) }, status],
      (status, length) => assert.deepEqual([status, length], [VIRTIO_BLK_S_IOERR, 0]),
    ));

  test(`F35 H16 a status to be written to a page that is granted for reading only, ${access}`, () =>
    submitAfterGoodOne(
      access,
      ([header, , status], { driver }) => [header, { ...status, at: driver.share(1, true) }],
      (status, length) => assert.deepEqual([status, length], [NO_STATUS, 0]),
    ));
}

for (const access of ACCESSES)
  test(`the trace tells of the status of a request that failed, and of nothing else that was written, ${access}`, async () => {
    const touches: string[] = [];
    const tracer = traceTo((name, _mapper, owner, ...figures) => {
      if (name === 'touch' && owner === 2) touches.push(figures.join(' '));
    });
    const scene = new Scene({ access, tracer });
    const queue = scene.driver.start();
    const request = new RawRequest(scene.driver);
    request.header(99, 0);
    scene.driver.chain(queue, 0, request.read(512));
    scene.driver.submit(queue, 0);
    const [header, , status] = request.read(512).map(({ at }) => at.low >>> 12);
    assert.deepEqual(touches, [`${header} 0 16 false`, `${status} 512 1 true`]);
    await scene.finish();
  });

// Copies are refused one by one, when the device has done its work: what else it wrote may have arrived.
test('F35 a buffer of which only the first page is refused is refused whole, map', () =>
  submitAfterGoodOne(
    'map',
    ([header, data, status]) => [header, { ...data, at: BEFORE_GRANTED, length: 8192 }, status],
    (status, length) => assert.deepEqual([status, length], [VIRTIO_BLK_S_IOERR, 0]),
  ));

test('F35 of data that is refused from its second page on, no more is claimed than an error, copy', async () => {
  const scene = new Scene({ access: 'copy' });
  const { queue, request } = readyToRead(scene);
  const data = { at: offsetBy(request.data, 8192 - 512), length: 1024, writable: true };
  const status = { at: request.data, length: 1, writable: true };
  scene.driver.chain(queue, 0, [{ at: request.head, length: 16 }, data, status]);
  scene.driver.submit(queue, 0);
  assert.deepEqual([request.status(0), queue.used.len(0)], [VIRTIO_BLK_S_IOERR, 0]);
  assert.equal(queue.used.index, 1);
  await scene.finish();
});

for (const access of ACCESSES)
  test(`F35 what is refused is counted, and nothing of it counts as mapped, ${access}`, async () => {
    const counters = newDeviceCounters(1);
    const device = { name: 'suspect', kind: 'blk', counters, violations: new Map() };
    const figures = (): DeviceFigures => deviceFigures(device, 1);
    const scene = new Scene({ access, meter: new XenCounters(counters, 'blk') });
    const { queue, request } = readyToRead(scene);
    const ring = figures().mappings;
    assert.equal(ring, scene.mappedOfSuspect);
    scene.driver.submit(queue, 0);
    const [header, data, status] = request.read(512);
    scene.driver.chain(queue, 0, [header, { ...data, at: NOT_GRANTED }, status]);
    scene.driver.submit(queue, 0);
    const { refusedChains, mappings, operations } = figures();
    assert.deepEqual([refusedChains, mappings], [1, ring]);
    const done = operations.filter(({ requests }) => requests > 0);
    // What was refused before it was looked at is of no known kind.
    assert.deepEqual(
      done.map(({ name, requests }) => [name, requests]),
      access === 'map'
        ? [
            ['read', 1],
            ['other', 1],
          ]
        : [['read', 2]],
    );
    assert.deepEqual(done.at(-1)?.errors, [1, 0, 0]);
    await scene.finish();
    assert.deepEqual([figures().mappings, figures().connected], [0, false]);
  });
