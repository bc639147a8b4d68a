// Requests whose buffers the platform refuses to map (§5.2.6): the request fails, and only that; an answer
// goes nowhere but where the driver has room for it, and nothing is written after it was unmapped.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import type { RawBuffer } from '../support/raw-driver.test.helper.ts';
import { NO_STATUS, readyToRead, Scene } from '../support/scene.test.helper.ts';

/** A page that nobody granted. */
const NOT_GRANTED = { low: 0x0010_0000, high: 0x8000_0000 };
/** Another one, the last of the toolstack's, right before the first that the driver has granted: its rings. */
const BEFORE_GRANTED = { low: 0x7000, high: 0x8000_0000 };

/** Submits a request that works, so that objects are reused, and then `chain`. */
async function submitAfterGoodOne(
  change: (chain: RawBuffer[]) => RawBuffer[],
  check: (status: number, used: number) => void,
): Promise<void> {
  const scene = new Scene();
  const { queue, request } = readyToRead(scene);
  scene.driver.submit(queue, 0);
  request.data.bytes.fill(NO_STATUS);
  const before = scene.machine.xen.state.memory.slice(0);
  scene.driver.chain(queue, 0, change(request.read(512)));
  scene.driver.submit(queue, 0);
  assert.equal(queue.used.index, 2, 'the chain is returned');
  check(request.status(512), queue.used.len(1));
  assertOnlyStatusChanged(scene, before, request.data.address + 512);
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

test('F35 a refused data buffer gives an error status and length 0', () =>
  submitAfterGoodOne(
    ([header, data, status]) => [header, { ...data, at: NOT_GRANTED }, status],
    (status, length) => assert.deepEqual([status, length], [VIRTIO_BLK_S_IOERR, 0]),
  ));

test('F35 a buffer of which only the first page is refused is refused whole', () =>
  submitAfterGoodOne(
    ([header, data, status]) => [header, { ...data, at: BEFORE_GRANTED, length: 8192 }, status],
    (status, length) => assert.deepEqual([status, length], [VIRTIO_BLK_S_IOERR, 0]),
  ));

test('F35 a refused header gives an error status', () =>
  submitAfterGoodOne(
    ([header, data, status]) => [{ ...header, at: NOT_GRANTED }, data, status],
    (status) => assert.equal(status, VIRTIO_BLK_S_IOERR),
  ));

test('F35 a refused status buffer leaves the request without an answer, but returned', () =>
  submitAfterGoodOne(
    ([header, data, status]) => [header, data, { ...status, at: NOT_GRANTED }],
    (status, length) => assert.deepEqual([status, length], [NO_STATUS, 0]),
  ));

test('F35 F5 with an empty descriptor last, the answer goes to the last one that has room', () =>
  submitAfterGoodOne(
    ([header, data, status]) => [header, { ...data, at: NOT_GRANTED }, status, { ...status, length: 0 }],
    (status, length) => assert.deepEqual([status, length], [VIRTIO_BLK_S_IOERR, 0]),
  ));

test('F35 F5 with no room for an answer at all, the request is only returned', () =>
  submitAfterGoodOne(
    ([header, , status]) => [
      { ...header, at: NOT_GRANTED },
      { ...status, length: 0 },
    ],
    (status, length) => assert.deepEqual([status, length], [NO_STATUS, 0]),
  ));
