// Devices that come and go while the guest runs: whatever happens meanwhile, nothing of theirs stays.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { EXPOSURE_MODES } from '../../src/dma/exposure-modes.ts';
import { exploreRandom } from '../../src/explore/explore.ts';
import { explain } from '../../src/explore/scenario.ts';
import { randomFrom } from '../../src/machine/random.ts';
import { MAX_DEVICES, NoDeviceSlot } from '../../src/toolstack/device-slots.ts';
import { DeviceNotConnected, plugDevice, unplugDevice } from '../../src/toolstack/hot-plug.ts';
import {
  announceDevice,
  backendPath,
  frontendPath,
  type VirtioNodes,
  withdrawDevice,
} from '../../src/toolstack/virtio-nodes.ts';
import { XenstoreError } from '../../src/xen/xenstore.ts';
import { BACKEND, HotPlugScene } from '../support/hot-plug.test.helper.ts';

const ROUNDS = 25;
/** Steps at which something is taken away: more than plugging, or all requests of a disk, need. */
const MOMENTS = 120;

for (const mode of EXPOSURE_MODES) {
  test(`devices that are plugged, used and unplugged ${ROUNDS} times leave nothing, ${mode}`, async () => {
    const scene = await HotPlugScene.open({ mode });
    const before = scene.census;
    for (let round = 0; round < ROUNDS; round++) {
      const [disk, source] = [await scene.plug('disk'), await scene.plug('entropy')];
      assert.deepEqual([disk.devid, source.devid], [0, 1]);
      scene.readAll(disk);
      assert.equal((await scene.machine.settle(scene.source(source).read(5000))).length, 5000);
      assert.notDeepEqual(scene.census, before, 'the census sees devices');
      await scene.unplug(disk);
      await scene.unplug(source);
      assert.deepEqual(scene.census, before);
    }
  });

  test(`11: a disk that is unplugged in the middle of requests finishes them, and leaves nothing, ${mode}`, async () => {
    const scene = await HotPlugScene.open({ mode });
    const before = scene.census;
    for (let moment = 0; moment < MOMENTS; moment += 7) {
      const disk = await scene.plug('disk');
      const driver = scene.disk(disk);
      scene.readAll(disk);
      await scene.steps(moment);
      await scene.unplug(disk);
      assert.match(driver.failure ?? '', /unplugged/, 'it worked until it was no longer asked for anything');
      assert.deepEqual(scene.census, before, `unplugged after ${moment} steps`);
    }
  });

  test(`11: a disk that vanishes at any moment of its requests leaves nothing, ${mode}`, async () => {
    const scene = await HotPlugScene.open({ mode });
    const before = scene.census;
    for (let moment = 0; moment < MOMENTS; moment += 2) {
      const disk = await scene.plug('disk');
      const driver = scene.disk(disk);
      scene.keepReading(disk);
      await scene.steps(moment);
      await scene.rip(disk);
      await assert.rejects(driver.buffer(512), { code: 'ENODEV' });
      assert.deepEqual(scene.census, before, `gone after ${moment} steps`);
    }
  });

  test(`11: a backend that drops a device at any moment of its requests leaves nothing, ${mode}`, async () => {
    const scene = await HotPlugScene.open({ mode });
    const before = scene.census;
    for (let moment = 0; moment < MOMENTS; moment += 5) {
      const disk = await scene.plug('disk');
      scene.keepReading(disk);
      await scene.steps(moment);
      await scene.machine.settle(scene.machine.xenstoreOf(scene.backend.ports).remove(backendPath(disk)));
      await scene.settled();
      await scene.rip(disk);
      assert.deepEqual(scene.census, before, `gone after ${moment} steps`);
    }
  });
}

test('a device that vanishes at any moment while it is plugged leaves nothing', async () => {
  const scene = await HotPlugScene.open();
  const before = scene.census;
  for (let moment = 0; moment < 3 * MOMENTS; moment += 2) {
    const disk = scene.nodes(moment % 4 === 0 ? 'disk' : 'entropy');
    await announceDevice(scene.machine.xenstore, disk);
    await scene.steps(moment);
    await scene.rip(disk);
    assert.deepEqual(scene.census, before, `gone after ${moment} steps`);
  }
});

test('a device that is announced anew at any moment is the new one, and works', async () => {
  const scene = await HotPlugScene.open();
  const before = scene.census;
  const { xenstore } = scene.machine;
  for (let moment = 0; moment < 3 * MOMENTS; moment += 8) {
    const disk = scene.nodes('disk');
    await announceDevice(xenstore, disk);
    await scene.steps(moment);
    await withdrawDevice(xenstore, disk);
    await scene.steps(moment % 4);
    await scene.machine.settle(plugDevice(xenstore, disk));
    await scene.settled();
    scene.readAll(disk);
    await scene.machine.settle(Promise.allSettled(scene.work));
    assert.equal(scene.disk(disk).failure, undefined, `after ${moment} steps`);
    await scene.unplug(disk);
    assert.deepEqual(scene.census, before, `after ${moment} steps`);
  }
});

