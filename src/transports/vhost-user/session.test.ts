// The conversation with a frontend: orders of messages as QEMU and User-Mode Linux have them, and what is refused.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as user from '../../abi/vhost-user.ts';
import { virtioBlkRequestHeader } from '../../abi/virtio-blk.ts';
import { VIRTIO_F_VERSION_1 } from '../../abi/virtio.ts';
import { BlkDevice } from '../../devices/blk.ts';
import { ProtocolViolation } from '../../errors.ts';
import { MemoryStore } from '../../storage/memory-store.ts';
import {
  addressBytes,
  number,
  singleBytes,
  state,
  TestFrontend,
  tableBytes,
} from './frontend.test.helper.ts';
import {
  AVAILABLE,
  BUFFERS,
  DESCRIPTORS,
  GUEST_BYTES,
  RecordingDevice,
  TestGuest,
  USED,
} from './guest.test.helper.ts';

/** Where the monitor has the guest's memory, and where the guest has it. */
const MONITOR = 0x7f00_0000_0000;
const GUEST = 0x10_0000;
const REGION = { guest: GUEST, size: GUEST_BYTES, user: MONITOR };
const SIZE = 8;
const FEATURES = VIRTIO_F_VERSION_1 | user.VHOST_USER_F_PROTOCOL_FEATURES;
const PROTOCOL =
  user.VHOST_USER_PROTOCOL_F_REPLY_ACK |
  user.VHOST_USER_PROTOCOL_F_BACKEND_REQ |
  user.VHOST_USER_PROTOCOL_F_CONFIG |
  user.VHOST_USER_PROTOCOL_F_CONFIGURE_MEM_SLOTS;

function withMemory(device = new RecordingDevice(), protocol = PROTOCOL, features = FEATURES) {
  const frontend = new TestFrontend(device);
  const guest = new TestGuest(SIZE);
  frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(protocol));
  frontend.send(user.VHOST_USER_SET_FEATURES, number(features));
  frontend.send(user.VHOST_USER_SET_MEM_TABLE, tableBytes([REGION]), [
    frontend.platform.descriptor(guest.file),
  ]);
  return { frontend, guest, device };
}

function setUpRing(frontend: TestFrontend, base = 0, log?: number): void {
  frontend.send(user.VHOST_USER_SET_VRING_NUM, state(0, SIZE));
  frontend.send(user.VHOST_USER_SET_VRING_BASE, state(0, base));
  frontend.send(
    user.VHOST_USER_SET_VRING_ADDR,
    addressBytes(0, MONITOR + DESCRIPTORS, MONITOR + AVAILABLE, MONITOR + USED, log),
  );
}

function startRing(frontend: TestFrontend): { kick: number; call: number } {
  const kick = frontend.platform.descriptor();
  const call = frontend.platform.descriptor();
  frontend.send(user.VHOST_USER_SET_VRING_KICK, number(0n), [kick]);
  frontend.send(user.VHOST_USER_SET_VRING_CALL, number(0n), [call]);
  frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
  return { kick, call };
}

function assertNothingLeft(frontend: TestFrontend): void {
  frontend.session.close();
  assert.equal(frontend.platform.open.size, 0, 'descriptors');
  assert.equal(frontend.platform.mappings, 0, 'mappings');
}

/** A read of the second sector. */
function readSector(guest: TestGuest): Uint8Array {
  const header = virtioBlkRequestHeader.make({ type: 0, sector: 1 });
  guest.region.u8.set(header.bytes, BUFFERS);
  guest.offerChain(0, [
    [GUEST + BUFFERS, 16, false],
    [GUEST + BUFFERS + 512, 512, true],
    [GUEST + BUFFERS + 1024, 1, true],
  ]);
  return guest.region.u8.subarray(BUFFERS + 512, BUFFERS + 1025);
}

function disk(): BlkDevice {
  const bytes = Uint8Array.from({ length: 4096 }, (_, i) => (i >> 9) + 1);
  return new BlkDevice(new MemoryStore(bytes), { queues: 1, queueSize: 128, id: 'test' });
}

