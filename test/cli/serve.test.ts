// `grantio serve` as a backend program: where frontends find it, what it prints, how it ends.

import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import {
  existsSync,
  linkSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { VIRTIO_F_ACCESS_PLATFORM } from '../../src/abi/virtio.ts';
import { acceptFrom, connectTo, listenOn } from '../../src/hosts/linux/fd-socket.ts';
import { arenaOfTest, libcOfTest, native } from '../../src/hosts/linux/native.test.helper.ts';
import { grantio, startNumbered, startServe, temporaryFolder } from '../support/grantio.ts';
import { offeredFeatures } from '../support/vhost.ts';

/** A folder with a disk in it. */
function folderWithDisk(t: TestContext): string {
  const folder = temporaryFolder(t);
  writeFileSync(join(folder, 'disk.img'), 'a disk');
  truncateSync(join(folder, 'disk.img'), 2 ** 20);
  return folder;
}

const BLK = ['serve', 'blk', '--disk', 'disk.img'];

test('a disk is served at its socket until SIGTERM, which leaves no socket', native, async (t) => {
  const folder = folderWithDisk(t);
  const running = startServe(t, [...BLK.slice(1), '--socket-path', 'disk.sock', '--json'], { cwd: folder });
  await running.says(/blk: served at disk\.sock/);
  assert.ok((await offeredFeatures(join(folder, 'disk.sock'))) > 0n);
  running.signal('SIGTERM');
  const { status, stdout } = await running.ended;
  assert.equal(status, 0);
  assert.deepEqual(JSON.parse(stdout), { devices: [{ name: 'blk', type: 'blk', path: 'disk.sock' }] });
  assert.deepEqual(readdirSync(folder), ['disk.img']);
});

test('standard output stays quiet', native, async (t) => {
  const folder = temporaryFolder(t);
  const running = startServe(t, ['rng', '--socket-path=rng.sock'], { cwd: folder });
  await running.says(/rng: served at rng\.sock/);
  running.signal('SIGINT');
  const { status, stdout } = await running.ended;
  assert.deepEqual({ status, stdout }, { status: 0, stdout: '' });
});

test('O2: a dead server’s socket is replaced', native, async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'rng.sock');
  const dead = createServer();
  await new Promise<void>((resolve) => dead.listen(`${path}.dead`, resolve));
  linkSync(`${path}.dead`, path);
  await new Promise((resolve) => dead.close(resolve));
  const running = startServe(t, ['rng', '--socket-path', path]);
  await running.says(/served at/);
  assert.ok((await offeredFeatures(path)) > 0n);
});

test('O2: a socket that somebody serves is left alone', native, async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'rng.sock');
  const first = startServe(t, ['rng', '--socket-path', path]);
  await first.says(/served at/);
  const { status, stderr } = await grantio(t, ['serve', 'rng', '--socket-path', path]);
  assert.equal(status, 1);
  assert.match(stderr, /^grantio: socket .* has a running server; stop that or choose another path\n$/);
  assert.ok((await offeredFeatures(path)) > 0n);
});

test('O2: of what replaced its socket a server takes nothing away', native, async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'rng.sock');
  const running = startServe(t, ['rng', '--socket-path', path]);
  await running.says(/served at/);
  rmSync(path);
  writeFileSync(path, 'precious');
  running.signal('SIGTERM');
  assert.equal((await running.ended).status, 0);
  assert.equal(readFileSync(path, 'utf8'), 'precious');
});

test('a device that cannot be made has no socket, not for a moment', native, async (t) => {
  const folder = temporaryFolder(t);
  const words = ['serve', 'blk', '--disk', 'missing.img', '--socket-path', 'disk.sock'];
  const { status, stderr } = await grantio(t, words, { cwd: folder });
  assert.deepEqual(
    { status, stderr },
    { status: 1, stderr: 'grantio: disk image missing.img: no such file\n' },
  );
  assert.deepEqual(readdirSync(folder), []);
});

test('O2: a folder that is not there is named', native, async (t) => {
  const folder = temporaryFolder(t);
  const words = ['serve', 'rng', '--socket-path', 'none/rng.sock'];
  const { status, stderr } = await grantio(t, words, { cwd: folder });
  assert.equal(status, 1);
  assert.match(
    stderr,
    /^grantio: socket none\/rng\.sock cannot be made; is its directory there .*\(ENOENT\)\n$/,
  );
});

test('O1: a descriptor that is no socket is refused', native, async (t) => {
  const { status, stderr } = await grantio(t, ['serve', 'rng', '--fd', '900']);
  assert.equal(status, 2);
  assert.match(stderr, /^grantio: --fd 900 is no Unix stream socket of this process\n$/);
});

test('--fd takes a socket that listens', native, async (t) => {
  const folder = temporaryFolder(t);
  const path = join(folder, 'rng.sock');
  const [libc, arena] = [libcOfTest(), arenaOfTest()];
  const fd = listenOn(libc, arena, path);
  const running = startServe(t, ['rng', '--fd=3'], { fds: [fd] });
  libc.close(fd);
  await running.says(/served at descriptor 3/);
  for (let frontend = 0; frontend < 2; frontend++) assert.ok((await offeredFeatures(path)) > 0n);
  running.signal('SIGTERM');
  assert.equal((await running.ended).status, 0);
  assert.ok(existsSync(path), 'a socket that it has not made is not its own');
  arena.close();
});

