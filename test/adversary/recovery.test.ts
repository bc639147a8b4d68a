// A device that went wrong, and is well again after a reset: what was asked of it is asked again, each request is
// answered once, pages that the backend held on to come back, and a device that is never well is given up.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_BLK_T_FLUSH, VIRTIO_BLK_T_OUT } from '../../src/abi/virtio-blk.ts';
import { MMIO_INTERRUPT_STATUS, MMIO_QUEUE_RESET, MMIO_STATUS } from '../../src/abi/virtio-mmio.ts';
import { VIRTIO_F_RING_RESET } from '../../src/abi/virtio.ts';
import { grantAddressRef } from '../../src/abi/grant-address.ts';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import { RECOVERY } from '../../src/drivers/recovery.ts';
import { hideFeatures } from '../support/hide-features.test.helper.ts';
import { HostileDisk, HostileScene } from '../support/hostile-disk.test.helper.ts';
import { BASE } from '../support/scene.test.helper.ts';

const OK = 0;
const [SECTOR, PAGE] = [512, 4096];

/** Milliseconds: more than any pause of the quarantine. */
const MINUTE = 60_000;

function recoveringScene(limits: Partial<typeof RECOVERY> = {}): HostileScene {
  const scene = new HostileScene();
  scene.guest.recovery = { ...RECOVERY, ...limits };
  return scene;
}

/** A read whose results are counted. */
async function countedRead(disk: BlkDriver) {
  const buffer = await disk.buffer(PAGE);
  const results: (number | string)[] = [];
  const done = disk.read(0, buffer, PAGE).then(
    () => results.push('read'),
    (error: { code: string }) => results.push(error.code),
  );
  return { buffer, results, done };
}

/** Maps the data page of a held request once more, which the device does not know of. Returns the handle. */
function keepData(scene: HostileScene, index: number): number {
  const ring = scene.ring();
  const data = ring.table.next(scene.device.held[index].chain.head);
  const ref = grantAddressRef(ring.table.addressLow(data), ring.table.addressHigh(data));
  ring.release();
  const handle = scene.backend.ports.grantMapper.map(scene.guest.ports.id, ref, false);
  assert.ok(handle >= 0);
  return handle;
}

/** Completes what is not in flight. */
function breakProtocol(scene: HostileScene): void {
  const ring = scene.ring();
  ring.complete(999, 0);
  ring.release();
}

test('G10 G13: direct: a request whose page stays mapped fails alone; its buffer is nobody’s until the backend lets go', async () => {
  const scene = recoveringScene();
  const disk = scene.attach('direct');
  const { memory } = scene.guest.ports;
  const first = await countedRead(disk);
  scene.run();
  const handle = keepData(scene, 0);
  scene.device.serve(OK);
  disk.poll();
  await first.done;
  assert.deepEqual(first.results, ['EIO']);
  assert.deepEqual([disk.health, disk.failure, scene.guest.quarantined], ['degraded', undefined, 1]);
  const kept = memory.addressOf(first.buffer.bytes);
  first.buffer.release();
  const second = await countedRead(disk);
  assert.notEqual(memory.addressOf(second.buffer.bytes), kept, 'the kept page is no buffer');
  scene.run();
  scene.device.serve(OK);
  disk.poll();
  await second.done;
  assert.deepEqual(second.results, ['read'], 'the device goes on');
  assert.equal(scene.backend.ports.grantMapper.unmap(handle), 0);
  scene.machine.advance(MINUTE);
  assert.deepEqual([disk.health, disk.resets, scene.guest.quarantined], ['working', 0, 0]);
  assert.deepEqual(scene.guest.troubles, { quarantined: 1, stillQuarantined: 0, resets: 0 });
  scene.detach(disk);
});

test('G10: bounce: a request whose pool pages stay mapped succeeds, for they are not the caller’s', async () => {
  const scene = recoveringScene();
  const disk = scene.attach('bounce');
  const { buffer, results, done } = await countedRead(disk);
  scene.run();
  const handle = keepData(scene, 0);
  scene.device.serve(OK);
  disk.poll();
  await done;
  assert.deepEqual(results, ['read']);
  assert.ok(buffer.bytes.every((byte) => byte === HostileDisk.CONTENT));
  assert.equal(disk.health, 'degraded');
  assert.deepEqual(scene.guest.detach(disk), { live: 0, quarantined: 1 });
  // What a device has left behind is tried again when the device is gone.
  scene.machine.advance(MINUTE);
  assert.equal(scene.backend.ports.grantMapper.unmap(handle), 0);
  scene.machine.advance(MINUTE);
  scene.nothingLeft();
});