test('a session as QEMU has it, one byte at a time, up to a block that is read', () => {
  const frontend = new TestFrontend(disk());
  const { platform } = frontend;
  const guest = new TestGuest(SIZE);
  const features = frontend.askNumber(user.VHOST_USER_GET_FEATURES);
  assert.ok(features & user.VHOST_USER_F_PROTOCOL_FEATURES);
  const protocol = frontend.askNumber(user.VHOST_USER_GET_PROTOCOL_FEATURES);
  frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(protocol), [], 0, 1);
  assert.equal(frontend.askNumber(user.VHOST_USER_GET_QUEUE_NUM), 1n);
  assert.ok(frontend.askNumber(user.VHOST_USER_GET_MAX_MEM_SLOTS) >= 8n);
  frontend.send(user.VHOST_USER_SET_BACKEND_REQ_FD, undefined, [platform.descriptor()]);
  frontend.send(user.VHOST_USER_SET_OWNER);
  frontend.send(user.VHOST_USER_SET_VRING_CALL, number(0n), [platform.descriptor()]);
  const config = new Uint8Array(12 + 60);
  new DataView(config.buffer).setUint32(4, 60, true);
  const answer = frontend.ask(user.VHOST_USER_GET_CONFIG, config).payload;
  assert.equal(answer.length, 72);
  assert.equal(new DataView(answer.buffer, answer.byteOffset).getUint32(12, true), 8, 'capacity in sectors');

  // QEMU's structure ends with four bytes of padding.
  const want = new Uint8Array(user.vhostUserInflight.size + 4);
  want.set(user.vhostUserInflight.make({ num_queues: 1, queue_size: SIZE }).bytes);
  const inflight = frontend.ask(user.VHOST_USER_GET_INFLIGHT_FD, want);
  assert.equal(inflight.payload.length, want.length, 'QEMU takes an answer of the length that it asked with');
  assert.ok(inflight.file !== undefined);
  frontend.send(user.VHOST_USER_SET_INFLIGHT_FD, inflight.payload, [platform.descriptor(inflight.file)]);
  frontend.send(user.VHOST_USER_SET_FEATURES, number(features & ~user.VHOST_F_LOG_ALL), [], 0, 1);
  const ack = frontend.askNumber(
    user.VHOST_USER_ADD_MEM_REG,
    singleBytes(REGION),
    [platform.descriptor(guest.file)],
    user.VHOST_USER_NEED_REPLY,
  );
  assert.equal(ack, 0n);
  setUpRing(frontend);
  const read = readSector(guest);
  const { call } = startRing(frontend);
  frontend.rings.kick(0);
  assert.ok(
    read.subarray(0, 512).every((byte) => byte === 2),
    'the sector',
  );
  assert.equal(read[512], 0, 'its status');
  assert.deepEqual(guest.reported(), [0]);
  assert.deepEqual(platform.signals.slice(-1), [call]);
  const { num } = user.vhostUserVringState.over(
    frontend.ask(user.VHOST_USER_GET_VRING_BASE, state(0, 0)).payload,
  );
  assert.equal(num, 1);
  frontend.send(user.VHOST_USER_REM_MEM_REG, singleBytes(REGION), [], user.VHOST_USER_NEED_REPLY);
  assert.equal(platform.mappings, 1, 'only the inflight buffer');
  assertNothingLeft(frontend);
});

test('T2: as from User-Mode Linux, the request that negotiates acknowledgements asks for one itself', () => {
  const frontend = new TestFrontend(disk());
  const features = number(PROTOCOL);
  const request = user.VHOST_USER_SET_PROTOCOL_FEATURES;
  assert.equal(frontend.askNumber(request, features, [], user.VHOST_USER_NEED_REPLY), 0n);
  assertNothingLeft(frontend);
});

