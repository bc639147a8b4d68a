// GNTTABOP_copy: who may copy what from where, the order of the checks, and exactly the bytes that were asked for.
// What changes while a copy is under way is in copying-races.test.ts.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_COPY_ARG,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_PAGE,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
  GNTST_PERMISSION_DENIED,
} from '../../../abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../../abi/xen.ts';
import { TEST_PAGES } from '../domains.test.helper.ts';
import { CopyBench, type End, ownFrame, reference } from './copying.test.helper.ts';
import { entryV2, grantPart, passOn, statusOf } from './entries.test.helper.ts';
import { recount, sharedEntry } from './recount.test.helper.ts';

const GRANTED = 8;
const GRANTED_READONLY = 9;
const TO_OTHER = 10;
const OUTSIDE = 11;
const HELD_BY_OTHER = 12;
const FULL_OF_READERS = 13;
const NEVER = 14;
const PAGE = 3;
/** A page of the copier's own. */
const OWN = 20;

/** References of every kind that a copy can find, as far as version 1 has them. */
function bench(version: number): CopyBench {
  const made = new CopyBench(version);
  const { xen, copier, granter, third } = made;
  made.grant(GRANTED, PAGE);
  made.grant(GRANTED_READONLY, PAGE + 1, true);
  made.grant(TO_OTHER, PAGE + 2, false, granter, third);
  made.grant(OUTSIDE, TEST_PAGES + 20);
  made.grant(HELD_BY_OTHER, PAGE + 3, false, granter, third);
  made.grant(FULL_OF_READERS, PAGE + 4);
  const readonly = GNTMAP_HOST_MAP | GNTMAP_READONLY;
  assert.ok(xen.grants.map(third.record, third.record.window, readonly, HELD_BY_OTHER, 2) >= 0);
  // The granter gives the entry to the copier while the other one still holds it.
  if (version === 1) sharedEntry(granter, HELD_BY_OTHER).domid = copier.id;
  else entryV2(granter, HELD_BY_OTHER).full.domid = copier.id;
  for (let pin = 0; pin < 128; pin++)
    assert.ok(xen.grants.map(copier.record, copier.record.window + pin, readonly, FULL_OF_READERS, 2) >= 0);
  return made;
}