for (const mode of EXPOSURE_MODES) {
  for (const byQueue of [true, false]) {
    test(`XSA-396 R4: ${mode}: when too much is in quarantine, a reset of the ${byQueue ? 'queue' : 'device'} brings all of it back`, async () => {
      const scene = recoveringScene({ quarantined: 10 });
      if (!byQueue) hideFeatures(scene.guest, BASE, VIRTIO_F_RING_RESET);
      const disk = scene.attach(mode);
      const resets = { queue: 0, device: 0 };
      const kept: number[] = [];
      scene.watchWrites((register, value) => {
        if (register === MMIO_QUEUE_RESET) resets.queue++;
        else if (register === MMIO_STATUS && value === 0) resets.device++;
        else return;
        for (const handle of kept.splice(0)) scene.backend.ports.grantMapper.unmap(handle);
      });
      for (let round = 0; round < 12; round++) {
        const { results, done } = await countedRead(disk);
        const bystander = await countedRead(disk);
        scene.run();
        kept.push(keepData(scene, 0));
        scene.device.serve(OK);
        disk.poll();
        scene.run();
        // After a reset the old chain is there as well, for nobody.
        if (scene.device.held.length === 2) scene.device.held.shift();
        scene.device.serve(OK);
        disk.poll();
        await Promise.all([done, bystander.done]);
        assert.deepEqual(results, [mode === 'direct' ? 'EIO' : 'read']);
        assert.deepEqual(bystander.results, ['read'], 'asked again after the reset, answered once');
        assert.ok(scene.guest.quarantined <= 10);
      }
      assert.equal(disk.resets, 1);
      // A device that is reset begins anew, which is a reset too.
      assert.deepEqual(resets, byQueue ? { queue: 1, device: 0 } : { queue: 0, device: 2 });
      for (const handle of kept) scene.backend.ports.grantMapper.unmap(handle);
      scene.detach(disk);
    });
  }

  test(`B5 F26: ${mode}: a device that breaks the protocol is reset, and answers what it had not, once each`, async () => {
    const scene = recoveringScene();
    const disk = scene.attach(mode, 2);
    // More than the queues hold: some wait in the driver.
    const reads = await Promise.all(Array.from({ length: 40 }, () => countedRead(disk)));
    scene.run();
    const before = scene.device.held.splice(0);
    assert.ok(before.length < 40);
    breakProtocol(scene);
    disk.poll();
    assert.deepEqual([disk.health, disk.resets], ['working', 1]);
    // What the device remembers of before the reset is for nobody.
    for (const { queue, chain } of before) queue.complete(chain, 0, 0);
    disk.poll();
    assert.ok(reads.every(({ results }) => results.length === 0));
    for (let answered = 0; answered < 40; ) {
      scene.run();
      for (; scene.device.held.length > 0; answered++) scene.device.serve(OK);
      disk.poll();
    }
    await Promise.all(reads.map(({ done }) => done));
    for (const { results, buffer } of reads) {
      assert.deepEqual(results, ['read']);
      assert.ok(buffer.bytes.every((byte) => byte === HostileDisk.CONTENT));
    }
    scene.detach(disk);
  });

  test(`B9: ${mode}: a device that does not answer is reset, asked again, and given up in the end`, async () => {
    const scene = recoveringScene({ resets: 2 });
    const disk = scene.attach(mode);
    const { results, done } = await countedRead(disk);
    scene.run();
    scene.guest.revive('it does not answer');
    scene.run();
    assert.equal(scene.device.held.length, 2, 'asked again');
    scene.guest.revive('it does not answer');
    scene.run();
    scene.guest.revive('it does not answer');
    await done;
    assert.deepEqual(results, ['ENODEV']);
    assert.deepEqual([disk.health, disk.failure], ['failed', 'it does not answer']);
    scene.detach(disk);
  });

  test(`B13: ${mode}: a device whose reset does not end is asked nothing again; its pages stay in quarantine`, async () => {
    const scene = recoveringScene();
    const disk = scene.attach(mode);
    const { results, done } = await countedRead(disk);
    scene.run();
    const { mmio } = scene.guest.ports;
    const { write } = mmio;
    let deaf = true;
    mmio.write = (address, size, value) => {
      if (!deaf || address !== BASE + MMIO_STATUS || value !== 0) write.call(mmio, address, size, value);
    };
    scene.guest.revive('it does not answer');
    scene.run();
    assert.equal(disk.health, 'waiting');
    assert.match(disk.outage ?? '', /it does not answer; the device does not finish its reset/);
    assert.ok(scene.guest.quarantined >= 3);
    assert.equal(scene.device.held.length, 1);
    // In direct mode the caller's own pages are still mapped: that request is over.
    if (mode === 'direct') {
      await done;
      assert.deepEqual(results, ['EIO']);
    }
    deaf = false;
    scene.guest.reattach(disk, { base: BASE, backend: scene.backend.ports.id, device: 0 });
    scene.machine.advance(MINUTE);
    assert.deepEqual([disk.health, scene.guest.quarantined], ['working', 0]);
    scene.run();
    assert.equal(scene.device.held.length, mode === 'direct' ? 1 : 2);
    scene.device.held.shift();
    if (mode === 'bounce') {
      scene.device.serve(OK);
      disk.poll();
      await done;
      assert.deepEqual(results, ['read']);
    }
    scene.detach(disk);
  });
}

