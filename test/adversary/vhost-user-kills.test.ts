// C1 The backend's process is killed with requests under way, again and again. The frontend keeps the buffer of
// requests under way and brings it back to the next process: each request is done, and reported exactly once.

import assert from 'node:assert/strict';
import { closeSync, constants, mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { VIRTIO_BLK_T_OUT } from '../../src/abi/virtio-blk.ts';
import { native, uring } from '../../src/hosts/linux/native.test.helper.ts';
import { randomFrom } from '../../src/machine/random.ts';
import { DISK_BYTES } from '../support/vhost-backend.test.helper.ts';
import { DiskGuest } from '../support/vhost-guest.test.helper.ts';
import { DiskProgram } from '../support/vhost-program.test.helper.ts';

const SEED = 0x5eed_c1;

/** Why images of tests cannot be read past the page cache. */
function whyNotDirect(): string | false {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-test-'));
  try {
    closeSync(openSync(join(folder, 'image'), constants.O_CREAT | constants.O_RDWR | constants.O_DIRECT));
    return false;
  } catch (error) {
    return `the folder for temporary files has no direct I/O: ${error}`;
  } finally {
    rmSync(folder, { recursive: true });
  }
}

const directUring = { skip: uring.skip || whyNotDirect() };

/** Writes of blocks, each with a value of its own, and what has become of them. */
class Writes {
  readonly #guest: DiskGuest;
  /** Bytes of a block. */
  readonly #block: number;
  /** What the disk has when what is under way is done. */
  readonly expected: Uint8Array;
  readonly underWay = new Set<number>();
  reported = 0;
  #made = 0;

  constructor(guest: DiskGuest, image: Uint8Array, block: number) {
    this.#guest = guest;
    this.#block = block;
    this.expected = image;
  }

  /** Has a request under way for each head that is free. */
  fill(): void {
    for (let head = 0; head < 64; head += 4) {
      if (this.underWay.has(head)) continue;
      const at = (this.#made++ * this.#block) % DISK_BYTES;
      const value = (this.#made * 31 + 5) & 0xff;
      const { memory } = this.#guest;
      memory.u8.fill(value, this.#guest.dataAt(head), this.#guest.dataAt(head) + this.#block);
      this.expected.fill(value, at, at + this.#block);
      this.underWay.add(head);
      this.#guest.request(head, VIRTIO_BLK_T_OUT, at / 512, this.#block);
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

async function killAndRestart(
  t: TestContext,
  lives: number,
  words: readonly string[],
  block = 512,
): Promise<void> {
  const random = randomFrom(SEED);
  const program = new DiskProgram(t);
  await program.start(words);
  const guest = new DiskGuest(program.connect());
  const writes = new Writes(guest, readFileSync(program.image), block);
  let inflight = guest.resume();
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
    inflight = guest.resume(inflight);
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

test(
  `C1: the same past the page cache, with requests under way in the kernel (seed ${SEED})`,
  directUring,
  // Blocks of a page: some file systems take no less past the page cache.
  (t) => killAndRestart(t, 10, ['--direct', '--engine', 'io_uring'], 4096),
);

test(`C1: the same where it sleeps in between (seed ${SEED})`, native, (t) =>
  killAndRestart(t, 4, ['--poll-us', '0']),
);
