// What every implementation of the port src/xen/grant-mapper.ts must do, whoever maps.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_HANDLE,
  GNTST_GENERAL_ERROR,
  GNTST_NO_SPACE,
  GNTST_OKAY,
} from '../../src/abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import type { GrantMapper, GrantPages } from '../../src/xen/grant-mapper.ts';
import { grantPages } from '../../src/xen/grant-pages.test.helper.ts';
import type { DomainId } from '../../src/xen/ids.ts';

/** A page that its owner granted. */
export interface Granted {
  readonly ref: number;
  readonly bytes: Uint8Array;
  /** Ends access. Returns whether that was possible: not while it is mapped. */
  revoke(): boolean;
}

/** A mapper under test, and a guest that grants to its domain. */
export interface MapperUnderTest {
  readonly mapper: GrantMapper;
  readonly owner: DomainId;
  /** An id that no domain has. */
  readonly nobody: DomainId;
  /** Pages that can be mapped at the same time. */
  readonly places: number;
  /** Grants a page of its own. */
  grant(readonly: boolean): Granted;
  /** Gives back what it was made of. */
  close?(): void;
}

/** What cannot be seen with an implementation, and why. */
export interface MapperLimits {
  /** Why the owner cannot tell whether its page is mapped. */
  readonly blindOwner?: string;
  /** Why not as many pages are mapped as there are places. */
  readonly manyPlaces?: string;
}

/** A reference behind every table. */
const BEHIND = 0xffff_ffff;
/** Each is mapped so often that all places are taken. The embedded Xen has 255, and counts 128 mappings of one page. */
const FEW_PAGES = 8;

