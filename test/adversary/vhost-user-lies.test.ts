// A frontend that lies about its messages, memory, rings and descriptors, on real sockets: its connection ends, or the
// request is refused; a neighbour in the same process notices nothing, and nothing stays open.

import assert from 'node:assert/strict';
import { openSync } from 'node:fs';
import { test } from 'node:test';
import * as user from '../../src/abi/vhost-user.ts';
import { inflightDescriptor, inflightQueueHeader } from '../../src/abi/vhost-user-inflight.ts';
import { VIRTIO_STATUS_DEVICE_NEEDS_RESET } from '../../src/abi/virtio.ts';
import { VIRTIO_BLK_T_IN } from '../../src/abi/virtio-blk.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import {
  addressBytes,
  number,
  singleBytes,
  state,
  tableBytes,
  type TestRegion,
} from '../../src/transports/vhost-user/frontend.test.helper.ts';
import { firstByte } from '../support/vhost-backend.test.helper.ts';
import { Stage } from '../support/vhost-stage.test.helper.ts';
import { messageOf, VhostFrontend } from '../support/vhost-frontend.test.helper.ts';
import { type DiskGuest, GUEST, GuestFile, MEMORY_BYTES, USER } from '../support/vhost-guest.test.helper.ts';

const EMPTY = new Uint8Array(0);

test('T2: messages that nobody may send end the connection', native, async (t) => {
  const stage = await Stage.set(t);
  const header = (request: number, flags: number, size: number): Uint8Array =>
    user.vhostUserHeader.make({ request, flags, size }).bytes;
  const lies: readonly (readonly [string, Uint8Array, RegExp])[] = [
    ['a payload of 4 GiB', header(user.VHOST_USER_GET_FEATURES, 1, 0xffffffff), /4294967295 bytes/],
    ['a payload that is too long', header(user.VHOST_USER_SET_MEM_TABLE, 1, 4097), /4097 bytes/],
    ['version 2', header(user.VHOST_USER_GET_FEATURES, 2, 0), /version 2/],
    ['version 0', header(user.VHOST_USER_GET_FEATURES, 0, 0), /version 0/],
    ['an answer', messageOf(user.VHOST_USER_GET_FEATURES, EMPTY, user.VHOST_USER_REPLY), /nobody asked/],
    ['request 0', messageOf(0), /request 0 is unknown/],
    ['a request that there is not', messageOf(0xffff_ffff), /unknown/],
    ['a number that is too short', messageOf(user.VHOST_USER_SET_FEATURES, new Uint8Array(7)), /7 bytes/],
    [
      'features that nobody offers',
      messageOf(user.VHOST_USER_SET_FEATURES, number(1n << 63n)),
      /not offered/,
    ],
  ];
  for (const [what, bytes, reason] of lies) {
    const guest = stage.liar();
    guest.frontend.sendBytes(bytes);
    await stage.assertSentAway(guest, reason, what);
  }
});

test('T2: with REPLY_ACK what is refused is answered, and the session goes on', native, async (t) => {
  const stage = await Stage.set(t);
  const guest = stage.liar();
  const { frontend } = guest;
  const ask = (request: number, payload: Uint8Array, fds: number[] = []): bigint =>
    frontend.askNumber(request, payload, fds, user.VHOST_USER_NEED_REPLY);
  assert.notEqual(ask(99, EMPTY), 0n);
  assert.notEqual(ask(user.VHOST_USER_SET_VRING_NUM, state(7, 4)), 0n, 'T7');
  assert.notEqual(ask(user.VHOST_USER_SET_FEATURES, number(1n << 63n)), 0n);
  assert.equal(guest.read(9)[0], firstByte(9));
  await stage.assertGone(guest, 'after refusals');
});

test('T4: descriptors that come with requests that take none are closed', native, async (t) => {
  const stage = await Stage.set(t);
  const guest = stage.liar();
  const eight = Array.from({ length: 8 }, () => guest.memory.fd);
  guest.frontend.ask(user.VHOST_USER_GET_FEATURES, EMPTY, eight);
  guest.frontend.send(user.VHOST_USER_SET_OWNER, EMPTY, eight);
  assert.equal(guest.read(2)[0], firstByte(2));
  await stage.assertGone(guest, 'descriptors of a question');
  for (const count of [9, 32]) {
    const greedy = stage.liar();
    const fds = Array.from({ length: count }, () => greedy.memory.fd);
    greedy.frontend.sendBytes(messageOf(user.VHOST_USER_GET_FEATURES), fds);
    await stage.assertSentAway(greedy, /file descriptors in a message/, `${count} descriptors`);
  }
});

