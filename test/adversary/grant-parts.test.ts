// A backend that is a PV guest maps for its processor and for its devices, and unmaps the two parts in any order,
// twice, or with addresses that are not theirs (XSA-224, XSA-394).

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  GNTTABOP_MAP_GRANT_REF,
  GNTTABOP_UNMAP_GRANT_REF,
  gnttabMapGrantRef,
  gnttabUnmapGrantRef,
} from '../../src/abi/grant-table-op.ts';
import {
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_DEV_ADDR,
  GNTST_BAD_HANDLE,
  GNTST_OKAY,
  GTF_READING,
  GTF_WRITING,
} from '../../src/abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { addDomain, bootTestMachine } from '../../src/hosts/model/domains.test.helper.ts';
import { sharedEntry } from '../../src/hosts/model/grants/recount.test.helper.ts';
import type { FrameNumber, GrantRef } from '../../src/xen/ids.ts';
import { hypercall } from '../support/grant-hypercalls.test.helper.ts';

const REF = 8 as GrantRef;
const BOTH = GNTMAP_HOST_MAP | GNTMAP_DEVICE_MAP;

function machine(readonly: boolean) {
  const xen = bootTestMachine();
  const granter = addDomain(xen, 2);
  const mapper = addDomain(xen, 1, { kind: 'pv' });
  granter.ports.grantTable.grant(REF, 1, mapper.id, 3 as FrameNumber, false);
  const host_addr = mapper.record.window * XEN_PAGE_SIZE;
  const map = (flags: number, place = 0) =>
    hypercall(mapper, GNTTABOP_MAP_GRANT_REF, gnttabMapGrantRef, {
      host_addr: host_addr + place * XEN_PAGE_SIZE,
      flags: flags | (readonly ? GNTMAP_READONLY : 0),
      ref: REF,
      dom: granter.id,
    }).done[0];
  const unmap = (handle: number, host: boolean, dev_bus_addr: number) =>
    hypercall(mapper, GNTTABOP_UNMAP_GRANT_REF, gnttabUnmapGrantRef, {
      host_addr: host ? host_addr : 0,
      dev_bus_addr,
      handle,
    }).done[0].status;
  const pins = () => xen.grants.pins(granter.record, REF) >>> 0;
  const bits = () => sharedEntry(granter, REF).flags & (GTF_READING | GTF_WRITING);
  return { map, unmap, pins, bits };
}

for (const readonly of [false, true]) {
  const [host, device] = readonly ? [0x100, 0x1000000] : [1, 0x10000];
  for (const hostFirst of [true, false]) {
    const title = `${readonly ? 'read-only' : 'writable'}, ${hostFirst ? 'host' : 'device'} first`;
    test(`H3 H4: each part of a mapping is unmapped once, and the handle is free after both: ${title}`, () => {
      const { map, unmap, pins, bits } = machine(readonly);
      const { handle, dev_bus_addr: bus, status } = map(BOTH);
      assert.equal(status, GNTST_OKAY);
      assert.equal(pins(), host + device);
      const marked = bits();
      const part = (isHost: boolean) => unmap(handle, isHost, isHost ? 0 : bus);
      for (let tries = 0; tries < 3; tries++) {
        assert.equal(
          part(hostFirst),
          GNTST_OKAY,
          'what is not mapped any more is no error, and changes nothing',
        );
        assert.equal(pins(), hostFirst ? device : host);
        assert.equal(bits(), marked);
      }
      assert.notEqual(map(GNTMAP_HOST_MAP, 1).handle, handle, 'the handle is in use');
      assert.equal(pins(), hostFirst ? device + host : 2 * host);
      assert.equal(part(!hostFirst), GNTST_OKAY);
      assert.equal(pins(), host);
      for (const isHost of [true, false]) assert.equal(part(isHost), GNTST_BAD_HANDLE);
      assert.equal(pins(), host);
    });
  }
}

test('H4: an unmap of no part, or by a wrong bus address, changes nothing', () => {
  const { map, unmap, pins } = machine(false);
  const { handle, dev_bus_addr: bus } = map(BOTH);
  assert.equal(unmap(handle, false, 0), GNTST_OKAY);
  assert.equal(unmap(handle, true, bus + XEN_PAGE_SIZE), GNTST_BAD_DEV_ADDR);
  assert.equal(pins(), 0x10001);
  assert.equal(unmap(handle, true, bus), GNTST_OKAY);
  assert.equal(pins(), 0);
});
