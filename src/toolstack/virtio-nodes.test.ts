// What the toolstack writes of a device is what backend and guest read, and nobody else can change it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { domainId } from '../xen/ids.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import { localXenstore } from '../xenstore/local.ts';
import { Store } from '../xenstore/store.ts';
import {
  announceDevice,
  backendPath,
  childrenOf,
  createHome,
  frontendPath,
  readDevice,
  type VirtioNodes,
  withdrawDevice,
} from './virtio-nodes.ts';

const BACKEND = domainId(1);
const GUEST = domainId(2);
const STRANGER = domainId(3);

const entropy: VirtioNodes = {
  kind: 'virtio',
  backend: BACKEND,
  guest: GUEST,
  devid: 5,
  virtioId: 4,
  base: 0x200_0a00,
  irq: 38,
  grantUsage: false,
};
const disk: VirtioNodes = {
  ...entropy,
  kind: 'virtio_disk',
  devid: 0,
  virtioId: 2,
  base: 0x200_0000,
  irq: 33,
  grantUsage: true,
  disk: { params: '/images/a b.img', readOnly: true, dev: 'xvda' },
};

async function scene() {
  const store = new Store();
  const [toolstack, backend, guest, stranger] = [domainId(0), BACKEND, GUEST, STRANGER].map((id) =>
    localXenstore(store, id),
  );
  for (const id of [BACKEND, GUEST, STRANGER]) await createHome(toolstack, id);
  return { toolstack, backend, guest, stranger };
}

const forbidden = (error: unknown) => error instanceof XenstoreError && error.code === 'EACCES';

for (const device of [entropy, disk]) {
  const { kind, devid } = device;

  test(`${kind}: both ends read the device that was announced`, async () => {
    const { toolstack, backend, guest } = await scene();
    await announceDevice(toolstack, device);
    assert.deepEqual(await readDevice(backend, kind, BACKEND, GUEST, devid), device);
    assert.deepEqual(await readDevice(guest, kind, BACKEND, GUEST, devid), device);
    assert.equal(await guest.read(`${frontendPath(device)}/backend-id`), `${BACKEND}`);
    assert.deepEqual(await childrenOf(backend, `/local/domain/${BACKEND}/backend/${kind}/${GUEST}`), [
      `${devid}`,
    ]);
  });

  test(`${kind}: a withdrawn device is gone for both ends`, async () => {
    const { toolstack, backend, guest } = await scene();
    await announceDevice(toolstack, device);
    await withdrawDevice(toolstack, device);
    assert.equal(await readDevice(backend, kind, BACKEND, GUEST, devid), undefined);
    assert.deepEqual(await childrenOf(guest, frontendPath(device)), []);
  });
}

test('the base address is written as libxl writes it: decimal for disks, hexadecimal otherwise', async () => {
  const { toolstack } = await scene();
  await announceDevice(toolstack, disk);
  await announceDevice(toolstack, entropy);
  assert.equal(await toolstack.read(`${backendPath(disk)}/base`), '33554432');
  assert.equal(await toolstack.read(`${backendPath(entropy)}/base`), '0x2000a00');
});

test('X16: neither the guest nor a stranger changes what the backend is told', async () => {
  const { toolstack, guest, stranger } = await scene();
  await announceDevice(toolstack, disk);
  const params = `${backendPath(disk)}/params`;
  await assert.rejects(guest.write(params, '/etc/shadow'), forbidden);
  await assert.rejects(stranger.write(params, '/etc/shadow'), forbidden);
  await assert.rejects(stranger.read(params), forbidden);
});
