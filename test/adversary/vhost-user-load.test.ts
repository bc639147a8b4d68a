// A frontend that floods, never listens, or changes everything while its rings are busy: what it asked for is done or
// refused, work for others goes on, and nothing is written where it is no longer welcome.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as user from '../../src/abi/vhost-user.ts';
import { VIRTIO_BLK_T_IN } from '../../src/abi/virtio-blk.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import {
  number,
  singleBytes,
  state,
  tableBytes,
} from '../../src/transports/vhost-user/frontend.test.helper.ts';
import { firstByte } from '../support/vhost-backend.test.helper.ts';
import { type DiskGuest, GUEST, GuestFile, MEMORY_BYTES, USER } from '../support/vhost-guest.test.helper.ts';
import { Stage } from '../support/vhost-stage.test.helper.ts';

/** Requests that a neighbour makes meanwhile. */
const ROUNDS = 100;
const PIECE = 4096;

/** Makes all heads available that are not; the ring is never empty for long. */
function refill(guest: DiskGuest, heads: Iterable<number>): void {
  for (const head of heads) guest.request(head, VIRTIO_BLK_T_IN, head, PIECE);
  guest.kick();
}

function allHeads(): number[] {
  return Array.from({ length: 16 }, (_, i) => i * 4);
}

/** Wherever the data of a head were read to, they are those of its sector. */
function assertData(guest: DiskGuest, head: number): void {
  assert.equal(guest.status(head), 0);
  const at = guest.dataAt(head);
  for (let sector = 0; sector < PIECE / 512; sector++)
    assert.equal(guest.memory.u8[at + sector * 512], firstByte(head + sector));
}

test(
  'F25: a ring that is refilled for ever and kicked all the time does not keep a neighbour waiting',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const guest = stage.liar();
    refill(guest, allHeads());
    let served = 0;
    for (let round = 0; round < ROUNDS; round++) {
      const done = guest.newlyReported();
      served += done.length;
      refill(guest, done);
      for (let kicks = 0; kicks < 20; kicks++) guest.kick(kicks % 2);
      stage.assertNeighbourServed();
    }
    assert.ok(served > 0, 'and is served itself');
    await stage.assertGone(guest, 'after a flood of requests');
  },
);

test('F25: a flood of messages does not keep a neighbour waiting', native, async (t) => {
  const stage = await Stage.set(t);
  const guest = stage.liar();
  let sent = 0;
  for (let round = 0; round < ROUNDS; round++) {
    // Until the backend takes no more for the moment. A message is taken as a whole or not at all.
    while (guest.frontend.send(user.VHOST_USER_SET_OWNER)) if (++sent % 500 === 0) break;
    stage.assertNeighbourServed();
  }
  assert.ok(sent > ROUNDS);
  await stage.assertGone(guest, 'after a flood of messages');
});

test('F33: a frontend that asks for ever and reads no answer is sent away', native, async (t) => {
  const stage = await Stage.set(t);
  const guest = stage.liar();
  while (stage.backend.notices.every(({ message }) => !message.includes('takes no answers'))) {
    for (let i = 0; i < 100; i++) guest.frontend.send(user.VHOST_USER_GET_FEATURES);
    stage.assertNeighbourServed();
    await new Promise(setImmediate);
  }
  await stage.assertSentAway(guest, /the frontend takes no answers/, 'without listening');
});

test(
  'F33: a frontend that never reads the requests of the backend loses them, and goes on',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const guest = stage.liar(1);
    const { frontend } = guest;
    const features =
      user.VHOST_USER_PROTOCOL_F_REPLY_ACK |
      user.VHOST_USER_PROTOCOL_F_BACKEND_REQ |
      user.VHOST_USER_PROTOCOL_F_INBAND_NOTIFICATIONS;
    frontend.send(user.VHOST_USER_SET_PROTOCOL_FEATURES, number(features));
    frontend.send(user.VHOST_USER_SET_BACKEND_REQ_FD, undefined, [frontend.socket()]);
    for (const [request, payload, fds] of guest.beginning().slice(2)) frontend.send(request, payload, fds);
    frontend.send(user.VHOST_USER_SET_VRING_CALL, number(user.VHOST_USER_VRING_NOFD));
    frontend.ask(user.VHOST_USER_GET_FEATURES);
    for (let round = 0; round < 60; round++) {
      refill(guest, allHeads());
      while (guest.rings[0].used.index !== ((round + 1) * 16) % 65536)
        frontend.ask(user.VHOST_USER_GET_FEATURES);
    }
    stage.assertNeighbourServed();
    await stage.assertGone(guest, 'after interrupts that nobody read');
  },
);

