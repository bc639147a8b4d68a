// Only keys that the toolstack or the guest itself wrote say who serves a device; a backend's own do not.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { domainId } from '../xen/ids.ts';
import { XenstoreError } from '../xen/xenstore.ts';
import { localXenstore } from '../xenstore/local.ts';
import { Store } from '../xenstore/store.ts';
import { storeFinding } from './store-finding.ts';
import {
  announceDevice,
  backendPath,
  createHome,
  frontendPath,
  grantPath,
  type VirtioNodes,
  withdrawDevice,
} from './virtio-nodes.ts';

const BACKEND = domainId(1);
const GUEST = domainId(2);
const STRANGER = domainId(3);
const nodes: VirtioNodes = {
  kind: 'virtio',
  backend: BACKEND,
  guest: GUEST,
  devid: 0,
  virtioId: 4,
  base: 0x200_0000,
  irq: 33,
  grantUsage: true,
};
const BACKEND_ID = `${frontendPath(nodes)}/backend-id`;
const GRANT_DMA = grantPath(nodes);

async function scene(device = nodes) {
  const store = new Store();
  const [toolstack, backend, guest] = [domainId(0), BACKEND, GUEST].map((id) => localXenstore(store, id));
  for (const id of [BACKEND, GUEST, STRANGER]) await createHome(toolstack!, id);
  await announceDevice(toolstack!, device);
  const found = () => storeFinding(guest!, device);
  return { toolstack: toolstack!, backend: backend!, guest: guest!, found };
}

test('the toolstack says to whom the guest grants, or that it does not', async () => {
  const granted = await (await scene()).found();
  assert.deepEqual(granted, { kind: 'backend', domain: 1, says: `${GRANT_DMA} names domain 1` });
  const plain = await (await scene({ ...nodes, grantUsage: false })).found();
  assert.equal(plain.kind, 'no grants');
});

test('a toolstack that writes only what libxl writes names the backend', async () => {
  const { toolstack, found } = await scene({ ...nodes, grantUsage: false });
  await toolstack.remove(GRANT_DMA);
  assert.deepEqual(await found(), { kind: 'backend', domain: 1, says: `${BACKEND_ID} names domain 1` });
  await toolstack.remove(BACKEND_ID);
  assert.equal((await found()).kind, 'nothing');
});

test('X16 G24: a backend that rewrites all that it may write changes nothing', async () => {
  for (const grantUsage of [true, false]) {
    const { backend, found } = await scene({ ...nodes, grantUsage });
    const before = await found();
    const directory = backendPath(nodes);
    for (const name of await backend.directory(directory))
      for (const value of ['0', '1', '3', 'none', '']) await backend.write(`${directory}/${name}`, value);
    await backend.write(`${directory}/backend-id`, '3');
    assert.deepEqual(await found(), before);
  }
});

test('X16: the keys that count cannot be written by the backend, nor the toolstack’s own by the guest', async () => {
  const { backend, guest } = await scene();
  const forbidden = (error: unknown) => error instanceof XenstoreError && error.code === 'EACCES';
  for (const path of [BACKEND_ID, GRANT_DMA]) {
    await assert.rejects(backend.write(path, '3'), forbidden);
    await assert.rejects(backend.remove(path), forbidden);
    await assert.rejects(backend.setPermissions(path, [{ domain: BACKEND, access: 'n' }]), forbidden);
  }
  await assert.rejects(guest.write(GRANT_DMA, '3'), forbidden);
});

for (const [title, permissions] of [
  ['belongs to the backend', [{ domain: BACKEND, access: 'n' }]],
  [
    'may be written by the backend',
    [
      { domain: GUEST, access: 'n' },
      { domain: BACKEND, access: 'w' },
    ],
  ],
  [
    'may be read and written by a stranger',
    [
      { domain: 0, access: 'r' },
      { domain: STRANGER, access: 'b' },
    ],
  ],
  ['may be written by anybody', [{ domain: 0, access: 'b' }]],
] as const)
  for (const path of [BACKEND_ID, GRANT_DMA])
    test(`X16 L3: ${path} is a fault when it ${title}`, async () => {
      const { toolstack, found } = await scene();
      const reader = { domain: GUEST, access: 'r' as const };
      await toolstack.setPermissions(path, [...permissions, reader]);
      const finding = await found();
      assert.equal(finding.kind, 'fault');
      assert.match(finding.says, /can be changed by (domain [13]|any domain)$/);
    });

test('G24 L3: values that are no ids, keys that disagree and keys that cannot be read are faults', async () => {
  for (const value of ['', '-1', '0x1', '1 ', 'one', '99999999999']) {
    const { toolstack, found } = await scene();
    await toolstack.write(GRANT_DMA, value);
    assert.deepEqual(await found(), {
      kind: 'fault',
      says: `${GRANT_DMA} is ${JSON.stringify(value)}, which is no domain id`,
    });
  }
  const { toolstack, guest, found } = await scene();
  await guest.write(BACKEND_ID, '3');
  assert.deepEqual(await found(), { kind: 'fault', says: `${GRANT_DMA} is 1, and ${BACKEND_ID} is 3` });
  await toolstack.setPermissions(GRANT_DMA, [{ domain: 0, access: 'n' }]);
  assert.equal((await found()).says, `${GRANT_DMA} may not be read by the guest`);
});

test('a withdrawn device leaves none of the keys', async () => {
  const { toolstack, found } = await scene();
  await withdrawDevice(toolstack, nodes);
  assert.equal((await found()).kind, 'nothing');
});