const okay = reference(2, GRANTED);
const own = ownFrame(OWN);
const refusals: readonly (readonly [
  what: string,
  status: number,
  source: End,
  dest: End,
  length?: number,
])[] = [
  ['a frame of another domain', GNTST_PERMISSION_DENIED, { ...ownFrame(PAGE), domain: 2 }, own],
  ['a frame to another domain', GNTST_PERMISSION_DENIED, own, { ...ownFrame(PAGE), domain: 2 }],
  ['its own frame by its own id', GNTST_PERMISSION_DENIED, { ...own, domain: 1 }, okay],
  ['a frame of a domain that is not there', GNTST_BAD_DOMAIN, { ...own, domain: 99 }, okay],
  [
    'a frame of another domain, but only when both domains are there',
    GNTST_BAD_DOMAIN,
    { ...own, domain: 2 },
    reference(99, 0),
  ],
  [
    'a frame to another domain, but only when the source is good',
    GNTST_BAD_GNTREF,
    reference(2, 512),
    { ...ownFrame(PAGE), domain: 2 },
  ],
  [
    'from a domain that is not there, before it looks at the destination',
    GNTST_BAD_DOMAIN,
    reference(99, 0),
    { ...own, domain: 2 },
  ],
  [
    'to a domain that is not there, before it looks at the source',
    GNTST_BAD_DOMAIN,
    reference(2, 5000),
    reference(99, 0),
  ],
  ['from a reserved id', GNTST_BAD_DOMAIN, reference(0x7ff1, GRANTED), own],
  ['H1: a reference past the table', GNTST_BAD_GNTREF, reference(2, 512), own],
  ['H1: to a reference past the table', GNTST_BAD_GNTREF, own, reference(2, 512)],
  ['H1: reference 2^32 - 1', GNTST_BAD_GNTREF, reference(2, 0xffff_ffff), own],
  ['H1: a reserved reference that grants nothing', GNTST_GENERAL_ERROR, reference(2, 0), own],
  ['a reference that grants nothing', GNTST_GENERAL_ERROR, reference(2, NEVER), own],
  ['H17: a reference granted to somebody else', GNTST_GENERAL_ERROR, reference(2, TO_OTHER), own],
  ['a reference that is pinned for somebody else', GNTST_GENERAL_ERROR, reference(2, HELD_BY_OTHER), own],
  ['H16: into a read-only reference', GNTST_GENERAL_ERROR, own, reference(2, GRANTED_READONLY)],
  ['a reference with 128 readers', GNTST_GENERAL_ERROR, reference(2, FULL_OF_READERS), own],
  ['a granted frame that the granter does not have', GNTST_BAD_PAGE, reference(2, OUTSIDE), own],
  ['from a frame that it does not have', GNTST_BAD_PAGE, ownFrame(TEST_PAGES), okay],
  ['to a frame that it does not have', GNTST_BAD_PAGE, okay, ownFrame(2 ** 40)],
  ['what another domain has mapped into its own window', GNTST_BAD_PAGE, ownFrame(0x10_0000), okay],
  ['H12: past the end of the source’s page', GNTST_BAD_COPY_ARG, { ...okay, offset: 4090 }, own, 7],
  ['H12: past the end of the destination’s page', GNTST_BAD_COPY_ARG, okay, { ...own, offset: 1 }, 4096],
  ['H12: more than a page', GNTST_BAD_COPY_ARG, okay, own, 4097],
  ['H12: 65535 bytes at offset 65535', GNTST_BAD_COPY_ARG, { ...okay, offset: 65535 }, own, 65535],
  [
    'H12: past the end of a page, which it sees after a bad page',
    GNTST_BAD_PAGE,
    okay,
    ownFrame(TEST_PAGES),
    5000,
  ],
];

for (const version of [1, 2])
  for (const [what, status, source, dest, length = 100] of refusals)
    test(`copy (version ${version}) refuses ${what} with ${status}, and nothing has changed`, () =>
      bench(version).refuses(status, source, dest, length));

test('H1: a version 2 table has half as many references', () => {
  const made = bench(2);
  for (const ref of [256, 511, 512]) made.refuses(GNTST_BAD_GNTREF, reference(2, ref), own, 1);
  made.refuses(GNTST_GENERAL_ERROR, reference(2, 255), own, 1);
});

test('a copy of no bytes is okay before anything else is looked at', () => {
  const made = bench(1);
  made.refuses(GNTST_OKAY, { ...ownFrame(2 ** 40), domain: 99 }, reference(99, 5000), 0);
});

for (const version of [1, 2]) {
  for (const [what, source, dest] of [
    ['from a reference to an own frame', okay, own],
    ['from a read-only reference', reference(2, GRANTED_READONLY), own],
    ['from an own frame to a reference', own, okay],
    ['between references', reference(2, GRANTED_READONLY), okay],
    ['between own frames', own, ownFrame(OWN + 1)],
    ['within one reference', { ...okay, offset: 10 }, okay],
    ['within one own frame', own, { ...own, offset: 50 }],
  ] as const) {
    test(`H12: a copy ${what} (version ${version}) moves its bytes and no others, up to the page’s end`, () => {
      const made = bench(version);
      const pageOf = ({ isReference, page }: End) =>
        isReference ? made.page(made.granter, page - GRANTED + PAGE) : made.page(made.copier, page);
      for (const length of [1, 100, XEN_PAGE_SIZE - Math.max(source.offset, dest.offset)]) {
        const expected = new Uint8Array(made.xen.state.memory).slice();
        const [from, to] = [pageOf(source).byteOffset, pageOf(dest).byteOffset];
        expected.copyWithin(to + dest.offset, from + source.offset, from + source.offset + length);
        assert.equal(made.copy(source, dest, length), GNTST_OKAY);
        assert.ok(Buffer.from(made.xen.state.memory).equals(expected));
        recount(made.all);
      }
    });
  }
}

