// A disk whose store answers later and in any order: each request is answered once, with its own data, and nothing is
// written to a guest whose ring or memory is gone (F26, T11).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import type { Region } from '../../src/abi/region.ts';
import * as blk from '../../src/abi/virtio-blk.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import { ProtocolViolation } from '../../src/errors.ts';
import type { ChainAccess, DeviceMemory } from '../../src/memory/device-memory.ts';
import { PlainMemory } from '../../src/memory/plain-memory.ts';
import { LocalRings } from '../../src/transports/vhost-user/local-rings.ts';
import type { DeviceHost } from '../../src/virtio/device.ts';
import { BufferList } from '../../src/virtqueue/buffer-list.ts';
import { DeviceQueue } from '../../src/virtqueue/device-queue.ts';
import { LateStore } from '../support/late-store.test.helper.ts';
import { PLAIN, PlainRing } from '../support/plain-ring.test.helper.ts';
import { readyToRead, Scene } from '../support/scene.test.helper.ts';

const { VIRTIO_BLK_S_IOERR: IOERR, VIRTIO_BLK_S_OK: OK } = blk;
const SECTOR = 512;
const SLOTS = 16;
/** Sectors of the disk that only one slot uses, and bytes of memory that it has. */
const EACH = 4;
const ROOM = 4096;
const FLUSH = blk.VIRTIO_BLK_F_FLUSH;

/** A disk on a ring in plain memory. Each slot has a request of its own, and a part of the disk. */
class LateDisk {
  readonly ring: PlainRing;
  readonly store: LateStore;
  readonly device: BlkDevice;
  readonly completed: DeviceQueue[] = [];
  readonly failures: string[] = [];
  queue: DeviceQueue;
  readonly #u8: Uint8Array;

  constructor(features = FLUSH) {
    this.ring = new PlainRing(64, PLAIN, 512 * 1024);
    this.#u8 = this.ring.region.u8;
    this.store = new LateStore(Uint8Array.from({ length: SLOTS * EACH * SECTOR }, (_, at) => at >>> 9));
    this.device = new BlkDevice(this.store, { queues: 1, queueSize: 64, id: 'late' });
    this.device.start(features, this.host);
    this.queue = this.ring.device;
  }

  get host(): DeviceHost {
    return {
      completed: (queue) => this.completed.push(queue),
      failed: (_, { message }) => this.failures.push(message),
      configChanged: () => undefined,
    };
  }

  #place(slot: number): number {
    return 256 * 1024 + slot * ROOM;
  }

  data(slot: number): Uint8Array {
    return this.#u8.subarray(this.#place(slot) + 16, this.#place(slot) + 16 + EACH * SECTOR);
  }

  status(slot: number): number {
    return this.#u8[this.#place(slot) + 16 + EACH * SECTOR];
  }

  /** Hands a request of `sectors` to the device; `slot` is its token. */
  ask(slot: number, type: number, sectors: number, sent?: Uint8Array): void {
    const at = this.#place(slot);
    const length = sent?.length ?? sectors * SECTOR;
    const header = blk.virtioBlkRequestHeader.make({ type, sector: slot * EACH });
    this.#u8.set(header.bytes, at);
    this.#u8[at + 16 + EACH * SECTOR] = 0xee;
    if (sent !== undefined) this.#u8.set(sent, at + 16);
    const list = new BufferList().addReadable(at, 16);
    if (type === blk.VIRTIO_BLK_T_IN) list.addWritable(at + 16, length);
    else if (length > 0) list.addReadable(at + 16, length);
    this.ring.driver.add(list.addWritable(at + 16 + EACH * SECTOR, 1), slot);
    this.serve();
  }

  serve(): void {
    for (let chain = this.queue.pop(); chain !== undefined; chain = this.queue.pop())
      this.device.handle(this.queue, chain);
  }

  /** Tokens and lengths of what the device has completed since the last look. */
  answers(): { slot: number; length: number }[] {
    const found: { slot: number; length: number }[] = [];
    const { driver } = this.ring;
    for (let slot = driver.poll(); slot >= 0; slot = driver.poll())
      found.push({ slot, length: driver.lastLength });
    return found;
  }
}

