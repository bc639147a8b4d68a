// Xen's layouts and numbers against its public headers: ioreq.h, grant_table.h, event_channel.h, xen.h.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import * as event from './event-channel.ts';
import * as grant from './grant.ts';
import * as ioreq from './ioreq.ts';
import * as xen from './xen.ts';

test('struct ioreq: addr 0, data 8, count 16, size 20, vp_eport 24, state and flags 30, type 31', () => {
  assert.deepEqual(
    ioreq.ioreq.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['addr', 0, 8],
      ['data', 8, 8],
      ['count', 16, 4],
      ['size', 20, 4],
      ['vp_eport', 24, 4],
      ['_pad0', 28, 2],
      ['state_dir', 30, 1],
      ['type', 31, 1],
    ],
  );
  assert.equal(ioreq.ioreq.size, 32);
});

test('ioreq states count from NONE 0 to RESP_READY 3 in four bits; direction is bit 5; COPY is 1', () => {
  assert.deepEqual(
    [ioreq.STATE_IOREQ_NONE, ioreq.STATE_IOREQ_READY, ioreq.STATE_IOREQ_INPROCESS, ioreq.STATE_IORESP_READY],
    [0, 1, 2, 3],
  );
  assert.deepEqual([ioreq.IOREQ_STATE_MASK, ioreq.IOREQ_READ, ioreq.IOREQ_TYPE_COPY], [0x0f, 0x20, 1]);
});

test('struct grant_entry_v1: u16 flags 0, u16 domid 2, u32 frame 4; 512 in a frame', () => {
  assert.deepEqual(
    grant.grantEntryV1.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['flags', 0, 2],
      ['domid', 2, 2],
      ['frame', 4, 4],
    ],
  );
  assert.equal(grant.grantEntryV1.size, 8);
  assert.equal(grant.GRANT_ENTRIES_PER_FRAME_V1, 512);
});

test('grant table numbers: reserved entries, limits, flags and statuses', () => {
  assert.deepEqual([grant.GRANT_RESERVED_ENTRIES, grant.GRANT_DEFAULT_MAX_FRAMES], [8, 64]);
  assert.equal(grant.MAPTRACK_DEFAULT_FRAMES * grant.MAPTRACK_HANDLES_PER_FRAME, 1024 * 256);
  assert.deepEqual([grant.GTF_TYPE_MASK, grant.GTF_INVALID, grant.GTF_PERMIT_ACCESS], [3, 0, 1]);
  assert.deepEqual([grant.GTF_READONLY, grant.GTF_READING, grant.GTF_WRITING], [4, 8, 16]);
  assert.deepEqual([grant.GNTMAP_DEVICE_MAP, grant.GNTMAP_HOST_MAP, grant.GNTMAP_READONLY], [1, 2, 4]);
  const statuses = {
    okay: 0,
    general_error: -1,
    bad_domain: -2,
    bad_gntref: -3,
    bad_handle: -4,
    bad_virt_addr: -5,
    bad_dev_addr: -6,
    no_device_space: -7,
    permission_denied: -8,
    bad_page: -9,
    bad_copy_arg: -10,
    address_too_big: -11,
    eagain: -12,
    no_space: -13,
  };
  for (const [name, status] of Object.entries(statuses))
    assert.equal(grant.grantStatusName(status), `GNTST_${name}`);
  assert.equal(grant.grantStatusName(-14), 'GNTST -14');
  assert.deepEqual([grant.GNTST_BAD_GNTREF, grant.GNTST_BAD_PAGE, grant.GNTST_NO_SPACE], [-3, -9, -13]);
});

test('shared_info of a 64-bit guest: upcall byte 0, selector 8, 4096 pending bits at 2048, masks at 2560', () => {
  assert.deepEqual([event.VCPU_INFO_UPCALL_PENDING, event.VCPU_INFO_PENDING_SEL], [0, 8]);
  assert.deepEqual(
    [event.SHARED_INFO_EVTCHN_PENDING, event.SHARED_INFO_EVTCHN_MASK],
    [2048, 2048 + 4096 / 8],
  );
  assert.equal(event.EVTCHN_2L_PORTS, 4096);
  assert.deepEqual(
    [event.EVTCHNSTAT_CLOSED, event.EVTCHNSTAT_UNBOUND, event.EVTCHNSTAT_INTERDOMAIN],
    [0, 1, 2],
  );
});

test('pages and reserved domain ids', () => {
  assert.deepEqual([xen.XEN_PAGE_SIZE, 1 << xen.XEN_PAGE_SHIFT], [4096, 4096]);
  assert.deepEqual([xen.DOMID_FIRST_RESERVED, xen.DOMID_SELF, xen.DOMID_INVALID], [0x7ff0, 0x7ff0, 0x7ff4]);
});
