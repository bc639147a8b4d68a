// Opening an image: what is refused, and in which words.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type TestContext, test } from 'node:test';
import { ImageError } from './image.ts';
import { RawFile } from './raw-file.ts';

function inFolder(t: TestContext): string {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return folder;
}

/** Descriptors that this process has open; 0 where the system does not tell. */
function openFiles(): number {
  return existsSync('/proc/self/fd') ? readdirSync('/proc/self/fd').length : 0;
}

function refused(path: string, readOnly: boolean, reason: RegExp): void {
  assert.throws(
    () => new RawFile(path, readOnly),
    (error) => {
      assert.ok(error instanceof ImageError);
      assert.match(error.message, reason);
      assert.ok(error.message.includes(path), 'the message says which image');
      return true;
    },
  );
}

const unusable: [string, (path: string) => void, RegExp][] = [
  ['is not there', () => undefined, /no such file/],
  ['is a directory', (path) => mkdirSync(path), /is a directory, not an image/],
  ['is empty', (path) => writeFileSync(path, ''), /is empty/],
  [
    'is no whole number of sectors',
    (path) => writeFileSync(path, 'x'.repeat(513)),
    /513 bytes is no multiple/,
  ],
  ['is a link to nothing', (path) => symlinkSync(`${path}-gone`, path), /no such file/],
];

for (const [what, make, reason] of unusable) {
  for (const readOnly of [false, true]) {
    test(`an image that ${what} is refused, and nothing stays open, ${readOnly ? 'ro' : 'rw'}`, (t) => {
      const path = join(inFolder(t), 'disk.img');
      make(path);
      const before = openFiles();
      refused(path, readOnly, reason);
      assert.equal(openFiles(), before);
    });
  }
}

test('a path with a file in the place of a directory is refused with the errno', (t) => {
  const file = join(inFolder(t), 'file');
  writeFileSync(file, 'x'.repeat(512));
  refused(join(file, 'disk.img'), false, /cannot be opened \(ENOTDIR\)/);
});

test('an image is closed once', (t) => {
  const path = join(inFolder(t), 'disk.img');
  writeFileSync(path, 'x'.repeat(1024));
  const before = openFiles();
  const image = new RawFile(path, true);
  assert.equal(openFiles(), before === 0 ? 0 : before + 1);
  assert.equal(image.size, 1024);
  image.close();
  assert.equal(openFiles(), before);
});

for (const readOnly of [false, true]) {
  test(`a named pipe is refused, not waited for, ${readOnly ? 'ro' : 'rw'}`, (t) => {
    const path = join(inFolder(t), 'pipe');
    execFileSync('mkfifo', [path]);
    refused(path, readOnly, /neither a file nor a directory/);
  });
}

test('a device node is refused', () => {
  refused('/dev/zero', true, /neither a file nor a directory/);
});

test('an image that may not be written is refused with what a user of this store does about it', () => {
  // A file of sysfs that has nothing to write to may not be opened so, not even by root.
  refused('/sys/devices/system/cpu/online', false, /writing; add ",ro" to serve it read-only/);
});
