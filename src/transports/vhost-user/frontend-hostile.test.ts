// Backends that lie to our driver's side: each lie ends the connection or the device, nothing else, and every
// descriptor that came is closed.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import * as user from '../../abi/vhost-user.ts';
import { virtioBlkConfig } from '../../abi/virtio-blk.ts';
import { BlkDriver } from '../../drivers/blk.ts';
import { DeviceRefused } from '../../virtio/negotiate.ts';
import type { UsedRing } from '../../virtqueue/split-ring.ts';
import { messageBytes } from './backend-channel.ts';
import { ANSWER_LIMIT } from './frontend-link.ts';
import { Loopback, QUEUE_SIZE, type Said } from './loopback.test.helper.ts';

const OPTIONS = { queues: 1, queueSize: QUEUE_SIZE };
const HEADER = user.vhostUserHeader.size;

function start(loopback: Loopback): BlkDriver {
  return new BlkDriver(loopback.deviceOf(loopback.connect()), OPTIONS);
}

/** A backend that says something else when it answers `request`. */
function lying(request: number, lie: (said: Said, loopback: Loopback) => readonly Said[]): Loopback {
  const loopback = new Loopback();
  loopback.tamper = (said) => (said.request === request ? lie(said, loopback) : [said]);
  return loopback;
}

/** An answer with another header. */
function withHeader(said: Said, fields: { request?: number; flags?: number; size?: number }): Said {
  const bytes = said.bytes.slice();
  Object.assign(user.vhostUserHeader.over(bytes), fields);
  return { ...said, bytes };
}

/** An answer with another payload. */
function withPayload(said: Said, payload: Uint8Array): Said {
  return { ...said, bytes: messageBytes(said.request, user.VHOST_USER_REPLY, payload) };
}

const number = (value: bigint) => user.vhostUserU64.make({ value }).bytes;

const {
  VHOST_USER_GET_FEATURES: FEATURES,
  VHOST_USER_GET_QUEUE_NUM: QUEUE_NUM,
  VHOST_USER_GET_CONFIG: CONFIG,
  VHOST_USER_SET_OWNER: OWNER,
} = user;

const REFUSED: readonly [
  title: string,
  request: number,
  lie: (said: Said, loopback: Loopback) => readonly Said[],
  reason: RegExp,
][] = [
  [
    'T2: an answer to another request',
    FEATURES,
    (said) => [withHeader(said, { request: 2 })],
    /expected the answer to GET_FEATURES/,
  ],
  ['T2: an answer that is none', FEATURES, (said) => [withHeader(said, { flags: 1 })], /expected the answer/],
  ['T2: a version that there is not', FEATURES, (said) => [withHeader(said, { flags: 6 })], /version 2/],
  [
    'T2: a size beyond all messages',
    FEATURES,
    (said) => [withHeader(said, { size: 0xffff_ffff })],
    /4294967295 bytes/,
  ],
  [
    'T2: a number of four bytes',
    FEATURES,
    (said) => [withPayload(said, new Uint8Array(4))],
    /4 bytes, expected a number/,
  ],
  [
    'T2: an acknowledgement of nothing',
    OWNER,
    (said) => [withPayload(said, new Uint8Array(0))],
    /acknowledgement of SET_OWNER/,
  ],
  [
    'T2: no protocol features',
    FEATURES,
    (said) => [withPayload(said, number(1n << 32n))],
    /VHOST_USER_F_PROTOCOL_FEATURES/,
  ],
  [
    'T2: a refusal of what cannot be refused',
    OWNER,
    (said) => [withPayload(said, number(1n))],
    /refuses SET_OWNER/,
  ],
  [
    'T4: descriptors with an answer that has none',
    FEATURES,
    (said, loopback) => [{ ...said, fds: [loopback.gift(), loopback.gift()] }],
    /descriptors that nobody asked for/,
  ],
  ['T2: an answer twice', QUEUE_NUM, (said) => [said, said], /expected the answer/],
  ['B10 T7: no queues', QUEUE_NUM, (said) => [withPayload(said, number(0n))], /no queues/],
  [
    'B10: a configuration that is not there',
    CONFIG,
    (said) => [withPayload(said, new Uint8Array(0))],
    /GET_CONFIG/,
  ],
  [
    'B10: a configuration that is longer',
    CONFIG,
    (said) => [withPayload(said, new Uint8Array(300))],
    /300 bytes/,
  ],
  [
    'B10: a configuration of another size than it says',
    CONFIG,
    (said) => {
      const bytes = said.bytes.slice();
      new DataView(bytes.buffer).setUint32(HEADER + 4, 1, true);
      return [{ ...said, bytes }];
    },
    /GET_CONFIG/,
  ],
  [
    'B10: a disk of more bytes than there are numbers',
    CONFIG,
    (said) => {
      const bytes = said.bytes.slice();
      bytes.fill(0xff, HEADER + 12, HEADER + 20);
      return [{ ...said, bytes }];
    },
    /sectors/,
  ],
  [
    'T1: the end in the middle of an answer',
    FEATURES,
    (said, loopback) => {
      loopback.die();
      return [{ ...said, bytes: said.bytes.subarray(0, 5) }];
    },
    /closed the connection/,
  ],
];

