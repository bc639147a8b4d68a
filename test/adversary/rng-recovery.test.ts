// An entropy device that went wrong: the request is made again, and never answered with what a backend could change.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { grantAddressRef } from '../../src/abi/grant-address.ts';
import { VIRTIO_ID_RNG } from '../../src/abi/virtio.ts';
import { EXPOSURE_MODES, type ExposureMode } from '../../src/dma/exposure-modes.ts';
import { RECOVERY } from '../../src/drivers/recovery.ts';
import { HostileDisk, HostileScene } from '../support/hostile-disk.test.helper.ts';
import { BASE } from '../support/scene.test.helper.ts';

const LENGTH = 64;

function scene(mode: ExposureMode) {
  const stage = new HostileScene(
    new HostileDisk({ deviceId: VIRTIO_ID_RNG, features: 0n, queueSizes: [16] }),
  );
  stage.guest.recovery = RECOVERY;
  const place = { base: BASE, backend: stage.backend.ports.id, device: 0 };
  return { stage, place, rng: stage.guest.attachRng(place, mode) };
}

/** Answers the oldest request with bytes of one value, as far as it is still reachable. */
function answer(stage: HostileScene, value: number): void {
  const { queue, chain } = stage.device.held.shift()!;
  const { byteLength } = chain.writable;
  for (let at = 0; at < byteLength; at++) chain.writable.setByte(at, value);
  queue.complete(chain, 0, byteLength);
}

for (const mode of EXPOSURE_MODES) {
  test(`B5 B9: ${mode}: a request is made again after a reset, and answered once`, async () => {
    const { stage, rng } = scene(mode);
    const read = rng.read(LENGTH);
    await Promise.resolve();
    stage.run();
    stage.guest.revive('it does not answer');
    stage.run();
    assert.equal(stage.device.held.length, 2);
    answer(stage, 1);
    rng.poll();
    answer(stage, 2);
    rng.poll();
    assert.deepEqual(await read, new Uint8Array(LENGTH).fill(2));
    assert.deepEqual(stage.guest.detach(rng), { live: 0, quarantined: 0 });
    stage.nothingLeft();
  });

  test(`B20: ${mode}: a request that was made while there was no backend is answered by the next one`, async () => {
    const { stage, place, rng } = scene(mode);
    rng.suspend('its backend has died');
    const read = rng.read(LENGTH);
    await Promise.resolve();
    assert.deepEqual([rng.health, rng.busy], ['waiting', true]);
    stage.guest.reattach(rng, place);
    stage.run();
    answer(stage, 3);
    rng.poll();
    assert.deepEqual(await read, new Uint8Array(LENGTH).fill(3));
    assert.deepEqual(stage.guest.detach(rng), { live: 0, quarantined: 0 });
  });
}

test('G10 B7: direct: what lies in a page that the backend still maps is no entropy; another page is used', async () => {
  const { stage, rng } = scene('direct');
  const read = rng.read(LENGTH);
  await Promise.resolve();
  stage.run();
  const ring = stage.ring();
  const ref = grantAddressRef(ring.table.addressLow(0), ring.table.addressHigh(0));
  ring.release();
  const kept = stage.backend.ports.grantMapper.map(stage.guest.ports.id, ref, false);
  answer(stage, 1);
  rng.poll();
  assert.equal(rng.health, 'degraded');
  stage.run();
  answer(stage, 2);
  rng.poll();
  assert.deepEqual(await read, new Uint8Array(LENGTH).fill(2));
  assert.equal(stage.backend.ports.grantMapper.unmap(kept), 0);
  assert.deepEqual(stage.guest.detach(rng), { live: 0, quarantined: 0 });
  stage.nothingLeft();
});
