// A backend serves what xenstore announces, says why when it cannot, and lets go of what is withdrawn.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../devices/blk.ts';
import { MemoryStore } from '../storage/memory-store.ts';
import {
  announceDevice,
  backendPath,
  createHome,
  type VirtioNodes,
  withdrawDevice,
} from '../toolstack/virtio-nodes.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import { domainId } from '../xen/ids.ts';
import { localXenstore } from '../xenstore/local.ts';
import { Store } from '../xenstore/store.ts';
import { BackendService } from './backend-service.ts';
import { findDevice } from './device-finder.ts';
import { guestView } from './guest-view.test.helper.ts';
import { Machine } from './machine.ts';

const BACKEND = domainId(1);
const GUEST = domainId(2);
const BASE = 0x200_0000;
const OPTIONS = { queues: 1, queueSize: 16 };
const DISK = { kind: 'virtio_disk' as const, devid: 0 };
const VIEW = guestView({ id: GUEST });

const nodes: VirtioNodes = {
  kind: 'virtio_disk',
  backend: BACKEND,
  guest: GUEST,
  devid: 0,
  virtioId: 2,
  base: BASE,
  irq: 33,
  grantUsage: true,
  disk: { params: 'good', readOnly: false, dev: 'xvda' },
};

async function scene() {
  const store = new Store();
  const [toolstack, backendStore, guestStore] = [domainId(0), BACKEND, GUEST].map((id) =>
    localXenstore(store, id),
  );
  await createHome(toolstack, BACKEND);
  await createHome(toolstack, GUEST);
  const machine = new Machine({ seed: 3 });
  const backend = machine.createBackend(BACKEND);
  const guest = machine.createGuest(GUEST);
  const closed: string[] = [];
  const reads = { directories: 0 };
  const { directory } = backendStore!;
  backendStore!.directory = (path) => {
    reads.directories++;
    return directory.call(backendStore, path);
  };
  const service = new BackendService(backend, backendStore!, ({ disk }) => {
    if (disk?.params !== 'good') throw new Error(`no image ${disk?.params}`);
    const device = new BlkDevice(new MemoryStore(new Uint8Array(65536)), { ...OPTIONS, id: 'x' });
    return { device, close: () => closed.push(disk.params) };
  });
  await service.start();
  return { machine, toolstack, guestStore, guest, backend, service, closed, reads };
}

/** Lets watches and their handlers run to their end. */
async function settle(done: () => boolean): Promise<void> {
  for (let turn = 0; turn < 10_000 && !done(); turn++) await Promise.resolve();
  assert.ok(done(), 'it did not happen');
}

test('a device is served when it is announced, and closed when it is withdrawn', async () => {
  const { machine, toolstack, guestStore, guest, service, closed } = await scene();
  await announceDevice(toolstack, nodes);
  const place = await findDevice(guestStore, VIEW, DISK);
  assert.deepEqual(place, { base: BASE, backend: BACKEND, access: 'grants' });
  const disk = guest.attachBlk({ ...place, device: 0 }, 'bounce', OPTIONS);
  await machine.settle(disk.read(0, await disk.buffer(4096), 4096));
  assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  await withdrawDevice(toolstack, nodes);
  await settle(() => closed.length === 1);
  await service.stop();
  assert.deepEqual(closed, ['good']);
});

test('a device that cannot be made is refused with the reason, and others are served', async () => {
  const { toolstack, guestStore, service, closed } = await scene();
  await announceDevice(toolstack, { ...nodes, disk: { ...nodes.disk!, params: 'bad' } });
  await announceDevice(toolstack, { ...nodes, devid: 1, base: BASE + 0x200 });
  await assert.rejects(findDevice(guestStore, VIEW, DISK), (error: Error) => {
    return error instanceof DeviceRefused && error.message === 'no image bad';
  });
  assert.deepEqual(await findDevice(guestStore, VIEW, { ...DISK, devid: 1 }), {
    base: BASE + 0x200,
    backend: BACKEND,
    access: 'grants',
  });
  await service.stop();
  assert.deepEqual(closed, ['good']);
});

test('X7 a flood of events costs the backend one more look at the store, not one for each', async () => {
  const { toolstack, guestStore, service, reads } = await scene();
  const names = Array.from({ length: 500 }, (_, i) => `/local/domain/${BACKEND}/backend/flood/${i}`);
  await Promise.all(names.map((name) => toolstack.write(name, '')));
  await announceDevice(toolstack, nodes);
  await findDevice(guestStore, VIEW, DISK);
  await service.stop();
  assert.ok(reads.directories < 100, `${reads.directories} lists were read`);
});

test('G21: a device that the toolstack gives without grants is refused by the guest', async () => {
  const { toolstack, guestStore, service } = await scene();
  await announceDevice(toolstack, { ...nodes, grantUsage: false });
  await assert.rejects(findDevice(guestStore, VIEW, DISK), /xenstore gives the device without/);
  await service.stop();
});

test('G24: a guest that finds itself named as the backend of its device refuses it', async () => {
  const { toolstack, guestStore, service } = await scene();
  await announceDevice(toolstack, nodes);
  await guestStore.write(`/local/domain/${GUEST}/device/virtio_disk/0/backend-id`, `${GUEST}`);
  await assert.rejects(findDevice(guestStore, VIEW, DISK), /grant-dma.* is 1, and .*backend-id is 2/);
  assert.equal(await toolstack.read(`${backendPath(nodes)}/frontend-id`), `${GUEST}`);
  await service.stop();
});
