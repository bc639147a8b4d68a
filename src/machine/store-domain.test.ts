// Domain 0 keeps the store, the other domains reach it over pages of their own memory: in one machine, with
// the clock standing still unless a guest has to wait.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GNTTAB_RESERVED_XENSTORE } from '../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../abi/xen.ts';
import * as xs from '../abi/xenstore.ts';
import { BlkDevice } from '../devices/blk.ts';
import { MemoryStore } from '../storage/memory-store.ts';
import {
  announceDevice,
  backendPath,
  createHome,
  frontendPath,
  readDevice,
  withdrawDevice,
} from '../toolstack/virtio-nodes.ts';
import { domainId, type GrantRef } from '../xen/ids.ts';
import type { Xenstore, XenstoreNodes } from '../xen/xenstore.ts';
import { BackendService } from './backend-service.ts';
import { findDevice } from './device-finder.ts';
import { guestView } from './guest-view.test.helper.ts';
import { Machine } from './machine.ts';
import { randomFrom } from './random.ts';
import { openXenstore } from './store-link.ts';

const refused = (code: string) => ({ name: 'XenstoreError', code });

/** A machine with so many guests, from id 1, each of which owns directories in its home. */
async function machineWith(guests: number) {
  const machine = new Machine({ seed: 5, xenstore: true });
  const domains = Array.from({ length: guests }, (_, i) => machine.createGuest(i + 1, { memory: 1 << 20 }));
  for (const { ports } of domains) await createHome(machine.xenstore, ports.id);
  const stores = domains.map(({ ports }) => machine.xenstoreOf(ports));
  return { machine, tools: machine.xenstore, domains, stores };
}

/** Steps until nothing happens any more, and lets everybody hear of it. */
async function quiet(machine: Machine): Promise<void> {
  for (let idle = 0; idle < 100; idle = machine.step() ? 0 : idle + 1) await Promise.resolve();
}

test('what a guest writes over its ring the toolstack reads, and the other way round', async () => {
  const { machine, tools, stores } = await machineWith(1);
  const [guest] = stores;
  await machine.settle(guest!.write('device/state', '4'));
  assert.equal(await tools.read('/local/domain/1/device/state'), '4');
  await tools.write('/local/domain/1/device/from-tools', 'x'.repeat(3000));
  assert.equal(
    await machine.settle(guest!.read('device/from-tools')),
    'x'.repeat(3000),
    'longer than the ring',
  );
  const changes = machine.settle(
    guest!.transaction(async (nodes) => {
      await nodes.write('device/a', '1');
      await nodes.write('device/b', '2');
    }),
  );
  await changes;
  assert.deepEqual(await tools.directory('/local/domain/1/device'), ['a', 'b', 'from-tools', 'state']);
});

test('a change by anybody wakes the domains that watch, and only them', async () => {
  const { machine, tools, stores, domains } = await machineWith(3);
  const heard: string[] = [];
  for (const [i, store] of stores.slice(0, 2).entries())
    await machine.settle(store.watch('device', (path) => heard.push(`${i + 1} ${path}`)));
  await quiet(machine);
  heard.length = 0;
  await tools.write('/local/domain/2/device/k', '');
  await machine.settle(stores[2]!.write('device/k', ''));
  assert.equal(domains[0]!.ports.events.pending, false);
  await quiet(machine);
  assert.deepEqual(heard, ['2 device/k']);
});

test('the page of the ring is granted to domain 0, and never handed out to the guest’s kernel', async () => {
  const { machine, domains, stores } = await machineWith(1);
  const { ports } = domains[0]!;
  assert.equal(ports.grantTable.isFree(GNTTAB_RESERVED_XENSTORE as GrantRef), false);
  await machine.settle(stores[0]!.write('device/k', 'whole'));
  // The kernel takes all that there is, and uses it.
  for (let page = ports.memory.allocatePages(1); page !== undefined; page = ports.memory.allocatePages(1))
    ports.memory.bytes(page, XEN_PAGE_SIZE).fill(0xee);
  await machine.settle(stores[0]!.write('device/k', 'still whole'));
  assert.equal(machine.control.ports.grantMapper.live, 1);
});