for (const [title, request, lie, reason] of REFUSED)
  test(`${title}: the backend is refused, and nothing is left open`, () => {
    const loopback = lying(request, lie);
    assert.throws(
      () => start(loopback),
      (error) => error instanceof DeviceRefused && reason.test(loopback.frontend?.failure ?? error.message),
    );
    // The disk's own refusals leave the connection to whoever made it.
    loopback.finish();
  });

test('B10 T7: more queues than can be named are as many as can be', () => {
  const loopback = lying(QUEUE_NUM, (said) => [withPayload(said, number(2n ** 63n))]);
  const frontend = loopback.connect();
  assert.deepEqual([frontend.queueSizeMax(255), frontend.queueSizeMax(256)], [1024, 0]);
  loopback.finish();
});

test('features that the backend does not accept after all end the negotiation', () => {
  const loopback = lying(user.VHOST_USER_SET_FEATURES, (said) => [withPayload(said, number(1n))]);
  assert.throws(() => start(loopback), /does not accept the features/);
  loopback.finish();
});

test('bits of a status that are not the backend to set are ignored', () => {
  const loopback = lying(user.VHOST_USER_GET_STATUS, (said) => [withPayload(said, number(0x3fn))]);
  const frontend = loopback.connect();
  frontend.writeStatus(0);
  assert.equal(frontend.readStatus(), 0);
  frontend.writeStatus(1);
  assert.equal(frontend.readStatus(), 1);
  loopback.finish();
});

test('B9: an answer that does not come is waited for ten seconds, no longer', () => {
  const loopback = lying(FEATURES, () => []);
  assert.throws(() => start(loopback), /has not answered GET_FEATURES for 10 s/);
  assert.equal(loopback.time, ANSWER_LIMIT);
  loopback.finish();
});

test('B9: nor is one that comes a byte at a time, each after a while', () => {
  let rest: Said | undefined;
  const loopback = lying(FEATURES, (said) => {
    rest = said;
    return [];
  });
  loopback.cut = 1;
  loopback.onWait = () => {
    if (rest === undefined || loopback.time % 1000 !== 0) return;
    const { bytes } = rest;
    rest = { ...rest, bytes: bytes.subarray(1) };
    loopback.tamper = (said) => [said];
    loopback.say({ ...rest, bytes: bytes.subarray(0, 1) });
  };
  assert.throws(() => start(loopback), /has not answered GET_FEATURES/);
  assert.ok(loopback.time <= ANSWER_LIMIT);
  loopback.finish();
});

test('B13: a ring that is not stopped ends the connection, and so the reset', () => {
  const loopback = lying(user.VHOST_USER_GET_VRING_BASE, () => []);
  const disk = start(loopback);
  disk.close();
  assert.match(loopback.frontend!.failure ?? '', /has not answered GET_VRING_BASE/);
  loopback.finish();
});

test('T7: an answer about another ring than was stopped ends the connection', () => {
  const loopback = lying(user.VHOST_USER_GET_VRING_BASE, (said) => [
    withPayload(said, user.vhostUserVringState.make({ index: 1, num: 0 }).bytes),
  ]);
  start(loopback).close();
  assert.match(loopback.frontend!.failure ?? '', /not about ring 0/);
  loopback.finish();
});

for (const [title, say] of [
  ['a whole message', new Uint8Array([1, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0])],
  ['one byte', Uint8Array.of(7)],
] as const)
  test(`T2: ${title} that nobody asked for ends the connection, with its descriptors`, () => {
    const loopback = new Loopback();
    const disk = start(loopback);
    loopback.say({ request: 1, bytes: say, fds: [loopback.gift()] });
    loopback.frontend!.look();
    assert.match(loopback.frontend!.failure ?? '', /nobody asked for/);
    assert.equal(disk.holdsDevice, false);
    disk.fail('gone');
    disk.close();
    loopback.finish();
  });