test('T5: memory that cannot be is refused', native, async (t) => {
  const stage = await Stage.set(t);
  const whole: TestRegion = { guest: GUEST, size: MEMORY_BYTES, user: USER };
  const lies: readonly (readonly [string, readonly TestRegion[]])[] = [
    ['no bytes', [{ ...whole, size: 0 }]],
    ['a file that is shorter', [{ ...whole, size: MEMORY_BYTES + 4096 }]],
    ['an offset behind the file', [{ ...whole, offset: MEMORY_BYTES }]],
    ['an odd offset', [{ ...whole, size: 4096, offset: 3 }]],
    ['an offset that wraps', [{ ...whole, offset: 2 ** 53 - 4096 }]],
    ['guest addresses that wrap', [{ ...whole, guest: 2 ** 64 - 4096 }]],
    ['user addresses that wrap', [{ ...whole, user: 2 ** 64 - 4096 }]],
    ['twice the same', [whole, whole]],
    [
      'one that overlaps in the frontend only',
      [whole, { guest: 0, size: 4096, user: USER + MEMORY_BYTES - 4096 }],
    ],
    ['one that overlaps in the guest only', [whole, { guest: GUEST + 4096, size: 4096, user: 0x1000 }]],
  ];
  for (const [what, regions] of lies) {
    const guest = stage.liar(3);
    guest.frontend.send(
      user.VHOST_USER_SET_MEM_TABLE,
      tableBytes(regions),
      regions.map(() => guest.memory.fd),
    );
    await stage.assertSentAway(guest, /closed the connection/, what);
  }
  const many = stage.liar();
  for (let i = 0; i < 40; i++)
    many.frontend.send(
      user.VHOST_USER_ADD_MEM_REG,
      singleBytes({ guest: i * 4096, size: 4096, user: (i + 1) * 4096 }),
      [many.memory.fd],
    );
  await stage.assertSentAway(many, /more than 32 regions/, 'more regions than there is room for');
});

test(
  'T2: a request that is refused by an answer is logged with the reason, and the connection goes on',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const guest = stage.liar();
    const overlapping = singleBytes({ guest: GUEST, size: 4096, user: 4096 });
    const answer = guest.frontend.askNumber(
      user.VHOST_USER_ADD_MEM_REG,
      overlapping,
      [guest.memory.fd],
      user.VHOST_USER_NEED_REPLY,
    );
    assert.notEqual(answer, 0n);
    const { level, message } = await stage.backend.says(/refused/);
    assert.equal(level, 'warn');
    assert.match(
      message,
      /^refused ADD_MEM_REG: regions at guest addresses 0x100000000 and 0x100000000 overlap$/,
    );
    assert.equal(guest.read(1)[0], firstByte(1));
    await stage.assertGone(guest, 'after a refusal');
  },
);

test('T5: memory of things that are no memory is refused', native, async (t) => {
  const stage = await Stage.set(t);
  const things: readonly (readonly [string, (guest: DiskGuest) => number])[] = [
    ['an eventfd', ({ frontend }) => frontend.eventfd()],
    ['a socket', ({ frontend }) => frontend.socket()],
    ['a folder', ({ frontend }) => frontend.own(openSync(stage.backend.folder, 'r'))],
    ['a file that may only be read', ({ frontend }) => frontend.own(openSync(stage.backend.imageOf(1), 'r'))],
    ['/dev/zero', ({ frontend }) => frontend.own(openSync('/dev/zero', 'r+'))],
  ];
  for (const [what, make] of things) {
    const guest = stage.liar(3);
    guest.frontend.send(user.VHOST_USER_SET_MEM_TABLE, guest.memory.table, [make(guest)]);
    await stage.assertSentAway(guest, /closed the connection/, what);
  }
});

test('R7: memory that its owner can shrink is refused where others are served', native, async (t) => {
  const stage = await Stage.set(t, true);
  const guest = stage.liar(3);
  const soft = new GuestFile(guest.frontend, { sealed: false });
  guest.frontend.send(user.VHOST_USER_SET_MEM_TABLE, soft.table, [soft.fd]);
  soft.close();
  await stage.assertSentAway(guest, /seal it with F_SEAL_SHRINK/, 'unsealed memory');
  await stage.backend.assertServes(t);
});