test('a domain copies from its own reference, by its id and as DOMID_SELF', () => {
  const made = new CopyBench();
  made.grant(GRANTED, PAGE, false, made.copier, made.copier);
  for (const domain of [1, ownFrame(0).domain]) {
    made.page(made.copier, OWN).fill(0);
    assert.equal(made.copy(reference(domain, GRANTED), own, 100), GNTST_OKAY);
    assert.deepEqual(made.page(made.copier, OWN).slice(0, 100), made.page(made.copier, PAGE).slice(0, 100));
  }
});

test('H11: what is mapped is copied from the frame that it was mapped from', () => {
  const made = new CopyBench();
  const { xen, copier, granter } = made;
  made.grant(GRANTED, PAGE);
  assert.ok(
    xen.grants.map(copier.record, copier.record.window, GNTMAP_HOST_MAP | GNTMAP_READONLY, GRANTED, 2) >= 0,
  );
  sharedEntry(granter, GRANTED).frame = PAGE + 1;
  assert.equal(made.copy(okay, own, 4096), GNTST_OKAY);
  assert.deepEqual(made.page(copier, OWN).slice(), made.page(granter, PAGE).slice());
  // Writing needs the entry to permit it now, and to be what is pinned.
  made.refuses(GNTST_GENERAL_ERROR, own, okay, 4096);
  sharedEntry(granter, GRANTED).frame = PAGE;
  assert.equal(made.copy(own, okay, 4096), GNTST_OKAY);
});

test('H14: part of a page can be copied, not mapped', () => {
  const made = new CopyBench(2);
  const { xen, copier, granter } = made;
  grantPart(granter, GRANTED, copier.id, PAGE, [100, 50]);
  for (const flags of [GNTMAP_HOST_MAP, GNTMAP_HOST_MAP | GNTMAP_READONLY])
    assert.equal(xen.grants.map(copier.record, copier.record.window, flags, GRANTED, 2), GNTST_GENERAL_ERROR);
  assert.equal(made.copy({ ...okay, offset: 100 }, own, 50), GNTST_OKAY);
  // Not even where the part is the whole page.
  grantPart(granter, GRANTED, copier.id, PAGE, [0, 4096]);
  assert.equal(
    xen.grants.map(copier.record, copier.record.window, GNTMAP_HOST_MAP, GRANTED, 2),
    GNTST_GENERAL_ERROR,
  );
  recount(made.all);
});

test('H14: what was passed on can be copied, not mapped', () => {
  const made = new CopyBench(2);
  const { xen, copier, granter, third } = made;
  made.grant(GRANTED, PAGE, false, third, granter);
  passOn(granter, GRANTED, copier.id, third.id, GRANTED);
  assert.equal(
    xen.grants.map(copier.record, copier.record.window, GNTMAP_HOST_MAP, GRANTED, 2),
    GNTST_GENERAL_ERROR,
  );
  assert.equal(made.copy(okay, own, 4096), GNTST_OKAY);
  assert.deepEqual(made.page(copier, OWN).slice(), made.page(third, PAGE).slice());
  recount(made.all);
});

for (const [first, length] of [
  [0, 1],
  [0, 4096],
  [1, 4095],
  [4095, 1],
  [100, 50],
] as const) {
  test(`H15: of ${length} bytes granted from byte ${first}, exactly these can be read and written`, () => {
    const made = new CopyBench(2);
    grantPart(made.granter, GRANTED, made.copier.id, PAGE, [first, length]);
    const end = first + length;
    const [inside, outside] = [new Set<string>(), new Set<string>()];
    for (const offset of [0, first - 1, first, first + 1, end - 1, end])
      for (const stop of [first, first + 1, end - 1, end, end + 1, 4096])
        if (offset >= 0 && stop > offset && stop <= 4096)
          (offset >= first && stop <= end ? inside : outside).add(`${offset} ${stop - offset}`);
    assert.ok(inside.size > 0);
    for (const [places, status] of [
      [inside, GNTST_OKAY],
      [outside, GNTST_GENERAL_ERROR],
    ] as const) {
      for (const place of places) {
        const [offset, size] = place.split(' ').map(Number);
        assert.equal(made.copy({ ...okay, offset }, own, size), status, `read ${size} at ${offset}`);
        assert.equal(made.copy(own, { ...okay, offset }, size), status, `write ${size} at ${offset}`);
      }
    }
    recount(made.all);
  });
}