test(
  'T10: memory tables replaced under load: every request gets its data, and no old mapping stays',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const guest = stage.liar();
    const { frontend, memory } = guest;
    const spare = new GuestFile(frontend);
    const regions = [{ guest: GUEST, size: MEMORY_BYTES, user: USER }];
    const more = [...regions, { guest: GUEST + MEMORY_BYTES, size: MEMORY_BYTES, user: USER + MEMORY_BYTES }];

    refill(guest, allHeads());
    for (let round = 0; round < 60; round++) {
      const both = round % 2 === 0;
      const fds = both ? [memory.fd, spare.fd] : [memory.fd];
      frontend.send(user.VHOST_USER_SET_MEM_TABLE, tableBytes(both ? more : regions), fds);
      const heads = guest.newlyReported();
      for (const head of heads) assertData(guest, head);
      refill(guest, heads);
    }
    for (let i = 0; i < 40; i++) {
      const [, region] = more;
      frontend.send(user.VHOST_USER_ADD_MEM_REG, singleBytes(region), [spare.fd]);
      frontend.send(user.VHOST_USER_REM_MEM_REG, singleBytes(region));
    }
    for (const head of guest.reported(16)) assertData(guest, head);
    spare.close();
    await stage.assertGone(guest, 'after sixty tables');
  },
);

test(
  'T11: a ring stopped with requests in flight says where, and nothing is written any more',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const guest = stage.liar();
    const { frontend, memory, rings } = guest;
    let taken = 0;
    for (let round = 0; round < 40; round++) {
      refill(guest, allHeads());
      const { payload } = frontend.ask(user.VHOST_USER_GET_VRING_BASE, state(0, 0));
      const { num } = user.vhostUserVringState.over(payload);
      assert.equal(num, rings[0].used.index, 'what was taken has been reported');
      const before = memory.u8.slice();
      frontend.ask(user.VHOST_USER_GET_FEATURES);
      stage.assertNeighbourServed();
      assert.deepEqual(memory.u8, before, 'nothing is written to a ring that has stopped');
      for (const [request, messagePayload, fds] of guest.ringMessages(0, rings[0], num))
        frontend.send(request, messagePayload, fds);
      for (const head of guest.reported(16)) assertData(guest, head);
      taken += 16;
    }
    assert.equal(rings[0].used.index, taken);
    await stage.assertGone(guest, 'after forty stops');
  },
);

test(
  'F26: a device reset under load: nothing is written after its answer, and the next beginning is a fresh one',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const guest = stage.liar();
    const { frontend, memory } = guest;
    for (let round = 0; round < 20; round++) {
      refill(guest, allHeads());
      frontend.send(round % 2 === 0 ? user.VHOST_USER_RESET_DEVICE : user.VHOST_USER_RESET_OWNER);
      frontend.ask(user.VHOST_USER_GET_FEATURES);
      const before = memory.u8.slice();
      guest.kick();
      stage.assertNeighbourServed();
      frontend.ask(user.VHOST_USER_GET_FEATURES);
      assert.deepEqual(memory.u8, before);
      memory.u8.fill(0, 0, 0x20000);
      guest.forgetReported();
      for (const [request, payload, fds] of guest.beginning().slice(2)) frontend.send(request, payload, fds);
      assert.equal(guest.read(round)[0], firstByte(round));
      guest.frontend.ask(user.VHOST_USER_GET_VRING_BASE, state(0, 0));
      memory.u8.fill(0, 0, 0x20000);
      guest.forgetReported();
      for (const [request, payload, fds] of guest.ringMessages(0, guest.rings[0]))
        frontend.send(request, payload, fds);
    }
    await stage.assertGone(guest, 'after twenty resets');
  },
);

test(
  'F7 F25: an index that jumps about while the ring is served breaks this ring at most',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    for (let round = 0; round < 10; round++) {
      const guest = stage.liar();
      refill(guest, allHeads());
      for (let i = 0; i < 200; i++) {
        guest.rings[0].available.index = (i * 7919) & 0xffff;
        guest.rings[0].table.write(i % 64, i * 4096, 1, i * 100, i & 7, (i * 3) % 80);
        guest.kick();
      }
      assert.equal(guest.read(6, 1)[0], firstByte(6), 'its other ring goes on');
      await stage.assertGone(guest, `round ${round}`);
    }
  },
);