test('a session as User-Mode Linux has it: room for two regions, no acknowledgements', () => {
  const frontend = new TestFrontend(disk());
  const { platform } = frontend;
  const guest = new TestGuest(SIZE);
  frontend.send(user.VHOST_USER_SET_OWNER);
  const features = frontend.askNumber(user.VHOST_USER_GET_FEATURES);
  const protocol = frontend.askNumber(user.VHOST_USER_GET_PROTOCOL_FEATURES);
  const wanted = user.VHOST_USER_PROTOCOL_F_BACKEND_REQ | user.VHOST_USER_PROTOCOL_F_CONFIG;
  frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(protocol & wanted));
  const channel = platform.descriptor();
  frontend.send(user.VHOST_USER_SET_BACKEND_REQ_FD, undefined, [channel]);
  frontend.send(user.VHOST_USER_SET_FEATURES, number(features & FEATURES));
  frontend.send(user.VHOST_USER_SET_MEM_TABLE, tableBytes([REGION], 2), [platform.descriptor(guest.file)]);
  setUpRing(frontend);
  const read = readSector(guest);
  startRing(frontend);
  frontend.rings.kick(0);
  assert.equal(read[0], 2);
  assert.ok(platform.open.has(channel), 'the frontend breaks the device when its socket is closed');
  assertNothingLeft(frontend);
});

test('a ring starts with its kick and when it is enabled, not before; its first call comes with its descriptor', () => {
  const { frontend, guest, device } = withMemory();
  setUpRing(frontend);
  guest.offer(3, GUEST + BUFFERS, 8);
  frontend.send(user.VHOST_USER_SET_VRING_KICK, number(0n), [frontend.platform.descriptor()]);
  frontend.rings.kick(0);
  assert.deepEqual(device.done, [], 'not enabled');
  const call = frontend.platform.descriptor();
  frontend.send(user.VHOST_USER_SET_VRING_CALL, number(0n), [call]);
  assert.deepEqual(frontend.platform.signals, [call]);
  frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
  frontend.rings.kick(0);
  assert.deepEqual(device.done, [3]);
  assertNothingLeft(frontend);
});

test('without F_PROTOCOL_FEATURES a ring is enabled from its kick on', () => {
  const { frontend, guest, device } = withMemory(undefined, 0n, VIRTIO_F_VERSION_1);
  setUpRing(frontend);
  guest.offer(1, GUEST + BUFFERS, 8);
  frontend.send(user.VHOST_USER_SET_VRING_KICK, number(0n), [frontend.platform.descriptor()]);
  frontend.rings.kick(0);
  assert.deepEqual(device.done, [1]);
  assertNothingLeft(frontend);
});

const REFUSED: readonly (readonly [string, (f: TestFrontend) => void])[] = [
  ['T2: an unknown request', (f) => f.send(99)],
  ['T2: an answer', (f) => f.send(user.VHOST_USER_GET_FEATURES, undefined, [], user.VHOST_USER_REPLY)],
  ['T2: a short payload', (f) => f.send(user.VHOST_USER_SET_FEATURES, new Uint8Array(7))],
  ['T5: an empty region', (f) => addRegion(f, { ...REGION, guest: 0, user: 0, size: 0 })],
  ['T5: a region that overlaps', (f) => addRegion(f, { ...REGION, guest: GUEST + 4096, user: 0 })],
  ['T5: a region that overlaps in the monitor', (f) => addRegion(f, { ...REGION, guest: 0x100_0000 })],
  ['T5: a region that wraps', (f) => addRegion(f, { ...REGION, guest: 2 ** 64 - 4096, user: 0 })],
  ['T5: an offset that wraps', (f) => addRegion(f, { guest: 0, user: 0, size: 4096, offset: 2 ** 53 - 8 })],
  ['T5: a file that is too short', (f) => addRegion(f, { guest: 0, user: 0, size: 4096, offset: 65536 })],
  ['T5: a region without a file', (f) => f.send(user.VHOST_USER_ADD_MEM_REG, singleBytes(REGION))],
  ['T7: a ring that is not there', (f) => f.send(user.VHOST_USER_SET_VRING_NUM, state(2, SIZE))],
  ['T7: a kick for it', (f) => f.send(user.VHOST_USER_SET_VRING_KICK, number(2n), [f.platform.descriptor()])],
  ['T7: its base', (f) => f.send(user.VHOST_USER_GET_VRING_BASE, state(7, 0))],
  ['F20: a ring of 3', (f) => f.send(user.VHOST_USER_SET_VRING_NUM, state(0, 3))],
  ['F20: a ring of 16 where 8 is the most', (f) => f.send(user.VHOST_USER_SET_VRING_NUM, state(0, 16))],
  ['T8: more queues than there are', (f) => setInflight(f, 3, SIZE, 4096)],
  ['T8: a queue size of zero', (f) => setInflight(f, 1, 0, 4096)],
  ['T8: a buffer that is too small', (f) => setInflight(f, 2, SIZE, 64)],
  ['T8: a file that is too small', (f) => setInflight(f, 2, SIZE, 2 ** 40, 64)],
  [
    'T13: in-band notifications without what they need',
    (f) =>
      f.send(
        user.VHOST_USER_SET_PROTOCOL_FEATURES,
        number(user.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS | user.VHOST_USER_PROTOCOL_F_BACKEND_REQ),
      ),
  ],
  ['a feature that was not offered', (f) => f.send(user.VHOST_USER_SET_FEATURES, number(1n << 63n))],
  [
    'XEN_MMAP where it was not offered',
    (f) => f.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(1n << 17n)),
  ],
];

