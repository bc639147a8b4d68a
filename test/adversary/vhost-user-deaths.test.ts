// C4 A frontend that dies: after every message of its session, and in the middle of each. Descriptors and mappings are
// back to their first count each time, and the next frontend is served.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as user from '../../src/abi/vhost-user.ts';
import { VIRTIO_BLK_T_IN } from '../../src/abi/virtio-blk.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { number, singleBytes, state } from '../../src/transports/vhost-user/frontend.test.helper.ts';
import { openThings, TestBackend } from '../support/vhost-backend.test.helper.ts';
import { messageOf } from '../support/vhost-frontend.test.helper.ts';
import { DiskGuest, GUEST, MEMORY_BYTES, USER } from '../support/vhost-guest.test.helper.ts';

/** Messages with which a session begins: four, and six for each ring. */
const BEGINNING_OF_ONE = 4 + 6;
const BEGINNING_OF_TWO = 4 + 2 * 6;

type Step = (guest: DiskGuest) => void;

function message(request: number, payload?: Uint8Array, fds?: (guest: DiskGuest) => number[]): Step {
  return (guest) => {
    guest.frontend.send(request, payload, fds?.(guest), 0);
  };
}

function question(request: number, payload?: Uint8Array): Step {
  return (guest) => {
    guest.frontend.ask(request, payload);
  };
}

const inflight = user.vhostUserInflight.make({ num_queues: 2, queue_size: 64 }).bytes;
const another = { guest: GUEST + MEMORY_BYTES, size: 4096, user: USER + MEMORY_BYTES };

/** A whole session: everything that brings a descriptor or a mapping, requests under way, and stopping in order. */
const SESSION: readonly Step[] = [
  question(user.VHOST_USER_GET_FEATURES),
  question(user.VHOST_USER_GET_PROTOCOL_FEATURES),
  ...Array.from(
    { length: BEGINNING_OF_TWO },
    (_, i): Step =>
      (guest) => {
        const [request, payload, fds] = guest.beginning()[i];
        guest.frontend.send(request, payload, fds);
      },
  ),
  message(user.VHOST_USER_SET_BACKEND_REQ_FD, undefined, ({ frontend }) => [frontend.socket()]),
  message(user.VHOST_USER_SET_VRING_ERR, number(0n), ({ frontend }) => [frontend.eventfd()]),
  (guest) => {
    const answer = guest.frontend.ask(user.VHOST_USER_GET_INFLIGHT_FD, inflight);
    guest.frontend.send(user.VHOST_USER_SET_INFLIGHT_FD, answer.payload, answer.fds);
  },
  message(user.VHOST_USER_ADD_MEM_REG, singleBytes(another), ({ memory }) => [memory.fd]),
  (guest) => {
    for (let head = 0; head < 64; head += 4) guest.request(head, VIRTIO_BLK_T_IN, head, 4096);
    guest.kick();
  },
  (guest) => {
    guest.reported(16);
  },
  (guest) => {
    for (let head = 0; head < 64; head += 4) guest.request(head, VIRTIO_BLK_T_IN, head, 4096, 1);
    guest.kick(1);
  },
  message(user.VHOST_USER_REM_MEM_REG, singleBytes(another)),
  question(user.VHOST_USER_GET_VRING_BASE, state(0, 0)),
  message(user.VHOST_USER_RESET_DEVICE),
];

test(
  'C4: a frontend that dies after any message leaves no descriptor and no mapping, and the next is served',
  native,
  async (t) => {
    const backend = await TestBackend.start(t, { queues: 2, workers: 2 });
    await backend.assertServes(t);
    const before = openThings();
    for (let steps = 0; steps <= SESSION.length; steps++) {
      const guest = new DiskGuest(backend.connect(t), { queues: 2 });
      for (const step of SESSION.slice(0, steps)) step(guest);
      guest.close();
      const { message: how } = await backend.sessionEnds();
      assert.match(how, /has gone/, `after ${steps} steps`);
      assert.deepEqual(openThings(), before, `after ${steps} steps`);
    }
    await backend.assertServes(t);
  },
);

test(
  'C4 T1: a frontend that dies within a message leaves none of its descriptors, wherever it is cut',
  native,
  async (t) => {
    const backend = await TestBackend.start(t);
    await backend.assertServes(t);
    const before = openThings();
    for (let at = 0; at < BEGINNING_OF_ONE; at++) {
      for (const cut of [1, 8, 11, 12, 13, 19]) {
        const guest = new DiskGuest(backend.connect(t));
        const messages = guest.beginning();
        for (const [request, payload, fds] of messages.slice(0, at))
          guest.frontend.send(request, payload, fds);
        const [request, payload, fds] = messages[at];
        guest.frontend.sendBytes(messageOf(request, payload).subarray(0, cut), fds);
        guest.close();
        await backend.sessionEnds();
        assert.deepEqual(openThings(), before, `message ${at} cut at ${cut}`);
      }
    }
    await backend.assertServes(t);
  },
);

test('C4 T16: a frontend that connects the moment the one before has gone is served', native, async (t) => {
  const backend = await TestBackend.start(t);
  for (let i = 0; i < 30; i++) {
    const short = backend.connect(t);
    for (let messages = 0; messages < 200; messages++) short.send(user.VHOST_USER_SET_OWNER);
    short.close();
    const next = backend.connect(t);
    next.ask(user.VHOST_USER_GET_FEATURES);
    next.close();
    await backend.sessionEnds();
    await backend.sessionEnds();
  }
});
