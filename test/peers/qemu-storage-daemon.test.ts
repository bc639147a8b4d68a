// QEMU's own vhost-user backend, driven by our driver: the job of `grantio run` against its disk, what it could reach
// meanwhile, NBD clients through both, and what happens when it dies.
//
// Each run has a daemon of its own: 7.2 does not survive every frontend that goes away.

import assert from 'node:assert/strict';
import { existsSync, readdirSync, readFileSync, readlinkSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { loadLibc } from '../../src/hosts/linux/libc.ts';
import { VhostGuest } from '../../src/parallel/vhost-guest.ts';
import { noTrace } from '../../src/trace.ts';
import { grantio, Running, startGrantio, temporaryFolder } from '../support/grantio.ts';
import { checkExposure, type ModeFigures, parseReport } from '../support/report.ts';
import { seededBytes, sha256 } from './content.ts';

const MIB = 2 ** 20;
const SIZE = 40 * MIB;
const WINDOW = 8 * MIB;
/** Of a disk that takes long enough to be read twice. */
const LARGE = 16 * 1024 * MIB;

/** A daemon on an image, and another one after it. */
class Daemon {
  readonly folder: string;
  readonly image: string;
  readonly backend: string;
  readonly #test: TestContext;
  readonly #words: readonly string[];
  #starts = 0;
  #running: Running | undefined;

  constructor(context: TestContext, queues: number) {
    this.#test = context;
    this.folder = temporaryFolder(context);
    this.image = join(this.folder, 'disk.img');
    const socket = join(this.folder, 'blk.sock');
    this.backend = `vhost-user:${socket}`;
    const node = `driver=file,node-name=f,filename=${this.image}`;
    const place = `addr.type=unix,addr.path=${socket},writable=on,num-queues=${queues}`;
    this.#words = ['--blockdev', node, '--export', `vhost-user-blk,id=e,node-name=f,${place}`];
  }

  /** Starts it. Resolves when it listens. */
  async start(): Promise<void> {
    const pidFile = join(this.folder, `pid${this.#starts++}`);
    const running = new Running('qemu-storage-daemon', [...this.#words, '--pidfile', pidFile], {});
    this.#running = running;
    this.#test.after(() => running.kill());
    await until(running, () => existsSync(pidFile));
  }

  /** Kills it when it has read `bytes` of its image. */
  async killAfter(bytes: number): Promise<void> {
    const running = this.#running!;
    const pid = readFileSync(join(this.folder, `pid${this.#starts - 1}`), 'utf8').trim();
    await until(running, () => {
      const [, read] = /rchar: (\d+)/.exec(readFileSync(`/proc/${pid}/io`, 'utf8')) ?? [];
      return Number(read) > bytes;
    });
    await this.kill();
  }

  async kill(): Promise<void> {
    this.#running?.kill();
    await this.#running?.ended;
  }
}

/** Looks every few milliseconds until `condition` holds, for as long as a program runs. */
async function until(running: Running, condition: () => boolean): Promise<void> {
  let hasEnded = false;
  const ended = (): void => {
    hasEnded = true;
  };
  running.ended.then(ended, ended);
  while (!condition()) {
    assert.ok(!hasEnded, `ended too early: ${running.stderr}`);
    await delay(5);
  }
}

/** The document of a run, as far as tests look at it. */
interface Document {
  readonly backend: { readonly capacity: number; readonly resets: number; readonly reconnections: number };
  readonly memory: { readonly windowBytes: number; readonly mostLiveBytes: number };
  readonly comparedWith: string | null;
}

/** What this process has open and mapped of the kinds that a connection has. */
function opened(): { readonly descriptors: number; readonly windows: number } {
  const kinds = readdirSync('/proc/self/fd').map((fd) => {
    try {
      return readlinkSync(`/proc/self/fd/${fd}`);
    } catch {
      // The descriptor by which the folder was read.
      return '';
    }
  });
  return {
    descriptors: kinds.filter((kind) => /memfd|eventfd|eventpoll/.test(kind)).length,
    windows: readFileSync('/proc/self/maps', 'utf8').split('memfd:grantio-window').length - 1,
  };
}

/** Checks what the backend could reach: the window, which held nothing foreign. */
function checkWindow(stdout: string): ModeFigures & Document {
  const document = JSON.parse(stdout) as Document;
  const [figures] = parseReport(stdout);
  checkExposure(figures);
  assert.equal(document.memory.windowBytes, WINDOW);
  assert.equal(figures.bytesExposed, WINDOW * (1 + document.backend.reconnections));
  assert.ok(document.memory.mostLiveBytes > 0 && document.memory.mostLiveBytes <= WINDOW);
  assert.equal(document.backend.resets, 0);
  return { ...document, ...figures };
}

for (const queues of [1, 4])
  test(`the job copies and checks a disk of qemu-storage-daemon (queues: ${queues})`, async (t) => {
    const daemon = new Daemon(t, queues);
    writeFileSync(daemon.image, seededBytes(SIZE, 1));
    await daemon.start();
    const words = ['run', '--backend', daemon.backend, '--queues', `${queues}`, '--json'];
    const ended = await grantio(t, [...words, '--disk', daemon.image]);
    assert.equal(ended.status, 0, ended.stderr);
    const report = checkWindow(ended.stdout);
    assert.equal(report.identical, true);
    assert.equal(report.backend.capacity, SIZE);
    assert.equal(report.comparedWith, daemon.image);
    assert.ok(report.bytesNeeded >= SIZE);
  });

test('without an image the disk is read twice, and must not change', async (t) => {
  const daemon = new Daemon(t, 1);
  writeFileSync(daemon.image, seededBytes(SIZE, 2));
  await daemon.start();
  const ended = await grantio(t, ['run', '--backend', daemon.backend, '--json']);
  assert.equal(ended.status, 0, ended.stderr);
  assert.ok(checkWindow(ended.stdout).bytesNeeded >= 2 * SIZE);
});

test("a byte that is not the image's is found", async (t) => {
  const daemon = new Daemon(t, 1);
  const content = seededBytes(SIZE, 3);
  writeFileSync(daemon.image, content);
  content[33 * MIB + 5] ^= 1;
  const other = join(daemon.folder, 'other.img');
  writeFileSync(other, content);
  await daemon.start();
  const ended = await grantio(t, ['run', '--backend', daemon.backend, '--disk', other, '--json']);
  assert.equal(ended.status, 1);
  assert.match(ended.stderr, new RegExp(`the byte at ${33 * MIB + 5} read from the backend is not`));
});

test('NBD clients write through the driver and the daemon into the image', async (t) => {
  const daemon = new Daemon(t, 2);
  writeFileSync(daemon.image, Buffer.alloc(SIZE));
  await daemon.start();
  const source = join(daemon.folder, 'source.img');
  writeFileSync(source, seededBytes(SIZE, 4));
  const command = `nbdcopy --flush '${source}' "$uri" && nbdcopy "$uri" '${source}.back'`;
  const words = ['run', '--backend', daemon.backend, '--queues', '2', '--json', '--run', command];
  const ended = await grantio(t, words);
  assert.equal(ended.status, 0, ended.stderr);
  checkWindow(ended.stdout);
  for (const copy of [daemon.image, `${source}.back`]) assert.equal(sha256(copy), sha256(source));
});

test('C4: descriptors and shared memory return to their first count after every connection', async (t) => {
  const libc = loadLibc();
  const first = opened();
  for (const queues of [1, 3]) {
    const daemon = new Daemon(t, queues);
    writeFileSync(daemon.image, seededBytes(MIB, 6));
    await daemon.start();
    const socket = daemon.backend.replace('vhost-user:', '');
    const options = { socket, memory: 32 * MIB, window: WINDOW, patience: 0, queues, queueSize: 64 };
    const guest = new VhostGuest(libc, options, noTrace);
    assert.deepEqual(opened().windows, first.windows + 1);
    assert.ok(opened().descriptors > first.descriptors);
    guest.close();
    // The daemon's pipes are the test's.
    await daemon.kill();
    assert.throws(() => new VhostGuest(libc, options, noTrace), /connect failed: ECONNREFUSED/);
    assert.deepEqual(opened(), first);
  }
});

test('B20: a daemon that is killed in the middle ends the job with what happened, and without a wait', async (t) => {
  const daemon = new Daemon(t, 1);
  writeFileSync(daemon.image, '');
  truncateSync(daemon.image, LARGE);
  await daemon.start();
  const job = startGrantio(t, ['run', '--backend', daemon.backend, '--json']);
  await daemon.killAfter(64 * MIB);
  const ended = await job.ended;
  assert.equal(ended.status, 1);
  assert.match(ended.stderr, /after .* MiB of 32\.0 GiB: the backend has closed the connection/);
  const [figures] = parseReport(ended.stdout);
  assert.deepEqual([figures.identical, figures.leakedGrants], [false, 0]);
});

test('C1: a daemon that comes back with another disk is not used, and the job ends when the time is over', async (t) => {
  const daemon = new Daemon(t, 1);
  writeFileSync(daemon.image, '');
  truncateSync(daemon.image, LARGE);
  await daemon.start();
  const job = startGrantio(t, ['run', '--backend', daemon.backend, '--reconnect', '1', '--json']);
  await daemon.killAfter(64 * MIB);
  truncateSync(daemon.image, MIB);
  await daemon.start();
  const ended = await job.ended;
  assert.equal(ended.status, 1);
  assert.match(
    ended.stderr,
    /closed the connection.*nobody took its place: the disk came back with 1048576 bytes/,
  );
});

test('C9: a signal ends the wait for a backend that has gone', async (t) => {
  const daemon = new Daemon(t, 1);
  writeFileSync(daemon.image, '');
  truncateSync(daemon.image, LARGE);
  await daemon.start();
  const job = startGrantio(t, ['run', '--backend', daemon.backend, '--reconnect', '600', '--json']);
  await daemon.killAfter(64 * MIB);
  job.signal('SIGTERM');
  const ended = await job.ended;
  assert.equal(ended.status, 1);
  assert.match(ended.stderr, /interrupted by SIGTERM/);
});

test('C1: a daemon that is killed in the middle and started again is asked again', async (t) => {
  const daemon = new Daemon(t, 1);
  writeFileSync(daemon.image, seededBytes(64 * MIB, 5));
  truncateSync(daemon.image, 1024 * MIB);
  await daemon.start();
  const words = ['run', '--backend', daemon.backend, '--disk', daemon.image, '--reconnect', '60', '--json'];
  const job = startGrantio(t, words);
  await daemon.killAfter(96 * MIB);
  await daemon.start();
  const ended = await job.ended;
  assert.equal(ended.status, 0, ended.stderr);
  const report = checkWindow(ended.stdout);
  assert.deepEqual([report.identical, report.backend.reconnections], [true, 1]);
});
