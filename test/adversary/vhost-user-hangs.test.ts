// A disk that hangs: a request's system call does not return. The backend ends all the same when it is told to, says what
// it leaves behind, and the next backend does that.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { VHOST_USER_GET_FEATURES } from '../../src/abi/vhost-user.ts';
import { VIRTIO_BLK_T_IN } from '../../src/abi/virtio-blk.ts';
import { Running } from '../support/grantio.ts';
import { hangable, hangRequest } from '../support/userfault.test.helper.ts';
import { firstByte, TestBackend } from '../support/vhost-backend.test.helper.ts';
import { DiskGuest } from '../support/vhost-guest.test.helper.ts';

const HANGING = fileURLToPath(new URL('../support/hanging-disk.js', import.meta.url));

test(
  'C9 R8: told to end while a disk hangs, it ends, and the next backend serves the request',
  hangable,
  async (t) => {
    const [backend, next] = [await TestBackend.start(t), await TestBackend.start(t)];
    const guest = new DiskGuest(backend.connect(t));
    const inflight = guest.resume();
    // The ring has started when this is answered.
    guest.frontend.ask(VHOST_USER_GET_FEATURES);
    const hanging = hangRequest(guest, 8);
    t.after(() => guest.frontend.libc.close(hanging));
    guest.request(8, VIRTIO_BLK_T_IN, 3, 512);
    guest.kick();
    guest.frontend.waitFor(hanging);
    await backend.end();
    const { level, message } = await backend.says(/hangs in a system call/, 'disk0');
    assert.equal(level, 'error');
    assert.match(message, /queue 0: 1 requests, of heads 8, are for the next backend/);
    assert.match(backend.failure?.message ?? '', /not ended in order, for a queue worker hangs: disk0/);
    guest.frontend.reconnect(next.socketOf('disk0'));
    guest.resume(inflight);
    assert.deepEqual(guest.reported(1), [8]);
    assert.equal(guest.status(8), 0);
    assert.equal(guest.memory.u8[guest.dataAt(8)], firstByte(3));
  },
);

test(
  'C9: a process ends with its status while a thread of it is in a system call that hangs',
  hangable,
  async (t) => {
    const running = new Running(process.execPath, [HANGING, '7'], {});
    t.after(() => running.kill());
    const { status, signal } = await running.ended;
    assert.deepEqual([status, signal], [7, null]);
  },
);
