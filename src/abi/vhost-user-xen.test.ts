// The region against the table of docs/interop/vhost-user.rst, and all flags against the rule in words.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { VHOST_USER_PROTOCOL_F_XEN_MMAP, vhostUserXenRegion, xenMapping } from './vhost-user-xen.ts';

test('a region is four u64 and two u32, in the order of the table; the protocol feature is bit 17', () => {
  assert.deepEqual(
    vhostUserXenRegion.fields.map(({ name, offset, size }) => [name, offset, size]),
    [
      ['guest_address', 0, 8],
      ['size', 8, 8],
      ['user_address', 16, 8],
      ['mmap_offset', 24, 8],
      ['xen_mmap_flags', 32, 4],
      ['domid', 36, 4],
    ],
  );
  assert.equal(vhostUserXenRegion.size, 40);
  assert.equal(2 ** VHOST_USER_PROTOCOL_F_XEN_MMAP, 0x20000);
});

test('of all flags below 0x10, four combinations mean something', () => {
  const meant = Array.from({ length: 16 }, (_, flags) => [flags, xenMapping(flags)] as const).filter(
    ([, mapping]) => 'kind' in mapping,
  );
  assert.deepEqual(meant, [
    [0x0, { kind: 'file', inAdvance: true }],
    [0x1, { kind: 'foreign', inAdvance: true }],
    [0x2, { kind: 'grant', inAdvance: true }],
    [0xa, { kind: 'grant', inAdvance: false }],
  ]);
});

test('each refusal says what is wrong; 0x100 is told apart from flags without a meaning', () => {
  const refusals: [flags: number, fault: string, reason: RegExp][] = [
    [0x3, 'foreign-and-grant', /not both/],
    [0xb, 'foreign-and-grant', /not both/],
    [0x9, 'no-advance-without-grant', /only granted memory/],
    [0x8, 'no-advance-without-grant', /only granted memory/],
    [0x102, 'bit-8', /"Bit 8" of the text; implementations use the value 0x8/],
    [0x10a, 'bit-8', /0x8/],
    [0x6, 'unknown-bits', /flags 0x4 have no meaning/],
    [0x80000002, 'unknown-bits', /flags 0x80000000 have/],
  ];
  for (const [flags, fault, reason] of refusals) {
    const answer = xenMapping(flags);
    assert.ok('fault' in answer, `0x${flags.toString(16)}`);
    assert.equal(answer.fault, fault);
    assert.match(answer.reason, reason);
  }
});