test('X17: states that both ends toggle at random are followed, and nothing is left when it is over', async () => {
  const scene = await HotPlugScene.open();
  const before = scene.census;
  const { machine } = scene;
  const stores = [machine.xenstoreOf(scene.guest.ports), machine.xenstoreOf(scene.backend.ports)];
  for (let seed = 1; seed <= 12; seed++) {
    const random = randomFrom(seed);
    const pick = (count: number) => Math.floor(random() * count);
    const disk = scene.nodes('disk');
    const ends = [frontendPath(disk), backendPath(disk)];
    await announceDevice(machine.xenstore, disk);
    for (let change = 0; change < 40; change++) {
      await scene.steps(pick(30));
      const end = pick(2);
      // A state that makes no sense, none at all, or the device announced again in the middle of it all.
      const kind = pick(8);
      if (kind === 0) {
        await withdrawDevice(machine.xenstore, disk);
        await scene.steps(pick(20));
        await announceDevice(machine.xenstore, disk);
      } else if (kind === 1) void ignoringStore(stores[end]!.remove(`${ends[end]!}/state`));
      else void ignoringStore(stores[end]!.write(`${ends[end]!}/state`, `${pick(8)}`));
      if (pick(4) === 0 && scene.disk(disk) !== undefined) scene.readAll(disk);
    }
    await scene.settled();
    await scene.rip(disk);
    // What a hostile end writes after that is its own affair; these two have nothing more to write.
    assert.deepEqual(scene.census, before, `seed ${seed}`);
    const again = await scene.plug('disk');
    await scene.unplug(again);
  }
});

test('C7: a device that is removed while the guest stands still, or right after it goes on, leaves nothing', async () => {
  const scene = await HotPlugScene.open();
  const { machine, guest } = scene;
  const before = scene.census;
  for (let moment = 0; moment < MOMENTS; moment += 4) {
    const disk = scene.nodes('disk');
    await announceDevice(machine.xenstore, disk);
    await scene.steps(moment);
    machine.pause(guest.ports.id);
    await scene.steps(50);
    if (moment % 8 === 0) await withdrawDevice(machine.xenstore, disk);
    machine.unpause(guest.ports.id);
    await scene.rip(disk);
    assert.deepEqual(scene.census, before, `paused after ${moment} steps`);
  }
});

test('a device that its backend cannot make is refused with the reason, and leaves nothing', async () => {
  const scene = await HotPlugScene.open();
  const before = scene.census;
  const nodes = scene.nodes('disk');
  const bad: VirtioNodes = { ...nodes, disk: { ...nodes.disk!, params: 'bad\u001b[2J' } };
  await assert.rejects(scene.machine.settle(plugDevice(scene.machine.xenstore, bad)), (error) => {
    assert.ok(error instanceof DeviceNotConnected);
    assert.equal(error.message, 'no image bad\ufffd[2J', 'D9: nothing that a terminal would obey');
    return true;
  });
  await scene.gone(bad);
  assert.deepEqual(scene.census, before);
});

test('G21: a device that the guest refuses is taken away again, with the guest’s reason', async () => {
  const scene = await HotPlugScene.open();
  const before = scene.census;
  const nodes = { ...scene.nodes('disk'), grantUsage: false };
  await assert.rejects(
    scene.machine.settle(plugDevice(scene.machine.xenstore, nodes)),
    (error) => error instanceof DeviceNotConnected && /gives the device without/.test(error.message),
  );
  await scene.gone(nodes);
  assert.deepEqual(scene.census, before);
});

test('a guest has eleven devices at most; the twelfth is refused, and places are used again', async () => {
  const scene = await HotPlugScene.open();
  const before = scene.census;
  const all: VirtioNodes[] = [];
  for (let device = 0; device < MAX_DEVICES; device++)
    all.push(await scene.plug(device % 2 === 0 ? 'entropy' : 'disk'));
  assert.equal(MAX_DEVICES, 11);
  assert.throws(() => scene.slots.take(), NoDeviceSlot);
  await scene.unplug(all[4]!);
  const again = await scene.plug('disk');
  assert.deepEqual([again.devid, again.base, again.irq], [4, all[4]!.base, 37]);
  all[4] = again;
  await scene.machine.settle(Promise.all(all.map((nodes) => unplugDevice(scene.machine.xenstore, nodes))));
  for (const nodes of all) await scene.gone(nodes);
  assert.deepEqual(scene.census, before);
});

test('a guest that does not answer loses the device when the toolstack stops waiting', async () => {
  const scene = await HotPlugScene.open();
  const before = scene.census;
  const disk = await scene.plug('disk');
  scene.readAll(disk);
  scene.machine.pause(scene.guest.ports.id);
  const patience = new AbortController();
  const unplugged = unplugDevice(scene.machine.xenstore, disk, patience.signal);
  await scene.steps(100);
  patience.abort();
  assert.equal(await scene.machine.settle(unplugged), false);
  scene.machine.unpause(scene.guest.ports.id);
  await scene.gone(disk);
  assert.deepEqual(scene.census, before);
});

test('B20: the device of a backend that dies is given up, and its grants end with the backend', async () => {
  for (let moment = 0; moment < MOMENTS; moment += 11) {
    const scene = await HotPlugScene.open();
    const before = scene.census;
    const disk = await scene.plug('disk');
    scene.readAll(disk);
    await scene.steps(moment);
    scene.machine.destroy(BACKEND);
    await scene.rip(disk);
    scene.guest.recover();
    const { open, guests, work, faults } = scene.census;
    assert.deepEqual(
      // Of the mappings of a dying domain there are no events.
      { open: { ...open, mappings: 0 }, guests, work, faults },
      { open: before.open, guests: before.guests, work: 0, faults: [] },
      `died after ${moment} steps`,
    );
  }
});

test('unplugging in the middle of requests leaves nothing in any of many orders', async () => {
  const failure = await exploreRandom(
    async (choose) => {
      const scene = await HotPlugScene.open({ choose });
      const before = scene.census;
      const disk = await scene.plug('disk');
      scene.readAll(disk);
      await scene.steps(10);
      await scene.unplug(disk);
      assert.deepEqual(scene.census, before);
    },
    1,
    30,
  );
  assert.equal(failure, undefined, failure && explain(failure));
});

/** A write into a device that has gone fails, or is refused. */
async function ignoringStore(work: Promise<void>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!(error instanceof XenstoreError)) throw error;
  }
}
