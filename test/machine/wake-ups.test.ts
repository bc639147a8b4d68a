// No lost wake-up (18) on the deterministic machine: a guest that runs only when an event channel says so, as a
// thread of its own would, gets all its answers, whatever the schedule.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VIRTIO_F_EVENT_IDX } from '../../src/abi/virtio.ts';
import { BlkDevice } from '../../src/devices/blk.ts';
import type { BlkDriver } from '../../src/drivers/blk.ts';
import { GuestDomain } from '../../src/machine/guest-domain.ts';
import { Machine } from '../../src/machine/machine.ts';
import { randomFrom } from '../../src/machine/random.ts';
import { MemoryStore } from '../../src/storage/memory-store.ts';
import { domainId } from '../../src/xen/ids.ts';
import { hideFeatures } from '../support/hide-features.test.helper.ts';
import { BASE, DISK_SIZE, diskBytes } from '../support/scene.test.helper.ts';

const MIB = 2 ** 20;
const SEEDS = 30;
const REQUESTS = 40;

/** A backend on the machine's schedule, and a guest that the test wakes. */
class Sleepy {
  readonly machine: Machine;
  readonly guest: GuestDomain;
  readonly disk: BlkDriver;
  readonly bytes = diskBytes(DISK_SIZE, 0x0f);

  constructor(seed: number, queues: number, eventIndex: boolean) {
    this.machine = new Machine({ seed, memory: 8 * MIB, heap: 3 * MIB });
    const limits = { maxGrantFrames: 4, maxMaptrackFrames: 2 };
    const backend = this.machine.createBackend(1, { memory: MIB, ...limits });
    // Not createGuest: the machine would let the guest look without an event.
    this.machine.xen.createDomain(2, { memory: 2 * MIB, architecture: 'arm', ...limits });
    this.machine.xen.nameDeviceModel(2, 1);
    const ports = this.machine.xen.ports(domainId(2), (words, index, value) => {
      while (Atomics.load(words, index) === value) if (!this.machine.step()) return false;
      return true;
    });
    this.guest = new GuestDomain(ports);
    const device = new BlkDevice(new MemoryStore(this.bytes), { queues, queueSize: 8, id: 'sleepy' });
    backend.serve(device, ports.id, BASE);
    if (!eventIndex) hideFeatures(this.guest, BASE, VIRTIO_F_EVENT_IDX);
    this.disk = this.guest.attachBlk({ base: BASE, backend: backend.ports.id, device: 0 }, 'bounce', {
      queues,
      queueSize: 8,
    });
  }

  /** Wakes the guest if an event is pending; it then does what a thread does until it may sleep again. */
  wakeGuest(): boolean {
    if (!this.guest.ports.events.pending) return false;
    do this.guest.poll();
    while (this.guest.arm());
    return true;
  }
}

/** Sends requests at random moments, several at once, and runs whoever is awake until nobody is. */
async function allAnswered(seed: number, queues: number, eventIndex: boolean): Promise<void> {
  const random = randomFrom(seed);
  const sleepy = new Sleepy(seed, queues, eventIndex);
  const { disk } = sleepy;
  const buffers = await Promise.all(Array.from({ length: 4 }, () => disk.buffer(512)));
  assert.equal(disk.busy, false);
  let sent = 0;
  let answered = 0;
  // The guest has looked, found nothing, and sleeps.
  while (disk.arm()) disk.poll();
  for (let idle = 0; idle < 2; ) {
    if (sent < REQUESTS && random() < 0.3) {
      const buffer = buffers[sent % buffers.length];
      const address = sleepy.guest.ports.memory.addressOf(buffer.bytes);
      disk.submit(0, sent % 128, address, 512, (status) => {
        assert.equal(status, 0);
        answered++;
      });
      sent++;
      idle = 0;
      continue;
    }
    const guestFirst = random() < 0.5;
    const worked = guestFirst
      ? sleepy.wakeGuest() || sleepy.machine.step()
      : sleepy.machine.step() || sleepy.wakeGuest();
    idle = worked || sent < REQUESTS ? 0 : idle + 1;
  }
  assert.equal(
    answered,
    REQUESTS,
    `seed ${seed}: everybody sleeps, and ${REQUESTS - answered} are not answered`,
  );
  assert.deepEqual(sleepy.guest.detach(disk), { live: 0, quarantined: 0 });
}

for (const eventIndex of [false, true]) {
  for (const queues of [1, 2]) {
    const title = `${queues} queues, ${eventIndex ? 'event index' : 'flags'}`;
    test(`no wake-up is lost between two domains (18), ${title}, ${SEEDS} schedules`, async () => {
      for (let seed = 1; seed <= SEEDS; seed++) await allAnswered(seed, queues, eventIndex);
    });
  }
}
