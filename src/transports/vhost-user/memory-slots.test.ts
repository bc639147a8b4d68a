// Memory that is announced: prepared before it is taken into use, let go of when it is replaced.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { vhostUserXenRegion } from '../../abi/vhost-user-xen.ts';
import { ProtocolViolation } from '../../errors.ts';
import { CountingPlatform, singleBytes, tableBytes } from './frontend.test.helper.ts';
import { MAX_SLOTS, MemorySlots } from './memory-slots.ts';

const PAGE = 4096;

function slotsWith(count: number) {
  const platform = new CountingPlatform();
  const slots = new MemorySlots(platform);
  const add = (index: number) => {
    const fds = [platform.descriptor(new ArrayBuffer(PAGE))];
    const payload = singleBytes({ guest: index * PAGE, size: PAGE, user: index * PAGE });
    const change = slots.addition({ request: 37, flags: 1, payload, fds }, false);
    change.commit();
  };
  for (let i = 0; i < count; i++) add(i);
  return { platform, slots, add };
}

test('T5: there are as many slots as we say, and one that is removed can be used again', () => {
  const { platform, slots, add } = slotsWith(MAX_SLOTS);
  assert.throws(() => add(MAX_SLOTS), ProtocolViolation);
  const payload = singleBytes({ guest: 0, size: PAGE, user: 0 });
  const { regions, commit } = slots.removal({ request: 38, flags: 1, payload, fds: [] }, false);
  assert.ok(regions.every(({ guest }) => guest !== 0));
  assert.equal(platform.mappings, MAX_SLOTS, 'until it is taken into use');
  commit();
  assert.equal(platform.mappings, MAX_SLOTS - 1);
  assert.throws(() => slots.removal({ request: 38, flags: 1, payload, fds: [] }, false), ProtocolViolation);
  add(0);
  slots.close();
  assert.equal(platform.mappings, 0);
});

test('T5: a table of which one region cannot be mapped maps none', () => {
  const { platform, slots } = slotsWith(1);
  const fds = [PAGE, PAGE / 2].map((bytes) => platform.descriptor(new ArrayBuffer(bytes)));
  const payload = tableBytes([0, 1].map((i) => ({ guest: i * PAGE, size: PAGE, user: i * PAGE })));
  assert.throws(() => slots.replacement({ request: 5, flags: 1, payload, fds }, false), ProtocolViolation);
  assert.equal(platform.mappings, 1);
  assert.equal(slots.count, 1);
});

test('T5: a table that counts more regions than it has, or than have descriptors, is refused', () => {
  const { platform, slots } = slotsWith(0);
  const payload = tableBytes([{ guest: 0, size: PAGE, user: 0 }]);
  assert.throws(
    () => slots.replacement({ request: 5, flags: 1, payload, fds: [] }, false),
    ProtocolViolation,
  );
  payload[0] = 2;
  const fds = [0, 1].map(() => platform.descriptor(new ArrayBuffer(PAGE)));
  assert.throws(() => slots.replacement({ request: 5, flags: 1, payload, fds }, false), ProtocolViolation);
  payload.fill(0xff, 0, 4);
  assert.throws(() => slots.replacement({ request: 5, flags: 1, payload, fds }, false), ProtocolViolation);
  assert.equal(platform.mappings, 0);
});

function xenPayload(guest: number, xen_mmap_flags: number, domid: number): Uint8Array {
  const region = vhostUserXenRegion.make({
    guest_addressLow: guest,
    size: PAGE,
    user_addressLow: guest,
    xen_mmap_flags,
    domid,
  });
  return Uint8Array.of(...new Uint8Array(8), ...region.bytes);
}

test('T14: memory of a Xen domain is mapped as it says', () => {
  const { platform, slots } = slotsWith(0);
  const message = (payload: Uint8Array) => ({
    request: 37,
    flags: 1,
    payload,
    fds: [platform.descriptor(new ArrayBuffer(PAGE))],
  });
  slots.addition(message(xenPayload(0, 1, 7)), true).commit();
  slots.addition(message(xenPayload(PAGE, 2, 7)), true).commit();
  assert.deepEqual(platform.xenMaps, [
    { kind: 'foreign', domainId: 7, guest: 0 },
    { kind: 'grant', domainId: 7, guest: PAGE },
  ]);
  for (const [flags, domain] of [
    [1, 8],
    [3, 7],
    [9, 7],
    [0x102, 7],
    [8, 7],
    [10, 7],
  ])
    assert.throws(
      () => slots.addition(message(xenPayload(2 * PAGE, flags, domain)), true),
      ProtocolViolation,
    );
  assert.equal(platform.mappings, 2);
});

test('T5: a region of more than one view is mapped in pieces, and goes as one', () => {
  const platform = new CountingPlatform();
  const slots = new MemorySlots(platform, 2 * PAGE);
  const fds = [platform.descriptor(new ArrayBuffer(6 * PAGE))];
  const payload = singleBytes({ guest: 8 * PAGE, size: 5 * PAGE, user: 16 * PAGE, offset: PAGE });
  const { regions, commit } = slots.addition({ request: 37, flags: 1, payload, fds }, false);
  commit();
  assert.deepEqual(
    regions.map(({ guest, user, size, memory }) => [guest, user, size, memory.byteOffset]),
    [
      [8 * PAGE, 16 * PAGE, 2 * PAGE, PAGE],
      [10 * PAGE, 18 * PAGE, 2 * PAGE, 3 * PAGE],
      [12 * PAGE, 20 * PAGE, PAGE, 5 * PAGE],
    ],
  );
  const removal = slots.removal({ request: 38, flags: 1, payload, fds: [] }, false);
  removal.commit();
  assert.equal(platform.mappings, 0);
});

test('T5: a region whose file ends in its last piece maps nothing', () => {
  const platform = new CountingPlatform();
  const slots = new MemorySlots(platform, 2 * PAGE);
  const fds = [platform.descriptor(new ArrayBuffer(4 * PAGE))];
  const payload = singleBytes({ guest: 0, size: 5 * PAGE, user: 0 });
  assert.throws(() => slots.addition({ request: 37, flags: 1, payload, fds }, false), ProtocolViolation);
  assert.equal(platform.mappings, 0);
});
