// A device's own word, in a configuration space that may hold anything.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { GRANT_CAPABILITY_MAGIC, grantCapability } from '../abi/pci-vendor-capability.ts';
import { pciCapabilityFinding } from './pci-finding.ts';

/** A configuration space with these bytes at these offsets; the list begins at 0x40. */
function config(...pieces: readonly [offset: number, bytes: Iterable<number>][]): Uint8Array {
  const bytes = new Uint8Array(256);
  bytes[0x06] = 0x10;
  bytes[0x34] = 0x40;
  for (const [offset, piece] of pieces) bytes.set([...piece], offset);
  return bytes;
}

const ours = (
  domid: number,
  values: Partial<Record<'cap_next' | 'cap_len' | 'vendor_id' | 'magic', number>> = {},
) =>
  grantCapability.make({
    cap_vndr: 0x09,
    cap_len: 12,
    cfg_type: 9,
    vendor_id: 0x5853,
    domid,
    magic: GRANT_CAPABILITY_MAGIC,
    ...values,
  }).bytes;

test('the capability is found behind others, and names the domain', () => {
  const others: [number, number[]][] = [
    [0x40, [0x11, 0x50, 0, 0]],
    [0x50, [0x09, 0xf4, 16, 1]],
  ];
  assert.deepEqual(pciCapabilityFinding(config(...others, [0xf4, ours(5)])), {
    kind: 'backend',
    domain: 5,
    says: 'names domain 5',
  });
});

test('a device without it says nothing: no list, an empty one, or capabilities of others', () => {
  const without = [
    config([0x06, [0]], [0x40, ours(5)]),
    config([0x34, [0]]),
    config([0x40, ours(5, { vendor_id: 0x1af4 })]),
    config([0x40, ours(5, { magic: 1 })]),
    config([0x34, [0xf8]], [0xf8, ours(5).subarray(0, 8)]),
  ];
  for (const bytes of without) assert.equal(pciCapabilityFinding(bytes).kind, 'nothing');
});

for (const [title, bytes, says] of [
  ['runs in a circle', config([0x40, [0x09, 0x44, 4, 1]], [0x44, [0x09, 0x40, 4, 1]]), /circle/],
  ['leads to itself', config([0x40, ours(5, { cap_next: 0x40 })]), /circle/],
  ['leads into the header', config([0x40, ours(5, { cap_next: 0x04 })]), /leads to 0x4, inside the header/],
  ['leads to an odd place', config([0x40, ours(5, { cap_next: 0x51 })]), /0x51, which is no multiple of 4/],
  ['has it twice', config([0x40, ours(5, { cap_next: 0x50 })], [0x50, ours(5)]), /there 2 times/],
  ['has it too short', config([0x40, ours(5, { cap_len: 8 })]), /it has 8 bytes at 0x40; expected 12/],
  ['is cut short', config().subarray(0, 64), /has 64 bytes; expected 256/],
] as const)
  test(`L3: a list that ${title} is a fault`, () => {
    const found = pciCapabilityFinding(bytes);
    assert.equal(found.kind, 'fault');
    assert.match(found.says, says);
  });

test('whatever the bytes are, the walk ends with an answer', () => {
  const anyList = fc.uint8Array({ minLength: 256, maxLength: 256 }).map((bytes) => {
    // Most pointers lead somewhere, so that walks are long.
    for (let offset = 0x40; offset < 256; offset += 4) bytes[offset + 1]! &= 0xfc;
    bytes[0x06]! |= 0x10;
    bytes[0x34]! &= 0xfc;
    return bytes;
  });
  fc.assert(
    fc.property(anyList, (bytes) => {
      const before = bytes.slice();
      assert.ok(['backend', 'nothing', 'fault'].includes(pciCapabilityFinding(bytes).kind));
      assert.deepEqual(bytes, before);
    }),
    { seed: 5, numRuns: 5000 },
  );
});
