// Who decides how a device reaches memory: the toolstack and the guest, and never the backend, whatever it rewrites
// of what it owns. A machine with a block device, a guest that looks for it, and the store between them.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { BlkDevice } from '../devices/blk.ts';
import { type Decision, GRANT_POLICIES, type GrantPolicy, type GuestFacts } from '../dma/policy.ts';
import { P2M_FOREIGN } from '../hosts/model/physmap.ts';
import { MemoryStore } from '../storage/memory-store.ts';
import { guestTree } from '../toolstack/device-tree/guest-tree.ts';
import {
  announceDevice,
  backendPath,
  createHome,
  frontendPath,
  grantPath,
  type VirtioNodes,
} from '../toolstack/virtio-nodes.ts';
import { DeviceRefused } from '../virtio/negotiate.ts';
import { type DomainId, domainId } from '../xen/ids.ts';
import { localXenstore } from '../xenstore/local.ts';
import { Store } from '../xenstore/store.ts';
import { BackendService } from './backend-service.ts';
import { findDevice, type GuestView, type WantedDevice } from './device-finder.ts';
import { guestView } from './guest-view.test.helper.ts';
import { Machine } from './machine.ts';

const BACKEND = domainId(1);
const GUEST = domainId(2);
const BASE = 0x200_0000;
const OPTIONS = { queues: 1, queueSize: 16 };
const DISK = { kind: 'virtio_disk' as const, devid: 0 };
const nodes: VirtioNodes = {
  ...DISK,
  backend: BACKEND,
  guest: GUEST,
  virtioId: 2,
  base: BASE,
  irq: 33,
  grantUsage: true,
  disk: { params: 'image', readOnly: false, dev: 'xvda' },
};
const DIRECTORY = backendPath(nodes);

/** What Xen hands a guest on Arm that has the device, or none. */
function treeWith(grantsTo: DomainId | undefined, base = BASE): GuestView['tree'] {
  return guestTree({
    xenVersion: { major: 4, minor: 20 },
    memory: 16,
    vcpus: 1,
    gic: 'v3',
    addressBits: 40,
    devices: [{ base, irq: 33, type: undefined, grantsTo }],
  });
}

/** A machine whose toolstack has announced the disk; `attack` comes before the backend looks at it. */
async function scene(grantUsage: boolean, attack: (backend: Store) => Promise<void> = async () => undefined) {
  const store = new Store();
  const [toolstack, backendStore, guestStore] = [domainId(0), BACKEND, GUEST].map((id) =>
    localXenstore(store, id),
  );
  for (const id of [BACKEND, GUEST]) await createHome(toolstack!, id);
  const machine = new Machine({ seed: 4 });
  const backend = machine.createBackend(BACKEND);
  const guest = machine.createGuest(GUEST);
  /** Pages of other domains in the backend's address space. */
  const foreignPages = () =>
    [...machine.xen.domain(BACKEND).physmap.entries()].filter(({ type }) => type === P2M_FOREIGN).length;
  await announceDevice(toolstack!, { ...nodes, grantUsage });
  await attack(store);
  const service = new BackendService(backend, backendStore!, () => ({
    device: new BlkDevice(new MemoryStore(new Uint8Array(65536)), { ...OPTIONS, id: 'x' }),
    close: () => undefined,
  }));
  await service.start();
  const find = (
    view: GuestView,
    wanted: Partial<WantedDevice> = {},
    explain?: (decision: Decision) => void,
  ) => findDevice(guestStore!, view, { ...DISK, ...wanted }, explain);
  const read = async (place: Awaited<ReturnType<typeof find>>) => {
    const disk = guest.attachBlk({ ...place, device: 0 }, 'bounce', OPTIONS);
    await machine.settle(disk.read(0, await disk.buffer(4096), 4096));
    return guest.detach(disk);
  };
  return {
    foreignPages,
    toolstack: toolstack!,
    backend,
    guest,
    guestStore: guestStore!,
    service,
    find,
    read,
  };
}

/** Writes below the backend's directory as the backend, which may. */
const rewriting = (values: Record<string, string>) => async (store: Store) => {
  const backend = localXenstore(store, BACKEND);
  for (const [name, value] of Object.entries(values)) await backend.write(`${DIRECTORY}/${name}`, value);
};

const requiring = (facts: Partial<GuestFacts> = {}, tree?: GuestView['tree']) =>
  guestView({ id: GUEST, ...facts }, tree);

test('the device tree is the first source on Arm, and xenstore where there is none', async () => {
  const decisions: Decision[] = [];
  const { find, read, service } = await scene(true);
  for (const tree of [treeWith(BACKEND), undefined, treeWith(BACKEND, 0x300_0000)]) {
    const place = await find(requiring({}, tree), {}, (decision) => decisions.push(decision));
    assert.deepEqual(place, { base: BASE, backend: BACKEND, access: 'grants' });
    assert.deepEqual(await read(place), { live: 0, quarantined: 0 });
  }
  assert.deepEqual(
    decisions.map((decision) => decision.access === 'grants' && decision.source),
    ['device tree', 'xenstore', 'xenstore'],
  );
  await service.stop();
});