for (const [title, bytes] of [
  ['an IOTLB miss', messageBytes(user.VHOST_USER_BACKEND_IOTLB_MSG, 0, new Uint8Array(32))],
  ['an interrupt in a message', messageBytes(user.VHOST_USER_BACKEND_VRING_CALL, 0, new Uint8Array(8))],
  ['an unknown request', messageBytes(99, 0, new Uint8Array(0))],
  ['an answer', messageBytes(user.VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, user.VHOST_USER_REPLY, number(0n))],
  ['a message of 1 GiB', Uint8Array.of(2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 64)],
] as const)
  test(`T2 T13: ${title} on the backend's own socket ends the connection`, () => {
    const loopback = new Loopback();
    loopback.connect();
    loopback.ask(bytes);
    loopback.frontend!.look();
    assert.match(loopback.frontend!.failure ?? '', /broke the vhost-user protocol/);
    loopback.finish();
  });

test('B8: a flood of changes is read piece by piece, and is one interrupt', () => {
  const loopback = new Loopback();
  const frontend = loopback.connect();
  const change = messageBytes(user.VHOST_USER_BACKEND_CONFIG_CHANGE_MSG, 0, new Uint8Array(0));
  for (let i = 0; i < 10_000; i++) loopback.ask(change);
  const before = loopback.reads;
  frontend.takeInterrupt();
  assert.ok(loopback.reads - before < 100, `${loopback.reads - before} reads`);
  assert.ok(loopback.machine.sent.length > 9_900);
  loopback.machine.sent.length = 0;
  loopback.finish();
});

for (const [title, lie] of [
  [
    'B1: a used index of nothing in flight',
    (used: UsedRing) => {
      used.index = 9;
    },
  ],
  [
    'B1: an id beyond the queue',
    (used: UsedRing) => {
      used.setElement(0, 0xffff_ffff, 1);
      used.index = 1;
    },
  ],
  [
    'B1: an id that is not in flight',
    (used: UsedRing) => {
      used.setElement(0, 7, 1);
      used.index = 1;
    },
  ],
] as const)
  test(`${title} has the device reset and the request asked again; what never stops is given up`, () => {
    const loopback = new Loopback();
    const disk = start(loopback);
    const page = loopback.memory.memory.allocatePages(1)!;
    const answers: number[] = [];
    for (let resets = 1; resets <= 3; resets++) {
      loopback.serves = false;
      if (resets === 1) disk.submit(0, 0, page, 512, (status) => answers.push(status));
      lie(loopback.used);
      disk.poll();
      assert.equal(disk.resets, resets);
      assert.equal(disk.failure, undefined);
    }
    lie(loopback.used);
    disk.poll();
    assert.match(disk.failure ?? '', /broke the protocol/);
    assert.deepEqual(
      answers,
      [-1].map(() => answers[0]),
    );
    disk.close();
    loopback.finish();
  });

test('B14 B3: a success without a byte written is an I/O error', () => {
  const loopback = new Loopback();
  const disk = start(loopback);
  loopback.serves = false;
  const page = loopback.memory.memory.allocatePages(1)!;
  let status = -2;
  disk.submit(0, 0, page, 512, (answer) => {
    status = answer;
  });
  const used = loopback.used;
  used.setElement(0, 0, 0);
  used.index = 1;
  disk.poll();
  assert.equal(status, 1);
  disk.close();
  loopback.finish();
});

test('whatever bytes a backend answers with, the driver is refused or works, and everything is closed', () => {
  const flips = fc.array(
    fc.record({ message: fc.nat(40), at: fc.nat(40), byte: fc.integer({ min: 1, max: 255 }) }),
    { minLength: 1, maxLength: 4 },
  );
  fc.assert(
    fc.property(flips, fc.constantFrom(1, 7, 4096), (changes, cut) => {
      const loopback = new Loopback();
      loopback.cut = cut;
      let count = 0;
      loopback.tamper = (said) => {
        const bytes = said.bytes.slice();
        for (const { message, at, byte } of changes) if (message === count) bytes[at % bytes.length] ^= byte;
        count++;
        return [{ ...said, bytes }];
      };
      try {
        const disk = start(loopback);
        assert.ok(disk.capacity >= 0);
        loopback.frontend!.readConfig(virtioBlkConfig.fields.slice(0, 1));
        disk.close();
      } catch (error) {
        assert.ok(error instanceof DeviceRefused, `${error}`);
      }
      loopback.finish();
    }),
    { seed: 7, numRuns: 2000 },
  );
});