test('H15: whatever part is granted and whatever is asked for, no byte outside both moves', () => {
  const number = fc.integer({ min: 0, max: 4200 });
  fc.assert(
    fc.property(
      number,
      number,
      number,
      fc.integer({ min: 1, max: 4200 }),
      fc.boolean(),
      (first, length, offset, size, write) => {
        const made = new CopyBench(2);
        grantPart(made.granter, GRANTED, made.copier.id, PAGE, [first, length]);
        const [granted, mine] = [made.page(made.granter, PAGE), made.page(made.copier, OWN)];
        const isInside = offset >= first && offset + size <= Math.min(first + length, XEN_PAGE_SIZE);
        const expected = (write ? granted : mine).slice();
        if (isInside && write) expected.set(mine.subarray(0, size), offset);
        else if (isInside) expected.set(granted.subarray(offset, offset + size), 0);
        const there = { ...okay, offset };
        assert.equal(
          (write ? made.copy(own, there, size) : made.copy(there, own, size)) === GNTST_OKAY,
          isInside,
        );
        assert.deepEqual((write ? granted : mine).slice(), expected);
      },
    ),
    { seed: 15, numRuns: 60 },
  );
});

test('H15: an offset or a length past the page gives no byte past the page', () => {
  const made = new CopyBench(2);
  grantPart(made.granter, GRANTED, made.copier.id, PAGE, [0xffff, 0xffff]);
  made.refuses(GNTST_BAD_COPY_ARG, { ...okay, offset: 0xffff }, own, 1);
  grantPart(made.granter, GRANTED, made.copier.id, PAGE, [4000, 0xffff]);
  made.refuses(GNTST_BAD_COPY_ARG, { ...okay, offset: 4000 }, own, 97);
  assert.equal(made.copy({ ...okay, offset: 4000 }, own, 96), GNTST_OKAY);
  // Nothing at all.
  grantPart(made.granter, GRANTED, made.copier.id, PAGE, [4000, 0]);
  made.refuses(GNTST_GENERAL_ERROR, { ...okay, offset: 4000 }, own, 1);
});

test('H16: a read-only part, and what was passed on read-only at either end, cannot be written', () => {
  const made = new CopyBench(2);
  const { copier, granter, third } = made;
  grantPart(granter, GRANTED, copier.id, PAGE, [0, 4096], true);
  made.refuses(GNTST_GENERAL_ERROR, own, okay, 1);
  made.grant(GRANTED, PAGE, false, third, granter);
  passOn(granter, GRANTED, copier.id, third.id, GRANTED, true);
  made.refuses(GNTST_GENERAL_ERROR, own, okay, 1);
  made.grant(GRANTED, PAGE, true, third, granter);
  passOn(granter, GRANTED, copier.id, third.id, GRANTED);
  made.refuses(GNTST_GENERAL_ERROR, own, okay, 1);
  assert.equal(made.copy(okay, own, 1), GNTST_OKAY);
});

test('a frame number of 64 bits that no guest has is refused (version 2)', () => {
  const made = new CopyBench(2);
  made.grant(GRANTED, PAGE);
  entryV2(made.granter, GRANTED).full.frameHigh = 1;
  made.refuses(GNTST_BAD_PAGE, okay, own, 1);
});

test('what was passed on is bounded by what its source granted', () => {
  const made = new CopyBench(2);
  const { copier, granter, third } = made;
  grantPart(third, GRANTED, granter.id, PAGE, [10, 20]);
  passOn(granter, GRANTED, copier.id, third.id, GRANTED);
  for (const offset of [9, 11]) made.refuses(GNTST_GENERAL_ERROR, { ...okay, offset }, own, 20);
  assert.equal(made.copy({ ...okay, offset: 10 }, own, 20), GNTST_OKAY);
  assert.deepEqual(made.page(copier, OWN).slice(0, 20), made.page(third, PAGE).slice(10, 30));
  assert.equal(made.copy(own, { ...okay, offset: 10 }, 20), GNTST_OKAY);
});

