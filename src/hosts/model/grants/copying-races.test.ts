// H11: entries that change while they are pinned by a copy. What is pinned keeps its frame and its bytes; who comes
// meanwhile gets exactly these or is refused, and afterwards nothing stays pinned at any end.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { GNTCOPY_SOURCE_GREF, GNTTABOP_COPY, gnttabCopy } from '../../../abi/grant-table-op.ts';
import { GNTST_BAD_DOMAIN, GNTST_EAGAIN, GNTST_GENERAL_ERROR, GNTST_OKAY } from '../../../abi/grant.ts';
import { DOMID_SELF } from '../../../abi/xen.ts';
import { EAGAIN, EBUSY } from '../errno.ts';
import type { Xen } from '../xen.ts';
import { CopyBench, ownFrame, reference } from './copying.test.helper.ts';
import { entryV2, grantPart, passOn, statusOf } from './entries.test.helper.ts';
import { callWith, getArguments, putArguments, UNSET } from './hypercall.test.helper.ts';
import { recount, sharedEntry } from './recount.test.helper.ts';

const REF = 8;
/** The reference of domain 3 to which the copies go, and the one that is passed on. */
const DEST = 9;
const PAGE = 3;
const OTHER_PAGE = 4;
const DEST_PAGE = 5;
const OWN = 20;

/** Begun anew: not a status. */
const RESTART = 1;

const source = reference(2, REF);
const dest = reference(3, DEST);
const [read, written] = [ownFrame(OWN), ownFrame(OWN + 1)];

type Change = (made: CopyBench) => void;

const full: Change = (made) => made.grant(REF, PAGE);
const otherFrame: Change = (made) => made.grant(REF, OTHER_PAGE);
const part =
  (first: number, length: number, frame = PAGE): Change =>
  ({ granter }) =>
    grantPart(granter, REF, 1, frame, [first, length]);
const passed =
  (ref: number): Change =>
  ({ granter }) =>
    passOn(granter, REF, 1, 3, ref);
const gone: Change = ({ granter }) => {
  entryV2(granter, REF).full.flags = 0;
};

/** Domain 3 grants where copies go to, and two pages to domain 2 that can be passed on. */
function bench(before: Change): CopyBench {
  const made = new CopyBench(2);
  made.grant(DEST, DEST_PAGE, false, made.third, made.copier);
  made.grant(REF, PAGE, false, made.third, made.granter);
  made.grant(REF + 2, OTHER_PAGE, false, made.third, made.granter);
  before(made);
  return made;
}

// The entry as it is pinned for reading and as it becomes; what another reader and a writer get then: a status, and
// whether the bytes are those of the entry as it was pinned.
const changes: readonly (readonly [
  what: string,
  before: Change,
  after: Change,
  reading: number,
  writing: number,
])[] = [
  ['nothing', full, full, GNTST_OKAY, GNTST_OKAY],
  ['the frame', full, otherFrame, GNTST_OKAY, GNTST_GENERAL_ERROR],
  ['the frame of a part', part(0, 100), part(0, 100, OTHER_PAGE), GNTST_OKAY, GNTST_GENERAL_ERROR],
  ['the first byte of a part', part(0, 100), part(1, 100), GNTST_OKAY, GNTST_GENERAL_ERROR],
  ['the length of a part', part(0, 100), part(0, 101), GNTST_OKAY, GNTST_GENERAL_ERROR],
  ['a part into the whole page', part(0, 100), full, GNTST_OKAY, GNTST_GENERAL_ERROR],
  ['the whole page into a part of another', full, part(0, 100, OTHER_PAGE), GNTST_OKAY, GNTST_GENERAL_ERROR],
  ['a grant into one passed on', full, passed(REF), RESTART, RESTART],
  ['a part into what is passed on', part(0, 100), passed(REF), RESTART, RESTART],
  ['the reference that is passed on', passed(REF), passed(REF + 2), RESTART, RESTART],
  ['what is passed on into a grant', passed(REF), full, GNTST_BAD_DOMAIN, GNTST_GENERAL_ERROR],
  ['what is passed on into a part', passed(REF), part(0, 100), GNTST_BAD_DOMAIN, GNTST_GENERAL_ERROR],
  ['a grant into nothing', full, gone, GNTST_OKAY, GNTST_OKAY],
  ['what is passed on into nothing', passed(REF), gone, GNTST_BAD_DOMAIN, GNTST_GENERAL_ERROR],
];

for (const [what, before, after, reading, writing] of changes) {
  test(`H11: a copy is under way and its granter changes ${what}: old bytes or a refusal, nothing between`, () => {
    const made = bench(before);
    const { copier, granter, third } = made;
    const isPassed = before(made) === undefined && entryV2(granter, REF).full.flags % 4 === 3;
    const old = made.page(isPassed ? third : granter, PAGE).slice();
    const other = [granter, third].map((domain) => made.page(domain, OTHER_PAGE).slice());
    const mine = made.page(copier, OWN + 1).slice();
    let outcomes: number[] = [];
    const status = made.copyWhile(source, dest, 100, (xen) => {
      after(made);
      outcomes = [made.copy(source, read, 100, xen), made.copy(written, source, 100, xen)];
    });
    assert.equal(status, GNTST_OKAY, 'the copy that was under way');
    assert.deepEqual(outcomes, [reading, writing]);
    if (reading === GNTST_OKAY) assert.deepEqual(made.page(copier, OWN).slice(0, 100), old.slice(0, 100));
    const begin = writing === GNTST_OKAY ? mine : old;
    assert.deepEqual(made.page(third, DEST_PAGE).slice(0, 100), begin.slice(0, 100));
    const now = made.page(isPassed ? third : granter, PAGE).slice();
    assert.deepEqual(now, Uint8Array.of(...begin.slice(0, 100), ...old.slice(100)));
    assert.deepEqual(
      [granter, third].map((domain) => made.page(domain, OTHER_PAGE).slice()),
      other,
    );
    recount(made.all);
  });
}