test('T7: rings that there are not', native, async (t) => {
  const stage = await Stage.set(t);
  const requests: readonly (readonly [number, Uint8Array, boolean])[] = [
    [user.VHOST_USER_SET_VRING_NUM, state(2, 64), false],
    [user.VHOST_USER_SET_VRING_BASE, state(0xffff_ffff, 0), false],
    [user.VHOST_USER_GET_VRING_BASE, state(2, 0), false],
    [user.VHOST_USER_SET_VRING_ADDR, addressBytes(2, USER, USER, USER), false],
    [user.VHOST_USER_SET_VRING_ENABLE, state(2 ** 31, 1), false],
    [user.VHOST_USER_VRING_KICK, state(2, 0), false],
    [user.VHOST_USER_SET_VRING_KICK, number(0xffn), true],
    [user.VHOST_USER_SET_VRING_CALL, number(2n), true],
    [user.VHOST_USER_SET_VRING_ERR, number(2n), true],
  ];
  for (const [request, payload, withFd] of requests) {
    const guest = stage.liar();
    guest.frontend.send(request, payload, withFd ? [guest.frontend.eventfd()] : []);
    await stage.assertSentAway(guest, /ring \d+ of 2/, `request ${request}`);
  }
});

test('T8: a buffer for requests under way that is not what it is said to be', native, async (t) => {
  const stage = await Stage.set(t);
  const shapes: readonly (readonly [string, Parameters<typeof user.vhostUserInflight.make>[0]])[] = [
    ['no queues', { mmap_size: 4096, num_queues: 0, queue_size: 64 }],
    ['more queues than there are', { mmap_size: 65536, num_queues: 3, queue_size: 64 }],
    ['a size of 0', { mmap_size: 65536, num_queues: 2, queue_size: 0 }],
    ['a size of 63', { mmap_size: 65536, num_queues: 2, queue_size: 63 }],
    ['a size of 32768', { mmap_size: 2 ** 32, num_queues: 2, queue_size: 32768 }],
    ['a mapping that is too short', { mmap_size: 64, num_queues: 2, queue_size: 64 }],
    [
      'an offset behind the file',
      { mmap_size: 4096, mmap_offset: MEMORY_BYTES, num_queues: 2, queue_size: 64 },
    ],
  ];
  for (const [what, shape] of shapes) {
    const guest = stage.liar();
    guest.frontend.send(user.VHOST_USER_SET_INFLIGHT_FD, user.vhostUserInflight.make(shape).bytes, [
      guest.memory.fd,
    ]);
    await stage.assertSentAway(guest, /closed the connection/, what);
  }
  const short = stage.liar();
  const tiny = new GuestFile(short.frontend, { bytes: 4096 });
  tiny.close();
  const shape = { mmap_size: 65536, num_queues: 2, queue_size: 64 };
  short.frontend.libc.ftruncate(tiny.fd, 4096);
  short.frontend.send(
    user.VHOST_USER_SET_INFLIGHT_FD,
    user.vhostUserInflight.make({ ...shape, mmap_offset: 3968 }).bytes,
    [tiny.fd],
  );
  await stage.assertSentAway(short, /the mapping would end behind it/, 'a file that is too short');
});

test(
  'T9: a buffer for requests under way with a hostile content stops its ring and no other',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const contents: readonly (readonly [string, (u8: Uint8Array) => void])[] = [
      ['all ones', (u8) => u8.fill(0xff)],
      [
        'every head under way, in a loop of completions',
        (u8) => {
          Object.assign(inflightQueueHeader.over(u8), { version: 1, desc_num: 64, used_idx: 7 });
          const descriptor = inflightDescriptor.over(u8);
          for (let head = 0; head < 64; head++)
            Object.assign(descriptor.at(inflightQueueHeader.size + head * 16), {
              inflight: 1,
              next: head ^ 1,
              counter: head,
            });
        },
      ],
    ];
    for (const [what, fill] of contents) {
      const guest = stage.liar();
      const { frontend } = guest;
      const { payload, fds } = frontend.ask(
        user.VHOST_USER_GET_INFLIGHT_FD,
        user.vhostUserInflight.make({ num_queues: 1, queue_size: 64 }).bytes,
      );
      const buffer = new GuestFile(frontend, { bytes: 8192 });
      fill(buffer.u8);
      buffer.close();
      assert.equal(fds.length, 1);
      frontend.send(user.VHOST_USER_SET_INFLIGHT_FD, payload, [buffer.fd]);
      frontend.ask(user.VHOST_USER_GET_FEATURES);
      assert.equal(
        frontend.askNumber(user.VHOST_USER_GET_STATUS) & BigInt(VIRTIO_STATUS_DEVICE_NEEDS_RESET),
        BigInt(VIRTIO_STATUS_DEVICE_NEEDS_RESET),
        what,
      );
      await stage.assertGone(guest, what);
    }
  },
);

