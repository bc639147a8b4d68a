// Whatever a frontend sends, it ends in messages or in the end of the connection; then every descriptor has been
// closed once and nothing is mapped. The counting machine fails the test on a second close.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as user from '../../abi/vhost-user.ts';
import { ProtocolViolation } from '../../errors.ts';
import {
  addressBytes,
  number,
  singleBytes,
  state,
  TestFrontend,
  tableBytes,
} from './frontend.test.helper.ts';
import { AVAILABLE, BUFFERS, DESCRIPTORS, RecordingDevice, TestGuest, USED } from './guest.test.helper.ts';
import { MessageReader } from './message-reader.ts';

const SIZE = 8;
const REGIONS = [
  { guest: 0, size: 0x8000, user: 0x10_0000 },
  { guest: 0x8000, size: 0x8000, user: 0x10_8000, offset: 0x8000 },
  { guest: 0x4000, size: 0x8000, user: 0x20_0000 },
];
const at = 0x10_0000;
const PAYLOADS: readonly Uint8Array[] = [
  new Uint8Array(0),
  ...[
    0n,
    1n,
    2n,
    0x100n,
    0x101n,
    0xffffn,
    1n << 32n,
    (1n << 32n) | (1n << 30n),
    (1n << 33n) | (1n << 32n),
  ].map(number),
  number((1n << 17n) - 1n),
  number((1n << 32n) | user.VHOST_F_LOG_ALL | user.VHOST_USER_F_PROTOCOL_FEATURES),
  ...[0, 1, 2].flatMap((index) => [0, 1, SIZE, 4, 0xffff].map((num) => state(index, num))),
  tableBytes([REGIONS[0]]),
  tableBytes([REGIONS[0], REGIONS[1]]),
  tableBytes([REGIONS[0], REGIONS[2]]),
  ...REGIONS.map((region) => singleBytes(region)),
  addressBytes(0, at + DESCRIPTORS, at + AVAILABLE, at + USED),
  addressBytes(1, at + DESCRIPTORS, at + AVAILABLE, at + USED, USED),
  addressBytes(0, DESCRIPTORS, AVAILABLE, USED),
  addressBytes(0, at + 1, at, at),
  user.vhostUserInflight.make({ num_queues: 2, queue_size: SIZE, mmap_size: 0x1000 }).bytes,
  user.vhostUserInflight.make({ num_queues: 60000, queue_size: 60000, mmap_size: 64 }).bytes,
  user.vhostUserLog.make({ mmap_size: 64 }).bytes,
  user.vhostUserLog.make({ mmap_size: 0 }).bytes,
  ...[2, 3].map(
    (type) =>
      user.vhostUserIotlb.make({ iovaLow: 0, size: 0x10000, user_addressLow: at, permission: 3, type }).bytes,
  ),
  user.vhostUserConfigHeader.make({ size: 0 }).bytes,
  user.vhostUserConfigHeader.make({ size: 0xffff_ffff, offset: 0xffff_ffff }).bytes,
];

const step = fc.record({
  request: fc.oneof(fc.integer({ min: 0, max: 42 }), fc.constantFrom(5, 8, 9, 12, 13, 18, 35)),
  payload: fc.oneof(
    { weight: 20, arbitrary: fc.constantFrom(...PAYLOADS) },
    fc.uint8Array({ maxLength: 60 }),
  ),
  flags: fc.constantFrom(0, 8, 8, 8, 4),
  fds: fc.integer({ min: 0, max: 3 }),
});

/** A guest with requests waiting, some of which are nonsense. */
function busyGuest(): TestGuest {
  const guest = new TestGuest(SIZE);
  for (const head of [0, 1, 2]) guest.offer(head, BUFFERS + head * 64, 32);
  guest.offer(3, 2 ** 40, 32);
  return guest;
}

/** The fuzzing begins where a ring runs. */
function startRing(frontend: TestFrontend, file: ArrayBuffer): void {
  const { platform } = frontend;
  frontend.send(user.VHOST_USER_SET_FEATURES, number((1n << 32n) | (1n << 30n)));
  const fds = [platform.descriptor(file), platform.descriptor(file)];
  frontend.send(user.VHOST_USER_SET_MEM_TABLE, tableBytes([REGIONS[0], REGIONS[1]]), fds);
  frontend.send(user.VHOST_USER_SET_VRING_NUM, state(0, SIZE));
  const places = addressBytes(0, at + DESCRIPTORS, at + AVAILABLE, at + USED, USED);
  frontend.send(user.VHOST_USER_SET_VRING_ADDR, places);
  frontend.send(user.VHOST_USER_SET_VRING_KICK, number(0n), [platform.descriptor()]);
  frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
}

test('T2: any messages with any descriptors end with all descriptors closed once and nothing mapped', () => {
  let started = 0;
  let closed = 0;
  fc.assert(
    fc.property(fc.array(step, { maxLength: 60 }), fc.boolean(), (steps, restricted) => {
      const device = new RecordingDevice();
      const frontend = new TestFrontend(device, { restricted, xen: true });
      const { platform, session } = frontend;
      const { file } = busyGuest();
      const offered = frontend.askNumber(user.VHOST_USER_GET_PROTOCOL_FEATURES);
      const chosen = offered & ~(1n << 17n);
      frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(chosen));
      if (!restricted) startRing(frontend, file);
      try {
        for (const { request, payload, flags, fds } of steps) {
          const given = Array.from({ length: fds }, () => platform.descriptor(file));
          session.handle({ request, flags: 1 | flags, payload, fds: given });
          frontend.rings.kick(0);
          frontend.rings.kick(1);
        }
      } catch (error) {
        if (!(error instanceof ProtocolViolation)) throw error;
        closed++;
      }
      session.close();
      session.close();
      started += device.life.length;
      assert.equal(platform.open.size, 0);
      assert.equal(platform.mappings, 0);
    }),
    { seed: 52, numRuns: 1500 },
  );
  assert.ok(started > 0, 'some rings have run');
  assert.ok(closed > 0, 'some connections were closed');
});

test('T1: any bytes end in messages or in the end of the connection', () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(fc.uint8Array({ minLength: 1, maxLength: 40 }), fc.integer({ min: 0, max: 9 }))),
      (reads) => {
        const frontend = new TestFrontend(new RecordingDevice());
        const { platform, session } = frontend;
        const reader = new MessageReader();
        try {
          for (const [bytes, count] of reads) {
            const length = Math.min(bytes.length, reader.room.length);
            reader.room.set(bytes.subarray(0, length));
            const fds = Array.from({ length: count }, () => platform.descriptor());
            const message = reader.advance(length, fds);
            if (message !== undefined) session.handle(message);
          }
        } catch (error) {
          if (!(error instanceof ProtocolViolation)) throw error;
        }
        for (const fd of reader.pendingFds) platform.close(fd);
        session.close();
        assert.equal(platform.open.size, 0);
      },
    ),
    { seed: 53, numRuns: 500 },
  );
});
