// B17 An entropy device that answers with nothing, with too much, or not at all.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { RngDriver } from '../../src/drivers/rng.ts';
import { HostileDisk, HostileScene } from '../support/hostile-disk.test.helper.ts';
import { BASE } from '../support/scene.test.helper.ts';

const FAILED = { name: 'DeviceFailed' };

function start(): { scene: HostileScene; rng: RngDriver } {
  const scene = new HostileScene(new HostileDisk({ deviceId: 4, features: 0n, queueSizes: [8] }));
  const rng = scene.guest.attachRng({ base: BASE, backend: scene.backend.ports.id, device: 0 }, 'bounce');
  return { scene, rng };
}

/** Until the driver's request, which takes a turn of promises, lies with the device. */
async function requested(scene: HostileScene): Promise<void> {
  for (let turn = 0; scene.device.held.length === 0; turn++) {
    assert.ok(turn < 10, 'the driver asks for something');
    await Promise.resolve();
    scene.run();
  }
}

/** Answers every request with `answer(bytes asked for)` bytes of 0x5a until `done`. Returns how many that were. */
async function answerAll(
  scene: HostileScene,
  done: Promise<unknown>,
  answer: (asked: number) => number,
): Promise<number> {
  let settled = false;
  let answers = 0;
  const end = () => {
    settled = true;
  };
  done.then(end, end);
  for (let turn = 0; !settled && turn < 1000; turn++) {
    scene.run();
    const request = scene.device.held.shift();
    if (request !== undefined) {
      const { queue, chain } = request;
      const length = Math.min(answer(chain.writable.byteLength), chain.writable.byteLength);
      chain.writable.copyFrom(new Uint8Array(length).fill(0x5a), 0);
      queue.complete(chain, 0, length);
      answers++;
    }
    await Promise.resolve();
  }
  return answers;
}

test('B17 a device that answers with nothing is asked a few times, then given an error for', async () => {
  const { scene, rng } = start();
  const read = rng.read(16);
  const rejected = assert.rejects(read, { ...FAILED, message: /with nothing/ });
  assert.equal(await answerAll(scene, read, () => 0), 8);
  await rejected;
  scene.guest.detach(rng);
  scene.nothingLeft();
});

for (const piece of [1, 7, 4095, 4096]) {
  test(`B17 answers of ${piece} bytes are put together until there is enough`, async () => {
    const { scene, rng } = start();
    const read = rng.read(5000);
    if (piece < 100) {
      // A byte at a time is slow, but it is an answer; ask for less.
      const few = rng.read(50);
      await answerAll(scene, Promise.all([read, few]), () => 4096);
      const slow = rng.read(50);
      assert.equal(await answerAll(scene, slow, () => piece), Math.ceil(50 / piece));
      assert.ok((await slow).every((byte) => byte === 0x5a));
    } else await answerAll(scene, read, () => piece);
    const bytes = await read;
    assert.equal(bytes.length, 5000);
    assert.ok(
      bytes.every((byte) => byte === 0x5a),
      'no byte comes from anywhere else',
    );
    scene.guest.detach(rng);
    scene.nothingLeft();
  });
}

for (const claimed of [17, 4096, 4097, 0xffff_ffff]) {
  test(`B17 a claim of ${claimed} bytes where 16 were asked for is cut to 16`, async () => {
    const { scene, rng } = start();
    const read = rng.read(16);
    await requested(scene);
    const { queue, chain } = scene.device.held.shift()!;
    chain.writable.copyFrom(new Uint8Array(16).fill(0x5a), 0);
    queue.complete(chain, 0, 16);
    const ring = scene.ring();
    ring.used.setElement(0, chain.head, claimed);
    ring.release();
    const bytes = await scene.machine.settle(read);
    assert.deepEqual(bytes, new Uint8Array(16).fill(0x5a));
    scene.guest.detach(rng);
    scene.nothingLeft();
  });
}

test('B17 B9 a device that never answers is given up; what was asked for fails, and what is asked later', async () => {
  const { scene, rng } = start();
  const reads = [rng.read(16), rng.read(16)];
  const outcomes = Promise.allSettled(reads);
  await requested(scene);
  assert.ok(rng.busy);
  scene.guest.giveUp('the device did not answer in time');
  for (const outcome of await outcomes) assert.equal(outcome.status, 'rejected');
  await assert.rejects(rng.read(1), FAILED);
  assert.equal((await rng.read(0)).length, 0);
  scene.guest.detach(rng);
  scene.nothingLeft();
});

test('B17 B5 an answer that comes twice gives the device up', async () => {
  const { scene, rng } = start();
  const read = rng.read(16);
  const rejected = assert.rejects(read, FAILED);
  await requested(scene);
  const ring = scene.ring();
  ring.complete(scene.device.held[0].chain.head, 0);
  ring.complete(scene.device.held[0].chain.head, 0);
  ring.release();
  scene.run();
  await rejected;
  assert.match(rng.failure ?? '', /used index 2 ahead/);
  scene.guest.detach(rng);
  scene.nothingLeft();
});
