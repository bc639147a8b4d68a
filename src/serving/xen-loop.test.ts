// The backend of a driver domain at work on the embedded Xen: what is announced or attached is served, and let go of
// when its guest dies.

import assert from 'node:assert/strict';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { DirectTracer } from '../audit/event-tracer.ts';
import { Exposure } from '../audit/exposure.ts';
import type { TraceEvent } from '../audit/events.ts';
import { imageHost, native } from '../hosts/linux/native.test.helper.ts';
import { IoUringUnavailable } from '../hosts/linux/io-uring.ts';
import { Watches } from '../hosts/linux/watches.ts';
import { Epoll } from '../hosts/linux/epoll.ts';
import { Machine } from '../machine/machine.ts';
import {
  announceDevice,
  backendPath,
  createHome,
  type VirtioNodes,
  withdrawDevice,
} from '../toolstack/virtio-nodes.ts';
import { noTrace, type Tracer } from '../trace.ts';
import { domainId } from '../xen/ids.ts';
import { oneTransaction } from '../xenstore/one-transaction.ts';
import { MortalHost } from '../../test/support/mortal-host.test.helper.ts';
import type { Notice } from './control.ts';
import { ProcessCounters } from './process-counters.ts';
import type { DeviceFigures } from './serving-figures.ts';
import { type AttachedDevice, XenLoop } from './xen-loop.ts';
import { XenRecords } from './xen-records.ts';

const BACKEND = domainId(1);
const GUEST = domainId(2);
const OTHER = domainId(3);
const BASE = 0x200_0000;
const SIZE = 1 << 20;
const DISK_OPTIONS = { direct: false, engine: 'auto' as const, queues: 1, queueSize: 16 };
const OPTIONS = { disk: DISK_OPTIONS, console: undefined, access: 'map' as const };

/** What a machine is made with, where that is not as for most. */
interface StageOptions {
  readonly tracer?: Tracer;
  /** Devices are kept in a folder. */
  readonly keeps?: boolean;
}

/** A machine whose domain 1 runs the loop, with two guests. */
async function stage(t: TestContext, { tracer = noTrace, keeps = false }: StageOptions = {}) {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-xen-loop-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const image = join(folder, 'disk.img');
  writeFileSync(image, new Uint8Array(SIZE).fill(7));
  const machine = new Machine({ seed: 11, xenstore: true, tracer });
  const { ports } = machine.createBackend(BACKEND);
  const guests = [GUEST, OTHER].map((id) => machine.createGuest(id));
  for (const id of [BACKEND, GUEST, OTHER]) await createHome(machine.xenstore, id);
  const host = imageHost();
  const epoll = new Epoll(host.libc, host.arena);
  const watches = new Watches(host.libc, host.arena, epoll);
  t.after(() => {
    watches.close();
    epoll.close();
  });
  const notices: Notice[] = [];
  const counted = new ProcessCounters(1);
  const begin = () => {
    const mortal = new MortalHost(ports);
    const records = keeps ? new XenRecords(host.libc, host.arena, join(folder, 'state')) : undefined;
    const loop = new XenLoop({
      host: mortal,
      store: {
        ...oneTransaction(machine.xenstore),
        isIntroduced: async (id) => machine.xen.domains.find(id)?.alive === true,
      },
      hosting: {
        ...host,
        watches,
        uring: () => {
          throw new IoUringUnavailable('not here');
        },
      },
      wakes: { takeTurn: () => true, look: () => void machine.step(), endTurn: () => false },
      records,
      notify: (notice) => {
        counted.heard(notice);
        notices.push(notice);
      },
      counters: counted.workers[0],
      counted,
    });
    const running = loop
      .run(
        () => undefined,
        () => false,
      )
      .finally(() => {
        mortal.die();
        records?.close();
      });
    return { loop, running };
  };
  const { loop, running } = begin();
  const until = async (condition: () => boolean): Promise<void> => {
    for (let turns = 0; turns < 10_000 && !condition(); turns++) await turn();
    assert.ok(condition(), notices.map(({ message }) => message).join('\n'));
  };
  return { machine, ports, guests, folder, image, loop, running, begin, notices, counted, until };
}

