// A suspended domain goes through a file into another machine.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { addDomain, bootTestMachine } from '../hosts/model/domains.test.helper.ts';
import { SHUTDOWN_SUSPEND } from '../hosts/model/domains.ts';
import { readDomainFile, writeDomainFile } from './domain-file.ts';

test('a domain that was saved to a file goes on in another machine', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'guest.image');
  const xen = bootTestMachine();
  const guest = addDomain(xen, 5);
  guest.ports.memory.region.u8.fill(0x5a, 4096, 12288);
  xen.domains.shutDown(guest.record, SHUTDOWN_SUSPEND);
  writeDomainFile(path, xen.saveDomain(5));
  const other = bootTestMachine();
  const record = other.restoreDomain(7, readDomainFile(path));
  const { memory } = other.ports(record.id, () => false);
  assert.deepEqual(memory.region.u8.slice(), guest.ports.memory.region.u8.slice());
});

test('a domain that cannot be saved leaves no file', (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'grantio-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const path = join(folder, 'guest.image');
  const xen = bootTestMachine();
  addDomain(xen, 5);
  assert.throws(() => writeDomainFile(path, xen.saveDomain(5)), /has not suspended itself/);
  assert.ok(!existsSync(path) && !existsSync(`${path}.unfinished`));
});