const passedOn: readonly (readonly [what: string, status: number, arrange: (made: CopyBench) => void])[] = [
  ['to itself', GNTST_GENERAL_ERROR, ({ granter }) => passOn(granter, GRANTED, 1, 2, GRANTED + 1)],
  [
    'from a domain that is not there',
    GNTST_GENERAL_ERROR,
    ({ granter }) => passOn(granter, GRANTED, 1, 99, GRANTED),
  ],
  ['from a reserved id', GNTST_GENERAL_ERROR, ({ granter }) => passOn(granter, GRANTED, 1, 0x7ff0, GRANTED)],
  ['that its source does not have', GNTST_BAD_GNTREF, ({ granter }) => passOn(granter, GRANTED, 1, 3, 256)],
  [
    'that its source does not grant',
    GNTST_GENERAL_ERROR,
    ({ granter }) => passOn(granter, GRANTED, 1, 3, NEVER),
  ],
  [
    'that its source grants to the copier and not to whom passes it on',
    GNTST_GENERAL_ERROR,
    (made) => {
      made.grant(GRANTED, PAGE, false, made.third, made.copier);
      passOn(made.granter, GRANTED, 1, 3, GRANTED);
    },
  ],
  [
    'twice',
    GNTST_GENERAL_ERROR,
    (made) => {
      made.grant(GRANTED, PAGE, false, made.copier, made.third);
      passOn(made.third, GRANTED, 2, 1, GRANTED);
      passOn(made.granter, GRANTED, 1, 3, GRANTED);
    },
  ],
  [
    'to somebody else',
    GNTST_GENERAL_ERROR,
    (made) => {
      made.grant(GRANTED, PAGE, false, made.third, made.granter);
      passOn(made.granter, GRANTED, 3, 3, GRANTED);
    },
  ],
];

for (const [what, status, arrange] of passedOn) {
  test(`H11: a reference passed on ${what} is refused with ${status}, and nothing stays pinned at either end`, () => {
    const made = new CopyBench(2);
    arrange(made);
    made.refuses(status, okay, own, 10);
    made.refuses(status, own, okay, 10);
    assert.deepEqual([statusOf(made.granter, GRANTED), statusOf(made.third, GRANTED)], [0, 0]);
  });
}

test('a grant may be passed on to the domain that it came from, and from a table of version 1', () => {
  const made = new CopyBench(2);
  const { copier, granter, third } = made;
  made.grant(GRANTED, PAGE, false, copier, granter);
  passOn(granter, GRANTED, copier.id, copier.id, GRANTED);
  assert.equal(made.copy(okay, own, 4096), GNTST_OKAY);
  assert.deepEqual(made.page(copier, OWN).slice(), made.page(copier, PAGE).slice());
  assert.equal(third.ports.grantTable.setVersion(1), 0);
  made.grant(GRANTED, PAGE, false, third, granter);
  passOn(granter, GRANTED, copier.id, third.id, GRANTED);
  assert.equal(made.copy(okay, own, 4096), GNTST_OKAY);
  assert.deepEqual(made.page(copier, OWN).slice(), made.page(third, PAGE).slice());
  recount(made.all);
});

test('version 1 has no parts of pages: the flag means nothing to a copy, and forbids to map', () => {
  const made = new CopyBench();
  made.grant(GRANTED, PAGE);
  sharedEntry(made.granter, GRANTED).flags |= 0x100;
  assert.equal(made.copy(okay, own, 4096), GNTST_OKAY);
  const { xen, copier } = made;
  assert.equal(
    xen.grants.map(copier.record, copier.record.window, GNTMAP_HOST_MAP, GRANTED, 2),
    GNTST_GENERAL_ERROR,
  );
});