function addRegion(frontend: TestFrontend, region: typeof REGION & { offset?: number }): void {
  const fd = frontend.platform.descriptor(new ArrayBuffer(GUEST_BYTES));
  frontend.send(user.VHOST_USER_ADD_MEM_REG, rawRegion(region), [fd]);
}

/** Like singleBytes, also for numbers that no region may have. */
function rawRegion(region: typeof REGION & { offset?: number }): Uint8Array {
  const bytes = singleBytes({ ...region, guest: 0, user: 0, size: 0, offset: 0 });
  const view = new DataView(bytes.buffer);
  const values = [region.guest, region.size, region.user, region.offset ?? 0];
  for (const [i, value] of values.entries()) view.setBigUint64(8 + i * 8, BigInt(value), true);
  return bytes;
}

function setInflight(
  f: TestFrontend,
  num_queues: number,
  queue_size: number,
  mmap_size: number,
  file = 65536,
) {
  const { bytes } = user.vhostUserInflight.make({ num_queues, queue_size, mmap_size });
  f.send(user.VHOST_USER_SET_INFLIGHT_FD, bytes, [f.platform.descriptor(new ArrayBuffer(file))]);
}

for (const [title, attempt] of REFUSED) {
  test(`${title} ends the connection and nothing is left open`, () => {
    const { frontend } = withMemory();
    assert.throws(() => attempt(frontend), ProtocolViolation);
    assertNothingLeft(frontend);
  });
}

test('T2: what is refused is answered where an acknowledgement was asked for, and nothing has changed', () => {
  const { frontend, guest, device } = withMemory();
  const ask = (request: number, payload: Uint8Array, fds: number[] = []) =>
    frontend.askNumber(request, payload, fds, user.VHOST_USER_NEED_REPLY);
  assert.notEqual(ask(99, new Uint8Array(0)), 0n);
  const fd = frontend.platform.descriptor(guest.file);
  assert.notEqual(ask(user.VHOST_USER_ADD_MEM_REG, singleBytes({ ...REGION, user: 0 }), [fd]), 0n);
  assert.equal(frontend.platform.mappings, 1);
  assert.equal(frontend.refusals.length, 2, 'who serves it learns why');
  assert.equal(frontend.refusals[0], 'request 99: request 99 is unknown');
  assert.match(frontend.refusals[1], /^ADD_MEM_REG: regions at guest addresses \w+ and \w+ overlap/);
  setUpRing(frontend);
  guest.offer(0, GUEST + BUFFERS, 8);
  startRing(frontend);
  frontend.rings.kick(0);
  assert.deepEqual(device.done, [0]);
  assertNothingLeft(frontend);
});