const nodesOf = (guest: number, image: string): VirtioNodes => ({
  ...{ kind: 'virtio_disk', backend: BACKEND, guest: domainId(guest), devid: 51712, virtioId: 2 },
  ...{ base: BASE, irq: 33, grantUsage: true },
  disk: { params: image, readOnly: false, dev: 'xvda' },
});

const attached = (guest: number, image: string): AttachedDevice => ({
  ...{ name: `${guest}/blk`, guest: domainId(guest), base: BASE, irq: 33, access: 'map' },
  spec: { kind: 'blk', path: image, readOnly: true, ...DISK_OPTIONS, id: 'x' },
});

/** Numbers of devices from which on they are those of guests' drivers. */
const DRIVEN = 100;
const PLACE = { base: BASE, backend: BACKEND, device: 0 };

test('what is announced is served from its image, until it is withdrawn', native, async (t) => {
  const { machine, ports, guests, image, loop, running, notices, until } = await stage(t);
  await loop.watch(OPTIONS);
  const nodes = nodesOf(GUEST, image);
  await announceDevice(machine.xenstore, nodes);
  await until(() => notices.length === 1);
  assert.equal(notices[0].message, 'served at 0x2000000, interrupt 33; it reaches what the guest grants');
  assert.equal(notices[0].device, '2/virtio_disk/51712');
  const [guest] = guests;
  const disk = guest.attachBlk(PLACE, 'bounce', { queues: 1, queueSize: 16 });
  const buffer = await disk.buffer(4096);
  await disk.read(0, buffer, 4096);
  assert.deepEqual(guest.detach(disk), { live: 0, quarantined: 0 });
  await withdrawDevice(machine.xenstore, nodes);
  await until(() => notices.length === 2);
  assert.equal(notices[1].message, 'closed');
  assert.equal(ports.grantMapper.live, 0);
  await loop.end();
  await running;
  assert.equal(loop.failure, undefined);
});

/** The requests of one operation. */
function requestsOf({ operations }: DeviceFigures, name: string): number {
  return operations.find((operation) => operation.name === name)!.requests;
}

test('what a device does is counted, and it is there from its announcement on', native, async (t) => {
  const { machine, guests, image, loop, running, counted, until } = await stage(t);
  await loop.watch(OPTIONS);
  const figures = (): readonly DeviceFigures[] => counted.figures.devices;
  assert.deepEqual(figures(), []);
  const nodes = nodesOf(GUEST, image);
  await announceDevice(machine.xenstore, nodes);
  await until(() => figures().length === 1);
  const [idle] = figures();
  assert.deepEqual(
    [idle.name, idle.kind, idle.guest, idle.connected, idle.mappings],
    ['2/virtio_disk/51712', 'blk', GUEST, false, 0],
  );
  const [guest] = guests;
  const disk = guest.attachBlk(PLACE, 'direct', { queues: 1, queueSize: 16 });
  const buffer = await disk.buffer(4096);
  await disk.read(0, buffer, 4096);
  await disk.write(0, buffer, 4096);
  const [busy] = figures();
  assert.deepEqual([requestsOf(busy, 'read'), requestsOf(busy, 'write')], [1, 1]);
  assert.deepEqual([busy.connected, busy.sessions, busy.enabledQueues], [true, 1, 1]);
  assert.deepEqual([busy.mappings > 0, busy.exposedBytes], [true, busy.mappings * 4096], 'the ring');
  assert.ok(busy.notifications > 0 && busy.interrupts > 0 && busy.depth.sum >= 2);
  const [{ looks, busyLooks }] = counted.figures.workers;
  assert.ok(busyLooks > 0 && looks >= busyLooks);
  guest.detach(disk);
  const [left] = figures();
  assert.deepEqual([left.connected, left.enabledQueues, left.mappings, left.exposedBytes], [false, 0, 0, 0]);
  await withdrawDevice(machine.xenstore, nodes);
  await until(() => figures().length === 0);
  await loop.end();
  await running;
});

