// A frontend whose descriptors are not what they should be, or block whoever uses them. The worker that serves its
// rings, the control thread that reads its messages, and all whom they serve go on.

import assert from 'node:assert/strict';
import { mkdirSync, openSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import * as user from '../../src/abi/vhost-user.ts';
import { VIRTIO_BLK_T_IN } from '../../src/abi/virtio-blk.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { number, state } from '../../src/transports/vhost-user/frontend.test.helper.ts';
import { firstByte } from '../support/vhost-backend.test.helper.ts';
import type { DiskGuest } from '../support/vhost-guest.test.helper.ts';
import { Stage } from '../support/vhost-stage.test.helper.ts';

/** Makes as many requests as the ring takes, and has the driver interrupted for each. */
function requestAll(guest: DiskGuest): void {
  // After all that was said before.
  guest.frontend.ask(user.VHOST_USER_GET_FEATURES);
  for (let head = 0; head < 64; head += 4) guest.request(head, VIRTIO_BLK_T_IN, head, 512);
  guest.kick();
}

test('T4: things that are no eventfd in the place of one', native, async (t) => {
  const stage = await Stage.set(t);
  const { folder } = stage.backend;
  writeFileSync(join(folder, 'file'), '');
  mkdirSync(join(folder, 'folder'));
  const things: readonly (readonly [string, (guest: DiskGuest) => number])[] = [
    ['a file', ({ frontend }) => frontend.own(openSync(join(folder, 'file'), 'r+'))],
    ['a folder', ({ frontend }) => frontend.own(openSync(join(folder, 'folder'), 'r'))],
    ['the guest’s memory', ({ memory }) => memory.fd],
    ['an epoll', ({ frontend }) => frontend.own(frontend.libc.epoll_create1(0))],
    ['a socket', ({ frontend }) => frontend.socket()],
    ['the connection itself', ({ frontend }) => frontend.fd],
    ['/dev/zero', ({ frontend }) => frontend.own(openSync('/dev/zero', 'r+'))],
  ];
  const before = {
    SET_VRING_KICK: user.VHOST_USER_SET_VRING_KICK,
    SET_VRING_CALL: user.VHOST_USER_SET_VRING_CALL,
  };
  for (const [what, make] of things) {
    for (const [name, request] of Object.entries({
      ...before,
      SET_VRING_ERR: user.VHOST_USER_SET_VRING_ERR,
    })) {
      const guest = stage.liar();
      guest.frontend.send(request, number(0n), [make(guest)]);
      await stage.assertSentAway(guest, /expected eventfd/, `${name} with ${what}`);
    }
  }
});

test(
  'R8 F33: a call descriptor that is full and blocks holds up nobody where guests share the process',
  native,
  async (t) => {
    const stage = await Stage.set(t, true);
    const guest = stage.liar();
    const { frontend, rings } = guest;
    frontend.send(user.VHOST_USER_SET_VRING_CALL, number(0n), [frontend.fullEventfd()]);
    requestAll(guest);
    while (rings[0].used.index < 16) stage.assertNeighbourServed();
    assert.equal(guest.read(3, 1)[0], firstByte(3), 'its other ring goes on as well');
    await stage.assertGone(guest, 'after a full call descriptor');
  },
);

test(
  'R8: a call descriptor that blocks in a process of its own is let go with its frontend',
  native,
  async (t) => {
    const stage = await Stage.set(t, false);
    const guest = stage.liar();
    const { frontend, rings } = guest;
    frontend.send(user.VHOST_USER_SET_VRING_CALL, number(0n), [frontend.fullEventfd()]);
    requestAll(guest);
    // It is reported and then called for.
    while (rings[0].used.index === 0) frontend.ask(user.VHOST_USER_GET_FEATURES);
    await stage.assertGone(guest, 'after a full call descriptor');
  },
);

test('R8: error descriptors that are full and block hold up no other connection', native, async (t) => {
  for (const sealed of [true, false]) {
    const stage = await Stage.set(t, sealed);
    const guest = stage.liar();
    const { frontend, rings } = guest;
    frontend.send(user.VHOST_USER_SET_VRING_ERR, number(0n), [frontend.fullEventfd()]);
    frontend.ask(user.VHOST_USER_GET_FEATURES);
    rings[0].publish(64);
    guest.kick();
    await stage.backend.says(/queue 0 has stopped/);
    await stage.assertGone(guest, 'after a full error descriptor');
  }
});

test(
  'R8: a full pipe as call descriptor blocks nobody; with room it brings interrupts',
  native,
  async (t) => {
    const stage = await Stage.set(t, false);
    const guest = stage.liar();
    const { frontend, rings } = guest;
    const [read, write] = frontend.fullPipe();
    frontend.send(user.VHOST_USER_SET_VRING_CALL, number(0n), [write]);
    requestAll(guest);
    while (rings[0].used.index < 16) stage.assertNeighbourServed();
    frontend.takeAll(read);
    guest.request(0, VIRTIO_BLK_T_IN, 1, 512);
    guest.kick();
    frontend.waitFor(read);
    await stage.assertGone(guest, 'after a full pipe');
  },
);

test('R8: pipes are not taken where guests share the process', native, async (t) => {
  const stage = await Stage.set(t, true);
  for (const request of [
    user.VHOST_USER_SET_VRING_KICK,
    user.VHOST_USER_SET_VRING_CALL,
    user.VHOST_USER_SET_VRING_ERR,
  ]) {
    const guest = stage.liar();
    guest.frontend.send(request, number(0n), [guest.frontend.fullPipe()[1]]);
    await stage.assertSentAway(guest, /of pipe, expected eventfd/, `request ${request}`);
  }
});

test(
  'a socket for the backend’s requests is replaced as often as the frontend likes, also in the middle of an answer',
  native,
  async (t) => {
    const stage = await Stage.set(t);
    const guest = stage.liar();
    const { frontend } = guest;
    for (let i = 0; i < 40; i++) {
      const [near, far] = frontend.socketPair();
      frontend.send(user.VHOST_USER_SET_BACKEND_REQ_FD, undefined, [near]);
      frontend.ask(user.VHOST_USER_GET_FEATURES);
      frontend.sendOn(far, Uint8Array.of(1, 2, 3), [guest.memory.fd]);
      frontend.ask(user.VHOST_USER_GET_VRING_BASE, state(1, 0));
    }
    assert.equal(guest.read(1)[0], firstByte(1));
    await stage.assertGone(guest, 'after forty sockets');
  },
);
