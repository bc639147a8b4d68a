// `grantio serve` as a service of systemd: what it says on the notification socket, and when.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { Epoll } from '../../src/hosts/linux/epoll.ts';
import { arenaOfTest, libcOfTest, native } from '../../src/hosts/linux/native.test.helper.ts';
import { GRANTIO, startNumbered, startServe, temporaryFolder } from '../support/grantio.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 0x80002;
/** Longest wait for what must come: a hang ends the test. Milliseconds. */
const LIMIT = 60_000;

/** The service manager's end of the notification socket. */
class Manager {
  readonly address: string;
  readonly #fd: number;
  readonly #libc = libcOfTest();
  readonly #arena = arenaOfTest();
  readonly #epoll = new Epoll(this.#libc, this.#arena);
  readonly #message = this.#arena.take(1024);

  /** @param address a path, or "@" and a name of Linux's own */
  constructor(t: TestContext, address: string) {
    this.address = address;
    this.#fd = this.#libc.socket(AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
    const name = Buffer.from(address.replace(/^@/, '\0'));
    const target = this.#arena.take(2 + name.length);
    target.view.setUint16(0, AF_UNIX, true);
    target.u8.set(name, 2);
    assert.equal(this.#libc.bind(this.#fd, target.address, target.length), 0);
    this.#epoll.add(this.#fd, 0);
    t.after(() => {
      this.#epoll.close();
      this.#libc.close(this.#fd);
      this.#arena.close();
    });
  }

  /** The next message, which is waited for without letting anything else of this process happen. */
  hears(): string {
    assert.equal(
      this.#epoll.wait(LIMIT, () => undefined),
      1,
      'a message comes',
    );
    const length = this.#libc.read(this.#fd, this.#message.address, this.#message.length);
    return Buffer.from(this.#message.u8.subarray(0, length)).toString();
  }
}

for (const kind of ['a path', 'an abstract name'])
  test(`readiness and the end are told at ${kind}`, native, async (t) => {
    const folder = temporaryFolder(t);
    const manager = new Manager(
      t,
      kind === 'a path' ? join(folder, 'notify') : `@grantio-test-${process.pid}`,
    );
    const env = { ...process.env, NOTIFY_SOCKET: manager.address };
    const running = startServe(t, ['rng', '--socket-path', 'rng.sock'], { cwd: folder, env });
    assert.equal(manager.hears(), 'READY=1\nSTATUS=serving rng');
    await running.says(/served at/);
    running.signal('SIGTERM');
    assert.equal(manager.hears(), 'STOPPING=1\nSTATUS=ending the connections');
    assert.equal((await running.ended).status, 0);
  });

test('the watchdog hears of it', native, async (t) => {
  const folder = temporaryFolder(t);
  const manager = new Manager(t, join(folder, 'notify'));
  const env = { ...process.env, NOTIFY_SOCKET: manager.address, WATCHDOG_USEC: '20000' };
  const words = ['serve', 'rng', '--socket-path', 'rng.sock'];
  startNumbered(t, 'WATCHDOG_PID', words, { cwd: folder, env });
  assert.match(manager.hears(), /^READY=1/);
  for (let beat = 0; beat < 3; beat++) assert.equal(manager.hears(), 'WATCHDOG=1');
});

test('no service is started that systemd cannot hear of', native, async (t) => {
  const env = { ...process.env, NOTIFY_SOCKET: join(temporaryFolder(t), 'none') };
  const { status, stderr } = await startServe(t, ['rng', '--socket-path', 'rng.sock'], { env }).ended;
  assert.equal(status, 1);
  assert.match(stderr, /^grantio: NOTIFY_SOCKET .*none: connect failed: ENOENT\n$/);
});

const UNITS = new URL('../../../packaging/systemd/', import.meta.url);
const hasVerifier = spawnSync('systemd-analyze', ['--version']).status === 0;

test('systemd finds no fault with the units', {
  skip: hasVerifier ? false : 'needs systemd-analyze',
}, (t) => {
  const folder = temporaryFolder(t);
  // An instance of each, whose program is the one that is tested: it has to be there.
  const units = readdirSync(UNITS).map((name) => {
    const path = join(folder, name.replace('@', '@disk'));
    const text = readFileSync(new URL(name, UNITS), 'utf8');
    writeFileSync(path, text.replace('/usr/bin/grantio', GRANTIO));
    return path;
  });
  const { status, stdout, stderr } = spawnSync('systemd-analyze', ['verify', ...units], { encoding: 'utf8' });
  assert.deepEqual({ status, stdout, stderr }, { status: 0, stdout: '', stderr: '' });
});