test(
  'what is mapped and what is needed of it is reported, for each device under a number',
  native,
  async (t) => {
    const exposure = new Exposure(undefined, { side: 'backend' });
    const consume = (event: TraceEvent): void => {
      // The guest reports to the same tracer, its devices under other numbers.
      const isOwn = 'device' in event ? event.device < DRIVEN : 'mapper' in event;
      if (isOwn) exposure.consume(event);
    };
    const { guests, image, loop, running } = await stage(t, {
      tracer: new DirectTracer([{ consume }], () => 0),
    });
    const other = { ...attached(GUEST, image), base: BASE + 0x1000, irq: 34 };
    await loop.attach([attached(GUEST, image), other]);
    const [guest] = guests;
    const options = { queues: 1, queueSize: 16 };
    const disks = [BASE, other.base].map((base, index) =>
      guest.attachBlk({ ...PLACE, base, device: DRIVEN + index }, 'direct', options),
    );
    for (const disk of disks) await disk.read(0, await disk.buffer(512), 512);
    for (const disk of disks) guest.detach(disk);
    await loop.end();
    await running;
    const { contradictions, leakedGrants, touchesOutsideNeed } = exposure.total();
    assert.deepEqual([contradictions, leakedGrants, touchesOutsideNeed], [0, 0, 0]);
    // The guest's disks ask for their names first.
    assert.deepEqual(
      exposure
        .devices()
        .map(({ requests, requestsFailed, requestsOpen }) => [requests, requestsFailed, requestsOpen]),
      [
        [1, 0, 0],
        [1, 0, 0],
      ],
    );
    const devices = exposure.devices();
    assert.deepEqual(
      devices.map(({ domain, device }) => [domain, device]),
      [
        [GUEST, 0],
        [GUEST, 1],
      ],
    );
    for (const { bytesNeeded, bytesExposed, foreignReadableBytes } of devices)
      assert.ok(
        foreignReadableBytes > 0 && bytesNeeded <= bytesExposed,
        `${bytesNeeded} needed of ${bytesExposed}, ${foreignReadableBytes} foreign`,
      );
  },
);

test(
  'a device that cannot be made is refused in its nodes and in the log, and others are served',
  native,
  async (t) => {
    const { machine, image, loop, running, notices, until } = await stage(t);
    await loop.watch(OPTIONS);
    const bad = nodesOf(GUEST, `${image}.missing`);
    await announceDevice(machine.xenstore, bad);
    await announceDevice(machine.xenstore, { ...nodesOf(OTHER, image), kind: 'virtio', virtioId: 4 });
    await until(() => notices.length === 2);
    const said = new Map(notices.map(({ device, level, message }) => [device, `${level}: ${message}`]));
    assert.match(said.get('2/virtio_disk/51712')!, /^error: cannot be served: .*missing.*no such file/);
    assert.match(said.get('3/virtio/51712')!, /^info: served at/);
    await until(() => machine.control.store !== undefined);
    assert.match(await machine.xenstore.read(`${backendPath(bad)}/error`), /no such file/);
    await loop.end();
    await running;
  },
);