test('a device given without grants is served plainly where the guest lets it, and nothing is granted', async () => {
  for (const policy of ['prefer', 'forbid'] as const) {
    const { find, read, guest, service, foreignPages } = await scene(false);
    const place = await find(requiring({ policy }, treeWith(undefined)));
    assert.deepEqual(place, { base: BASE, backend: BACKEND, access: 'plain' });
    assert.deepEqual(await read(place), { live: 0, quarantined: 0 });
    assert.equal(guest.dma.granting.references.live, 0);
    assert.ok(foreignPages() >= 4096, 'all of the 16 MiB are mapped');
    await service.stop();
    assert.equal(foreignPages(), 0, 'and let go of with the device');
  }
});

test('L4: a device given without grants is refused where they are required, by tree and by xenstore', async () => {
  const { find, service } = await scene(false);
  await assert.rejects(find(requiring({}, treeWith(undefined))), /the device tree gives the device without/);
  await assert.rejects(find(requiring()), /xenstore gives the device without/);
  await service.stop();
});

test('G24: a tree and a store that disagree about the backend, or about grants, refuse the device', async () => {
  const { find, service } = await scene(true);
  const other = domainId(3);
  await assert.rejects(
    find(requiring({}, treeWith(other))),
    /the device tree names domain 3, xenstore domain 1/,
  );
  const prefer = { policy: 'prefer' } as const;
  await assert.rejects(
    find(requiring(prefer, treeWith(undefined))),
    /xenstore names domain 1, and the device tree/,
  );
  await assert.rejects(
    find(requiring(), { backend: 3 }),
    /xenstore names domain 1, the configuration domain 3/,
  );
  await assert.rejects(find(requiring(), { backend: GUEST }), /the guest itself cannot be the backend/);
  await service.stop();
});

test('R9 G24: a toolstack that names the guest itself, or an id that no domain has, is not believed', async () => {
  for (const [id, says] of [
    [`${GUEST}`, /the guest itself/],
    ['32752', /ids from 0x7ff0 on/],
    ['65537', /16 bits/],
  ] as const) {
    const { toolstack, find, service } = await scene(true);
    await toolstack.write(grantPath(nodes), id);
    await toolstack.write(`${frontendPath(nodes)}/backend-id`, id);
    await assert.rejects(find(requiring()), (error: Error) => {
      return error instanceof DeviceRefused && says.test(error.message);
    });
    await service.stop();
  }
});

const LIES: readonly Record<string, string>[] = [
  { grant_usage: '0' },
  { grant_usage: '' },
  { 'backend-id': '3', backend: '3', grant_usage: '0' },
  { 'frontend-id': '3', frontend: '/local/domain/3/device/virtio_disk/0' },
];

for (const policy of GRANT_POLICIES.slice(0, 2))
  for (const lie of LIES)
    test(`X16 G5 G21: policy ${policy}, a backend that writes ${JSON.stringify(lie)} gets grants or nothing`, async () => {
      const decisions: Decision[] = [];
      const { find, read, guest, service } = await scene(true, rewriting(lie));
      const place = await find(requiring({ policy }), {}, (decision) => decisions.push(decision));
      assert.deepEqual(place, { base: BASE, backend: BACKEND, access: 'grants' });
      assert.ok(decisions[0]!.access === 'grants' && decisions[0]!.backend === BACKEND);
      // Its device strips VIRTIO_F_ACCESS_PLATFORM once it believes its own lie: no address is ever handed out.
      if (lie['grant_usage'] === '0') {
        await assert.rejects(read(place), (error: Error) => {
          return (
            error instanceof DeviceRefused && /must provide VIRTIO_F_ACCESS_PLATFORM/.test(error.message)
          );
        });
        assert.equal(guest.dma.granting.references.live, 0);
      } else assert.deepEqual(await read(place), { live: 0, quarantined: 0 });
      await service.stop();
    });

test('X16 G24: a backend that points the guest to registers that the tree gives to another is refused', async () => {
  const attack = rewriting({ base: `${BASE + 0x200}` });
  const { find, service } = await scene(true, attack);
  const tree = treeWith(domainId(3), BASE + 0x200);
  await assert.rejects(find(requiring({}, tree)), /the device tree names domain 3, xenstore domain 1/);
  const plain = treeWith(undefined, BASE + 0x200);
  const policy: GrantPolicy = 'prefer';
  await assert.rejects(find(requiring({ policy }, plain)), /the device tree gives the device without grants/);
  await service.stop();
});

test('G21: a backend that offers grants to a guest that forbids them is not used', async () => {
  const { find, read, service } = await scene(true);
  const place = await find(requiring({ policy: 'forbid' }));
  await assert.rejects(read(place), /the device does not accept the features/);
  await service.stop();
});

test('PV guests and guests with encrypted memory need grants, whatever the toolstack and the policy say', async () => {
  for (const facts of [{ kind: 'pv', architecture: 'x86' }, { encryptedMemory: true }] as const) {
    const { find, service } = await scene(false);
    for (const policy of GRANT_POLICIES)
      await assert.rejects(find(requiring({ ...facts, policy })), DeviceRefused);
    await service.stop();
  }
});

test('a device that was never announced is refused, and the guest does not wait for it', async () => {
  const { find, service } = await scene(true);
  await assert.rejects(find(requiring(), { devid: 7 }), /virtio_disk device 7 is refused: .*no source says/);
  await assert.rejects(find(requiring({ policy: 'prefer' }), { devid: 7 }), /has not given the device/);
  await service.stop();
});