test('T4: descriptors with a request that takes none are closed', () => {
  const { frontend } = withMemory();
  const open = frontend.platform.open.size;
  const strays = [frontend.platform.descriptor(), frontend.platform.descriptor()];
  frontend.ask(user.VHOST_USER_GET_FEATURES, undefined, strays);
  const single = singleBytes(REGION);
  frontend.send(user.VHOST_USER_REM_MEM_REG, single, [frontend.platform.descriptor()]);
  assert.equal(frontend.platform.open.size, open);
  assertNothingLeft(frontend);
});

test('T10: a new memory table while a ring runs: it goes on in the new memory, the old is unmapped', () => {
  const { frontend, guest, device } = withMemory();
  setUpRing(frontend);
  startRing(frontend);
  guest.offer(0, GUEST + BUFFERS, 8);
  frontend.rings.kick(0);
  const moved = new TestGuest(SIZE);
  moved.region.u8.set(guest.region.u8);
  const before = guest.region.u8.slice();
  const fd = frontend.platform.descriptor(moved.file);
  frontend.send(user.VHOST_USER_SET_MEM_TABLE, tableBytes([REGION]), [fd]);
  assert.equal(frontend.platform.mappings, 1);
  moved.offer(5, GUEST + BUFFERS, 8);
  frontend.rings.kick(0);
  assert.deepEqual(device.done, [0, 5]);
  assert.deepEqual(moved.reported(), [0, 5]);
  assert.deepEqual(guest.region.u8, before, 'nobody writes to the old memory');
  assertNothingLeft(frontend);
});

test('T11: a ring that stops with requests in flight says where to go on; what comes later is not written', () => {
  const { frontend, guest, device } = withMemory();
  setUpRing(frontend);
  startRing(frontend);
  device.holding = true;
  for (const head of [4, 2, 6]) guest.offer(head, GUEST + BUFFERS + head * 8, 8);
  frontend.rings.kick(0);
  const [first, ...rest] = device.held;
  device.answer(first.queue, first.chain);
  const reply = frontend.ask(user.VHOST_USER_GET_VRING_BASE, state(0, 0));
  assert.equal(user.vhostUserVringState.over(reply.payload).num, 1);
  for (const { queue, chain } of rest) queue.complete(chain, 0, 0);
  assert.deepEqual(guest.reported(), [4]);
  assertNothingLeft(frontend);
});

test('F19: a ring outside the memory fails alone, and the frontend is told', () => {
  const { frontend, guest, device } = withMemory();
  const error = frontend.platform.descriptor();
  frontend.send(user.VHOST_USER_SET_VRING_ERR, number(0n), [error]);
  frontend.send(user.VHOST_USER_SET_VRING_NUM, state(0, SIZE));
  frontend.send(user.VHOST_USER_SET_VRING_ADDR, addressBytes(0, MONITOR - 4096, MONITOR, MONITOR + USED));
  startRing(frontend);
  assert.ok(frontend.platform.signals.includes(error));
  guest.offer(0, GUEST + BUFFERS, 8);
  frontend.rings.kick(0);
  assert.deepEqual(device.done, []);
  assert.equal(frontend.askNumber(user.VHOST_USER_GET_STATUS) & 64n, 64n, 'DEVICE_NEEDS_RESET');
  assertNothingLeft(frontend);
});

test('a ring whose driver breaks a rule stops, and a reset lets it begin anew', () => {
  const { frontend, guest, device } = withMemory();
  setUpRing(frontend);
  startRing(frontend);
  guest.publish(77);
  frontend.rings.kick(0);
  assert.equal(frontend.askNumber(user.VHOST_USER_GET_STATUS) & 64n, 64n);
  frontend.send(user.VHOST_USER_RESET_DEVICE);
  assert.equal(frontend.askNumber(user.VHOST_USER_GET_STATUS), 0n);
  guest.region.u8.fill(0);
  frontend.send(user.VHOST_USER_SET_FEATURES, number(FEATURES));
  setUpRing(frontend);
  startRing(frontend);
  guest.offer(0, GUEST + BUFFERS, 8);
  frontend.rings.kick(0);
  assert.deepEqual(device.done, [0]);
  assertNothingLeft(frontend);
});

