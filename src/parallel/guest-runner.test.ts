// The guest's processor between two requests: when it sleeps, what rouses it, and who else may poll.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { BlkDevice } from '../devices/blk.ts';
import type { WaitWhile } from '../hosts/model/waiting.ts';
import { Xen } from '../hosts/model/xen.ts';
import { BackendDomain } from '../machine/backend-domain.ts';
import { GuestDomain } from '../machine/guest-domain.ts';
import { StoreDomain } from '../machine/store-domain.ts';
import { openXenstore } from '../machine/store-link.ts';
import { MemoryStore } from '../storage/memory-store.ts';
import { domainId } from '../xen/ids.ts';
import { Store } from '../xenstore/store.ts';
import { GuestRunner } from './guest-runner.ts';

const BASE = 0x0200_0000;
const OPTIONS = { queues: 1, queueSize: 128 };

/** A guest with a disk, in memory that one can sleep on; backend and store run only when the test polls them. */
async function scene() {
  const xen = Xen.boot(32 << 20, 32 << 20, true);
  for (const id of [1, 2]) xen.createDomain(id, { memory: 4 << 20 });
  xen.nameDeviceModel(2, 1);
  let backend: BackendDomain | undefined;
  const waitWhile: WaitWhile = (words, index, value) => {
    while (Atomics.load(words, index) === value) backend?.poll();
    return true;
  };
  const control = new StoreDomain(xen, 'x86', new Store(), waitWhile);
  backend = new BackendDomain(xen.ports(domainId(1), waitWhile));
  const ports = xen.ports(domainId(2), waitWhile);
  const store = openXenstore(ports, control.introduce(ports));
  const guest = new GuestDomain(ports);
  const device = new BlkDevice(new MemoryStore(new Uint8Array(1 << 20)), { ...OPTIONS, id: 'x' });
  backend.serve(device, ports.id, BASE);
  const disk = guest.attachBlk({ base: BASE, backend: backend.ports.id, device: 0 }, 'bounce', OPTIONS);
  const runner = new GuestRunner(guest);
  void runner.run();
  return { control, store, backend, guest, disk, runner, buffer: await disk.buffer(512) };
}

/** Long enough for a guest that has nothing to do to fall asleep. */
async function pause(): Promise<void> {
  for (let turns = 0; turns < 100; turns++) await turn();
}

test('a guest that sleeps is roused by a request and by an answer of the store', async () => {
  const { control, store, backend, disk, buffer } = await scene();
  for (let round = 0; round < 5; round++) {
    await pause();
    const [read, refused] = [disk.read(0, buffer, 512), store.read('none')];
    backend.poll();
    control.poll();
    await read;
    await assert.rejects(refused, { code: 'EACCES' });
  }
});

test('while somebody else polls the guest it leaves it alone, and goes on afterwards', async () => {
  const { backend, guest, disk, buffer, runner } = await scene();
  let polls = 0;
  const { poll } = guest;
  guest.poll = () => {
    polls++;
    return poll.call(guest);
  };
  await runner.pausedWhile(
    (async () => {
      await pause();
      polls = 0;
      const read = disk.read(0, buffer, 512);
      backend.poll();
      await pause();
      assert.equal(polls, 0);
      guest.poll();
      await read;
    })(),
  );
  const read = disk.read(0, buffer, 512);
  backend.poll();
  await read;
});