const step = fc.record({
  submit: fc.boolean(),
  type: fc.constantFrom(blk.VIRTIO_BLK_T_IN, blk.VIRTIO_BLK_T_OUT, blk.VIRTIO_BLK_T_FLUSH),
  slot: fc.nat(SLOTS - 1),
  sectors: fc.integer({ min: 1, max: EACH }),
  choice: fc.nat(63),
  fails: fc.boolean(),
});

test('answers in any order: each request gets its own data and status, once, when its answer comes', () => {
  const run = fc.property(fc.array(step, { maxLength: 60 }), (script) => {
    const disk = new LateDisk();
    const model = disk.store.bytes.slice();
    const asked = new Map<number, { type: number; sectors: number; salt: number }>();
    let failing = false;
    disk.store.fails = () => (failing ? 'EIO' : 'ok');
    const check = () => {
      for (const { slot, length } of disk.answers()) {
        const { type, sectors, salt } = asked.get(slot)!;
        asked.delete(slot);
        assert.equal(disk.status(slot), failing ? IOERR : OK);
        const from = slot * EACH * SECTOR;
        if (type === blk.VIRTIO_BLK_T_OUT && !failing) model.fill(salt, from, from + sectors * SECTOR);
        const isData = type === blk.VIRTIO_BLK_T_IN && !failing;
        const isRead = type === blk.VIRTIO_BLK_T_IN;
        assert.equal(length, isData ? sectors * SECTOR + 1 : isRead ? 0 : 1);
        if (isData)
          assert.deepEqual(
            disk.data(slot).slice(0, sectors * SECTOR),
            model.slice(from, from + sectors * SECTOR),
          );
      }
    };
    for (const [salt, { submit, type, slot, sectors, choice, fails }] of script.entries()) {
      failing = fails;
      if (!submit) {
        const before = disk.store.pending.length;
        disk.store.answer(choice);
        check();
        assert.equal(asked.size, Math.max(before - 1, 0), 'exactly that request is answered');
      } else if (!asked.has(slot)) {
        const length = type === blk.VIRTIO_BLK_T_FLUSH ? 0 : sectors;
        asked.set(slot, { type, sectors: length, salt });
        const data = new Uint8Array(length * SECTOR).fill(salt);
        disk.ask(slot, type, length, type === blk.VIRTIO_BLK_T_IN ? undefined : data);
        assert.deepEqual(disk.answers(), [], 'nothing is answered before the store has');
      }
    }
    failing = false;
    disk.device.drain();
    check();
    assert.equal(asked.size, 0);
    assert.deepEqual(disk.store.bytes, model);
    assert.equal(disk.queue.inFlight, 0);
  });
  fc.assert(run, { seed: 61, numRuns: 150 });
});

test('the driver is told of every late answer, and of none that came at once', () => {
  const disk = new LateDisk();
  disk.ask(0, blk.VIRTIO_BLK_T_IN, 1);
  disk.ask(1, 77, 1);
  assert.equal(disk.completed.length, 0);
  disk.store.answer();
  assert.deepEqual(disk.completed, [disk.queue]);
  assert.deepEqual(
    disk.answers().map(({ slot }) => slot),
    [1, 0],
  );
});

test('C8: without a flush of its own a driver is answered when the write is stable, and not if that fails', () => {
  for (const fails of [false, true]) {
    const disk = new LateDisk(0n);
    disk.store.fails = (what) => (fails && what === 'flush' ? 'EIO' : 'ok');
    disk.ask(2, blk.VIRTIO_BLK_T_OUT, 2, new Uint8Array(2 * SECTOR));
    disk.store.answer();
    assert.deepEqual(disk.answers(), []);
    disk.store.answer();
    assert.deepEqual(disk.store.calls.slice(0, 3), ['write 4096', 'write 4096: ok', 'flush']);
    assert.equal(disk.answers().length, 1);
    assert.equal(disk.status(2), fails ? IOERR : OK);
  }
});