test('in-band: kicks come and calls go as messages', () => {
  const protocol = PROTOCOL | user.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS;
  const { frontend, guest, device } = withMemory(undefined, protocol);
  const channel = frontend.platform.descriptor();
  frontend.send(user.VHOST_USER_SET_BACKEND_REQ_FD, undefined, [channel]);
  setUpRing(frontend);
  frontend.send(user.VHOST_USER_VRING_KICK, state(0, 0));
  frontend.send(user.VHOST_USER_SET_VRING_KICK, number(user.VHOST_USER_VRING_NOFD));
  frontend.send(user.VHOST_USER_SET_VRING_CALL, number(user.VHOST_USER_VRING_NOFD));
  frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
  guest.offer(0, GUEST + BUFFERS, 8);
  frontend.send(user.VHOST_USER_VRING_KICK, state(0, 0));
  assert.deepEqual(device.done, [0]);
  const [call] = frontend.platform.sent;
  assert.deepEqual([...call], [4, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  assertNothingLeft(frontend);
});

test('in-band: a kick starts a ring for which SET_VRING_KICK never came, as from User-Mode Linux', () => {
  const protocol = PROTOCOL | user.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS;
  const { frontend, guest, device } = withMemory(undefined, protocol);
  setUpRing(frontend);
  guest.offer(0, GUEST + BUFFERS, 8);
  frontend.send(user.VHOST_USER_VRING_KICK, state(0, 0));
  assert.deepEqual(device.done, [], 'F24: it is not enabled yet');
  frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
  frontend.send(user.VHOST_USER_VRING_KICK, state(0, 0));
  assert.deepEqual(device.done, [0]);
  assertNothingLeft(frontend);
});

test('F24: a kick as a message starts no ring where in-band notifications were not negotiated', () => {
  const { frontend, guest, device } = withMemory();
  setUpRing(frontend);
  frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
  guest.offer(0, GUEST + BUFFERS, 8);
  frontend.send(user.VHOST_USER_VRING_KICK, state(0, 0));
  assert.deepEqual(device.done, []);
  assertNothingLeft(frontend);
});

test('a change of configuration is told once until it is acknowledged, then once more', () => {
  const { frontend } = withMemory();
  frontend.session.configChanged(Uint8Array.of(1, 2, 3));
  assert.equal(frontend.platform.sent.length, 0, 'no socket yet');
  frontend.send(user.VHOST_USER_SET_BACKEND_REQ_FD, undefined, [frontend.platform.descriptor()]);
  for (let i = 0; i < 5; i++) frontend.session.configChanged(Uint8Array.of(i, 7));
  assert.deepEqual([...frontend.platform.sent[0]], [2, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0]);
  assert.equal(frontend.platform.sent.length, 1);
  const { payload } = frontend.ask(
    user.VHOST_USER_GET_CONFIG,
    Uint8Array.of(0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0),
  );
  assert.deepEqual([...payload.slice(-2)], [4, 7], 'the last one, not what the device had at first');
  const answer = { request: 2, flags: 5, payload: number(0n), fds: [frontend.platform.descriptor()] };
  frontend.session.handleAnswer(answer);
  assert.equal(frontend.platform.sent.length, 2);
  frontend.session.handleAnswer({ ...answer, fds: [] });
  assert.throws(() => frontend.session.handleAnswer({ ...answer, fds: [] }), ProtocolViolation);
  assertNothingLeft(frontend);
});

test('a migration: what the device writes is marked, and the used ring', () => {
  const protocol = PROTOCOL | user.VHOST_USER_PROTOCOL_F_LOG_SHMFD;
  const { frontend, guest } = withMemory(undefined, protocol);
  setUpRing(frontend);
  startRing(frontend);
  const log = new ArrayBuffer(64);
  const marks = new Uint8Array(log);
  const { bytes } = user.vhostUserLog.make({ mmap_size: 64 });
  assert.equal(
    frontend.askNumber(user.VHOST_USER_SET_LOG_BASE, bytes, [frontend.platform.descriptor(log)]),
    0n,
  );
  frontend.send(user.VHOST_USER_SET_FEATURES, number(FEATURES | user.VHOST_F_LOG_ALL));
  setUpRingAddress(frontend);
  marks.fill(0);
  guest.offer(0, GUEST + BUFFERS + 4096, 4096 * 2);
  frontend.rings.kick(0);
  const pages = [...marks.keys()].flatMap((i) =>
    [0, 1, 2, 3, 4, 5, 6, 7].filter((bit) => marks[i] & (1 << bit)).map((bit) => i * 8 + bit),
  );
  assert.deepEqual(pages, [(GUEST + USED) / 4096, (GUEST + BUFFERS + 4096) / 4096]);
  assertNothingLeft(frontend);
});

function setUpRingAddress(frontend: TestFrontend): void {
  frontend.send(
    user.VHOST_USER_SET_VRING_ADDR,
    addressBytes(0, MONITOR + DESCRIPTORS, MONITOR + AVAILABLE, MONITOR + USED, GUEST + USED),
  );
}

/** A device behind an IOMMU, whose ring is translated, and what its monitor does. */
function behindIommu() {
  const device = new RecordingDevice();
  const frontend = new TestFrontend(device, { restricted: true });
  const guest = new TestGuest(SIZE);
  const { platform } = frontend;
  frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(PROTOCOL));
  assert.throws(() => frontend.send(user.VHOST_USER_SET_FEATURES, number(FEATURES)), ProtocolViolation);
  frontend.send(user.VHOST_USER_SET_FEATURES, number(FEATURES | (1n << 33n)));
  frontend.send(user.VHOST_USER_SET_BACKEND_REQ_FD, undefined, [platform.descriptor()]);
  frontend.send(user.VHOST_USER_SET_MEM_TABLE, tableBytes([REGION]), [platform.descriptor(guest.file)]);
  frontend.send(user.VHOST_USER_SET_VRING_NUM, state(0, SIZE));
  frontend.send(user.VHOST_USER_SET_VRING_ADDR, addressBytes(0, 0x9000_1000, 0x9000_2000, 0x9000_3000));
  startRing(frontend);
  assert.equal(platform.sent.length, 3, 'each area of the ring is asked for');
  const translate = (iova: number, offset: number, size: number, permission: number, type = 2) => {
    const { bytes } = user.vhostUserIotlb.make({
      iovaLow: iova,
      size,
      user_addressLow: (MONITOR + offset) % 2 ** 32,
      user_addressHigh: Math.floor((MONITOR + offset) / 2 ** 32),
      permission,
      type,
    });
    assert.equal(frontend.askNumber(user.VHOST_USER_IOTLB_MSG, bytes, [], user.VHOST_USER_NEED_REPLY), 0n);
  };
  /** The monitor answers the oldest miss that it has not answered. */
  const answerMiss = (value: bigint) =>
    frontend.session.handleAnswer({
      ...{ request: user.VHOST_USER_BACKEND_IOTLB_MSG, flags: user.VHOST_USER_REPLY },
      ...{ payload: number(value), fds: [] },
    });
  return { device, frontend, guest, platform, translate, answerMiss };
}

test('behind an IOMMU a chain waits for its translation, is served when that comes, and not after it has gone', () => {
  const { device, frontend, guest, platform, translate } = behindIommu();
  translate(0x9000_1000, DESCRIPTORS, 0x3000, 3);
  guest.offer(0, 0xa000_0010, 8);
  frontend.rings.kick(0);
  frontend.rings.kick(0);
  assert.deepEqual(device.done, []);
  assert.equal(platform.sent.length, 4, 'the buffer is asked for once');
  assert.deepEqual(platform.sent[3].subarray(12, 20), Uint8Array.of(0, 0, 0, 0xa0, 0, 0, 0, 0));
  assert.deepEqual([...platform.sent[3].subarray(36, 38)], [user.VHOST_ACCESS_WO, user.VHOST_IOTLB_MISS]);
  translate(0xa000_0000, BUFFERS, 4096, 2);
  assert.deepEqual(device.done, [0]);
  assert.equal(guest.region.u8[BUFFERS + 0x10], 0x5a);
  translate(0xa000_0000, 0, 4096, 0, 3);
  guest.offer(1, 0xa000_0010, 8);
  frontend.rings.kick(0);
  assert.deepEqual(device.done, [0], 'the translation is gone');
  translate(0xa000_0000, BUFFERS, 4096, 1);
  assert.deepEqual(device.done, [0, 1]);
  assert.equal(device.life.length, 1);
  assert.equal(guest.used.len(1), 0, 'read-only: refused, and the request comes back');
  assertNothingLeft(frontend);
});

test('behind an IOMMU a chain without a translation fails when the monitor says so, and is asked for anew after', () => {
  const { device, frontend, guest, platform, translate, answerMiss } = behindIommu();
  answerMiss(1n);
  assert.equal(platform.sent.length, 3, 'a ring waits on');
  translate(0x9000_1000, DESCRIPTORS, 0x3000, 3);
  for (let areas = 0; areas < 2; areas++) answerMiss(0n);
  guest.offer(0, 0xa000_0010, 8);
  frontend.rings.kick(0);
  assert.equal(user.vhostUserHeader.over(platform.sent[3]).flags & user.VHOST_USER_NEED_REPLY, 8);
  assert.deepEqual(device.done, []);
  answerMiss(1n);
  assert.deepEqual(device.done, [0]);
  assert.equal(guest.used.len(0), 0, 'refused, and the request comes back');
  guest.offer(1, 0xa000_0010, 8);
  frontend.rings.kick(0);
  assert.equal(platform.sent.length, 5);
  translate(0xa000_0000, BUFFERS, 4096, 3);
  answerMiss(0n);
  assert.deepEqual(device.done, [0, 1]);
  assert.equal(guest.used.len(1), 1);
  assert.throws(() => answerMiss(0n), ProtocolViolation);
  assertNothingLeft(frontend);
});

test('behind an IOMMU a page is asked for once, whatever is taken away before the answer', () => {
  const { device, frontend, guest, platform, translate, answerMiss } = behindIommu();
  translate(0x9000_1000, DESCRIPTORS, 0x3000, 3);
  for (let areas = 0; areas < 3; areas++) answerMiss(0n);
  guest.offer(0, 0xa000_0010, 8);
  frontend.rings.kick(0);
  // Rings stop for each of them, and start again.
  translate(0xb000_0000, 0, 4096, 0, 3);
  translate(0xa000_0000, 0, 0x8000, 0, 3);
  frontend.rings.kick(0);
  assert.equal(platform.sent.length, 4, 'a second answer would be taken for that to the next request there');
  translate(0xa000_0000, BUFFERS, 4096, 3);
  answerMiss(0n);
  assert.deepEqual(device.done, [0]);
  assert.equal(guest.used.len(0), 1);
  assertNothingLeft(frontend);
});

test('F33: a miss that the monitor does not take is not answered, and the next answer is for the next one', () => {
  const { device, frontend, guest, platform, translate, answerMiss } = behindIommu();
  translate(0x9000_1000, DESCRIPTORS, 0x3000, 3);
  for (let areas = 0; areas < 3; areas++) answerMiss(0n);
  platform.takes = false;
  guest.offer(0, 0xa000_0010, 8);
  frontend.rings.kick(0);
  platform.takes = true;
  assert.throws(() => answerMiss(1n), ProtocolViolation);
  assert.deepEqual(device.done, []);
  translate(0xb000_0000, 0, 4096, 0, 3);
  frontend.rings.kick(0);
  assert.equal(platform.sent.length, 4, 'it is asked for anew when the ring has stopped for something');
  assertNothingLeft(frontend);
});
