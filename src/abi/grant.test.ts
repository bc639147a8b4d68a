// Layouts and numbers of Xen's public headers, listed again in the headers' own terms.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  EVTCHN_2L_PORTS,
  EVTCHNSTAT_CLOSED,
  EVTCHNSTAT_INTERDOMAIN,
  EVTCHNSTAT_UNBOUND,
  SHARED_INFO_EVTCHN_MASK,
  SHARED_INFO_EVTCHN_PENDING,
  VCPU_INFO_PENDING_SEL,
  VCPU_INFO_UPCALL_PENDING,
} from './event-channel.ts';
import {
  GNTMAP_DEVICE_MAP,
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GRANT_DEFAULT_MAX_FRAMES,
  GRANT_ENTRIES_PER_FRAME_V1,
  GRANT_RESERVED_ENTRIES,
  GTF_PERMIT_ACCESS,
  GTF_READING,
  GTF_READONLY,
  GTF_TYPE_MASK,
  GTF_WRITING,
  grantEntryV1,
  grantStatusName,
  MAPTRACK_DEFAULT_FRAMES,
  MAPTRACK_HANDLES_PER_FRAME,
} from './grant.ts';

test('a version 1 entry is flags at 0, domid at 2, frame at 4, little endian, 8 bytes in all', () => {
  const { bytes } = grantEntryV1.make({ flags: 0x1234, domid: 0x5678, frame: 0x9abcdef0 });
  assert.deepEqual([...bytes], [0x34, 0x12, 0x78, 0x56, 0xf0, 0xde, 0xbc, 0x9a]);
  assert.equal(GRANT_ENTRIES_PER_FRAME_V1, 512);
});

test('flags have the bits of grant_table.h', () => {
  assert.deepEqual(
    [GTF_TYPE_MASK, GTF_PERMIT_ACCESS, GTF_READONLY, GTF_READING, GTF_WRITING],
    [3, 1, 1 << 2, 1 << 3, 1 << 4],
  );
  assert.deepEqual([GNTMAP_DEVICE_MAP, GNTMAP_HOST_MAP, GNTMAP_READONLY], [1, 2, 4]);
});

test('limits are those of a Xen without options: 32768 references, 8 of them reserved, 262144 handles', () => {
  assert.equal(GRANT_DEFAULT_MAX_FRAMES * GRANT_ENTRIES_PER_FRAME_V1, 32768);
  assert.equal(GRANT_RESERVED_ENTRIES, 8);
  assert.equal(MAPTRACK_DEFAULT_FRAMES * MAPTRACK_HANDLES_PER_FRAME, 1024 * 256);
});

test('every status from 0 to -13 has its name of the header, others their number', () => {
  const names = Array.from({ length: 14 }, (_, i) => grantStatusName(-i));
  assert.deepEqual(names, [
    'GNTST_okay',
    'GNTST_general_error',
    'GNTST_bad_domain',
    'GNTST_bad_gntref',
    'GNTST_bad_handle',
    'GNTST_bad_virt_addr',
    'GNTST_bad_dev_addr',
    'GNTST_no_device_space',
    'GNTST_permission_denied',
    'GNTST_bad_page',
    'GNTST_bad_copy_arg',
    'GNTST_address_too_big',
    'GNTST_eagain',
    'GNTST_no_space',
  ]);
  assert.equal(grantStatusName(-14), 'GNTST -14');
});

test('shared_info of a 64-bit guest: 32 vcpu_info of 64 bytes, then 4096 pending bits, then 4096 masks', () => {
  assert.equal(EVTCHN_2L_PORTS, 64 * 64);
  assert.deepEqual([VCPU_INFO_UPCALL_PENDING, VCPU_INFO_PENDING_SEL], [0, 8]);
  assert.equal(SHARED_INFO_EVTCHN_PENDING, 32 * 64);
  assert.equal(SHARED_INFO_EVTCHN_MASK, SHARED_INFO_EVTCHN_PENDING + EVTCHN_2L_PORTS / 8);
  assert.deepEqual([EVTCHNSTAT_CLOSED, EVTCHNSTAT_UNBOUND, EVTCHNSTAT_INTERDOMAIN], [0, 1, 2]);
});