test('T13: in-band notifications without what they need', native, async (t) => {
  const stage = await Stage.set(t);
  for (const features of [
    user.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS,
    user.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS | user.VHOST_USER_PROTOCOL_F_REPLY_ACK,
    user.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS | user.VHOST_USER_PROTOCOL_F_BACKEND_REQ,
  ]) {
    const guest = stage.liar();
    guest.frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(features));
    await stage.assertSentAway(guest, /needs BACKEND_REQ and REPLY_ACK/, `features ${features}`);
  }
});

test('T14: memory of Xen domains is not offered by a backend on files, and is refused', native, async (t) => {
  const stage = await Stage.set(t);
  const guest = stage.liar(1);
  assert.equal(guest.frontend.askNumber(user.VHOST_USER_GET_PROTOCOL_FEATURES) & (1n << 17n), 0n);
  guest.frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(1n << 17n));
  await stage.assertSentAway(guest, /not offered/, 'XEN_MMAP');
});

test('T16: a second frontend is refused, and the first notices nothing', native, async (t) => {
  const stage = await Stage.set(t);
  const first = stage.liar();
  for (let i = 0; i < 20; i++) {
    const second = new VhostFrontend(stage.backend.socketOf('disk0'));
    second.send(user.VHOST_USER_GET_FEATURES);
    assert.ok(second.isClosed());
    second.close();
    await stage.backend.says(/refused a second frontend/);
    assert.equal(first.read(i)[0], firstByte(i));
  }
  await stage.assertGone(first, 'after twenty others');
});

test('F19: rings outside of memory, across its end, and not aligned', native, async (t) => {
  const stage = await Stage.set(t);
  const end = USER + MEMORY_BYTES;
  for (const [what, descriptors, available, used] of [
    ['no memory there', 0x1000, USER, USER + 0x4000],
    ['descriptors across the end', end - 16, USER, USER + 0x4000],
    ['available ring across the end', USER, end - 2, USER + 0x4000],
    ['used ring across the end', USER, USER + 0x4000, end - 4],
    ['descriptors not aligned', USER + 8, USER + 0x4000, USER + 0x8000],
    ['available ring not aligned', USER, USER + 0x4001, USER + 0x8000],
    ['used ring not aligned', USER, USER + 0x4000, USER + 0x8002],
    ['an address of 2^64 - 16', 2 ** 64 - 4096, USER, USER],
  ] as const) {
    const guest = stage.liar(16);
    guest.frontend.send(user.VHOST_USER_SET_VRING_ADDR, addressBytes(1, descriptors, available, used));
    const status = guest.frontend.askNumber(user.VHOST_USER_GET_STATUS);
    assert.ok(status & BigInt(VIRTIO_STATUS_DEVICE_NEEDS_RESET), what);
    assert.equal(guest.read(4)[0], firstByte(4), `the other ring goes on: ${what}`);
    await stage.assertGone(guest, what);
  }
});

test('F20: queue sizes that cannot be', native, async (t) => {
  const stage = await Stage.set(t);
  for (const size of [0, 3, 63, 128, 65535, 2 ** 31]) {
    const guest = stage.liar(4);
    guest.frontend.send(user.VHOST_USER_SET_VRING_NUM, state(0, size));
    await stage.assertSentAway(guest, /expected a power of two up to 64/, `size ${size}`);
  }
});

