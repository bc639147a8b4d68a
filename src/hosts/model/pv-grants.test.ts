// PV guests, which know their frames by the machine's numbers: their pages can be mapped by others, and they map
// pages of others, through the same ports as every guest.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  GNTMAP_APPLICATION_MAP,
  GNTMAP_CONTAINS_PTE,
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTST_GENERAL_ERROR,
} from '../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../abi/xen.ts';
import type { FrameNumber, GrantRef } from '../../xen/ids.ts';
import { GRANT_WINDOW } from './address-map.ts';
import { PageFault } from './address-space.ts';
import { addDomain, bootTestMachine } from './domains.test.helper.ts';
import { Unmapping } from './grants/mapping.ts';
import { sharedEntry } from './grants/recount.test.helper.ts';

const REF = 8 as GrantRef;

/** A granter whose pages hold their own numbers, and a mapper. */
function machine(granterKind: 'pv' | 'pvh', mapperKind: 'pv' | 'pvh', version = 1) {
  const xen = bootTestMachine();
  // So that no domain's memory begins with the machine's.
  addDomain(xen, 3);
  const granter = addDomain(xen, 2, { kind: granterKind });
  const mapper = addDomain(xen, 1, { kind: mapperKind });
  assert.equal(granter.ports.grantTable.setVersion(version), 0);
  const { memory } = granter.ports;
  const address = memory.allocatePages(4)!;
  for (let page = 0; page < 4; page++)
    memory.bytes(address + page * XEN_PAGE_SIZE, XEN_PAGE_SIZE).fill(0xa0 + page);
  return { granter, mapper, address, frame: (address / XEN_PAGE_SIZE) as FrameNumber };
}

for (const [granterKind, mapperKind] of [
  ['pv', 'pvh'],
  ['pvh', 'pv'],
  ['pv', 'pv'],
] as const) {
  for (const version of [1, 2]) {
    test(`a ${mapperKind} domain maps the pages of a ${granterKind} guest, version ${version}`, () => {
      const { granter, mapper, address, frame } = machine(granterKind, mapperKind, version);
      const { grantMapper, addressSpace } = mapper.ports;
      granter.ports.grantTable.grant(REF, 4, mapper.id, frame, false);
      for (let page = 0; page < 4; page++) {
        const handle = grantMapper.map(granter.id, REF + page, false);
        assert.ok(handle >= 0, `page ${page} is mapped: ${handle}`);
        const place = grantMapper.address(handle);
        const found = addressSpace.read(place, XEN_PAGE_SIZE);
        assert.ok(found.every((byte) => byte === 0xa0 + page));
        addressSpace.write(place + 7, Uint8Array.of(0x77));
        const [own] = granter.ports.memory.bytes(address + page * XEN_PAGE_SIZE + 7, 1);
        assert.equal(own, 0x77, 'it is the same page');
        assert.equal(granter.ports.grantTable.revoke((REF + page) as GrantRef, 1), 1, 'still in use');
        assert.equal(grantMapper.unmap(handle), 0);
        assert.throws(() => addressSpace.read(place, 1), PageFault);
      }
      assert.equal(granter.ports.grantTable.revoke(REF, 4), 0);
    });
  }

  test(`a ${mapperKind} domain cannot write to what a ${granterKind} guest granted for reading`, () => {
    const { granter, mapper, frame } = machine(granterKind, mapperKind);
    const { grantMapper, addressSpace } = mapper.ports;
    granter.ports.grantTable.grant(REF, 1, mapper.id, frame, true);
    assert.ok(grantMapper.map(granter.id, REF, false) < 0);
    const place = grantMapper.address(grantMapper.map(granter.id, REF, true));
    assert.equal(addressSpace.read(place, 1)[0], 0xa0);
    assert.throws(() => addressSpace.write(place, Uint8Array.of(1)), PageFault);
  });
}

test('a PV domain maps for an application, and names an entry of a page table only where it needs one', () => {
  const { granter, mapper, frame } = machine('pv', 'pv');
  granter.ports.grantTable.grant(REF, 1, mapper.id, frame, false);
  const map = (flags: number) => {
    const handle = mapper.xen.grants.map(mapper.record, GRANT_WINDOW, flags, REF, granter.id);
    if (handle < 0) return handle;
    const { busAddress } = mapper.xen.grants;
    const op = Object.assign(new Unmapping(), { handle, gfn: GRANT_WINDOW, busAddress });
    assert.equal(mapper.xen.grants.detach(op, mapper.record), 0);
    mapper.xen.grants.complete(op);
    return 0;
  };
  assert.equal(map(GNTMAP_HOST_MAP | GNTMAP_APPLICATION_MAP), 0);
  assert.equal(map(GNTMAP_DEVICE_MAP | GNTMAP_APPLICATION_MAP), 0);
  assert.equal(map(GNTMAP_DEVICE_MAP | GNTMAP_CONTAINS_PTE), 0);
  assert.equal(map(GNTMAP_HOST_MAP | GNTMAP_CONTAINS_PTE), GNTST_GENERAL_ERROR);
  assert.equal(granter.ports.grantTable.revoke(REF, 1), 0, 'nothing is pinned');
});

test('the entries of a PV guest hold machine frames, those of a translated one its own', () => {
  for (const kind of ['pv', 'pvh'] as const) {
    const { granter, mapper, frame } = machine(kind, 'pvh');
    granter.ports.grantTable.grant(REF, 1, mapper.id, frame, false);
    const expected = kind === 'pv' ? granter.record.ramFrame + frame : frame;
    assert.notEqual(granter.record.ramFrame, 0);
    assert.equal(sharedEntry(granter, REF).frame, expected);
  }
});

test('what a guest on Arm grants and maps stands at its own addresses, from 0x40000000 and from the window', () => {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2, { architecture: 'arm' });
  const mapper = addDomain(xen, 1, { architecture: 'arm' });
  const { memory } = granter.ports;
  assert.equal(memory.base, 0x4000_0000);
  const address = memory.allocatePages(2)! + XEN_PAGE_SIZE;
  assert.equal(address, 0x4000_1000);
  memory.bytes(address, 4).set([1, 2, 3, 4]);
  assert.deepEqual([...granter.ports.addressSpace.read(address, 4)], [1, 2, 3, 4]);
  assert.throws(() => granter.ports.addressSpace.read(0x1000, 1), PageFault);
  granter.ports.grantTable.grant(REF, 1, mapper.id, (address / XEN_PAGE_SIZE) as FrameNumber, false);
  assert.equal(sharedEntry(granter, REF).frame, 0x4_0001);
  const handle = mapper.ports.grantMapper.map(granter.id, REF, false);
  const place = mapper.ports.grantMapper.address(handle);
  assert.deepEqual([...mapper.ports.addressSpace.read(place, 4)], [1, 2, 3, 4]);
});
