// Invariants 3, 4 and 6: after any grants, maps, unmaps and revokes of several domains, valid or not, every
// status is the one that the rules give, a refused operation has changed nothing, and a recount from
// scratch finds what Xen has counted.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import {
  GNTMAP_HOST_MAP,
  GNTMAP_READONLY,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_HANDLE,
  GNTST_BAD_PAGE,
  GNTST_GENERAL_ERROR,
  GNTST_NO_SPACE,
  GNTST_OKAY,
  GTF_READONLY,
} from '../../../abi/grant.ts';
import type { DomainId, FrameNumber, GrantRef } from '../../../xen/ids.ts';
import { addressMap } from '../address-map.ts';
import { P2M_GRANT_READONLY, P2M_GRANT_WRITABLE, P2M_NONE, p2mEntry, PHYSMAP_FRAMES } from '../physmap.ts';
import {
  addDomain,
  bootTestMachine,
  type TestDomain,
  TEST_HANDLES,
  TEST_PAGES,
} from '../domains.test.helper.ts';
import { grantState, type Mapping, mappings, recount, sharedEntries } from './recount.test.helper.ts';

const HANDLES = TEST_HANDLES;
/** Places of the window that are mapped at, and one more. */
const PLACES = 6;
const DOMAINS = [1, 2, 3];
const ENTRIES = 512;
const GRANT_TABLE = addressMap('x86').grantTable;

type Operation =
  | { kind: 'grant'; owner: number; ref: number; peer: number; frame: number; readonly: boolean }
  | { kind: 'map'; mapper: number; place: number; flags: number; ref: number; owner: number }
  | { kind: 'unmap'; mapper: number; handle: number; place: number | null }
  | { kind: 'revoke'; owner: number; ref: number; count: number };
type Of<Kind> = Extract<Operation, { kind: Kind }>;

class Bench {
  readonly xen = bootTestMachine();
  readonly domains = DOMAINS.map((id) => addDomain(this.xen, id, { maxMaptrackFrames: 1 }));

  domain(id: number): TestDomain {
    return this.domains[id - 1];
  }

  isMapped(owner: number, ref: number): boolean {
    return this.domains.flatMap(mappings).some((each) => each.owner === owner && each.ref === ref);
  }

  run(operation: Operation): void {
    if (operation.kind === 'grant') this.grant(operation);
    else if (operation.kind === 'map') this.map(operation);
    else if (operation.kind === 'unmap') this.unmap(operation);
    else this.revoke(operation);
  }

  /** Runs a hypercall that must answer as expected; a refusal must leave everything as it was. */
  check(expected: number, hypercall: () => number): void {
    const before = grantState(this.domains);
    const status = hypercall();
    assert.equal(Math.min(status, 0), expected);
    if (status < 0) assert.deepEqual(grantState(this.domains), before);
  }

  grant({ owner, ref, peer, frame, readonly }: Of<'grant'>): void {
    const { grantTable } = this.domain(owner).ports;
    if (!grantTable.isFree(ref as GrantRef)) return;
    grantTable.grant(ref as GrantRef, 1, peer as DomainId, frame as FrameNumber, readonly);
  }

  map({ mapper, place, flags, ref, owner }: Of<'map'>): void {
    const { record } = this.domain(mapper);
    const gfn = place < 0 ? PHYSMAP_FRAMES : record.window + place;
    this.check(this.expectedMap(this.domain(mapper), gfn, flags, ref, owner), () =>
      this.xen.grants.map(record, gfn, flags, ref, owner),
    );
  }