test('D3: ranges are done one after the other, and none after the first that failed', () => {
  const range = (sector: number) => blk.virtioBlkRange.make({ sector, num_sectors: 1, flags: 0 }).bytes;
  const sent = Buffer.concat([1, 5, 9].map(range));
  for (const [type, name] of [
    [blk.VIRTIO_BLK_T_DISCARD, 'discard'],
    [blk.VIRTIO_BLK_T_WRITE_ZEROES, 'zeroes'],
  ] as const) {
    const disk = new LateDisk(0n);
    disk.store.fails = (what) => (what.endsWith(' 2560') ? 'ENOSPC' : 'ok');
    disk.ask(0, type, 0, sent);
    disk.device.drain();
    assert.deepEqual(disk.store.calls, [
      `${name} 512`,
      `${name} 512: ok`,
      `${name} 2560`,
      `${name} 2560: ENOSPC`,
    ]);
    assert.equal(disk.status(0), IOERR);
    disk.answers();
    disk.store.fails = () => 'ok';
    disk.store.calls.length = 0;
    disk.ask(0, type, 0, sent);
    disk.device.drain();
    assert.equal(disk.status(0), OK);
    const stable = type === blk.VIRTIO_BLK_T_WRITE_ZEROES ? ['flush', 'flush: ok'] : [];
    assert.deepEqual(disk.store.calls.slice(6), stable);
  }
});

test('F26: an answer after the ring was closed changes no byte, and a new ring is served as if it never came', () => {
  const disk = new LateDisk(0n);
  for (const slot of [0, 1, 2]) disk.ask(slot, blk.VIRTIO_BLK_T_OUT, 1, new Uint8Array(SECTOR).fill(slot));
  disk.queue.close();
  const before = disk.ring.region.u8.slice();
  while (disk.store.answer(1));
  assert.deepEqual(disk.ring.region.u8, before);
  assert.equal(disk.completed.length, 0);
  assert.ok(!disk.store.calls.includes('flush'), 'nothing is begun for a driver that is gone');
  const other = new LateDisk();
  other.ask(3, blk.VIRTIO_BLK_T_IN, 1);
  other.store.answer();
  assert.equal(other.status(3), OK);
});

/** Memory whose buffers are let go of as a test likes it. */
function memoryThat(region: Region, release: (access: ChainAccess) => number): DeviceMemory {
  const memory = new PlainMemory(region);
  return {
    mapRing: (low, high, length) => memory.mapRing(low, high, length),
    newChainAccess: () => {
      const access = memory.newChainAccess();
      return {
        readable: access.readable,
        writable: access.writable,
        map: (low, high, length, writable) => access.map(low, high, length, writable),
        ready: () => access.ready(),
        release: (read, written, atEnd) =>
          read + written + atEnd > 0 ? release(access) : access.release(0, 0, 0),
      };
    },
  };
}

function onMemory(release: (access: ChainAccess) => number): LateDisk {
  const disk = new LateDisk();
  const { ring } = disk;
  const memory = memoryThat(ring.region, release);
  const areas = {
    descriptor: memory.mapRing(ring.descriptorArea, 0, 16 * 64),
    driver: memory.mapRing(ring.driverArea, 0, 6 + 2 * 64),
    device: memory.mapRing(ring.deviceArea, 0, 6 + 8 * 64),
  };
  disk.queue = new DeviceQueue(64, areas, memory, PLAIN);
  return disk;
}

