// Addresses that no correct driver sends: plain ones where grants are required, spare bits set, pages that
// were not granted or not so. The backend's reach is what was granted, whatever a descriptor says.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GNTST_BAD_GNTREF, GNTST_GENERAL_ERROR } from '../../src/abi/grant.ts';
import { VIRTIO_BLK_S_IOERR, VIRTIO_BLK_S_OK } from '../../src/abi/virtio-blk.ts';
import { noTrace } from '../../src/trace.ts';
import { BASE, readyToRead, Scene } from '../support/scene.test.helper.ts';

const RULE = 'VIRTIO_F_ACCESS_PLATFORM §6.1';

for (let bit = 44; bit <= 62; bit++) {
  test(`G4 an address with bit ${bit} set breaks the device`, async () => {
    const scene = new Scene();
    const { queue, request } = readyToRead(scene);
    const [header, data, status] = request.read(512);
    const at = { low: data.at.low, high: (data.at.high | (1 << (bit - 32))) >>> 0 };
    scene.driver.chain(queue, 0, [header, { ...data, at }, status]);
    scene.driver.submit(queue, 0);
    await scene.broken(RULE);
  });
}

for (const place of [0, 1, 2]) {
  test(`G5 G6 a plain address as buffer ${place} of a chain of grants breaks the device`, async () => {
    const scene = new Scene();
    const { queue, request } = readyToRead(scene);
    const chain = request.read(512);
    chain[place] = { ...chain[place], at: { low: request.data.address, high: 0 } };
    scene.driver.chain(queue, 0, chain);
    scene.driver.submit(queue, 0);
    await scene.broken(RULE);
  });
}

test('G5 rings at plain addresses break the device: it never falls back to foreign mappings', async () => {
  const scene = new Scene();
  const { driver } = scene;
  driver.negotiate();
  const queue = driver.layOut(0, 16);
  driver.enable(queue, { descriptor: { low: queue.pages.address, high: 0 } });
  driver.run();
  await scene.broken(RULE);
});

/** One way of not having granted the second buffer of a read request. */
const refused: [string, (scene: Scene) => { low: number; high: number }][] = [
  ['H1 a reference past the table', () => ({ low: 0xffff_f000, high: 0x8000_00ff })],
  ['H1 the last of all references', () => ({ low: 0xffff_f000, high: 0x8000_0fff })],
  ['H1 a reserved reference', () => ({ low: 0x0000_1000, high: 0x8000_0000 })],
  ['H1 a reference that was never granted', () => ({ low: 0x0010_0000, high: 0x8000_0000 })],
  ['H16 a page granted read-only, to be written', (scene) => scene.driver.share(1, true)],
  ['F38 the page of its own registers', (scene) => scene.driver.shareAt(BASE, 1)],
];

for (const [what, pageOf] of refused) {
  test(`${what} fails that request alone, and the queue goes on`, async () => {
    const scene = new Scene();
    const { queue, request } = readyToRead(scene);
    const [header, data, status] = request.read(512);
    const { low, high } = pageOf(scene);
    scene.driver.chain(queue, 0, [header, { ...data, at: { low, high } }, status]);
    scene.driver.submit(queue, 0);
    assert.equal(queue.used.index, 1);
    assert.equal(request.status(512), VIRTIO_BLK_S_IOERR);
    scene.driver.chain(queue, 3, request.read(512));
    scene.driver.submit(queue, 3);
    assert.equal(request.status(512), VIRTIO_BLK_S_OK);
    await scene.finish();
  });
}

test('H1 B19 a backend that tries references it was not given gets nothing, and is seen trying', async () => {
  const attempts: number[] = [];
  const scene = new Scene({
    tracer: {
      ...noTrace,
      enabled: true,
      mapRefused: (_mapper, owner, ref, status) => {
        assert.deepEqual([owner, status < 0], [2, true]);
        attempts.push(ref);
      },
    },
  });
  const { queue, request } = readyToRead(scene);
  const granted = new Set([queue.pages.ref, request.head.ref, request.data.ref, request.data.ref + 1]);
  const { grantMapper } = scene.backend.ports;
  const suspect = scene.driver.guest.ports.id;
  const before = scene.mapped;
  const tried = [...Array(600).keys(), 2 ** 20, 2 ** 32 - 1].filter((ref) => !granted.has(ref));
  for (const ref of tried) {
    const status = grantMapper.map(suspect, ref, true);
    assert.ok(status === GNTST_BAD_GNTREF || status === GNTST_GENERAL_ERROR, `reference ${ref}: ${status}`);
  }
  assert.equal(scene.mapped, before);
  assert.deepEqual(attempts, tried);
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  await scene.finish();
});

test('H17 what was granted to another domain looks the same as what was not granted at all', async () => {
  const scene = new Scene();
  const stranger = scene.machine.createBackend(9, { memory: 2 ** 20, maxMaptrackFrames: 1 });
  const { queue, request } = readyToRead(scene);
  const suspect = scene.driver.guest.ports.id;
  assert.equal(stranger.ports.grantMapper.map(suspect, request.data.ref, true), GNTST_GENERAL_ERROR);
  assert.equal(stranger.ports.grantMapper.map(suspect, request.data.ref + 400, true), GNTST_GENERAL_ERROR);
  scene.driver.submit(queue, 0);
  assert.equal(request.status(512), VIRTIO_BLK_S_OK);
  await scene.finish();
});