/** Runs the contract. */
export function grantMapperContract(
  name: string,
  make: () => MapperUnderTest,
  limits: MapperLimits = {},
): void {
  const owned = { skip: limits.blindOwner ?? false };
  const filled = { skip: limits.manyPlaces ?? false };
  const bytesOf = (mapper: GrantMapper, handle: number) =>
    mapper.region(handle).u8.subarray(mapper.offset(handle), mapper.offset(handle) + XEN_PAGE_SIZE);
  const mapped = ({ mapper, owner }: MapperUnderTest, readonly: boolean, ...refs: number[]): GrantPages => {
    const pages = grantPages(...refs);
    assert.equal(mapper.mapPages(owner, pages, readonly), GNTST_OKAY);
    return pages;
  };
  const refusal = ({ mapper, owner }: MapperUnderTest, readonly: boolean, ...refs: number[]): number =>
    mapper.mapPages(owner, grantPages(...refs), readonly);
  const using = (run: (made: MapperUnderTest) => void) => () => {
    const made = make();
    try {
      run(made);
    } finally {
      made.close?.();
    }
  };

  describe(`${name} maps as the port promises`, () => {
    test(
      'owner and peer see the same bytes, from both sides',
      using((made) => {
        const { mapper, grant } = made;
        const { ref, bytes } = grant(false);
        bytes.set([1, 2, 3], 100);
        const page = mapped(made, false, ref);
        const [handle] = page.handles;
        assert.ok(handle >= 0, `a handle, not ${handle}`);
        assert.deepEqual([...bytesOf(mapper, handle).subarray(99, 104)], [0, 1, 2, 3, 0]);
        bytesOf(mapper, handle)[4095] = 9;
        assert.equal(bytes[4095], 9);
        assert.equal(mapper.unmapPages(page), GNTST_OKAY);
      }),
    );

    test(
      'each page of a list is where no other is, at the beginning of a page, in the order of the list',
      using((made) => {
        const { mapper, grant } = made;
        const pages = Array.from({ length: 5 }, () => grant(false)).reverse();
        const list = mapped(made, false, ...pages.map(({ ref }) => ref));
        for (const [i, handle] of list.handles.entries()) {
          assert.equal(mapper.offset(handle) % XEN_PAGE_SIZE, 0);
          bytesOf(mapper, handle).fill(i + 1);
        }
        for (const [i, { bytes }] of pages.entries()) assert.ok(bytes.every((byte) => byte === i + 1));
        assert.equal(mapper.unmapPages(list), GNTST_OKAY);
      }),
    );

    test(
      'one page may be mapped more than once, also by one list, and each list ends by itself',
      using((made) => {
        const { mapper, grant } = made;
        const { ref, bytes } = grant(false);
        const [one, other] = [mapped(made, true, ref), mapped(made, false, ref, ref, ref)];
        const handles = [...one.handles, ...other.handles];
        assert.equal(new Set(handles).size, 4);
        assert.equal(mapper.unmapPages(one), GNTST_OKAY);
        for (const [i, handle] of other.handles.entries()) bytesOf(mapper, handle)[i] = 5;
        assert.deepEqual([...bytes.subarray(0, 4)], [5, 5, 5, 0]);
        assert.equal(mapper.unmapPages(other), GNTST_OKAY);
      }),
    );

    test(
      'an empty list is mapped and unmapped',
      using((made) => {
        assert.equal(made.mapper.unmapPages(mapped(made, false)), GNTST_OKAY);
      }),
    );

    test(
      'H16: what is granted for reading only is not mapped for writing, and can be read',
      using((made) => {
        const { mapper, grant } = made;
        const [{ ref, bytes }, other] = [grant(true), grant(false)];
        bytes[7] = 7;
        assert.equal(refusal(made, false, ref), GNTST_GENERAL_ERROR);
        assert.equal(refusal(made, false, other.ref, ref, other.ref), GNTST_GENERAL_ERROR);
        const pages = mapped(made, true, other.ref, ref, other.ref);
        assert.equal(bytesOf(mapper, pages.handles[1])[7], 7);
        assert.equal(mapper.unmapPages(pages), GNTST_OKAY);
      }),
    );

    test(
      'H1: references behind the table, references without a grant, and owners that do not exist are refused',
      using((made) => {
        const { mapper, nobody, grant } = made;
        const { ref, revoke } = grant(false);
        assert.equal(refusal(made, true, BEHIND), GNTST_BAD_GNTREF);
        assert.equal(mapper.mapPages(nobody, grantPages(ref), true), GNTST_BAD_DOMAIN);
        assert.equal(mapper.mapPages(nobody, grantPages(ref, ref), true), GNTST_BAD_DOMAIN);
        assert.ok(revoke(), 'a refusal leaves nothing in use');
        assert.equal(refusal(made, true, ref), GNTST_GENERAL_ERROR);
      }),
    );

    test(
      'H1: a list with a bad reference is not mapped, and the status is that of the first one that is bad',
      using((made) => {
        const { mapper, grant } = made;
        const [first, last, gone] = Array.from({ length: 3 }, () => grant(false));
        assert.ok(gone.revoke());
        for (const readonly of [true, false]) {
          assert.equal(refusal(made, readonly, first.ref, BEHIND, last.ref, gone.ref), GNTST_BAD_GNTREF);
          assert.equal(refusal(made, readonly, first.ref, last.ref, gone.ref, BEHIND), GNTST_GENERAL_ERROR);
        }
        assert.equal(mapper.unmapPages(mapped(made, false, first.ref, last.ref)), GNTST_OKAY);
        assert.ok(first.revoke() && last.revoke(), 'a refusal leaves nothing in use');
      }),
    );

    test(
      'H3: a list that is not mapped, or not any more, is refused',
      using((made) => {
        const { mapper, grant } = made;
        const { ref } = grant(false);
        const pages = grantPages(ref, ref);
        assert.equal(mapper.unmapPages(pages), GNTST_BAD_HANDLE);
        for (const wrong of [0, -1, 2 ** 20]) {
          pages.handles[0] = pages.handles[1] = wrong;
          assert.equal(mapper.unmapPages(pages), GNTST_BAD_HANDLE);
        }
        const list = mapped(made, false, ref, ref);
        assert.equal(mapper.unmapPages(list), GNTST_OKAY);
        assert.equal(mapper.unmapPages(list), GNTST_BAD_HANDLE);
      }),
    );

    test(
      'H6: a page that is mapped stays granted, also when only one of two mappings has ended',
      owned,
      using((made) => {
        const { mapper, grant } = made;
        const [{ ref, revoke }, other] = [grant(false), grant(false)];
        const lists = [mapped(made, false, ref), mapped(made, true, other.ref, ref)];
        assert.equal(revoke(), false);
        mapper.unmapPages(lists[0]);
        assert.equal(revoke(), false);
        mapper.unmapPages(lists[1]);
        assert.equal(revoke(), true);
      }),
    );

    test(
      'T17: a list that is longer than the places that are free is refused, and one that is as long is mapped',
      filled,
      using((made) => {
        const { mapper, owner, places, grant } = made;
        const few = Array.from({ length: FEW_PAGES }, () => grant(false));
        const refs = Array.from({ length: places }, (_, i) => few[i % FEW_PAGES].ref);
        const one = mapped(made, true, refs[0]);
        assert.equal(mapper.mapPages(owner, grantPages(...refs), true), GNTST_NO_SPACE);
        const rest = mapped(made, true, ...refs.slice(1));
        assert.equal(refusal(made, true, refs[0]), GNTST_NO_SPACE);
        assert.equal(mapper.unmapPages(one), GNTST_OKAY);
        assert.equal(mapper.unmapPages(mapped(made, true, refs[0])), GNTST_OKAY);
        assert.equal(mapper.unmapPages(rest), GNTST_OKAY);
        assert.ok(few.every(({ revoke }) => revoke()));
      }),
    );

    test(
      'any order of lists, good and bad ones, does what the same pages one by one do',
      using((made) => {
        const { mapper, owner, grant } = made;
        const granted = Array.from({ length: 5 }, (_, i) => {
          const page = grant(i === 3);
          page.bytes.fill(i + 1);
          return page;
        });
        assert.ok(granted[4].revoke());
        const refs = [...granted.map(({ ref }) => ref), BEHIND];
        // Mostly pages that are granted for writing, so that many lists are good.
        const page = fc.oneof(
          { weight: 12, arbitrary: fc.nat(2) },
          { weight: 1, arbitrary: fc.integer({ min: 3, max: 5 }) },
        );
        const steps = fc.record({
          list: fc.array(page, { minLength: 1, maxLength: 6 }),
          readonly: fc.boolean(),
          end: fc.boolean(),
        });
        fc.assert(
          fc.property(fc.array(steps, { maxLength: 20 }), (all) => {
            const live: { pages: GrantPages; list: number[] }[] = [];
            for (const { list, readonly, end } of all) {
              const oldest = end ? live.shift() : undefined;
              if (oldest !== undefined) assert.equal(mapper.unmapPages(oldest.pages), GNTST_OKAY);
              const pages = grantPages(...list.map((index) => refs[index]));
              const status = mapper.mapPages(owner, pages, readonly);
              const bad = list.find((index) => index > (readonly ? 3 : 2));
              if (bad === undefined) live.push({ pages, list });
              assert.equal(
                status,
                bad === undefined ? GNTST_OKAY : bad === 5 ? GNTST_BAD_GNTREF : GNTST_GENERAL_ERROR,
              );
              for (const each of live)
                assert.deepEqual(
                  each.list.map((_, i) => bytesOf(mapper, each.pages.handles[i])[17]),
                  each.list.map((index) => index + 1),
                );
            }
            for (const { pages } of live) assert.equal(mapper.unmapPages(pages), GNTST_OKAY);
          }),
          { seed: 6, numRuns: 30 },
        );
      }),
    );
  });
}