test('a late answer whose buffers are refused goes back empty, whatever chain came last', () => {
  const disk = onMemory((access) => {
    access.release(0, 0, 0);
    return -1;
  });
  disk.ask(0, blk.VIRTIO_BLK_T_IN, 1);
  disk.ask(1, blk.VIRTIO_BLK_T_IN, 1);
  disk.store.answer();
  assert.deepEqual(disk.answers(), [{ slot: 0, length: 0 }]);
  assert.deepEqual(disk.failures, []);
});

test('a driver found to break a rule by a late answer breaks its device, and not who polls for answers', () => {
  const disk = onMemory(() => {
    throw new ProtocolViolation('§2.7.5', 'past the end of the log');
  });
  disk.ask(0, blk.VIRTIO_BLK_T_IN, 1);
  disk.store.answer();
  assert.deepEqual(disk.failures, ['past the end of the log (§2.7.5)']);
});

test('T11: a ring that stops has been answered in full: nothing is written later, and none is taken again', () => {
  const SIZE = 16;
  const ring = new PlainRing(SIZE, PLAIN, 256 * 1024);
  const store = new LateStore(new Uint8Array(64 * SECTOR).fill(9));
  const device = new BlkDevice(store, { queues: 1, queueSize: SIZE, id: 'late' });
  const signals: number[] = [];
  const events = {
    interrupt: (index: number) => signals.push(index),
    failed: () => assert.fail('the driver is a good one'),
    miss: () => undefined,
    configChanged: () => undefined,
  };
  const rings = new LocalRings(device, events, (fd) => signals.push(fd));
  rings.setFeatures(FLUSH);
  const memory = ring.region;
  rings.setMemory({
    regions: [{ guest: 0, user: 0, size: memory.byteLength, memory }],
    translated: false,
    log: undefined,
  });
  rings.setCall(0, 55);
  const places = {
    descriptorLow: ring.descriptorArea,
    descriptorHigh: 0,
    driverLow: ring.driverArea,
    driverHigh: 0,
    deviceLow: ring.deviceArea,
    deviceHigh: 0,
  };
  rings.start({
    index: 0,
    size: SIZE,
    base: 0,
    places,
    logAddress: undefined,
    inflight: undefined,
    kick: -1,
  });
  for (let token = 0; token < 4; token++) {
    const at = 64 * 1024 + token * 1024;
    memory.u8.set(blk.virtioBlkRequestHeader.make({ type: blk.VIRTIO_BLK_T_IN, sector: token }).bytes, at);
    ring.driver.add(new BufferList().addReadable(at, 16).addWritable(at + 16, SECTOR + 1), token);
  }
  rings.kick(0);
  store.answer(2);
  assert.equal(rings.stop(0), 4, 'the next entry to take');
  assert.equal(store.pending.length, 0);
  assert.equal(signals.length, 4, 'the driver was told');
  const tokens = Array.from({ length: 4 }, () => ring.driver.poll());
  assert.deepEqual(tokens.sort(), [0, 1, 2, 3]);
});

test('F26 T11: a reset, a ring reset and a broken rule wait for the host, and then let go of everything', async () => {
  for (const end of ['reset', 'ring', 'violation'] as const) {
    const store = new LateStore(new Uint8Array(64 * 1024));
    const scene = new Scene({ store });
    const { queue } = readyToRead(scene);
    scene.driver.submit(queue, 0);
    assert.equal(store.pending.length, 1);
    if (end === 'reset') scene.driver.reset();
    else if (end === 'ring') scene.served.state.resetQueue(0);
    // The same head once more, while it is in flight.
    else scene.driver.submit(queue, 0);
    assert.equal(store.pending.length, 0, 'the host has nothing any more');
    assert.equal(queue.used.index, 1, 'what it had was answered');
    assert.equal(scene.mappedOfSuspect, 0);
    const before = queue.pages.bytes.slice();
    scene.driver.run();
    assert.deepEqual(queue.pages.bytes, before);
    await scene.neighbourWorks();
  }
});
