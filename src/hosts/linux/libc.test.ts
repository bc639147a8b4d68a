import assert from 'node:assert/strict';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { checked, loadLibc, MOST_VIEWED, SystemError } from './libc.ts';
import { arenaOfTest, libcOfTest, native } from './native.test.helper.ts';

/** libc.ts as it is in a folder of its own, where no package is installed but what the test puts there. */
async function loadElsewhere(t: TestContext, koffi?: string): Promise<(user?: string) => unknown> {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const copy = join(folder, 'libc.mjs');
  copyFileSync(fileURLToPath(new URL('./libc.js', import.meta.url)), copy);
  if (koffi !== undefined) {
    mkdirSync(join(folder, 'node_modules', 'koffi'), { recursive: true });
    writeFileSync(join(folder, 'node_modules', 'koffi', 'index.js'), koffi);
  }
  const module: { loadLibc: (user?: string) => unknown } = await import(pathToFileURL(copy).href);
  return module.loadLibc;
}

const onLinux = { skip: process.platform === 'linux' ? false : 'other systems are refused before koffi is' };

test(
  'without koffi there is one sentence that says what needs it and what to install',
  onLinux,
  async (t) => {
    const load = await loadElsewhere(t);
    assert.throws(() => load('grantio serve'), {
      name: 'NativeUnavailable',
      message: 'grantio serve needs the optional package koffi, which is not installed: npm install koffi',
    });
  },
);

test('another system is refused in a sentence that says who needs Linux', (t) => {
  const { platform } = process;
  t.after(() => Object.defineProperty(process, 'platform', { value: platform }));
  Object.defineProperty(process, 'platform', { value: 'darwin' });
  assert.throws(() => loadLibc('grantio xen-backend'), {
    name: 'NativeUnavailable',
    message: 'grantio xen-backend is for Linux only, this is darwin',
  });
});

test('a koffi that does not load is not taken for one that is missing', onLinux, async (t) => {
  const load = await loadElsewhere(t, 'throw new Error("made for another processor")');
  assert.throws(() => load(), {
    name: 'NativeUnavailable',
    message: /^grantio needs .*koffi, which cannot be loaded: made for another processor/,
  });
});

test('a failed call names itself, its reason and what it was about', native, () => {
  const libc = libcOfTest();
  assert.throws(
    () => checked(libc, 'close', libc.close(-1), 'a descriptor that is none'),
    (error) => {
      assert.ok(error instanceof SystemError);
      assert.equal(error.code, 'EBADF');
      assert.equal(error.message, 'a descriptor that is none: close failed: EBADF');
      return true;
    },
  );
  assert.equal(checked(libc, 'dup', 0, 'nothing'), 0);
});

test('an error number that has no name is printed as it is', () => {
  assert.equal(new SystemError('read', 4095, 'a disk').code, 'errno 4095');
});

test('memory is seen as it is, by every view of it', native, () => {
  const libc = libcOfTest();
  const scratch = arenaOfTest(libc).take(64);
  const view = new Uint32Array(libc.view(scratch.address, 64));
  Atomics.store(view, 3, 0xdeadbeef);
  assert.equal(scratch.view.getUint32(12, true), 0xdeadbeef);
});

test('memory too large for one piece is refused, and the process lives', native, () => {
  assert.throws(() => libcOfTest().view(4096, MOST_VIEWED + 1), RangeError);
});

test('variadic functions get their arguments', native, () => {
  const libc = libcOfTest();
  const [F_GETFD, F_SETFD, FD_CLOEXEC] = [1, 2, 1];
  const fd = libc.dup(0);
  assert.equal(libc.fcntl(fd, F_GETFD, 0), 0);
  assert.equal(libc.fcntl(fd, F_SETFD, FD_CLOEXEC), 0);
  assert.equal(libc.fcntl(fd, F_GETFD, 0), FD_CLOEXEC);
  libc.close(fd);
});