test('resets are forgiven after a while: only those of the last minutes count', async () => {
  const scene = recoveringScene({ resets: 2, window: 1000 });
  const disk = scene.attach('bounce');
  for (let round = 0; round < 17; round++) {
    scene.machine.advance(600);
    const { results, done } = await countedRead(disk);
    scene.run();
    breakProtocol(scene);
    disk.poll();
    scene.run();
    scene.device.held.shift();
    scene.device.serve(OK);
    disk.poll();
    await done;
    assert.deepEqual(results, ['read']);
  }
  assert.equal(disk.resets, 17);
  scene.detach(disk);
  assert.equal(scene.guest.troubles.resets, 17, 'also of a device that is gone');
});

test('B20: a device that says once that it needs a reset gets it', async () => {
  const scene = recoveringScene();
  const disk = scene.attach('bounce');
  const { results, done } = await countedRead(disk);
  scene.run();
  let broken = true;
  scene.watchWrites((register, value) => {
    if (register === MMIO_STATUS && value === 0) broken = false;
  });
  scene.lie((register, truth) => {
    if (!broken) return truth;
    return register === MMIO_STATUS ? truth | 64 : register === MMIO_INTERRUPT_STATUS ? 2 : truth;
  });
  disk.interrupt();
  assert.deepEqual([disk.health, disk.resets], ['working', 1]);
  scene.run();
  scene.device.held.shift();
  scene.device.serve(OK);
  disk.poll();
  await done;
  assert.deepEqual(results, ['read']);
  scene.detach(disk);
});

test('what is asked again comes in the order in which it was asked, and before what waited behind it', async () => {
  const scene = recoveringScene();
  const disk = scene.attach('bounce', 2);
  const buffer = await disk.buffer(SECTOR);
  const asked: Promise<void>[] = [];
  const expected: number[] = [];
  for (let i = 0; i < 20; i++) {
    asked.push(i % 3 === 2 ? disk.flush() : disk.write(i * SECTOR, buffer, SECTOR));
    expected.push(i % 3 === 2 ? VIRTIO_BLK_T_FLUSH : VIRTIO_BLK_T_OUT + i * 16);
  }
  scene.run();
  scene.device.held.length = 0;
  breakProtocol(scene);
  disk.poll();
  const seen: number[] = [];
  while (seen.length < 20) {
    scene.run();
    // Queues are served one after the other; within the disk the driver takes turns.
    const [even, odd] = [0, 1].map((half) =>
      scene.device.held.filter(({ queue }) => (queue === scene.device.held[0].queue) === (half === 0)),
    );
    for (let i = 0; i < Math.max(even.length, odd.length); i++)
      for (const request of [even[i], odd[i]]) {
        if (request === undefined) continue;
        const header = new Uint8Array(16);
        request.chain.readable.copyTo(header, 0, 16);
        seen.push(header[0] + header[8] * 16);
      }
    while (scene.device.held.length > 0) scene.device.serve(OK);
    disk.poll();
  }
  assert.deepEqual(seen, expected);
  await Promise.all(asked);
  scene.detach(disk);
});

test('a disk that comes back with another size is not written to; requests wait, and fail when it is given up', async () => {
  const scene = recoveringScene();
  const disk = scene.attach('bounce');
  const { results, done } = await countedRead(disk);
  scene.run();
  scene.device.config[0] ^= 1;
  scene.guest.revive('it does not answer');
  scene.run();
  assert.equal(disk.health, 'waiting');
  assert.match(disk.outage ?? '', /came back with 66048 bytes; it had 65536/);
  assert.equal(scene.device.held.length, 1);
  scene.guest.giveUp('enough');
  await done;
  assert.deepEqual(results, ['ENODEV']);
  scene.detach(disk);
});

test('a device that is given up in the middle of its reset stays given up', async () => {
  const scene = recoveringScene();
  const disk = scene.attach('bounce');
  const { results, done } = await countedRead(disk);
  scene.run();
  let resets = 0;
  scene.watchWrites((register, value) => {
    if (register === MMIO_STATUS && value === 0 && ++resets === 2) disk.fail('enough');
  });
  scene.guest.revive('it does not answer');
  await done;
  assert.deepEqual([results, disk.health, disk.failure], [['ENODEV'], 'failed', 'enough']);
  assert.equal(scene.backend.ports.grantMapper.live, 0, 'it was not started');
  scene.detach(disk);
});
