// What every implementation of the port src/xen/grant-mapper.ts must do, whoever maps.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import fc from 'fast-check';
import {
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_BAD_HANDLE,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
} from '../../src/abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import type { GrantMapper } from '../../src/xen/grant-mapper.ts';
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
  /** Grants a page of its own. */
  grant(readonly: boolean): Granted;
  /** Gives back what it was made of. */
  close?(): void;
}

/** What cannot be seen with an implementation, and why. */
export interface MapperLimits {
  /** Why the owner cannot tell whether its page is mapped. */
  readonly blindOwner?: string;
}

/** Runs the contract. */
export function grantMapperContract(
  name: string,
  make: () => MapperUnderTest,
  limits: MapperLimits = {},
): void {
  const owned = { skip: limits.blindOwner ?? false };
  const bytesOf = (mapper: GrantMapper, handle: number) =>
    mapper.region(handle).u8.subarray(mapper.offset(handle), mapper.offset(handle) + XEN_PAGE_SIZE);
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
      using(({ mapper, owner, grant }) => {
        const { ref, bytes } = grant(false);
        bytes.set([1, 2, 3], 100);
        const handle = mapper.map(owner, ref, false);
        assert.ok(handle >= 0, `a handle, not ${handle}`);
        assert.deepEqual([...bytesOf(mapper, handle).subarray(99, 104)], [0, 1, 2, 3, 0]);
        bytesOf(mapper, handle)[4095] = 9;
        assert.equal(bytes[4095], 9);
        assert.equal(mapper.unmap(handle), GNTST_OKAY);
      }),
    );

    test(
      'a page is where no other is, and at the beginning of a page',
      using(({ mapper, owner, grant }) => {
        const pages = Array.from({ length: 5 }, () => grant(false));
        const handles = pages.map(({ ref }) => mapper.map(owner, ref, false));
        for (const [i, handle] of handles.entries()) {
          assert.equal(mapper.offset(handle) % XEN_PAGE_SIZE, 0);
          bytesOf(mapper, handle).fill(i + 1);
        }
        for (const [i, { bytes }] of pages.entries()) assert.ok(bytes.every((byte) => byte === i + 1));
        for (const handle of handles) assert.equal(mapper.unmap(handle), GNTST_OKAY);
      }),
    );

    test(
      'one page may be mapped more than once, and each mapping ends by itself',
      using(({ mapper, owner, grant }) => {
        const { ref, bytes } = grant(false);
        const [one, other] = [mapper.map(owner, ref, true), mapper.map(owner, ref, false)];
        assert.ok(one >= 0 && other >= 0 && one !== other);
        assert.equal(mapper.unmap(one), GNTST_OKAY);
        bytesOf(mapper, other)[0] = 5;
        assert.equal(bytes[0], 5);
        assert.equal(mapper.unmap(other), GNTST_OKAY);
      }),
    );

    test(
      'H16: what is granted for reading only is not mapped for writing, and can be read',
      using(({ mapper, owner, grant }) => {
        const { ref, bytes } = grant(true);
        bytes[7] = 7;
        assert.equal(mapper.map(owner, ref, false), GNTST_GENERAL_ERROR);
        const handle = mapper.map(owner, ref, true);
        assert.ok(handle >= 0, `a handle, not ${handle}`);
        assert.equal(bytesOf(mapper, handle)[7], 7);
        assert.equal(mapper.unmap(handle), GNTST_OKAY);
      }),
    );

    test(
      'H1: references behind the table, references without a grant, and owners that do not exist are refused',
      using(({ mapper, owner, nobody, grant }) => {
        const { ref, revoke } = grant(false);
        assert.equal(mapper.map(owner, 0xffff_ffff, true), GNTST_BAD_GNTREF);
        assert.equal(mapper.map(nobody, ref, true), GNTST_BAD_DOMAIN);
        assert.ok(revoke(), 'a refusal leaves nothing in use');
        assert.equal(mapper.map(owner, ref, true), GNTST_GENERAL_ERROR);
      }),
    );

    test(
      'H3: a handle that is none, or none any more, is refused',
      using(({ mapper, owner, grant }) => {
        assert.equal(mapper.unmap(0), GNTST_BAD_HANDLE);
        assert.equal(mapper.unmap(-1), GNTST_BAD_HANDLE);
        const handle = mapper.map(owner, grant(false).ref, false);
        assert.equal(mapper.unmap(handle), GNTST_OKAY);
        assert.equal(mapper.unmap(handle), GNTST_BAD_HANDLE);
      }),
    );

    test(
      'H6: a page that is mapped stays granted, also when only one of two mappings has ended',
      owned,
      using(({ mapper, owner, grant }) => {
        const { ref, revoke } = grant(false);
        const handles = [mapper.map(owner, ref, false), mapper.map(owner, ref, true)];
        assert.equal(revoke(), false);
        mapper.unmap(handles[0]);
        assert.equal(revoke(), false);
        mapper.unmap(handles[1]);
        assert.equal(revoke(), true);
      }),
    );

    test(
      'any order of mapping and unmapping shows every page at its own place',
      using(({ mapper, owner, grant }) => {
        const pages = Array.from({ length: 4 }, (_, i) => {
          const page = grant(false);
          page.bytes.fill(i + 1);
          return page;
        });
        fc.assert(
          fc.property(
            fc.array(fc.record({ page: fc.nat(3), end: fc.boolean() }), { maxLength: 40 }),
            (steps) => {
              const live: { handle: number; page: number }[] = [];
              for (const { page, end } of steps) {
                const oldest = end ? live.shift() : undefined;
                if (oldest !== undefined) assert.equal(mapper.unmap(oldest.handle), GNTST_OKAY);
                else live.push({ handle: mapper.map(owner, pages[page].ref, true), page });
                for (const each of live) assert.equal(bytesOf(mapper, each.handle)[17], each.page + 1);
              }
              for (const { handle } of live) assert.equal(mapper.unmap(handle), GNTST_OKAY);
            },
          ),
          { seed: 6, numRuns: 30 },
        );
      }),
    );
  });
}