test(
  'C5: a guest that dies with its nodes still there is let go of at once, and the other goes on',
  native,
  async (t) => {
    const { machine, ports, guests, image, loop, running, notices, until } = await stage(t);
    await loop.watch(OPTIONS);
    for (const id of [GUEST, OTHER])
      await announceDevice(machine.xenstore, {
        ...nodesOf(id, image),
        disk: { params: image, readOnly: true, dev: 'xvda' },
      });
    await until(() => notices.length === 2);
    const disks = guests.map((guest) => guest.attachBlk(PLACE, 'bounce', { queues: 1, queueSize: 16 }));
    for (const disk of disks) await disk.read(0, await disk.buffer(512), 512);
    const mapped = ports.grantMapper.live;
    assert.ok(mapped > 0, 'rings are mapped');
    machine.destroy(GUEST);
    await until(() => notices.length === 3);
    assert.deepEqual(notices[2], { level: 'info', device: '2/virtio_disk/51712', message: 'closed' });
    assert.equal(ports.grantMapper.live, mapped / 2);
    assert.equal(machine.xen.domains.find(GUEST), undefined, 'no dead domain stays');
    await disks[1].read(0, await disks[1].buffer(512), 512);
    await loop.end();
    await running;
  },
);

test('C5: by hand, it ends with the last guest that it was attached to', native, async (t) => {
  const { machine, ports, guests, image, loop, running, notices, until } = await stage(t);
  await loop.attach([attached(GUEST, image), attached(OTHER, image)]);
  const disks = guests.map((guest) => guest.attachBlk(PLACE, 'bounce', { queues: 1, queueSize: 16 }));
  for (const disk of disks) await disk.read(0, await disk.buffer(512), 512);
  machine.destroy(GUEST);
  await until(() => notices.length === 3);
  assert.equal(notices[2].message, 'domain 2 has gone: the device is closed');
  await disks[1].read(0, await disks[1].buffer(512), 512);
  machine.destroy(OTHER);
  await running;
  assert.equal(ports.grantMapper.live, 0);
});

test('by hand, what cannot be served is an error, and nothing of it is left', native, async (t) => {
  const { image, loop, running } = await stage(t);
  await assert.rejects(loop.attach([{ ...attached(GUEST, image), guest: domainId(77) }]), RangeError);
  await assert.rejects(loop.attach([attached(GUEST, `${image}.missing`)]), /no such file/);
  loop.fail(new Error('enough'));
  await assert.rejects(running, /enough/);
});

test('a driver that breaks a rule is told of with its clause', native, async (t) => {
  const { guests, image, loop, running, notices, counted } = await stage(t);
  await loop.attach([attached(GUEST, image)]);
  const { mmio } = guests[0].ports;
  for (const [register, value] of [
    ...[
      [0x70, 1],
      [0x70, 3],
      [0x24, 1],
      [0x20, 3],
      [0x70, 11],
    ],
    ...[
      [0x30, 0],
      [0x38, 3],
      [0x44, 1],
    ],
  ])
    mmio.write(BASE + register, 4, value);
  assert.deepEqual([notices[1].level, notices[1].clause], ['warn', '§2.7']);
  assert.deepEqual([...counted.figures.devices[0].violations], [['§2.7', 1]]);
  assert.match(notices[1].message, /^broken by its driver, until that resets it: queue 0: size 3/);
  await loop.end();
  await running;
});

const ANOTHER = new RegExp(
  `served by another grantio xen-backend \\(process ${process.pid}\\) that keeps its devices in .*state, too: `,
);

test('a guest that has a backend is refused to another, and is served on', native, async (t) => {
  const { guests, image, loop, running, begin } = await stage(t, { keeps: true });
  await loop.attach([attached(GUEST, image)]);
  const disk = guests[0].attachBlk(PLACE, 'bounce', { queues: 1, queueSize: 16 });
  const second = begin();
  const rng: AttachedDevice = {
    ...attached(GUEST, image),
    base: BASE + 0x1000,
    irq: 34,
    spec: { kind: 'rng' },
  };
  for (const device of [attached(GUEST, image), { ...attached(GUEST, image), spec: rng.spec }, rng])
    await assert.rejects(second.loop.attach([device]), ANOTHER);
  await second.loop.attach([attached(OTHER, image)]);
  await disk.read(0, await disk.buffer(512), 512);
  await loop.end();
  await running;
  const successor = begin();
  await successor.loop.attach([attached(GUEST, image)]);
  await disk.read(0, await disk.buffer(512), 512);
  for (const each of [second, successor]) {
    await each.loop.end();
    await each.running;
  }
});

