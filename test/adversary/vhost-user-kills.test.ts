// C1 The backend's process is killed with requests under way, again and again. The frontend keeps the buffer of
// requests under way and brings it back to the next process: each request is done, and reported exactly once.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { type TestContext, test } from 'node:test';
import * as user from '../../src/abi/vhost-user.ts';
import { VIRTIO_BLK_T_OUT } from '../../src/abi/virtio-blk.ts';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { randomFrom } from '../../src/machine/random.ts';
import type { VhostMessage } from '../../src/transports/vhost-user/message-reader.ts';
import { DISK_BYTES } from '../support/vhost-backend.test.helper.ts';
import { DiskGuest } from '../support/vhost-guest.test.helper.ts';
import { DiskProgram } from '../support/vhost-program.test.helper.ts';

const SEED = 0x5eed_c1;
const SECTORS = DISK_BYTES / 512;

/** Writes of sectors, each with a value of its own, and what has become of them. */
class Writes {
  readonly #guest: DiskGuest;
  /** The value that a sector has when what is under way is done. */
  readonly expected: Uint8Array;
  readonly underWay = new Map<number, number>();
  reported = 0;
  #made = 0;

  constructor(guest: DiskGuest, image: Uint8Array) {
    this.#guest = guest;
    this.expected = image;
  }

  /** Has a request under way for each head that is free. */
  fill(): void {
    for (let head = 0; head < 64; head += 4) {
      if (this.underWay.has(head)) continue;
      const sector = this.#made++ % SECTORS;
      const value = (this.#made * 31 + 5) & 0xff;
      const { memory } = this.#guest;
      memory.u8.fill(value, this.#guest.dataAt(head), this.#guest.dataAt(head) + 512);
      this.expected.fill(value, sector * 512, (sector + 1) * 512);
      this.underWay.set(head, sector);
      this.#guest.request(head, VIRTIO_BLK_T_OUT, sector, 512);
    }
    this.#guest.kick();
  }

  /** Takes what has been reported; nothing may be that is not under way. */
  take(): void {
    for (const head of this.#guest.newlyReported()) {
      assert.ok(this.underWay.delete(head), `head ${head} is reported once`);
      assert.equal(this.#guest.status(head), 0);
      this.reported++;
    }
  }
}

/** Begins a session that goes on where the last one was killed. */
function begin(guest: DiskGuest, inflight: VhostMessage | undefined): VhostMessage {
  const { frontend } = guest;
  const [owner, protocol, features, memory] = guest.beginning();
  for (const [request, payload, fds] of [owner, protocol, features, memory])
    frontend.send(request, payload, fds);
  const buffer =
    inflight ??
    frontend.ask(
      user.VHOST_USER_GET_INFLIGHT_FD,
      user.vhostUserInflight.make({ num_queues: 1, queue_size: 64 }).bytes,
    );
  frontend.send(user.VHOST_USER_SET_INFLIGHT_FD, buffer.payload, buffer.fds);
  const [ring] = guest.rings;
  for (const [request, payload, fds] of guest.ringMessages(0, ring, ring.used.index))
    frontend.send(request, payload, fds);
  return buffer;
}

async function killAndRestart(t: TestContext, lives: number, words: readonly string[]): Promise<void> {
  const random = randomFrom(SEED);
  const program = new DiskProgram(t);
  await program.start(words);
  const guest = new DiskGuest(program.connect());
  const writes = new Writes(guest, readFileSync(program.image));
  let inflight = begin(guest, undefined);
  for (let life = 0; life < lives; life++) {
    const limit = writes.reported + Math.floor(random() * 200);
    do {
      writes.fill();
      writes.take();
    } while (writes.reported < limit);
    program.running.signal('SIGKILL');
    assert.equal((await program.running.ended).signal, 'SIGKILL');
    await program.start(words);
    guest.frontend.reconnect(program.socket);
    inflight = begin(guest, inflight);
  }
  guest.kick();
  while (writes.underWay.size > 0) {
    guest.frontend.waitFor(guest.calls[0]);
    writes.take();
  }
  assert.deepEqual(readFileSync(program.image), writes.expected);
  assert.equal(guest.read(0).length, 512, 'and it goes on');
}

test(
  `C1: killed 10 times at any step (seed ${SEED}): each request is done and reported exactly once`,
  native,
  (t) => killAndRestart(t, 10, []),
);

test(`C1: the same where it sleeps in between (seed ${SEED})`, native, (t) =>
  killAndRestart(t, 4, ['--poll-us', '0']),
);