test('X1 a guest that ruins its page loses its connection; domain 0 and the neighbours keep theirs', async () => {
  const { machine, domains, stores } = await machineWith(2);
  const { storePage, events } = domains[0]!.ports;
  const field = (name: 'req_prod' | 'error') => xs.xenstoreDomainInterface.offsetOf(name) / 4;
  storePage.u32[field('req_prod')] = 0xdead_beef;
  // The channel to the store is the first that its builder made.
  assert.equal(events.send(1 as never), 0);
  await quiet(machine);
  assert.equal(storePage.u32[field('error')], xs.XENSTORE_ERROR_RINGIDX);
  await assert.rejects(machine.settle(stores[0]!.read('device')), refused('EIO'));
  await machine.settle(stores[1]!.write('device/k', 'alive'));
});

test('X10 a domain that is released and introduced again under its id starts with nothing', async () => {
  const { machine, tools, domains, stores } = await machineWith(2);
  const { ports } = domains[0]!;
  const heard: string[] = [];
  await machine.settle(stores[0]!.watch('/local/domain/2/device', (path) => heard.push(path)));
  await tools.write('/shared', 'secret');
  await tools.setPermissions('/shared', [
    { domain: 0, access: 'n' },
    { domain: 1, access: 'b' },
  ]);
  assert.equal(await machine.settle(stores[0]!.read('/shared')), 'secret');
  const endless = new Promise<void>(() => undefined);
  void stores[0]!.transaction((nodes) => nodes.write('device/k', 'old').then(() => endless));
  await quiet(machine);
  const { store } = machine.control;
  const before = store.domains.find(1)!;
  assert.deepEqual([store.transactions.size, before.usage.watches], [1, 1]);

  machine.control.release(ports.id);
  assert.equal(machine.control.ports.grantMapper.live, 1, 'its page is not mapped any more');
  assert.deepEqual([store.transactions.size, store.watches.size], [0, 0]);
  const reborn = openXenstore(ports, machine.control.introduce(ports));
  assert.ok(store.domains.find(1)!.generation > before.generation);
  await createHome(tools, ports.id);
  heard.length = 0;
  await tools.write('/local/domain/2/device/k', '');
  await assert.rejects(machine.settle(reborn.read('/shared')), refused('EACCES'));
  await assert.rejects(machine.settle(reborn.read('device/k')), refused('ENOENT'));
  await quiet(machine);
  assert.deepEqual(heard, []);
  for (const [domain, counted] of store.recount()) assert.deepEqual(domain.usage, counted);
});

test('X15 a guest that writes too fast is served when its time has come; others are not held up', async () => {
  const { machine, tools, stores } = await machineWith(2);
  const { store } = machine.control;
  await tools.transaction(async () => {
    const writes = Array.from({ length: 50 }, (_, i) => stores[0]!.write('device/k', `${i}`));
    for (let round = 0; round < 20; round++) {
      await machine.settle(stores[1]!.read('device'));
      assert.equal(store.now(), 0, 'nobody else waits');
    }
    await machine.settle(Promise.all(writes));
  });
  assert.ok(store.now() >= 195 && store.now() < 1000, `${store.now()} ms`);
  assert.equal(await tools.read('/local/domain/1/device/k'), '49');
});

test('X16 what its backend or the toolstack owns a frontend cannot change, whatever it sends over its ring', async () => {
  const { machine, tools, stores } = await machineWith(2);
  const [frontend, backend] = stores;
  const ends = { backend: domainId(2), guest: domainId(1) };
  const place = { ...ends, kind: 'virtio' as const, devid: 0 };
  await announceDevice(tools, { ...place, virtioId: 4, base: 0x200_0000, irq: 33, grantUsage: true });
  const path = backendPath(place);
  const before = await readDevice(tools, 'virtio', ends.backend, ends.guest, 0);
  for (const attempt of [
    frontend!.write(`${path}/grant_usage`, '0'),
    frontend!.write(`${path}/new`, ''),
    frontend!.remove(path),
    frontend!.remove(`/local/domain/2`),
    frontend!.setPermissions(`${path}/grant_usage`, [{ domain: 1, access: 'b' }]),
    frontend!.transaction((nodes) => nodes.write(`${path}/base`, '0x0')),
    backend!.write(`${frontendPath(place)}/backend-id`, '0'),
  ])
    await assert.rejects(machine.settle(attempt), refused('EACCES'));
  assert.deepEqual(await readDevice(tools, 'virtio', ends.backend, ends.guest, 0), before);
});

