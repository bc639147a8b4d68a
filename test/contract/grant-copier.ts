// What every implementation of the port src/xen/grant-copier.ts must do, whoever copies.

import assert from 'node:assert/strict';
import { after, describe, test } from 'node:test';
import fc from 'fast-check';
import {
  GNTST_BAD_COPY_ARG,
  GNTST_BAD_DOMAIN,
  GNTST_BAD_GNTREF,
  GNTST_GENERAL_ERROR,
  GNTST_OKAY,
} from '../../src/abi/grant.ts';
import { XEN_PAGE_SIZE } from '../../src/abi/xen.ts';
import { type GrantCopier, GrantCopies } from '../../src/xen/grant-copier.ts';
import type { DomainId } from '../../src/xen/ids.ts';

/** A copier under test, and a guest that grants to its domain. */
export interface CopierUnderTest {
  readonly copier: GrantCopier;
  readonly owner: DomainId;
  /** An id that no domain has. */
  readonly nobody: DomainId;
  /** A page of the guest's. */
  page(number: number): Uint8Array;
  /** Grants a page, or the part of it that begins at `offset`. Returns the reference. */
  grant(number: number, readonly: boolean, part?: { offset: number; length: number }): number;
  /** Ends access. Returns whether that was possible. */
  revoke(ref: number): boolean;
  /** Gives back what it was made of. */
  close?(): void;
}

/** What an owner cannot do, and why. */
export interface CopierLimits {
  /** Why parts of pages cannot be granted. */
  readonly wholePages?: string;
}

type Make = () => CopierUnderTest;

/** A reference, an offset in its page, a length, a place. */
type Element = readonly [ref: number, offset: number, length: number, place: number];

function listOf(...elements: readonly Element[]): GrantCopies {
  const copies = new GrantCopies();
  for (const element of elements) copies.add(...element);
  return copies;
}

const statusesOf = ({ statuses, count }: GrantCopies) => statuses.slice(0, count);