test(
  'F1 F2 F3 F6 F7 F8 F10 F16: a ring that breaks a rule stops; the frontend is told; the other ring goes on',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const lies: readonly (readonly [string, (guest: DiskGuest) => void])[] = [
      ['F1 a head behind the table', ({ rings }) => rings[0].publish(64)],
      [
        'F2 a next behind the table',
        ({ rings }) => {
          rings[0].table.write(0, 0, 1, 16, 1, 64);
          rings[0].publish(0);
        },
      ],
      [
        'F3 a chain that loops',
        ({ rings }) => {
          rings[0].table.write(0, 0, 1, 16, 1, 1);
          rings[0].table.write(1, 0, 1, 16, 1, 0);
          rings[0].publish(0);
        },
      ],
      [
        'F6 an address outside of all memory',
        ({ rings }) => {
          rings[0].chain(0, [
            [MEMORY_BYTES - 8, 16, false],
            [0, 1, true],
          ]);
          rings[0].publish(0);
        },
      ],
      [
        'F6 address and length wrap',
        ({ rings }) => {
          rings[0].table.write(0, 0xffff_fff0, 0xffff_ffff, 0xffff_ffff, 0, 0);
          rings[0].publish(0);
        },
      ],
      [
        'F7 an index that jumps',
        ({ rings }) => {
          rings[0].available.index = 65;
        },
      ],
      [
        'F8 an index that goes back',
        ({ rings }) => {
          rings[0].available.index = 0xffff;
        },
      ],
      [
        'F10 an indirect table that was not agreed on',
        ({ rings }) => {
          rings[0].table.write(0, 0, 1, 32, 4, 0);
          rings[0].publish(0);
        },
      ],
      [
        'F16 a readable buffer behind a writable one',
        ({ rings }) => {
          rings[0].chain(0, [
            [0x9000, 16, true],
            [0xa000, 16, false],
          ]);
          rings[0].publish(0);
        },
      ],
    ];
    for (const [what, lie] of lies) {
      const guest = stage.liar();
      const { frontend } = guest;
      const error = frontend.eventfd();
      frontend.send(user.VHOST_USER_SET_VRING_ERR, number(0n), [error]);
      lie(guest);
      guest.kick();
      frontend.take(error);
      assert.match((await stage.backend.says(/queue 0 has stopped/)).clause ?? '', /§/, what);
      assert.equal(guest.read(11, 1)[0], firstByte(11), `the other ring goes on: ${what}`);
      await stage.assertGone(guest, what);
    }
  },
);

test(
  'F19: two rings on the same areas, and areas that overlap, harm their own guest only',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    for (const [what, descriptors, available, used] of [
      ['the other ring’s areas', USER, USER + 0x4000, USER + 0x8000],
      ['used ring on the descriptors', USER + 0x10000, USER + 0x14000, USER + 0x10000],
      ['used ring on the available ring', USER + 0x10000, USER + 0x14000, USER + 0x14000],
      ['all on one another', USER, USER, USER],
    ] as const) {
      const guest = stage.liar();
      guest.frontend.send(user.VHOST_USER_SET_VRING_ADDR, addressBytes(1, descriptors, available, used));
      for (let i = 0; i < 16; i++) {
        guest.request(i * 4, VIRTIO_BLK_T_IN, i, 4096, i % 2);
        guest.kick(i % 2);
      }
      guest.frontend.ask(user.VHOST_USER_GET_VRING_BASE, state(1, 0));
      guest.frontend.ask(user.VHOST_USER_GET_VRING_BASE, state(0, 0));
      await stage.assertGone(guest, what);
    }
  },
);

test('F24: kicks that come too early, too late, or by message are no harm', native, async (t) => {
  const stage = await Stage.set(t);
  const guest = stage.liar(3);
  guest.kick();
  guest.frontend.send(user.VHOST_USER_VRING_KICK, state(0, 0));
  for (const [request, payload, fds] of guest.beginning().slice(3))
    guest.frontend.send(request, payload, fds);
  guest.frontend.send(user.VHOST_USER_VRING_KICK, state(1, 0));
  assert.equal(guest.read(1)[0], firstByte(1));
  guest.frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 0));
  guest.frontend.ask(user.VHOST_USER_GET_FEATURES);
  guest.request(0, VIRTIO_BLK_T_IN, 7, 512);
  guest.kick();
  guest.frontend.send(user.VHOST_USER_VRING_KICK, state(0, 0));
  guest.frontend.ask(user.VHOST_USER_GET_FEATURES);
  assert.equal(guest.status(0), 0xff, 'a ring that is disabled is not touched');
  guest.frontend.send(user.VHOST_USER_SET_VRING_ENABLE, state(0, 1));
  guest.reported(1);
  await stage.assertGone(guest, 'kicks at odd times');
});

test('one eventfd for kick and call of both rings serves them all', native, async (t) => {
  const stage = await Stage.set(t);
  const guest = stage.liar();
  const { frontend } = guest;
  const one = frontend.eventfd();
  for (const queue of [0n, 1n]) {
    frontend.send(user.VHOST_USER_SET_VRING_KICK, number(queue), [one]);
    frontend.send(user.VHOST_USER_SET_VRING_CALL, number(queue), [one]);
  }
  for (const queue of [0, 1]) {
    guest.request(0, VIRTIO_BLK_T_IN, queue, 512, queue);
    frontend.ring(one);
    while (guest.rings[queue].used.index === 0) frontend.waitFor(one);
    assert.equal(guest.status(0), 0);
  }
  await stage.assertGone(guest, 'one eventfd for all');
});