test('--fd takes a connection, and ends with it', native, async (t) => {
  const folder = temporaryFolder(t);
  const [libc, arena] = [libcOfTest(), arenaOfTest()];
  const listening = listenOn(libc, arena, join(folder, 'sock'));
  const near = connectTo(libc, arena, join(folder, 'sock'));
  const far = acceptFrom(libc, listening);
  const running = startServe(t, ['rng', '--fd=3'], { fds: [far] });
  for (const fd of [listening, far]) libc.close(fd);
  await running.says(/a frontend has connected/);
  libc.close(near);
  assert.equal((await running.ended).status, 0);
  arena.close();
});

test('several devices are served by one process', native, async (t) => {
  const folder = folderWithDisk(t);
  const names = Array.from({ length: 100 }, (_, i) => `disk${i}`);
  const devices = names.map((name) => {
    const own = { name, 'socket-path': `${name}.sock`, serial: name };
    return { type: 'blk', disk: 'disk.img', 'read-only': true, 'queue-size': 64, ...own };
  });
  writeFileSync(join(folder, 'devices.json'), JSON.stringify({ devices }));
  const running = startServe(t, ['--config', 'devices.json'], { cwd: folder });
  await running.says(/disk99: served at disk99\.sock/);
  for (const name of names) assert.ok((await offeredFeatures(join(folder, `${name}.sock`))) > 0n, name);
  running.signal('SIGTERM');
  assert.equal((await running.ended).status, 0);
  assert.deepEqual(readdirSync(folder).sort(), ['devices.json', 'disk.img']);
});

test('of several devices none is served when one cannot be', native, async (t) => {
  const folder = folderWithDisk(t);
  const devices = [
    { type: 'rng', 'socket-path': 'rng.sock' },
    { type: 'blk', 'socket-path': 'disk.sock', disk: 'missing.img' },
  ];
  writeFileSync(join(folder, 'devices.json'), JSON.stringify({ devices }));
  const { status, stderr } = await grantio(t, ['serve', '--config', 'devices.json'], { cwd: folder });
  assert.deepEqual(
    { status, stderr },
    { status: 1, stderr: 'grantio: disk image missing.img: no such file\n' },
  );
  assert.deepEqual(readdirSync(folder).sort(), ['devices.json', 'disk.img']);
});

test('--restricted offers VIRTIO_F_ACCESS_PLATFORM, and nothing else does', native, async (t) => {
  const folder = temporaryFolder(t);
  for (const restricted of [false, true]) {
    const path = join(folder, `${restricted}.sock`);
    const words = ['rng', '--socket-path', path, ...(restricted ? ['--restricted'] : [])];
    const running = startServe(t, words);
    await running.says(/served at/);
    const platform = (await offeredFeatures(path)) & VIRTIO_F_ACCESS_PLATFORM;
    assert.equal(platform !== 0n, restricted);
  }
});

test('--print-capabilities prints what kind of backend it is, whatever else is said', async (t) => {
  const blk = await grantio(t, [...BLK, '--print-capabilities', '--no-such-option', '--fd=nonsense']);
  assert.deepEqual(blk, {
    ...{ status: 0, signal: null, stderr: '' },
    stdout: '{"type":"block","features":["read-only","blk-file"]}\n',
  });
  const rng = await grantio(t, ['serve', 'rng', '--print-capabilities']);
  assert.deepEqual([rng.status, rng.stdout], [0, '{"type":"rng"}\n']);
});

test('--print-qemu-args prints one argument a line', async (t) => {
  const words = [...BLK, '--socket-path', '/run/a,b', '--queues', '4', '--print-qemu-args', '512M'];
  const { status, stdout } = await grantio(t, words);
  assert.equal(status, 0);
  assert.deepEqual(stdout.split('\n'), [
    ...['-m', '512M', '-object', 'memory-backend-memfd,id=grantio-memory,size=512M,share=on,seal=on'],
    ...['-machine', 'memory-backend=grantio-memory', '-smp', '4'],
    ...['-chardev', 'socket,id=grantio-blk,path=/run/a,,b,reconnect=1'],
    ...['-device', 'vhost-user-blk-pci,num-queues=4,chardev=grantio-blk', ''],
  ]);
});

test('--print-qemu-args of a restricted device has an IOMMU', async (t) => {
  const words = ['serve', 'rng', '--socket-path', 's', '--restricted', '--json', '--print-qemu-args', '1G'];
  const qemu = JSON.parse((await grantio(t, words)).stdout) as string[];
  assert.ok(qemu.includes('intel-iommu,device-iotlb=on,intremap=off'));
  assert.ok(qemu.includes('q35,memory-backend=grantio-memory'), 'where QEMU has an IOMMU');
  assert.deepEqual(qemu.slice(-3), [
    ...['socket,id=grantio-rng,path=s', '-device'],
    'vhost-user-rng-pci,chardev=grantio-rng,iommu_platform=on,ats=on,disable-legacy=on',
  ]);
});