/** Runs the contract. */
export function grantCopierContract(name: string, makeOne: Make, limits: CopierLimits = {}): void {
  const parts = { skip: limits.wholePages ?? false };
  describe(`${name} copies as the port promises`, () => {
    const all: CopierUnderTest[] = [];
    const make = (): CopierUnderTest => {
      const made = makeOne();
      all.push(made);
      return made;
    };
    after(() => {
      for (const { close } of all) close?.();
    });

    test('bytes come in and go out, over the borders of pages of the copier’s own', () => {
      const { copier, owner, page, grant } = make();
      const place = copier.takePages(2) + XEN_PAGE_SIZE - 5;
      page(0).forEach((_, i, bytes) => {
        bytes[i] = i * 7;
      });
      const before = page(0).slice();
      const ref = grant(0, false);
      assert.equal(copier.copyIn(owner, listOf([ref, 100, 300, place])), GNTST_OKAY);
      assert.deepEqual(copier.region.u8.slice(place, place + 300), before.slice(100, 400));
      copier.region.u8.fill(0xc7, place, place + 300);
      assert.equal(copier.copyOut(owner, listOf([ref, 1000, 300, place])), GNTST_OKAY);
      before.fill(0xc7, 1000, 1300);
      assert.deepEqual(page(0).slice(), before);
    });

    test('each element has its own status; the first refusal is what the call says', () => {
      const { copier, owner, page, grant } = make();
      const place = copier.takePages(1);
      page(0).fill(0x11);
      const ref = grant(0, false);
      const copies = listOf([ref, 0, 8, place], [9999, 0, 8, place + 8], [ref, 4090, 8, place + 16], [
        ref,
        8,
        8,
        place + 24,
      ] as const);
      assert.equal(copier.copyIn(owner, copies), GNTST_BAD_GNTREF);
      assert.deepEqual(statusesOf(copies), [GNTST_OKAY, GNTST_BAD_GNTREF, GNTST_BAD_COPY_ARG, GNTST_OKAY]);
      const expected = [0x11, 0, 0, 0x11].flatMap((byte) => Array<number>(8).fill(byte));
      assert.deepEqual([...copier.region.u8.subarray(place, place + 32)], expected);
    });

    test('a list is used again, shorter: what it held before is not copied', () => {
      const { copier, owner, page, grant } = make();
      const place = copier.takePages(1);
      page(0).fill(0x22);
      const ref = grant(0, true);
      const copies = listOf([ref, 0, 8, place], [ref, 0, 8, place + 8]);
      assert.equal(copier.copyIn(owner, copies), GNTST_OKAY);
      copier.region.u8.fill(0, place, place + 16);
      copies.clear();
      assert.equal(copier.copyIn(owner, copies), GNTST_OKAY);
      copies.add(ref, 0, 8, place);
      assert.equal(copier.copyIn(owner, copies), GNTST_OKAY);
      assert.deepEqual([...copier.region.u8.subarray(place + 8, place + 16)], Array(8).fill(0));
    });

    test('H16: what is granted for reading only is not written to', () => {
      const { copier, owner, page, grant } = make();
      const place = copier.takePages(1);
      page(0).fill(0x33);
      const ref = grant(0, true);
      copier.region.u8.fill(0xba, place, place + 8);
      assert.equal(copier.copyOut(owner, listOf([ref, 0, 8, place])), GNTST_GENERAL_ERROR);
      assert.ok(page(0).every((byte) => byte === 0x33));
      assert.equal(copier.copyIn(owner, listOf([ref, 0, 8, place])), GNTST_OKAY);
    });

    test('H12: a copy past the end of the granted page is refused', () => {
      const { copier, owner, grant } = make();
      const place = copier.takePages(2);
      const ref = grant(0, false);
      for (const [offset, length] of [
        [4095, 2],
        [1, 4096],
        [4096, 1],
      ]) {
        assert.equal(copier.copyIn(owner, listOf([ref, offset, length, place])), GNTST_BAD_COPY_ARG);
        assert.equal(copier.copyOut(owner, listOf([ref, offset, length, place])), GNTST_BAD_COPY_ARG);
      }
    });

    test('H15: of a part exactly its bytes are copied, and none beside them, in or out', parts, () => {
      fc.assert(
        fc.property(
          fc.nat(4095),
          fc.integer({ min: 1, max: 4096 }),
          fc.nat(4095),
          fc.integer({ min: 1, max: 4096 }),
          (start, length, from, asked) => {
            const { copier, owner, page, grant } = make();
            const part = { offset: start, length: Math.min(length, 4096 - start) };
            const piece = Math.min(asked, 4096 - from);
            const inside = from >= part.offset && from + piece <= part.offset + part.length;
            page(0).fill(0x44);
            const place = copier.takePages(1);
            const ref = grant(0, false, part);
            const expected = inside ? GNTST_OKAY : GNTST_GENERAL_ERROR;
            assert.equal(copier.copyIn(owner, listOf([ref, from, piece, place])), expected);
            assert.equal(copier.region.u8[place], inside ? 0x44 : 0);
            copier.region.u8.fill(0xba, place, place + piece);
            assert.equal(copier.copyOut(owner, listOf([ref, from, piece, place])), expected);
            const written = page(0).filter((byte) => byte !== 0x44).length;
            assert.equal(written, inside ? piece : 0);
          },
        ),
        {
          seed: 12,
          numRuns: 60,
          examples: [
            [17, 5, 16, 5],
            [17, 5, 17, 6],
            [17, 5, 17, 5],
            [0, 4096, 0, 4096],
          ],
        },
      );
    });

    test('access that has ended, and owners that do not exist, are refused', () => {
      const { copier, owner, nobody, grant, revoke } = make();
      const place = copier.takePages(1);
      const ref = grant(0, false);
      const copies = listOf([ref, 8, 8, place]);
      assert.equal(copier.copyIn(owner, copies), GNTST_OKAY);
      assert.ok(revoke(ref), 'a copy leaves nothing in use');
      assert.ok(copier.copyIn(owner, copies) < 0);
      assert.equal(copier.copyIn(nobody, copies), GNTST_BAD_DOMAIN);
    });

    test('G17: of two parts of one page, one goes on when the other ends', parts, () => {
      const { copier, owner, grant, revoke } = make();
      const place = copier.takePages(1);
      const one = grant(0, false, { offset: 0, length: 8 });
      const other = grant(0, false, { offset: 8, length: 8 });
      assert.ok(revoke(one));
      assert.ok(copier.copyIn(owner, listOf([one, 0, 8, place])) < 0);
      assert.equal(copier.copyIn(owner, listOf([other, 8, 8, place])), GNTST_OKAY);
    });

    test('pages are zeroed, in a row, and an end to them is an outcome', () => {
      const { copier } = make();
      const place = copier.takePages(3);
      copier.region.u8.fill(0xba, place, place + 3 * XEN_PAGE_SIZE);
      copier.givePages(place, 3);
      assert.equal(copier.takePages(1_000_000), -1);
      const taken: number[] = [];
      for (let at = copier.takePages(1); at >= 0; at = copier.takePages(1)) taken.push(at);
      assert.equal(new Set(taken).size, taken.length);
      for (const at of taken)
        assert.ok(copier.region.u8.subarray(at, at + XEN_PAGE_SIZE).every((byte) => byte === 0));
    });
  });
}