  /** The rules in the order of Xen's checks. */
  expectedMap(mapper: TestDomain, gfn: number, flags: number, ref: number, owner: number): number {
    if ((flags & 3) === 0) return GNTST_BAD_GNTREF;
    if (flags !== GNTMAP_HOST_MAP && flags !== (GNTMAP_HOST_MAP | GNTMAP_READONLY))
      return GNTST_GENERAL_ERROR;
    if (!DOMAINS.includes(owner)) return GNTST_BAD_DOMAIN;
    if (mappings(mapper).length === HANDLES) return GNTST_NO_SPACE;
    if (ref < 0 || ref >= ENTRIES) return GNTST_BAD_GNTREF;
    const entry = sharedEntries(this.domain(owner)).find((each) => each.ref === ref);
    if (entry === undefined || entry.domid !== mapper.id) return GNTST_GENERAL_ERROR;
    if (flags === GNTMAP_HOST_MAP && entry.flags & GTF_READONLY) return GNTST_GENERAL_ERROR;
    // Memory and the one frame of the grant table are the owner's own.
    if (entry.frame >= TEST_PAGES && entry.frame !== GRANT_TABLE) return GNTST_BAD_PAGE;
    const isFree = gfn < PHYSMAP_FRAMES && mapper.record.physmap.get(gfn) === P2M_NONE;
    return isFree ? GNTST_OKAY : GNTST_GENERAL_ERROR;
  }

  unmap({ mapper, handle, place }: Of<'unmap'>): void {
    const { record } = this.domain(mapper);
    const held = mappings(this.domain(mapper)).find((each) => each.handle === handle);
    const standsAt = ({ readonly, frame }: Mapping) =>
      p2mEntry(frame, readonly ? P2M_GRANT_READONLY : P2M_GRANT_WRITABLE);
    const places = Array.from({ length: PLACES }, (_, index) => record.window + index);
    const right = places.find((each) => held && record.physmap.get(each) === standsAt(held));
    const gfn = place === null && right !== undefined ? right : record.window + (place ?? 0);
    const expected =
      held === undefined
        ? GNTST_BAD_HANDLE
        : record.physmap.get(gfn) === standsAt(held)
          ? GNTST_OKAY
          : GNTST_GENERAL_ERROR;
    this.check(expected, () => this.xen.grants.unmap(record, gfn, handle));
  }

  revoke({ owner, ref: first, count }: Of<'revoke'>): void {
    const refs = Array.from({ length: Math.min(count, ENTRIES - first) }, (_, i) => first + i);
    const busy = refs.filter((ref) => this.isMapped(owner, ref));
    const { grantTable } = this.domain(owner).ports;
    assert.equal(grantTable.revoke(first as GrantRef, refs.length), busy.length);
    for (const ref of refs) assert.equal(grantTable.isFree(ref as GrantRef), !busy.includes(ref));
  }
}

const domain = fc.constantFrom(...DOMAINS);
const reference = fc.constantFrom(8, 9, 10, ENTRIES - 1);
const anyReference = fc.oneof(
  { weight: 9, arbitrary: reference },
  { weight: 1, arbitrary: fc.constantFrom(-1, 0, 11, ENTRIES, 0x7fff_ffff, 0xffff_ffff) },
);
const place = fc.integer({ min: -1, max: PLACES - 1 });
const operation: fc.Arbitrary<Operation> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('grant' as const),
      owner: domain,
      ref: reference,
      peer: domain,
      frame: fc.constantFrom(1, 2, TEST_PAGES - 1, TEST_PAGES, GRANT_TABLE, 5000, 0xffff_ffff),
      readonly: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constant('map' as const),
      mapper: domain,
      place,
      flags: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(2, 6) }, fc.nat(31)),
      ref: anyReference,
      owner: fc.oneof({ weight: 9, arbitrary: domain }, fc.constant(77)),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant('unmap' as const),
      mapper: domain,
      handle: fc.integer({ min: -1, max: PLACES }),
      place: fc.option(place, { freq: 2 }),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      kind: fc.constant('revoke' as const),
      owner: domain,
      ref: reference,
      count: fc.integer({ min: 1, max: 3 }),
    }),
  },
);

test('3 4 6: statuses are right, refusals change nothing, and a recount agrees after every operation', () => {
  fc.assert(
    fc.property(fc.array(operation, { minLength: 30, maxLength: 80 }), (operations) => {
      const bench = new Bench();
      for (const each of operations) {
        bench.run(each);
        recount(bench.domains);
      }
    }),
    { seed: 4, numRuns: 100 },
  );
});