test('--print-uml-args prints sockets with virtio ids', async (t) => {
  const { stdout } = await grantio(t, [...BLK, '--socket-path', '/run/s', '--print-uml-args']);
  assert.equal(stdout, 'virtio_uml.device=/run/s:2\n');
  const colon = await grantio(t, ['serve', 'rng', '--socket-path', 'a:b', '--print-uml-args']);
  assert.equal(colon.status, 2);
});

test('sockets that systemd opened are found by the names of the devices', native, async (t) => {
  const folder = folderWithDisk(t);
  const [libc, arena] = [libcOfTest(), arenaOfTest()];
  const paths = ['one', 'two'].map((name) => join(folder, name));
  const fds = paths.map((path) => listenOn(libc, arena, path));
  const devices = [
    { type: 'blk', name: 'two', disk: 'disk.img' },
    { type: 'rng', name: 'one' },
  ];
  writeFileSync(join(folder, 'devices.json'), JSON.stringify({ devices }));
  const env = { ...process.env, LISTEN_FDS: '2', LISTEN_FDNAMES: 'one:two' };
  const running = startNumbered(
    t,
    'LISTEN_PID',
    ['serve', '--config', 'devices.json', '--log-format=pretty'],
    {
      cwd: folder,
      env,
      fds,
    },
  );
  for (const fd of fds) libc.close(fd);
  await running.says(/one: served at systemd's socket/);
  const [one, two] = await Promise.all(paths.map(offeredFeatures));
  assert.notEqual(one, two, 'a disk and a source of entropy');
  arena.close();
});

test(
  'O1: sockets that systemd opened for another process, or for no device of this one',
  native,
  async (t) => {
    const env = { ...process.env, LISTEN_FDS: '2', LISTEN_FDNAMES: 'one:two' };
    const others = await grantio(t, ['serve', 'rng'], { env: { ...env, LISTEN_PID: '1' } });
    assert.equal(others.status, 2);
    assert.match(others.stderr, /--socket-path or --fd is missing/);
    const nobodys = await startNumbered(t, 'LISTEN_PID', ['serve', 'rng'], { env }).ended;
    assert.equal(nobodys.status, 2);
    assert.match(nobodys.stderr, /^grantio: no socket for 'rng': systemd has passed one, two/);
  },
);

/** Names and contents of the descriptions below `prefix`. */
function descriptionsBelow(prefix: string): Record<string, unknown>[] {
  const folder = join(prefix, 'share/qemu/vhost-user');
  return readdirSync(folder)
    .sort()
    .map((file) => ({ file, ...(JSON.parse(readFileSync(join(folder, file), 'utf8')) as object) }));
}

test('install-descriptions writes what management programs look for, and the programs are there', async (t) => {
  const prefix = temporaryFolder(t);
  const { status, stdout } = await grantio(t, ['serve', 'install-descriptions', '--prefix', prefix]);
  assert.equal(status, 0);
  const found = descriptionsBelow(prefix);
  assert.deepEqual(
    found.map(({ file, type }) => [file, type]),
    [
      ['50-grantio-blk.json', 'block'],
      ['50-grantio-console.json', 'console'],
      ['50-grantio-rng.json', 'rng'],
    ],
  );
  assert.equal(stdout.trim().split('\n').length, found.length);
  for (const { binary, type } of found) {
    const program = spawnSync(`${binary}`, ['--print-capabilities'], { encoding: 'utf8' });
    assert.equal((JSON.parse(program.stdout) as { type: string }).type, type);
  }
});

test('uninstall-descriptions removes what was installed, and nothing that somebody else wrote', async (t) => {
  const prefix = temporaryFolder(t);
  const words = ['--prefix', prefix];
  await grantio(t, ['serve', 'install-descriptions', ...words]);
  const folder = join(prefix, 'share/qemu/vhost-user');
  // An empty file hides a description, by QEMU's rules.
  writeFileSync(join(folder, '50-grantio-rng.json'), '');
  assert.equal((await grantio(t, ['serve', 'uninstall-descriptions', ...words])).status, 0);
  assert.deepEqual(readdirSync(folder), ['50-grantio-rng.json']);
});

test('without koffi it says in one sentence what is missing', async (t) => {
  const folder = temporaryFolder(t);
  writeFileSync(
    join(folder, 'no-koffi.cjs'),
    `const { _load } = module.constructor;
     module.constructor._load = (name, ...rest) => {
       if (name === 'koffi') throw new Error('not installed');
       return _load(name, ...rest);
     };`,
  );
  const env = { ...process.env, NODE_OPTIONS: `--require=${join(folder, 'no-koffi.cjs')}` };
  const { status, stderr } = await grantio(t, ['serve', 'rng', '--socket-path', 'rng.sock'], {
    cwd: folder,
    env,
  });
  assert.equal(status, 1);
  assert.match(stderr, /^grantio: [^\n]+ needs the optional package koffi, [^\n]+\n$/);
  assert.deepEqual(readdirSync(folder), ['no-koffi.cjs']);
});