test('27: whatever the schedule, each guest finds its home as a plain map would be', async () => {
  for (let seed = 0; seed < 20; seed++) {
    const machine = new Machine({ seed, xenstore: true });
    const guests = [1, 2, 3].map((id) => machine.createGuest(id, { memory: 1 << 20 }).ports);
    for (const { id } of guests) await createHome(machine.xenstore, id);
    const maps = guests.map((ports) => keepMap(machine.xenstoreOf(ports), randomFrom(seed * 3 + ports.id)));
    await machine.settle(Promise.all(maps));
    for (const [i, { id }] of guests.entries()) {
      const home = `/local/domain/${id}/device`;
      const found = new Map<string, string>();
      for (const name of await machine.xenstore.directory(home))
        found.set(name, await machine.xenstore.read(`${home}/${name}`));
      assert.deepEqual([...found].sort(), [...(await maps[i]!)].sort(), `seed ${seed}, domain ${id}`);
    }
    const { store } = machine.control;
    for (const [domain, counted] of store.recount()) assert.deepEqual(domain.usage, counted);
  }
});

/** Does the same to a guest's directory and to a map, compares on the way, and returns the map. */
async function keepMap(store: Xenstore, random: () => number): Promise<Map<string, string>> {
  const any = (count: number) => Math.floor(random() * count);
  let map = new Map<string, string>();
  for (let i = 0; i < 25; i++) {
    const inside = new Map(map);
    const act = async (nodes: XenstoreNodes) => {
      const name = `k${any(4)}`;
      if (any(3) > 0) await nodes.write(`device/${name}`, `${i}`.repeat(any(400)));
      else await nodes.remove(`device/${name}`);
      if ((await nodes.directory('device')).includes(name))
        inside.set(name, await nodes.read(`device/${name}`));
      else inside.delete(name);
      assert.deepEqual(await nodes.directory('device'), [...inside.keys()].sort());
    };
    if (any(2) === 0) await act(store);
    else
      await store.transaction(async (nodes) => {
        await act(nodes);
        await act(nodes);
      });
    map = inside;
  }
  return map;
}

test('X17 a device that is announced and withdrawn again and again is served, or not, as the last word says', async () => {
  const machine = new Machine({ seed: 6, xenstore: true });
  const [backend, guest] = [machine.createBackend(1), machine.createGuest(2)];
  const ends = { backend: backend.ports.id, guest: guest.ports.id };
  for (const id of Object.values(ends)) await createHome(machine.xenstore, id);
  let open = 0;
  const service = new BackendService(backend, machine.xenstoreOf(backend.ports), () => {
    open++;
    const device = new BlkDevice(new MemoryStore(new Uint8Array(65536)), {
      queues: 1,
      queueSize: 16,
      id: 'x',
    });
    return { device, close: () => open-- };
  });
  await machine.settle(service.start());
  const place = { ...ends, kind: 'virtio_disk' as const, devid: 0 };
  const disk = { params: 'image', readOnly: false, dev: 'xvda' };
  const nodes = { ...place, virtioId: 2, base: 0x200_0000, irq: 33, grantUsage: true, disk };
  for (let round = 0; round < 20; round++) {
    await announceDevice(machine.xenstore, nodes);
    for (let steps = 0; steps < round * 4; steps++) {
      machine.step();
      await Promise.resolve();
    }
    await withdrawDevice(machine.xenstore, place);
    assert.ok(open <= 1, 'one device at a time');
  }
  await quiet(machine);
  assert.equal(open, 0);
  await announceDevice(machine.xenstore, nodes);
  const found = await machine.settle(
    findDevice(machine.xenstoreOf(guest.ports), guestView({ id: ends.guest }), place),
  );
  assert.deepEqual(found, { base: nodes.base, backend: ends.backend, access: 'grants' });
  assert.equal(open, 1);
  const driver = guest.attachBlk({ ...found, device: 0 }, 'bounce', { queues: 1, queueSize: 16 });
  await machine.settle(driver.read(0, await driver.buffer(4096), 4096));
});

test('a machine made without a store says so', () => {
  const machine = new Machine({ seed: 1 });
  assert.throws(() => machine.xenstore, /without a store/);
  assert.throws(() => machine.xenstoreOf(machine.createGuest(1).ports), /domain 1 is not connected/);
});
