// A backend that tries for more than it was to copy: it is refused where parts of pages are granted, finds out where
// whole ones are, and the copies that it was to make are made either way.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { addDomain, bootTestMachine } from '../hosts/model/domains.test.helper.ts';
import { GrantCopies } from '../xen/grant-copier.ts';
import type { FrameNumber, GrantRef } from '../xen/ids.ts';
import { PeepingCopier } from './peeping-copier.ts';
import { PeepingMapper } from './peeping-mapper.ts';
import { SECRET_MARK } from './secrets.ts';

const REF = 8 as GrantRef;
const FRAME = 5 as FrameNumber;

function scene() {
  const xen = bootTestMachine();
  const guest = addDomain(xen, 2);
  const { id, ports } = addDomain(xen, 1);
  guest.ports.grantTable.setVersion(2);
  guest.ports.memory.bytes(FRAME * 4096, 64).set(new TextEncoder().encode(SECRET_MARK));
  guest.ports.memory.bytes(FRAME * 4096 + 100, 8).fill(7);
  const mapper = new PeepingMapper(ports.grantMapper, ports.addressSpace);
  const copier = new PeepingCopier(ports.grantCopier, mapper);
  const place = copier.takePages(1);
  const copies = new GrantCopies();
  copies.add(REF, 100, 8, place);
  const copied = () => [...copier.region.u8.subarray(place, place + 8)];
  return { guest, peer: id, table: guest.ports.grantTable, mapper, copier, copies, copied };
}

test('beside the bytes of a part there is nothing to be had', () => {
  const { guest, peer, table, mapper, copier, copies, copied } = scene();
  table.grantPart(REF, peer, FRAME, 100, 8, false);
  assert.equal(copier.copyIn(guest.id, copies), 0);
  assert.deepEqual(copied(), Array(8).fill(7));
  assert.equal(copier.copyOut(guest.id, copies), 0);
  assert.deepEqual(copier.attempts, { references: 2, opened: 0 });
  assert.deepEqual(mapper.glimpse, { pagesSeen: 0, pagesWithSecrets: 0, sample: undefined });
  assert.equal(table.revoke(REF, 1), 0, 'nothing is held');
});

test('a part that is wider than what is copied is found out', () => {
  for (const [offset, length] of [
    [99, 9],
    [100, 9],
  ]) {
    const { guest, peer, table, copier, copies } = scene();
    table.grantPart(REF, peer, FRAME, offset, length, false);
    copier.copyIn(guest.id, copies);
    assert.deepEqual(copier.attempts, { references: 1, opened: 1 });
  }
});

test('a whole page is mapped and looked into', () => {
  const { guest, peer, table, mapper, copier, copies, copied } = scene();
  table.grant(REF, 1, peer, FRAME, true);
  assert.equal(copier.copyIn(guest.id, copies), 0);
  assert.deepEqual(copied(), Array(8).fill(7));
  assert.deepEqual(copier.attempts, { references: 1, opened: 1 });
  assert.equal(mapper.glimpse.sample?.ref, REF);
  assert.equal(table.revoke(REF, 1), 0, 'nothing is held');
});
