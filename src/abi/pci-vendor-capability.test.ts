// The layout against struct virtio_pci_vndr_data, whose end is the vendor's.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GRANT_CAPABILITY_MAGIC, grantCapability } from './pci-vendor-capability.ts';

test('four bytes as every capability of virtio has them, the vendor, and behind it the backend', () => {
  assert.deepEqual(
    grantCapability.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['cap_vndr', 0, 1],
      ['cap_next', 1, 1],
      ['cap_len', 2, 1],
      ['cfg_type', 3, 1],
      ['vendor_id', 4, 2],
      ['domid', 6, 2],
      ['magic', 8, 4],
    ],
  );
  assert.equal(grantCapability.size % 4, 0);
  const { bytes } = grantCapability.make({ magic: GRANT_CAPABILITY_MAGIC });
  assert.equal(String.fromCharCode(...bytes.subarray(8)), 'GDMA');
});