test('a guest of which nothing is served any more is free for another backend', native, async (t) => {
  const { machine, folder, image, loop, running, begin, notices, until } = await stage(t, { keeps: true });
  await loop.watch(OPTIONS);
  const nodes = { ...nodesOf(GUEST, image), disk: { params: image, readOnly: true, dev: 'xvda' } };
  const second = begin();
  for (const [round, params] of [image, `${image}.missing`].entries()) {
    const said = notices.length;
    await announceDevice(machine.xenstore, { ...nodes, disk: { ...nodes.disk, params } });
    await until(() => notices.length === said + 1);
    if (round === 0) await assert.rejects(second.loop.attach([attached(GUEST, image)]), ANOTHER);
    await withdrawDevice(machine.xenstore, nodes);
    await until(() => notices.length === said + (round === 0 ? 2 : 1));
  }
  assert.deepEqual(readdirSync(join(folder, 'state')), ['claims']);
  await second.loop.attach([attached(GUEST, image)]);
  for (const each of [second, { loop, running }]) {
    await each.loop.end();
    await each.running;
  }
});

test(
  'a guest that is served by hand is refused where it is announced, and others are served',
  native,
  async (t) => {
    const { machine, guests, image, loop, running, begin, notices, until } = await stage(t, { keeps: true });
    await loop.attach([attached(GUEST, image)]);
    const second = begin();
    await second.loop.watch(OPTIONS);
    const base = BASE + 0x1000;
    const refused = { ...nodesOf(GUEST, image), kind: 'virtio' as const, virtioId: 4, base, irq: 34 };
    await announceDevice(machine.xenstore, refused);
    await announceDevice(machine.xenstore, { ...nodesOf(OTHER, image), kind: 'virtio', virtioId: 4 });
    await until(() => notices.length === 3);
    const said = new Map(notices.map(({ device, level, message }) => [device, `${level}: ${message}`]));
    assert.match(said.get('2/virtio/51712')!, /^error: cannot be served: domain 2 is /);
    assert.match(said.get('2/virtio/51712')!, ANOTHER);
    assert.match(said.get('3/virtio/51712')!, /^info: served at/);
    await until(() => machine.control.store !== undefined);
    assert.match(await machine.xenstore.read(`${backendPath(refused)}/error`), ANOTHER);
    const disk = guests[0].attachBlk(PLACE, 'bounce', { queues: 1, queueSize: 16 });
    await disk.read(0, await disk.buffer(512), 512);
    for (const each of [second, { loop, running }]) {
      await each.loop.end();
      await each.running;
    }
  },
);

test(
  'a second backend that watches is refused, and the nodes of the first are as they were',
  native,
  async (t) => {
    const { machine, guests, image, loop, running, begin, notices, until } = await stage(t, { keeps: true });
    await loop.watch(OPTIONS);
    const nodes = nodesOf(GUEST, image);
    await announceDevice(machine.xenstore, nodes);
    await until(() => notices.length === 1);
    const state = () => machine.xenstore.read(`${backendPath(nodes)}/state`);
    const before = await state();
    const second = begin();
    await assert.rejects(
      second.loop.watch(OPTIONS),
      /^Error: the devices that xenstore announces are served by another /,
    );
    assert.equal(await state(), before);
    const disk = guests[0].attachBlk(PLACE, 'bounce', { queues: 1, queueSize: 16 });
    await disk.read(0, await disk.buffer(512), 512);
    await loop.end();
    await running;
    await second.loop.watch(OPTIONS);
    assert.match(notices.at(-1)!.message, /^taken over from a predecessor/);
    await disk.read(0, await disk.buffer(512), 512);
    await second.loop.end();
    await second.running;
  },
);
