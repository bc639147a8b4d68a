// `grantio xen-backend` where there is no Xen: it says so, and ends.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { test } from 'node:test';
import { native } from '../../src/hosts/linux/native.test.helper.ts';
import { grantio } from '../support/grantio.ts';

const skip = native.skip || (existsSync('/dev/xen/xenbus') && 'this is a domain of Xen');

for (const words of [[], ['--domain', '1', '--mmio', '0xd0000000,irq=5', '--rng', '--json']])
  test(`where there is no Xen, ${words[0] ?? 'watching'} says what is missing`, { skip }, async (t) => {
    const { status, stdout, stderr } = await grantio(t, ['xen-backend', ...words]);
    assert.deepEqual([status, stdout], [1, '']);
    assert.match(stderr, /^grantio: xenstore cannot be reached by .*: this has to be a domain of Xen/);
  });