test('H11: a version 1 entry that is given another frame while it is pinned keeps the old one until the end', () => {
  const made = new CopyBench();
  made.grant(DEST, DEST_PAGE, false, made.third, made.copier);
  full(made);
  const status = made.copyWhile(source, dest, 4096, (xen) => {
    sharedEntry(made.granter, REF).frame = OTHER_PAGE;
    assert.equal(made.copy(source, read, 4096, xen), GNTST_OKAY);
    assert.equal(made.copy(written, source, 4096, xen), GNTST_GENERAL_ERROR);
  });
  assert.equal(status, GNTST_OKAY);
  for (const [domain, frame] of [
    [made.copier, OWN],
    [made.third, DEST_PAGE],
  ] as const)
    assert.deepEqual(made.page(domain, frame).slice(), made.page(made.granter, PAGE).slice());
  assert.equal(made.copy(source, read, 4096), GNTST_OKAY);
  assert.deepEqual(made.page(made.copier, OWN).slice(), made.page(made.granter, OTHER_PAGE).slice());
  recount(made.all);
});

test('an entry that a copy has pinned for one domain is refused to another, and shows its status bits', () => {
  const made = bench(full);
  const status = made.copyWhile(source, dest, 10, (xen) => {
    assert.equal(statusOf(made.granter, REF), 8);
    entryV2(made.granter, REF).full.domid = 3;
    const flags = GNTCOPY_SOURCE_GREF;
    assert.equal(xen.copies.copy(xen.domain(3), source, read, 10, flags), GNTST_GENERAL_ERROR);
    assert.equal(made.granter.ports.grantTable.revoke(REF as never, 1), 1);
  });
  assert.equal(status, GNTST_OKAY);
  assert.equal(statusOf(made.granter, REF), 0);
});

test('H8 H9: no change of version while a copy is under way: -EBUSY, and -EAGAIN for what only version 2 has', () => {
  const made = bench(full);
  const reserved = reference(2, 0);
  const toVersion1 = () => made.granter.ports.grantTable.setVersion(1);
  assert.equal(
    made.copyWhile(source, dest, 10, () => assert.equal(toVersion1(), EBUSY)),
    GNTST_OKAY,
  );
  grantPart(made.granter, 0, 1, PAGE, [0, 100]);
  assert.equal(
    made.copyWhile(reserved, dest, 10, () => assert.equal(toVersion1(), EAGAIN)),
    GNTST_OKAY,
  );
  passOn(made.granter, 0, 1, 3, REF);
  assert.equal(
    made.copyWhile(reserved, dest, 10, () => assert.equal(toVersion1(), EAGAIN)),
    GNTST_OKAY,
  );
  recount(made.all);
  made.grant(0, PAGE);
  // A whole page of a reserved entry may stay in use: its bits go along.
  assert.equal(
    made.copyWhile(reserved, dest, 10, () => assert.equal(toVersion1(), 0)),
    GNTST_OKAY,
  );
  recount(made.all);
  assert.equal(sharedEntry(made.granter, 0).flags, 1);
});

/** GNTTABOP_copy from reference 8 of domain 2 to the copier's own page, on another processor. Returns the status. */
function hypercall({ copier }: CopyBench, xen: Xen, pause: () => void): number {
  const element = {
    source_u: REF,
    source_domid: 2,
    dest_u: OWN,
    dest_domid: DOMID_SELF,
    len: 100,
    flags: GNTCOPY_SOURCE_GREF,
    status: UNSET,
  };
  putArguments(copier, gnttabCopy, [element]);
  assert.equal(callWith({ ...copier, xen }, { pause }, GNTTABOP_COPY, 1), 0);
  return getArguments(copier, gnttabCopy, 1)[0].status;
}

test('H11: a copy that finds the entry changed is begun again, and succeeds once it is as it was', () => {
  const made = bench(passed(REF));
  let pauses = 0;
  const status = made.copyWhile(source, dest, 100, (xen) => {
    passed(REF + 2)(made);
    const restore = () => {
      if (++pauses === 3) passed(REF)(made);
    };
    assert.equal(hypercall(made, xen, restore), GNTST_OKAY);
  });
  assert.deepEqual([status, pauses], [GNTST_OKAY, 3]);
  assert.deepEqual(made.page(made.copier, OWN).slice(0, 100), made.page(made.third, PAGE).slice(0, 100));
  recount(made.all);
});

test('H11 XSA-318: a copy whose entry never becomes what it was gives up with eagain, never a positive status', () => {
  const made = bench(passed(REF));
  let pauses = 0;
  const status = made.copyWhile(source, dest, 100, (xen) => {
    passed(REF + 2)(made);
    assert.equal(
      hypercall(made, xen, () => void pauses++),
      GNTST_EAGAIN,
    );
  });
  assert.equal(status, GNTST_OKAY);
  assert.ok(pauses > 0 && pauses <= 1000, `${pauses} tries`);
  recount(made.all);
});
