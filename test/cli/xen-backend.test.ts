// `grantio xen-backend` where it cannot begin: it says so, and ends.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { grantio, temporaryFolder } from '../support/grantio.ts';

const skip = native.skip || (existsSync('/dev/xen/xenbus') && 'this is a domain of Xen');

for (const words of [[], ['--domain', '1', '--mmio', '0xd0000000,irq=5', '--rng', '--json']])
  test(`where there is no Xen, ${words[0] ?? 'watching'} says what is missing`, { skip }, async (t) => {
    const { status, stdout, stderr } = await grantio(t, ['xen-backend', ...words]);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^grantio: xenstore cannot be reached by .*: this has to be a domain of Xen/);
  });

test('O1: a backend that cannot begin leaves no trace file behind', native, async (t) => {
  const trace = join(temporaryFolder(t), 'trace');
  const env = { ...process.env, NOTIFY_SOCKET: 'nowhere' };
  const { status, stderr } = await grantio(t, ['xen-backend', '--trace', trace], { env });
  assert.equal(status, 1);
  assert.match(stderr, /^grantio: NOTIFY_SOCKET nowhere: expected a path/);
  assert.equal(existsSync(trace), false);
});
